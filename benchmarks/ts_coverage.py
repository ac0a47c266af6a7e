"""Do 80 % intervals hold 80 % of what comes? Rolling backtests on public series.

    python benchmarks/ts_coverage.py [--data FOLDER] [--origins 40] [--json FILE]

At each of 40 cutoffs, evenly spread over the second half of a series, the forecast and its
calibration are made from the values before the cutoff alone, as `seqgen run --plugin time-series`
would have made them then (19 earlier origins calibrate); then it is counted how many of the values
that followed lie in the interval (of `co2`, which has gaps, of those that are there). `..._raw` is
the same without calibration. `ts-small` was trained on the first four fifths of the series of
`statsmodels`, not on the others. The horizons are those of the M4 competition (yearly 6, quarterly
8, weekly 13, daily 14), a year of months, a day of hours, two hours of five minutes. Nothing is
left out: every series of the folder is in the table, of `macrodata` and `ETTh1` the mean over all
columns. With 40 cutoffs that partly overlap a coverage is uncertain by about 0.05.
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from numpy.typing import NDArray

from seqgen.benchmark import print_result, result, write_result
from seqgen.registry import Registry
from seqgen_time_series.backtest import cut_at
from seqgen_time_series.domain import TimeSeriesDomain
from seqgen_time_series.options import ForecastOptions
from seqgen_time_series.series import Series

ROOT = Path(__file__).resolve().parents[1]
FOLDER = Path(os.environ.get("SEQGEN_DATA", ROOT.parent / "shared" / "data")) / "timeseries"

FILES = {
    "neuralprophet_mit/air_passengers.csv": 12,
    "neuralprophet_mit/retail_sales.csv": 12,
    "neuralprophet_mit/wp_log_peyton_manning.csv": 14,
    "neuralprophet_mit/yosemite_temps.csv": 24,
    "neuralprophet_mit/sunspots.csv": 14,
    "ett_ccbynd/ETTh1.csv": 24,
    "statsmodels_pd/co2.csv": 13,
    "statsmodels_pd/macrodata.csv": 8,
    "statsmodels_pd/nile.csv": 6,
    "statsmodels_pd/sunspots.csv": 6,
}
"""File -> steps of its horizon."""
MODELS = ("arnet", "ts-small")
LONGEST = 6000
"""Values of a series that are used, the latest: for the time that it takes."""

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Held:
    """Which of the values that came lie in their intervals, [values]."""

    raw: Bools
    calibrated: Bools


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=FOLDER)
    parser.add_argument("--files", nargs="+", default=list(FILES), help="some of them")
    parser.add_argument("--origins", type=int, default=40, help="cutoffs a series")
    parser.add_argument("--json", type=Path, help="also write the result here")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = [measure(arguments.data, file, arguments.origins) for file in arguments.files]
    outcome = result("ts_coverage", rows)
    print_result(outcome)
    if arguments.json:
        write_result(outcome, arguments.json)


def measure(folder: Path, file: str, origins: int) -> dict[str, float | str]:
    """The row of a file: means over its series."""
    options = ForecastOptions(horizon=FILES[file], windows=0, missing="interpolate")
    started = time.process_time()
    every = list(TimeSeriesDomain().load(str(folder / file), options))
    row: dict[str, float | str] = {
        "case": Path(file).parent.name.partition("_")[0] + " " + Path(file).stem,
        "series": len(every),
        "horizon": options.horizon,
    }
    for model in MODELS:
        found = [coverage(series, options, origins, model) for series in every]
        row["values"] = sum(held.raw.size for held in found)
        row[f"{model}_raw"] = float(np.mean([held.raw.mean() for held in found]))
        row[model] = float(np.mean([held.calibrated.mean() for held in found]))
    return {**row, "cpu_s": time.process_time() - started}


def coverage(series: Series, options: ForecastOptions, origins: int, model: str) -> Held:
    """Of the 80 % intervals at cutoffs in the second half of a series."""
    if series.problem is not None:
        raise series.problem
    count = min(len(series.y), LONGEST)
    filled = series.interpolated.get("y", np.zeros(len(series.y), dtype=bool))[-count:]
    late = replace(series, ds=series.ds[-count:], y=series.y[-count:], interpolated={"y": filled})
    raw, calibrated = [], []
    cutoffs = np.unique(np.linspace(count // 2, count - options.horizon, origins).astype(int))
    for cutoff in cutoffs.tolist():
        ahead = slice(cutoff, cutoff + options.horizon)
        y, known = late.y[ahead], ~filled[ahead]
        history = cut_at(late, cutoff, 0)
        for kind, into in (("raw", raw), ("calibrated", calibrated)):
            chosen = replace(options, calibrate=kind == "calibrated")
            low, high = interval(history, chosen, model)
            into.append(((low <= y) & (y <= high))[known])
    return Held(np.concatenate(raw), np.concatenate(calibrated))


def interval(
    history: Series, options: ForecastOptions, model: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Ends of the 80 % interval of what follows, as the plugin gives them."""
    domain, network, decoder = loaded(model)
    pieces = list(domain.split(history, options))
    context = domain.condition(network, pieces, options)
    plan = domain.plan(network, context, decoder, options, torch.arange(len(pieces)))
    with torch.inference_mode():
        parts = domain.finish(plan.run(), pieces, context, options)
    row = domain.join(history, parts, options)
    return np.array(row["quantiles"]["0.1"]), np.array(row["quantiles"]["0.9"])


@cache
def loaded(model: str) -> tuple[TimeSeriesDomain, torch.nn.Module, str]:
    """A model by the name of its card, and its decoder."""
    card = Registry.load().card(model)
    domain = TimeSeriesDomain()
    network = domain.build(card, torch.device("cpu"), torch.float32)
    return domain, network, card.decoder


if __name__ == "__main__":
    main()
