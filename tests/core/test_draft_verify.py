"""Draft and verify: rows hold their draft or what the fallback decodes, whatever the others do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import (
    VOCABULARY,
    canvas_of,
    random_context,
    random_prompts,
    row_of,
    small_model,
)
from torch import Tensor

from seqgen.canvas import Canvas
from seqgen.decoders import Autoregressive, NonAutoregressive
from seqgen.decoders.base import Generated
from seqgen.decoders.beam import Beam
from seqgen.decoders.draft_verify import DraftAndVerify, DraftDecoder, Verified
from seqgen.decoders.hybrid import FirstPass, Hybrid
from seqgen.decoders.one_pass import OnePass
from seqgen.errors import InputError
from seqgen.events import Event
from seqgen.finalizers import GreedyCTC, PrefixBeamCTC
from seqgen.guidance import GuidedModel, guided_context
from seqgen.hypotheses import Hypotheses
from seqgen.logits import Ban, Sampling
from seqgen.model import Context, SequenceModel
from seqgen.rescoring import score_sequences
from seqgen.training.objectives import teacher_forcing

SEEDS = st.integers(0, 10_000)
quick = settings(max_examples=20, deadline=None)
STOP, BLANK = 0, VOCABULARY - 1
NO_STOP = Sampling(constraints=(Ban((STOP,)),))
SLOTS, ROOM = 6, 8
GREEDY_END = Autoregressive(stop_ids=(STOP,))
BEAM_END = Beam(beams=3, stop_ids=(STOP,))
INFINITY = float("inf")


def nar() -> SequenceModel:
    return small_model(seed=1, cross=True)


def ar(seed: int = 2) -> SequenceModel:
    return small_model(seed=seed, shifted=True, cross=True, sharpness=1.0)


def ctc_draft(beams: int = 0) -> DraftDecoder:
    finalizer = PrefixBeamCTC(blank=BLANK, beams=beams) if beams else GreedyCTC(blank=BLANK)
    decoder = OnePass(finalizer=finalizer, sampling=NO_STOP)
    return DraftDecoder(model=nar(), decoder=decoder, slots=SLOTS)


def drafts_of(batch: int, context: Context | None, beams: int = 0) -> list[list[list[int]]]:
    draft = ctc_draft(beams)
    assert draft.slots is not None
    canvas = canvas_of([[]] * batch, draft.slots)
    found = draft.decoder.generate(draft.model, canvas, context).hypotheses
    assert found is not None
    return [found.sequences(row) for row in range(batch)]


def verifier(fallback: Any = GREEDY_END, **options: Any) -> DraftAndVerify:
    return DraftAndVerify(
        **{"draft": ctc_draft(), "fallback": lambda rows: fallback, "stop_id": STOP, **options}
    )


def run(decoder: Any, batch: int, context: Context | None, room: int = ROOM) -> Any:
    return decoder.generate(ar(), canvas_of([[]] * batch, room), context)


def mean_log_p(ids: list[int], context: Context | None) -> float:
    with torch.no_grad():
        return -teacher_forcing(ar(), torch.tensor([ids]), context=context).item()


# --- scoring ------------------------------------------------------------------------------------


@quick
@given(SEEDS, st.integers(1, 3), st.booleans())
def test_scores_are_the_confidences_of_decoding(seed: int, batch: int, ragged: bool) -> None:
    model, context = ar(seed % 7), random_context(seed, batch, ragged=ragged)
    prompts = random_prompts(seed, [seed % 3] * batch)
    found = Beam(beams=3, stop_ids=(STOP,)).generate(model, canvas_of(prompts, 5), context)
    assert found.hypotheses is not None
    slots_S = torch.arange(found.hypotheses.values_BNS.shape[-1])
    behind = slots_S >= found.hypotheses.length_BN[..., None]
    values_BNS = found.hypotheses.values_BNS.masked_fill(behind, -1)  # means nothing
    log_p_BNS = score_sequences(model, replace(found.hypotheses, values_BNS=values_BNS), context)
    new = slots_S >= len(prompts[0])
    new = new & (slots_S < found.hypotheses.length_BN[..., None])
    expected = found.hypotheses.confidence_BNS.log()
    torch.testing.assert_close(log_p_BNS[new], expected[new], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        (log_p_BNS * new).sum(-1), found.hypotheses.score_BN, atol=1e-4, rtol=1e-4
    )
    assert (log_p_BNS[behind] == 0).all()


def test_scores_without_a_start_token_begin_behind_the_first_value() -> None:
    model = small_model(seed=2, shifted=True, sharpness=1.0)
    found = Autoregressive().generate(model, canvas_of([[3, 4]], 4))
    inputs: Any = model.inputs
    inputs.start_id, inputs.first_slot = None, 1
    again = Autoregressive().generate(model, canvas_of([[3, 4]], 4))
    ones = torch.ones(1, 1)
    hypotheses = Hypotheses(
        again.values[:, None], again.length_B[:, None], ones, again.confidence_BS[:, None], ones > 0
    )
    log_p = score_sequences(model, hypotheses, None)[0, 0]
    assert log_p[0] == 0
    torch.testing.assert_close(log_p[2:], again.confidence_BS[0, 2:].log(), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(again.confidence_BS, found.confidence_BS)


def test_what_cannot_be_scored_in_one_pass() -> None:
    ones = torch.ones(1, 1)
    hypotheses = Hypotheses(
        torch.ones(1, 1, 2, dtype=torch.int64), ones.long(), ones, torch.ones(1, 1, 2), ones > 0
    )
    with pytest.raises(ValueError, match="shifted inputs, not MaskedInputs"):
        score_sequences(small_model(), hypotheses, None)


# --- accepting ----------------------------------------------------------------------------------


def test_threshold_zero_accepts_every_draft() -> None:
    context = random_context(5, 4, ragged=True)
    result = run(verifier(threshold=0.0), 4, context)
    expected = [best[0] for best in drafts_of(4, context)]
    assert result.sequences() == [[*ids, STOP] for ids in expected]
    assert result.accepted_B.all()
    assert result.finished_B.all()
    assert (result.forwards, result.draft_forwards) == (1, 1)
    assert [result.hypotheses.sequences(b)[0] for b in range(4)] == result.sequences()
    for b, ids in enumerate(result.sequences()):
        sum_log_p = result.confidence_BS[b, : len(ids)].log().sum().item()
        assert sum_log_p == pytest.approx(len(ids) * mean_log_p(ids, row_of(context, b)), rel=1e-3)
        assert result.hypotheses.score_BN[b, 0].item() == pytest.approx(sum_log_p, rel=1e-3)


@pytest.mark.parametrize("fallback", [GREEDY_END, BEAM_END])
def test_threshold_infinity_is_the_fallback_alone(fallback: Any) -> None:
    context = random_context(5, 4, ragged=True)
    result = run(verifier(fallback, threshold=INFINITY), 4, context)
    expected = run(fallback, 4, context)
    assert not result.accepted_B.any()
    assert (result.forwards, result.draft_forwards) == (expected.forwards + 1, 1)
    for name in ("values", "confidence_BS", "length_B", "finished_B"):
        torch.testing.assert_close(getattr(result, name), getattr(expected, name))
    if expected.hypotheses is not None:
        for row in range(4):
            assert result.hypotheses.sequences(row) == expected.hypotheses.sequences(row)
        torch.testing.assert_close(result.hypotheses.score_BN, expected.hypotheses.score_BN)


@pytest.mark.parametrize("measure", ["mean", "least"])
@pytest.mark.parametrize("fallback", [GREEDY_END, BEAM_END])
def test_some_rows_hold_their_draft_and_the_others_are_decoded(measure: Any, fallback: Any) -> None:
    batch = 6
    context = random_context(7, batch, ragged=True)
    drafts = [[*best[0], STOP] for best in drafts_of(batch, context)]
    scored = run(verifier(threshold=0.0), batch, context)
    measures = []
    for b, ids in enumerate(drafts):
        confidence = scored.confidence_BS[b, : len(ids)]
        measures.append(
            float(confidence.log().mean().exp() if measure == "mean" else confidence.min())
        )
    threshold = sum(sorted(measures)[2:4]) / 2
    result = run(verifier(fallback, threshold=threshold, measure=measure), batch, context)
    alone = run(fallback, batch, context)
    assert result.accepted_B.tolist() == [m >= threshold for m in measures]
    assert int(result.accepted_B.sum()) == 3
    assert result.forwards > 1
    for b in range(batch):
        expected = drafts[b] if result.accepted_B[b] else alone.sequences()[b]
        assert result.sequences()[b] == expected
        assert result.hypotheses.sequences(b)[0] == expected
        answers = 1 if result.accepted_B[b] else getattr(fallback, "beams", 1)
        assert len(result.hypotheses.sequences(b)) == answers
        source = scored if result.accepted_B[b] else alone
        n = len(expected)
        torch.testing.assert_close(
            result.confidence_BS[b, :n], source.confidence_BS[b, :n], atol=1e-5, rtol=1e-4
        )


@quick
@given(
    seed=SEEDS,
    sizes=st.lists(st.integers(0, 3), min_size=1, max_size=4),
    threshold=st.sampled_from([0.0, 0.02, 0.05, 0.1]),
)
def test_a_batch_row_equals_the_row_alone(seed: int, sizes: list[int], threshold: float) -> None:
    """With prompts of different lengths, drafted by mask-predict on a copy of the canvas."""
    prompts, context = random_prompts(seed, sizes), random_context(seed, len(sizes), ragged=True)
    draft = DraftDecoder(model=nar(), decoder=NonAutoregressive(steps=2))
    decoder = verifier(draft=draft, threshold=threshold, stop_id=None)
    batch = decoder.generate(ar(), canvas_of(prompts, 5), context)
    for row, prompt in enumerate(prompts):
        alone = decoder.generate(ar(), canvas_of([prompt], 5), row_of(context, row))
        assert batch.sequences()[row] == alone.sequences()[0]
        assert batch.values[row, : len(prompt)].tolist() == prompt
        assert batch.accepted_B is not None
        assert alone.accepted_B is not None
        assert batch.accepted_B[row] == alone.accepted_B[0]


def test_prompts_are_neither_scored_nor_written() -> None:
    prompts, context = [[STOP, 3], [4, STOP]], random_context(1, 2)
    draft = DraftDecoder(model=nar(), decoder=NonAutoregressive(sampling=NO_STOP))
    seen: list[Event] = []
    decoder = verifier(draft=draft, threshold=0.0, stop_id=STOP)
    canvas = Canvas(torch.zeros(2, 6, dtype=torch.int64), prompt=2)
    canvas.values[:, :2] = torch.tensor(prompts)
    # The draft fills the canvas it is given, so it is made on a shorter one.
    short = Canvas(canvas.values[:, :5].clone(), prompt=2)
    drafted = draft.decoder.generate(draft.model, short, context)

    class Given:
        def generate(self, model: Any, canvas: Canvas, context: Any) -> Generated:
            return drafted

    decoder = replace(decoder, draft=replace(draft, decoder=Given()))  # type: ignore[arg-type]
    result = decoder.generate(ar(), canvas, context, on_event=seen.append)
    assert result.hypotheses is not None
    assert result.accepted_B is not None
    assert result.accepted_B.all()
    assert result.sequences() == [[*ids, STOP] for ids in drafted.sequences()]
    assert result.values[:, :2].tolist() == prompts
    assert (result.confidence_BS[:, :2] == 1).all()
    assert (result.hypotheses.confidence_BNS[..., :2] == 1).all()
    torch.testing.assert_close(
        result.hypotheses.score_BN[:, 0], result.confidence_BS[:, 2:].log().sum(dim=1)
    )
    assert seen[0].kept_BQ.tolist() == [[False] * 2 + [True] * 4] * 2
    # The mean is over the new values alone.
    means = result.confidence_BS[:, 2:].log().mean(dim=1).exp()
    for shift, accepted in ((-1e-4, True), (1e-4, False)):
        threshold = float(means.min()) + shift
        canvas = Canvas(canvas.values, prompt=2)
        again = replace(decoder, threshold=threshold).generate(ar(), canvas, context)
        assert again.accepted_B is not None
        assert bool(again.accepted_B[means.argmin()]) == accepted


def test_the_best_of_several_drafts_by_the_model_is_taken() -> None:
    batch, beams = 3, 4
    context = random_context(7, batch)
    result = run(verifier(draft=ctc_draft(beams), drafts=3, threshold=0.0), batch, context)
    agreeing = 0
    for b, drafts in enumerate(drafts_of(batch, context, beams)):
        scores = {
            tuple(ids): (len(ids) + 1) * mean_log_p([*ids, STOP], row_of(context, b))
            for ids in drafts[:3]
        }
        expected = sorted(scores, key=lambda ids: -scores[ids])
        assert result.hypotheses.sequences(b) == [[*ids, STOP] for ids in expected]
        assert result.sequences()[b] == [*expected[0], STOP]
        agreeing += expected[0] == tuple(drafts[0])
    assert agreeing < batch, "the drafts' own order never differs: the test shows nothing"


def test_what_fits_is_asked_of_the_drafts() -> None:
    batch = 3
    context = random_context(7, batch)
    seen: list[tuple[Tensor, Tensor]] = []

    def last_only(values_BNS: Tensor, length_BN: Tensor) -> Tensor:
        seen.append((values_BNS, length_BN))
        fits = torch.zeros_like(length_BN, dtype=torch.bool)
        fits[0, 1] = True
        return fits

    drafts = drafts_of(batch, context, 4)
    fallback = Beam(beams=2, stop_ids=(STOP,))
    options = {"draft": ctc_draft(4), "drafts": 2, "threshold": 0.0, "fits": last_only}
    result = run(verifier(fallback, **options), batch, context)
    assert result.accepted_B.tolist() == [True, False, False]
    assert result.sequences()[0] == [*drafts[0][1], STOP]
    assert result.hypotheses.sequences(0) == [[*drafts[0][1], STOP]]
    assert result.sequences()[1:] == run(fallback, batch, context).sequences()[1:]
    values, length = seen[0]
    assert values[0, 0, : length[0, 0]].tolist() == drafts[0][0]  # without the stop value


def fixed(rows: list[list[int]], scores: list[float] | None = None) -> Any:
    """A draft of given sequences."""

    class Fixed:
        def generate(self, model: Any, canvas: Canvas, context: Any) -> Generated:
            width = max(len(ids) for ids in rows)
            values = torch.zeros(len(rows), 1, max(width, 1), dtype=torch.int64)
            for b, ids in enumerate(rows):
                values[b, 0, : len(ids)] = torch.tensor(ids, dtype=torch.int64)
            length = torch.tensor([[len(ids)] for ids in rows])
            score = torch.zeros(len(rows), 1) if scores is None else torch.tensor(scores)[:, None]
            hypotheses = Hypotheses(
                values, length, score, torch.ones(values.shape), score > -INFINITY
            )
            empty = values[:, 0]
            return Generated(
                empty, empty.float(), length[:, 0], length[:, 0], length[:, 0] > 0, 1, 0, hypotheses
            )

    return DraftDecoder(model=nar(), decoder=Fixed(), slots=1)  # type: ignore[arg-type]


def test_drafts_that_cannot_stand_are_never_accepted() -> None:
    cases = {
        "room for the stop value": ([1, 2, 3], True),
        "no room for it": ([1, 2, 3, 4], False),
        "has it, and room": ([1, 2, 3, STOP], True),
        "longer than the canvas": ([1, 2, 3, 4, 5, 6, 7], False),
        "goes on behind it": ([1, STOP, 2], False),
        "nothing but the stop value": ([], True),
        "no answer": ([1], False),
    }
    rows = [ids for ids, _ in cases.values()]
    scores = [-INFINITY if name == "no answer" else 0.0 for name in cases]
    context = random_context(1, len(rows))

    def all_fit(values_BNS: Tensor, length_BN: Tensor) -> Tensor:
        return torch.ones_like(length_BN, dtype=torch.bool)

    decoder = verifier(draft=fixed(rows, scores), threshold=0.0, fits=all_fit)
    result = run(decoder, len(rows), context, room=4)
    alone = run(GREEDY_END, len(rows), context, room=4)
    assert result.accepted_B.tolist() == [fine for _, fine in cases.values()]
    for b, (ids, fine) in enumerate(cases.values()):
        own = [*ids, STOP] if ids[-1:] != [STOP] else ids
        assert result.sequences()[b] == (own if fine else alone.sequences()[b])
    # Without a stop value an empty draft says nothing, and four values have room.
    decoder = verifier(Autoregressive(), draft=fixed(rows, scores), threshold=0.0, stop_id=None)
    result = run(decoder, len(rows), context, room=4)
    assert result.accepted_B.tolist() == [True, True, True, False, True, False, False]
    plain = run(Autoregressive(), len(rows), context, room=4).sequences()
    accepted = result.accepted_B.tolist()
    for b, ids in enumerate(rows):
        assert result.sequences()[b] == (ids if accepted[b] else plain[b])


def test_rows_with_less_room_than_others() -> None:
    canvas = Canvas(torch.zeros(2, 5, dtype=torch.int64), length=[5, 3])
    decoder = verifier(draft=fixed([[1, 2, 3], [1, 2, 3]]), threshold=0.0)
    result = decoder.generate(ar(), canvas, random_context(0, 2))
    assert result.accepted_B is not None
    assert result.accepted_B.tolist() == [True, False]
    assert result.length_B[1] <= 3


# --- the seams ----------------------------------------------------------------------------------


def test_the_fallback_is_made_for_the_rejected_rows() -> None:
    context = random_context(7, 4)
    asked: list[list[int]] = []

    def fallback(rows: Tensor) -> Any:
        asked.append(rows.tolist())
        return GREEDY_END

    def odd(values_BNS: Tensor, length_BN: Tensor) -> Tensor:
        return torch.tensor([[False], [True], [False], [True]])

    decoder = replace(verifier(fits=odd, threshold=0.0), fallback=fallback)
    result = run(decoder, 4, context)
    assert asked == [[0, 2]]
    assert result.accepted_B.tolist() == [False, True, False, True]
    run(replace(decoder, fits=None), 4, context)
    assert asked == [[0, 2]], "no fallback is made where every draft stands"


@pytest.mark.parametrize("fallback", [GREEDY_END, BEAM_END])
def test_events_speak_of_all_rows_and_add_up_to_the_canvas(fallback: Any) -> None:
    def odd(values_BNS: Tensor, length_BN: Tensor) -> Tensor:
        return torch.tensor([[False], [True], [False], [True]])

    context, decoder = random_context(7, 4), verifier(fallback, fits=odd, threshold=0.0)
    seen: list[Event] = []
    canvas = canvas_of([[]] * 4, ROOM)
    result = decoder.generate(ar(), canvas, context, on_event=seen.append)
    streamed = list(decoder.stream(ar(), canvas_of([[]] * 4, ROOM), context))
    assert [e.to_json() for e in streamed] == [e.to_json() for e in seen]
    assert sum(e.draft_forwards for e in seen) == 1
    check_replay(seen, result)


def test_a_fallback_that_stops_rows_says_so_on_the_canvas() -> None:
    """Even where drafts end without a stop value, so that the verifier itself stops no row."""
    decoder = verifier(threshold=INFINITY, stop_id=None, fallback=GREEDY_END)
    canvas = canvas_of([[]] * 4, 30)
    decoder.generate(ar(), canvas, random_context(3, 4))
    assert canvas.finished_B.any()
    assert canvas.may_have_stopped


def test_events_of_rows_with_prompts_of_different_lengths() -> None:
    draft = DraftDecoder(model=nar(), decoder=NonAutoregressive())

    def first(values_BNS: Tensor, length_BN: Tensor) -> Tensor:
        return torch.tensor([[True], [False], [False]])

    seen: list[Event] = []
    decoder = verifier(Autoregressive(), draft=draft, fits=first, threshold=0.0, stop_id=None)
    prompts = random_prompts(0, [1, 3, 2])
    canvas = canvas_of(prompts, 4)
    result = decoder.generate(ar(), canvas, random_context(2, 3), on_event=seen.append)
    assert result.accepted_B is not None
    assert result.accepted_B.tolist() == [True, False, False]
    check_replay(seen, result)


def check_replay(events: list[Event], result: Generated) -> None:
    """What the events keep is what the canvas holds behind the prompts."""
    replayed = torch.zeros_like(result.values)
    for event in events:
        slots = event.slots_BQ.expand(len(replayed), -1)
        kept = event.values.where(event.kept_BQ, replayed.gather(1, slots))
        replayed.scatter_(1, slots, kept)
    spans = zip(result.prompt_B.tolist(), result.length_B.tolist(), strict=True)
    for b, (begin, end) in enumerate(spans):
        assert replayed[b, begin:end].tolist() == result.values[b, begin:end].tolist()
        assert end > begin


def test_inside_a_hybrid_drafts_keep_their_own_context() -> None:
    """The model attends to the memory, the draft to the encoder; both are told in the result."""
    context = random_context(7, 4)
    draft = replace(ctc_draft(), context=context)
    first = FirstPass(model=nar(), slots=SLOTS)
    decoder = Hybrid(first=first, second=verifier(draft=draft, threshold=0.0))
    result = run(decoder, 4, context)
    assert isinstance(result, Verified)
    assert result.accepted_B is not None
    assert result.accepted_B.all()
    assert result.sequences() == [[*best[0], STOP] for best in drafts_of(4, context)]
    assert (result.forwards, result.draft_forwards) == (1, 2)
    plain = run(verifier(threshold=0.0), 4, context)
    assert not torch.allclose(result.confidence_BS, plain.confidence_BS, atol=1e-3)


def test_a_guided_model_verifies_and_decodes_with_both_branches() -> None:
    own, other = random_context(7, 3), random_context(8, 3)
    both = guided_context(own, other)
    draft = replace(ctc_draft(4), context=own)
    guided = GuidedModel(ar(), scale=1.5)
    fallback = GREEDY_END

    def middle(values_BNS: Tensor, length_BN: Tensor) -> Tensor:
        return torch.tensor([[False], [True], [False]]).expand_as(length_BN)

    decoder = verifier(fallback, draft=draft, drafts=2, fits=middle, threshold=0.0)
    result = decoder.generate(guided, canvas_of([[]] * 3, ROOM), both)
    alone = fallback.generate(guided, canvas_of([[]] * 3, ROOM), both)
    assert result.sequences()[0] == alone.sequences()[0]
    assert result.sequences()[2] == alone.sequences()[2]
    # The confidences of the accepted row are those that decoding gives the same values.
    ids = result.sequences()[1]
    row = guided_context(*(replace(c, states_BTD=c.states_BTD[1:2]) for c in (own, other)))  # type: ignore[index]
    scored = step_by_step(guided, ids, row)
    torch.testing.assert_close(result.confidence_BS[1, : len(ids)], scored, atol=1e-4, rtol=1e-3)


def step_by_step(model: GuidedModel, ids: list[int], row: Context) -> Tensor:
    """Probability of each value, from the model's logits at the end of each prefix."""
    out = []
    for n in range(len(ids)):
        proposals: list[Tensor] = []

        def keep(logits: Tensor, canvas: Canvas, slots: Tensor) -> Tensor:
            proposals.append(logits)  # noqa: B023
            return logits

        Autoregressive(sampling=Sampling(constraints=(keep,))).generate(
            model, canvas_of([ids[:n]], 1), row
        )
        out.append(proposals[-1][0, -1].softmax(dim=-1)[ids[n]])
    return torch.stack(out)


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="threshold"):
        verifier(threshold=float("nan"))
    with pytest.raises(ValueError, match="drafts"):
        verifier(drafts=0)
    with pytest.raises(ValueError, match="knows no prompt"):
        verifier().generate(ar(), canvas_of([[3]], 4), random_context(0, 1))
    known = torch.tensor([[False, True, False]])
    with pytest.raises(ValueError, match="known slots"):
        verifier().generate(
            ar(), Canvas(torch.zeros(1, 3, dtype=torch.int64), given=known), random_context(0, 1)
        )
    masked = small_model(cross=True)
    with pytest.raises(ValueError, match="shifted inputs"):
        verifier().generate(masked, canvas_of([[]], 4), random_context(0, 1))
    headless: Any = small_model(shifted=True, cross=True)
    headless.inputs.first_slot = 1
    with pytest.raises(InputError, match="prompt is empty"):
        verifier().generate(headless, canvas_of([[]], 4), random_context(0, 1))
