"""A sequence model: inputs, a backbone and a head, which the decoders drive and training trains.

Shapes: B rows, R slots fed in a pass, Q open slots, D width, A coordinate axes, T context length.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, cast

import torch
from torch import Tensor, nn

from seqgen.attention import MaskView
from seqgen.cache import Cache
from seqgen.masks import BlockCausal, Full, Mask, SlotInfo
from seqgen.orders import OrderTable

if TYPE_CHECKING:
    from seqgen.canvas import Canvas
    from seqgen.compiled import CompiledPass
    from seqgen.heads.base import Head, Proposal, Request
    from seqgen.inputs import IdInputs, Inputs


@dataclass(frozen=True)
class Context:
    """What a sequence is conditioned on.

    Attributes:
        states_BTD: encoder states for cross-attention.
        valid_BT: bool, frames in use; None if all are.
        given_BSD: an input embedding for every slot (CIF, upsampled scale), for `GivenInputs`.
        condition_BD: a vector for the whole row (a class), for inputs that begin with it and for
            backbones with adaptive norms.
        layers: what each backbone layer makes of the context (keys and values of `states_BTD`,
            scales and shifts of `condition_BD`), filled by `Backbone.prepare`, so that a decode
            projects the context once.
    """

    states_BTD: Tensor | None = None
    valid_BT: Tensor | None = None
    given_BSD: Tensor | None = None
    condition_BD: Tensor | None = None
    layers: tuple[tuple[Tensor, ...], ...] = field(default=(), repr=False)

    @property
    def key_mask(self) -> Tensor | None:
        """`valid_BT` as an attention mask [B, 1, 1, T]."""
        return None if self.valid_BT is None else self.valid_BT[:, None, None, :]


class Backbone(Protocol):
    """A network from embeddings to hidden states."""

    def __call__(
        self,
        x_BRD: Tensor,
        coordinates_BRA: Tensor,
        *,
        view: MaskView | None,
        cache: Cache | None,
        context: Context | None,
    ) -> Tensor:
        """Hidden states [B, R, D]. `view` None: every row sees everything."""
        ...

    def new_cache(self, batch: int, capacity: int) -> Cache | None:
        """A cache for this network, or None if it cannot use one."""
        ...

    def prepare(self, context: Context) -> Context:
        """Project the context once for all passes of a decode."""
        ...


class SequenceModel(nn.Module):
    """Inputs, backbone and head.

    Attributes:
        mask: which slots a slot sees, given the order's groups.
        branches: copies of each row that run in one batch (2 under guidance).
        compiled: passes that `seqgen.compiled` has fused; None before.
    """

    branches = 1
    compiled: CompiledPass | None = None

    def __init__(
        self, *, inputs: Inputs, backbone: Backbone, head: Head, mask: Mask | None = None
    ) -> None:
        super().__init__()
        self.inputs = inputs
        self.backbone = backbone
        self.head = head
        self.mask = BlockCausal() if mask is None else mask

    def propose(
        self,
        canvas: Canvas,
        table: OrderTable,
        slots_BR: Tensor,
        request: Request,
        *,
        lead: int = 0,
        valid_BR: Tensor | None = None,
        alone: bool = False,
        cache: Cache | None = None,
        context: Context | None = None,
        run: slice | None = None,
    ) -> Proposal:
        """One forward pass as of `hidden`, and what the head proposes for all but `lead` slots."""
        if self.compiled is not None and run is not None and valid_BR is None:
            found = self.compiled.propose(
                self, canvas, table, slots_BR, request, lead=lead, alone=alone, cache=cache, run=run
            )
            if found is not None:
                return found
        hidden = self.hidden(
            canvas,
            table,
            slots_BR,
            valid_BR=valid_BR,
            alone=alone,
            cache=cache,
            context=context,
            run=run,
        )
        return self.head.propose(hidden[:, lead:] if lead else hidden, request)

    def hidden(
        self,
        canvas: Canvas,
        table: OrderTable,
        slots_BR: Tensor,
        *,
        valid_BR: Tensor | None = None,
        alone: bool = False,
        cache: Cache | None = None,
        context: Context | None = None,
        run: slice | None = None,
    ) -> Tensor:
        """One forward pass over slots of the canvas: hidden states [B, R, D].

        Args:
            slots_BR: slots fed, [B, R] or [1, R].
            valid_BR: slots in use; None if all are.
            alone: all fed slots belong to one group and everything cached to earlier ones, in
                every row: then most masks allow everything and none is built.
            run: the slots as a slice, where they are consecutive and the same in all rows.
        """
        x = self._embed(canvas, slots_BR, valid_BR, context, run)
        if self.branches > 1:
            slots_BR = _repeat(slots_BR, self.branches)
            valid_BR = None if valid_BR is None else _repeat(valid_BR, self.branches)
        if cache is not None:
            cache.begin(slots_BR, valid_BR)
        view = self._view(table, slots_BR, valid_BR, alone, cache, run)
        coordinates = table.coordinates_SA[slots_BR if run is None else (None, run)]
        return self.backbone(x, coordinates, view=view, cache=cache, context=context)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "compiled": None}  # compiled code belongs to one model

    def _view(
        self,
        table: OrderTable,
        slots_BR: Tensor,
        valid_BR: Tensor | None,
        alone: bool,
        cache: Cache | None,
        run: slice | None,
    ) -> MaskView | None:
        """The mask of a pass that the cache knows of; None where everything is seen."""
        uniform = valid_BR is None and (cache is None or cache.uniform is not None)
        if alone and self.mask.past_is_visible and uniform:
            return None
        # Alone, a slot sees all that is valid: one row of the mask serves every query.
        mask = Full() if alone and self.mask.past_is_visible else self.mask
        queries = partial(table.info, slots_BR)
        if cache is None:
            return MaskView(mask, queries, queries, valid_BR)
        if not (uniform and slots_BR.shape[0] == 1):
            keys_BN = cache.slots_BN[:, : cache.visible]
            return MaskView(mask, queries, table.info(keys_BN), cache.valid())
        parts = None
        if run is not None and isinstance(mask, BlockCausal):
            parts = table.parts_of(run, MOST_PARTS)

        def keys() -> SlotInfo:
            return table.info(cache.slots_BN[:1, : cache.visible])

        return MaskView(mask, queries, keys, parts=parts)

    def _embed(
        self,
        canvas: Canvas,
        slots_BR: Tensor,
        valid_BR: Tensor | None,
        context: Context | None,
        run: slice | None,
    ) -> Tensor:
        """Embeddings [branches * B, R, D]."""
        if run is not None and valid_BR is None and (own_ids := id_inputs(self.inputs)) is not None:
            ids_BR = own_ids.ids_of_run(canvas, run)
            if ids_BR is not None:
                x = own_ids.embed_ids(ids_BR, slots_BR)
                return x if self.branches == 1 else x.repeat(self.branches, 1, 1)
        if self.branches == 1:
            return self.inputs(canvas, slots_BR, valid_BR, context)
        own = _branch_contexts(context, self.branches)
        return torch.cat([self.inputs(canvas, slots_BR, valid_BR, part) for part in own])


MOST_PARTS = 4
"""Groups of a pass that are looked at one after the other; of more, a mask is made."""


def id_inputs(inputs: Inputs) -> IdInputs | None:
    """The inputs as `IdInputs`, where nothing asks for the general way."""
    if "ids_of_run" not in vars(type(inputs)):  # inherited: the subclass may embed something else
        return None
    if isinstance(inputs, nn.Module) and (inputs._forward_pre_hooks or inputs._forward_hooks):
        return None
    return cast("IdInputs", inputs)


def with_head(model: SequenceModel, head: Head) -> SequenceModel:
    """The same model, its parts shared, with another head."""
    made = copy.copy(model)
    made._modules = {**model._modules}
    made._modules.pop("head", None)
    made.__dict__.pop("head", None)  # where a head that is no module lies
    made.head = head
    made.compiled = model.compiled  # it asks which head it works for
    return made


def _branch_contexts(context: Context | None, branches: int) -> list[Context | None]:
    """Each branch's own part of the embeddings that enter at the slots."""
    if context is None or (context.given_BSD is None and context.condition_BD is None):
        return [context] * branches
    given, condition = context.given_BSD, context.condition_BD
    return [
        replace(context, given_BSD=own_given, condition_BD=own_condition)
        for own_given, own_condition in zip(
            [None] * branches if given is None else given.chunk(branches),
            [None] * branches if condition is None else condition.chunk(branches),
            strict=True,
        )
    ]


def _repeat(x: Tensor, times: int) -> Tensor:
    return x if x.shape[0] == 1 else x.repeat(times, 1)


def parameter_count(model: nn.Module) -> int:
    """Number of trained numbers, tied ones once."""
    return sum(p.numel() for p in model.parameters())


def device_of(model: nn.Module) -> torch.device:
    """The device of a model's first parameter."""
    return next(model.parameters()).device
