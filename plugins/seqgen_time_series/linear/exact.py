"""Exact conditional least squares from the moments: the estimator of an autoregression by OLS.

The normal equations, scaled to unit diagonal, are solved by Cholesky. Where they are singular (a
pure sine, a polynomial trend, more lags than rows) the diagonal gets the smallest jitter with which
the factorization succeeds, and the solution is found by iterated Tikhonov steps

    w <- w + (X'X + jitter)^-1 X'(y - X w),      residuals from the data by FFT,

which start at zero, so they stay in the row space and head for the least squares solution of least
norm. A singular system is reported as a warning object; it never fails and never prints.

Shape suffixes as in `gram.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft
from scipy.linalg import LinAlgError, cholesky, solve_triangular
from scipy.linalg.lapack import dpotri

from seqgen_time_series.linear.gram import Floats, Layout, Moments, centre

MAX_REFINEMENTS = 60
CANCELLATION = 1e-7
"""Residual sums below this share of the total are counted from the data, not from the moments."""


@dataclass(frozen=True)
class FitWarning:
    """Something about a fit that its user should know.

    Attributes:
        code: `constant`, `singular`, `underdetermined` or `not-converged`.
        message: one sentence.
    """

    code: str
    message: str


@dataclass(frozen=True)
class Solution:
    """Weights of a linear regression and how sure they are.

    Attributes:
        weights_FH: coefficients.
        intercept_H: zeros where none is fitted.
        errors_FH: standard errors; NaN where there are none.
        intercept_errors_H: those of the intercept.
        covariance_HH: covariance of the residuals, unbiased (NaN without degrees of freedom).
        rows: rows of the regression.
        degrees: rows minus the effective number of parameters.
        warnings: see `FitWarning`.
    """

    weights_FH: Floats
    intercept_H: Floats
    errors_FH: Floats
    intercept_errors_H: Floats
    covariance_HH: Floats
    rows: int
    degrees: float
    warnings: tuple[FitWarning, ...] = ()


@dataclass(frozen=True)
class Factor:
    """Lower Cholesky factor of a scaled matrix, and the jitter that its diagonal needed."""

    lower_FF: Floats
    jitter: float

    def solve(self, right: Floats) -> Floats:
        half = solve_triangular(self.lower_FF, right, lower=True, check_finite=False)
        return np.asarray(
            solve_triangular(self.lower_FF, half, lower=True, trans=1, check_finite=False)
        )

    def inverse(self) -> Floats:
        """The inverse matrix; p^3 2/3 more operations."""
        inverse, _ = dpotri(self.lower_FF, lower=1)
        return np.asarray(np.tril(inverse) + np.tril(inverse, -1).T)


def factorize(scaled_FF: Floats) -> Factor:
    """Cholesky of a matrix with unit diagonal, with as little jitter as it takes."""
    size = len(scaled_FF)
    noise = size * float(np.finfo(np.float64).eps)
    jitter = 0.0
    while True:
        try:
            lower = cholesky(
                scaled_FF + jitter * np.eye(size) if jitter else scaled_FF,
                lower=True,
                check_finite=False,
            )
        except LinAlgError:
            pass
        else:
            # A pivot that is rounding noise says as little as a failure.
            if float(np.square(np.diag(lower)).min(initial=1.0)) > noise:
                return Factor(lower, jitter)
        jitter = jitter * 10 if jitter else 4 * noise


def scales(moments: Moments) -> Floats:
    """Root mean squares [F] of the features' columns; 1 for a column of zeros."""
    squares_F = np.diag(moments.gram_FF) / moments.rows
    level_F = np.square(moments.feature_means_F)
    # What is left of a constant column after centring is rounding.
    flat_F = squares_F <= 1e-28 * np.maximum(level_F, np.finfo(np.float64).tiny)
    return np.asarray(np.where(flat_F, 1.0, np.sqrt(np.maximum(squares_F, 0.0))))


