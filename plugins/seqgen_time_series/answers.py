"""From the quantiles of a series' origins to its row: calibrated, beside seasonal naive, scored.

The forecast behind the last value is calibrated with the errors at the latest earlier origins. An
origin that is scored is calibrated in the same way with origins before it, whose targets lie before
its cutoff: so the figures are what a user would have seen then.

Shapes: W windows, H steps, K levels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from seqgen.domain import Fields
from seqgen_time_series.backtest import Floats, Rolling, observed
from seqgen_time_series.conformal import Calibration, calibrate_quantiles, needed_errors
from seqgen_time_series.frequency import next_times, time_texts
from seqgen_time_series.naive import seasonal_naive
from seqgen_time_series.options import ForecastOptions
from seqgen_time_series.origins import FORECAST, Origin
from seqgen_time_series.scoring import Case, Judged, judge, summary


@dataclass(frozen=True)
class Answer:
    """What a model said at one origin.

    Attributes:
        origin: where.
        quantiles_HK: raw, at `ForecastOptions.levels`.
        notes: what the user should know.
    """

    origin: Origin
    quantiles_HK: Floats
    notes: tuple[str, ...] = ()


def row_of(answers: Sequence[Answer], cases: Sequence[Case], options: ForecastOptions) -> Fields:
    """The fields of a series' row from its answers, the forecast's among them.

    Args:
        cases: of its backtest (`backtest_cases`).
    """
    last = next(answer for answer in answers if answer.origin.number == FORECAST)
    levels, series = options.levels, last.origin.history
    calibrating = options.calibrate and options.calibration_windows > 0
    past = _in_order(answers)[-options.calibration_windows :] if calibrating else []
    calibration, shares = _calibration(past, levels)
    quantiles_HK = _applied(last, calibration, levels)
    fields: Fields = {
        "unique_id": series.unique_id,
        "cutoff": time_texts(series.ds[-1:])[0],
        "ds": time_texts(next_times(series.ds, series.frequency, last.origin.horizon)),
        "forecast": quantiles_HK[:, levels.index(0.5)].tolist(),
        "quantiles": {f"{level:g}": quantiles_HK[:, k].tolist() for k, level in enumerate(levels)},
        "naive": _plain(_naive(last.origin)),
        "frequency": series.frequency,
        "season": series.season,
        "calibrated": {
            "windows": 0 if calibration is None else calibration.count,
            "percent": shares,
        },
        "backtest": _figures(cases),
    }
    if last.notes:
        fields["notes"] = list(last.notes)
    return fields


def _calibration(
    answers: Sequence[Answer], levels: Sequence[float]
) -> tuple[Calibration | None, list[float]]:
    """Offsets from the errors of earlier answers, and the percent of the intervals that they hold.

    An interval that needs more errors than there are keeps its quantiles. Each step of the horizon
    counts the origins after which its value is known; the fewest of them say what is held.
    """
    if not answers:
        return None, []
    y_NH = np.stack([answer.origin.actual for answer in answers])
    # Steps of which the same origins know the value: mostly all of them.
    known_GN, group_H = np.unique(np.isfinite(y_NH).T, axis=0, return_inverse=True)
    counts_G = known_GN.sum(axis=1)
    if not _held(levels, int(counts_G.max())):
        return None, []
    quantiles_NHK = np.stack([answer.quantiles_HK for answer in answers])
    scale_N = np.array([_width(answer, levels) for answer in answers])
    offsets_HK = np.zeros(quantiles_NHK.shape[1:])
    for group, known_N in enumerate(known_GN):
        first = len(levels) // 2 - len(_held(levels, int(counts_G[group])))
        inner, steps_H = slice(first, len(levels) - first), group_H.ravel() == group
        if len(levels[inner]) > 1:
            found = calibrate_quantiles(
                y_NH[known_N][:, steps_H],
                quantiles_NHK[known_N][:, steps_H, inner],
                levels[inner],
                scale_N[known_N],
            )
            offsets_HK[steps_H, inner] = found.offsets_HK
    fewest = int(counts_G[counts_G > 0].min())
    percent = [round(100 * share, 4) for share in _held(levels, fewest)]
    return Calibration("cqr", tuple(levels), offsets_HK, fewest), percent


def _held(levels: Sequence[float], count: int) -> list[float]:
    """Shares of the intervals that so many errors can calibrate, rising."""
    shares = [round(levels[-1 - k] - levels[k], 6) for k in range(len(levels) // 2)]
    return [share for share in reversed(shares) if needed_errors(share) <= count]


def _applied(answer: Answer, calibration: Calibration | None, levels: Sequence[float]) -> Floats:
    if calibration is None:
        return answer.quantiles_HK
    return calibration.apply(answer.quantiles_HK, _width(answer, levels))


def _width(answer: Answer, levels: Sequence[float]) -> float:
    """Mean width of the 80 % interval: errors are measured in it, so that they may grow with it."""
    low, high = levels.index(0.1), levels.index(0.9)
    width = float((answer.quantiles_HK[:, high] - answer.quantiles_HK[:, low]).mean())
    return width if width > 0.0 else 1.0


def _naive(origin: Origin) -> Floats:
    series = origin.history
    season = series.season if len(series.y) >= series.season else 1
    return seasonal_naive(series.y, season, origin.horizon)


def backtest_cases(
    answers: Sequence[Answer], rolling: Rolling, options: ForecastOptions
) -> list[Case]:
    """The latest earlier origins, each calibrated with those before it, and what came then."""
    earlier = _in_order(answers)
    scored = earlier[-options.windows :] if options.windows else []
    if options.calibrate:
        # Something must be left to calibrate with: at most every third origin is scored.
        scored = scored[-max(1, len(earlier) // 3) :]
    cases = []
    for answer in scored:
        before = observed(answer.origin.number, rolling) if options.calibrate else range(0)
        past = [other for other in earlier if other.origin.number in before]
        past = past[-options.calibration_windows :] if options.calibration_windows else []
        calibration, _ = _calibration(past, options.levels)
        quantiles_HK = _applied(answer, calibration, options.levels)
        history = answer.origin.history
        cases.append(
            Case(
                history.unique_id,
                history.y,
                history.season,
                answer.origin.actual,
                quantiles_HK[:, options.levels.index(0.5)],
                options.levels,
                quantiles_HK,
            )
        )
    return cases


def _figures(cases: Sequence[Case]) -> Fields:
    """Means over the origins of one series, by the metrics' names; {} without any."""
    if not cases:
        return {}
    judged = judge(cases)
    found = {name: _number(float(judged.by_series(name)[0])) for name in judged.figures}
    below_K = [_number(value) for value in np.nanmean(judged.below_CK, axis=0).tolist()]
    return {"windows": len(cases), **found, "below": below_K}


