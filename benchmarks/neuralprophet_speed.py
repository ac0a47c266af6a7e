"""AR-Net fitted exactly against NeuralProphet 0.9.0: seconds to fit, and mean absolute error.

    make peers      (or tests/parity/install_neuralprophet.sh)
    PYTHONPATH=core:plugins .peers/neuralprophet/bin/python benchmarks/neuralprophet_speed.py \
        [--data yosemite_temps.csv] [--repeats 1] [--epochs 100] [--json FILE]

The series is NeuralProphet's own example: temperatures in Yosemite, every five minutes. Both
forecast 24 steps from 288 lags, directly; the last fifth is the test part, and every window of it
counts. Fits take turns in one process on one thread; `cpu_s` is processor time, `wall_s` wall time.

    ours                    ARNet(lags=288, horizon=24, penalty="ridge"); its strength is the best
                            of four on the last fifth of the training part; in the time too
    NeuralProphet           its defaults (trend and seasonality on) but the learning rate; --epochs
    NeuralProphet, automatic epochs
                            as many as it chooses itself, trend and seasonality off
    seasonal naive          the value of the day before

NeuralProphet's automatic learning rate fails beside this torch unless `torch.load` reads pickles
(weights_only=False); the rate 0.003 is given here, with which it did best of what was tried.
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from numpy.typing import NDArray

from seqgen.benchmark import print_result, result, write_result
from seqgen_time_series.backtest import pairs
from seqgen_time_series.linear.model import ARNet

ROOT = Path(__file__).resolve().parents[1]
FILE = Path(os.environ.get("SEQGEN_DATA", ROOT.parent / "shared" / "data"))
FILE = FILE / "timeseries" / "neuralprophet_mit" / "yosemite_temps.csv"
LAGS, HORIZON, SEASON, TEST = 288, 24, 288, 0.2
RATE = 0.003
STRENGTHS = (0.0, 1e-4, 1e-3, 1e-2)

Floats = NDArray[np.float64]
Forecaster = Callable[[Floats], Floats]
"""Contexts [W, LAGS] -> forecasts [W, HORIZON]."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=FILE)
    parser.add_argument("--repeats", type=int, default=1, help="rounds of fits")
    parser.add_argument("--epochs", type=int, default=100, help="of NeuralProphet")
    parser.add_argument("--limit", type=int, default=0, help="first values only; 0: all")
    parser.add_argument("--json", type=Path, help="also write the result here")
    arguments = parser.parse_args()
    if importlib.util.find_spec("neuralprophet") is None:
        parser.error(
            "NeuralProphet is not installed here: run `make peers`, then call this as --help says"
        )
    if not arguments.data.is_file():
        parser.error(f"{arguments.data} does not exist: --data FILE")
    torch.set_num_threads(1)
    quieten()
    import pandas as pd

    table = pd.read_csv(arguments.data, parse_dates=["ds"])
    table = table.iloc[: arguments.limit or len(table)]
    cut = round(len(table) * (1 - TEST))
    peers: dict[str, Callable[[], Floats]] = {
        "ours": lambda: ours(table["y"].to_numpy(np.float64), cut),
        f"NeuralProphet, {arguments.epochs} epochs": lambda: theirs(
            table, cut, epochs=arguments.epochs, plain=False
        ),
        "NeuralProphet, automatic epochs": lambda: theirs(table, cut, epochs=None, plain=True),
    }
    used: dict[str, list[tuple[float, float]]] = {name: [] for name in peers}
    errors: dict[str, float] = {}
    ours(table["y"].to_numpy(np.float64), cut)  # lazy imports
    for _ in range(arguments.repeats):
        for name, fit_and_test in peers.items():
            CLOCK.clear()
            errors[name] = float(np.abs(fit_and_test()).mean())
            used[name].append((CLOCK[0], CLOCK[1]))
    contexts_WL, targets_WH = test_windows(table["y"].to_numpy(np.float64), cut)
    naive = float(np.abs(contexts_WL[:, :HORIZON] - targets_WH).mean())
    base = np.median([cpu for cpu, _ in used["ours"]])
    rows: list[dict[str, float | str]] = [
        {
            "case": name,
            "mae": errors[name],
            "cpu_s": float(np.median([cpu for cpu, _ in used[name]])),
            "wall_s": float(np.median([wall for _, wall in used[name]])),
            "cpu_over_ours": float(np.median([cpu for cpu, _ in used[name]]) / base),
        }
        for name in peers
    ]
    rows.append({"case": "seasonal naive", "mae": naive})
    outcome = result("neuralprophet_speed", rows)
    print_result(outcome)
    if arguments.json:
        write_result(outcome, arguments.json)


