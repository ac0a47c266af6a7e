"""Penalties that make an autoregression sparse, and coordinate descent on its Gram matrix.

    minimise  1/2 |Y - X W|^2 / rows + sum_j P(w_j),      columns of X scaled to unit mean square

- `Ridge`: lambda/2 w^2.
- `L1`: lambda |w| (lasso).
- `Mcp`: lambda |w| - w^2 / (2 gamma), flat from gamma lambda on (Zhang 2010): large weights are
  not shrunk.
- `ArNetPenalty`: one weight's part of AR-Net's R (arXiv:1911.12436, section 3.3.1),
  lambda (2 / (1 + exp(-c1 |w|^(1/c2))) - 1). Its slope at zero is infinite, which gradient methods
  cannot follow; here each weight takes the global minimum of its own scalar problem instead.

With the Gram matrix at hand a step costs O(p), whatever the length of the series. A penalty is
known by its proximal map: argmin_w 1/2 (w - z)^2 + P(w).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from seqgen_time_series.linear.gram import Floats

C1 = C2 = 3.0
"""AR-Net's c1 and c2, for coefficients of order one."""

NEWTON_STEPS = 60


class Penalty(Protocol):
    """A penalty on single weights."""

    @property
    def strength(self) -> float: ...

    def value(self, weights: Floats) -> Floats:
        """P of every weight."""
        ...

    def prox(self, z: Floats) -> Floats:
        """argmin_w 1/2 (w - z)^2 + P(w), elementwise."""
        ...


@dataclass(frozen=True)
class Ridge:
    """Half the square."""

    strength: float

    def value(self, weights: Floats) -> Floats:
        return np.asarray(0.5 * self.strength * np.square(weights))

    def prox(self, z: Floats) -> Floats:
        return np.asarray(z / (1.0 + self.strength))


@dataclass(frozen=True)
class L1:
    """The lasso's penalty."""

    strength: float

    def value(self, weights: Floats) -> Floats:
        return self.strength * np.abs(weights)

    def prox(self, z: Floats) -> Floats:
        return np.asarray(np.sign(z) * np.maximum(np.abs(z) - self.strength, 0.0))


@dataclass(frozen=True)
class Mcp:
    """The minimax concave penalty; gamma > 1, towards 1 it becomes hard thresholding."""

    strength: float
    gamma: float = 3.0

    def value(self, weights: Floats) -> Floats:
        size, knee = np.abs(weights), self.gamma * self.strength
        inside = self.strength * size - np.square(size) / (2 * self.gamma)
        return np.where(size < knee, inside, knee * self.strength / 2)

    def prox(self, z: Floats) -> Floats:
        soft = np.sign(z) * np.maximum(np.abs(z) - self.strength, 0.0)
        shrunk = soft / (1.0 - 1.0 / self.gamma)
        return np.where(np.abs(z) <= self.gamma * self.strength, shrunk, z)


@dataclass(frozen=True)
class ArNetPenalty:
    """AR-Net's R, `strength` being lambda(s) / p: of one weight, the mean already taken."""

    strength: float
    c1: float = C1
    c2: float = C2

    def value(self, weights: Floats) -> Floats:
        root = np.power(np.abs(weights), 1.0 / self.c2)
        return np.asarray(self.strength * np.tanh(0.5 * self.c1 * root))  # 2 sigmoid(x) - 1

    def prox(self, z: Floats) -> Floats:
        size = np.abs(z)
        found = self._largest_stationary(size)
        stays = 0.5 * np.square(found - size) + self.value(found) < 0.5 * np.square(size)
        return np.asarray(np.sign(z) * np.where(stays & (found > 0.0), found, 0.0))

    def _largest_stationary(self, size: Floats) -> Floats:
        """The largest root of w - size + P'(w), zero where there is none.

        The function is convex in w > 0, so Newton's method from the right, where it is positive,
        comes down to that root without passing it.
        """
        w = size.copy()
        for _ in range(NEWTON_STEPS):
            alive = w > 1e-100  # below, powers overflow and nothing but zero is near
            slope, bend = self._derivatives(np.where(alive, w, 1.0))
            value, rise = w - size + slope, 1.0 + bend
            ahead = np.where(alive & (rise > 0.0), w - value / np.where(rise > 0, rise, 1.0), 0.0)
            ahead = np.maximum(ahead, 0.0)
            if np.all(np.abs(ahead - w) <= 1e-14 * size):
                return np.asarray(ahead)
            w = ahead
        return w

    def _derivatives(self, w: Floats) -> tuple[Floats, Floats]:
        """P' and P'' at w > 0."""
        power = 1.0 / self.c2
        inner = 0.5 * self.c1 * np.power(w, power)
        inner1 = power * inner / w
        inner2 = (power - 1.0) * inner1 / w
        bell = 1.0 / np.square(np.cosh(np.minimum(inner, 300.0)))
        slope = self.strength * bell * inner1
        bend = self.strength * bell * (inner2 - 2.0 * np.tanh(inner) * np.square(inner1))
        return slope, bend


