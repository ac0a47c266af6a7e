"""Decoding in any order: scales, diagonals, rows, cells, a random order, one of your own.

Ordered(order=Scales((1, 2, 4, 8)), sampling=Sampling(temperature=1.0))      next scale (VAR)
Ordered(order=Diagonals(8, 8, prefix=1))                                     neighbouring (NAR)
Ordered(order=OnGrid(Whole(), 8, 8), commit=ScheduledConfidence(steps=10))   MaskGIT
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from seqgen.commits import All, CommitRule
from seqgen.decoders.base import GroupDecoder
from seqgen.logits import GREEDY, Sampling
from seqgen.loop import Recipe
from seqgen.model import SequenceModel
from seqgen.orders import Order


@dataclass(frozen=True, kw_only=True)
class Ordered(GroupDecoder):
    """Decode group by group in the order given; the model must have been trained for it.

    Attributes:
        order: which slots are decided together, and their coordinates.
        commit: which proposals of a pass stand; everything at once by default.
        sampling: greedy by default.
        stop_ids: values that end a row.
        quota_over: what a commit rule's quota divides: the slots that are `open` when the group is
            reached, or all of the `group`.
        cached: False recomputes everything in every pass (for comparisons).
    """

    order: Order
    commit: CommitRule = field(default_factory=All)
    sampling: Sampling = GREEDY
    stop_ids: tuple[int, ...] = ()
    quota_over: Literal["group", "open"] = "open"
    cached: bool = True

    def recipe(self, model: SequenceModel) -> Recipe:
        return Recipe(
            order=self.order,
            commit=self.commit,
            sampling=self.sampling,
            stop_ids=self.stop_ids,
            quota_over=self.quota_over,
            cached=self.cached,
        )