def total_scores(
    rows: Sequence[Mapping[str, Any]], levels: Sequence[float] = ()
) -> dict[str, float]:
    """Metrics over all series whose rows hold a backtest (`scoring.summary`); {} if none does."""
    tables = [row["backtest"] for row in rows if row.get("backtest")]
    if not tables:
        return {}

    def column(name: str) -> Floats:
        values = [table.get(name) for table in tables]
        return np.array([np.nan if value is None else value for value in values], np.float64)

    names = [name for name in tables[0] if name not in ("windows", "below")]
    ids = [f"{number} {row['unique_id']}" for number, row in enumerate(rows) if row.get("backtest")]
    below = np.array([table["below"] for table in tables], np.float64)
    judged = Judged(np.array(ids), {name: column(name) for name in names}, tuple(levels), below)
    return {**summary(judged), "windows": float(column("windows").sum())}


def _in_order(answers: Sequence[Answer]) -> list[Answer]:
    earlier = [answer for answer in answers if answer.origin.number != FORECAST]
    return sorted(earlier, key=lambda answer: answer.origin.number)


def _number(value: float) -> float | None:
    """For JSON, which has no NaN."""
    return value if math.isfinite(value) else None


def _plain(values: Floats) -> list[float | None]:
    """Numbers for JSON, which has no NaN."""
    return [_number(value) for value in values.tolist()]
