"""Autoregressions of many lags: our solvers beside statsmodels' AutoReg, time and memory.

    python benchmarks/arnet_exact.py [--json FILE] [--lags 10,100] [--autoreg-up-to 1000]

Every fit runs in a process of its own, which times it (processor time of one thread, after a
warm-up on a short series) and reports the memory it reached. For each number of lags the solvers
take turns; `exact` runs before and after AutoReg. AutoReg runs in its own environment
(tests/parity/install_statsmodels.sh); without it there are no such columns. `sgd` is the recipe of
AR-Net's first code: 10 epochs. `..._gap` is the largest difference from AutoReg's coefficients, or
from those of `exact` where AutoReg was not run.

With --json the growth in the number of lags is drawn beside it, as NAME.png.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
PEER = Path(
    os.environ.get("STATSMODELS_PYTHON", ROOT / ".peers" / "statsmodels" / "bin" / "python")
)
LAGS = (10, 30, 100, 300, 500, 1000, 2000, 4000)
SOLVERS = ("exact", "autoreg", "levinson", "sgd")
COLOURS = {"exact": "#2171b5", "autoreg": "#525252", "levinson": "#41ab5d", "sgd": "#d94801"}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--lags", default=",".join(map(str, LAGS)))
    parser.add_argument("--samples", type=int, default=100_000)
    parser.add_argument("--autoreg-up-to", type=int, default=1000, help="its memory grows with p")
    parser.add_argument("--repeats", type=int, default=3, help="of our exact solver")
    parser.add_argument("--json", type=Path, help="also write the result here, and a picture")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        return child(*arguments.child)

    from seqgen.benchmark import print_result, result, write_result
    from seqgen_time_series.linear.synthetic import random_coefficients, simulate

    rows = []
    with tempfile.TemporaryDirectory() as folder:
        series = Path(folder) / "series.npy"
        y = simulate(random_coefficients(10, seed=11), arguments.samples, seed=0)
        np.save(series, y)
        for lags in map(int, arguments.lags.split(",")):
            peer = lags <= arguments.autoreg_up_to and PEER.exists()
            rows.append(measure(series, lags, peer=peer, repeats=arguments.repeats))
            print(rows[-1], file=sys.stderr, flush=True)
    outcome = result("arnet_exact", rows)
    print_result(outcome)
    if arguments.json:
        write_result(outcome, arguments.json)
        draw(outcome["rows"], arguments.samples, arguments.json.with_suffix(".png"))
    return None


def measure(series: Path, lags: int, *, peer: bool, repeats: int) -> dict[str, Any]:
    """One row: all solvers on one number of lags."""
    turns = ["exact"] * repeats + ["levinson", "sgd"]
    if peer:
        turns.insert(repeats // 2 + 1, "autoreg")
    found: dict[str, list[dict[str, Any]]] = {}
    for solver in turns:
        found.setdefault(solver, []).append(run(series, solver, lags))
    row: dict[str, Any] = {"case": f"p = {lags}", "lags": lags}
    reference = np.array(found["autoreg" if peer else "exact"][0]["coefficients"])
    for solver in SOLVERS:
        if solver not in found:
            continue
        fits = found[solver]
        row[f"{solver}_ms"] = 1e3 * float(np.median([fit["seconds"] for fit in fits]))
        row[f"{solver}_mb"] = max(fit["peak_mb"] for fit in fits)
        if solver != ("autoreg" if peer else "exact"):
            gap = np.abs(np.array(fits[0]["coefficients"]) - reference).max()
            row[f"{solver}_gap"] = float(gap)
    if peer:
        row["autoreg_over_exact"] = row["autoreg_ms"] / row["exact_ms"]
    return row


def run(series: Path, solver: str, lags: int) -> dict[str, Any]:
    """One fit in a process of its own."""
    python = PEER if solver == "autoreg" else Path(sys.executable)
    output = series.with_name(f"{solver}.json")
    command = [python, __file__, "--child", solver, str(lags), series, output]
    paths = os.pathsep.join(str(ROOT / part) for part in ("core", "plugins"))
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"{solver} with {lags} lags failed:\n{done.stderr[-2000:]}")
    return dict(json.loads(output.read_text()))


def child(solver: str, lags: str, series: str, output: str) -> None:
    """Fit in this process; runs in the peer's environment too, without seqgen."""
    y = np.load(series)
    fit = autoreg if solver == "autoreg" else ours(solver)
    fit(y[:300], 10)
    started = time.process_time()
    coefficients = fit(y, int(lags))
    seconds = time.process_time() - started
    report = {"seconds": seconds, "peak_mb": peak(), "coefficients": coefficients.tolist()}
    Path(output).write_text(json.dumps(report))


def autoreg(y: Any, lags: int) -> Any:
    from statsmodels.tsa.ar_model import AutoReg

    return AutoReg(y, lags=lags, trend="c").fit().params[1:]


def ours(solver: str) -> Any:
    from seqgen_time_series.linear.model import ARNet
    from seqgen_time_series.linear.recipe import SgdConfig, paper_recipe

    if solver == "sgd":
        import torch

        torch.set_num_threads(1)
    recipe = paper_recipe() if solver == "sgd" else SgdConfig()

    def fit(y: Any, lags: int) -> Any:
        return ARNet(lags=lags, solver=solver, sgd=recipe).fit(y).coefficients[0]  # type: ignore[arg-type]

    return fit


def peak() -> float:
    """Largest resident memory of this process in MB, interpreter and libraries included.

    Not from getrusage, which a process inherits from the one that started it.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return float(line.split()[1]) / 1024
    return float("nan")


def draw(rows: list[dict[str, Any]], samples: int, path: Path) -> None:
    """Time and memory over the number of lags."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    time_axes, memory_axes = figure.subplots(1, 2)
    labels = {
        "autoreg": "statsmodels AutoReg",
        "exact": "exact",
        "levinson": "levinson (Yule-Walker)",
        "sgd": "sgd (AR-Net, 10 epochs)",
    }
    for solver, label in labels.items():
        for axes, unit, factor in ((time_axes, "ms", 1e-3), (memory_axes, "mb", 1.0)):
            shown = [row for row in rows if f"{solver}_{unit}" in row]
            axes.plot(
                [row["lags"] for row in shown],
                [row[f"{solver}_{unit}"] * factor for row in shown],
                color=COLOURS[solver],
                marker="o",
                markersize=4,
                label=label,
            )
    time_axes.set_ylabel("seconds of one thread")
    memory_axes.set_ylabel("memory of the process, MB")
    for axes in (time_axes, memory_axes):
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("lags p")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", linewidth=0.4, color="#d9d9d9")
    time_axes.legend(frameon=False, fontsize=9)
    figure.suptitle(f"Autoregressions on {samples:,} samples")
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
