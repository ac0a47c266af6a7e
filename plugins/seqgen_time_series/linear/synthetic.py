"""Series of a known autoregression, and how far estimated coefficients are from the true ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from seqgen_time_series.linear.gram import Floats

SPARSE_LAGS = {1: 0.2, 3: 0.3, 10: -0.5}
"""AR-Net's sparse process: its only non-zero coefficients, by lag (arXiv:1911.12436, figure 6)."""


def sparse_coefficients(lags: int) -> Floats:
    """The coefficients [lags] of AR-Net's sparse process, lag 1 first."""
    weights_P = np.zeros(lags)
    for lag, weight in SPARSE_LAGS.items():
        weights_P[lag - 1] = weight
    return weights_P


def random_coefficients(lags: int, *, seed: int, total: float = 0.9) -> Floats:
    """Random coefficients [lags] with sum |w| = total < 1, hence of a stationary process."""
    weights_P = np.random.default_rng(seed).uniform(-1.0, 1.0, lags)
    return np.asarray(weights_P * (total / np.abs(weights_P).sum()))


def simulate(
    coefficients_P: Sequence[float] | NDArray[np.float64],
    length: int,
    *,
    seed: int,
    sigma: float = 1.0,
    level: float = 0.0,
) -> Floats:
    """A series [length] of the autoregression with Gaussian noise, after a run-in.

    Args:
        coefficients_P: lag 1 first.
        length: samples returned.
        seed: of the noise.
        sigma: its standard deviation.
        level: mean of the series.
    """
    from scipy.signal import lfilter

    weights_P = np.asarray(coefficients_P, dtype=np.float64)
    run_in = 10 * len(weights_P) + 200
    noise = np.random.default_rng(seed).normal(scale=sigma, size=run_in + length)
    polynomial = np.concatenate([[1.0], -weights_P])
    return np.asarray(level + lfilter([1.0], polynomial, noise)[run_in:], dtype=np.float64)


def stpe(estimate_P: NDArray[np.float64], truth_P: NDArray[np.float64]) -> float:
    """Symmetrical total percentage error 100 sum|e - w| / sum(|e| + |w|), AR-Net section 3.4."""
    apart = float(np.abs(estimate_P - truth_P).sum())
    return 100.0 * apart / (1e-8 + float((np.abs(estimate_P) + np.abs(truth_P)).sum()))
