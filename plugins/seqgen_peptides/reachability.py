"""Which masses can still be built from residues: the look-up behind every precursor constraint.

A prefix of a peptide is worth keeping only if some residues, and perhaps an N-terminal
modification, bring it to the precursor mass. `Reachability` answers that for thousands of prefixes
at once:

    table = Reachability.of(residues)
    table.reaches(low, high, least=0, most=10)  # a sum in [low, high] of at most 10 residues?

It is an unbounded subset sum over mass bins, computed once a vocabulary. A bin keeps the least and
the greatest mass that fall into it, so that sums are told apart far more finely than bins are wide
as long as they are few; and the fewest and the most residues they take. What can be reached is
never denied. What cannot be reached is hardly ever promised where windows are wider than a bin: of
random walks that follow these promises, fewer than one in a thousand finds no end (see the tests).

Shapes: W bins, L levels of the range minimum.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from seqgen.errors import ConfigError
from seqgen_peptides.residues import Residues

FINE = 0.002
"""Width of the bins below `FINE_TOP`, Da: there sums are sparse."""
COARSE = 0.02
"""Width of the bins above."""
FINE_TOP = 1500.0
TOP = 7500.0
"""Above this only the number of residues is checked."""

ROUNDING = 2e-7
"""Da by which windows are widened, so that rounding denies nothing: a sum of up to 131 residues
is rounded to float32 as often, by half a unit of `COARSE` (9e-10) each time."""

NONE = 255
"""`fewest` of an empty bin; greater numbers of residues are kept as 254."""


@dataclass(frozen=True)
class Reachability:
    """Masses of all multisets of residues with at most one N-terminal modification.

    Attributes:
        origin: mass at the lower edge of bin 0; negative where a modification is.
        fine_bins: bins of width `FINE`; those behind are `COARSE`.
        low_W, high_W: float32, the least and greatest mass in a bin, from its lower edge;
            +inf and -inf in an empty bin.
        fewest_LW: uint8, the fewest residues of a mass in 2^l bins from this one on.
        most_LW: uint8, the most residues of a mass in them.
        residue_span: the lightest and the heaviest residue.
        modification_span: the lightest and the heaviest modification, 0 (none) included.
    """

    origin: float
    fine_bins: int
    low_W: Tensor
    high_W: Tensor
    fewest_LW: Tensor
    most_LW: Tensor
    residue_span: tuple[float, float]
    modification_span: tuple[float, float]

    @classmethod
    def of(cls, residues: Residues, device: torch.device | str = "cpu") -> Reachability:
        """The table of a vocabulary; kept in memory (about 55 MB) for the next call.

        Raises:
            ConfigError: a residue has no positive mass.
        """
        masses = residues.table()
        ends = residues.n_terminal()
        inner = [m for m, end in zip(masses[2:], ends[2:], strict=True) if not end]
        if not inner or min(inner) <= 1:
            raise ConfigError(
                "the vocabulary cannot be constrained to a mass",
                why=f"residues must weigh more than 1 Da; these weigh {sorted(inner)[:3]} ...",
            )
        outer = [m for m, end in zip(masses[2:], ends[2:], strict=True) if end]
        return _table(tuple(inner), tuple(outer), str(device))

    def to(self, device: torch.device | str) -> Reachability:
        """The same on another device."""
        return replace(
            self,
            low_W=self.low_W.to(device),
            high_W=self.high_W.to(device),
            fewest_LW=self.fewest_LW.to(device),
            most_LW=self.most_LW.to(device),
        )

    def reaches(self, low: Tensor, high: Tensor, *, least: Tensor, most: Tensor) -> Tensor:
        """Whether a sum of so many residues, and perhaps a modification, lies in [low, high].

        Args:
            low, high: Da, float64, of any common shape.
            least, most: residues, int64, of a shape that broadcasts to it.

        Returns:
            bool, elementwise.
        """
        low, high = low - ROUNDING, high + ROUNDING
        first, first_edge = self._bin(low)
        last, last_edge = self._bin(high)
        # The outer bins count only if they hold a mass on the right side of the window's edge.
        first = first + (first_edge + self.high_W[first] < low)
        last = last - (last_edge + self.low_W[last] > high).long()
        level = torch.frexp((last - first + 1).clamp(min=1).double())[1].long() - 1
        # Two ranges of 2^level bins that overlap cover the window.
        one = level * self.low_W.shape[0] + first.clamp(max=self.low_W.shape[0] - 1)
        two = level * self.low_W.shape[0] + (last + 1 - (1 << level)).clamp(min=0)
        fewest, greatest = self.fewest_LW.flatten(), self.most_LW.flatten()
        inside = (
            (last >= first)
            & (torch.minimum(fewest[one], fewest[two]) <= most.clamp(max=NONE - 1))
            & (torch.maximum(greatest[one], greatest[two]) >= least)
            & (most >= 0)
        )
        return torch.where(high > TOP, self._by_number(low, high, least, most), inside)

    def _bin(self, mass: Tensor) -> tuple[Tensor, Tensor]:
        """Index of the bin of each mass, and the bin's lower edge."""
        # Masses beyond the table lie in its last bin.
        bins = self.low_W.shape[0] - self.fine_bins
        farthest = self.fine_bins * FINE + bins * COARSE
        distance = (mass - self.origin).clamp(min=0, max=farthest)
        coarse = distance >= self.fine_bins * FINE
        fine_index = (distance / FINE).long().clamp(max=self.fine_bins - 1)
        rest = ((distance - self.fine_bins * FINE).clamp(min=0) / COARSE).long()
        rest = rest.clamp(max=self.low_W.shape[0] - self.fine_bins - 1)
        edge = torch.where(
            coarse, self.fine_bins * FINE + rest.double() * COARSE, fine_index.double() * FINE
        )
        return torch.where(coarse, self.fine_bins + rest, fine_index), edge + self.origin

    def _by_number(self, low: Tensor, high: Tensor, least: Tensor, most: Tensor) -> Tensor:
        """Beyond the table: whether so many residues can weigh so much."""
        lightest, heaviest = self.residue_span
        loss, gain = self.modification_span
        return (most * heaviest + gain >= low) & (least * lightest + loss <= high)


