"""Drafts: cheap guesses at the next values, which a pass of the target model verifies.

`NgramLookup` copies what followed the same values earlier in the row; `DraftModel` asks a smaller
model. A drafter is an option of a decoder; `start` gives what drafts for one canvas.

Shapes: B rows, S slots, K drafted slots, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from seqgen.canvas import Canvas
from seqgen.errors import ConfigError
from seqgen.guidance import GuidedHead
from seqgen.heads import CategoricalHead, Head, Request
from seqgen.inputs import ShiftedInputs, require_prompt
from seqgen.logits import Sampling
from seqgen.model import Context, SequenceModel
from seqgen.orders import OrderTable
from seqgen.raster import Front, RasterFeed

TARGET_DRAW, DRAFT_DRAW, ACCEPT_DRAW = 0, 1, 2
"""Numbers of a slot's noise: for the target's own value (as in `Autoregressive`), for the draft,
and for accepting it. A slot that is drafted again after a rollback draws the same numbers: what
was decided before it never looked at them, so its value stays independent of them."""


@dataclass(frozen=True)
class Draft:
    """Values drafted at the front.

    Attributes:
        values_BK: ids; K may be 0.
        wanted_BK: bool, which of them are drafts: the first few of a row, or none.
        mass_BKV: the distribution each was sampled from; None if drafts are certain (a copy, or a
            model's most probable value).
    """

    values_BK: Tensor
    wanted_BK: Tensor
    mass_BKV: Tensor | None = None


class Drafts(Protocol):
    """Drafts for one canvas.

    Attributes:
        forwards: forward passes of a draft model so far.
    """

    forwards: int

    def propose(self, front: Front, count: int) -> Draft:
        """Draft up to `count` >= 1 slots from `front` on, and commit the wanted ones to the canvas.

        The caller opens them again. What a row drafts must not depend on other rows.
        """
        ...


class Drafter(Protocol):
    """A way to draft."""

    def start(
        self,
        target: SequenceModel,
        canvas: Canvas,
        table: OrderTable,
        context: Context | None,
        sampling: Sampling,
        *,
        cached: bool,
    ) -> Drafts:
        """Get ready to draft for a canvas that `target` decodes with `sampling`."""
        ...


@dataclass(frozen=True, kw_only=True)
class NgramLookup:
    """Copy what followed the longest recent repetition of the row's last values.

    Prompt lookup decoding (Saxena 2023, github.com/apoorvumang/prompt-lookup-decoding). Of equally
    long repetitions the latest counts; a copy that reaches the front goes on with its own values.

    Attributes:
        longest, shortest: how many values must repeat, at most and at least.
    """

    longest: int = 3
    shortest: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.shortest <= self.longest:
            raise ValueError(
                f"1 <= shortest <= longest must hold, not {self.shortest} and {self.longest}"
            )

    def start(
        self,
        target: SequenceModel,
        canvas: Canvas,
        table: OrderTable,
        context: Context | None,
        sampling: Sampling,
        *,
        cached: bool,
    ) -> Drafts:
        return _Copies(canvas, self)


@dataclass(frozen=True)
class DraftModel:
    """Ask another model of the same vocabulary.

    Attributes:
        model: a model with shifted inputs.
        context: what it is conditioned on; the target's context if None.
    """

    model: SequenceModel
    context: Context | None = None

    def start(
        self,
        target: SequenceModel,
        canvas: Canvas,
        table: OrderTable,
        context: Context | None,
        sampling: Sampling,
        *,
        cached: bool,
    ) -> Drafts:
        require_shifted_inputs(self.model, canvas, "the draft model")
        sizes = vocabulary_of(target.head), vocabulary_of(self.model.head)
        if None not in sizes and sizes[0] != sizes[1]:
            raise ConfigError(
                f"the draft model has {sizes[1]} values, the target {sizes[0]}",
                why="a draft is a value of the target, so both need one vocabulary",
                fix="take a draft model that was trained on the target's vocabulary",
            )
        context = context if self.context is None else self.context
        feed = RasterFeed(self.model, canvas, table, context, ahead=1, cached=cached)
        return _ModelDrafts(feed, sampling)


class _Copies:
    def __init__(self, canvas: Canvas, lookup: NgramLookup) -> None:
        self.canvas, self.lookup = canvas, lookup
        self.forwards = 0

    def propose(self, front: Front, count: int) -> Draft:
        source_B, found_B = self._source(front)
        offset_K = torch.arange(count, device=self.canvas.device)
        period_B1 = (front.slot_B - source_B).clamp(min=1)[:, None]
        values_BK = self.canvas.values.gather(1, source_B[:, None] + offset_K % period_B1)
        slots_BK = front.window(0, count)
        wanted_BK = found_B[:, None] & _has_room(self.canvas, slots_BK)
        # On a CPU asking costs nothing, and a pass over slots that nobody drafted does.
        if self.canvas.device.type == "cpu" and not bool(wanted_BK.any()):
            return Draft(values_BK[:, :0], wanted_BK[:, :0])
        certain_BK = torch.ones_like(values_BK, dtype=torch.float32)
        self.canvas.commit(slots_BK % self.canvas.slots, values_BK, certain_BK, wanted_BK)
        return Draft(values_BK, wanted_BK)

    def _source(self, front: Front) -> tuple[Tensor, Tensor]:
        """Where each row's repetition goes on, and whether there is one."""
        ids_BS = self.canvas.values[:, : max(front.high, 1)]
        slots = ids_BS.shape[1]
        index_S = torch.arange(slots, device=ids_BS.device)
        alike_BS = index_S < front.slot_B[:, None]
        run_BS = torch.zeros_like(ids_BS)
        for back in range(1, min(self.lookup.longest, slots - 1) + 1):
            last_B1 = ids_BS.gather(1, (front.slot_B - back).clamp(min=0)[:, None])
            alike_BS[:, :back] = False
            alike_BS[:, back:] &= ids_BS[:, :-back] == last_B1
            run_BS += alike_BS
        enough_BS = run_BS >= self.lookup.shortest
        best_B = torch.where(enough_BS, run_BS * slots + index_S, -1).amax(dim=1)
        return best_B.clamp(min=0) % slots, best_B >= 0


class _ModelDrafts:
    def __init__(self, feed: RasterFeed, sampling: Sampling) -> None:
        self.feed, self.sampling = feed, sampling
        self.forwards = 0

    def propose(self, front: Front, count: int) -> Draft:
        model, canvas = self.feed.model, self.feed.canvas
        values, wanted, masses = [], [], []
        for ahead in range(count):
            here = front.ahead(ahead)
            # If all drafts of the last round stood, the last of them was never fed.
            hidden = self.feed.forward(here, 1, lead=1 if ahead == 0 else 0)
            self.forwards += 1
            slots = here.window(0, 1)
            inside = slots % canvas.slots
            proposal = model.head.propose(
                hidden, Request(canvas, inside, self.sampling, DRAFT_DRAW)
            )
            room = _has_room(canvas, slots)
            canvas.commit(inside, proposal.values, proposal.confidence_BQ, room)
            values.append(proposal.values)
            wanted.append(room)
            if self.sampling.temperature > 0:
                if proposal.logits_BQV is None:
                    raise ValueError("sampled drafts need a head with logits")
                masses.append(proposal.logits_BQV.softmax(dim=-1))
        return Draft(
            torch.cat(values, dim=1),
            torch.cat(wanted, dim=1),
            torch.cat(masses, dim=1) if masses else None,
        )


def require_shifted_inputs(model: SequenceModel, canvas: Canvas, who: str) -> None:
    """Refuse models that do not read the previous value, and prompts too short for their inputs.

    Raises:
        ValueError: other inputs.
        InputError: a row is empty, and the model has no start token.
    """
    if not isinstance(model.inputs, ShiftedInputs):
        raise ValueError(
            f"speculative decoding: {who} needs shifted inputs, not {type(model.inputs).__name__}"
        )
    require_prompt(model.inputs, canvas, who)


def vocabulary_of(head: Head) -> int | None:
    """How many values a categorical head chooses from; None for other heads."""
    if isinstance(head, GuidedHead):
        head = head.head
    return head.vocabulary if isinstance(head, CategoricalHead) else None


def _has_room(canvas: Canvas, slots_BK: Tensor) -> Tensor:
    """Slots to draft, bool [B, K]: all but a row's last, which the verifying pass gives anyway."""
    return (slots_BK < canvas.limit_B[:, None] - 1) & ~canvas.finished_B[:, None]
