"""The invariants of the decoding loop, over random small models, orders and batches."""

from __future__ import annotations

from dataclasses import replace

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

from seqgen.attention import MaskView
from seqgen.canvas import Canvas
from seqgen.commits import ConfidenceQuota
from seqgen.decoders import Autoregressive, BlockDiffusion, NonAutoregressive
from seqgen.decoders.base import GroupDecoder
from seqgen.logits import Sampling, TopK, TopP
from seqgen.loop import Recipe, decode
from seqgen.masks import NOISY, BlockCausal, Causal, NoisyClean, SlotInfo, Window
from seqgen.model import SequenceModel
from seqgen.orders import Blocks, Order, Raster, Whole

SEEDS = st.integers(0, 10_000)
SIZES = st.lists(st.integers(0, 9), min_size=1, max_size=4)
LENGTHS = st.lists(st.integers(1, 9), min_size=1, max_size=4)
REMASKING = st.sampled_from(
    ["sequential", "low_confidence_static", "low_confidence_dynamic", "entropy_bounded"]
)
quick = settings(max_examples=25, deadline=None)


@st.composite
def decoders(draw: st.DrawFn) -> tuple[GroupDecoder, bool]:
    """A decoder, and whether its model has shifted inputs."""
    sampling = Sampling()
    if draw(st.booleans()):
        filters = draw(st.sampled_from([(), (TopK(5),), (TopP(0.8),)]))
        sampling = Sampling(temperature=draw(st.sampled_from([0.5, 1.0])), filters=filters)
    if draw(st.booleans()):
        return Autoregressive(sampling=sampling, stop_ids=(3, 4)), draw(st.booleans())
    return BlockDiffusion(
        block_length=draw(st.integers(1, 6)),
        steps=draw(st.integers(0, 6)),
        remasking=draw(REMASKING),
        threshold=draw(st.sampled_from([0.05, 0.3, 0.9])),
        sampling=sampling,
        stop_ids=draw(st.sampled_from([(), (3,), (1, 2, 3)])),
    ), False


@quick
@given(choice=decoders(), sizes=SIZES, new=st.integers(1, 9), seed=SEEDS, cross=st.booleans())
def test_cached_equals_uncached(
    choice: tuple[GroupDecoder, bool], sizes: list[int], new: int, seed: int, cross: bool
) -> None:
    decoder, shifted = choice
    model = small_model(seed=seed, shifted=shifted, cross=cross)
    context = random_context(seed, len(sizes)) if cross else None
    prompts, seeds = random_prompts(seed, sizes), list(range(len(sizes)))
    cached = decoder.generate(model, canvas_of(prompts, new, seeds=seeds), context)
    uncached = replace(decoder, cached=False).generate(  # type: ignore[type-var]
        model, canvas_of(prompts, new, seeds=seeds), context
    )
    assert cached.sequences() == uncached.sequences()


@quick
@given(choice=decoders(), sizes=SIZES, new=st.integers(1, 9), seed=SEEDS, cross=st.booleans())
def test_a_row_of_a_batch_equals_the_row_alone(
    choice: tuple[GroupDecoder, bool], sizes: list[int], new: int, seed: int, cross: bool
) -> None:
    decoder, shifted = choice
    model = small_model(seed=seed, shifted=shifted, cross=cross)
    context = random_context(seed, len(sizes), ragged=True) if cross else None
    prompts, seeds = random_prompts(seed, sizes), [seed + 7 * i for i in range(len(sizes))]
    batch = decoder.generate(model, canvas_of(prompts, new, seeds=seeds), context)
    for row, prompt in enumerate(prompts):
        own = None if context is None else row_of(context, row)
        alone = decoder.generate(model, canvas_of([prompt], new, seeds=[seeds[row]]), own)
        assert alone.sequences()[0] == batch.sequences()[row]


@quick
@given(lengths=LENGTHS, steps=st.integers(1, 5), seed=SEEDS)
def test_rows_of_given_lengths_equal_the_rows_alone(
    lengths: list[int], steps: int, seed: int
) -> None:
    model = small_model(seed=seed)
    decoder = NonAutoregressive(steps=steps)
    values = torch.zeros(len(lengths), max(lengths), dtype=torch.int64)
    batch = decoder.generate(model, Canvas(values, length=lengths))
    for row, length in enumerate(lengths):
        alone = decoder.generate(model, Canvas(values[:1, :length]))
        assert alone.sequences()[0] == batch.sequences()[row]


@quick
@given(choice=decoders(), sizes=SIZES, seed=SEEDS)
def test_the_prompt_never_changes_and_committed_values_stand(
    choice: tuple[GroupDecoder, bool], sizes: list[int], seed: int
) -> None:
    decoder, shifted = choice
    prompts = random_prompts(seed, sizes)
    canvas = canvas_of(prompts, 6, seeds=list(range(len(sizes))))
    committed: dict[tuple[int, int], int] = {}
    for event in decoder.stream(small_model(seed=seed, shifted=shifted), canvas):
        slots = event.slots_BQ.expand(canvas.batch, -1)
        for row, column in event.kept_BQ.nonzero().tolist():
            slot = int(slots[row, column])
            assert slot >= len(prompts[row]), "a prompt slot was committed again"
            assert (row, slot) not in committed, "a slot was committed twice"
            committed[row, slot] = int(event.values[row, column])
    for row, prompt in enumerate(prompts):
        assert canvas.values[row, : len(prompt)].tolist() == prompt
    for (row, slot), value in committed.items():
        assert canvas.values[row, slot] == value


