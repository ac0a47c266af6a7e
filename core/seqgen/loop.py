"""The loop: for each group in turn, propose values for its open slots and commit what the rule
accepts, until the group is closed. Every group decoder is this loop with other parts.

A decided slot enters the cache together with the first pass of the next group (the fused commit: no
pass is spent on writing keys and values), or at once where its row does not hold its own value
(shifted inputs). The prompt is prefilled in the first pass.

Shapes: B rows, R slots fed in a pass, Q slots of the group.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from seqgen.cache import Cache
from seqgen.canvas import Canvas
from seqgen.commits import CommitRule
from seqgen.events import Event
from seqgen.heads.base import Proposal, Request
from seqgen.inputs import DecidedInputs, RasterInputs, require_prompt
from seqgen.logits import GREEDY, Sampling
from seqgen.model import Context, SequenceModel
from seqgen.orders import Order, OrderTable, Step, closed_prompt, steps


@dataclass(frozen=True)
class Recipe:
    """The parts of a decode.

    Attributes:
        order: which slots are decided together.
        commit: which proposals stand.
        sampling: how values are chosen.
        stop_ids: values that end a row.
        quota_over: what a commit rule's quota divides: all slots of the `group` (SDAR), or those
            that are `open` when the group is reached, so that known slots do not count.
        cached: keep keys and values of closed groups; False feeds everything in every pass.
        fused_commit: write the keys and values of a closed group in the next group's first pass;
            False spends a pass of its own, as the published SDAR loop does. Same output.
        check_every: after how many groups the device is asked whether all rows have stopped; 0
            takes 1 on CPU and 16 elsewhere.
    """

    order: Order
    commit: CommitRule
    sampling: Sampling = GREEDY
    stop_ids: tuple[int, ...] = ()
    quota_over: Literal["group", "open"] = "group"
    cached: bool = True
    fused_commit: bool = True
    check_every: int = 0


@torch.inference_mode()
def decode(
    model: SequenceModel, canvas: Canvas, context: Context | None, recipe: Recipe
) -> Iterator[Event]:
    """Decode a canvas in place, yielding an event a forward pass that proposes something."""
    table = recipe.order.table(canvas.slots, canvas.device)
    if isinstance(model.inputs, RasterInputs) and table.widest > 1:
        raise ValueError("shifted inputs need raster order: one slot a group")
    if recipe.stop_ids and canvas.values.dim() > 2:
        raise ValueError("stop_ids are token ids: a canvas of vectors has none")
    require_prompt(model.inputs, canvas)
    if context is not None:
        context = model.backbone.prepare(context)
    feed = _Feed(model, canvas, table, context, cached=recipe.cached)
    stop = torch.tensor(recipe.stop_ids, device=canvas.device)
    # Host knowledge that spares asking what is open: a plain prompt, then nothing.
    plain = canvas.uniform_length and canvas.uniform_prompt is not None and canvas.untouched
    whole: dict[int, tuple[Tensor, Tensor]] = {}
    check_every = recipe.check_every or (1 if canvas.device.type == "cpu" else 16)
    forward = 0

    for step in steps(table, canvas):
        if feed.must_settle_apart or not recipe.fused_commit:
            forward += feed.settle_pending()
        run = step.run
        fresh = plain and run is not None and run.start >= canvas.min_prompt
        fresh = fresh and not canvas.may_have_stopped
        if fresh:
            width = step.slots_BQ.shape[1]
            if width not in whole:
                open_BQ = canvas.prompt_B.new_ones(canvas.batch, width, dtype=torch.bool)
                whole[width] = open_BQ, torch.full_like(canvas.prompt_B, width)
            open_BQ, size_B = whole[width]
        else:
            open_BQ = canvas.open_at(step.slots_BQ, step.valid_BQ, run)
            size_B = open_BQ.sum(dim=1) if recipe.quota_over == "open" else _sizes(step, canvas)
        fewest, most = _passes(step, canvas, table, recipe)
        size = open_BQ.shape[1] if fresh else None
        for refinement in range(most):
            request = Request(
                canvas,
                step.slots_BQ,
                recipe.sampling,
                refinement,
                step.index * most + refinement,
                step.total * most,
                size,
            )
            proposal = feed.propose(step, request)
            keep_BQ = recipe.commit(proposal, open_BQ, size_B, request)
            canvas.commit(
                step.slots_BQ,
                proposal.values,
                proposal.confidence_BQ,
                keep_BQ,
                proposal.parameters,
                run=run,
                every=fresh and keep_BQ is open_BQ,
            )
            yield Event(
                forward=forward,
                step=step.index,
                refinement=refinement,
                slots_BQ=step.slots_BQ,
                values=proposal.values,
                confidence_BQ=proposal.confidence_BQ,
                kept_BQ=keep_BQ,
            )
            forward += 1
            if refinement + 1 == most:
                break
            open_BQ, fresh = open_BQ & ~keep_BQ, False
            if fewest <= refinement + 1 and not bool(open_BQ.any()):
                break
        feed.close(step)
        if recipe.stop_ids:
            _stop_rows(canvas, step, stop)
            due = canvas.may_have_stopped and (step.index + 1) % check_every == 0
            if due and bool(canvas.finished_B.all()):
                return


class _Feed:
    """Feeds a step's slots, led by the decided slots that are not yet in the cache.

    Where all rows work on the same group, what to feed is a slice of the order's sequence;
    otherwise the slots of each row are joined.
    """

    def __init__(
        self,
        model: SequenceModel,
        canvas: Canvas,
        table: OrderTable,
        context: Context | None,
        *,
        cached: bool,
    ) -> None:
        self.model, self.canvas, self.table, self.context = model, canvas, table, context
        ragged = 0 if canvas.uniform_prompt is not None else canvas.max_prompt - canvas.min_prompt
        scratch = 2 * table.widest + ragged if ragged else 0
        self.cache: Cache | None = None
        if cached and table.groups > 1:
            spare = model.compiled is not None  # a compiled pass wants room behind what it sees
            self.cache = model.backbone.new_cache(
                canvas.batch * model.branches, canvas.slots + scratch + spare
            )
        prompt, valid = closed_prompt(table, canvas)
        first = model.inputs.first_slot
        self.first_group = table.starts.index(first)
        """Uniform rows: the first group that is not in the cache."""
        self.next_group = 0 if ragged else table.starts.index(prompt.shape[1])
        """Uniform rows: the group after the last decided one."""
        self.last = torch.empty(0)
        """Inputs of decided slots: hidden states of the last pass, of the slots from a place on."""
        self.last_first = 0
        self.chunks: list[tuple[Tensor, Tensor | None]] = []
        """Ragged rows: decided slots that are not in the cache."""
        if ragged and prompt.shape[1] > first:
            self.chunks.append((prompt[:, first:], None if valid is None else valid[:, first:]))

    @property
    def must_settle_apart(self) -> bool:
        """Rows of different prompt length whose open slots settle at once would leave gaps."""
        return bool(self.chunks) and self.cache is not None and self.model.inputs.settles_open

    def propose(self, step: Step, request: Request) -> Proposal:
        """One pass, and what the head proposes for the step's slots."""
        model = self.model
        if isinstance(model.inputs, DecidedInputs):
            return model.head.propose(self._read(model.inputs, step), request)
        slots, valid, lead, run = self._joined(step)
        proposal = model.propose(
            self.canvas,
            self.table,
            slots,
            request,
            lead=lead,
            valid_BR=valid,
            alone=lead == 0,
            cache=self.cache,
            context=self.context,
            run=run,
        )
        if self.cache is not None:
            opens = model.inputs.settles_open
            self._settle(valid, slots.shape[1] if opens else lead)
            self.chunks = []
            if step.group is not None:
                self.first_group = step.group + opens
        return proposal

    def _read(self, inputs: DecidedInputs, step: Step) -> Tensor:
        """Feed the decided slots that are new; read the step's slots off decided ones."""
        if step.group is None:
            raise ValueError("inputs of decided slots need prompts of one length")
        slots, valid = self._span(self.first_group, step.group)
        first = self.table.starts[self.first_group]
        if slots.shape[1]:
            alone = self.cache is not None and step.group == self.first_group + 1
            run = self.table.run_of(self.first_group, step.group)
            self.last = self._pass(slots, valid, alone=alone, run=run)
            self.last_first = first
            if self.cache is not None:
                self._settle(valid, slots.shape[1])
                self.first_group = step.group
        return inputs.read(self.last, self.table, self.last_first, step.slots_BQ)

    def close(self, step: Step) -> None:
        """The step's slots are decided; they lead the next pass unless they are settled."""
        if step.group is None and (self.cache is None or not self.model.inputs.settles_open):
            self.chunks.append((step.slots_BQ, step.valid_BQ))
        if step.group is not None:
            self.next_group = step.group + 1

    def settle_pending(self) -> int:
        """Write the keys and values of decided slots in a pass of their own; returns passes."""
        if self.cache is None or isinstance(self.model.inputs, DecidedInputs):
            return 0
        if self.chunks:
            slots, valid = _concatenate(self.chunks, self.canvas.batch)
            self.chunks = []
        else:
            slots, valid = self._span(self.first_group, self.next_group)
            if slots.shape[1] == 0:
                return 0
            self.first_group = self.next_group
        self._pass(slots, valid, alone=False)
        self._settle(valid, slots.shape[1])
        return 1

    def _pass(
        self, slots: Tensor, valid: Tensor | None, *, alone: bool, run: slice | None = None
    ) -> Tensor:
        return self.model.hidden(
            self.canvas,
            self.table,
            slots,
            valid_BR=valid,
            alone=alone,
            cache=self.cache,
            context=self.context,
            run=run,
        )

    def _joined(self, step: Step) -> tuple[Tensor, Tensor | None, int, slice | None]:
        if step.group is not None:
            if self.first_group == step.group:
                return step.slots_BQ, step.valid_BQ, 0, step.run
            slots, valid = self._span(self.first_group, step.group + 1)
            run = self.table.run_of(self.first_group, step.group + 1)
            return slots, valid, slots.shape[1] - step.slots_BQ.shape[1], run
        if not self.chunks:
            return step.slots_BQ, step.valid_BQ, 0, None
        slots, valid = _concatenate(
            [*self.chunks, (step.slots_BQ, step.valid_BQ)], self.canvas.batch
        )
        return slots, valid, slots.shape[1] - step.slots_BQ.shape[1], None

    def _span(self, first: int, last: int) -> tuple[Tensor, Tensor | None]:
        slots = self.table.slots_of(first, last)
        if self.canvas.uniform_length:
            return slots, None
        return slots, slots < self.canvas.limit_B[:, None]

    def _settle(self, valid: Tensor | None, rows: int) -> None:
        assert self.cache is not None
        if rows == 0:
            return
        if self.canvas.uniform_prompt is not None or valid is None:
            self.cache.settle(rows)
            return
        per_row = valid[:, :rows].sum(dim=1)
        self.cache.settle(rows, per_row.repeat(self.model.branches))


