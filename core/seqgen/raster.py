"""Feeding a model in raster order where every row stands at a slot of its own.

The loop of `loop.py` moves all rows by the same number of groups a step. Where rows advance by
different lengths (speculative decoding), a `Front` says where each stands, and `RasterFeed` gives
hidden states from there on, with a cache that is rolled back to the front before each pass.

Shapes: B rows, Q slots read, R slots fed in a pass, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from seqgen.cache import Cache
from seqgen.canvas import Canvas, take
from seqgen.model import Context, SequenceModel
from seqgen.orders import OrderTable


@dataclass(frozen=True)
class Front:
    """The next slot of every row.

    Attributes:
        slot_B: int64.
        low, high: the least and the greatest of them, host numbers.
    """

    slot_B: Tensor
    low: int
    high: int

    def ahead(self, count: int) -> Front:
        """The front `count` slots further on."""
        return Front(self.slot_B + count, self.low + count, self.high + count)

    def window(self, begin: int, end: int) -> Tensor:
        """Slots front + begin .. front + end - 1: [B, Q], or [1, Q] where all rows agree.

        They may lie outside the canvas in rows that have less room than others.
        """
        offset_Q = torch.arange(begin, end, device=self.slot_B.device)
        if self.low == self.high:
            return (self.low + offset_Q)[None]
        return self.slot_B[:, None] + offset_Q


class RasterFeed:
    """Hidden states of the slots at a front, for a model with shifted inputs.

    What lies before the front is final: the first pass feeds it too (the prefill), later ones find
    it in the cache. What earlier passes fed from the front on is forgotten (the rollback).
    """

    def __init__(
        self,
        model: SequenceModel,
        canvas: Canvas,
        table: OrderTable,
        context: Context | None,
        *,
        ahead: int,
        cached: bool,
    ) -> None:
        """Prepare for passes that read at most `ahead` slots."""
        self.model, self.canvas, self.table = model, canvas, table
        self.context = None if context is None else model.backbone.prepare(context)
        self.cache: Cache | None = None
        if cached:
            # Rows without room are fed as many slots as the others, and a lead.
            capacity = canvas.slots + ahead + 1
            self.cache = model.backbone.new_cache(canvas.batch * model.branches, capacity)
        self.filled = False

    def forward(self, front: Front, count: int, *, lead: int = 0) -> Tensor:
        """One pass: hidden states [B, count, D] of the slots from `front` on.

        Args:
            lead: slots before the front that may be missing in the cache and are fed again.
        """
        if self.cache is None or not self.filled:
            return self._prefix(front, count)
        self._roll_back(front, lead)
        slots_BR, valid_BR = self._window(front, lead, count)
        return self._pass(slots_BR, valid_BR)[:, lead:]

    def _prefix(self, front: Front, count: int) -> Tensor:
        """Feed everything up to the window, and read each row at its own front."""
        first, canvas = self.model.inputs.first_slot, self.canvas
        end = min(front.high + count, canvas.slots)
        slots_1R = torch.arange(first, end, device=canvas.device)[None]
        valid_BR = None
        if front.low != front.high or not canvas.uniform_length:
            end_B = torch.minimum(front.slot_B + count, canvas.limit_B)
            valid_BR = slots_1R < end_B[:, None]
        hidden = self._pass(slots_1R, valid_BR)
        self.filled = True
        read_BQ = (front.window(0, count) - first).clamp(max=end - first - 1)
        if read_BQ.shape[0] > 1:
            read_BQ = read_BQ.repeat(self.model.branches, 1)
        return take(hidden, read_BQ)

    def _window(self, front: Front, lead: int, count: int) -> tuple[Tensor, Tensor | None]:
        first, canvas = self.model.inputs.first_slot, self.canvas
        slots = front.window(-lead, count)
        inside = first <= front.low - lead and front.high + count <= canvas.slots
        if inside and canvas.uniform_length:
            return slots, None
        valid = (slots >= first) & (slots < canvas.limit_B[:, None])
        return slots % canvas.slots, valid

    def _pass(self, slots_BR: Tensor, valid_BR: Tensor | None) -> Tensor:
        hidden = self.model.hidden(
            self.canvas,
            self.table,
            slots_BR,
            valid_BR=valid_BR,
            alone=slots_BR.shape[1] == 1,
            cache=self.cache,
            context=self.context,
        )
        if self.cache is not None:
            self.cache.settle(slots_BR.shape[1])
        return hidden

    def _roll_back(self, front: Front, lead: int) -> None:
        assert self.cache is not None
        # An entry a slot, from the first that is fed. The fronts of rows that are done may lie
        # anywhere: their entries are never read, but must fit.
        dropped, slots = lead + self.model.inputs.first_slot, self.canvas.slots
        low, high = (min(max(end - dropped, 0), slots) for end in (front.low, front.high))
        if low == high:
            self.cache.truncate(low)
            return
        length_B = (front.slot_B - dropped).clamp(min=0, max=slots)
        self.cache.truncate(length_B.repeat(self.model.branches), bound=high)
