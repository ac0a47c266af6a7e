"""The invariants of the decoding loop for continuous values: no token id anywhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import WIDTH, random_context, row_of
from torch import Tensor, nn

from seqgen.canvas import COMMITTED, Canvas
from seqgen.commits import All, ConfidenceQuota
from seqgen.decoders import Autoregressive, Beam, BlockDiffusion, NonAutoregressive, Speculative
from seqgen.decoders.base import Generated, GroupDecoder
from seqgen.decoders.hybrid import FirstPass, Hybrid
from seqgen.decoders.one_pass import whole_pass
from seqgen.errors import InputError
from seqgen.guidance import GuidedModel, guided_context
from seqgen.heads import (
    FlowHead,
    GaussianHead,
    Proposal,
    QuantileHead,
    RegressionHead,
    Request,
    StudentTHead,
)
from seqgen.logits import Sampling
from seqgen.loop import Recipe, decode
from seqgen.model import Context, SequenceModel
from seqgen.orders import Blocks, Order, Raster, Whole
from seqgen.training.objectives import Noise, noisy_clean, teacher_forcing
from seqgen.transformer import Transformer, TransformerConfig
from seqgen.value_inputs import MaskedValueInputs, ValueInputs

C = 3
HEADS: dict[str, Callable[[], nn.Module]] = {
    "regression": lambda: RegressionHead(WIDTH, C),
    "gaussian": lambda: GaussianHead(WIDTH, C),
    "student-t": lambda: StudentTHead(WIDTH, C),
    "quantile": lambda: QuantileHead(WIDTH, C),
    "flow": lambda: _flow(),
}
SEEDS = st.integers(0, 10_000)
SIZES = st.lists(st.integers(0, 6), min_size=1, max_size=4)
NAMES = st.sampled_from(list(HEADS))
TEMPERATURES = st.sampled_from([0.0, 0.5, 1.0])
REMASKING = st.sampled_from(["sequential", "low_confidence_static", "low_confidence_dynamic"])
quick = settings(max_examples=20, deadline=None)


def _flow() -> FlowHead:
    head = FlowHead(WIDTH, C, hidden=16, depth=1, steps=2)
    for parameter in head.parameters():  # it would begin as zero
        nn.init.normal_(parameter, std=0.15)
    return head


def value_model(
    head: str = "gaussian",
    *,
    seed: int = 0,
    shifted: bool = False,
    cross: bool = False,
    adds_given: bool = False,
) -> SequenceModel:
    torch.manual_seed(seed)
    inputs = (
        ValueInputs(C, WIDTH, adds_given=adds_given)
        if shifted
        else MaskedValueInputs(C, WIDTH, positions=nn.Embedding(64, WIDTH), adds_given=adds_given)
    )
    backbone = Transformer(
        TransformerConfig(
            width=WIDTH, layers=2, heads=4, kv_heads=2, head_width=6,
            context_width=WIDTH if cross else 0,
        )
    )  # fmt: skip
    return SequenceModel(inputs=inputs, backbone=backbone, head=HEADS[head]()).eval()  # type: ignore[arg-type]


def prompts_of(seed: int, sizes: list[int]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, C, generator=generator) for n in sizes]


def canvas_of(prompts: list[Tensor], new: int, seeds: list[int] | None = None) -> Canvas:
    numbers = list(range(len(prompts))) if seeds is None else seeds
    return Canvas.vectors(prompts, new=new, seeds=torch.tensor(numbers))


def assert_same(one: Generated | list[Tensor], other: Generated | list[Tensor]) -> None:
    rows = [x.vectors() if isinstance(x, Generated) else x for x in (one, other)]
    for a, b in zip(*rows, strict=True):
        torch.testing.assert_close(a, b, atol=2e-4, rtol=1e-3)


@st.composite
def decoders(draw: st.DrawFn) -> tuple[GroupDecoder, bool]:
    """A decoder, and whether its model reads the value before."""
    sampling = Sampling(temperature=draw(TEMPERATURES))
    if draw(st.booleans()):
        return Autoregressive(sampling=sampling), draw(st.booleans())
    return BlockDiffusion(
        block_length=draw(st.integers(1, 5)),
        steps=draw(st.integers(0, 5)),
        remasking=draw(REMASKING),
        threshold=draw(st.sampled_from([0.1, 0.3, 0.9])),
        sampling=sampling,
    ), False


# --- decoding -----------------------------------------------------------------------------------


@quick
@given(
    choice=decoders(), name=NAMES, sizes=SIZES, new=st.integers(1, 7), seed=SEEDS,
    cross=st.booleans(),
)  # fmt: skip
def test_cached_equals_uncached(
    choice: tuple[GroupDecoder, bool],
    name: str,
    sizes: list[int],
    new: int,
    seed: int,
    cross: bool,
) -> None:
    decoder, shifted = choice
    model = value_model(name, seed=seed, shifted=shifted, cross=cross)
    context = random_context(seed, len(sizes)) if cross else None
    prompts = prompts_of(seed, sizes)
    cached = decoder.generate(model, canvas_of(prompts, new), context)
    uncached = replace(decoder, cached=False).generate(  # type: ignore[type-var]
        model, canvas_of(prompts, new), context
    )
    assert_same(cached, uncached)


@quick
@given(
    choice=decoders(), name=NAMES, sizes=SIZES, new=st.integers(1, 7), seed=SEEDS,
    cross=st.booleans(),
)  # fmt: skip
def test_a_row_of_a_batch_equals_the_row_alone(
    choice: tuple[GroupDecoder, bool],
    name: str,
    sizes: list[int],
    new: int,
    seed: int,
    cross: bool,
) -> None:
    """Also: the same seed gives the same sample whatever the batch."""
    decoder, shifted = choice
    model = value_model(name, seed=seed, shifted=shifted, cross=cross)
    context = random_context(seed, len(sizes), ragged=True) if cross else None
    prompts, seeds = prompts_of(seed, sizes), [seed + 7 * i for i in range(len(sizes))]
    batch = decoder.generate(model, canvas_of(prompts, new, seeds), context)
    for row, prompt in enumerate(prompts):
        own = None if context is None else row_of(context, row)
        alone = decoder.generate(model, canvas_of([prompt], new, [seeds[row]]), own)
        assert_same(alone, [batch.vectors()[row]])


@quick
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    steps=st.integers(1, 4),
    shifted=st.booleans(),
    name=NAMES,
    seed=SEEDS,
)
def test_rows_of_given_lengths_equal_the_rows_alone(
    lengths: list[int], steps: int, shifted: bool, name: str, seed: int
) -> None:
    """What lies in open slots and in padding may be anything, also not a number."""
    model, sampling = value_model(name, seed=seed, shifted=shifted), Sampling(temperature=1.0)
    decoder: GroupDecoder = NonAutoregressive(steps=steps, sampling=sampling)
    if shifted:
        decoder = Autoregressive(sampling=sampling)
    values = torch.full((len(lengths), max(lengths), C), torch.nan)
    seeds = torch.arange(len(lengths))
    batch = decoder.generate(model, Canvas(values, length=lengths, seeds=seeds))
    for row, length in enumerate(lengths):
        alone = decoder.generate(model, Canvas(values[:1, :length], seeds=seeds[row : row + 1]))
        assert_same(alone, [batch.vectors()[row]])
        assert bool(batch.vectors()[row].isfinite().all())


@quick
@given(choice=decoders(), name=NAMES, sizes=SIZES, seed=SEEDS)
def test_the_prompt_never_changes_and_committed_values_stand(
    choice: tuple[GroupDecoder, bool], name: str, sizes: list[int], seed: int
) -> None:
    decoder, shifted = choice
    prompts = prompts_of(seed, sizes)
    canvas = canvas_of(prompts, 5)
    committed: dict[tuple[int, int], Tensor] = {}
    for event in decoder.stream(value_model(name, seed=seed, shifted=shifted), canvas):
        assert event.values.dtype == canvas.values.dtype == torch.float32
        slots = event.slots_BQ.expand(canvas.batch, -1)
        for row, column in event.kept_BQ.nonzero().tolist():
            slot = int(slots[row, column])
            assert len(prompts[row]) <= slot < len(prompts[row]) + 5
            assert (row, slot) not in committed, "a slot was committed twice"
            committed[row, slot] = event.values[row, column]
    assert len(committed) == 5 * len(prompts)
    for row, prompt in enumerate(prompts):
        assert torch.equal(canvas.values[row, : len(prompt)], prompt)
    for (row, slot), value in committed.items():
        assert torch.equal(canvas.values[row, slot], value)


@quick
@given(sizes=SIZES, new=st.integers(1, 7), seed=SEEDS, name=NAMES)
def test_block_length_one_equals_autoregressive(
    sizes: list[int], new: int, seed: int, name: str
) -> None:
    model, prompts = value_model(name, seed=seed), prompts_of(seed, sizes)
    sampling = Sampling(temperature=1.0)
    ar = Autoregressive(sampling=sampling).generate(model, canvas_of(prompts, new))
    blocks = BlockDiffusion(block_length=1, sampling=sampling)
    assert_same(ar, blocks.generate(model, canvas_of(prompts, new)))


@quick
@given(batch=st.integers(1, 3), length=st.integers(1, 9), steps=st.integers(1, 5), seed=SEEDS)
def test_one_block_equals_mask_predict(batch: int, length: int, steps: int, seed: int) -> None:
    model, steps = value_model(seed=seed), min(steps, length)
    sampling = Sampling(temperature=1.0)
    values = torch.zeros(batch, length, C)
    whole = NonAutoregressive(commit=ConfidenceQuota(steps), sampling=sampling)
    block = BlockDiffusion(
        block_length=length, steps=steps, remasking="low_confidence_static", sampling=sampling
    )
    predicted = whole.generate(model, Canvas(values))
    assert_same(predicted, block.generate(model, Canvas(values)))
    assert predicted.forwards == steps


@quick
@given(seed=SEEDS, name=NAMES, shifted=st.booleans())
def test_same_seed_same_bytes_and_another_seed_another(seed: int, name: str, shifted: bool) -> None:
    model = value_model(name, seed=1, shifted=shifted)
    decoder = Autoregressive(sampling=Sampling(temperature=1.0))
    prompts = [torch.zeros(1, C)] * 3
    first = decoder.generate(model, canvas_of(prompts, 4, [seed, seed + 1, seed]))
    again = decoder.generate(model, canvas_of(prompts, 4, [seed, seed + 1, seed]))
    assert torch.equal(first.values, again.values)
    torch.testing.assert_close(first.values[0], first.values[2])
    different = bool((first.values[0, 1:] != first.values[1, 1:]).any())
    assert different == (name != "regression")


def test_sampled_values_are_fed_back() -> None:
    """Two rows that differ in their first sample differ in what the second is drawn from."""
    model = value_model(shifted=True)
    decoder = Autoregressive(sampling=Sampling(temperature=1.0))
    done = decoder.generate(model, canvas_of([torch.zeros(0, C)] * 2, 2, [1, 2]))
    assert done.parameters is not None
    torch.testing.assert_close(done.parameters[0, 0], done.parameters[1, 0])
    assert float((done.parameters[0, 1] - done.parameters[1, 1]).abs().max()) > 1e-3


def test_confident_slots_go_first() -> None:
    model = value_model()
    canvas = Canvas(torch.zeros(2, 6, C))
    event = next(iter(NonAutoregressive(steps=3).stream(model, canvas)))
    kept, others = event.confidence_BQ[event.kept_BQ], event.confidence_BQ[~event.kept_BQ]
    assert event.kept_BQ.sum(dim=1).tolist() == [2, 2]
    for row in range(2):
        assert float(kept.view(2, 2)[row].min()) > float(others.view(2, 4)[row].max())


@pytest.mark.parametrize("name", ["gaussian", "student-t", "quantile"])
def test_distributions_stay_with_the_values(name: str) -> None:
    """Direct forecasts are read from the parameters, at the slots that they were proposed for."""
    model, prompts = value_model(name), prompts_of(0, [4, 2])
    proposals: list[Proposal] = []
    propose = model.head.propose

    def remember(hidden: Tensor, request: Request) -> Proposal:
        proposals.append(propose(hidden, request))
        return proposals[-1]

    model.head.propose = remember  # type: ignore[method-assign]
    done = NonAutoregressive().generate(model, canvas_of(prompts, 3))
    assert done.parameters is not None
    assert proposals[0].parameters is not None
    assert isinstance(model.head, GaussianHead | StudentTHead | QuantileHead)
    quantiles = model.head.distribution(done.parameters).quantile((0.1, 0.5, 0.9))
    assert bool((quantiles.diff(dim=-1)[1, 2:5] > 0).all())
    for row, prompt in enumerate(prompts):
        new = slice(len(prompt), len(prompt) + 3)
        assert torch.equal(done.parameters[row, new], proposals[0].parameters[row, new])
        assert not done.parameters[row, : len(prompt)].any()
        torch.testing.assert_close(quantiles[row, new, :, 1], done.values[row, new])


def test_given_slots_are_kept_and_seen() -> None:
    """Imputation: known vectors between open ones."""
    model = value_model()
    values = torch.randn(1, 6, C)
    known = torch.tensor([[True, False, False, True, False, True]])
    done = NonAutoregressive().generate(model, Canvas(values, given=known))
    assert torch.equal(done.values[known], values[known])
    other = values.clone()
    other[0, 3] += 1
    moved = NonAutoregressive().generate(model, Canvas(other, given=known))
    assert float((moved.values - done.values)[~known].abs().max()) > 1e-3


@pytest.mark.parametrize("shifted", [False, True])
def test_given_embeddings_enter_at_their_slots(shifted: bool) -> None:
    """Future regressors: a change at slot 3 moves slot 3 and nothing before it."""
    model = value_model("regression", shifted=shifted, adds_given=True)
    given_BSD = torch.randn(1, 6, WIDTH)
    changed = given_BSD.clone()
    changed[0, 3] += 1
    first, second = (
        Autoregressive().generate(model, canvas_of([torch.zeros(1, C)], 5), Context(given_BSD=x))
        for x in (given_BSD, changed)
    )
    torch.testing.assert_close(first.values[0, :3], second.values[0, :3])
    assert float((first.values[0, 3] - second.values[0, 3]).abs().max()) > 1e-3
    with pytest.raises(ValueError, match="given_BSD"):
        Autoregressive().generate(model, canvas_of([torch.zeros(1, C)], 5))


@pytest.mark.parametrize("decoder", [Autoregressive(), BlockDiffusion(block_length=3)])
@pytest.mark.parametrize(("scale", "which"), [(1.0, 0), (0.0, 1)])
@pytest.mark.parametrize("sizes", [[2, 2], [0, 3, 1]])
def test_guidance_of_a_flow(decoder: Any, scale: float, which: int, sizes: list[int]) -> None:
    """Scale 1 is the conditional model, 0 the unconditional one."""
    decoder = replace(decoder, sampling=Sampling(temperature=1.0))
    model, prompts = value_model("flow", cross=True), prompts_of(0, sizes)
    contexts = [random_context(seed, len(sizes)) for seed in (1, 2)]
    guided = decoder.generate(
        GuidedModel(model, scale=scale), canvas_of(prompts, 6), guided_context(*contexts)
    )
    assert_same(guided, decoder.generate(model, canvas_of(prompts, 6), contexts[which]))


def test_guidance_needs_logits_or_a_field() -> None:
    with pytest.raises(ValueError, match="GaussianHead"):
        GuidedModel(value_model(cross=True), scale=2.0)


@pytest.mark.parametrize("slots", [None, 4])
def test_hybrid_of_a_direct_draft_and_an_autoregressive_model(slots: int | None) -> None:
    first, second = value_model(), value_model("flow", seed=1, shifted=True, cross=True)
    decoder = Hybrid(
        first=FirstPass(model=first, slots=slots),
        second=Autoregressive(sampling=Sampling(temperature=1.0)),
    )
    prompts = prompts_of(0, [2, 3])
    batch = decoder.generate(second, canvas_of(prompts, 4))
    assert batch.draft_forwards == 1
    for row in range(2):
        assert_same(
            decoder.generate(second, canvas_of(prompts[row : row + 1], 4, [row])),
            [batch.vectors()[row]],
        )
    # Without a `slots` of its own the first model reads the prompt: its states move the second's.
    other = [prompts[0], prompts[1] + 1]
    moved = decoder.generate(second, canvas_of(other, 4))
    assert_same([moved.vectors()[0]], [batch.vectors()[0]])


# --- refusals -----------------------------------------------------------------------------------


def test_what_needs_ids_refuses_vectors() -> None:
    shifted, masked, canvas = (
        value_model(shifted=True),
        value_model(),
        canvas_of(prompts_of(0, [2]), 4),
    )
    with pytest.raises(ValueError, match="stop_ids"):
        Autoregressive(stop_ids=(3,)).generate(shifted, canvas)
    with pytest.raises(ValueError, match="one slot a group"):
        BlockDiffusion(block_length=2).generate(shifted, canvas)
    with pytest.raises(ValueError, match="value before"):
        whole_pass(shifted, canvas, None)
    with pytest.raises(ValueError, match="logits"):
        BlockDiffusion(remasking="entropy_bounded").generate(masked, canvas)
    with pytest.raises(ValueError, match="ValueInputs"):
        Speculative().generate(shifted, canvas)
    with pytest.raises(ValueError, match="vectors"):
        Autoregressive().generate(shifted, Canvas(torch.zeros(1, 4, dtype=torch.int64)))
    with pytest.raises(ValueError, match="logits"):
        Beam(beams=2).generate(shifted, canvas)


def test_a_prompt_that_is_not_finite_is_refused_by_place() -> None:
    prompts = prompts_of(0, [2, 4])
    prompts[1][3, 1] = torch.inf
    with pytest.raises(InputError, match="row 1, slot 3"):
        canvas_of(prompts, 2)


# --- training -----------------------------------------------------------------------------------


def decoded_hidden(
    model: SequenceModel, targets: Tensor, order: Order, context: Context | None
) -> Tensor:
    """Hidden states of a real decode in which every committed value is replaced by the target."""
    hidden = torch.zeros(*targets.shape[:2], WIDTH)

    class Teacher(nn.Module):
        def propose(self, hidden_BQD: Tensor, request: Request) -> Proposal:
            hidden[:, request.slots_BQ[0]] = hidden_BQD
            values = targets[:, request.slots_BQ[0]]
            return Proposal(values, torch.ones(values.shape[:2]))

        def loss(self, hidden_BQD: Tensor, targets: Tensor) -> Tensor:
            raise AssertionError("decoding asks for no loss")

    forced = SequenceModel(inputs=model.inputs, backbone=model.backbone, head=Teacher())
    canvas = Canvas(torch.full_like(targets, torch.nan))
    for _ in decode(forced, canvas, context, Recipe(order=order, commit=All())):
        pass
    assert torch.equal(canvas.values, targets)
    assert bool((canvas.state_BS == COMMITTED).all())
    return hidden


@quick
@given(
    order=st.sampled_from([Raster(), Blocks(2), Blocks(3), Whole()]),
    shifted=st.booleans(),
    name=st.sampled_from(list(HEADS)),
    batch=st.integers(1, 3),
    length=st.integers(1, 8),
    cross=st.booleans(),
    seed=SEEDS,
)
def test_the_one_pass_training_loss_is_the_loss_of_a_decode(
    order: Order, shifted: bool, name: str, batch: int, length: int, cross: bool, seed: int
) -> None:
    model = value_model(name, seed=seed, shifted=shifted, cross=cross)
    order = Raster() if shifted else order
    context = random_context(seed, batch) if cross else None
    targets = torch.randn(batch, length, C, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        hidden = decoded_hidden(model, targets, order, context)
        torch.manual_seed(5)  # of the flow head's times and noise
        expected = model.head.loss(hidden, targets).mean()
        torch.manual_seed(5)
        if shifted:
            found = teacher_forcing(model, targets, context=context)
        else:
            found = noisy_clean(
                model, targets, order=order, context=context, noise=Noise(1.0, 1.0),
                generator=torch.Generator(),
            )  # fmt: skip
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("name", list(HEADS))
@pytest.mark.parametrize("shifted", [False, True])
def test_padding_is_not_read_and_gradients_reach_everything(name: str, shifted: bool) -> None:
    model = value_model(name, shifted=shifted)
    targets = torch.randn(2, 6, C)
    valid = torch.arange(6) < torch.tensor([[6], [4]])

    def loss_of(values: Tensor) -> Tensor:
        torch.manual_seed(3)
        if shifted:
            return teacher_forcing(model, values, valid)
        return noisy_clean(
            model, values, valid, order=Blocks(2), noise=Noise(0.5, 0.5),
            generator=torch.Generator().manual_seed(0),
        )  # fmt: skip

    loss = loss_of(targets)
    loss.backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert bool(parameter.grad.isfinite().all()), parameter_name
        assert float(parameter.grad.abs().sum()) > 0, parameter_name
    before = {k: p.grad.clone() for k, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    again = loss_of(torch.where(valid[..., None], targets, torch.nan))
    again.backward()
    torch.testing.assert_close(again, loss)
    for parameter_name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, before[parameter_name])


def test_fixed_slots_are_seen_and_carry_no_loss() -> None:
    model = value_model("regression")
    targets = torch.randn(2, 4, C)
    fixed = torch.tensor([[True, True, False, False]]).expand(2, -1)

    def loss_of(values: Tensor) -> float:
        generator = torch.Generator().manual_seed(0)
        return float(
            noisy_clean(
                model, values, order=Whole(), noise=Noise(1.0, 1.0), fixed_BS=fixed,
                generator=generator,
            ).detach()
        )  # fmt: skip

    with torch.no_grad():
        slots = torch.arange(4)[None]
        x = model.inputs.embed(targets, fixed, slots)  # type: ignore[operator]
        hidden = model.backbone(x, slots[..., None], view=None, cache=None, context=None)
        expected = float(model.head.loss(hidden, targets)[:, 2:].mean())
    assert loss_of(targets) == pytest.approx(expected, rel=1e-4)
    moved = targets.clone()
    moved[:, 0] += 1
    assert abs(loss_of(moved) - expected) > 1e-4


def test_objectives_refuse_the_other_inputs() -> None:
    targets = torch.randn(1, 3, C)
    with pytest.raises(ValueError, match="shifted inputs"):
        teacher_forcing(value_model(), targets)
    with pytest.raises(ValueError, match="masked inputs"):
        noisy_clean(value_model(shifted=True), targets, order=Raster(), generator=torch.Generator())


def test_one_model_learns_a_rotation_and_every_decoder_continues_it() -> None:
    """x_{t+1} = R x_t with noise, R a rotation of an angle that the row's past shows."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    slots, known, noise = 10, 5, 0.05

    def batch(rows: int) -> Tensor:
        angle = torch.rand(rows, 1, generator=generator) * 0.8 + 0.3
        start = torch.rand(rows, 1, generator=generator) * 6.3
        phase = start + angle * torch.arange(slots)
        x = torch.stack([phase.cos(), phase.sin()], dim=-1)
        return x + noise * torch.randn(x.shape, generator=generator)

    model = SequenceModel(
        inputs=MaskedValueInputs(2, 32, positions=nn.Embedding(slots, 32)),
        backbone=Transformer(TransformerConfig(width=32, layers=2, heads=2)),
        head=GaussianHead(32, 2),
    )
    optimiser = torch.optim.AdamW(model.parameters(), lr=4e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 240)
    fixed = (torch.arange(slots) < known).expand(64, -1)
    for step in range(240):
        loss = noisy_clean(
            model, batch(64), order=(Raster(), Blocks(3), Whole())[step % 3],
            noise=Noise(weighting="none"), generator=generator, fixed_BS=fixed,
        )  # fmt: skip
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    model.eval()
    test = batch(200)
    last = (test[:, known:] - test[:, known - 1 : known]).square().mean()
    for decoder in (
        Autoregressive(),
        BlockDiffusion(block_length=3, steps=2, remasking="low_confidence_static"),
        NonAutoregressive(),
        NonAutoregressive(steps=3),
    ):
        done = decoder.generate(model, Canvas(test, prompt=known))
        error = (done.values - test)[:, known:].square().mean()
        assert float(error) < 0.1 * float(last), decoder
    assert done.parameters is not None
    direct = NonAutoregressive().generate(model, Canvas(test, prompt=known))
    quantiles = model.head.distribution(direct.parameters).quantile((0.1, 0.9))[:, known:]  # type: ignore[operator]
    inside = (quantiles[..., 0] < test[:, known:]) & (test[:, known:] < quantiles[..., 1])
    assert 0.65 < float(inside.float().mean()) < 0.95


# --- a CUDA device ------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
@pytest.mark.parametrize("name", list(HEADS))
@pytest.mark.parametrize("sizes", [[3, 3], [0, 4, 2]])
@pytest.mark.parametrize("decoder", [Autoregressive(), BlockDiffusion(block_length=3, steps=2)])
def test_decoders_give_what_they_give_on_the_cpu(decoder: Any, sizes: list[int], name: str) -> None:
    decoder = replace(decoder, sampling=Sampling(temperature=1.0))
    model, prompts = value_model(name), prompts_of(0, sizes)
    seeds = torch.arange(len(sizes))
    expected = decoder.generate(model, Canvas.vectors(prompts, new=8, seeds=seeds))
    there = Canvas.vectors(prompts, new=8, seeds=seeds, device="cuda")
    found = decoder.generate(model.to("cuda"), there)
    assert found.values.device.type == "cuda"
    for a, b in zip(found.vectors(), expected.vectors(), strict=True):
        torch.testing.assert_close(a.cpu(), b, atol=2e-3, rtol=1e-2)
