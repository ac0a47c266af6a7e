"""Ridge autoregressions of many series of one length at once, each with weights of its own.

The estimator is that of `ARNet(lags=p, penalty="ridge")`, without its standard errors: the same
normal equations, of all series side by side. With a ridge they are never singular.

Shape suffixes: B series, N samples, P lags, Z the target and its lags.
"""

from __future__ import annotations

import numpy as np

from seqgen_time_series.linear.gram import Floats, lag_products, lag_sums

RIDGE = 1e-3
"""Of the weights, in units of the lags' standard deviations; as `ARNet` chooses it."""
ROUNDING = 1e-13
"""Share of a lag's squares that the subtraction of its mean may leave behind."""


def ridge_autoregressions(x_BN: Floats, lags: int) -> tuple[Floats, Floats]:
    """Weights [B, P], the nearest lag first, and intercepts [B].

    Args:
        x_BN: finite, more than `lags` samples.
    """
    rows = x_BN.shape[1] - lags
    centre_B1 = x_BN.mean(axis=1, keepdims=True)
    centred_BN = x_BN - centre_B1
    columns = range(lags + 1)
    sums_BZZ = lag_products(centred_BN, centred_BN, of_a=columns, of_b=columns, start=lags)
    totals_BZ = lag_sums(centred_BN, columns, lags)
    raw_BP = sums_BZZ.diagonal(axis1=1, axis2=2)[:, 1:] / rows
    sums_BZZ -= totals_BZ[:, :, None] * (totals_BZ / rows)[:, None, :]
    means_BZ = centre_B1 + totals_BZ / rows

    square_BP = sums_BZZ.diagonal(axis1=1, axis2=2)[:, 1:] / rows
    # What is left of a constant lag after centring is rounding.
    flat_BP = square_BP <= ROUNDING * raw_BP
    scale_BP = np.sqrt(np.where(flat_BP, 1.0, square_BP))
    gram_BPP = sums_BZZ[:, 1:, 1:] / (scale_BP[:, :, None] * scale_BP[:, None, :] * rows)
    gram_BPP[flat_BP] = 0.0
    gram_BPP.swapaxes(1, 2)[flat_BP] = 0.0
    gram_BPP[:, range(lags), range(lags)] = 1.0 + RIDGE
    cross_BP = np.where(flat_BP, 0.0, sums_BZZ[:, 1:, 0] / (scale_BP * rows))
    weights_BP = np.linalg.solve(gram_BPP, cross_BP[:, :, None])[:, :, 0] / scale_BP
    return weights_BP, means_BZ[:, 0] - (means_BZ[:, 1:] * weights_BP).sum(axis=1)
