"""Inputs: what enters the model at a slot.

`ShiftedInputs` is the usual autoregressive feed (the previous value; the row reads out this slot).
`MaskedInputs` feeds a committed slot its value and an open slot a mask embedding; the row reads out
the same slot, so any order works. `GivenInputs` feeds embeddings that the context holds.
`NeighbourInputs` feeds decided slots only and reads the others off their neighbours' rows.
`value_inputs.py` has the first two for continuous values.

Shapes: B rows, R slots fed, S slots, D width, V vocabulary, C channels of a continuous value.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from seqgen.canvas import Canvas, take
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


class IdInputs(Protocol):
    """Inputs that embed ids, and can tell which ones enter at consecutive slots.

    That spares gathering them slot by slot, and a compiled pass begins with them.
    """

    def ids_of_run(self, canvas: Canvas, run: slice) -> Tensor | None:
        """The ids [B, R] that enter at consecutive slots; None where more than ids enters."""
        ...

    def embed_ids(self, ids_BR: Tensor, slots_BR: Tensor) -> Tensor:
        """Embeddings [B, R, D] of such ids at slots [1, R]."""
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
        conditioned: at slot 0 enters `Context.condition_BD` (a class) in place of a start token.
        adds_given: add `Context.given_BSD` to every slot.
    """

    def __init__(
        self,
        embedding: nn.Embedding,
        *,
        start_id: int | None = None,
        conditioned: bool = False,
        adds_given: bool = False,
    ) -> None:
        super().__init__()
        self.embedding = embedding
        self.start_id = start_id
        self.conditioned = conditioned
        self.adds_given = adds_given
        self.first_slot = 1 if start_id is None and not conditioned else 0

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
        if self.conditioned:
            x = torch.where((slots_BR == 0)[..., None], condition_of(context)[:, None], x)
        return plus_given(x, slots_BR, context) if self.adds_given else x

    def ids_of_run(self, canvas: Canvas, run: slice) -> Tensor | None:
        """The ids [B, R] that enter at consecutive slots; None where more than ids enters."""
        if self.adds_given or run.start == 0:
            return None
        return canvas.values[:, run.start - 1 : run.stop - 1]

    def embed_ids(self, ids_BR: Tensor, slots_BR: Tensor) -> Tensor:
        """Embeddings [B, R, D] of `ids_of_run`."""
        return self.embed(ids_BR)

    def embed(self, ids_BS: Tensor, context: Context | None = None) -> Tensor:
        """Embeddings [B, S, D] of shifted ids at slots 0..S-1, for teacher forcing."""
        x: Tensor = self.embedding(ids_BS)
        return x

    def embed_before(self, ids_BS: Tensor, context: Context | None = None) -> Tensor:
        """Embeddings [B, S, D] of slots that hold these values, for teacher forcing.

        Without a start, S is one less: the first slot is not fed.
        """
        if self.start_id is None and not self.conditioned:
            x = self.embed(ids_BS[:, :-1], context)
        else:
            before_BS = torch.cat([ids_BS[:, :1], ids_BS[:, :-1]], dim=1)
            if self.start_id is not None:
                before_BS = torch.cat(
                    [torch.full_like(ids_BS[:, :1], self.start_id), ids_BS[:, :-1]], dim=1
                )
            x = self.embed(before_BS, context)
            if self.conditioned:
                x = torch.cat([condition_of(context)[:, None].to(x.dtype), x[:, 1:]], dim=1)
        if not self.adds_given:
            return x
        slots_1S = torch.arange(self.first_slot, self.first_slot + x.shape[1], device=x.device)
        return plus_given(x, slots_1S[None], context)


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

    def ids_of_run(self, canvas: Canvas, run: slice) -> Tensor | None:
        """The ids [B, R] that enter at consecutive slots; None where more than ids enters."""
        if self.adds_given:
            return None
        open_BR = canvas.open_at(canvas.values, None, run)
        return torch.where(open_BR, self.mask_id, canvas.values[:, run])

    def embed_ids(self, ids_BR: Tensor, slots_BR: Tensor) -> Tensor:
        """Embeddings [B, R, D] of `ids_of_run`."""
        return self.embed(ids_BR, slots_BR)

    def embed(self, ids_BR: Tensor, slots_BR: Tensor, context: Context | None = None) -> Tensor:
        """Embeddings [B, R, D] of ids that lie at slots [B or 1, R]."""
        x: Tensor = self.embedding(ids_BR)
        if self.scale != 1:
            x = x * self.scale
        if self.positions is not None:
            x = x + self.positions(slots_BR)
        return plus_given(x, slots_BR, context) if self.adds_given else x

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


