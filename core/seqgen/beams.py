"""Feeding a model several hypotheses of every item in one pass (beam search).

The hypotheses of an item share one cache row: each writes an entry a step beside the others', and a
table of lineage says which entries are its own past. So nothing is copied when hypotheses are
reordered, dropped or multiplied: only the table is. What came before they parted (a prompt) is
stored and fed once, and to the backbone an item is one row with K queries, so its context is
neither repeated nor treated apart. Entries that no hypothesis descends from are dropped in time.

Shapes: M items, K hypotheses an item, N = M * K rows of the canvas, E entries, Q queries of an
item, R slots fed for a hypothesis, S slots, D width. Under guidance, rows of the backbone are
[branches * M].
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from seqgen.attention import MaskView
from seqgen.cache import Cache
from seqgen.canvas import COMMITTED, Canvas
from seqgen.masks import Mask, SlotInfo
from seqgen.model import Context, SequenceModel
from seqgen.orders import Raster

STEPS_OF_ROOM = 12
"""For how many steps' entries a cache has room before those that nobody needs are dropped."""

Anything = TypeVar("Anything")


class BeamFeed:
    """Hidden states that read out the next slot of all hypotheses, in raster order.

    Attributes:
        canvas: a row a hypothesis, those of an item side by side; the feed's own.
        hypotheses: K; 1 until `fork`.
    """

    def __init__(
        self,
        model: SequenceModel,
        canvas: Canvas,
        context: Context | None,
        *,
        beams: int,
        cached: bool,
    ) -> None:
        """Begin with one hypothesis an item.

        Args:
            canvas: a row an item, with prompts of one length.
            beams: hypotheses an item after `fork`.
            cached: False feeds every slot in every pass.
        """
        self.model, self.canvas, self.beams = model, canvas, beams
        self.table = Raster().table(canvas.slots, canvas.device)
        self.context = context
        if context is not None and canvas.batch:
            self.context = model.backbone.prepare(context)
        self.hypotheses = 1
        self.cached = cached
        self.cache: Cache | None = None
        self._sees_NE = torch.zeros(canvas.batch, 0, dtype=torch.bool, device=canvas.device)
        """Which entries of its item's cache row a hypothesis descends from."""
        self._input_contexts = self._contexts_of_inputs()

    @property
    def items(self) -> int:
        return self.canvas.batch // self.hypotheses

    def forward(self, slot: int) -> Tensor:
        """One pass: hidden states [branches * N, 1, D] for `slot`, the next one of every row."""
        if self.cache is None:
            return self._from_the_start(slot)
        cache, K = self.cache, self.hypotheses
        # Where a decided slot's entry is not yet final, it is fed again beside the open one.
        fed = 1 if self.model.inputs.settles_open else 2
        if cache.bound + fed * K > cache.capacity:
            self._drop_entries(fed * K)
        slots_1R = torch.arange(slot + 1 - fed, slot + 1, device=self.canvas.device)[None]
        x_NRD = self._embed(slots_1R)
        x_MQD = x_NRD.view(-1, K, fed, x_NRD.shape[-1]).transpose(1, 2).flatten(1, 2)
        slots_1Q = slots_1R.repeat_interleave(K, dim=1)
        cache.begin(slots_1Q, None)
        view = _LineageView(
            self.model.mask,
            self.table.info(slots_1Q),
            self.table.info(cache.slots_BN[:, : cache.visible]),
            self._lineage(fed),
        )
        hidden_MQD = self.model.backbone(
            x_MQD,
            self.table.coordinates_SA[slots_1Q],
            view=view,
            cache=cache,
            context=self.context,
        )
        cache.settle(K)
        return hidden_MQD[:, -K:].reshape(-1, 1, hidden_MQD.shape[-1])

    def fork(self) -> None:
        """Make K equal hypotheses of the one that every item has."""
        rows_N = torch.arange(self.items, device=self.canvas.device)
        rows_N = rows_N.repeat_interleave(self.beams)
        self.canvas = rows_of_canvas(self.canvas, rows_N)
        self.hypotheses = self.beams
        self._input_contexts = self._contexts_of_inputs()
        if self.cache is not None:
            self._sees_NE = self._sees_NE.new_zeros(self.canvas.batch, self.cache.capacity)
            self._sees_NE[:, : self.cache.bound] = True

    def advance(self, parents_N: Tensor, values_N: Tensor, slot: int) -> None:
        """Every row goes on from row `parents_N` (of the same item) with a value at `slot`."""
        values_NS, first = self.canvas.values, self.canvas.max_prompt
        values_NS[:, first:slot] = values_NS[:, first:slot].index_select(0, parents_N)
        values_NS[:, slot] = values_N
        self.canvas.state_BS[:, slot] = COMMITTED
        if self.cache is not None:
            past = self._sees_NE[:, : self.cache.bound]
            past.copy_(past.index_select(0, parents_N))

    def keep_items(self, index_M: Tensor) -> None:
        """Go on with these items only."""
        branches, items = self.model.branches, self.items
        self.canvas = rows_of_canvas(self.canvas, self.rows_of_items(index_M))
        rows = rows_of_every_branch(index_M, items, branches)
        self.context = rows_of(self.context, rows, items * branches)
        self._input_contexts = self._contexts_of_inputs()
        if self.cache is not None:
            self.cache.keep_rows(rows)
            self._sees_NE = self._sees_NE.index_select(0, self.rows_of_items(index_M))

    def _from_the_start(self, slot: int) -> Tensor:
        """Feed all slots so far: in the first pass, and in every pass without a cache."""
        inputs, context, branches = self.model.inputs, self.context, self.model.branches
        slots_1R = torch.arange(inputs.first_slot, slot + 1, device=self.canvas.device)[None]
        rows = self.items * branches
        if self.cached:
            # None from a network that cannot use one.
            self.cache = self.model.backbone.new_cache(rows, slots_1R.shape[1] + self._room)
        if self.hypotheses > 1:
            index = torch.arange(rows, device=self.canvas.device)
            context = rows_of(context, index.repeat_interleave(self.hypotheses), rows)
        hidden = self.model.hidden(
            self.canvas,
            self.table,
            slots_1R,
            alone=slots_1R.shape[1] == 1,
            cache=self.cache,
            context=context,
        )
        if self.cache is not None:
            self.cache.settle(slots_1R.shape[1] - (not inputs.settles_open))
        return hidden[:, -1:]

    @property
    def _room(self) -> int:
        """Entries of some steps, and the scratch of one."""
        return self.beams * (min(STEPS_OF_ROOM, self.canvas.slots) + 1)

    def _drop_entries(self, wanted: int) -> None:
        """Forget the entries that no hypothesis descends from; make more room if few were."""
        assert self.cache is not None
        cache, K, end = self.cache, self.hypotheses, self.cache.bound
        past_MKE = self._sees_NE[:, :end].view(-1, K, end)
        needed_ME = past_MKE.any(dim=1)
        kept = int(needed_ME.sum(dim=1).amax())
        index_ME = (~needed_ME).to(torch.uint8).argsort(dim=1, stable=True)[:, :kept]
        capacity = cache.capacity
        if kept + max(wanted, self._room // 2) > capacity:
            capacity = kept + wanted + self._room
        # Rows that need fewer name entries here that none of their hypotheses sees.
        past_MKE = past_MKE.gather(2, index_ME[:, None].expand(-1, K, -1))
        self._sees_NE = past_MKE.new_zeros(past_MKE.shape[0] * K, capacity)
        self._sees_NE[:, :kept] = past_MKE.flatten(0, 1)
        cache.keep_entries(index_ME.repeat(self.model.branches, 1), capacity=capacity)

    def _lineage(self, fed: int) -> Tensor:
        """What each query sees, bool [branches * M, Q, E]; notes the entries that will stay."""
        assert self.cache is not None
        K, end = self.hypotheses, self.cache.bound
        own_KK = torch.eye(K, dtype=torch.bool, device=self.canvas.device)
        self._sees_NE.view(-1, K, self._sees_NE.shape[1])[:, :, end : end + K] = own_KK
        sees_MQE = self._sees_NE[:, : end + K].view(-1, K, end + K)
        if fed == 2:
            own_MKK = own_KK.expand(sees_MQE.shape[0], K, K)
            decided = torch.cat([sees_MQE, torch.zeros_like(own_MKK)], dim=2)
            sees_MQE = torch.cat([decided, torch.cat([sees_MQE, own_MKK], dim=2)], dim=1)
        return sees_MQE.repeat(self.model.branches, 1, 1) if self.model.branches > 1 else sees_MQE

    def _embed(self, slots_1R: Tensor) -> Tensor:
        inputs = self.model.inputs
        parts = [inputs(self.canvas, slots_1R, None, own) for own in self._input_contexts]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _contexts_of_inputs(self) -> list[Context | None]:
        """The context that each branch's inputs see: embeddings of slots are a row a hypothesis."""
        context, branches = self.context, self.model.branches
        if context is None or context.given_BSD is None:
            return [context] * branches
        given = context.given_BSD.repeat_interleave(self.hypotheses, dim=0)
        return [replace(context, given_BSD=part) for part in given.chunk(branches)]

    def rows_of_items(self, index_M: Tensor) -> Tensor:
        """The canvas rows of items, [N]."""
        K = self.hypotheses
        return (index_M[:, None] * K + torch.arange(K, device=index_M.device)).flatten()


class _LineageView(MaskView):
    """The model's mask, of which a query sees only what its hypothesis descends from."""

    def __init__(self, mask: Mask, q: SlotInfo, k: SlotInfo, lineage_MQE: Tensor) -> None:
        super().__init__(mask, q, k)
        self.lineage_MQE = lineage_MQE

    @property
    def staircase(self) -> None:
        return None

    @property
    def queries_agree(self) -> bool:
        return False

    def sees(self, first: int, last: int) -> Tensor:
        sees = self.lineage_MQE[:, first:last]
        if not self.mask.past_is_visible:
            sees = sees & self.mask(self.q.part(first, last).column(), self.k.row())
        return sees

    @property
    def mask_mod(self) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
        mask, q_info, k_info, lineage_MQE = self.mask, self.q, self.k, self.lineage_MQE

        def mod(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
            return lineage_MQE[b, q, k] & mask(q_info.at(b, q), k_info.at(b, k))

        return mod


def rows_of(value: Anything, index: Tensor, size: int) -> Anything:
    """Rows of a context (a frozen dataclass, its tensors, tuples of them), in another sequence.

    Tensors whose first axis is not `size`, the number of rows, are the same for all rows.
    """
    out: Any = value
    if isinstance(value, Tensor):
        if value.dim() and value.shape[0] == size:
            out = value.index_select(0, index)
    elif isinstance(value, tuple):
        out = tuple(rows_of(part, index, size) for part in value)
    elif is_dataclass(value) and not isinstance(value, type):
        parts = {f.name: getattr(value, f.name) for f in fields(value) if f.init}
        out = replace(value, **{name: rows_of(x, index, size) for name, x in parts.items()})
    chosen: Anything = out
    return chosen


def rows_of_canvas(canvas: Canvas, index: Tensor) -> Canvas:
    """A canvas of these rows, in this sequence; rows may be named more than once."""
    chosen = copy.copy(canvas)
    for name, value in vars(canvas).items():
        if isinstance(value, Tensor):
            setattr(chosen, name, value.index_select(0, index))
    chosen.scratch = {}  # of the rows as they were
    return chosen


def rows_of_every_branch(index_M: Tensor, items: int, branches: int) -> Tensor:
    """The same items in every branch."""
    first = items * torch.arange(branches, device=index_M.device)
    return (first[:, None] + index_M).flatten()