@quick
@given(sizes=SIZES, new=st.integers(1, 9), seed=SEEDS, remasking=REMASKING, K=st.integers(1, 5))
def test_fused_commit_equals_a_separate_pass_and_saves_passes(
    sizes: list[int], new: int, seed: int, remasking: str, K: int
) -> None:
    model = small_model(seed=seed)
    prompts = random_prompts(seed, sizes)
    decoder = BlockDiffusion(block_length=K, remasking=remasking, threshold=0.3)  # type: ignore[arg-type]
    fused = decoder.generate(model, canvas_of(prompts, new))
    apart = replace(decoder, fused_commit=False).generate(model, canvas_of(prompts, new))
    assert fused.sequences() == apart.sequences()
    assert fused.forwards <= apart.forwards


@pytest.mark.parametrize(
    ("remasking", "threshold", "fused", "apart"),
    [("low_confidence_static", 0.85, 22, 28), ("low_confidence_dynamic", 0.0, 6, 12)],
)
def test_forward_counts_of_the_fused_commit(
    remasking: str, threshold: float, fused: int, apart: int
) -> None:
    """Ten prompt tokens, 22 new ones, K = 4; the prefill counts in neither (it is merged here).

    The separate loop also spends a pass on the prompt, which the published count leaves out; it
    writes the last block too, which nobody reads. The two make up for each other.
    """
    model, prompts = small_model(), random_prompts(0, [10])
    decoder = BlockDiffusion(block_length=4, remasking=remasking, threshold=threshold)  # type: ignore[arg-type]
    assert decoder.generate(model, canvas_of(prompts, 22)).forwards == fused
    separate = replace(decoder, fused_commit=False)
    assert separate.generate(model, canvas_of(prompts, 22)).forwards == apart


@quick
@given(sizes=SIZES, new=st.integers(1, 9), seed=SEEDS)
def test_block_length_one_equals_autoregressive(sizes: list[int], new: int, seed: int) -> None:
    model, prompts = small_model(seed=seed), random_prompts(seed, sizes)
    sampling = Sampling(temperature=1.0)
    seeds = list(range(len(sizes)))
    ar = Autoregressive(sampling=sampling).generate(model, canvas_of(prompts, new, seeds=seeds))
    blocks = BlockDiffusion(block_length=1, sampling=sampling).generate(
        model, canvas_of(prompts, new, seeds=seeds)
    )
    assert ar.sequences() == blocks.sequences()


@quick
@given(batch=st.integers(1, 3), length=st.integers(1, 12), steps=st.integers(1, 6), seed=SEEDS)
def test_one_block_equals_mask_predict(batch: int, length: int, steps: int, seed: int) -> None:
    model = small_model(seed=seed)
    values = torch.zeros(batch, length, dtype=torch.int64)
    steps = min(steps, length)
    predicted = NonAutoregressive(commit=ConfidenceQuota(steps)).generate(model, Canvas(values))
    block = BlockDiffusion(
        block_length=length, steps=steps, remasking="low_confidence_static"
    ).generate(model, Canvas(values))
    assert predicted.sequences() == block.sequences()
    assert predicted.forwards == block.forwards == min(steps, length)


@quick
@given(
    K=st.integers(1, 6),
    steps=st.integers(1, 8),
    remasking=REMASKING,
    prompt=st.integers(0, 7),
    seed=SEEDS,
)
def test_a_quota_never_exceeds_what_is_open(
    K: int, steps: int, remasking: str, prompt: int, seed: int
) -> None:
    model = small_model(seed=seed)
    canvas = canvas_of(random_prompts(seed, [prompt]), 9)
    decoder = BlockDiffusion(block_length=K, steps=steps, remasking=remasking)  # type: ignore[arg-type]
    kept = sum(int(event.kept_BQ.sum()) for event in decoder.stream(model, canvas))
    assert kept == 9
    assert bool((canvas.state_BS == 1).all())


@quick
@given(seed=SEEDS, batch=st.integers(1, 4))
def test_same_seed_same_sample_and_another_seed_another(seed: int, batch: int) -> None:
    model = small_model(seed=1, sharpness=0.5)
    sampling = Sampling(temperature=1.0)
    seeds = [seed + i for i in range(batch)]
    prompts: list[list[int]] = [[] for _ in range(batch)]
    first = Autoregressive(sampling=sampling).generate(model, canvas_of(prompts, 12, seeds=seeds))
    again = Autoregressive(sampling=sampling).generate(model, canvas_of(prompts, 12, seeds=seeds))
    assert first.sequences() == again.sequences()
    assert len({tuple(s) for s in first.sequences()}) == batch