class DecidedInputs(nn.Module):
    """Base of inputs that feed decided slots only.

    A slot to decide has no row of its own: it is read off the rows of slots decided before. Every
    order works in which those belong to the group just before its own; the first group is a prompt.
    """

    settles_open = True
    first_slot = 0

    def read(self, hidden_BRD: Tensor, table: OrderTable, first: int, slots_BQ: Tensor) -> Tensor:
        """States [B, Q, W] of slots to decide.

        Args:
            hidden_BRD: rows of the slots `table.sequence_S[first : first + R]`.
            slots_BQ: [1, Q].
        """
        raise TypeError(f"{type(self).__name__} must define read()")


class NeighbourInputs(DecidedInputs):
    """Each token predicts its neighbour on the right and the one below (NAR, arXiv 2503.10696).

    The slot at (i, j) is read off the rows of its left and its upper neighbour, as [left / n |
    above / n], with n how many of the two there are and zeros for one that is not. Two heads
    without bias, averaged where both apply, are one such head over 2 D numbers. Both neighbours of
    the first slot are the prefix: slot 0, where `Context.condition_BD` enters. For `Diagonals` with
    a prefix of 1.

    Args:
        embedding: table of the values.
        height, width: rows and columns of the grid.
        exits: 1: both are read off the same states. 2: the backbone gives [B, R, 2 D], states for
            the right neighbour and for the one below (NAR's extra layer).
        adds_given: add `Context.given_BSD` to every slot.
    """

    source_S2: Tensor
    weight_S2: Tensor

    def __init__(
        self,
        embedding: nn.Embedding,
        *,
        height: int,
        width: int,
        exits: int = 1,
        adds_given: bool = False,
    ) -> None:
        super().__init__()
        self.embedding = embedding
        self.exits = exits
        self.adds_given = adds_given
        index = torch.arange(height * width)
        row, column = index // width, index % width
        both = torch.stack([column > 0, row > 0], dim=1)
        left_above = torch.stack([index, index + 1 - width], dim=1)  # slots, behind the prefix
        left_above = torch.where(both, left_above, left_above.flip(1))
        origin = torch.tensor([[0, 0]])  # the prefix itself, which is never read
        source = torch.cat([origin, origin, left_above[1:]])
        both[0] = True
        weight = both.float() / both.sum(dim=1, keepdim=True)
        self.register_buffer("source_S2", source, persistent=False)
        self.register_buffer("weight_S2", torch.cat([weight[:1], weight]), persistent=False)

    def forward(
        self,
        canvas: Canvas,
        slots_BR: Tensor,
        valid_BR: Tensor | None = None,
        context: Context | None = None,
    ) -> Tensor:
        return self._embed(canvas.take(slots_BR), slots_BR, context)

    def embed_before(self, ids_BS: Tensor, context: Context | None = None) -> Tensor:
        """Embeddings [B, S, D] of all slots, the prefix with any value, for teacher forcing."""
        slots_1S = torch.arange(ids_BS.shape[1], device=ids_BS.device)[None]
        return self._embed(ids_BS, slots_1S, context)

    def read(self, hidden_BRD: Tensor, table: OrderTable, first: int, slots_BQ: Tensor) -> Tensor:
        source_Q2 = self.source_S2[slots_BQ[0]]
        place_Q2 = table.rank_S[source_Q2] - first
        states = hidden_BRD.view(*hidden_BRD.shape[:2], self.exits, -1)
        read = [states[:, place_Q2[:, n], min(n, self.exits - 1)] for n in (0, 1)]
        weight_Q2 = self.weight_S2[slots_BQ[0]].to(hidden_BRD.dtype)
        return (torch.stack(read, dim=2) * weight_Q2[..., None]).flatten(2)

    def _embed(self, ids_BR: Tensor, slots_BR: Tensor, context: Context | None) -> Tensor:
        x: Tensor = self.embedding(ids_BR)
        x = torch.where((slots_BR == 0)[..., None], condition_of(context)[:, None].to(x.dtype), x)
        return plus_given(x, slots_BR, context) if self.adds_given else x


def condition_of(context: Context | None) -> Tensor:
    """The condition [B, D] that enters at the first slots."""
    if context is None or context.condition_BD is None:
        raise ValueError("these inputs need a context with condition_BD")
    return context.condition_BD


def plus_given(x_BRD: Tensor, slots_BR: Tensor | slice, context: Context | None) -> Tensor:
    """The embeddings with what the context gives for their slots."""
    if context is None or context.given_BSD is None:
        raise ValueError("these inputs need a context with given_BSD")
    if isinstance(slots_BR, slice):
        return x_BRD + context.given_BSD[:, slots_BR]
    return x_BRD + take(context.given_BSD, slots_BR)
