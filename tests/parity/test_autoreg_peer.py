"""The exact solver beside statsmodels' AutoReg: `make peers`.

statsmodels lives in an environment of its own (tests/parity/install_statsmodels.sh), where
autoreg_reference.py runs. The numbers that `make test` compares with are written by

    python tests/parity/test_autoreg_peer.py
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from seqgen_time_series.linear.model import ARNet
from seqgen_time_series.linear.order import select_order
from seqgen_time_series.linear.synthetic import random_coefficients, simulate

HERE = Path(__file__).parent
PYTHON = Path(
    os.environ.get(
        "STATSMODELS_PYTHON", HERE.parents[1] / ".peers" / "statsmodels" / "bin" / "python"
    )
)
GOLDEN = HERE / "golden" / "autoreg.json"
PROCESS, SAMPLES = 11, 100_000

pytestmark = pytest.mark.peer


def autoreg(series: dict[str, NDArray[np.float64]]) -> dict[str, Any]:
    """What AutoReg says of series named LABEL@LAGS."""
    if not PYTHON.exists():
        pytest.skip(f"no statsmodels at {PYTHON}: run tests/parity/install_statsmodels.sh")
    with tempfile.TemporaryDirectory() as folder:
        source, result = Path(folder) / "series.npz", Path(folder) / "result.json"
        np.savez(source, **series)
        command = [PYTHON, HERE / "autoreg_reference.py", source, result]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        return dict(json.loads(result.read_text()))


def test_coefficients_and_standard_errors() -> None:
    seed = secrets.randbelow(10_000)
    print(f"seed {seed}")  # shown when a test fails
    truth = random_coefficients(10, seed=seed)
    series = {
        f"{n}@{p}": simulate(truth, n, seed=seed + p, level=50.0)
        for n, p in ((SAMPLES, 10), (SAMPLES, 100), (5000, 300))
    }
    for name, theirs in autoreg(series).items():
        if name == "statsmodels":
            continue
        ours = ARNet(lags=int(name.split("@")[1])).fit(series[name])
        params, bse = np.array(theirs["params"]), np.array(theirs["bse"])
        np.testing.assert_allclose(ours.coefficients[0], params[1:], rtol=0, atol=1e-9)
        assert ours.intercept[0] == pytest.approx(params[0], abs=1e-7)
        np.testing.assert_allclose(ours.standard_errors[0], bse[1:], rtol=1e-6)
        assert ours.intercept_errors_H[0] == pytest.approx(bse[0], rel=1e-6)


def test_singular_series_have_no_larger_error() -> None:
    n = 3000
    t = np.arange(n, dtype=np.float64)
    noise = np.random.default_rng(0).normal(size=n)
    shapes = {
        "constant": np.full(n, 1e6 / 3),
        "sine": np.sin(2 * np.pi * t / 24),
        "sine with noise of 1e-6": np.sin(2 * np.pi * t / 24) + 1e-6 * noise,
        "line": 0.5 * t + 3.0,
        "parabola": t**2,
        "random walk at 1e6": 1e6 + noise.cumsum(),
    }
    series = {f"{name}@{p}": y for name, y in shapes.items() for p in (10, 50)}
    theirs = autoreg(series)
    for name, y in series.items():
        lags = int(name.split("@")[1])
        errors = y[lags:] - ARNet(lags=lags).fit(y).predict(y)[:-1, 0]
        ours = float(np.sqrt(np.mean(np.square(errors))))
        print(f"{name}: RMSE {ours:.3g}, AutoReg {theirs[name]['rmse']:.3g}")
        assert ours <= theirs[name]["rmse"] * (1 + 1e-6)


def test_orders() -> None:
    series = {
        f"{seed}@order@12": simulate([0.5, -0.3, 0.0, 0.2], 800, seed=seed) for seed in range(5)
    }
    for name, theirs in autoreg(series).items():
        if name == "statsmodels":
            continue
        for criterion in ("aic", "bic"):
            ours = select_order(series[name], 12, criterion=criterion)
            assert ours.best == theirs[criterion], (name, criterion)


def test_the_golden_numbers_are_still_those_of_autoreg() -> None:
    kept = json.loads(GOLDEN.read_text())["fits"]
    for lags, entry in golden_fits((10, 100)).items():
        np.testing.assert_allclose(
            entry["coefficients"], kept[lags]["coefficients"], rtol=0, atol=1e-12
        )


def golden_fits(orders: tuple[int, ...]) -> dict[str, dict[str, Any]]:
    truth = random_coefficients(10, seed=PROCESS)
    series = {f"golden@{p}": simulate(truth, SAMPLES, seed=p) for p in orders}
    theirs = autoreg(series)
    return {
        name.split("@")[1]: {
            "sum": float(y.sum()),
            "intercept": theirs[name]["params"][0],
            "coefficients": theirs[name]["params"][1:],
        }
        for name, y in series.items()
    }


if __name__ == "__main__":
    made = {"process": PROCESS, "samples": SAMPLES, "fits": golden_fits((10, 100, 500))}
    GOLDEN.write_text(json.dumps(made) + "\n")
