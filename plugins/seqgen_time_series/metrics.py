"""Metrics of forecasts, each by its exact definition.

All are of one series unless they say otherwise, or of several at once: the last axis is time (for
quantiles, the one before the levels), and leading axes are kept. Times whose value is NaN do not
count. What is undefined (a scale of zero, say) is NaN.

Sources: Hyndman and Koehler 2006 (MASE); Makridakis, Spiliotis and Assimakopoulos 2020, "The M4
Competition", with its benchmark code (sMAPE, OWA, MSIS, Naive2); Gneiting and Raftery 2007 (CRPS,
interval score); Park et al. 2022 and GluonTS (WQL).

Shapes: [...] series, H steps, K levels, T times of a history.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def naive_scale(history: ArrayLike, season: int) -> float:
    """The scale of MASE and MSIS: mean |y_t - y_{t-m}| over the history [T].

    NaN if the history does not hold a season and a value more, or if the scale is zero.
    """
    y = np.asarray(history, dtype=np.float64)
    if len(y) <= season:
        return float("nan")
    scale = float(_mean(np.abs(y[season:] - y[:-season])))
    return scale if scale > 0 else float("nan")


def mase(y: ArrayLike, forecast: ArrayLike, scale: ArrayLike) -> Floats:
    """Mean absolute error over the scale [...]; y and forecast [..., H]."""
    return mae(y, forecast) / np.asarray(scale, dtype=np.float64)


def mae(y: ArrayLike, forecast: ArrayLike) -> Floats:
    """Mean absolute error [...]."""
    return _mean(np.abs(np.asarray(y, np.float64) - np.asarray(forecast, np.float64)))


def mse(y: ArrayLike, forecast: ArrayLike) -> Floats:
    """Mean squared error [...]."""
    return _mean((np.asarray(y, np.float64) - np.asarray(forecast, np.float64)) ** 2)


def smape(y: ArrayLike, forecast: ArrayLike) -> Floats:
    """200 mean |y - f| / (|y| + |f|), in percent from 0 to 200 (M4); 0 / 0 counts as 0."""
    y, forecast = np.asarray(y, np.float64), np.asarray(forecast, np.float64)
    size = np.abs(y) + np.abs(forecast)
    ratio = np.abs(y - forecast) / np.where(size > 0, size, 1.0)
    return 200.0 * _mean(ratio)


def owa(
    smape_N: ArrayLike, mase_N: ArrayLike, smape2_N: ArrayLike, mase2_N: ArrayLike
) -> tuple[float, int]:
    """M4's overall weighted average over N series, and how many of them count.

    Half the mean sMAPE over Naive2's mean sMAPE, half the same with MASE: means over the series
    first, then the ratio. Series for which one of the four is undefined are left out.
    """
    table = np.stack([np.asarray(x, np.float64) for x in (smape_N, mase_N, smape2_N, mase2_N)])
    table = table[:, np.isfinite(table).all(axis=0)]
    if not table.shape[1]:
        return float("nan"), 0
    smape_, mase_, smape2, mase2 = table.mean(axis=1)
    if smape2 <= 0 or mase2 <= 0:
        return float("nan"), 0
    return float(0.5 * (smape_ / smape2 + mase_ / mase2)), table.shape[1]


def pinball(y: ArrayLike, quantiles: ArrayLike, levels: Sequence[float]) -> Floats:
    """max(q (y - z), (q - 1) (y - z)) for quantiles z [..., H, K] at levels q: [..., H, K]."""
    over = np.asarray(y, np.float64)[..., None] - np.asarray(quantiles, np.float64)
    q = np.asarray(levels, np.float64)
    return np.maximum(q * over, (q - 1.0) * over)


def wql(y: ArrayLike, quantiles: ArrayLike, levels: Sequence[float]) -> Floats:
    """Weighted quantile loss [...]: 2 sum_H pinball / sum_H |y|, mean over the levels.

    With levels spread evenly over (0, 1) twice the mean pinball loss is the CRPS, so this is the
    CRPS over the mean size of the values. NaN where every value is 0.
    """
    y = np.asarray(y, np.float64)
    loss, size = _sum(2.0 * pinball(y, quantiles, levels).mean(axis=-1)), _sum(np.abs(y))
    return _divided(loss, size)


def total_wql(y: ArrayLike, quantiles: ArrayLike, levels: Sequence[float]) -> float:
    """GluonTS' mean weighted sum quantile loss: sums run over all series and times."""
    y = np.asarray(y, np.float64)
    losses = 2.0 * pinball(y, quantiles, levels).mean(axis=-1)
    return float(_divided(np.nansum(losses), np.nansum(np.abs(y))))


