"""Sparse autoregressions: coordinate descent on the moments, in units of the standard deviations.

`penalties.py` has the penalties and the descent; here is the way from the data's units and back,
the noise from which a penalty's strength is taken, and what the selected coefficients are worth.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from seqgen_time_series.linear.exact import (
    FitWarning,
    Solution,
    least_squares,
    residual_sums,
    scales,
)
from seqgen_time_series.linear.gram import Floats, Layout, Moments
from seqgen_time_series.linear.penalties import L1, Descent, Mcp, Penalty, descend, descend_path

FEW = 0.1
"""Degrees of freedom, as a share of the rows, with which least squares does not know the noise."""


def select(
    sums: Moments,
    series: Sequence[Floats],
    layout: Layout,
    penalty_of: Callable[[float], Penalty],
) -> tuple[Solution, Penalty]:
    """Minimise 1/2 |Y - X W|^2 / rows + sum P(w), all variables in standard deviations.

    Args:
        sums: moments of the series.
        series: arrays [K, N], read where moments are not precise enough.
        layout: lags and horizon.
        penalty_of: the penalty for a standard deviation of the noise.

    Returns:
        The solution in the data's units, and the penalty in use. A standard error is that of least
        squares on the selected features: it takes the selection as given, and so is too small.
    """
    scale_F = scales(sums)
    level = math.sqrt(max(float(sums.targets_HH[0, 0]) / sums.rows, 0.0)) or 1.0
    correlation_FF = sums.gram_FF / np.outer(scale_F, scale_F * sums.rows)
    np.fill_diagonal(correlation_FF, 1.0)
    cross_FH = sums.cross_FH / (scale_F[:, None] * sums.rows * level)

    def attempt(sigma: float) -> tuple[Solution, Penalty]:
        penalty = penalty_of(sigma / level)
        if isinstance(penalty, L1 | Mcp):
            found = descend_path(correlation_FF, cross_FH, penalty)
        else:
            found = descend(correlation_FF, cross_FH, penalty)
        return _unscaled(found, sums, series, layout, scale_F, level), penalty

    full = least_squares(sums, series, layout)
    if full.degrees > FEW * sums.rows:
        return attempt(math.sqrt(max(float(full.covariance_HH[0, 0]), 0.0)))
    # Too many lags for least squares to see the noise: take it from the selection, and select again
    # (the scaled lasso's iteration, Sun and Zhang 2012).
    solution, penalty = attempt(level)
    for _ in range(10):
        sigma = float(solution.covariance_HH[0, 0]) ** 0.5
        following, penalty = attempt(sigma)
        settled = np.array_equal(following.weights_FH != 0.0, solution.weights_FH != 0.0)
        solution = following
        if settled:
            break
    return solution, penalty


def _unscaled(
    found: Descent,
    sums: Moments,
    series: Sequence[Floats],
    layout: Layout,
    scale_F: Floats,
    level: float,
) -> Solution:
    weights_FH = found.weights_FH * level / scale_F[:, None]
    residual_HH = residual_sums(sums, weights_FH, series, layout)
    chosen_FH = weights_FH != 0.0
    degrees_H = sums.rows - chosen_FH.sum(axis=0) - int(sums.intercept)
    counted_H = np.maximum(degrees_H, 1)
    covariance_HH = residual_HH / np.sqrt(np.outer(counted_H, counted_H))
    errors_FH = np.full_like(weights_FH, np.nan)
    intercept_errors_H = np.zeros(weights_FH.shape[1])
    for h, chosen_F in enumerate(chosen_FH.T):
        own = np.flatnonzero(chosen_F)
        inverse = np.linalg.pinv(sums.gram_FF[np.ix_(own, own)], hermitian=True)
        variance = max(float(covariance_HH[h, h]), 0.0)
        errors_FH[own, h] = np.sqrt(np.maximum(np.diag(inverse), 0.0) * variance)
        if sums.intercept:
            lean = sums.feature_means_F[own]
            spread = 1.0 / sums.rows + float(lean @ inverse @ lean)
            intercept_errors_H[h] = math.sqrt(max(spread, 0.0) * variance)
    warnings: tuple[FitWarning, ...] = ()
    if not found.converged:
        message = f"coordinate descent stopped after {found.sweeps} sweeps"
        warnings = (FitWarning("not-converged", message),)
    return Solution(
        weights_FH=weights_FH,
        intercept_H=sums.intercepts(weights_FH),
        errors_FH=errors_FH,
        intercept_errors_H=intercept_errors_H,
        covariance_HH=covariance_HH,
        rows=sums.rows,
        degrees=float(degrees_H.min()),
        warnings=warnings,
    )
