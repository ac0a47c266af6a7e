"""The invariants of speculative decoding, beam search and the attention backends.

`test_invariants.py` has the table of all invariants.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from random_models import (
    RASTER_MASKS,
    STOPS,
    Case,
    block_decoders,
    cases,
    examples,
    models,
    samplings,
)
from test_speculative import NEW, ROWS, SAMPLINGS, exact_distribution, p_value, tiny_model

from seqgen import kernels
from seqgen.attention import Backend
from seqgen.canvas import Canvas
from seqgen.decoders import Autoregressive, Beam, BlockDiffusion, Generated, Speculative
from seqgen.drafts import DraftModel, NgramLookup
from seqgen.heads.base import Proposal, Request
from seqgen.logits import GREEDY
from seqgen.model import SequenceModel

SHIFTED: Any = ("shifted", "headless")

pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")


def shifted_cases(**options: Any) -> st.SearchStrategy[Case]:
    return cases(SHIFTED, RASTER_MASKS, **options)


def run(decoder: Any, case: Case, rows: list[int] | None = None) -> Generated:
    context = case.context if rows is None else case.context_of(rows)
    result: Generated = decoder.generate(case.model, case.canvas(rows), context)
    return result


# Speculative decoding ---------------------------------------------------------------------------


@examples()
@given(case=shifted_cases(), K=st.integers(1, 6), sampling=samplings())
def test_a_draft_by_the_target_is_accepted_whole(case: Case, K: int, sampling: Any) -> None:
    """A round gives K drafts and one value more, until the emptiest row is full."""
    decoder = Speculative(draft=DraftModel(case.model), draft_length=K, sampling=sampling)
    canvas = case.canvas()
    room = canvas.limit_B - canvas.prompt_B
    for number, event in enumerate(decoder.stream(case.model, canvas, case.context)):
        kept_B = event.kept_BQ.sum(dim=1)
        left_B = (room - number * (K + 1)).clamp(min=0)
        assert torch.equal(kept_B, left_B.clamp(max=K + 1))
        assert event.rolled_back_BQ is not None
        assert not bool(event.rolled_back_BQ.any())


@st.composite
def speculations(draw: st.DrawFn, *, sampling: Any = GREEDY) -> tuple[Case, Speculative]:
    """A case, and drafts by lookup or by another model, good or bad."""
    case = draw(shifted_cases())
    draft: Any = NgramLookup(longest=draw(st.integers(1, 3)))
    if draw(st.booleans()):
        # The other model has no cross-attention, or attends to the same context.
        model, kind, width = draw(models(SHIFTED, RASTER_MASKS))
        fits = width == (0 if case.context is None else case.model.backbone.config.context_width)
        if fits and (kind == "shifted" or case.kind == "headless"):
            draft = DraftModel(model)
    return case, Speculative(
        draft=draft, draft_length=draw(st.integers(1, 6)), sampling=sampling, stop_ids=draw(STOPS)
    )


@examples()
@given(speculation=speculations())
def test_greedy_speculation_equals_autoregressive(speculation: tuple[Case, Speculative]) -> None:
    case, decoder = speculation
    plain = run(Autoregressive(stop_ids=decoder.stop_ids), case)
    done = run(decoder, case)
    assert done.sequences() == plain.sequences()
    assert done.finished_B.tolist() == plain.finished_B.tolist()
    assert done.forwards <= plain.forwards


@examples()
@given(speculation=speculations(), sampling=samplings(greedy=False))
def test_speculation_cached_uncached_batched_and_alone(
    speculation: tuple[Case, Speculative], sampling: Any
) -> None:
    case, decoder = speculation
    decoder = replace(decoder, sampling=sampling)
    done = run(decoder, case).sequences()
    assert run(replace(decoder, cached=False), case).sequences() == done
    for row in range(len(done)):
        assert run(decoder, case, [row]).sequences() == [done[row]]


@examples(0.2)
@given(
    target=st.integers(0, 99),
    other=st.integers(100, 199),
    K=st.integers(1, 3),
    sampling=st.sampled_from(list(SAMPLINGS.values())),
)
def test_speculative_samples_have_the_targets_distribution(
    target: int, other: int, K: int, sampling: Any
) -> None:
    """Chi-square over all sequences; one test in a million fails by chance."""
    model, bad = tiny_model(target), tiny_model(other)
    decoder = Speculative(draft=DraftModel(bad), draft_length=K, sampling=sampling)
    canvas = Canvas.tokens([[]] * ROWS, new=NEW, seeds=target * ROWS + torch.arange(ROWS))
    assert p_value(decoder.generate(model, canvas), exact_distribution(model, sampling)) > 1e-6


# Beam search ------------------------------------------------------------------------------------


def one_prompt_cases(kinds: Any = ("shifted", "headless", "masked")) -> st.SearchStrategy[Case]:
    return cases(kinds, RASTER_MASKS, ragged=False, inpaints=False)


@examples()
@given(case=one_prompt_cases(), stop_ids=STOPS, refill=st.booleans())
def test_one_beam_equals_greedy(case: Case, stop_ids: tuple[int, ...], refill: bool) -> None:
    greedy = run(Autoregressive(stop_ids=stop_ids), case)
    beam = run(Beam(beams=1, stop_ids=stop_ids, refill=refill), case)
    assert beam.sequences() == greedy.sequences()
    assert torch.equal(beam.finished_B, greedy.finished_B)


@examples()
@given(case=one_prompt_cases(), beams=st.integers(2, 5), stop_ids=STOPS)
def test_beams_cached_uncached_batched_and_alone(
    case: Case, beams: int, stop_ids: tuple[int, ...]
) -> None:
    decoder = Beam(beams=beams, stop_ids=stop_ids)
    done = run(decoder, case)
    assert run(replace(decoder, cached=False), case).sequences() == done.sequences()
    for row, sequence in enumerate(done.sequences()):
        assert run(decoder, case, [row]).sequences() == [sequence]
    known = case.canvas()
    assert torch.equal(done.values[:, : known.max_prompt], known.values[:, : known.max_prompt])


# Backends ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", [b for b in get_args(Backend) if b != "reference"])
def test_every_backend_equals_the_reference(backend: Backend) -> None:
    """The logits of whole decodes that commit the same values; in float32."""
    obstacle = kernels.obstacle(torch.device("cpu"))
    if backend == "triton" and obstacle is not None:
        pytest.skip(str(obstacle))

    # The interpreter is slow, and so is FlexAttention without a compiler.
    @examples(1 if backend in ("auto", "sdpa") else 0.25)
    @given(case=cases(batch=3, new=6, backend=backend), decoder=block_decoders(sampling=GREEDY))
    def check(case: Case, decoder: BlockDiffusion) -> None:
        case.model.float()
        if case.context is not None:
            case = replace(case, context=_float(case))
        decoder = replace(decoder, stop_ids=(), remasking="sequential")
        if case.kind in SHIFTED:
            decoder = replace(decoder, block_length=1)
        found = _forced(case, case.model, decoder)
        _choose(case.model, "reference")
        for ours, theirs in zip(found, _forced(case, case.model, decoder), strict=True):
            torch.testing.assert_close(ours, theirs, atol=3e-4, rtol=1e-3)

    check()


def _float(case: Case) -> Any:
    assert case.context is not None
    return replace(
        case.context,
        states_BTD=None if case.context.states_BTD is None else case.context.states_BTD.float(),
        given_BSD=None if case.context.given_BSD is None else case.context.given_BSD.float(),
    )


def _choose(model: SequenceModel, backend: Backend) -> None:
    for block in model.backbone.stack:
        block.attention.config = replace(block.attention.config, backend=backend)


def _forced(case: Case, model: SequenceModel, decoder: BlockDiffusion) -> list[torch.Tensor]:
    """The log-probabilities of every pass, of slots in use, committing the case's own values."""
    seen: list[torch.Tensor] = []
    own = model.head.propose

    def force(hidden_BQD: torch.Tensor, request: Request) -> Proposal:
        proposal = own(hidden_BQD, request)
        assert proposal.logits_BQV is not None
        slots = request.slots_BQ.expand(len(case.values), -1)
        used = slots < request.canvas.limit_B[:, None]
        used &= slots >= request.canvas.prompt_B[:, None]
        seen.append(proposal.logits_BQV.log_softmax(dim=-1) * used[..., None])
        return replace(proposal, values=case.values.gather(1, slots))

    model.head.propose = force  # type: ignore[method-assign]
    try:
        for _ in decoder.stream(model, case.canvas(), case.context):
            pass
    finally:
        model.head.propose = own  # type: ignore[method-assign]
    return seen
