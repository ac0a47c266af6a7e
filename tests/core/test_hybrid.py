"""The hybrid decoder, its memory, and the parts of its two-stage training."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import (
    VOCABULARY,
    WIDTH,
    canvas_of,
    random_context,
    random_prompts,
    row_of,
    small_model,
)
from torch import Tensor, nn

from seqgen.canvas import Canvas
from seqgen.ctc import ctc_loss
from seqgen.decoders import Autoregressive, Speculative
from seqgen.decoders.beam import Beam
from seqgen.decoders.hybrid import ConcatenatedMemory, FirstPass, Hybrid
from seqgen.decoders.one_pass import whole_pass
from seqgen.drafts import NgramLookup
from seqgen.events import Event
from seqgen.guidance import GuidedModel
from seqgen.model import Context, SequenceModel
from seqgen.training.hybrid import annealed, freeze, hybrid_context, joint_loss
from seqgen.training.objectives import teacher_forcing

SEEDS = st.integers(0, 10_000)
quick = settings(max_examples=20, deadline=None)
SLOTS = 5
SECOND = [
    Autoregressive(stop_ids=(0,)),
    Beam(beams=3, stop_ids=(0,)),
    Speculative(draft=NgramLookup(), stop_ids=(0,)),
]


def nar(seed: int = 1) -> SequenceModel:
    return small_model(seed=seed, cross=True)


def ar(seed: int = 2) -> SequenceModel:
    return small_model(seed=seed, shifted=True, cross=True, sharpness=1.5)


def first_pass(**options: Any) -> FirstPass:
    return FirstPass(**{"model": nar(), "slots": SLOTS, **options})


# --- decoding -----------------------------------------------------------------------------------


@pytest.mark.parametrize("second", SECOND, ids=lambda d: type(d).__name__)
def test_it_is_the_second_decoder_on_the_memory(second: Any) -> None:
    """The memory, written out: [V_last, E] with sinusoids of positions 1.. added."""
    model, context = ar(), random_context(3, 2, ragged=True)
    assert context.states_BTD is not None
    assert context.valid_BT is not None
    with torch.no_grad():
        canvas = Canvas(torch.zeros(2, SLOTS, dtype=torch.int64))
        states = torch.cat([whole_pass(nar(), canvas, context), context.states_BTD], dim=1)
    for position in range(states.shape[1]):
        for i in range(WIDTH // 2):
            angle = torch.tensor((position + 1) / 10_000 ** (2 * i / WIDTH))
            states[:, position, i] += angle.sin()
            states[:, position, WIDTH // 2 + i] += angle.cos()
    valid = torch.cat([torch.ones(2, SLOTS, dtype=torch.bool), context.valid_BT], dim=1)

    expected = second.generate(model, canvas_of([[], []], 7), Context(states, valid))
    decoder = Hybrid(first=first_pass(), second=second)
    found = decoder.generate(model, canvas_of([[], []], 7), context)
    assert found.sequences() == expected.sequences()
    torch.testing.assert_close(found.confidence_BS, expected.confidence_BS, atol=1e-4, rtol=1e-4)
    assert (found.forwards, found.draft_forwards) == (expected.forwards, 1)
    assert (found.hypotheses is None) == (expected.hypotheses is None)
    plain = second.generate(model, canvas_of([[], []], 7), context)
    assert found.sequences() != plain.sequences()


@quick
@given(
    seed=SEEDS,
    sizes=st.lists(st.integers(0, 4), min_size=1, max_size=3),
    own_canvas=st.booleans(),
    ragged=st.booleans(),
    positions=st.booleans(),
)
def test_a_batch_row_equals_the_row_alone(
    seed: int, sizes: list[int], own_canvas: bool, ragged: bool, positions: bool
) -> None:
    prompts = random_prompts(seed, sizes)
    context = random_context(seed, len(sizes), ragged=ragged)
    memory = ConcatenatedMemory(positions=positions)
    first = first_pass(slots=SLOTS if own_canvas else None, memory=memory)
    decoder = Hybrid(first=first, second=Autoregressive(stop_ids=(0,)))
    batch = decoder.generate(ar(), canvas_of(prompts, 6), context).sequences()
    for row, prompt in enumerate(prompts):
        alone = decoder.generate(ar(), canvas_of([prompt], 6), row_of(context, row))
        assert alone.sequences() == [batch[row]]


@pytest.mark.parametrize("positions", [True, False])
def test_rows_with_less_room_than_others(positions: bool) -> None:
    """Positions behind the slots are counted from the end of the row's own."""
    context, lengths = random_context(3, 2), [6, 3]
    memory = ConcatenatedMemory(positions=positions)
    decoder = Hybrid(first=first_pass(slots=None, memory=memory), second=Autoregressive())
    canvas = Canvas(torch.zeros(2, 6, dtype=torch.int64), length=lengths)
    batch = decoder.generate(ar(), canvas, context)
    for row, length in enumerate(lengths):
        alone = decoder.generate(ar(), canvas_of([[]], length), row_of(context, row))
        assert alone.sequences() == [batch.sequences()[row]]
        torch.testing.assert_close(
            batch.confidence_BS[row, :length], alone.confidence_BS[0], atol=1e-4, rtol=1e-4
        )


