"""Forecasts against what came: the metrics of a run, each series weighing the same.

A series may be forecast from several cutoffs (a rolling backtest). Its figures are means over its
cutoffs; those of the run are means over the series, or geometric means where they are relative to
seasonal naive.

Shapes: C cases (one cutoff of one series), H steps, K levels; S series.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seqgen.errors import InputError
from seqgen_time_series import metrics
from seqgen_time_series.naive import naive2, seasonal_naive, seasonal_naive_quantiles
from seqgen_time_series.options import DECILES
from seqgen_time_series.series import Series

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Case:
    """One forecast and what came.

    Attributes:
        unique_id: of its series.
        history: the values up to the cutoff.
        season: steps of a season.
        y: what came [H]; NaN where it is missing.
        forecast: the point forecast [H].
        levels: of the quantiles [K], rising.
        quantiles: [H, K].
    """

    unique_id: str
    history: Floats = field(repr=False)
    season: int
    y: Floats = field(repr=False)
    forecast: Floats = field(repr=False)
    levels: tuple[float, ...] = ()
    quantiles: Floats = field(default_factory=lambda: np.empty((0, 0)), repr=False)


@dataclass(frozen=True)
class Judged:
    """Figures of every case, by name, and what the reliability of the quantiles is made of.

    Attributes:
        series: the series of each case [C].
        figures: name -> [C]; those of seasonal naive end in `_naive`, those of Naive2 in `_naive2`.
        levels: of the quantiles [K].
        below_CK: share of the values at or below each quantile.
    """

    series: NDArray[np.str_]
    figures: Mapping[str, Floats]
    levels: tuple[float, ...]
    below_CK: Floats

    def by_series(self, name: str) -> Floats:
        """A figure of every series [S]: the mean over its cutoffs where it is defined."""
        _, code_C = np.unique(self.series, return_inverse=True)
        values_C = self.figures[name]
        there_C = np.isfinite(values_C)
        sums = np.bincount(code_C, np.where(there_C, values_C, 0.0))
        counts = np.bincount(code_C, there_C)
        return np.asarray(np.where(counts > 0, sums / np.maximum(counts, 1), np.nan))


def cases_of(fields: Mapping[str, Any], series: Series) -> Iterator[Case]:
    """The forecasts of one row, one for every cutoff, of which the series knows what came.

    Args:
        fields: `ds`, `cutoff`, `forecast` and `quantiles` of a row (see `formats`).
        series: with its values, as far as they are known. Times behind them do not count.

    Raises:
        InputError: a cutoff is no time of the series.
    """
    known = series.ds.view(np.int64)
    at, steps = _places(fields["ds"], known)
    given = fields["cutoff"]
    cutoff, there = _places(given if isinstance(given, list | tuple) else [given], known)
    if not there.all():
        raise InputError(f"a cutoff of series {series.unique_id!r} is none of its times")
    cutoff = np.broadcast_to(cutoff, at.shape)
    forecast = np.array(fields["forecast"], np.float64)
    by_level = {float(key): values for key, values in (fields.get("quantiles") or {}).items()}
    levels = tuple(sorted(by_level))
    quantiles = np.array([by_level[q] for q in levels], np.float64).reshape(len(levels), -1).T
    for last in np.unique(cutoff):
        own = np.flatnonzero(cutoff == last)
        if not steps[own].any():
            continue
        y = np.where(steps[own], series.y[at[own]], np.nan)
        yield Case(
            series.unique_id, series.y[: last + 1], series.season, y, forecast[own], levels,
            quantiles[own] if levels else np.empty((len(own), 0)),
        )  # fmt: skip


def judge(cases: Sequence[Case]) -> Judged:
    """Every figure of every case.

    Raises:
        InputError: there are no cases, or their quantiles are at different levels.
    """
    if not cases:
        raise InputError(
            "there is nothing to score: no forecast reaches into known values",
            fix="backtest: forecast from cutoffs within the series",
        )
    levels = cases[0].levels
    if any(case.levels != levels for case in cases):
        raise InputError("the forecasts have quantiles at different levels")
    rows = [_figures(case) for case in cases]
    return Judged(
        np.array([case.unique_id for case in cases]),
        {name: np.array([row[name] for row in rows]) for name in rows[0]},
        levels,
        np.array([metrics.below(c.y, c.quantiles) if levels else [] for c in cases], np.float64),
    )


def summary(judged: Judged) -> dict[str, float]:
    """The metrics of a run.

    Returns:
        `mase`, `smape`, `wql`, `msis_80` and `coverage_80` (for every pair of levels): means over
        the series. `owa`: against Naive2. `relative_mase` and `relative_wql`: geometric means over
        the series of what is below 1 where the forecast beats seasonal naive. `mase_naive` and
        `wql_naive`: of seasonal naive itself. `series` and `windows`: how many. What is undefined
        for every series is left out; `undefined_mase` counts the series that have none.
    """
    figures = {name: judged.by_series(name) for name in judged.figures}
    own = [name for name in figures if not name.endswith("2")]
    found = {name: _finite_mean(figures[name]) for name in own}
    found["owa"], _ = metrics.owa(
        figures["smape"], figures["mase"], figures["smape_naive2"], figures["mase_naive2"]
    )
    for name in ("mase", "wql"):
        if name in figures:
            ratio, _ = metrics.relative(figures[name], figures[f"{name}_naive"])
            found[f"relative_{name}"] = ratio
    undefined = int(np.isnan(figures["mase"]).sum())
    ordered = {name: found[name] for name in _order(found) if np.isfinite(found[name])}
    counts = {"series": float(len(figures["mase"])), "windows": float(len(judged.series))}
    return ordered | counts | ({"undefined_mase": float(undefined)} if undefined else {})


def score(cases: Sequence[Case]) -> dict[str, float]:
    """The metrics of a run: `summary` of `judge`."""
    return summary(judge(cases))


def pairs_of(levels: Sequence[float]) -> list[tuple[int, int, float]]:
    """(place of the low quantile, of the high one, share between) of levels that mirror 0.5."""
    found = []
    for low, level in enumerate(levels):
        for high in range(low + 1, len(levels)):
            if abs(level + levels[high] - 1) < 1e-9:
                found.append((low, high, round(levels[high] - level, 9)))
    return found


def _figures(case: Case) -> dict[str, float]:
    y, season, horizon = case.y, case.season, len(case.y)
    season = season if len(case.history) > season else 1
    scale = metrics.naive_scale(case.history, season)
    naive = seasonal_naive(case.history, season, horizon)
    simple = naive2(case.history, season, horizon)
    found = {
        "mase": metrics.mase(y, case.forecast, scale),
        "mase_naive": metrics.mase(y, naive, scale),
        "mase_naive2": metrics.mase(y, simple, scale),
        "smape": metrics.smape(y, case.forecast),
        "smape_naive": metrics.smape(y, naive),
        "smape_naive2": metrics.smape(y, simple),
    }
    if case.levels:
        spread = seasonal_naive_quantiles(case.history, season, horizon, case.levels)
        # Over the deciles, whatever other quantiles there are, so that figures can be compared.
        whole = set(DECILES) <= set(case.levels)
        at = [k for k, level in enumerate(case.levels) if level in DECILES or not whole]
        levels = [case.levels[k] for k in at]
        found["wql"] = metrics.wql(y, case.quantiles[:, at], levels)
        found["wql_naive"] = metrics.wql(y, spread[:, at], levels)
    for low, high, share in pairs_of(case.levels):
        ends = case.quantiles[:, low], case.quantiles[:, high]
        name = f"{100 * share:g}"
        found[f"msis_{name}"] = metrics.msis(y, *ends, share, scale)
        found[f"coverage_{name}"] = metrics.coverage(y, *ends)
    return {name: float(value) for name, value in found.items()}


def _order(found: Mapping[str, float]) -> list[str]:
    """The metrics that a reader looks for first come first."""
    first = ["mase", "wql", "coverage_80", "relative_mase", "relative_wql", "smape", "owa"]
    known = [name for name in first if name in found]
    rest = [name for name in found if name not in known and not name.endswith("naive")]
    return [*known, *rest, *(name for name in found if name.endswith("naive"))]


def _places(times: Sequence[Any], known: Any) -> tuple[Any, Any]:
    """Where each of some times (ISO 8601, or counts) lies among known ones, and if it does."""
    if isinstance(times[0], str):
        wanted = np.array(times, dtype="datetime64[ns]").view(np.int64)
    else:
        wanted = np.array(times, dtype=np.int64)
    at = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    return at, known[at] == wanted


def _finite_mean(values: Floats) -> float:
    there = values[np.isfinite(values)]
    return float(there.mean()) if len(there) else float("nan")
