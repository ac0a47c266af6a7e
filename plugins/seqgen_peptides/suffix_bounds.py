"""Upper bounds for what is still to come: the best rest of a CTC path that brings a given mass.

A search that goes through the slots from left to right needs to know, for a prefix of exact weight
w, how probable the rest can be if the whole is to weigh what the precursor weighs. Exact weights
are too many for a table, nominal masses are few: with mass = u k + r (u near 1 Da, k an integer, r
a small rest), every value adds an integer k to the nominal mass, without rounding. The table holds

    G[t, s, y] = the greatest log-probability of slots t and later of all paths that go on from
                 state s (a blank, or a run of a value) and bring the nominal mass y,

by Viterbi's recursion from the last slot to the first. This forgets the rests r, so G is too high
where the best path of the right nominal mass has a wrong exact one. Lagrange's multipliers put that
right: with lambda r added to every value's log-probability, G_lambda - lambda (rest that is needed)
is an upper bound as well, for every lambda, and so is the least of several.

Proof. Let a completion bring the mass d and the nominal mass y with log-probability p. d - u y is
the sum of its values' r, so p + lambda (d - u y) <= G_lambda[t, s, y], which is the maximum over
this path and others. The window says low - w <= d <= high - w, so p is at most G_lambda[t, s, y] -
min(lambda (low - w - u y), lambda (high - w - u y)). The greatest of these over the few y whose
masses reach into a window bounds every completion.

Shapes: B rows, T slots, E values (residues, then N-terminal modifications), S = 1 + E states (0 is
"after a blank", 1 + e "in a run of value e"), Y nominal masses, K windows, L multipliers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from seqgen.logits import NEVER
from seqgen_peptides.residues import FIRST, Residues

SLACK = 1e-6
"""Da by which windows are widened here, so that rounding cannot hide an answer."""


@dataclass(frozen=True, eq=False)
class NominalMasses:
    """A vocabulary as integer masses and rests.

    Attributes:
        id_E: ids of the values, residues first.
        residues: how many of them are residues; the others are N-terminal modifications.
        mass_E: exact masses, float64.
        unit: u, Da of one nominal mass; it makes the greatest rest of a residue least.
        nominal_E: k.
        rest_E: mass - unit * nominal, float64.
        origin: the least nominal mass, 0 or that of a modification that takes something away.
        low_Y, high_Y: the least and greatest exact mass of nominal mass `origin` + index, over all
            multisets of residues with at most one modification, float64; +inf and -inf if none.
    """

    id_E: Tensor
    residues: int
    mass_E: Tensor
    unit: float
    nominal_E: tuple[int, ...]
    rest_E: Tensor
    origin: int
    low_Y: Tensor
    high_Y: Tensor

    @classmethod
    def of(cls, residues: Residues, top: float, device: torch.device) -> NominalMasses:
        """The nominal masses of a vocabulary, up to at least `top` Da."""
        ends = tuple(residues.n_terminal()[FIRST:])
        masses = tuple(residues.table()[FIRST:])
        return _nominal(masses, ends, math.ceil(max(top, 0.0) / 1000) * 1000 + 200, str(device))

    def spread(self, size: int) -> float:
        """How far an exact mass may lie from unit * nominal, of the first `size` nominal masses."""
        exact_Y = self.unit * (torch.arange(size, device=self.low_Y.device) + self.origin)
        known_Y = torch.isfinite(self.low_Y[:size])
        above_Y = torch.where(known_Y, self.high_Y[:size] - exact_Y, 0.0)
        below_Y = torch.where(known_Y, exact_Y - self.low_Y[:size], 0.0)
        return float(torch.maximum(above_Y, below_Y).max())


class SuffixBounds:
    """The bounds of a batch of rows.

    Args:
        log_p_BTE, blank_BT: log-probabilities of values and blank, float32.
        low_BK, high_BK: windows of the sum of masses, float64.
        multiplier_BL: lambda of every row, nats per Da, float32; a column of zeros is plain.
    """

    def __init__(
        self,
        masses: NominalMasses,
        log_p_BTE: Tensor,
        blank_BT: Tensor,
        low_BK: Tensor,
        high_BK: Tensor,
        multiplier_BL: Tensor,
    ) -> None:
        self.masses, self.low_BK, self.high_BK = masses, low_BK, high_BK
        self.multiplier_BL = multiplier_BL
        unit = masses.unit
        top, widest = torch.stack([high_BK.max(), (high_BK - low_BK).max()]).tolist()
        margin = math.ceil(widest / unit) + 1
        size = math.ceil(max(top, 0.0) / unit) + 1 - masses.origin
        self.reach = math.ceil((masses.spread(size) + widest / 2 + SLACK) / unit + 0.5)
        self.size = min(size + self.reach + margin, masses.low_Y.shape[0])
        # One batch of rows and multipliers: [B * L].
        count = multiplier_BL.shape[1]
        self.table = _backward(
            masses,
            log_p_BTE.repeat_interleave(count, dim=0),
            blank_BT.repeat_interleave(count, dim=0),
            multiplier_BL.flatten(),
            self.size,
        )

    def at(self, slot: int, state: Tensor, row: Tensor, weight: Tensor) -> Tensor:
        """Upper bound of the log-probability of slots `slot` and later, float64; -inf: no way.

        Args:
            state, row, weight: of each prefix, of one shape; the exact weight in float64.
        """
        masses, unit = self.masses, self.masses.unit
        low = (self.low_BK[row] - weight[..., None] - SLACK)[..., None]
        high = (self.high_BK[row] - weight[..., None] + SLACK)[..., None]
        steps = torch.arange(-self.reach, self.reach + 1, device=low.device)
        nominal = ((low + high) / (2 * unit)).round() + steps  # [..., K, 2 * reach + 1]
        index = nominal.long() - masses.origin
        inside = (index >= 0) & (index < self.size)
        index = index.clamp(0, self.size - 1)
        # What is needed, and what there is of this nominal mass.
        low = torch.maximum(low, masses.low_Y[index])
        high = torch.minimum(high, masses.high_Y[index] + SLACK)
        inside &= low <= high
        low_rest, high_rest = low - unit * nominal, high - unit * nominal

        table = self.table[slot]
        count = self.multiplier_BL.shape[1]
        place = (state * table.shape[1] + row * count)[..., None, None] * self.size + index
        bound = torch.full_like(low_rest, float("inf"))
        for which in range(count):
            multiplier = self.multiplier_BL[row, which].double()[..., None, None]
            spent = torch.minimum(multiplier * low_rest, multiplier * high_rest)
            value = table.flatten()[place + which * self.size]
            bound = torch.minimum(bound, value - spent.masked_fill(~inside, 0.0))
        return bound.masked_fill(~inside, NEVER).flatten(-2).amax(dim=-1)


def _backward(
    masses: NominalMasses, log_p_BTE: Tensor, blank_BT: Tensor, multiplier_B: Tensor, size: int
) -> Tensor:
    """G [T + 1, S, B, Y], from the last slot to the first."""
    batch, slots, values = log_p_BTE.shape
    ends = masses.residues
    nothing = -masses.origin
    table = log_p_BTE.new_full((slots + 1, 1 + values, batch, size), NEVER)
    table[slots, :, :, nothing] = 0
    emitted_EBY = log_p_BTE.new_full((values, batch, size), NEVER)
    first_BY, second_BY, smaller_BY = (log_p_BTE.new_empty(batch, size) for _ in range(3))
    favour_EB = masses.rest_E.float()[:, None] * multiplier_B
    for slot in range(slots - 1, -1, -1):
        later_SBY, now_SBY = table[slot + 1], table[slot]
        again_EB1 = log_p_BTE[:, slot].T[..., None]
        emit_EB1 = again_EB1 + favour_EB[..., None]
        # The best value to begin here, and the best other one.
        first_BY.fill_(NEVER)
        second_BY.fill_(NEVER)
        for value, nominal in enumerate(masses.nominal_E):
            here, there = _shifted(nominal, size)
            emitted_BY = emitted_EBY[value]
            torch.add(later_SBY[1 + value][:, there], emit_EB1[value], out=emitted_BY[:, here])
            torch.minimum(first_BY, emitted_BY, out=smaller_BY)
            torch.maximum(second_BY, smaller_BY, out=second_BY)
            torch.maximum(first_BY, emitted_BY, out=first_BY)
        stay_BY = later_SBY[0] + blank_BT[:, slot, None]
        torch.maximum(stay_BY, first_BY, out=now_SBY[0])
        # In a run of a value: the run goes on, a blank ends it, or another value does.
        run_EBY = now_SBY[1 : 1 + ends]
        torch.where(emitted_EBY[:ends] >= first_BY, second_BY, first_BY, out=run_EBY)
        torch.maximum(run_EBY, stay_BY, out=run_EBY)
        torch.maximum(run_EBY, later_SBY[1 : 1 + ends] + again_EB1[:ends], out=run_EBY)
        # A modification ends the peptide: nothing follows but itself and blanks.
        now_SBY[1 + ends :, :, nothing] = torch.maximum(
            stay_BY[:, nothing], later_SBY[1 + ends :, :, nothing] + again_EB1[ends:, :, 0]
        )
    return table


def _shifted(by: int, size: int) -> tuple[slice, slice]:
    """Where y lies, and where y - `by` does, of 0 <= y < size."""
    by = max(-size, min(by, size))
    return slice(max(by, 0), size + min(by, 0)), slice(max(-by, 0), size - max(by, 0))


@lru_cache(maxsize=16)
def _nominal(
    masses: tuple[float, ...], ends: tuple[bool, ...], top: int, device: str
) -> NominalMasses:
    order = sorted(range(len(masses)), key=lambda place: ends[place])
    inner = len(masses) - sum(ends)
    mass_E = torch.tensor([masses[place] for place in order], dtype=torch.float64)
    units_U1 = torch.linspace(1.0, 1.001, 101, dtype=torch.float64)[:, None]
    rest_UE = mass_E - units_U1 * (mass_E / units_U1).round()
    best = int(rest_UE[:, :inner].abs().amax(dim=1).argmin())
    unit, rest_E = float(units_U1[best]), rest_UE[best]
    nominal = [round(k) for k in (mass_E / unit).tolist()]
    origin = min(0, *nominal)
    size = math.ceil(top / unit) - origin
    low_Y, high_Y = _extremes(mass_E.tolist(), nominal, inner, -origin, size)
    target = torch.device(device)
    return NominalMasses(
        id_E=torch.tensor([FIRST + place for place in order], device=target),
        residues=inner,
        mass_E=mass_E.to(target),
        unit=unit,
        nominal_E=tuple(nominal),
        rest_E=rest_E.to(target),
        origin=origin,
        low_Y=low_Y.to(target),
        high_Y=high_Y.to(target),
    )


def _extremes(
    masses: Sequence[float], nominal: Sequence[int], inner: int, nothing: int, size: int
) -> tuple[Tensor, Tensor]:
    """`low_Y` and `high_Y` of `NominalMasses`; index `nothing` is the nominal mass 0."""
    low_Y = torch.full((size,), float("inf"), dtype=torch.float64)
    high_Y = -low_Y
    low_Y[nothing] = high_Y[nothing] = 0
    # Nominal masses nearer to each other than the lightest residue do not depend on each other.
    chunk = min(nominal[:inner])
    for first in range(nothing + 1, size, chunk):
        for mass, k in zip(masses[:inner], nominal[:inner], strict=True):
            start, stop = max(first, k), min(first + chunk, size)
            if start < stop:
                here, there = slice(start, stop), slice(start - k, stop - k)
                torch.minimum(low_Y[here], low_Y[there] + mass, out=low_Y[here])
                torch.maximum(high_Y[here], high_Y[there] + mass, out=high_Y[here])
    plain_low, plain_high = low_Y.clone(), high_Y.clone()
    for mass, k in zip(masses[inner:], nominal[inner:], strict=True):
        here, there = _shifted(k, size)
        torch.minimum(low_Y[here], plain_low[there] + mass, out=low_Y[here])
        torch.maximum(high_Y[here], plain_high[there] + mass, out=high_Y[here])
    return low_Y, high_Y
