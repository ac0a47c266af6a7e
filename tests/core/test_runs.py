"""A run of slots as a slice gives what the same slots give one by one."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from small_models import small_model

from seqgen.canvas import Canvas
from seqgen.inputs import MaskedInputs, ShiftedInputs
from seqgen.orders import Blocks, steps

SLOTS, BATCH = 9, 3


def random_canvas(seed: int, *, channels: int = 0, stopped: bool = False) -> Canvas:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(1, 20, (BATCH, SLOTS), generator=generator)
    if channels:
        values = torch.rand(BATCH, SLOTS, channels, generator=generator)
    given_BS = torch.rand(BATCH, SLOTS, generator=generator) < 0.3
    canvas = Canvas(values, prompt=2, given=given_BS)
    if stopped:
        canvas.stop_at(torch.tensor([[5]]), torch.tensor([[True], [False], [True]]))
    return canvas


@given(st.integers(0, 999), st.sampled_from([0, 2]), st.booleans(), st.data())
def test_reading_and_writing(seed: int, channels: int, stopped: bool, data: st.DataObject) -> None:
    begin = data.draw(st.integers(0, SLOTS - 1))
    run = slice(begin, data.draw(st.integers(begin + 1, SLOTS)))
    slots = torch.arange(SLOTS)[None, run]
    one, other = (random_canvas(seed, channels=channels, stopped=stopped) for _ in range(2))
    assert torch.equal(one.take(slots, run), other.take(slots))
    open_BQ = one.open_at(slots, None, run)
    assert torch.equal(open_BQ, other.open_at(slots, None))

    values = one.take(slots) + 1
    confidence_BQ = torch.rand(BATCH, slots.shape[1])
    keep_BQ = open_BQ & (confidence_BQ > 0.5)
    one.commit(slots, values, confidence_BQ, keep_BQ, run=run)
    other.commit(slots, values, confidence_BQ, keep_BQ)
    for name in ("values", "state_BS", "confidence_BS"):
        assert torch.equal(getattr(one, name), getattr(other, name))


def test_committing_everything() -> None:
    one, other = Canvas.tokens([[1, 2]] * 2, new=4), Canvas.tokens([[1, 2]] * 2, new=4)
    slots, run = torch.arange(2, 5)[None], slice(2, 5)
    values, sure = torch.full((2, 3), 7), torch.full((2, 3), 0.5)
    one.commit(slots, values, sure, torch.ones(2, 3, dtype=torch.bool), run=run, every=True)
    other.commit(slots, values, sure, torch.ones(2, 3, dtype=torch.bool))
    for name in ("values", "state_BS", "confidence_BS"):
        assert torch.equal(getattr(one, name), getattr(other, name))


def test_embeddings() -> None:
    table = torch.nn.Embedding(21, 6)
    canvas, slots, run = random_canvas(0, stopped=True), torch.arange(1, 7)[None], slice(1, 7)
    for inputs in (
        ShiftedInputs(table),
        MaskedInputs(table, mask_id=20, scale=2.0, positions=torch.nn.Embedding(9, 6)),
    ):
        ids = inputs.ids_of_run(canvas, run)
        assert ids is not None
        assert torch.equal(inputs.embed_ids(ids, slots), inputs(canvas, slots))
    assert ShiftedInputs(table, start_id=0).ids_of_run(canvas, slice(0, 2)) is None
    assert MaskedInputs(table, mask_id=20, adds_given=True).ids_of_run(canvas, run) is None


def test_a_subclass_is_asked_itself() -> None:
    """A model whose inputs change what enters must not be read past."""

    class Doubled(MaskedInputs):
        def forward(self, *arguments: object) -> torch.Tensor:
            return 2 * super().forward(*arguments)  # type: ignore[arg-type]

    model = small_model()
    assert isinstance(model.inputs, MaskedInputs)
    canvas, table = Canvas.tokens([[1, 2, 3]], new=5), Blocks(4).table(8, torch.device("cpu"))
    step = next(steps(table, canvas))
    assert step.run == slice(0, 4)
    plain = model._embed(canvas, step.slots_BQ, None, None, step.run)
    held = model.inputs
    model.inputs = Doubled(held.embedding, mask_id=held.mask_id, positions=held.positions)
    double = model._embed(canvas, step.slots_BQ, None, None, step.run)
    torch.testing.assert_close(double, 2 * plain)


def test_whether_anything_was_decided() -> None:
    assert Canvas.tokens([[1], [2, 3]], new=4).untouched
    assert not random_canvas(0).untouched
    stopped = Canvas.tokens([[1]], new=4)
    stopped.stop_at(torch.tensor([[2]]), torch.tensor([[True]]))
    assert stopped.may_have_stopped
    assert not stopped.untouched
    decided = Canvas.tokens([[1]], new=4)
    decided.state_BS[0, 3] = 1
    assert not decided.untouched
