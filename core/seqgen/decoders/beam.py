"""Beam search: the most probable sequences, several hypotheses an item, all items in one batch.

One pass of the model a step for all hypotheses of all items. Hypotheses that reach a stop value
leave the beam, which is refilled with the next best; an item ends when none of its hypotheses can
still beat the worst answer kept, and ended items leave the batch.

Shapes: B rows of the canvas, M items still searched, K hypotheses an item (beams), N = M * K, C
candidates a step, V vocabulary, S slots.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from seqgen.beams import BeamFeed, rows_of, rows_of_canvas, rows_of_every_branch
from seqgen.canvas import COMMITTED, Canvas
from seqgen.constraints import Constraint, State
from seqgen.decoders.base import StreamDecoder
from seqgen.errors import ConfigError, InputError
from seqgen.events import Event
from seqgen.heads.base import Request
from seqgen.hypotheses import Hypotheses
from seqgen.inputs import GivenInputs, require_prompt
from seqgen.logits import GREEDY, NEVER
from seqgen.model import Context, SequenceModel
from seqgen.paths import Paths, stable_topk

COMPACT_BELOW = 0.85
"""Decided items leave when this share of the batch, or less, is undecided: leaving copies keys."""


@dataclass(frozen=True, kw_only=True)
class Beam(StreamDecoder):
    """Search for the sequences of highest score: the sum of their values' log-probabilities.

    The canvas gets the best answer, `Generated.hypotheses` the best `keep`. Answers that ended with
    a stop value come first; what reached its row's limit without one (`finished` False) ranks
    behind them. A row without any answer keeps its prompt and has the score -inf.

    Events show, a pass, the newest value of each row's best candidate, not yet kept (confidence 0
    in rows that are no longer searched); one more event shows the best answers, all slots kept.

    Attributes:
        beams: hypotheses an item (K). One beam without a length penalty is greedy decoding.
        keep: answers to return; as many as beams if 0. The fewer, the sooner a search can end; the
            answers that are returned do not depend on it.
        stop_ids: values that end a hypothesis.
        length_penalty: answers are ranked by score / length ** length_penalty, where the length
            counts the new values with the stop value: 0 compares sums, 1 means (cf. Wu et al. 2016,
            arXiv 1609.08144, section 7).
        constraint: which values may come next. It forbids choices; scores and confidences stay the
            model's own.
        score: by what hypotheses of one length are compared while searching: their
            `log-probability`, or the `mean-logit` of their values (Casanovo). Answers are ranked by
            log-probability in both.
        refill: False leaves the places of hypotheses that have stopped empty (Casanovo).
        cached: False recomputes everything in every step (for comparisons).
    """

    beams: int = 5
    keep: int = 0
    stop_ids: tuple[int, ...] = ()
    length_penalty: float = 0.0
    constraint: Constraint | None = None
    score: Literal["log-probability", "mean-logit"] = "log-probability"
    refill: bool = True
    cached: bool = True

    def __post_init__(self) -> None:
        if self.beams < 1:
            raise ConfigError(f"beams must be at least 1, not {self.beams}")
        if self.keep < 0:
            raise ConfigError(f"keep must be 0 (as many as beams) or more, not {self.keep}")
        if self.length_penalty < 0:
            raise ConfigError(f"length_penalty must be 0 or more, not {self.length_penalty}")

    def stream(
        self, model: SequenceModel, canvas: Canvas, context: Context | None = None
    ) -> Generator[Event, None, Hypotheses]:
        """Decode `canvas` in place, yielding an event a pass and one with the answers."""
        return _decode(self, model, canvas, context)


@torch.inference_mode()
def _decode(
    options: Beam, model: SequenceModel, canvas: Canvas, context: Context | None
) -> Generator[Event, None, Hypotheses]:
    _check(model, canvas)
    search = _Search(options, model, canvas, context)
    while search.items:
        yield search.step()
    found = search.paths.answers(search.steps, search.keep, complete=not options.stop_ids)
    kept_BS = _fill(canvas, found, stopped=bool(options.stop_ids))
    if search.steps:
        first = canvas.max_prompt
        yield Event(
            forward=search.steps - 1,
            step=search.steps - 1,
            refinement=1,
            slots_BQ=torch.arange(first, canvas.slots, device=canvas.device)[None],
            values=canvas.values[:, first:].clone(),
            confidence_BQ=canvas.confidence_BS[:, first:].clone(),
            kept_BQ=kept_BS[:, first:],
        )
    return found


class _Search:
    """The hypotheses of all items that are still searched.

    Attributes:
        steps: steps made.
        paths: what they chose from.
    """

    def __init__(
        self, options: Beam, model: SequenceModel, canvas: Canvas, context: Context | None
    ) -> None:
        self.options, self.model, self.steps = options, model, 0
        self.keep = options.keep or options.beams
        self.rows, self.first = canvas.batch, canvas.max_prompt
        # Each stop value could take the first candidate of a hypothesis from the beam.
        self.candidates = options.beams * (1 + len(options.stop_ids) * options.refill)
        self.paths = Paths(canvas, beams=options.beams, candidates=self.candidates)
        self.check_every = 2 if canvas.device.type == "cpu" else 8
        self.stop = torch.tensor(options.stop_ids, dtype=torch.int64, device=canvas.device)

        limits = canvas.limit_B.tolist()
        self.limits = frozenset(limits)
        open_rows = [row for row, limit in enumerate(limits) if limit > self.first]
        self.item_M = torch.tensor(open_rows, dtype=torch.int64, device=canvas.device)
        """The canvas row of every item."""
        self.sum_MK = torch.zeros(len(open_rows), 1, device=canvas.device)
        """What hypotheses are compared by; -inf marks a place without a hypothesis."""
        self.log_p_MK = self.sum_MK
        self.state: State = ()
        if options.constraint is not None:
            self.state = _rows(options.constraint.start(canvas), self.item_M)
        if len(open_rows) < canvas.batch:
            full = [row for row, limit in enumerate(limits) if limit == self.first]
            self.paths.cut(self.item_M.new_tensor(full), self._nothing_new(len(full)))
            rows = rows_of_every_branch(self.item_M, canvas.batch, model.branches)
            context = rows_of(context, rows, canvas.batch * model.branches)
        self.feed = BeamFeed(
            model,
            rows_of_canvas(canvas, self.item_M),
            context,
            beams=options.beams,
            cached=options.cached,
        )
        self.limit_M = self.feed.canvas.limit_B

    @property
    def items(self) -> int:
        return self.item_M.shape[0]

    def step(self) -> Event:
        """One value more for every hypothesis."""
        live, slot = self.feed.hypotheses, self.first + self.steps
        logits_NV = self._logits(slot)
        vocabulary = logits_NV.shape[-1]
        log_p_NV = logits_NV.log_softmax(dim=-1)
        gain_NV = logits_NV if self.options.score == "mean-logit" else log_p_NV
        if self.options.constraint is not None:
            left_N = self.feed.canvas.limit_B - slot
            allowed_NV = self.options.constraint.allowed(self.state, left_N)
            gain_NV = gain_NV.masked_fill(~allowed_NV, NEVER)
        # Hypotheses of a step are equally long, so sums rank them as means would.
        sum_NV = gain_NV + self.sum_MK.view(-1, 1)
        sum_MC, index_MC = stable_topk(sum_NV.view(-1, live * vocabulary), self.candidates)
        value_MC, parent_MC = index_MC % vocabulary, index_MC // vocabulary
        gain_MC = log_p_NV.view(-1, live * vocabulary).gather(1, index_MC)
        log_p_MC = self.log_p_MK.gather(1, parent_MC) + gain_MC

        stops_MC = torch.isin(value_MC, self.stop) & (sum_MC > NEVER)
        # A stop value counts if it is among the best K; else a beam would end what greedy goes on.
        ended_MC = torch.where(stops_MC, self._final(log_p_MC, self.steps + 1), NEVER)
        chosen_MK = self._choose(stops_MC)
        self.paths.record(
            self.steps,
            self.item_M,
            value_MC=value_MC,
            parent_MC=parent_MC,
            log_p_MC=gain_MC,
            chosen_MK=chosen_MK,
            ended_MK=ended_MC[:, : self.options.beams],
        )
        event = self._event(slot, value_MC[:, :1], gain_MC[:, :1].exp())
        self.steps += 1
        self.sum_MK = sum_MC.masked_fill(stops_MC, NEVER).gather(1, chosen_MK)
        self.log_p_MK = log_p_MC.gather(1, chosen_MK)
        if slot + 1 in self.limits:
            self._cut(slot + 1)
        if self.items:
            self._advance(slot, parent_MC.gather(1, chosen_MK), value_MC.gather(1, chosen_MK))
            if slot + 1 in self.limits or self.steps % self.check_every == 0:
                self._drop_decided()
        return event

    def _logits(self, slot: int) -> Tensor:
        """Raw logits [N, V]."""
        hidden_N1D = self.feed.forward(slot)
        slots = torch.full((1, 1), slot, device=hidden_N1D.device)
        proposal = self.model.head.propose(hidden_N1D, Request(self.feed.canvas, slots, GREEDY, 0))
        if proposal.logits_BQV is None:
            raise ValueError("beam search needs a head with logits")
        return proposal.logits_BQV[:, 0]

    def _choose(self, stops_MC: Tensor) -> Tensor:
        """Which candidates stay in the beam: the best that have not stopped."""
        if self.options.refill and self.options.stop_ids:
            return stops_MC.to(torch.uint8).argsort(dim=1, stable=True)[:, : self.options.beams]
        every_C = torch.arange(stops_MC.shape[1], device=stops_MC.device)
        return every_C.expand(stops_MC.shape[0], -1)

    def _advance(self, slot: int, parent_MK: Tensor, value_MK: Tensor) -> None:
        """Make the chosen candidates the hypotheses."""
        index_M = torch.arange(self.items, device=parent_MK.device)
        if self.steps == 1:
            self.feed.fork()
            self.state = _rows(self.state, index_M.repeat_interleave(self.options.beams))
        parents_N = (index_M[:, None] * self.options.beams + parent_MK).flatten()
        values_N = value_MK.flatten()
        self.feed.advance(parents_N, values_N, slot)
        if self.options.constraint is not None:
            self.state = self.options.constraint.advance(_rows(self.state, parents_N), values_N)

    def _cut(self, end: int) -> None:
        """Items whose rows are full have the answers they have; hypotheses are answers cut off."""
        full_M = (self.limit_M == end).nonzero().squeeze(1)
        score_MK = self._final(self.log_p_MK, self.steps)
        score_MK = torch.where(self.sum_MK > NEVER, score_MK, NEVER)
        self.paths.cut(self.item_M.index_select(0, full_M), score_MK.index_select(0, full_M))
        if end == max(self.limits):
            self.item_M = self.item_M[:0]
        self.sum_MK = self.sum_MK.index_fill(0, full_M, NEVER)

    def _drop_decided(self) -> None:
        """Items leave the batch, several at a time, when nothing can change their answers."""
        best_M = torch.where(self.sum_MK > NEVER, self.log_p_MK, NEVER).amax(dim=1)
        # Log-probabilities only fall; at best a hypothesis keeps its own over the greatest length.
        bound_M = self._final(best_M, self.limit_M - self.first)
        worst_M = self.paths.worst(self.item_M, self.steps, self.keep)
        undecided = (bound_M > worst_M).nonzero().squeeze(1)
        if undecided.shape[0] > COMPACT_BELOW * self.items:
            return
        self.item_M = self.item_M.index_select(0, undecided)
        if not self.items:
            return
        self.feed.keep_items(undecided)
        self.sum_MK = self.sum_MK.index_select(0, undecided)
        self.log_p_MK = self.log_p_MK.index_select(0, undecided)
        self.limit_M = self.limit_M.index_select(0, undecided)
        self.state = _rows(self.state, self.feed.rows_of_items(undecided))

    def _final(self, log_p: Tensor, length: int | Tensor) -> Tensor:
        """The score of an answer of so many new values."""
        penalty = self.options.length_penalty
        return log_p if penalty == 0 else log_p / length**penalty

    def _nothing_new(self, rows: int) -> Tensor:
        """Scores of rows that are full from the start: their one answer adds nothing."""
        score_MK = torch.full((rows, self.options.beams), NEVER, device=self.item_M.device)
        score_MK[:, 0] = 0
        return score_MK

    def _event(self, slot: int, value_M1: Tensor, confidence_M1: Tensor) -> Event:
        device = self.item_M.device
        values_B1 = torch.zeros(self.rows, 1, dtype=torch.int64, device=device)
        confidence_B1 = torch.zeros(self.rows, 1, device=device)
        return Event(
            forward=self.steps,
            step=self.steps,
            refinement=0,
            slots_BQ=torch.full((1, 1), slot, device=device),
            values=values_B1.index_copy_(0, self.item_M, value_M1),
            confidence_BQ=confidence_B1.index_copy_(0, self.item_M, confidence_M1),
            kept_BQ=torch.zeros(self.rows, 1, dtype=torch.bool, device=device),
        )


def _rows(state: State, index: Tensor) -> State:
    return tuple(part.index_select(0, index) for part in state)


def _fill(canvas: Canvas, found: Hypotheses, *, stopped: bool) -> Tensor:
    """Write the best answers to the canvas; returns the slots written, bool [B, S]."""
    length_B = found.length_BN[:, 0]
    slot_S = torch.arange(canvas.slots, device=canvas.device)
    written_BS = (slot_S >= canvas.max_prompt) & (slot_S < length_B[:, None])
    canvas.values.copy_(torch.where(written_BS, found.values_BNS[:, 0], canvas.values))
    canvas.confidence_BS.copy_(
        torch.where(written_BS, found.confidence_BNS[:, 0], canvas.confidence_BS)
    )
    canvas.state_BS.masked_fill_(written_BS, COMMITTED)
    canvas.length_B = length_B.clone()
    if stopped:
        canvas.finished_B = found.finished_BN[:, 0].clone()
    return written_BS


def _check(model: SequenceModel, canvas: Canvas) -> None:
    require_prompt(model.inputs, canvas)
    if canvas.has_given:
        raise ValueError("beam search takes prompts, not known slots further on")
    if isinstance(model.inputs, GivenInputs):
        raise ValueError("beam search needs inputs that read the values decided so far")
    if canvas.uniform_prompt is None:
        raise InputError(
            f"prompts of {canvas.min_prompt} to {canvas.max_prompt} values in one batch",
            why="beam search feeds the same slot of every row",
            fix="decode rows of equal prompt length together",
        )
