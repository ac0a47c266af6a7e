"""The forecasts that every other one must beat: seasonal naive, and Naive2 of the M4 competition.

Shapes: T times of a history, H steps, K levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from seqgen.errors import InputError

Floats = NDArray[np.float64]

SEASONAL_AT = 1.645
"""M4's test of seasonality: standard deviations of the autocorrelation (90 %, two-sided)."""


def seasonal_naive(history: ArrayLike, season: int, horizon: int) -> Floats:
    """The last season again and again: y_{T+h} = y_{T+h-m k}, m = season [H].

    Raises:
        InputError: the history holds no season.
    """
    y = np.asarray(history, dtype=np.float64)
    if len(y) < season:
        raise InputError(
            f"seasonal naive needs a season of {season} values, and there are {len(y)}",
            fix="give a longer history, or a shorter season: --set season=1",
        )
    return np.resize(y[len(y) - season :], horizon)


def seasonal_naive_quantiles(
    history: ArrayLike, season: int, horizon: int, levels: Sequence[float]
) -> Floats:
    """Gaussian quantiles [H, K] around seasonal naive (Hyndman and Athanasopoulos, FPP3, 5.5).

    The standard deviation is that of its errors in the history, times the root of the number of
    seasons ahead; where the history holds one season only, they are unknown: NaN.
    """
    y = np.asarray(history, dtype=np.float64)
    errors = y[season:] - y[: len(y) - season]
    spread = float(np.sqrt(np.nanmean(errors**2))) if len(errors) else float("nan")
    seasons_H = np.arange(horizon) // season + 1
    z_K = np.array([NormalDist().inv_cdf(level) for level in levels])
    point_H = seasonal_naive(y, season, horizon)
    return np.asarray(point_H[:, None] + spread * np.sqrt(seasons_H)[:, None] * z_K)


def naive2(history: ArrayLike, season: int, horizon: int) -> Floats:
    """M4's Naive2 [H]: the last value, seasonally adjusted where the history is seasonal.

    Seasonal indices are those of the classical multiplicative decomposition. NaN if the history is
    seasonal, but has values of zero or less, of which there is no such decomposition.
    """
    y = np.asarray(history, dtype=np.float64)
    if not is_seasonal(y, season):
        return np.full(horizon, y[-1])
    if not (y > 0).all():
        return np.full(horizon, np.nan)
    index_T = seasonal_indices(y, season)
    ahead = (len(y) + np.arange(horizon)) % season
    return np.asarray(y[-1] / index_T[(len(y) - 1) % season] * index_T[ahead])


def is_seasonal(history: ArrayLike, season: int) -> bool:
    """M4's test: is the autocorrelation at the season's lag beyond its 90 % limit?

    |r_m| > 1.645 sqrt((1 + 2 sum_{i<m} r_i^2) / T), with at least three seasons.
    """
    y = np.asarray(history, dtype=np.float64)
    count = len(y)
    if season < 2 or count < 3 * season:
        return False
    centred = y - y.mean()
    power = float(centred @ centred)
    if not power > 0:
        return False
    r = np.array([centred[lag:] @ centred[: count - lag] for lag in range(1, season + 1)]) / power
    limit = SEASONAL_AT * np.sqrt((1.0 + 2.0 * float((r[:-1] ** 2).sum())) / count)
    return bool(abs(r[-1]) > limit)


def seasonal_indices(history: ArrayLike, season: int) -> Floats:
    """Multiplicative indices [season] by place in the season, their mean 1.

    The ratios to the centred moving average (its ends weighted half, for even seasons), averaged
    over the seasons.
    """
    y = np.asarray(history, dtype=np.float64)
    weights = np.ones(season) if season % 2 else np.r_[0.5, np.ones(season - 1), 0.5]
    trend = np.convolve(y, weights / season, mode="valid")
    first = len(weights) // 2
    ratio = np.full(len(y), np.nan)
    ratio[first : first + len(trend)] = y[first : first + len(trend)] / trend
    padded = np.full(-(-len(y) // season) * season, np.nan)
    padded[: len(y)] = ratio
    index = np.nanmean(padded.reshape(-1, season), axis=0)
    return np.asarray(index / index.mean())
