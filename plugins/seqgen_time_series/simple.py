"""Simple forecasts of many histories of one length at once, and the errors that they made.

Seasonal naive of the last seasons, with drift, level-corrected, the last value, the mean of the
last ones, and autoregressions of the history and of its seasonal differences: what a neural model
goes on from (`windows`). A row does not depend on the others.

Shape suffixes: B histories, N values, H steps, J simple forecasts, P lags.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from seqgen_time_series.linear.many import ridge_autoregressions

Floats = NDArray[np.float64]

SEASONS = 8
"""Seasons that the simple forecasts look back."""
SIMPLE = SEASONS + 6
"""Simple forecasts J; the first is seasonal naive, the last an autoregression."""
RECENT = 1500
"""Values to which the autoregressions are fitted."""
MOST_LAGS = 51
"""Two seasons of hours, and a little."""


def simple_forecasts(z_BN: Floats, season: int, steps: int) -> NDArray[np.float32]:
    """Forecasts [B, H, J] of the steps 1..H."""
    rows, count = z_BN.shape
    ahead = np.arange(1, steps + 1)
    seasons_ahead = -(-ahead // season)
    index = count - season * (1 + np.arange(SEASONS)) + (ahead[:, None] - 1) % season
    # What lies before the history is taken from the first season that there is.
    index = np.where(index < 0, index + season * -(-np.minimum(index, 0) // -season), index)
    seasonal_BHJ = z_BN[:, np.clip(index, 0, count - 1)]
    naive_BH = seasonal_BHJ[:, :, 0]

    run = min(season * max(1, round(16 / season)), count - 1)
    width = min(season, max(count - run, 1))
    drift_B1 = np.zeros((rows, 1))
    if run >= season:
        begin = count - run - width if count >= run + width else 0
        earlier_B1 = z_BN[:, begin : begin + width].mean(axis=1, keepdims=True)
        drift_B1 = (z_BN[:, -width:].mean(axis=1, keepdims=True) - earlier_B1) * season / run
    corrected_B1 = np.zeros((rows, 1))
    if count > season:
        few = min(4, season, count - season)
        last = z_BN[:, -few:] - z_BN[:, count - season - few : count - season]
        corrected_B1 = last.mean(axis=1, keepdims=True)
    recent = min(max(2 * season + 3, 12), MOST_LAGS)
    mean_B1 = z_BN[:, -max(season, 8) :].mean(axis=1, keepdims=True)
    rest = [
        np.repeat(z_BN[:, -1:], steps, axis=1),
        naive_BH + drift_B1 * seasons_ahead,
        naive_BH + corrected_B1,
        np.repeat(mean_B1, steps, axis=1),
        _autoregressions(z_BN[:, -RECENT:], recent, steps, naive_BH),
        _differenced(z_BN[:, -RECENT - season :], season, steps, naive_BH),
    ]
    return np.concatenate([seasonal_BHJ, np.stack(rest, axis=2)], axis=2).astype(np.float32)


def simple_errors(z_BN: Floats, season: int, unit_B: Floats) -> Floats:
    """Log errors [B, J], in units, of the simple forecasts of the last values from those before;
    zeros where the histories are too short."""
    rows, count = z_BN.shape
    steps = min(max(season, 8), 24, count // 3)
    if steps < 4:
        return np.zeros((rows, SIMPLE))
    made_BHJ = simple_forecasts(z_BN[:, :-steps], season, steps)
    errors_BJ = np.abs(made_BHJ - z_BN[:, -steps:, None]).mean(axis=1)
    return np.asarray(np.log(0.05 + errors_BJ / unit_B[:, None]).clip(-3.0, 5.0))


def _autoregressions(x_BN: Floats, lags: int, steps: int, otherwise_BH: Floats) -> Floats:
    """Forecasts [B, H] of ridge autoregressions; `otherwise` where there is too little to fit.

    Each is held within three times the range of its values: an unstable fit must not run away.
    """
    lags = min(lags, (x_BN.shape[1] - 2) // 3)
    low_B1, high_B1 = x_BN.min(axis=1, keepdims=True), x_BN.max(axis=1, keepdims=True)
    fitted = np.flatnonzero(high_B1 > low_B1)
    if lags < 1 or not len(fitted):
        return otherwise_BH
    made_BH = otherwise_BH.copy()
    weights, intercepts = ridge_autoregressions(x_BN[fitted], lags)
    for row, weights_P, intercept in zip(fitted, weights, intercepts, strict=True):
        made_BH[row] = _fed_back(x_BN[row], weights_P, intercept, steps)
    reach_B1 = 3.0 * (high_B1 - low_B1)
    held_BH = np.clip(made_BH, low_B1 - reach_B1, high_B1 + reach_B1)
    return np.where(high_B1 > low_B1, held_BH, otherwise_BH)


def _fed_back(x_N: Floats, weights_P: Floats, intercept: float, steps: int) -> Floats:
    """The forecast [H] of one autoregression; the last value where it overflows."""
    from scipy.signal import lfilter

    lags = len(weights_P)
    # The filter's state behind the last value: what the lags add to each of the next steps.
    state_P = np.correlate(weights_P, x_N[: -lags - 1 : -1], "full")[lags - 1 :]
    with np.errstate(over="ignore", invalid="ignore"):
        made_H, _ = lfilter(
            [1.0], np.concatenate([[1.0], -weights_P]), np.full(steps, intercept), zi=state_P
        )
    return np.asarray(np.nan_to_num(made_H, nan=x_N[-1]))


def _differenced(x_BN: Floats, season: int, steps: int, naive_BH: Floats) -> Floats:
    """Forecasts [B, H] of autoregressions of the seasonal differences."""
    rows, count = x_BN.shape
    if count <= season + 8:
        return naive_BH
    none_BH = np.zeros((rows, steps))
    apart_BH = _autoregressions(x_BN[:, season:] - x_BN[:, :-season], 12, steps, none_BH)
    # Every season adds its differences to the one before.
    padded = np.pad(apart_BH, ((0, 0), (0, -steps % season))).reshape(rows, -1, season)
    return np.asarray(naive_BH + np.cumsum(padded, axis=1).reshape(rows, -1)[:, :steps])
