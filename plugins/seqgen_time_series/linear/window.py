"""Regressions on windows whose mean is subtracted, from the moments of the windows as they are.

With m the mean of the p lags of the target, the model y_h - m = c + sum w_i (y_{t-i} - m) + ... is
level-invariant. Subtracting a window's mean is linear, so its moments are P C P' of the moments,
and the model is again an ordinary autoregression, with the coefficients w_i + (1 - sum w) / p.

The centred lags sum to zero. The Gram matrix gets the missing direction back, which leaves the
solution with sum w = 0.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from seqgen_time_series.linear.exact import Solution
from seqgen_time_series.linear.gram import Floats, Layout, Moments


def window_moments(moments: Moments, layout: Layout) -> Moments:
    """Moments of the windows without their means; the target's lags keep full rank."""
    lags = layout.lags[0]
    mean_F = np.zeros(layout.features)
    mean_F[:lags] = 1.0 / lags  # the window's mean, as weights of the features
    own_F = (mean_F > 0.0).astype(np.float64)

    def without(values_FX: Floats) -> Floats:
        """x - m for the rows of the target's lags."""
        return np.asarray(values_FX - np.outer(own_F, mean_F @ values_FX))

    gram_FF = without(without(moments.gram_FF).T)
    # Cross products with y_h - m.
    crossed_FH = moments.cross_FH - (moments.gram_FF @ mean_F)[:, None]
    means_H = moments.cross_FH.T @ mean_F
    variance = float(mean_F @ moments.gram_FF @ mean_F)
    targets_HH = moments.targets_HH - means_H[:, None] - means_H[None, :] + variance
    level = float(mean_F @ moments.feature_means_F)
    scale = float(np.trace(gram_FF[:lags, :lags])) / lags
    return replace(
        moments,
        gram_FF=gram_FF + np.outer(own_F, own_F) * (scale / lags),
        cross_FH=without(crossed_FH),
        targets_HH=targets_HH,
        feature_means_F=moments.feature_means_F - own_F * level,
        target_means_H=moments.target_means_H - level,
    )


def window_weights(solution: Solution, moments: Moments, layout: Layout) -> Solution:
    """The solution in terms of the lags themselves; `moments` are those of the lags themselves."""
    lags = layout.lags[0]
    weights_FH = solution.weights_FH.copy()
    weights_FH[:lags] += (1.0 - weights_FH[:lags].sum(axis=0)) / lags
    return replace(solution, weights_FH=weights_FH, intercept_H=moments.intercepts(weights_FH))
