"""Decoding in any order: scales, diagonals, rows, cells, a random order, one of your own.

Ordered(order=Scales((1, 2, 4, 8)), sampling=Sampling(temperature=1.0))      next scale (VAR)
Ordered(order=Diagonals(8, 8, prefix=1))                                     neighbouring (NAR)
Ordered(order=OnGrid(Whole(), 8, 8), commit=ScheduledConfidence(steps=10))   MaskGIT
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from seqgen.canvas import Canvas
from seqgen.commits import All, CommitRule, ScheduledConfidence
from seqgen.decoders.base import GroupDecoder
from seqgen.events import Event
from seqgen.heads.chosen import ChosenHead
from seqgen.logits import GREEDY, Sampling
from seqgen.loop import Recipe
from seqgen.model import Context, SequenceModel, with_head
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

    def stream(
        self, model: SequenceModel, canvas: Canvas, context: Context | None = None
    ) -> Iterator[Event]:
        """Decode `canvas` in place, yielding an event a forward pass."""
        rule = self.commit
        blind = isinstance(rule, ScheduledConfidence) and rule.rank == "random"
        if (
            blind
            and self.quota_over == "open"
            and canvas.values.dim() > 2
            and canvas.uniform_length
        ):
            assert isinstance(rule, ScheduledConfidence)
            model = with_head(model, ChosenHead(model.head, rule))
        return super().stream(model, canvas, context)

    def recipe(self, model: SequenceModel) -> Recipe:
        return Recipe(
            order=self.order,
            commit=self.commit,
            sampling=self.sampling,
            stop_ids=self.stop_ids,
            quota_over=self.quota_over,
            cached=self.cached,
        )
