"""Yule-Walker by Levinson recursion: O(n log n + p^2) time and O(n + p) memory, for very large p.

With the autocovariances r_k = 1/n sum_t y_t y_{t-k} of the centred series, T w_h = (r_{h+1..h+p})
where T is the Toeplitz matrix of r_0..r_{p-1}. It differs from least squares by O(p/n): it pads the
series with zeros at both ends, so it is always stationary and biased on series that are not.

Standard errors are the asymptotic ones, sigma^2 diag(T^-1) / n, from sigma^2 T^-1 = A A' - B B'
with the lower triangular Toeplitz matrices A of (1, -w_1, ..., -w_{p-1}) and B of (-w_p, ..., -w_1)
(Siddiqui 1958): O(p) for the whole diagonal.

Shape suffixes: P lags, H horizon.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft
from scipy.linalg import LinAlgError, solve_toeplitz

from seqgen_time_series.linear.exact import FitWarning, Solution
from seqgen_time_series.linear.gram import Floats, Layout, centre

JITTER = 1e-9
"""Share of r_0 added to it where the system is singular (a white noise correction)."""


def yule_walker(
    series: Sequence[Floats], layout: Layout, *, ridge: float = 0.0, intercept: bool = True
) -> Solution:
    """Yule-Walker weights of the target variable.

    Args:
        series: arrays [1, N].
        layout: lags of one variable, and the horizon.
        ridge: share of r_0 added to it.
        intercept: centre the series first.

    Returns:
        The solution; the covariance is diagonal, r_0 - w . r for every target.
    """
    lags, horizon = layout.lags[0], layout.horizon
    level = float(centre(series)[0]) if intercept else 0.0
    parts = [values_KN[0] - level for values_KN in series]
    samples = sum(map(len, parts))
    covariances = autocovariances(parts, lags + horizon)
    variance = covariances[0]
    warnings: tuple[FitWarning, ...] = ()
    weights_PH = np.zeros((lags, horizon))
    if variance > 1e-28 * level**2:
        right_PH = np.stack([covariances[h + 1 : h + 1 + lags] for h in range(horizon)], axis=1)
        weights_PH = _solve(covariances[:lags], right_PH, ridge)
        reached_H = variance - np.sum(weights_PH * right_PH, axis=0)
        if not np.all(reached_H > 1e-12 * variance) or np.abs(weights_PH).max() > 1e6:
            weights_PH = _solve(covariances[:lags], right_PH, max(ridge, JITTER))
            reached_H = variance - np.sum(weights_PH * right_PH, axis=0)
            warnings = (
                FitWarning(
                    "singular",
                    f"the autocovariances are singular: {JITTER:g} of the variance was added",
                ),
            )
    else:
        reached_H = np.zeros(horizon)
        warnings = (FitWarning("constant", "the series is constant: all coefficients are zero"),)
    sigma2_H = np.maximum(reached_H, 0.0)
    errors_PH = np.full_like(weights_PH, np.nan)
    if variance > 0.0 and sigma2_H[0] > 0.0:
        shape_P = inverse_diagonal(weights_PH[:, 0])  # sigma^2 diag(T^-1), sigma of one step
        errors_PH = np.sqrt(np.outer(shape_P / samples, sigma2_H / sigma2_H[0]))
    slack_H = 1.0 - weights_PH.sum(axis=0)
    tilt = 0.0  # mu^2 1' T^-1 1: what the errors of w add to c = mu (1 - sum w)
    if intercept and variance > 0.0:
        ones_P1 = np.ones((lags, 1))
        tilt = level**2 * float(_solve(covariances[:lags], ones_P1, max(ridge, JITTER)).sum())
    level_error2 = (1.0 + max(tilt, 0.0)) / samples if intercept else 0.0
    return Solution(
        weights_FH=weights_PH,
        intercept_H=level * slack_H,
        errors_FH=errors_PH,
        intercept_errors_H=np.sqrt(level_error2 * sigma2_H),
        covariance_HH=np.diag(sigma2_H),
        rows=samples,
        degrees=float(samples - lags - int(intercept)),
        warnings=warnings,
    )


def autocovariances(parts: Sequence[Floats], count: int) -> Floats:
    """r_0 .. r_{count-1} of centred series together, by FFT; those beyond a series are zero."""
    sums = np.zeros(count)
    for values_N in parts:
        size = next_fast_len(len(values_N) + count, real=True)
        sums += irfft(np.square(np.abs(rfft(values_N, size))), size)[:count]
    return np.asarray(sums / sum(map(len, parts)))


def inverse_diagonal(weights_P: Floats) -> Floats:
    """sigma^2 diag(T^-1) of an autoregression with these coefficients."""
    squares = np.square(np.concatenate([[1.0], weights_P]))
    lower = np.cumsum(squares[:-1])  # A: a_0 .. a_i
    upper = np.cumsum(squares[::-1][:-1])  # B: a_p .. a_{p-i}
    return np.asarray(np.maximum(lower - upper, 0.0))


def _solve(covariances_P: Floats, right_PH: Floats, ridge: float) -> Floats:
    column = covariances_P.copy()
    column[0] *= 1.0 + ridge
    try:
        return np.asarray(solve_toeplitz(column, right_PH, check_finite=False))
    except LinAlgError:
        return np.full_like(right_PH, np.inf)
