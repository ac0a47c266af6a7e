"""Inputs: what enters the model at a slot.

`ShiftedInputs` is the usual autoregressive feed (the previous value; the row reads out this slot).
`MaskedInputs` feeds a committed slot its value and an open slot a mask embedding; the row reads out
the same slot, so any order works. `GivenInputs` feeds embeddings that the context holds.
`ValueInputs` and `MaskedValueInputs` are the first two for continuous values.

Shapes: B rows, R slots fed, S slots, D width, V vocabulary, C channels of a continuous value.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from seqgen.canvas import COMMITTED, Canvas, take
from seqgen.errors import InputError
from seqgen.model import Context
from seqgen.orders import OrderTable


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


class RasterInputs(nn.Module):
    """Base of the inputs that read the value before the slot: for raster order only."""

    settles_open = True
    first_slot = 0


class ShiftedInputs(RasterInputs):
    """At slot s enters the value of slot s - 1, at slot 0 a start token. For raster order only.

    Args:
        start_id: the start token. None for models that have none (Qwen3): then slot 0 is never fed
            and a prompt must give its value.
    """

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
        x: Tensor = self.embedding(ids)
        return x

    def embed(self, ids_BS: Tensor, context: Context | None = None) -> Tensor:
        """Embeddings [B, S, D] of shifted ids at slots 0..S-1, for teacher forcing."""
        x: Tensor = self.embedding(ids_BS)
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

    def embed_copies(
        self, noisy_BS: Tensor, clean_BS: Tensor, table: OrderTable, context: Context | None = None
    ) -> Tensor:
        """Embeddings [B, 2 S, D] of [noisy | clean] ids, for block-diffusion training.

        Inputs that look at other slots override it: a noisy slot may look at the noisy copy of its
        own group and at the clean copy of earlier groups.
        """
        slots = torch.arange(clean_BS.shape[1], device=clean_BS.device).repeat(2)[None]
        return self.embed(torch.cat([noisy_BS, clean_BS], dim=1), slots, context)


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


class ValueInputs(RasterInputs):
    """At slot s enters the vector of slot s - 1, at slot 0 a learned start. Raster order only.

    Args:
        channels: numbers a slot C.
        width: D.
        projection: from [..., C] to [..., D]; a linear layer if None.
        adds_given: add `Context.given_BSD` to every slot: what is known of the slot itself
            (calendar features, future regressors, a draft).
    """

    def __init__(
        self,
        channels: int,
        width: int,
        *,
        projection: nn.Module | None = None,
        adds_given: bool = False,
    ) -> None:
        super().__init__()
        self.projection = nn.Linear(channels, width) if projection is None else projection
        self.start_D = nn.Parameter(torch.randn(width))
        self.adds_given = adds_given

    def forward(
        self,
        canvas: Canvas,
        slots_BR: Tensor,
        valid_BR: Tensor | None = None,
        context: Context | None = None,
    ) -> Tensor:
        values_BRC, known_BR = _known_values(canvas, (slots_BR - 1).clamp(min=0))
        x = _project(self.projection, values_BRC, known_BR, like=self.start_D)
        x = torch.where((slots_BR == 0)[..., None], self.start_D, x)
        return _plus_given(x, slots_BR, context) if self.adds_given else x

    def embed_before(self, values_BSC: Tensor, context: Context | None = None) -> Tensor:
        """Embeddings [B, S, D] of slots that hold these values, for teacher forcing.

        Slot s gets that of the value of slot s - 1.
        """
        x: Tensor = self.projection(values_BSC[:, :-1].to(self.start_D.dtype))
        x = torch.cat([self.start_D.expand(len(x), 1, -1).to(x.dtype), x], dim=1)
        slots_1S = torch.arange(x.shape[1], device=x.device)[None]
        return _plus_given(x, slots_1S, context) if self.adds_given else x


class MaskedValueInputs(nn.Module):
    """At a decided slot enters its vector, at an open slot a learned mask embedding.

    As with `MaskedInputs`, a model that decodes without a prompt needs positions or given
    embeddings to tell slots apart.

    Args:
        channels: numbers a slot C.
        width: D.
        projection: from [..., C] to [..., D]; a linear layer if None.
        positions: table of absolute positions, added to every slot.
        adds_given: add `Context.given_BSD` to every slot.
    """

    settles_open = False
    first_slot = 0

    def __init__(
        self,
        channels: int,
        width: int,
        *,
        projection: nn.Module | None = None,
        positions: nn.Embedding | None = None,
        adds_given: bool = False,
    ) -> None:
        super().__init__()
        self.projection = nn.Linear(channels, width) if projection is None else projection
        self.mask_D = nn.Parameter(torch.randn(width))
        self.positions = positions
        self.adds_given = adds_given

    def forward(
        self,
        canvas: Canvas,
        slots_BR: Tensor,
        valid_BR: Tensor | None = None,
        context: Context | None = None,
    ) -> Tensor:
        values_BRC, known_BR = _known_values(canvas, slots_BR)
        return self.embed(values_BRC, known_BR, slots_BR, context)

    def embed(
        self,
        values_BRC: Tensor,
        known_BR: Tensor,
        slots_BR: Tensor,
        context: Context | None = None,
    ) -> Tensor:
        """Embeddings [B, R, D] of values that lie at slots [B or 1, R]; the mask where unknown."""
        x = _project(self.projection, values_BRC, known_BR, like=self.mask_D)
        x = torch.where(known_BR[..., None], x, self.mask_D)
        if self.positions is not None:
            x = x + self.positions(slots_BR)
        return _plus_given(x, slots_BR, context) if self.adds_given else x

    def embed_copies(
        self,
        values_BSC: Tensor,
        known_BS: Tensor,
        table: OrderTable,
        context: Context | None = None,
    ) -> Tensor:
        """Embeddings [B, 2 S, D] of [noisy | clean] copies, for block-diffusion training.

        Args:
            known_BS: slots whose values enter the noisy copy too.
        """
        slots_1R = torch.arange(values_BSC.shape[1], device=values_BSC.device).repeat(2)[None]
        known_BR = torch.cat([known_BS, torch.ones_like(known_BS)], dim=1)
        return self.embed(values_BSC.repeat(1, 2, 1), known_BR, slots_1R, context)


def _known_values(canvas: Canvas, slots_BR: Tensor) -> tuple[Tensor, Tensor]:
    """Vectors at slots [B, R, C], and which of them stand, bool [B, R]."""
    if canvas.values.dim() != 3:
        raise ValueError(f"continuous inputs need vectors [B, S, C], not {canvas.values.shape}")
    return canvas.take(slots_BR), take(canvas.state_BS, slots_BR) == COMMITTED


def _project(
    projection: nn.Module, values_BRC: Tensor, known_BR: Tensor, *, like: Tensor
) -> Tensor:
    # What lies in an open slot may be anything, and NaN times a weight of 0 is NaN.
    x: Tensor = projection(values_BRC.masked_fill(~known_BR[..., None], 0).to(like.dtype))
    return x


def _plus_given(x_BRD: Tensor, slots_BR: Tensor, context: Context | None) -> Tensor:
    if context is None or context.given_BSD is None:
        raise ValueError("these inputs need a context with given_BSD")
    return x_BRD + take(context.given_BSD, slots_BR)
