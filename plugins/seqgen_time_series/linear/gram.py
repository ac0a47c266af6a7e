"""The second moments of a lagged regression, without ever building its matrix of lags.

A regression of y_t on p lags has an n x p matrix X, whose Gram matrix X'X of the covariance method
is nearly Toeplitz. Writing C_ab[i, j] = sum_u a[u-i] b[u-j] over u = start..stop-1:

1. the first row and the first column are correlations, by FFT;
2. C[i+1, j+1] = C[i, j] + a[start-1-i] b[start-1-j] - a[stop-1-i] b[stop-1-j];
3. an intercept takes S S'/rows away, S being the sums of the columns.

That is O(n log n + p^2) work and O(n + p^2) memory. A direct forecast of H steps is the same matrix
with more lags: at the anchor u the targets are lags H-1..0 and the inputs begin at lag H. Several
series add up to one global model.

Shape suffixes: K variables (the target, then the regressors), N samples, F features (lags of the
target, then of each regressor, the nearest lag first), H horizon.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft, next_fast_len, rfft

from seqgen.errors import InputError

Floats = NDArray[np.float64]

FEW_LAGS = 200
"""Up to so many, dot products are faster than the transform."""


@dataclass(frozen=True)
class Layout:
    """Which lags are the features, and how many steps are forecast.

    Attributes:
        lags: number of lags of each variable, the target first.
        horizon: targets y_t .. y_{t+H-1} of the features before t.
    """

    lags: tuple[int, ...]
    horizon: int = 1

    @property
    def features(self) -> int:
        return sum(self.lags)

    @property
    def reach(self) -> int:
        """Samples before the anchor that a row needs: the anchor is its last target."""
        return self.horizon - 1 + max(self.lags)

    def blocks(self) -> Iterator[tuple[int, slice]]:
        """(variable, its slice of the features)."""
        first = 0
        for variable, count in enumerate(self.lags):
            yield variable, slice(first, first + count)
            first += count


@dataclass(frozen=True)
class Moments:
    """Sums over the rows of a lagged regression; centred where there is an intercept.

    Attributes:
        gram_FF: X'X.
        cross_FH: X'Y.
        targets_HH: Y'Y.
        feature_means_F: means of the columns of X (zeros without an intercept).
        target_means_H: means of the columns of Y (zeros without an intercept).
        rows: number of rows.
        intercept: whether one is fitted.
    """

    gram_FF: Floats
    cross_FH: Floats
    targets_HH: Floats
    feature_means_F: Floats
    target_means_H: Floats
    rows: int
    intercept: bool

    @property
    def parameters(self) -> int:
        """Coefficients of one target."""
        return len(self.gram_FF) + int(self.intercept)

    def intercepts(self, weights_FH: Floats) -> Floats:
        """The intercepts [H] that belong to these weights."""
        return np.asarray(self.target_means_H - self.feature_means_F @ weights_FH)

    def residual_sums(self, weights_FH: Floats) -> Floats:
        """Residual cross products [H, H] of these weights."""
        mixed_HH = weights_FH.T @ self.cross_FH
        squared_HH = weights_FH.T @ self.gram_FF @ weights_FH
        return np.asarray(self.targets_HH - mixed_HH - mixed_HH.T + squared_HH)


def moments(
    series: Sequence[Floats], layout: Layout, *, intercept: bool = True, start: int | None = None
) -> Moments:
    """Moments of the rows of all series together.

    Args:
        series: arrays [K, N] of finite values, each its own length.
        layout: the lags and the horizon.
        intercept: centre the columns.
        start: first anchor (a later one than `layout.reach` holds samples back).

    Raises:
        InputError: a series has no row.
    """
    start = layout.reach if start is None else start
    centre_K = centre(series) if intercept else np.zeros(len(layout.lags))
    columns = layout.features + layout.horizon
    sums_ZZ, totals_Z, rows = np.zeros((columns, columns)), np.zeros(columns), 0
    for index, values_KN in enumerate(series):
        length = values_KN.shape[1]
        if length <= start:
            raise InputError(
                f"series {index} has {length} values, too few for one row of the regression",
                why=f"{max(layout.lags)} lags and a horizon of {layout.horizon} need {start + 1}",
                fix=f"fewer lags: at most {max(length - layout.horizon, 0)} here",
            )
        centred_KN = values_KN - centre_K[:, None]
        sums_ZZ += _gram(centred_KN, layout, start)
        totals_Z += _column_sums(centred_KN, layout, start)
        rows += length - start
    if intercept:
        sums_ZZ -= np.outer(totals_Z, totals_Z / rows)
    # Columns Z: the target's lags 0..H-1, then the features; target h is lag H-1-h.
    targets, features = slice(layout.horizon - 1, None, -1), slice(layout.horizon, None)
    means_Z = totals_Z / rows if intercept else np.zeros(columns)
    repeated_F = np.repeat(centre_K, layout.lags)
    return Moments(
        gram_FF=sums_ZZ[features, features],
        cross_FH=sums_ZZ[features, : layout.horizon][:, targets],
        targets_HH=sums_ZZ[: layout.horizon, : layout.horizon][targets, targets],
        feature_means_F=repeated_F + means_Z[features],
        target_means_H=centre_K[0] + means_Z[: layout.horizon][targets],
        rows=rows,
        intercept=intercept,
    )


def centre(series: Sequence[Floats]) -> Floats:
    """Mean [K] over all samples of all series: what is subtracted before anything is squared."""
    count = sum(values_KN.shape[1] for values_KN in series)
    return np.asarray(sum(values_KN.sum(axis=1) for values_KN in series) / count)


def lag_products(a: Floats, b: Floats, *, of_a: range, of_b: range, start: int) -> Floats:
    """C[i, j] = sum_u a[u - of_a[i]] b[u - of_b[j]] over u = start..len(a)-1.

    Args:
        a: samples [..., N].
        b: samples [..., N].
        of_a: consecutive lags, none beyond `start`.
        of_b: consecutive lags, none beyond `start`.

    Returns:
        [..., len(of_a), len(of_b)].
    """
    stop, rows, columns = a.shape[-1], len(of_a), len(of_b)
    products = np.empty((*a.shape[:-1], rows, columns))
    products[..., 0, :] = _correlation(a[..., start - of_a[0] : stop - of_a[0]], b, of_b, start)
    same = a is b and of_a == of_b
    products[..., 1:, 0] = (
        products[..., 0, 1:]
        if same
        else _correlation(b[..., start - of_b[0] : stop - of_b[0]], a, of_a, start)[..., 1:]
    )
    entering_a, leaving_a = _edges(a, of_a, start)
    entering_b, leaving_b = _edges(b, of_b, start)
    products[..., 1:, 1:] = entering_a[..., :, None] * entering_b[..., None, :]
    products[..., 1:, 1:] -= leaving_a[..., :, None] * leaving_b[..., None, :]
    for row in range(rows - 1):
        products[..., row + 1, 1:] += products[..., row, :-1]
    return products


def _edges(values: Floats, lags: range, start: int) -> tuple[Floats, Floats]:
    """Samples that enter and leave the sum when both lags grow by one; one shorter than `lags`."""
    steps = np.arange(lags[0], lags[-1])
    return values[..., start - 1 - steps], values[..., values.shape[-1] - 1 - steps]


def _correlation(fixed: Floats, moving: Floats, lags: range, start: int) -> Floats:
    """sum_v fixed[..., v] moving[..., start + v - lag] for every lag; of one series by FFT, unless
    the lags are few."""
    if moving.ndim > 1:
        stop = moving.shape[-1]
        parts = [(fixed * moving[..., start - lag : stop - lag]).sum(axis=-1) for lag in lags]
        return np.stack(parts, axis=-1)
    part = moving[start - lags[-1] : len(moving) - lags[0]]
    if len(lags) <= FEW_LAGS:
        return np.asarray(np.correlate(part, fixed, "valid")[::-1])
    size = next_fast_len(len(part), real=True)
    product = rfft(part, size) * np.conj(rfft(fixed, size))
    return np.asarray(irfft(product, size)[: len(lags)][::-1])


def _ranges(layout: Layout) -> list[range]:
    """The lags of every variable's columns; the target's begin with the targets themselves."""
    first, *others = layout.lags
    horizon = layout.horizon
    return [range(horizon + first), *(range(horizon, horizon + count) for count in others)]


def _gram(values_KN: Floats, layout: Layout, start: int) -> Floats:
    ranges = _ranges(layout)
    blocks: list[list[Floats]] = [[np.empty(0)] * len(ranges) for _ in ranges]
    for i, of_a in enumerate(ranges):
        for j, of_b in enumerate(ranges[: i + 1]):
            a, b = values_KN[i], values_KN[i] if i == j else values_KN[j]
            blocks[i][j] = lag_products(a, b, of_a=of_a, of_b=of_b, start=start)
            blocks[j][i] = blocks[i][j].T
    return np.block(blocks) if len(ranges) > 1 else blocks[0][0]


def _column_sums(values_KN: Floats, layout: Layout, start: int) -> Floats:
    parts = []
    for values_N, lags in zip(values_KN, _ranges(layout), strict=True):
        parts.append(lag_sums(values_N, lags, start))
    return np.concatenate(parts)


def lag_sums(values: Floats, lags: range, start: int) -> Floats:
    """sum_u values[..., u - lag] over u = start..N-1 for every lag: [..., len(lags)]."""
    running = np.concatenate([np.zeros((*values.shape[:-1], 1)), np.cumsum(values, -1)], axis=-1)
    steps = np.arange(lags[0], lags[-1] + 1)
    return np.asarray(running[..., values.shape[-1] - steps] - running[..., start - steps])
