"""Inputs: what enters the model at a slot.

`ShiftedInputs` is the usual autoregressive feed (the previous value; the row reads out this slot).
`MaskedInputs` feeds a committed slot its value and an open slot a mask embedding; the row reads out
the same slot, so any order works. `GivenInputs` feeds embeddings that the context holds.

Shapes: B rows, R slots fed, S slots, D width, V vocabulary.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from seqgen.canvas import Canvas, take
from seqgen.model import Context


class Inputs(Protocol):
    """Embeddings of the slots fed in a pass.

    Attributes:
        settles_open: whether the row of an open slot is final once it is fed, because it does not
            hold the slot's own value. Then its key and value are cached in that pass; otherwise a
            decided slot is fed once more, together with the next group.
    """

    settles_open: bool

    def __call__(
        self, canvas: Canvas, slots_BR: Tensor, valid_BR: Tensor | None, context: Context | None
    ) -> Tensor:
        """Embeddings [B, R, D] of canvas slots."""
        ...


class ShiftedInputs(nn.Module):
    """At slot s enters the value of slot s - 1, at slot 0 a start token. For raster order only."""

    settles_open = True

    def __init__(self, embedding: nn.Embedding, *, start_id: int) -> None:
        super().__init__()
        self.embedding = embedding
        self.start_id = start_id

    def forward(
        self,
        canvas: Canvas,
        slots_BR: Tensor,
        valid_BR: Tensor | None = None,
        context: Context | None = None,
    ) -> Tensor:
        ids = canvas.take((slots_BR - 1).clamp(min=0))
        return self.embed(torch.where(slots_BR == 0, self.start_id, ids))

    def embed(self, ids_BR: Tensor) -> Tensor:
        x: Tensor = self.embedding(ids_BR)
        return x


class MaskedInputs(nn.Module):
    """At a decided slot enters its value, at an open slot the mask embedding."""

    settles_open = False

    def __init__(self, embedding: nn.Embedding, *, mask_id: int) -> None:
        super().__init__()
        self.embedding = embedding
        self.mask_id = mask_id

    def forward(
        self,
        canvas: Canvas,
        slots_BR: Tensor,
        valid_BR: Tensor | None = None,
        context: Context | None = None,
    ) -> Tensor:
        open_BR = canvas.open_at(slots_BR, valid_BR)
        return self.embed(torch.where(open_BR, self.mask_id, canvas.take(slots_BR)))

    def embed(self, ids_BR: Tensor) -> Tensor:
        x: Tensor = self.embedding(ids_BR)
        return x


class GivenInputs(nn.Module):
    """At a slot enters the embedding that the context gives for it (`Context.given_BSD`)."""

    settles_open = True

    def forward(
        self,
        canvas: Canvas,
        slots_BR: Tensor,
        valid_BR: Tensor | None = None,
        context: Context | None = None,
    ) -> Tensor:
        if context is None or context.given_BSD is None:
            raise ValueError("GivenInputs needs a context with given_BSD")
        return take(context.given_BSD, slots_BR)
