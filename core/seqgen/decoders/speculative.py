"""Speculative decoding: several values are drafted cheaply and verified by one pass of the model.

Leviathan, Kalman and Matias 2023 (arXiv 2211.17192), algorithm 1; Chen et al. 2023 (arXiv
2302.01318), algorithm 2. Exact: the output has the distribution of `Autoregressive`, and where
drafts are certain (greedy decoding, n-gram lookup) it is the same output. Every row keeps what it
accepts, so rows advance by different lengths.

Shapes: B rows, K drafted slots, Q = K + 1 verified slots, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from seqgen import noise
from seqgen.canvas import OPEN, Canvas
from seqgen.decoders.base import StreamDecoder
from seqgen.drafts import (
    ACCEPT_DRAW,
    TARGET_DRAW,
    Draft,
    Drafter,
    NgramLookup,
    require_shifted_inputs,
)
from seqgen.events import Event
from seqgen.heads.base import Proposal, Request
from seqgen.logits import GREEDY, Sampling, invert_cumulative
from seqgen.model import Context, SequenceModel
from seqgen.orders import Raster
from seqgen.raster import Front, RasterFeed


@dataclass(frozen=True, kw_only=True)
class Speculative(StreamDecoder):
    """Decode token by token, several tokens a pass of the model.

    An event is a pass of the target: what it proposed, kept, and which drafts it rolled back.
    Passes of a draft model are counted apart (`Generated.draft_forwards`).

    Attributes:
        draft: where drafts come from: `NgramLookup()` or `DraftModel(model)`.
        draft_length: drafts a pass at most (K).
        sampling: greedy by default; target and draft model sample alike.
        stop_ids: values that end a row.
        cached: False recomputes everything in every pass (for comparisons).
    """

    draft: Drafter = field(default_factory=NgramLookup)
    draft_length: int = 4
    sampling: Sampling = GREEDY
    stop_ids: tuple[int, ...] = ()
    cached: bool = True

    def __post_init__(self) -> None:
        if self.draft_length < 1:
            raise ValueError(f"draft_length must be at least 1, not {self.draft_length}")

    def stream(
        self, model: SequenceModel, canvas: Canvas, context: Context | None = None
    ) -> Iterator[Event]:
        """Decode `canvas` in place, yielding an event a verifying pass."""
        return _decode(self, model, canvas, context)


@torch.inference_mode()
def _decode(
    options: Speculative, model: SequenceModel, canvas: Canvas, context: Context | None
) -> Iterator[Event]:
    require_shifted_inputs(model, canvas, "the target")
    if canvas.has_given:
        raise ValueError("speculative decoding takes prompts, not known slots further on")
    # Slots that nobody drafted are fed beside those that others did: give them a valid id.
    canvas.values.masked_fill_(canvas.state_BS == OPEN, 0)
    table = Raster().table(canvas.slots, canvas.device)
    sampling, K = options.sampling, options.draft_length
    feed = RasterFeed(model, canvas, table, context, ahead=K + 1, cached=options.cached)
    drafts = options.draft.start(model, canvas, table, context, sampling, cached=options.cached)
    stop = torch.tensor(options.stop_ids, device=canvas.device)
    front, left = _progress(canvas, canvas.prompt_B)
    forward = 0
    while left > 0:
        drafted = drafts.forwards
        draft = drafts.propose(front, min(K, left - 1)) if left > 1 else _no_draft(canvas)
        slots = front.window(0, draft.values_BK.shape[1] + 1)
        valid_BQ = (slots < canvas.limit_B[:, None]) & ~canvas.finished_B[:, None]
        slots = slots % canvas.slots
        canvas.reopen(slots[:, :-1], draft.wanted_BK)
        hidden_BQD = feed.forward(front, slots.shape[1])
        proposal = _target(model, hidden_BQD, canvas, slots, draft, sampling)
        canvas.reopen(slots[:, :-1], draft.wanted_BK)

        values_BQ, confidence_BQ, accepted_BQ = verify(proposal, draft, canvas.seeds_B, slots)
        # The accepted drafts and one slot more.
        count_B1 = accepted_BQ.sum(dim=1, keepdim=True)
        keep_BQ = valid_BQ & (torch.arange(slots.shape[1], device=canvas.device) <= count_B1)
        if options.stop_ids:
            hit_BQ = keep_BQ & torch.isin(values_BQ, stop)
            keep_BQ = keep_BQ & (hit_BQ.cumsum(dim=1) - hit_BQ.long() == 0)
            canvas.stop_at(slots, hit_BQ)
        canvas.commit(slots, values_BQ, confidence_BQ, keep_BQ)
        yield Event(
            forward=forward,
            step=forward,
            refinement=0,
            slots_BQ=slots,
            values=torch.where(keep_BQ, values_BQ, _widen(draft.values_BK)),
            confidence_BQ=confidence_BQ,
            kept_BQ=keep_BQ,
            rolled_back_BQ=_widen(draft.wanted_BK) & ~(keep_BQ & accepted_BQ),
            draft_forwards=drafts.forwards - drafted,
        )
        forward += 1
        front, left = _progress(canvas, front.slot_B + keep_BQ.sum(dim=1))


def verify(
    proposal: Proposal, draft: Draft, seeds_B: Tensor, slots_BQ: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Which drafts stand, and the target's value behind them.

    Args:
        proposal: the target's, for the drafted slots and one more.
        slots_BQ: those slots, for the noise.

    Returns:
        values [B, Q]: the accepted drafts, then the target's own value; the rest means nothing.
        confidence [B, Q]: the target's confidence in them.
        accepted [B, Q]: bool, the accepted drafts.
    """
    drafted = draft.values_BK.shape[1]
    if draft.mass_BKV is None:
        # A certain draft x has q(x) = 1. To sample y from p and accept if y = x is to accept with
        # p(x) and to sample from the rest of p otherwise; greedy decoding is the same with one y.
        match_BK = draft.wanted_BK & (proposal.values[:, :drafted] == draft.values_BK)
        return proposal.values, proposal.confidence_BQ, _widen(_prefix(match_BK))

    if proposal.logits_BQV is None:
        raise ValueError("speculative sampling needs a head with logits")
    p_BQV, q_BKV = proposal.logits_BQV.softmax(dim=-1), draft.mass_BKV
    if p_BQV.shape[-1] != q_BKV.shape[-1]:
        raise ValueError(
            f"the draft model has {q_BKV.shape[-1]} values, the target {p_BQV.shape[-1]}"
        )
    chosen = draft.values_BK[..., None]
    p_BK = p_BQV[:, :drafted].gather(-1, chosen).squeeze(-1)
    q_BK = q_BKV.gather(-1, chosen).squeeze(-1)
    u_BK = noise.uniform(seeds_B, slots_BQ[:, :drafted], ACCEPT_DRAW)
    # Accepted with probability min(1, p / q) (Leviathan, algorithm 1).
    accepted_BQ = _widen(_prefix(draft.wanted_BK & (u_BK * q_BK <= p_BK)))

    # The slot behind them: from norm(max(p - q, 0)) if its draft fell, from p if it had none.
    at_B1 = accepted_BQ.sum(dim=1, keepdim=True)
    p_BV = _row_of(p_BQV, at_B1)
    q_BV = _row_of(_widen(q_BKV * draft.wanted_BK[..., None]), at_B1)
    rest_BV = (p_BV - q_BV).clamp(min=0)
    # Equal distributions leave nothing; rounding alone can have refused such a draft.
    rest_BV = torch.where(rest_BV.sum(dim=-1, keepdim=True) > 0, rest_BV, p_BV)
    slot_B1 = slots_BQ.expand(at_B1.shape[0], -1).gather(1, at_B1)
    value_B1 = invert_cumulative(
        rest_BV[:, None].cumsum(dim=-1), noise.uniform(seeds_B, slot_B1, TARGET_DRAW)
    )
    values_BQ = _widen(draft.values_BK).scatter(1, at_B1, value_B1)
    return values_BQ, proposal.confidence_in(values_BQ), accepted_BQ


