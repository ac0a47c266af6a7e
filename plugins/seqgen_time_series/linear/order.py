"""How many lags? Every order from 0 to p from one Gram matrix and one Cholesky factorization.

With the lags in their order, the leading blocks of the factor L of X'X are the factors of the
smaller models. So with z = L^-1 X'y

    RSS(p) = y'y - sum_{i<=p} z_i^2,     w(p) = sum_{i<=p} z_i u_i,   u_i the columns of L^-T,

and all orders together cost what the largest one does. All of them are fitted on the same rows
(those of the largest), as comparing information criteria asks for.

Shape suffixes: P largest order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import solve_triangular

from seqgen.errors import ConfigError, did_you_mean
from seqgen_time_series.linear.exact import factorize, scales
from seqgen_time_series.linear.gram import Floats, Layout, Moments, moments
from seqgen_time_series.linear.inputs import arrange

Criterion = Literal["aic", "bic", "validation"]
CRITERIA = ("aic", "bic", "validation")


@dataclass(frozen=True)
class OrderSelection:
    """Orders compared.

    Attributes:
        best: number of lags with the lowest score.
        criterion: aic, bic or validation.
        scores: [P + 1] of the orders 0 .. P: AIC or BIC in the form -2 log-likelihood + penalty of
            Gaussian noise, or the mean squared error of the validation part.
        rows: rows on which every order was fitted.
    """

    best: int
    criterion: Criterion
    scores: Floats
    rows: int


def select_order(
    y: ArrayLike,
    max_lags: int,
    *,
    criterion: Criterion = "bic",
    intercept: bool = True,
    validation: float = 0.2,
) -> OrderSelection:
    """The number of lags of an autoregression of one series.

    Args:
        y: [N], the oldest value first.
        max_lags: largest order P.
        criterion: aic, bic, or the one-step error on the last part of the series.
        intercept: fit one.
        validation: share of the series that is the validation part.

    Raises:
        ConfigError: an argument is out of range.
        InputError: the series is too short or not finite.
    """
    if criterion not in CRITERIA:
        raise ConfigError(
            f"there is no criterion {criterion!r}", fix=did_you_mean(criterion, CRITERIA)
        )
    if max_lags < 1:
        raise ConfigError(f"max_lags is {max_lags}", fix="1 or more")
    layout = Layout((max_lags,))
    (values_KN,) = arrange([y], [{}], (), layout)
    if criterion != "validation":
        sums = moments([values_KN], layout, intercept=intercept)
        scores = information(sums, criterion)
        return OrderSelection(int(np.argmin(scores)), criterion, scores, sums.rows)
    if not 0.0 < validation < 1.0:
        raise ConfigError(f"validation is {validation}", fix="a share between 0 and 1")
    split = round(values_KN.shape[1] * (1.0 - validation))
    fitted, held = values_KN[:, :split], values_KN[:, split - max_lags :]
    arrange([fitted[0]], [{}], (), layout)  # says so where the first part is too short
    sums = moments([fitted], layout, intercept=intercept)
    scores = _held_out(sums, moments([held], layout))
    return OrderSelection(int(np.argmin(scores)), criterion, scores, sums.rows)


def information(sums: Moments, criterion: Criterion) -> Floats:
    """AIC or BIC [P + 1] of the orders 0 .. P."""
    rows, total = sums.rows, float(sums.targets_HH[0, 0])
    _, _, halves_P = _factored(sums)
    explained = rows * np.concatenate([[0.0], np.cumsum(np.square(halves_P))])
    # An order that explains a series entirely has no likelihood: it stops at the rounding error.
    floor = max(total, np.finfo(np.float64).tiny) * rows * np.finfo(np.float64).eps
    variance = np.maximum(total - explained, floor) / rows
    parameters = np.arange(len(variance)) + int(sums.intercept) + 1  # and the variance itself
    price = 2.0 if criterion == "aic" else math.log(rows)
    deviance = rows * (np.log(2.0 * math.pi * variance) + 1.0)
    return np.asarray(deviance + price * parameters)


def _held_out(sums: Moments, held: Moments) -> Floats:
    """Mean squared error [P + 1] of every order on the held-out rows (centred moments)."""
    lower_PP, scale_P, halves_P = _factored(sums)
    upper_PP = solve_triangular(lower_PP, np.eye(len(lower_PP)), lower=True).T
    # Column p holds the coefficients of order p, zeros below them.
    weights = np.cumsum(upper_PP * halves_P, axis=1) / scale_P[:, None]
    weights = np.concatenate([np.zeros((len(weights), 1)), weights], axis=1)
    offsets = sums.intercepts(weights) if sums.intercept else np.zeros(weights.shape[1])
    mixed = held.cross_FH[:, 0] @ weights
    squared = np.sum(weights * (held.gram_FF @ weights), axis=0)
    spread = (float(held.targets_HH[0, 0]) - 2.0 * mixed + squared) / held.rows
    bias = held.target_means_H[0] - offsets - held.feature_means_F @ weights
    return np.asarray(spread + np.square(bias))


def _factored(sums: Moments) -> tuple[Floats, Floats, Floats]:
    """Factor [P, P] and scales [P] of the Gram matrix, and z [P] of the scaled problem."""
    scale_P = scales(sums)
    correlation_PP = sums.gram_FF / np.outer(scale_P, scale_P * sums.rows)
    np.fill_diagonal(correlation_PP, 1.0)
    lower_PP = factorize(correlation_PP).lower_FF
    right_P = sums.cross_FH[:, 0] / (scale_P * sums.rows)
    return lower_PP, scale_P, np.asarray(solve_triangular(lower_PP, right_P, lower=True))