@lru_cache(maxsize=8)
def _table(
    residues: tuple[float, ...], modifications: tuple[float, ...], device: str
) -> Reachability:
    if device != "cpu":
        return _table(residues, modifications, "cpu").to(device)
    masses = sorted(set(residues))
    # The origin lies on an edge of fine and coarse bins alike.
    below = math.ceil(-min(0.0, *modifications, 0.0) / COARSE) + 1
    fine = _sums(masses, FINE, FINE_TOP + below * COARSE, None)
    ratio = round(COARSE / FINE)
    coarse = _sums(masses, COARSE, TOP + below * COARSE, fine.merged(ratio))
    fine = fine.with_modifications(modifications, below * ratio)
    coarse = coarse.with_modifications(modifications, below)
    fine_bins = round(FINE_TOP / FINE) // ratio * ratio
    joined = [
        torch.cat([a[:fine_bins], b[fine_bins // ratio :]])
        for a, b in zip(fine.parts(), coarse.parts(), strict=True)
    ]
    return Reachability(
        origin=-below * COARSE,
        fine_bins=fine_bins,
        low_W=joined[0],
        high_W=joined[1],
        fewest_LW=_ranges(joined[2], torch.minimum, NONE),
        most_LW=_ranges(joined[3], torch.maximum, 0),
        residue_span=(masses[0], masses[-1]),
        modification_span=(min(0.0, *modifications, 0.0), max(0.0, *modifications, 0.0)),
    )


@dataclass(frozen=True)
class _Bins:
    """Bins of one width: attributes as in `Reachability`, of single bins."""

    width: float
    low: Tensor
    high: Tensor
    fewest: Tensor
    most: Tensor

    @classmethod
    def empty(cls, width: float, count: int) -> _Bins:
        return cls(
            width,
            torch.full((count,), float("inf")),
            torch.full((count,), float("-inf")),
            torch.full((count,), NONE, dtype=torch.uint8),
            torch.zeros(count, dtype=torch.uint8),
        )

    def parts(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.low, self.high, self.fewest, self.most

    def merged(self, ratio: int) -> _Bins:
        """Bins that are `ratio` times as wide."""
        count = len(self.low) // ratio
        inner = torch.arange(ratio, dtype=torch.float32) * self.width
        low, high, fewest, most = (p[: count * ratio].view(count, ratio) for p in self.parts())
        return _Bins(
            self.width * ratio,
            (low + inner).amin(dim=1),
            (high + inner).amax(dim=1),
            fewest.amin(dim=1),
            most.amax(dim=1),
        )

    def add(self, source: _Bins, mass: float, first: int, count: int, residues: int) -> None:
        """Bins `first` to `first + count` also hold masses of `source` plus `mass`."""
        whole = math.floor(mass / self.width)
        rest = mass - whole * self.width
        # A bin shifted by `mass` lies over two bins; what it holds falls into one or into both.
        for step, shift in ((0, rest), (1, rest - self.width)):
            start = first - whole - step
            skip = max(0, -start)
            stop = min(start + count, len(source.low))
            if start + skip >= stop:
                continue
            here = slice(start + skip, stop)
            there = slice(first + skip, first + stop - start)
            low = source.low[here] + shift
            high = source.high[here] + shift
            lands = (low < self.width) & (high >= 0)
            low = low.clamp(min=0).masked_fill_(~lands, float("inf"))
            high = high.clamp(max=self.width).masked_fill_(~lands, float("-inf"))
            torch.minimum(self.low[there], low, out=self.low[there])
            torch.maximum(self.high[there], high, out=self.high[there])
            fewest = source.fewest[here].clamp(max=NONE - 1 - residues) + residues
            fewest.masked_fill_(~lands, NONE)
            most = (source.most[here].clamp(max=NONE - residues) + residues).mul_(lands)
            torch.minimum(self.fewest[there], fewest, out=self.fewest[there])
            torch.maximum(self.most[there], most, out=self.most[there])

    def with_modifications(self, modifications: Sequence[float], below: int) -> _Bins:
        """The same masses and, beside each, those with one modification; `below` bins more."""
        count = len(self.low)
        found = _Bins.empty(self.width, count)
        for mine, theirs in zip(found.parts(), self.parts(), strict=True):
            mine[below:] = theirs[: count - below]
        for mass in modifications:
            found.add(self, mass + below * self.width, 0, count, residues=0)
        return found


def _sums(masses: Sequence[float], width: float, top: float, known: _Bins | None) -> _Bins:
    """Sums of any number of `masses` up to `top`; `known` holds the first bins."""
    count = math.ceil(top / width)
    bins = _Bins.empty(width, count)
    done = 1
    if known is not None:
        done = len(known.low)
        for mine, theirs in zip(bins.parts(), known.parts(), strict=True):
            mine[:done] = theirs
    else:
        bins.low[0] = bins.high[0] = 0
        bins.fewest[0] = 0
    # Bins nearer to each other than the lightest residue do not depend on each other.
    chunk = math.floor(masses[0] / width)
    for first in range(done, count, chunk):
        for mass in masses:
            bins.add(bins, mass, first, min(chunk, count - first), residues=1)
    return bins


def _ranges(values: Tensor, combine: object, nothing: int) -> Tensor:
    """A sparse table: level l combines 2^l values from each place on."""
    assert callable(combine)
    levels = [values]
    while (1 << len(levels)) <= len(values):
        step = 1 << (len(levels) - 1)
        later = torch.full_like(values, nothing)
        later[:-step] = levels[-1][step:]
        levels.append(combine(levels[-1], later))
    return torch.stack(levels)