def test_without_slots_the_first_pass_reads_the_prompt() -> None:
    context = random_context(0, 1)
    whole, own = first_pass(slots=None), first_pass()
    with torch.inference_mode():
        a, b = (whole.states(canvas_of([[v]], 4), context)[0] for v in (3, 4))
        c, d = (own.states(canvas_of([[v]], 4), context)[0] for v in (3, 4))
    assert not torch.allclose(a, b, atol=1e-3)
    torch.testing.assert_close(c, d)


@pytest.mark.parametrize("second", SECOND, ids=lambda d: type(d).__name__)
def test_streamed_and_generated_events_agree(second: Any) -> None:
    decoder, context = Hybrid(first=first_pass(), second=second), random_context(0, 2)
    seen: list[Event] = []
    found = decoder.generate(ar(), canvas_of([[], []], 6), context, on_event=seen.append)
    canvas = canvas_of([[], []], 6)
    streamed = list(decoder.stream(ar(), canvas, context))
    assert [e.to_json() for e in streamed] == [e.to_json() for e in seen]
    assert sum(e.draft_forwards for e in seen) == 1 == seen[0].draft_forwards
    torch.testing.assert_close(canvas.values, found.values)


def test_a_guided_model_or_context_is_refused() -> None:
    decoder = Hybrid(first=first_pass(), second=Autoregressive())
    with pytest.raises(ValueError, match="4 rows of context for 2 rows"):
        decoder.generate(ar(), canvas_of([[], []], 4), random_context(0, 4))
    guided = Hybrid(first=first_pass(model=GuidedModel(nar(), scale=2.0)), second=Autoregressive())
    with pytest.raises(ValueError, match="2 branches"):
        guided.generate(ar(), canvas_of([[], []], 4), random_context(0, 2))


# --- the memory ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class MassContext(Context):
    mass_B: Tensor | None = None


@pytest.mark.parametrize("slots_valid", [False, True])
@pytest.mark.parametrize("context_valid", [False, True])
def test_memory_extends_the_context_and_keeps_its_fields(
    slots_valid: bool, context_valid: bool
) -> None:
    base = random_context(0, 2, ragged=context_valid)
    context = MassContext(
        base.states_BTD, base.valid_BT, torch.ones(2, 3, 4), mass_B=torch.tensor([1.0, 2.0])
    )
    context = replace(context, layers=((torch.zeros(1), torch.zeros(1)),))
    states = torch.randn(2, 3, WIDTH)
    valid = torch.tensor([[True, True, False], [True, True, True]]) if slots_valid else None
    memory = ConcatenatedMemory(positions=False)(states, valid, context)
    assert isinstance(memory, MassContext)
    assert memory.mass_B is context.mass_B
    assert memory.given_BSD is context.given_BSD
    assert memory.layers == ()
    assert memory.states_BTD is not None
    assert base.states_BTD is not None
    torch.testing.assert_close(memory.states_BTD, torch.cat([states, base.states_BTD], dim=1))
    if not slots_valid and not context_valid:
        assert memory.valid_BT is None
        return
    slots = torch.ones(2, 3, dtype=torch.bool) if valid is None else valid
    frames = torch.ones(2, 7, dtype=torch.bool) if base.valid_BT is None else base.valid_BT
    assert memory.valid_BT is not None
    assert memory.valid_BT.tolist() == torch.cat([slots, frames], dim=1).tolist()


def test_memory_of_a_pass_without_context_is_its_states() -> None:
    states = torch.randn(2, 3, 5)
    for context in (None, Context()):
        memory = ConcatenatedMemory(positions=False)(states, None, context)
        assert memory.states_BTD is states
        assert memory.valid_BT is None
    with_positions = ConcatenatedMemory()(states, None, None).states_BTD
    assert with_positions is not None
    added = with_positions - states
    torch.testing.assert_close(added[0], added[1])
    assert (added[0, 0] - added[0, 1]).abs().max() > 0.1


def test_context_prepared_for_the_first_model_is_not_used_by_the_second() -> None:
    first, context = first_pass(), random_context(0, 1)
    decoder = Hybrid(first=first, second=Autoregressive())
    expected = decoder.generate(ar(), canvas_of([[]], 6), context).sequences()
    prepared = first.model.backbone.prepare(context)
    assert prepared.layers
    assert decoder.generate(ar(), canvas_of([[]], 6), prepared).sequences() == expected


# --- training -----------------------------------------------------------------------------------