def least_squares(
    moments: Moments, series: Sequence[Floats], layout: Layout, *, ridge: float = 0.0
) -> Solution:
    """Minimise 1/2 |Y - X W|^2 / rows + ridge/2 |W|^2, W in units of the features' scales.

    Args:
        moments: of the series.
        series: the same series [K, N], read where moments are not precise enough; may be empty.
        layout: lags and horizon.
        ridge: penalty on the weights of the scaled features; the intercept is free.

    Returns:
        The solution; its standard errors are those of OLS (of ridge regression: of its linear
        estimator, without the bias).
    """
    rows, scale_F = moments.rows, scales(moments)
    correlation_FF = moments.gram_FF / np.outer(scale_F, scale_F * rows)
    flat = np.flatnonzero(np.diag(correlation_FF) < 0.5)
    correlation_FF[flat, :], correlation_FF[:, flat] = 0.0, 0.0
    correlation_FF[flat, flat] = 1.0
    penalised_FF = correlation_FF.copy() if ridge else correlation_FF
    np.fill_diagonal(penalised_FF, 1.0 + ridge)
    cross_FH = moments.cross_FH / (scale_F[:, None] * rows)
    cross_FH[flat] = 0.0

    factor = factorize(penalised_FF)
    weights_FH = factor.solve(cross_FH) / scale_F[:, None]
    warnings = _warnings(moments, factor, len(flat))
    pivots = np.square(np.diag(factor.lower_FF))
    if series and (factor.jitter or pivots.min(initial=1.0) < 1e-8):
        begin_FH = np.zeros_like(weights_FH) if factor.jitter else weights_FH
        weights_FH = _refine(begin_FH, factor, series, layout, moments, scale_F, ridge, flat)
    intercept_H = moments.intercepts(weights_FH)

    inverse_FF = factor.inverse()
    used = _effective(correlation_FF, inverse_FF, ridge) - len(flat) + int(moments.intercept)
    degrees = rows - used
    sums_HH = residual_sums(moments, weights_FH, series, layout)
    covariance_HH = sums_HH / degrees if degrees > 0 else np.full_like(sums_HH, np.nan)
    # Cov(w) = sigma^2 (G + ridge)^-1 G (G + ridge)^-1 / rows in scaled units.
    spread_FF = inverse_FF @ correlation_FF @ inverse_FF if ridge else inverse_FF
    sigma2_H = np.maximum(np.diag(covariance_HH), 0.0)
    spread_F = np.diag(spread_FF).copy()
    # In a nearly singular system the digits of a variance may cancel: then it is not known.
    spread_F[spread_F < 0.0] = np.nan
    errors_FH = np.sqrt(np.outer(spread_F / rows, sigma2_H)) / scale_F[:, None]
    errors_FH[flat] = np.nan
    lean_F = moments.feature_means_F / scale_F
    lean_F[flat] = 0.0
    lean = max(float(lean_F @ spread_FF @ lean_F), 0.0)
    level = (1.0 + lean) / rows if moments.intercept else 0.0
    return Solution(
        weights_FH=weights_FH,
        intercept_H=intercept_H,
        errors_FH=errors_FH,
        intercept_errors_H=np.sqrt(level * sigma2_H),
        covariance_HH=covariance_HH,
        rows=rows,
        degrees=degrees,
        warnings=warnings,
    )


def residuals(weights_FH: Floats, intercept_H: Floats, values_KN: Floats, layout: Layout) -> Floats:
    """Y - c - X W of one series [H, rows], by FFT."""
    length = values_KN.shape[1]
    start, horizon = layout.reach, layout.horizon
    rows = length - start
    size = next_fast_len(length + max(layout.lags), real=True)
    spectra = rfft(values_KN, size)
    result_HR = np.empty((horizon, rows))
    for h in range(horizon):
        kernel = sum(spectra[k] * rfft(weights_FH[part, h], size) for k, part in layout.blocks())
        # Lag 1 of the row anchored at u is sample u - horizon.
        first = start - horizon
        predicted_R = irfft(kernel, size)[first : first + rows]
        target_R = values_KN[0, start - (horizon - 1) + h :][:rows]
        result_HR[h] = target_R - predicted_R - intercept_H[h]
    return result_HR


