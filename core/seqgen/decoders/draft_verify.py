"""Draft and verify: a cheap draft of the whole sequence, which one pass of the model may accept.

Speculative decoding verifies value by value; this takes or leaves a sequence. A draft (of CTC, say)
is scored by the model in one teacher-forced pass; rows whose draft passes the test are done, and
only the others are decoded.

    decoder = DraftAndVerify(
        draft=DraftDecoder(model=nar, decoder=OnePass(finalizer=GreedyCTC(blank=0)), slots=40),
        threshold=0.9,
        stop_id=stop,
        fallback=lambda rows: Beam(beams=5, stop_ids=(stop,)),
    )
    generated = decoder.generate(ar, canvas, context)

Shapes: B rows, N drafts a row, R = B * N, S slots, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from seqgen.beams import rows_of, rows_of_canvas, rows_of_every_branch
from seqgen.canvas import COMMITTED, Canvas
from seqgen.decoders.base import Decoder, Generated, StreamDecoder, drain
from seqgen.decoders.inner import changed, merged, of_all_rows, only_answer
from seqgen.events import Event
from seqgen.finalizers import ranked
from seqgen.hypotheses import Hypotheses
from seqgen.inputs import require_prompt
from seqgen.logits import NEVER
from seqgen.model import Context, SequenceModel
from seqgen.rescoring import score_sequences


@dataclass(frozen=True, kw_only=True)
class DraftAndVerify(StreamDecoder):
    """Accept a draft of the whole sequence, or decode.

    Accepted rows hold the draft, with the model's probabilities as confidences; their hypotheses
    are the accepted drafts by the sum of the values' log-probabilities, as `Beam` ranks. A draft
    that the model thinks impossible, that does not fit into its row or that is empty is never
    accepted. The first event is the verifying pass: it keeps the values of accepted rows.

    Attributes:
        draft: where drafts come from.
        fallback: makes the decoder of the rejected rows from their indices int64 [B'], for decoders
            that hold something of every row (a constraint); they are a batch of their own.
        threshold: the least `measure` of an accepted draft: a probability. 0 accepts what it can,
            infinity nothing.
        measure: the geometric `mean` of the values' probabilities, or the `least` of them.
        fits: a further condition (the mass fits): from the drafts' ids [B, N, S] and lengths
            [B, N], as the draft's decoder gave them, to bool [B, N].
        drafts: how many of the best drafts of a row are scored, in the same pass.
        stop_id: the value that ends a row; put behind drafts that lack it. None for sequences
            without one.
    """

    draft: DraftDecoder
    fallback: Callable[[Tensor], Decoder]
    threshold: float = 0.9
    measure: Literal["mean", "least"] = "mean"
    fits: Callable[[Tensor, Tensor], Tensor] | None = None
    drafts: int = 1
    stop_id: int | None = None

    def __post_init__(self) -> None:
        if not self.threshold >= 0:
            raise ValueError(f"threshold must be 0 or more, not {self.threshold}")
        if self.drafts < 1:
            raise ValueError(f"drafts must be at least 1, not {self.drafts}")

    @torch.inference_mode()
    def stream(
        self, model: SequenceModel, canvas: Canvas, context: Context | None = None
    ) -> Generator[Event, None, Hypotheses]:
        """Decode `canvas` in place; yields the verifying pass, then the fallback's events."""
        require_prompt(model.inputs, canvas, "the model that verifies")
        if canvas.has_given:
            raise ValueError("drafts are verified behind prompts, not around known slots")
        drafted = self.draft(canvas, context)
        verified = self._verify(model, canvas, context, _best(drafted, self.drafts))
        accepted_B = verified.score_BN[:, 0] > NEVER
        kept_BS = _commit(canvas, verified, accepted_B, stopped=self.stop_id is not None)
        yield Event(
            forward=0,
            step=0,
            refinement=0,
            slots_BQ=torch.arange(canvas.slots, device=canvas.device)[None],
            values=verified.values_BNS[:, 0],
            confidence_BQ=verified.confidence_BNS[:, 0],
            kept_BQ=kept_BS,
            draft_forwards=drafted.forwards + drafted.draft_forwards,
        )
        # A host read: how many rows are left.
        rejected = (~accepted_B).nonzero().squeeze(1)
        if rejected.numel() == 0:
            return verified

        rows, size = canvas.batch, canvas.batch * model.branches
        part = rows_of_canvas(canvas, rejected)
        own = rows_of(context, rows_of_every_branch(rejected, rows, model.branches), size)
        found = yield from changed(
            self.fallback(rejected).stream(model, part, own),
            lambda _, event: of_all_rows(event, rejected, rows, after=1),
        )
        for name in ("values", "state_BS", "confidence_BS", "length_B"):
            getattr(canvas, name)[rejected] = getattr(part, name)
        canvas.finished_B = canvas.finished_B.index_copy(0, rejected, part.finished_B)
        return merged(verified, found or only_answer(part), rejected)

    def generate(
        self,
        model: SequenceModel,
        canvas: Canvas,
        context: Context | None = None,
        *,
        on_event: Callable[[Event], None] | None = None,
    ) -> Verified:
        """Decode `canvas` in place."""
        accepted: list[Tensor] = []

        def seen(event: Event) -> None:
            if not accepted:
                accepted.append(event.kept_BQ.any(dim=1))
            if on_event is not None:
                on_event(event)

        generated = drain(self.stream(model, canvas, context), canvas, seen)
        return Verified(**vars(generated), accepted_B=accepted[0])

    def _verify(
        self, model: SequenceModel, canvas: Canvas, context: Context | None, drafts: Hypotheses
    ) -> Hypotheses:
        """The drafts by falling score; -inf: not accepted."""
        accepted_BN = drafts.finished_BN & (drafts.score_BN > NEVER)
        if self.fits is not None:
            accepted_BN = accepted_BN & self.fits(drafts.values_BNS, drafts.length_BN)
        drafts, room_BN = _in_canvas(drafts, canvas, self.stop_id)
        log_p_BNS = score_sequences(model, drafts, context)
        slots_S = torch.arange(canvas.slots, device=canvas.device)
        new_BNS = slots_S >= canvas.prompt_B[:, None, None]
        new_BNS = new_BNS & (slots_S < drafts.length_BN[..., None])
        count_BN = new_BNS.sum(dim=-1)
        score_BN = log_p_BNS.where(new_BNS, 0.0).sum(dim=-1)
        if self.measure == "mean":
            measured_BN = (score_BN / count_BN.clamp(min=1)).exp()
        else:
            measured_BN = log_p_BNS.where(new_BNS, 0.0).amin(dim=-1).exp()
        accepted_BN = accepted_BN & room_BN & (count_BN > 0) & (measured_BN >= self.threshold)
        drafts = replace(
            drafts, confidence_BNS=log_p_BNS.exp().where(new_BNS, 1.0), finished_BN=accepted_BN
        )
        return ranked(drafts, score_BN.masked_fill(~accepted_BN, NEVER))


@dataclass(frozen=True)
class Verified(Generated):
    """What `DraftAndVerify` decoded.

    Attributes:
        accepted_B: bool, rows that hold their draft; the fallback decoded the others.
    """

    accepted_B: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class DraftDecoder:
    """Drafts from a decoder of another model, of the same values.

    Attributes:
        model: the draft model.
        decoder: how it decodes.
        slots: slots of its canvas, without a prompt. None: a copy of the canvas that is decoded.
        context: what it is conditioned on; the verifying model's context if None.
    """

    model: SequenceModel
    decoder: Decoder
    slots: int | None = None
    context: Context | None = None

    def __call__(self, canvas: Canvas, context: Context | None) -> Generated:
        """Draft for every row; the canvas is left as it is."""
        if self.slots is None:
            everything = torch.arange(canvas.batch, device=canvas.device)
            own = rows_of_canvas(canvas, everything)
        elif canvas.max_prompt > 0:
            raise ValueError("a draft on a canvas of its own knows no prompt: leave slots out")
        else:
            shape = (canvas.batch, self.slots)
            values_BS = torch.zeros(shape, dtype=torch.int64, device=canvas.device)
            own = Canvas(values_BS, seeds=canvas.seeds_B)
        context = context if self.context is None else self.context
        return self.decoder.generate(self.model, own, context)


def _best(drafted: Generated, count: int) -> Hypotheses:
    """The best few drafts of every row."""
    all_of = drafted.hypotheses
    if all_of is None:
        all_of = Hypotheses(
            values_BNS=drafted.values[:, None],
            length_BN=drafted.length_B[:, None],
            score_BN=torch.zeros_like(drafted.confidence_BS[:, :1]),
            confidence_BNS=drafted.confidence_BS[:, None],
            finished_BN=torch.ones_like(drafted.finished_B[:, None]),
        )
    return Hypotheses(
        all_of.values_BNS[:, :count],
        all_of.length_BN[:, :count],
        all_of.score_BN[:, :count],
        all_of.confidence_BNS[:, :count],
        all_of.finished_BN[:, :count],
    )


def _in_canvas(
    drafts: Hypotheses, canvas: Canvas, stop_id: int | None
) -> tuple[Hypotheses, Tensor]:
    """Drafts with as many slots as the canvas, stop value included, and which have room in it."""
    width, slots = drafts.values_BNS.shape[-1], canvas.slots
    values_BNS, length_BN = drafts.values_BNS, drafts.length_BN
    room_BN = length_BN <= canvas.limit_B[:, None]
    if stop_id is not None:
        slots_S = torch.arange(width, device=canvas.device)
        stops_BNS = (values_BNS == stop_id) & (slots_S < length_BN[..., None])
        stops_BNS = stops_BNS & (slots_S >= canvas.prompt_B[:, None, None])
        stopped_BN = (stops_BNS & (slots_S == length_BN[..., None] - 1)).any(dim=-1)
        # A row would have ended with a stop value further ahead.
        room_BN = room_BN & (stops_BNS.sum(dim=-1) == stopped_BN)
        # What lies behind a draft that has its stop value already is not in use.
        values_BNS = F.pad(values_BNS, (0, 1)).scatter(-1, length_BN[..., None], stop_id)
        length_BN = length_BN + ~stopped_BN
        room_BN = room_BN & (length_BN <= canvas.limit_B[:, None])
    # A negative padding cuts; what is cut has no room.
    values_BNS = F.pad(values_BNS, (0, slots - values_BNS.shape[-1]))
    length_BN = length_BN.clamp(max=slots)
    return replace(drafts, values_BNS=values_BNS, length_BN=length_BN), room_BN


def _commit(canvas: Canvas, verified: Hypotheses, accepted_B: Tensor, *, stopped: bool) -> Tensor:
    """Write the best draft of accepted rows; returns the slots written, bool [B, S]."""
    length_B = verified.length_BN[:, 0]
    slots_S = torch.arange(canvas.slots, device=canvas.device)
    kept_BS = (slots_S >= canvas.prompt_B[:, None]) & (slots_S < length_B[:, None])
    kept_BS = kept_BS & accepted_B[:, None]
    canvas.values.copy_(verified.values_BNS[:, 0].where(kept_BS, canvas.values))
    canvas.confidence_BS.copy_(verified.confidence_BNS[:, 0].where(kept_BS, canvas.confidence_BS))
    canvas.state_BS.masked_fill_(kept_BS, COMMITTED)
    canvas.length_B = length_B.where(accepted_B, canvas.length_B)
    if stopped:
        canvas.finished_B = canvas.finished_B | accepted_B
    return kept_BS