class Trio(nn.Module):
    """Encoder, NAR and AR decoder, as a plugin would hold them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Dropout(0.5))
        self.nar, self.ar = nar(), ar()
        self.first = FirstPass(model=self.nar, slots=SLOTS)

    def encode(self) -> Context:
        base = random_context(4, 2, ragged=True)
        return replace(base, states_BTD=self.encoder(base.states_BTD))


TARGETS = torch.tensor([[3, 4, 0], [5, 0, 0]])
VALID = torch.tensor([[True, True, True], [True, True, False]])


def gradients(module: nn.Module) -> float:
    return sum(float(p.grad.abs().sum()) for p in module.parameters() if p.grad is not None)


def test_second_stage_trains_the_second_model_alone() -> None:
    trio = Trio().train()
    freeze(trio.encoder, trio.nar)
    memory = hybrid_context(trio.first, Canvas(TARGETS), trio.encode())
    teacher_forcing(trio.ar, TARGETS, VALID, context=memory).backward()
    assert gradients(trio.ar) > 0
    assert gradients(trio.nar) == gradients(trio.encoder) == 0
    assert {p.requires_grad for p in trio.nar.parameters()} == {False}


@pytest.mark.parametrize("detach", [True, False])
def test_detach_blocks_the_gradient_through_the_states(detach: bool) -> None:
    trio = Trio().train()
    context = trio.encode()
    assert context.states_BTD is not None
    context.states_BTD.retain_grad()
    memory = hybrid_context(trio.first, Canvas(TARGETS), context, detach=detach)
    teacher_forcing(trio.ar, TARGETS, VALID, context=memory).backward()
    assert (gradients(trio.nar) == 0) == detach
    # The encoder's own part of the memory keeps its gradient in both.
    assert context.states_BTD.grad is not None
    assert context.states_BTD.grad.abs().sum() > 0


def test_training_sees_the_context_that_decoding_sees() -> None:
    """One teacher-forced pass over what the hybrid decoded has the confidences it decoded with."""
    trio = Trio().eval()
    context = trio.encode()
    decoder = Hybrid(first=trio.first, second=Autoregressive())
    found = decoder.generate(trio.ar, canvas_of([[], []], 6), replace(context, layers=()))
    memory = hybrid_context(trio.first, Canvas(found.values.clone()), context)
    loss = teacher_forcing(trio.ar, found.values.clone(), context=memory)
    expected = -found.confidence_BS.log().mean()
    torch.testing.assert_close(loss.detach(), expected.clone(), atol=1e-4, rtol=1e-4)


def test_freezing_switches_dropout_off_and_may_be_repeated() -> None:
    trio = Trio().train()
    freeze(trio.encoder, trio.nar)
    trio.train()  # as the training loop does after a validation
    assert trio.encoder.training
    freeze(trio.encoder, trio.nar)
    first, second = trio.encode().states_BTD, trio.encode().states_BTD
    assert first is not None
    assert second is not None
    torch.testing.assert_close(first, second)
    assert trio.ar.training
    assert all(p.requires_grad for p in trio.ar.parameters())


def test_annealing_is_linear_up_to_its_ceiling() -> None:
    assert [annealed(i, 4) for i in range(5)] == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert [annealed(i, 4, ceiling=0.6) for i in range(5)] == [0.0, 0.25, 0.5, 0.6, 0.6]
    for step, steps, ceiling in ((5, 4, 1.0), (-1, 4, 1.0), (0, 0, 1.0), (0, 4, 1.1)):
        with pytest.raises(ValueError, match="lie"):
            annealed(step, steps, ceiling=ceiling)


def test_first_stage_passes_the_weight_from_one_loss_to_the_other() -> None:
    blank = VOCABULARY - 1
    size = VALID.sum(dim=1)

    def after(weight: float) -> tuple[float, float, float]:
        trio = Trio().eval()
        context = trio.encode()
        canvas = Canvas(torch.zeros(2, SLOTS, dtype=torch.int64))
        logits = trio.nar.head.logits(whole_pass(trio.nar, canvas, context))  # type: ignore[attr-defined]
        nar_loss = ctc_loss(logits, TARGETS, size, blank=blank)
        ar_loss = teacher_forcing(trio.ar, TARGETS, VALID, context=context)
        loss = joint_loss(ar_loss, nar_loss, weight)
        expected = weight * ar_loss.item() + (1 - weight) * nar_loss.item()
        assert loss.item() == pytest.approx(expected)
        loss.backward()
        return gradients(trio.ar), gradients(trio.nar), gradients(trio.encoder)

    start, middle, end = after(0.0), after(0.5), after(1.0)
    assert start[0] == end[1] == 0
    assert start[1] > middle[1] > 0 < middle[0] < end[0]
    assert min(start[2], middle[2], end[2]) > 0