def residual_sums(
    moments: Moments, weights_FH: Floats, series: Sequence[Floats], layout: Layout
) -> Floats:
    """Residual cross products [H, H], from the data where the moments' digits cancel."""
    sums_HH = moments.residual_sums(weights_FH)
    precise_H = np.diag(sums_HH) > CANCELLATION * np.diag(moments.targets_HH)
    if precise_H.all() or not series:
        return sums_HH
    _, sums_HH = _gradient(weights_FH, series, layout, moments)
    return sums_HH


def _effective(correlation_FF: Floats, inverse_FF: Floats, ridge: float) -> float:
    """Effective number of parameters: trace of G (G + ridge)^-1."""
    if not ridge:
        return float(len(correlation_FF))
    return float(np.sum(correlation_FF * inverse_FF))


def _warnings(moments: Moments, factor: Factor, flat: int) -> tuple[FitWarning, ...]:
    found = []
    if flat:
        found.append(
            FitWarning("constant", f"{flat} inputs are constant: their coefficients are zero")
        )
    if moments.rows < moments.parameters:
        found.append(
            FitWarning(
                "underdetermined",
                f"{moments.parameters} coefficients from {moments.rows} rows: "
                "the solution of minimum norm, without standard errors",
            )
        )
    if factor.jitter:
        found.append(
            FitWarning(
                "singular",
                "the lags are linearly dependent (a constant, a pure cycle or a trend): "
                f"the solution of about minimum norm, jitter {factor.jitter:.1e}",
            )
        )
    return tuple(found)


def _refine(
    weights_FH: Floats,
    factor: Factor,
    series: Sequence[Floats],
    layout: Layout,
    moments: Moments,
    scale_F: Floats,
    ridge: float,
    flat: np.ndarray,
) -> Floats:
    """Iterated Tikhonov (iterative refinement where there is no jitter), while it improves."""
    best_FH, best = weights_FH, np.inf
    for _ in range(MAX_REFINEMENTS):
        gradient_FH, sums_HH = _gradient(weights_FH, series, layout, moments)
        penalty = ridge * float(np.sum(np.square(weights_FH * scale_F[:, None])))
        loss = float(np.trace(sums_HH)) / moments.rows + penalty
        if loss < best:
            best_FH = weights_FH
        if not loss < best * (1 - 1e-6):
            break
        best = loss
        step_FH = gradient_FH / (scale_F[:, None] * moments.rows)
        step_FH -= ridge * weights_FH * scale_F[:, None]
        step_FH[flat] = 0.0
        weights_FH = weights_FH + factor.solve(step_FH) / scale_F[:, None]
    return best_FH


def _gradient(
    weights_FH: Floats, series: Sequence[Floats], layout: Layout, moments: Moments
) -> tuple[Floats, Floats]:
    """X'(Y - X W) [F, H] and the residual cross products [H, H], both from the data."""
    centre_K = centre(series) if moments.intercept else np.zeros(len(layout.lags))
    # The intercept in centred units: moments.intercepts without the centre.
    shift_F = moments.feature_means_F - np.repeat(centre_K, layout.lags)
    intercept_H = moments.target_means_H - centre_K[0] - shift_F @ weights_FH
    if not moments.intercept:
        intercept_H = np.zeros_like(intercept_H)
    gradient_FH, sums_HH = np.zeros_like(weights_FH), np.zeros_like(moments.targets_HH)
    for values_KN in series:
        centred_KN = values_KN - centre_K[:, None]
        errors_HR = residuals(weights_FH, intercept_H, centred_KN, layout)
        sums_HH += errors_HR @ errors_HR.T
        size = next_fast_len(centred_KN.shape[1], real=True)
        spectra = rfft(centred_KN, size)
        for h, errors_R in enumerate(errors_HR):
            reversed_spectrum = np.conj(rfft(errors_R, size))
            for k, part in layout.blocks():
                products = irfft(spectra[k] * reversed_spectrum, size)
                first = layout.reach - layout.horizon
                gradient_FH[part, h] += products[first - layout.lags[k] + 1 : first + 1][::-1]
    return gradient_FH, sums_HH