def _concatenate(
    chunks: list[tuple[Tensor, Tensor | None]], batch: int
) -> tuple[Tensor, Tensor | None]:
    """Join slots of several steps; rows differ, so they are written out."""
    slots = torch.cat([s.expand(batch, -1) for s, _ in chunks], dim=1)
    if all(valid is None for _, valid in chunks):
        return slots, None
    valid = torch.cat(
        [
            s.new_ones(batch, s.shape[1], dtype=torch.bool) if v is None else v.expand(batch, -1)
            for s, v in chunks
        ],
        dim=1,
    )
    return slots, valid


def _sizes(step: Step, canvas: Canvas) -> Tensor:
    if step.valid_BQ is None:
        return torch.full_like(canvas.prompt_B, step.slots_BQ.shape[1])
    return step.valid_BQ.sum(dim=1).expand(canvas.batch)


def _passes(step: Step, canvas: Canvas, table: OrderTable, recipe: Recipe) -> tuple[int, int]:
    """How many passes the group needs at least and at most."""
    size, rule = step.slots_BQ.shape[1], recipe.commit
    prompt = canvas.uniform_prompt
    if step.group is None or prompt is None or step.valid_BQ is not None or canvas.has_given:
        return 1, max(rule.passes(size, size)[1], 1)
    known = min(size, max(0, prompt - table.starts[step.group])) if table.contiguous else 0
    opened = size - known
    return rule.passes(opened if recipe.quota_over == "open" else size, opened)


def _stop_rows(canvas: Canvas, step: Step, stop: Tensor) -> None:
    values = canvas.take(step.slots_BQ, step.run)
    hit = (values == stop) if stop.numel() == 1 else torch.isin(values, stop)
    # On a CPU asking costs less than marking rows that have not stopped.
    if hit.device.type == "cpu" and not bool(hit.any()):
        return
    hit = hit & (step.slots_BQ >= canvas.prompt_B[:, None]) & ~canvas.finished_B[:, None]
    if step.valid_BQ is not None:
        hit = hit & step.valid_BQ
    canvas.stop_at(step.slots_BQ, hit)