def _target(
    model: SequenceModel,
    hidden_BQD: Tensor,
    canvas: Canvas,
    slots_BQ: Tensor,
    draft: Draft,
    sampling: Sampling,
) -> Proposal:
    """What the target proposes, each slot as if the drafts before it, and no others, stood."""
    if not sampling.constraints and not sampling.filters:
        return model.head.propose(hidden_BQD, Request(canvas, slots_BQ, sampling, TARGET_DRAW))
    # Processors may look at the canvas, so it is filled up draft by draft, as when they were made.
    proposals = []
    for column in range(slots_BQ.shape[1]):
        span = slice(column, column + 1)
        request = Request(canvas, slots_BQ[:, span], sampling, TARGET_DRAW)
        proposal = model.head.propose(hidden_BQD[:, span], request)
        proposals.append(proposal)
        values, wanted = draft.values_BK[:, span], draft.wanted_BK[:, span]
        if values.shape[1]:
            canvas.commit(slots_BQ[:, span], values, proposal.confidence_BQ, wanted)
    return Proposal.join(proposals)


def _progress(canvas: Canvas, slot_B: Tensor) -> tuple[Front, int]:
    """The new front, and how many slots the emptiest row has left: the one host read of a pass."""
    left_B = (canvas.limit_B - slot_B).masked_fill(canvas.finished_B, 0)
    low, high, left = torch.stack([slot_B.amin(), slot_B.amax(), left_B.amax()]).tolist()
    return Front(slot_B, low, high), left


def _no_draft(canvas: Canvas) -> Draft:
    empty = canvas.values[:, :0]
    return Draft(empty, empty.bool())


def _prefix(accepted_BK: Tensor) -> Tensor:
    """Drafts before the first that fell."""
    return accepted_BK.long().cumprod(dim=1).bool()


def _widen(x_BK: Tensor) -> Tensor:
    """One more column of zeros: the slot behind the drafts."""
    return torch.cat([x_BK, x_BK.new_zeros(x_BK.shape[0], 1, *x_BK.shape[2:])], dim=1)


def _row_of(x_BQV: Tensor, at_B1: Tensor) -> Tensor:
    """Row `at` of each: [B, V]."""
    return x_BQV.gather(1, at_B1[..., None].expand(-1, -1, x_BQV.shape[-1])).squeeze(1)