@dataclass(frozen=True)
class Descent:
    """Where coordinate descent ended.

    Attributes:
        weights_FH: of the scaled features.
        converged: whether the last full sweep changed nothing any more.
        sweeps: full sweeps over all coordinates.
    """

    weights_FH: Floats
    converged: bool
    sweeps: int


def universal_strength(sigma: float, features: int, rows: int) -> float:
    """lambda = sigma sqrt(2 ln p / n): what noise alone reaches among p correlations."""
    return sigma * math.sqrt(2.0 * math.log(max(features, 2)) / rows)


def arnet_strength(sigma: float, sparsity: float) -> float:
    """lambda(s) = c_lambda (1/s - 1) with c_lambda = sigma / 100 (AR-Net, section 3.3.1)."""
    return sigma / 100.0 * (1.0 / sparsity - 1.0)


def threshold(penalty: Penalty) -> float:
    """The |z| up to which the proximal map of a penalty that is concave in |w| gives zero.

    1/2 (w - z)^2 + P(w) <= 1/2 z^2 from z = w/2 + P(w)/w on: its least value over w.
    """
    w = np.geomspace(1e-9, 1e3, 4001)
    return float((0.5 * w + penalty.value(w) / w).min())


def arnet_calibrated(sigma: float, features: int, rows: int) -> float:
    """The strength of `ArNetPenalty` that selects as the extended BIC does: no sparsity to guess.

    R jumps from zero almost to least squares, as best-subset selection does, so its threshold is
    set to sigma sqrt((ln n + 2 ln p) / n) (Chen and Chen 2008). Ours, not AR-Net's.
    """
    wanted = sigma * math.sqrt((math.log(rows) + 2.0 * math.log(max(features, 2))) / rows)
    low, high = 0.0, 1.0
    while threshold(ArNetPenalty(high)) < wanted:
        high *= 2.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        below = threshold(ArNetPenalty(middle)) < wanted
        low, high = (middle, high) if below else (low, middle)
    return high


def descend(
    correlation_FF: Floats,
    cross_FH: Floats,
    penalty: Penalty,
    *,
    start_FH: Floats | None = None,
    tolerance: float = 1e-9,
    max_sweeps: int = 500,
) -> Descent:
    """Coordinate descent.

    Args:
        correlation_FF: X'X / rows, unit diagonal.
        cross_FH: X'Y / rows.
        penalty: of every weight.
        start_FH: first weights; zeros by default.
        tolerance: largest change of a weight, relative to the largest correlation, that ends it.
        max_sweeps: limit on full sweeps.
    """
    features = len(correlation_FF)
    weights_FH = np.zeros_like(cross_FH) if start_FH is None else start_FH.copy()
    slopes_FH = cross_FH - correlation_FF @ weights_FH
    limit = tolerance * float(np.abs(cross_FH).max(initial=0.0))
    for sweep in range(1, max_sweeps + 1):
        # Which zeros would move is seen at once; only these and the others are visited.
        moves_F = np.any(penalty.prox(slopes_FH + weights_FH) != weights_FH, axis=1)
        visit = np.flatnonzero(moves_F | np.any(weights_FH != 0.0, axis=1))
        change = _sweep(visit, weights_FH, slopes_FH, correlation_FF, penalty)
        if change <= limit:
            return Descent(weights_FH, True, sweep)
        active = np.flatnonzero(np.any(weights_FH != 0.0, axis=1))
        if len(active) < features:
            for _ in range(10):
                if _sweep(active, weights_FH, slopes_FH, correlation_FF, penalty) <= limit:
                    break
    return Descent(weights_FH, False, max_sweeps)


def descend_path(
    correlation_FF: Floats, cross_FH: Floats, penalty: L1 | Mcp, *, steps: int = 30
) -> Descent:
    """Coordinate descent from the strength that selects nothing down to the penalty's own.

    For a penalty that is not convex the end depends on the way; this one is the usual way and
    finds the sparse solutions.
    """
    largest = float(np.abs(cross_FH).max(initial=0.0))
    if penalty.strength <= 0.0 or penalty.strength >= largest:
        return descend(correlation_FF, cross_FH, penalty)
    found = Descent(np.zeros_like(cross_FH), True, 0)
    for strength in np.geomspace(largest, penalty.strength, steps):
        stage = replace(penalty, strength=float(strength))
        found = descend(correlation_FF, cross_FH, stage, start_FH=found.weights_FH)
    return found


def _sweep(
    visit: NDArray[np.intp],
    weights_FH: Floats,
    slopes_FH: Floats,
    correlation_FF: Floats,
    penalty: Penalty,
) -> float:
    """One pass over some coordinates, in place; returns the largest change of a weight."""
    largest = 0.0
    for j in visit:
        old_H = weights_FH[j]
        new_H = penalty.prox(slopes_FH[j] + old_H)
        step_H = new_H - old_H
        change = float(np.abs(step_H).max())
        if change > 0.0:
            weights_FH[j] = new_H
            slopes_FH -= np.outer(correlation_FF[j], step_H)
            largest = max(largest, change)
    return largest