@quick
@given(
    order=st.sampled_from([Raster(), Blocks(2), Blocks(3), Whole()]),
    batch=st.integers(1, 3),
    length=st.integers(1, 9),
    cross=st.booleans(),
    seed=SEEDS,
)
def test_one_pass_training_logits_equal_decode_logits(
    order: Order, batch: int, length: int, cross: bool, seed: int
) -> None:
    """Everything masked: the first pass of each group of a decode forced to the targets."""
    model = small_model(seed=seed, cross=cross)
    context = random_context(seed, batch) if cross else None
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(VOCABULARY, (batch, length), generator=generator)
    table = order.table(length, targets.device)

    slots = torch.arange(length).repeat(2)[None]
    copy = torch.zeros_like(slots)
    copy[:, :length] = NOISY
    info = SlotInfo(group=table.group_S[slots], position=slots, copy=copy)
    masked = torch.full_like(targets, VOCABULARY)
    x = model.inputs.embed(torch.cat([masked, targets], dim=1), slots)
    with torch.inference_mode():
        hidden = model.backbone(
            x,
            table.coordinates_SA[slots],
            view=MaskView(NoisyClean(), info, info),
            cache=None,
            context=context,
        )
        trained = model.head.logits(hidden[:, :length])
    decoded = _teacher_forced_logits(model, targets, order, context)
    torch.testing.assert_close(trained, decoded, atol=2e-4, rtol=1e-3)


def _teacher_forced_logits(
    model: SequenceModel, targets: torch.Tensor, order: Order, context: object
) -> torch.Tensor:
    """Logits of a real decode in which every committed value is replaced by the target."""
    logits = torch.zeros(*targets.shape, VOCABULARY)
    canvas = Canvas(torch.zeros_like(targets))

    class Force(ConfidenceQuota):
        def __call__(self, proposal, open_BQ, size_B, refinement):  # type: ignore[no-untyped-def]
            slots = current[0].expand(targets.shape[0], -1)
            logits.scatter_(1, slots[..., None].expand_as(proposal.logits_BQV), proposal.logits_BQV)
            proposal.values.copy_(targets.gather(1, slots))
            return open_BQ

        def passes(self, size: int, opened: int) -> tuple[int, int]:
            return 1, 1

    current = [torch.zeros(1, 1, dtype=torch.int64)]
    propose = model.head.propose

    def remember(hidden, request):  # type: ignore[no-untyped-def]
        current[0] = request.slots_BQ
        return propose(hidden, request)

    model.head.propose = remember  # type: ignore[method-assign]
    for _ in decode(model, canvas, context, Recipe(order=order, commit=Force(1))):  # type: ignore[arg-type]
        pass
    return logits


@quick
@given(seed=SEEDS, size=st.integers(1, 5), new=st.integers(1, 8))
def test_masks_that_hide_the_past_are_obeyed_with_a_cache(seed: int, size: int, new: int) -> None:
    model = small_model(seed=seed, mask=Causal() & Window(size), shifted=True)
    prompts = random_prompts(seed, [4, 2])
    cached = Autoregressive().generate(model, canvas_of(prompts, new))
    uncached = Autoregressive(cached=False).generate(model, canvas_of(prompts, new))
    assert cached.sequences() == uncached.sequences()


def test_shifted_inputs_refuse_blocks() -> None:
    with pytest.raises(ValueError, match="one slot a group"):
        BlockDiffusion(block_length=2).generate(small_model(shifted=True), canvas_of([[1]], 4))


def test_rows_stop_on_their_own() -> None:
    """A row that has stopped keeps its length while others go on."""
    model = small_model(seed=3)
    free = Autoregressive().generate(model, canvas_of([[1], [2], [5]], 12))
    stop = free.sequences()[0][2]
    stopped = Autoregressive(stop_ids=(stop,)).generate(model, canvas_of([[1], [2], [5]], 12))
    for before, after in zip(free.sequences(), stopped.sequences(), strict=True):
        cut = before.index(stop) + 1 if stop in before else len(before)
        assert after == before[:cut]
    assert stopped.finished_B.tolist() == [stop in row for row in free.sequences()]


def test_block_causal_groups_of_one_are_causal() -> None:
    index = torch.arange(6)[None]
    info = SlotInfo(group=index, position=index)
    same = BlockCausal()(info.column(), info.row()) == Causal()(info.column(), info.row())
    assert bool(same.all())


def test_no_pass_is_spent_when_every_row_is_full() -> None:
    """Rows with longer prompts end earlier; the passes are those of the longest generation."""
    model, prompts = small_model(), random_prompts(0, [5, 3])
    done = Autoregressive().generate(model, canvas_of(prompts, 8))
    assert done.forwards == 8
    assert [len(row) for row in done.sequences()] == [8, 8]


@pytest.mark.parametrize("known", [0, 4])
def test_mask_predict_takes_its_steps_whatever_is_given(known: int) -> None:
    canvas = canvas_of(random_prompts(0, [known]), 8)
    assert NonAutoregressive(steps=8).generate(small_model(), canvas).forwards == 8
