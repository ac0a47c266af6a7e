"""Long horizons on ETTh1: the direct linear model against seasonal naive.

    python benchmarks/etth1.py [--data ETTh1.csv] [--json FILE] [--horizons 96 192 336 720]

The usual setting: the first 8640 hours to train, 2880 to validate, 2880 to test; every column
z-scored with the mean and the deviation of its training part and forecast by itself, by one model
for all seven; MSE and MAE are means over all windows, steps and columns. A window may begin before
its part does, its targets may not. EVERY window counts: many published loaders drop the last batch
of the test part (drop_last), so compare with their figures loosely.

The model is AR-Net with direct steps: 336 lags, the window's mean subtracted, ridge, fitted exactly
to the training part. The penalty is the one of five that is best on the validation part; the test
part is looked at once. Seasonal naive repeats the last 24 hours.

The file is ETTh1.csv of zhouhaoyi/ETDataset (CC BY-ND 4.0), as it is there.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator, Sequence
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
FILE = FILE / "timeseries" / "ett_ccbynd" / "ETTh1.csv"
TRAIN, VALIDATION, TEST = 8640, 2880, 2880
LAGS, SEASON = 336, 24
HORIZONS = (96, 192, 336, 720)
STRENGTHS = (1e-3, 1e-2, 0.1, 0.3, 1.0)

Floats = NDArray[np.float64]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=FILE)
    parser.add_argument("--horizons", type=int, nargs="+", default=list(HORIZONS))
    parser.add_argument("--json", type=Path, help="also write the result here")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    columns = read(arguments.data)
    rows = [measure(columns, horizon) for horizon in arguments.horizons]
    outcome = result("etth1", rows)
    print_result(outcome)
    if arguments.json:
        write_result(outcome, arguments.json)


def read(path: Path) -> Floats:
    """The columns [7, N], z-scored with their training parts."""
    table = np.loadtxt(path, delimiter=",", skiprows=1, usecols=range(1, 8))
    train = table[:TRAIN]
    return np.asarray(((table - train.mean(axis=0)) / train.std(axis=0)).T)


def measure(columns: Floats, horizon: int) -> dict[str, float | str]:
    """One row: fit, choose the penalty on the validation part, test."""
    started = time.perf_counter()
    found = []
    for strength in STRENGTHS:
        model = ARNet(
            lags=LAGS, horizon=horizon, penalty="ridge", strength=strength, window_mean=True,
            intercept=False,
        )  # fmt: skip
        fitted = model.fit_many([column[:TRAIN] for column in columns])
        # Oldest lag first, as a window is.
        weights_LH = fitted.coefficients[:, ::-1].T
        found.append((linear(columns, weights_LH, horizon, TRAIN, VALIDATION)[0], weights_LH))
    best = min(range(len(found)), key=lambda place: found[place][0])
    start = TRAIN + VALIDATION
    mse, mae, windows = linear(columns, found[best][1], horizon, start, TEST)
    seconds = time.perf_counter() - started
    naive_mse, naive_mae, _ = seasonal(columns, horizon, start, TEST)
    return {
        "case": f"H = {horizon}",
        "mse": mse,
        "mae": mae,
        "naive_mse": naive_mse,
        "naive_mae": naive_mae,
        "windows_a_column": windows,
        "strength": STRENGTHS[best],
        "validation_mse": found[best][0],
        "seconds": seconds,
    }


def linear(
    columns: Floats, weights_LH: Floats, horizon: int, start: int, length: int
) -> tuple[float, float, int]:
    """MSE, MAE and windows a column of a linear forecast."""
    return _errors(
        contexts_WL @ weights_LH - targets_WH
        for contexts_WL, targets_WH in _windows(columns, horizon, start, length)
    )


def seasonal(columns: Floats, horizon: int, start: int, length: int) -> tuple[float, float, int]:
    """The same of seasonal naive."""
    last = LAGS - SEASON + np.arange(horizon) % SEASON
    return _errors(
        contexts_WL[:, last] - targets_WH
        for contexts_WL, targets_WH in _windows(columns, horizon, start, length)
    )


def _windows(
    columns: Floats, horizon: int, start: int, length: int
) -> Iterator[tuple[Floats, Floats]]:
    """All windows of every column whose targets lie in a part: [W, L] and [W, H]."""
    for column in columns:
        contexts_WL, targets_WH = pairs(column[start - LAGS : start + length], LAGS, horizon)
        assert len(contexts_WL) == length - horizon + 1
        yield contexts_WL, targets_WH


def _errors(errors: Iterator[Floats] | Sequence[Floats]) -> tuple[float, float, int]:
    squared, absolute, count = 0.0, 0.0, 0
    windows = 0
    for errors_WH in errors:
        squared += float(np.square(errors_WH).sum())
        absolute += float(np.abs(errors_WH).sum())
        count += errors_WH.size
        windows = len(errors_WH)
    return squared / count, absolute / count, windows


if __name__ == "__main__":
    main()
