"""Autoregressive decoding: one slot after the other, greedy or sampled."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from seqgen.canvas import Canvas
from seqgen.commits import All
from seqgen.constraints import Alive, ConstrainedHead, Constraint
from seqgen.decoders.base import GroupDecoder
from seqgen.events import Event
from seqgen.logits import GREEDY, Sampling
from seqgen.loop import Recipe, decode
from seqgen.model import Context, SequenceModel, with_head
from seqgen.orders import Raster


@dataclass(frozen=True, kw_only=True)
class Autoregressive(GroupDecoder):
    """Decode token by token.

    Works with shifted inputs (the usual causal model) and with masked inputs (a block-diffusion
    model run with blocks of one).

    Attributes:
        stop_ids: values that end a row.
        sampling: greedy by default.
        constraint: which values may come next. A row for which nothing is allowed ends there, not
            finished. Confidences stay the model's own.
        cached: False recomputes everything in every step (for comparisons).
    """

    stop_ids: tuple[int, ...] = ()
    sampling: Sampling = GREEDY
    constraint: Constraint | None = None
    cached: bool = True

    def recipe(self, model: SequenceModel) -> Recipe:
        return Recipe(
            order=Raster(),
            commit=All(),
            sampling=self.sampling,
            stop_ids=self.stop_ids,
            cached=self.cached,
        )

    def stream(
        self, model: SequenceModel, canvas: Canvas, context: Context | None = None
    ) -> Iterator[Event]:
        """Decode `canvas` in place, yielding an event a forward pass."""
        if self.constraint is None:
            return super().stream(model, canvas, context)
        return _constrained(self, self.constraint, model, canvas, context)


@torch.inference_mode()
def _constrained(
    options: Autoregressive,
    constraint: Constraint,
    model: SequenceModel,
    canvas: Canvas,
    context: Context | None,
) -> Iterator[Event]:
    if canvas.has_given:
        raise ValueError("a constraint decides from left to right: no known slots further on")
    head = ConstrainedHead(model.head, constraint, canvas)
    yield from decode(
        with_head(model, head), canvas, context, replace(options.recipe(model), commit=Alive(head))
    )
    canvas.finished_B = canvas.finished_B & ~head.dead_B