def msis(y: ArrayLike, low: ArrayLike, high: ArrayLike, level: float, scale: ArrayLike) -> Floats:
    """Mean scaled interval score [...] (M4) of intervals that shall hold `level` of the values.

    mean (U - L) + 2/a (L - y) [y < L] + 2/a (y - U) [y > U], over the scale; a = 1 - level.
    """
    y, low, high = (np.asarray(x, np.float64) for x in (y, low, high))
    miss = np.maximum(low - y, 0.0) + np.maximum(y - high, 0.0)
    score = _mean((high - low) + 2.0 / (1.0 - level) * miss)
    return score / np.asarray(scale, dtype=np.float64)


def coverage(y: ArrayLike, low: ArrayLike, high: ArrayLike) -> Floats:
    """Share [...] of the values that lie in their interval, its ends included."""
    y = np.asarray(y, np.float64)
    inside = (np.asarray(low) <= y) & (y <= np.asarray(high))
    return _mean(np.where(np.isnan(y), np.nan, inside))


def below(y: ArrayLike, quantiles: ArrayLike) -> Floats:
    """Share [K] of all values at or below each quantile [..., H, K]: the level, if calibrated."""
    y = np.asarray(y, np.float64)[..., None]
    marks = np.where(np.isnan(y), np.nan, y <= np.asarray(quantiles))
    return _mean(np.moveaxis(marks, -1, 0).reshape(marks.shape[-1], marks[..., :1].size))


LOWEST, HIGHEST = 0.01, 100.0
"""Ratios of errors are clipped to this before their geometric mean, as in fev-bench (Shchur et al.
2025): a single perfect or exploding series would decide it otherwise."""


def relative(errors_N: ArrayLike, baseline_N: ArrayLike) -> tuple[float, int]:
    """Geometric mean of errors over a baseline's errors, and how many series count.

    The geometric mean treats "twice as good" and "twice as bad" alike (Fleming and Wallace 1986;
    Davydenko and Fildes 2013). Series where both are zero, or one is undefined, do not count.
    """
    errors = np.asarray(errors_N, np.float64)
    baseline = np.asarray(baseline_N, np.float64)
    counts = np.isfinite(errors) & np.isfinite(baseline) & ((errors > 0) | (baseline > 0))
    if not counts.any():
        return float("nan"), 0
    with np.errstate(divide="ignore"):
        ratio = np.clip(errors[counts] / baseline[counts], LOWEST, HIGHEST)
    return float(np.exp(np.log(ratio).mean())), int(counts.sum())


def _mean(values: ArrayLike) -> Floats:
    """Over the last axis, without NaN; NaN where there is nothing else."""
    x = np.asarray(values, np.float64)
    there = ~np.isnan(x)
    return _divided(np.where(there, x, 0.0).sum(axis=-1), there.sum(axis=-1))


def _sum(values: ArrayLike) -> Floats:
    return np.asarray(np.nansum(np.asarray(values, np.float64), axis=-1))


def _divided(above: ArrayLike, under: ArrayLike) -> Floats:
    under = np.asarray(under, np.float64)
    return np.asarray(np.where(under > 0, above / np.where(under > 0, under, 1.0), np.nan))
