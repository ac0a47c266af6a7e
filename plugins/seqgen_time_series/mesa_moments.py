"""Exact expectations of the mesa-optimization experiment: its loss without a single sample.

The layer's prediction (`mesa.py`) is y_t = A G_t B u_t / rho_t with u_t = (x_t; x_{t-1}) and
G_t = sum_{i<=t} u_i u_i^*. It is linear in Theta = A (x) B over the features

    phi_t[k, l, m] = sum_{i<=t} u_i[k] conj(u_i[l]) u_t[m] / rho_t

so that the expected loss is a quadratic form of Theta in Q = sum_t E phi_t phi_t^* and
C = sum_t E x_{t+1} phi_t^*. Every entry of u_i is x_1[a] lambda_a^e: the expectation over the
uniform phases lambda is 1 where the exponents of every coordinate cancel, and 0 elsewhere; what is
left is a moment of x_1. Coordinates are exchangeable: only the pattern of equal ones matters.

Shape suffixes: D coordinates, K = 2D entries of u, P = K^3 features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from seqgen.errors import ConfigError, did_you_mean

Floats = NDArray[np.float64]
Data = Literal["one-hot", "gaussian", "ones"]
DATA: tuple[Data, ...] = ("one-hot", "gaussian", "ones")
"""Distributions of x_1: c times a random unit vector; independent normal; all entries c."""

SIGNS = (1, -1, 1, -1, 1, -1)
"""Of the exponents of u[k] conj(u[l]) u[m] and the conjugate of u[k'] conj(u[l']) u[m']."""


@dataclass(frozen=True)
class Expectations:
    """Of one distribution.

    Attributes:
        quadratic_PP: Q, real and symmetric.
        linear_DP: C, real.
        power: sum_t E |x_{t+1}|^2.
    """

    quadratic_PP: Floats
    linear_DP: Floats
    power: float


def expectations(data: Data, *, dimension: int, length: int, size: float) -> Expectations:
    """Q, C and the data's power.

    Args:
        data: distribution of x_1.
        dimension: coordinates D.
        length: T; the loss is over t = 2..T-1.
        size: standard deviation of normal data, else the entry c.
    """
    width = 2 * dimension
    coordinates = np.tile(np.arange(dimension), 2)  # u = (x_t; x_{t-1})
    features = list(product(range(width), repeat=3))
    shifts = (np.arange(width) >= dimension).astype(int)

    counts = _Counts(length)
    quadratic_PP = np.zeros((len(features), len(features)))
    linear_DP = np.zeros((dimension, len(features)))
    entries = np.array(features)
    places = coordinates[entries]  # [P, 3]
    code_P = shifts[entries] @ np.array([4, 2, 1])
    moment: dict[tuple[int, ...], float] = {}

    def moment_of(pattern: tuple[int, ...]) -> float:
        if pattern not in moment:
            multiplicities = np.bincount(pattern, minlength=dimension).tolist()
            moment[pattern] = mixed_moment(data, multiplicities, dimension=dimension, size=size)
        return moment[pattern]

    # All features with the same three coordinates are treated at once.
    groups = {
        triple: np.flatnonzero((places == triple).all(axis=1))
        for triple in product(range(dimension), repeat=3)
    }
    for left, rows in groups.items():
        for right, columns in groups.items():
            pattern = canonical((*left, *right))
            weight = moment_of(pattern)
            if weight:
                table = counts.pairs(pattern)  # [8, 8]
                block = weight * table[np.ix_(code_P[rows], code_P[columns])]
                quadratic_PP[np.ix_(rows, columns)] = block
        for target in range(dimension):
            pattern = canonical((target, *left))
            weight = moment_of(pattern)
            if weight:
                linear_DP[target, rows] = weight * counts.targets(pattern)[code_P[rows]]
    square = mixed_moment(data, [2], dimension=dimension, size=size)
    return Expectations(quadratic_PP, linear_DP, (length - 2) * dimension * square)


def mixed_moment(data: Data, powers: Sequence[int], *, dimension: int, size: float) -> float:
    """E prod_j x_j^powers[j] of x_1, for different coordinates j."""
    used = [power for power in powers if power]
    if data == "one-hot":
        return size ** used[0] / dimension if len(used) == 1 else float(not used)
    if data == "gaussian":
        if any(power % 2 for power in used):
            return 0.0
        return float(np.prod([size**power * _double_factorial(power - 1) for power in used]))
    if data == "ones":
        return float(size ** sum(used))
    raise ConfigError(f"there is no data {data!r}", fix=did_you_mean(data, DATA))


def canonical(places: Sequence[int]) -> tuple[int, ...]:
    """The coordinates renamed in the order in which they first appear."""
    names: dict[int, int] = {}
    return tuple(names.setdefault(place, len(names)) for place in places)


def _double_factorial(n: int) -> int:
    return int(np.prod(np.arange(n, 0, -2))) if n > 0 else 1


class _Counts:
    """How often the phases cancel, summed over t and over the tokens i, with weights 1/rho_t."""

    def __init__(self, length: int) -> None:
        steps = range(2, length)
        self.triples = np.array(
            [(t, i, j) for t in steps for i in range(1, t + 1) for j in range(1, t + 1)]
        )
        self.pairs_ti = np.array([(t, i) for t in steps for i in range(1, t + 1)])
        self._pairs: dict[tuple[int, ...], Floats] = {}
        self._targets: dict[tuple[int, ...], Floats] = {}

    def pairs(self, pattern: tuple[int, ...]) -> Floats:
        """[8, 8] over the shifts of (k, l, m) and (k', l', m'), for coordinates in this pattern."""
        if pattern not in self._pairs:
            t, i, j = self.triples.T
            table = np.zeros((8, 8))
            for code in range(64):
                shift = [code >> bit & 1 for bit in (5, 4, 3, 2, 1, 0)]
                times = np.stack([i, i, t, j, j, t]) - np.array(shift)[:, None]
                table[code >> 3, code & 7] = _cancelled(times, pattern, SIGNS, t)
            self._pairs[pattern] = table
        return self._pairs[pattern]

    def targets(self, pattern: tuple[int, ...]) -> Floats:
        """[8] over the shifts of (k, l, m), for the coordinates of x_{t+1}, k, l, m."""
        if pattern not in self._targets:
            t, i = self.pairs_ti.T
            table = np.zeros(8)
            for code in range(8):
                shift = [0, code >> 2 & 1, code >> 1 & 1, code & 1]
                times = np.stack([t + 1, i, i, t]) - np.array(shift)[:, None]
                table[code] = _cancelled(times, pattern, SIGNS[:4], t, power=1)
            self._targets[pattern] = table
        return self._targets[pattern]


def _cancelled(
    times: NDArray[np.int_],
    pattern: tuple[int, ...],
    signs: Sequence[int],
    t: NDArray[np.int_],
    *,
    power: int = 2,
) -> float:
    """Sum of rho_t^-power over the terms whose exponents cancel in every coordinate.

    Args:
        times: [factors, terms]; x_time has the exponent time - 1, and x_0 = 0.
        pattern: coordinate of every factor.
        signs: +1 of a factor, -1 of a conjugated one.
        t: [terms].
    """
    alive = (times >= 1).all(axis=0)
    for place in set(pattern):
        own = [f for f, other in enumerate(pattern) if other == place]
        total = sum(signs[f] * (times[f] - 1) for f in own)
        alive &= total == 0
    return float(np.sum(1.0 / (t[alive] - 1.0) ** power))