CLOCK: list[float] = []
"""Processor and wall seconds of the latest fit."""


def fitting(fit: Callable[[], object]) -> None:
    started, used = time.perf_counter(), time.process_time()
    fit()
    CLOCK[:] = [time.process_time() - used, time.perf_counter() - started]


def test_windows(y: Floats, cut: int) -> tuple[Floats, Floats]:
    """All windows whose targets lie in the test part."""
    return pairs(y[cut - LAGS :], LAGS, HORIZON)


def ours(y: Floats, cut: int) -> Floats:
    """Errors [W, H] of our forecasts."""
    weights: list[tuple[Floats, Floats]] = []

    def fit() -> None:
        inner = round(cut * (1 - TEST))
        contexts_WL, targets_WH = pairs(y[inner - LAGS : cut], LAGS, HORIZON)

        def error(strength: float) -> float:
            found = model(strength).fit(y[:inner])
            made_WH = contexts_WL @ found.coefficients[:, ::-1].T + found.intercept
            return float(np.abs(made_WH - targets_WH).mean())

        fitted = model(min(STRENGTHS, key=error)).fit(y[:cut])
        weights.append((fitted.coefficients[:, ::-1].T, fitted.intercept))

    fitting(fit)
    contexts_WL, targets_WH = test_windows(y, cut)
    matrix_LH, intercept_H = weights[0]
    return np.asarray(contexts_WL @ matrix_LH + intercept_H - targets_WH)


def model(strength: float) -> ARNet:
    return ARNet(lags=LAGS, horizon=HORIZON, penalty="ridge", strength=strength)


def theirs(table: object, cut: int, *, epochs: int | None, plain: bool) -> Floats:
    """Errors [W, H] of NeuralProphet's forecasts of the same windows."""
    import pandas as pd
    from neuralprophet import NeuralProphet, set_random_seed

    assert isinstance(table, pd.DataFrame)
    set_random_seed(0)
    off = (
        {"growth": "off", "yearly_seasonality": False, "weekly_seasonality": False,
         "daily_seasonality": False}
        if plain
        else {}
    )  # fmt: skip
    network = NeuralProphet(
        n_lags=LAGS, n_forecasts=HORIZON, learning_rate=RATE, epochs=epochs, **off
    )
    fitting(lambda: network.fit(table.iloc[:cut], freq="5min", progress=None, minimal=True))
    made = network.predict(table.iloc[cut - LAGS :])
    # Row ds holds in column yhat<h> what was forecast h steps before.
    columns = np.stack([made[f"yhat{h}"].to_numpy(np.float64) for h in range(1, HORIZON + 1)])
    windows = len(table) - cut - HORIZON + 1
    forecast_WH = np.stack(
        [columns[h, LAGS + h : LAGS + h + windows] for h in range(HORIZON)], axis=1
    )
    _, targets_WH = test_windows(table["y"].to_numpy(np.float64), cut)
    assert forecast_WH.shape == targets_WH.shape
    assert np.isfinite(forecast_WH).all()
    return np.asarray(forecast_WH - targets_WH)


def quieten() -> None:
    """NeuralProphet logs every fit, and Lightning warns of what does not matter here."""
    warnings.simplefilter("ignore")
    for name in ("NP", "pytorch_lightning", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.ERROR)


if __name__ == "__main__":
    main()
