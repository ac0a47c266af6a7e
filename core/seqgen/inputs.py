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
from seqgen.errors import InputError
from seqgen.model import Context


class Inputs(Protocol):
    """Embeddings of the slots fed in a pass.

    Attributes:
        settles_open: whether the row of an open slot is final once it is fed, because it does not
            hold the slot's own value. Then its key and value are cached in that pass; otherwise a
            decided slot is fed once more, together with the next group.
        first_slot: the first slot that is fed; the values of those before it must be given.
    """

    settles_open: bool
    first_slot: int

    def __call__(
        self, canvas: Canvas, slots_BR: Tensor, valid_BR: Tensor | None, context: Context | None
    ) -> Tensor:
        """Embeddings [B, R, D] of canvas slots."""
        ...


def require_prompt(inputs: Inputs, canvas: Canvas, who: str = "this model") -> None:
    """Raise an `InputError` if a row lacks the values before the first slot that is fed."""
    if canvas.min_prompt < inputs.first_slot:
        raise InputError(
            "the prompt is empty",
            why=f"{who} has no start token, so it cannot propose the first value",
            fix=f"give at least {inputs.first_slot} value of every row",
        )


class ShiftedInputs(nn.Module):
    """At slot s enters the value of slot s - 1, at slot 0 a start token. For raster order only.

    Args:
        start_id: the start token. None for models that have none (Qwen3): then slot 0 is never fed
            and a prompt must give its value.
    """

    settles_open = True

    def __init__(self, embedding: nn.Embedding, *, start_id: int | None) -> None:
        super().__init__()
        self.embedding = embedding
        self.start_id = start_id
        self.first_slot = 1 if start_id is None else 0

    def forward(
        self,
        canvas: Canvas,
        slots_BR: Tensor,
        valid_BR: Tensor | None = None,
        context: Context | None = None,
    ) -> Tensor:
        ids = canvas.take((slots_BR - 1).clamp(min=0))
        if self.start_id is not None:
            ids = torch.where(slots_BR == 0, self.start_id, ids)
        return self.embed(ids)

    def embed(self, ids_BR: Tensor) -> Tensor:
        x: Tensor = self.embedding(ids_BR)
        return x


class MaskedInputs(nn.Module):
    """At a decided slot enters its value, at an open slot the mask embedding.

    Rotary attention over nothing but equal mask embeddings cannot tell slots apart. A model that
    decodes without a prompt therefore needs one of the two additions below.

    Args:
        embedding: table of the values and the mask.
        mask_id: row of the mask.
        scale: multiplies the table's rows.
        positions: table of absolute positions, added to every slot.
        adds_given: add `Context.given_BSD` to every slot (an acoustic embedding, a NAR draft).
    """

    settles_open = False
    first_slot = 0

    def __init__(
        self,
        embedding: nn.Embedding,
        *,
        mask_id: int,
        scale: float = 1.0,
        positions: nn.Embedding | None = None,
        adds_given: bool = False,
    ) -> None:
        super().__init__()
        self.embedding = embedding
        self.mask_id = mask_id
        self.scale = scale
        self.positions = positions
        self.adds_given = adds_given

    def forward(
        self,
        canvas: Canvas,
        slots_BR: Tensor,
        valid_BR: Tensor | None = None,
        context: Context | None = None,
    ) -> Tensor:
        open_BR = canvas.open_at(slots_BR, valid_BR)
        ids_BR = torch.where(open_BR, self.mask_id, canvas.take(slots_BR))
        return self.embed(ids_BR, slots_BR, context)

    def embed(self, ids_BR: Tensor, slots_BR: Tensor, context: Context | None = None) -> Tensor:
        """Embeddings [B, R, D] of ids that lie at slots [B or 1, R]."""
        x: Tensor = self.embedding(ids_BR)
        if self.scale != 1:
            x = x * self.scale
        if self.positions is not None:
            x = x + self.positions(slots_BR)
        if self.adds_given:
            if context is None or context.given_BSD is None:
                raise ValueError("these inputs need a context with given_BSD")
            x = x + take(context.given_BSD, slots_BR)
        return x


class GivenInputs(nn.Module):
    """At a slot enters the embedding that the context gives for it (`Context.given_BSD`)."""

    settles_open = True
    first_slot = 0

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
