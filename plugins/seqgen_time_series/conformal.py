"""Split-conformal calibration: intervals that hold what they promise, from a forecast's own errors.

Of n errors on windows that the model was not fitted to, the one of rank ceil((n + 1)(1 - a)) bounds
the next error with a probability of at least 1 - a, whatever their distribution, if they are
exchangeable (Vovk et al. 2005; Lei et al. 2018). Errors of one series are so only roughly: the
further ahead and the more the series changes, the less. Each step of the horizon has ranks of its
own.

`absolute`    a point forecast +- the ranked |y - point|
`cqr`         quantiles moved apart by the ranked max(low - y, y - high); a negative one moves them
              together (Romano, Patterson and Candes 2019)
`asymmetric`  each quantile moved by ranked errors of its own side, with half of a each: safer where
              errors are skewed, and wider

Shape suffixes: N windows, H steps, K levels, `...` any leading dimensions.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from seqgen.errors import InputError, UsageError

Floats = NDArray[np.float64]
Method = Literal["absolute", "cqr", "asymmetric"]


def conformal_rank(count: int, level: float) -> int:
    """ceil((n + 1) level): which of n sorted errors, from 1, bounds the next with `level`.

    Raises:
        InputError: n is too small: the rank would lie behind the last error, and the interval would
            be infinite.
    """
    # Decimal fractions: 10 * 0.9 must not become 9.000000000000002, of which the ceiling is 10.
    exact = _fraction(level)
    if not 0 < exact < 1:
        raise UsageError(f"{level} is no level", fix="a number between 0 and 1, such as 0.8")
    rank = math.ceil((count + 1) * exact)
    if rank > count:
        needed = needed_errors(level)
        raise InputError(
            f"an interval of {100 * level:g} % cannot be calibrated with {count} errors a step: "
            "it would be infinite",
            why=f"the rank ceil(({count} + 1) x {level:g}) = {rank} lies behind the last error",
            fix=f"use at least {needed} windows, or a lower level",
        )
    return rank


@cache
def needed_errors(level: float) -> int:
    """The smallest n with ceil((n + 1) level) <= n."""
    exact = _fraction(level)
    return math.ceil(exact / (1 - exact))


def conformal_quantile(scores_N: ArrayLike, level: float) -> Floats:
    """The score of rank `conformal_rank` along the first axis: [N, ...] -> [...].

    Raises:
        InputError: too few scores, or one of them is not finite.
    """
    scores = np.asarray(scores_N, dtype=np.float64)
    if not np.isfinite(scores).all():
        raise InputError(
            "a calibration error is not finite", fix="leave out windows with missing values"
        )
    rank = conformal_rank(len(scores), level)
    return np.asarray(np.partition(scores, rank - 1, axis=0)[rank - 1])


@dataclass(frozen=True)
class Calibration:
    """What is added to forecasts so that their quantiles hold.

    Attributes:
        method: how the offsets were found.
        levels: of the quantiles [K], rising and symmetric around 0.5.
        offsets_HK: in units of the scale.
        count: windows N that they were found with.
    """

    method: Method
    levels: tuple[float, ...]
    offsets_HK: Floats = field(repr=False)
    count: int

    @property
    def horizon(self) -> int:
        """Steps that can be calibrated."""
        return len(self.offsets_HK)

    def apply(self, forecast: ArrayLike, scale: ArrayLike = 1.0) -> Floats:
        """Calibrated quantiles [..., H, K].

        Args:
            forecast: the point [..., H] for `absolute`, else the quantiles [..., H, K].
            scale: that the errors were divided by; [...] or one number.

        Raises:
            InputError: there are more steps than were calibrated.
        """
        values = np.asarray(forecast, dtype=np.float64)
        quantiles = values[..., None] if self.method == "absolute" else values
        steps = quantiles.shape[-2]
        if steps > self.horizon:
            raise InputError(
                f"{steps} steps are forecast, and {self.horizon} were calibrated",
                fix="calibrate with windows of the same horizon",
            )
        own = np.asarray(scale, dtype=np.float64)[..., None, None]
        moved = quantiles + own * self.offsets_HK[:steps]
        return _uncrossed(moved, np.asarray(self.levels))

    def to_json(self) -> str:
        """As one JSON object."""
        return json.dumps(
            {
                "method": self.method,
                "levels": self.levels,
                "offsets": self.offsets_HK.tolist(),
                "count": self.count,
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Calibration:
        """The very same from `to_json`."""
        found = json.loads(text)
        offsets_HK = np.array(found["offsets"], dtype=np.float64)
        return cls(found["method"], tuple(found["levels"]), offsets_HK, int(found["count"]))


def calibrate_point(
    y_NH: ArrayLike, point_NH: ArrayLike, levels: Sequence[float], scale_N: ArrayLike = 1.0
) -> Calibration:
    """Intervals around a point forecast from its absolute errors.

    Args:
        y_NH, point_NH: values and forecasts of windows the model was not fitted to.
        levels: of the quantiles wanted: pairs around 0.5, which itself may be among them.
        scale_N: errors are divided by it, where windows of different series are put together.

    Raises:
        InputError: too few windows for the outermost levels, or an error is not finite.
        UsageError: levels do not pair up.
    """
    levels = _paired(levels)
    error_NH = np.abs(np.asarray(y_NH, np.float64) - np.asarray(point_NH, np.float64))
    error_NH = error_NH / np.asarray(scale_N, np.float64)[..., None]
    offsets_HK = np.zeros((error_NH.shape[1], len(levels)))
    for low, high, inside in _pairs(levels):
        reach_H = conformal_quantile(error_NH, inside)
        offsets_HK[:, low], offsets_HK[:, high] = -reach_H, reach_H
    return Calibration("absolute", levels, offsets_HK, len(error_NH))


def calibrate_quantiles(
    y_NH: ArrayLike,
    quantiles_NHK: ArrayLike,
    levels: Sequence[float],
    scale_N: ArrayLike = 1.0,
    *,
    asymmetric: bool = False,
) -> Calibration:
    """Conformalized quantile regression: how far to move each pair of quantiles.

    Args:
        y_NH: values of windows the model was not fitted to.
        quantiles_NHK: its quantiles.
        levels: theirs, in pairs around 0.5; the median stays where it is.
        scale_N: as for `calibrate_point`.
        asymmetric: low and high quantiles move by errors of their own.

    Raises:
        InputError, UsageError: as for `calibrate_point`.
    """
    levels = _paired(levels)
    y_NH1 = np.asarray(y_NH, np.float64)[..., None]
    quantiles = np.asarray(quantiles_NHK, np.float64)
    # How far a value lies outside: below a low quantile, above a high one.
    side_K = np.sign(np.asarray(levels) - 0.5)
    outside_NHK = side_K * (y_NH1 - quantiles) / np.asarray(scale_N, np.float64)[..., None, None]
    offsets_HK = np.zeros(quantiles.shape[1:])
    for low, high, inside in _pairs(levels):
        if asymmetric:
            one_side = 1.0 - (1.0 - inside) / 2.0
            for k in (low, high):
                reach_H = conformal_quantile(outside_NHK[..., k], one_side)
                offsets_HK[:, k] = side_K[k] * reach_H
            continue
        score_NH = np.maximum(outside_NHK[..., low], outside_NHK[..., high])
        reach_H = conformal_quantile(score_NH, inside)
        offsets_HK[:, low], offsets_HK[:, high] = -reach_H, reach_H
    method: Method = "asymmetric" if asymmetric else "cqr"
    return Calibration(method, levels, offsets_HK, len(quantiles))


def _fraction(level: float) -> Fraction:
    """The decimal fraction that a float was written as."""
    return Fraction(level).limit_denominator(10**9)


def _paired(levels: Sequence[float]) -> tuple[float, ...]:
    rising = all(low < high for low, high in pairwise(levels))
    sums = [_fraction(a) + _fraction(b) for a, b in zip(levels, reversed(levels), strict=True)]
    if not levels or not rising or any(abs(s - 1) > Fraction(1, 10**8) for s in sums):
        raise UsageError(
            f"the levels {', '.join(f'{level:g}' for level in levels) or 'given'} do not pair up",
            fix="rising levels, each with its mirror image: 0.1,0.5,0.9",
        )
    return tuple(float(level) for level in levels)


def _pairs(levels: Sequence[float]) -> list[tuple[int, int, float]]:
    """(place of the low level, of the high one, share between them); the widest first."""
    last = len(levels) - 1
    return [
        (k, last - k, float(_fraction(levels[last - k]) - _fraction(levels[k])))
        for k in range(len(levels) // 2)
    ]


def _uncrossed(quantiles: Floats, levels_K: Floats) -> Floats:
    """Quantiles in order: moved together, two of them may have passed each other.

    Low ones are held below, high ones above the median (or the middle of the innermost pair), and
    each at least as far out as the next inner one, so that no interval becomes narrower than one
    that it contains. Sorting would let a low quantile take the place of a high one.
    """
    count = len(levels_K)
    half, middle = count // 2, (count - 1) / 2
    centre = (quantiles[..., math.floor(middle)] + quantiles[..., math.ceil(middle)]) / 2
    low = np.minimum(quantiles[..., :half], centre[..., None])
    high = np.maximum(quantiles[..., count - half :], centre[..., None])
    low = np.minimum.accumulate(low[..., ::-1], axis=-1)[..., ::-1]
    high = np.maximum.accumulate(high, axis=-1)
    inner = quantiles[..., half : count - half]
    return np.asarray(np.concatenate([low, inner, high], axis=-1))
