"""Speculative decoding: the output of the target, whatever the drafts."""

from __future__ import annotations

import itertools
from dataclasses import replace
from importlib.metadata import EntryPoint
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from small_models import (
    VOCABULARY,
    canvas_of,
    random_context,
    random_prompts,
    row_of,
    small_model,
)
from torch import Tensor, nn

from seqgen.canvas import COMMITTED, Canvas
from seqgen.catalogue import CORE_DECODERS
from seqgen.decoders import Autoregressive, Generated, Speculative
from seqgen.drafts import Drafter, DraftModel, NgramLookup
from seqgen.errors import ConfigError, InputError
from seqgen.events import Event
from seqgen.guidance import GuidedModel, guided_context
from seqgen.heads import CategoricalHead
from seqgen.inputs import ShiftedInputs
from seqgen.logits import RepetitionPenalty, Sampling, TopK, TopP
from seqgen.masks import Causal, Window
from seqgen.model import Context, SequenceModel
from seqgen.orders import Raster
from seqgen.raster import Front
from seqgen.transformer import Transformer, TransformerConfig

SEEDS = st.integers(0, 10_000)
SIZES = st.lists(st.integers(0, 9), min_size=1, max_size=4)
quick = settings(max_examples=25, deadline=None)


@st.composite
def drafters(draw: st.DrawFn) -> Drafter:
    """A lookup, the target itself (seed 0), nearly the target, or an unrelated model."""
    if draw(st.booleans()):
        shortest = draw(st.integers(1, 2))
        return NgramLookup(longest=draw(st.integers(shortest, 4)), shortest=shortest)
    model = small_model(seed=draw(st.integers(0, 3)), shifted=True, sharpness=2.0)
    if draw(st.booleans()):
        model = noisy(target(), draw(st.sampled_from([0.0, 0.02, 0.1])))
    return DraftModel(model)


def target() -> SequenceModel:
    return small_model(seed=0, shifted=True, sharpness=2.0)


def noisy(model: SequenceModel, scale: float) -> SequenceModel:
    """The model with weights a little off, so that many of its drafts are right."""
    generator = torch.Generator().manual_seed(5)
    for parameter in model.parameters():
        parameter.data += scale * torch.randn(parameter.shape, generator=generator)
    return model


def run(
    decoder: Any, model: SequenceModel, prompts: list[list[int]], new: int, **kwargs: Any
) -> Generated:
    seeds = [11 * i for i in range(len(prompts))]
    result: Generated = decoder.generate(model, canvas_of(prompts, new, seeds=seeds), **kwargs)
    return result


@quick
@given(
    draft=drafters(),
    sizes=SIZES,
    new=st.integers(1, 12),
    K=st.integers(1, 14),
    seed=SEEDS,
    stop_ids=st.sampled_from([(), (3,), (1, 2, 3, 4, 5, 6)]),
    cached=st.booleans(),
)
def test_greedy_output_is_that_of_autoregressive(
    draft: Drafter,
    sizes: list[int],
    new: int,
    K: int,
    seed: int,
    stop_ids: tuple[int, ...],
    cached: bool,
) -> None:
    model, prompts = target(), random_prompts(seed, sizes)
    plain = run(Autoregressive(stop_ids=stop_ids), model, prompts, new)
    decoder = Speculative(draft=draft, draft_length=K, stop_ids=stop_ids, cached=cached)
    done = run(decoder, model, prompts, new)
    assert done.sequences() == plain.sequences()
    assert done.finished_B.tolist() == plain.finished_B.tolist()
    assert done.length_B.tolist() == plain.length_B.tolist()
    assert done.forwards <= plain.forwards
    for row in range(len(prompts)):
        own = slice(0, int(done.length_B[row]))
        torch.testing.assert_close(
            done.confidence_BS[row, own], plain.confidence_BS[row, own], atol=1e-4, rtol=1e-3
        )


@quick
@given(
    longest=st.integers(1, 4),
    sizes=SIZES,
    new=st.integers(1, 12),
    K=st.integers(1, 6),
    seed=SEEDS,
    processors=st.sampled_from([(), (TopP(0.9),), (RepetitionPenalty(1.5), TopK(6))]),
)
def test_lookup_gives_the_very_samples_of_autoregressive(
    longest: int, sizes: list[int], new: int, K: int, seed: int, processors: tuple[Any, ...]
) -> None:
    """Certain drafts: the target's own value is drawn from its own noise."""
    sampling = Sampling(temperature=0.7, constraints=processors[:1], filters=processors[1:])
    prompts = random_prompts(seed, sizes)
    plain = run(Autoregressive(sampling=sampling, stop_ids=(3,)), target(), prompts, new)
    decoder = Speculative(
        draft=NgramLookup(longest=longest), draft_length=K, sampling=sampling, stop_ids=(3,)
    )
    assert run(decoder, target(), prompts, new).sequences() == plain.sequences()


@quick
@given(
    draft=drafters(),
    sizes=SIZES,
    new=st.integers(1, 10),
    K=st.integers(1, 6),
    seed=SEEDS,
    temperature=st.sampled_from([0.0, 1.0]),
    processors=st.sampled_from([(), (TopK(4),), (RepetitionPenalty(1.5),)]),
)
def test_a_row_of_a_batch_equals_the_row_alone(
    draft: Drafter,
    sizes: list[int],
    new: int,
    K: int,
    seed: int,
    temperature: float,
    processors: tuple[Any, ...],
) -> None:
    sampling = Sampling(temperature=temperature, constraints=processors)
    decoder = Speculative(draft=draft, draft_length=K, sampling=sampling, stop_ids=(3, 4))
    model, prompts = target(), random_prompts(seed, sizes)
    news = [new + row % 3 for row in range(len(prompts))]
    seeds = torch.arange(len(prompts)) + seed
    batch = decoder.generate(model, Canvas.tokens(prompts, new=news, seeds=seeds))
    for row, prompt in enumerate(prompts):
        own = Canvas.tokens([prompt], new=news[row], seeds=seeds[row : row + 1])
        alone = decoder.generate(model, own)
        assert alone.sequences()[0] == batch.sequences()[row]
        again = replace(decoder, cached=False).generate(
            model, Canvas.tokens([prompt], new=news[row], seeds=seeds[row : row + 1])
        )
        assert again.sequences() == alone.sequences()


def test_rows_of_different_room_sample_as_alone() -> None:
    """Near their end rows draft less than others, and so draw the same numbers as alone."""
    model = small_model(seed=0, shifted=True, sharpness=0.5)
    draft = DraftModel(small_model(seed=1, shifted=True, sharpness=0.5))
    decoder = Speculative(draft=draft, draft_length=4, sampling=Sampling(temperature=1.0))
    prompts = random_prompts(0, [2] * 20)
    news, seeds = [1 + row % 5 for row in range(20)], torch.arange(20)
    batch = decoder.generate(model, Canvas.tokens(prompts, new=news, seeds=seeds))
    for row, prompt in enumerate(prompts):
        own = Canvas.tokens([prompt], new=news[row], seeds=seeds[row : row + 1])
        assert decoder.generate(model, own).sequences()[0] == batch.sequences()[row]


@quick
@given(draft=drafters(), sizes=SIZES, K=st.integers(1, 5), seed=SEEDS, hot=st.booleans())
def test_events_say_what_stands_and_the_prompt_never_changes(
    draft: Drafter, sizes: list[int], K: int, seed: int, hot: bool
) -> None:
    prompts = random_prompts(seed, sizes)
    canvas = canvas_of(prompts, 8, seeds=list(range(len(sizes))))
    # What lies in open slots has no meaning, not even that of an id.
    canvas.values[canvas.state_BS != COMMITTED] = -1
    sampling = Sampling(temperature=float(hot))
    decoder = Speculative(draft=draft, draft_length=K, sampling=sampling, stop_ids=(3,))
    committed: dict[tuple[int, int], int] = {}
    for event in decoder.stream(target(), canvas):
        slots = event.slots_BQ.expand(canvas.batch, -1)
        for row, column in event.kept_BQ.nonzero().tolist():
            slot = int(slots[row, column])
            assert slot >= len(prompts[row])
            assert (row, slot) not in committed, "a slot was committed twice"
            committed[row, slot] = int(event.values[row, column])
        standing = {(r, s) for r, s in (canvas.state_BS == COMMITTED).nonzero().tolist()}
        given_slots = {(r, s) for r, prompt in enumerate(prompts) for s in range(len(prompt))}
        assert standing == given_slots | set(committed), "a rejected draft stands"
        assert event.rolled_back_BQ is not None
        for row, column in event.rolled_back_BQ.nonzero().tolist():
            kept = event.kept_BQ[row]
            assert not kept[column] or int(kept.nonzero().max()) == column
    for row, prompt in enumerate(prompts):
        assert canvas.values[row, : len(prompt)].tolist() == prompt
        assert not (canvas.state_BS[row, int(canvas.length_B[row]) :] == COMMITTED).any()
    for (row, slot), value in committed.items():
        assert canvas.values[row, slot] == value


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("sizes", [[3], [3, 3], [0, 5, 2]])
@pytest.mark.parametrize(("K", "new"), [(1, 8), (3, 12), (4, 11), (20, 6)])
def test_the_target_accepts_its_own_drafts(
    temperature: float, sizes: list[int], K: int, new: int
) -> None:
    model, prompts = target(), random_prompts(0, sizes)
    decoder = Speculative(
        draft=DraftModel(model), draft_length=K, sampling=Sampling(temperature=temperature)
    )
    done = run(decoder, model, prompts, new)
    assert done.forwards == -(-new // (K + 1))
    # A row's last slot is never drafted: the verifying pass gives it.
    rounds = [min(K, new - 1 - start) for start in range(0, new, K + 1)]
    assert done.draft_forwards == sum(rounds)


def test_repetitions_are_copied() -> None:
    """A greedy target that walks in a circle is followed as soon as the circle closes."""
    model, period = target(), 4

    class Circle(CategoricalHead):
        def propose(self, hidden_BQD: Tensor, request: Any) -> Any:
            proposal = super().propose(hidden_BQD, request)
            values = (request.slots_BQ % period).expand_as(proposal.values)
            return replace(proposal, values=values.contiguous())

    model.head = Circle(24, VOCABULARY)
    decoder = Speculative(draft=NgramLookup(), draft_length=7)
    done = run(decoder, model, [[0, 1, 2, 3], [0, 1, 2, 3, 0, 1]], 32)
    assert [row[:8] for row in done.sequences()] == [
        [0, 1, 2, 3, 0, 1, 2, 3],
        [2, 3, 0, 1, 2, 3, 0, 1],
    ]
    # Row 0 needs one value before anything repeats; then eight slots a pass.
    assert done.forwards == 1 + 4
    assert done.draft_forwards == 0


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.lists(st.integers(0, 2), max_size=10), min_size=1, max_size=3),
    longest=st.integers(1, 4),
    shortest=st.integers(1, 2),
    K=st.integers(1, 5),
)
def test_lookup_against_its_definition(
    rows: list[list[int]], longest: int, shortest: int, K: int
) -> None:
    longest = max(longest, shortest)
    lookup = NgramLookup(longest=longest, shortest=shortest)
    canvas = canvas_of(rows, K + 1)
    table = Raster().table(canvas.slots, canvas.device)
    lengths = [len(row) for row in rows]
    front = Front(torch.tensor(lengths), min(lengths), max(lengths))
    drafts = lookup.start(target(), canvas, table, None, Sampling(), cached=True)
    draft = drafts.propose(front, K)
    for number, row in enumerate(rows):
        want = _lookup(row, longest, shortest, K)
        wanted = draft.wanted_BK[number]
        assert bool(wanted.any()) == bool(want)
        if want:
            assert draft.values_BK[number].tolist() == want
            end = len(row) + K
            assert canvas.values[number, len(row) : end].tolist() == want
            assert bool((canvas.state_BS[number, :end] == COMMITTED).all())


def _lookup(row: list[int], longest: int, shortest: int, count: int) -> list[int]:
    for size in range(longest, shortest - 1, -1):
        for end in range(len(row) - 1, size - 1, -1):
            if len(row) >= size and row[end - size : end] == row[len(row) - size :]:
                grown = list(row)
                for step in range(count):
                    grown.append(grown[end + step])
                return grown[len(row) :]
    return []


ROWS, FEW, NEW = 6000, 4, 3


def tiny_model(seed: int) -> SequenceModel:
    """Four values, far from uniform."""
    torch.manual_seed(seed)
    config = TransformerConfig(width=8, layers=1, heads=2)
    head = CategoricalHead(8, FEW)
    head.weight.data *= 1.5
    inputs = ShiftedInputs(nn.Embedding(FEW + 1, 8), start_id=FEW)
    return SequenceModel(inputs=inputs, backbone=Transformer(config), head=head).eval()


def exact_distribution(model: SequenceModel, sampling: Sampling) -> Tensor:
    """Probability of each of the FEW ** NEW sequences, by asking the model slot by slot."""
    outcomes = torch.tensor(list(itertools.product(range(FEW), repeat=NEW)))
    mass = torch.ones(len(outcomes))
    for slot in range(NEW):
        canvas = Canvas(outcomes[:, : slot + 1], prompt=slot)
        asked: list[Tensor] = []
        propose = model.head.propose

        def remember(hidden: Tensor, request: Any, propose: Any = propose) -> Any:
            proposal = propose(hidden, request)
            asked.append(proposal.logits_BQV)  # noqa: B023
            return proposal

        model.head.propose = remember  # type: ignore[method-assign, assignment]
        Autoregressive(sampling=sampling).generate(model, canvas)
        model.head.propose = propose  # type: ignore[method-assign]
        chance = asked[0].softmax(dim=-1)[:, 0]
        mass = mass * chance.gather(1, outcomes[:, slot : slot + 1])[:, 0]
    return mass


def p_value(done: Generated, mass: Tensor) -> float:
    """Chi-square test of the rows' sequences against their probabilities; rare ones are pooled."""
    digits = torch.tensor([FEW**i for i in range(NEW - 1, -1, -1)])
    index = (done.values * digits).sum(dim=1)
    counts = torch.bincount(index, minlength=FEW**NEW).double()
    expected = mass.double() * ROWS / mass.double().sum()
    assert int(counts[expected == 0].sum()) == 0, "a value of probability 0 was chosen"
    rare = expected < 5
    counts = torch.cat([counts[~rare], counts[rare].sum()[None]])
    expected = torch.cat([expected[~rare], expected[rare].sum()[None]])
    if expected[-1] < 1:
        counts, expected = counts[:-1], expected[:-1] * counts[:-1].sum() / expected[:-1].sum()
    return float(chisquare(counts.numpy(), expected.numpy()).pvalue)


SAMPLINGS = {
    "plain": Sampling(temperature=1.0),
    "cold": Sampling(temperature=0.6),
    "top-k": Sampling(temperature=1.3, filters=(TopK(3),)),
    "repetition": Sampling(temperature=1.0, constraints=(RepetitionPenalty(3.0),)),
}


@pytest.mark.parametrize("sampling", SAMPLINGS.values(), ids=SAMPLINGS)
@pytest.mark.parametrize("K", [1, 2])
def test_samples_have_the_distribution_of_the_target(sampling: Sampling, K: int) -> None:
    model, bad = tiny_model(1), tiny_model(2)
    mass = exact_distribution(model, sampling)
    assert mass.sum() == pytest.approx(1, abs=1e-4)
    decoder = Speculative(draft=DraftModel(bad), draft_length=K, sampling=sampling)
    canvas = Canvas.tokens([[]] * ROWS, new=NEW, seeds=torch.arange(ROWS))
    accepted, drafted = 0, 0

    def count(event: Event) -> None:
        nonlocal accepted, drafted
        assert event.rolled_back_BQ is not None
        kept, undone = int(event.kept_BQ.sum()), int(event.rolled_back_BQ.sum())
        working = int(event.kept_BQ.any(dim=1).sum())
        accepted += kept - working
        drafted += kept - working + undone

    done = decoder.generate(model, canvas, on_event=count)
    assert p_value(done, mass) > 1e-3
    assert 0.2 < accepted / drafted < 0.95, "the drafts are to be bad, not useless"
    # The test has teeth: the drafts' own distribution is far off.
    own = Autoregressive(sampling=sampling).generate(
        bad, Canvas.tokens([[]] * ROWS, new=NEW, seeds=torch.arange(ROWS))
    )
    digits = torch.tensor([FEW**i for i in range(NEW - 1, -1, -1)])
    counts = torch.bincount((own.values * digits).sum(dim=1), minlength=FEW**NEW) / ROWS
    assert float((counts - mass).abs().sum()) > 0.2


@pytest.mark.parametrize("sampling", SAMPLINGS.values(), ids=SAMPLINGS)
def test_samples_with_lookup_have_the_distribution_of_the_target(sampling: Sampling) -> None:
    model = tiny_model(1)
    decoder = Speculative(draft=NgramLookup(), draft_length=2, sampling=sampling)
    canvas = Canvas.tokens([[]] * ROWS, new=NEW, seeds=torch.arange(ROWS))
    done = decoder.generate(model, canvas)
    assert p_value(done, exact_distribution(model, sampling)) > 1e-3


@pytest.mark.parametrize("kind", ["raw", "temperature", "filtered"])
def test_confidence_is_the_targets_by_the_chosen_definition(kind: Any) -> None:
    """Of the values that stand, whether they were drafted or not."""
    sampling = Sampling(temperature=0.5, filters=(TopK(3),), confidence=kind)
    model = target()
    canvas = canvas_of([[1], [2, 3]], 6, seeds=[5, 6])
    done = Speculative(draft=DraftModel(noisy(target(), 0.1)), sampling=sampling).generate(
        model, canvas
    )
    for row, length in enumerate(done.length_B.tolist()):
        for slot in range(int(done.prompt_B[row]), length):
            scores = _scores(model, done.values[row : row + 1, : slot + 1], sampling)
            want = float(scores.softmax(-1)[done.values[row, slot]])
            assert float(done.confidence_BS[row, slot]) == pytest.approx(want, abs=1e-4)


def _scores(model: SequenceModel, values: Tensor, sampling: Sampling) -> Tensor:
    """The logits that define the confidence at the last slot of one row."""
    slots = torch.arange(values.shape[1])[None]
    canvas = Canvas(values, prompt=values.shape[1] - 1)
    table = Raster().table(values.shape[1], values.device)
    with torch.inference_mode():
        logits = model.head.logits(model.hidden(canvas, table, slots)[:, -1:])  # type: ignore[attr-defined]
    if sampling.confidence != "raw":
        logits = logits / sampling.temperature
    if sampling.confidence == "filtered":
        for processor in sampling.filters:
            logits = processor(logits, canvas, slots[:, -1:])
    result: Tensor = logits[0, 0]
    return result


@quick
@given(sizes=SIZES, seed=SEEDS, K=st.integers(1, 4), own=st.booleans())
def test_contexts_of_target_and_draft(sizes: list[int], seed: int, K: int, own: bool) -> None:
    model = small_model(seed=0, shifted=True, cross=True)
    draft_model = small_model(seed=1, shifted=True, cross=True)
    context = random_context(seed, len(sizes), ragged=True)
    drafted: Context | None = random_context(seed + 1, len(sizes)) if own else None
    decoder = Speculative(draft=DraftModel(draft_model, drafted), draft_length=K)
    prompts = random_prompts(seed, sizes)
    plain = run(Autoregressive(), model, prompts, 7, context=context)
    assert run(decoder, model, prompts, 7, context=context).sequences() == plain.sequences()
    if not own:
        for row, prompt in enumerate(prompts):
            alone = run(decoder, model, [prompt], 7, context=row_of(context, row))
            assert alone.sequences()[0] == plain.sequences()[row]


@pytest.mark.parametrize("sizes", [[2, 2], [0, 3, 1]])
def test_a_guided_target_with_an_unguided_draft(sizes: list[int]) -> None:
    model = small_model(cross=True, shifted=True)
    contexts = [random_context(seed, len(sizes)) for seed in (1, 2)]
    guided, both = GuidedModel(model, scale=2.0), guided_context(*contexts)
    prompts = random_prompts(0, sizes)
    plain = run(Autoregressive(), guided, prompts, 9, context=both)
    decoder = Speculative(draft=DraftModel(model, contexts[0]), draft_length=3)
    assert run(decoder, guided, prompts, 9, context=both).sequences() == plain.sequences()


def test_masks_that_hide_the_past_are_obeyed() -> None:
    model = small_model(seed=0, shifted=True, mask=Causal() & Window(3))
    draft = DraftModel(small_model(seed=1, shifted=True, mask=Causal() & Window(2)))
    prompts = random_prompts(0, [4, 2, 7])
    plain = run(Autoregressive(), model, prompts, 10)
    for drafter in (draft, DraftModel(model), NgramLookup()):
        assert run(Speculative(draft=drafter), model, prompts, 10).sequences() == plain.sequences()


def test_rows_without_room_change_nothing() -> None:
    prompts, new = [[], [1, 2, 3], [4]], [0, 5, 2]
    for drafter in (NgramLookup(), DraftModel(noisy(target(), 0.1))):
        for sampling in (Sampling(), Sampling(temperature=1.0)):
            decoder = Speculative(draft=drafter, draft_length=3, sampling=sampling)
            seeds = torch.arange(3)
            done = decoder.generate(target(), Canvas.tokens(prompts, new=new, seeds=seeds))
            assert [len(row) for row in done.sequences()] == new
            alone = Canvas.tokens([[1, 2, 3]], new=5, seeds=seeds[1:2])
            assert decoder.generate(target(), alone).sequences()[0] == done.sequences()[1]
        # A row that is full from the start is fed, to no effect, beside one that drafts far ahead.
        decoder = Speculative(draft=drafter, draft_length=9)
        full = decoder.generate(target(), Canvas.tokens([[], [1] * 10], new=[10, 0]))
        alone = Canvas.tokens([[]], new=10)
        assert full.sequences() == [decoder.generate(target(), alone).sequences()[0], []]
    nothing = Speculative().generate(target(), Canvas.tokens([[1], []], new=0))
    assert nothing.forwards == 0


def test_the_cache_stays_as_wide_as_what_is_decoded() -> None:
    """Rejected drafts leave no trace: passes look at no more entries than the row has."""
    model, seen = target(), []
    hidden = model.hidden

    def watch(*args: Any, **kwargs: Any) -> Tensor:
        result = hidden(*args, **kwargs)
        seen.append(kwargs["cache"].bound)
        return result

    model.hidden = watch  # type: ignore[method-assign]
    draft = DraftModel(small_model(seed=9, shifted=True, sharpness=2.0))
    run(Speculative(draft=draft, draft_length=5), model, random_prompts(0, [3, 6]), 30)
    assert len(seen) > 15
    assert max(seen) <= 36


def test_bad_input() -> None:
    model, masked = target(), small_model()
    canvas = canvas_of([[1]], 4)
    with pytest.raises(ValueError, match="draft_length must be at least 1, not 0"):
        Speculative(draft_length=0)
    with pytest.raises(ValueError, match="shortest <= longest"):
        NgramLookup(longest=1, shortest=2)
    with pytest.raises(ValueError, match="the target needs shifted inputs, not Masked"):
        Speculative().generate(masked, canvas)
    with pytest.raises(ValueError, match="the draft model needs shifted inputs"):
        Speculative(draft=DraftModel(masked)).generate(model, canvas)
    known = Canvas(torch.ones(1, 4).long(), given=torch.tensor([[False, False, True, False]]))
    with pytest.raises(ValueError, match="known slots"):
        Speculative().generate(model, known)
    for who, wrong, good in (
        ("the target has no start token", True, False),
        ("the draft model has no start token", False, True),
    ):
        models = [small_model(shifted=True), small_model(shifted=True)]
        for m, startless in zip(models, (wrong, good), strict=True):
            if startless:
                m.inputs = ShiftedInputs(nn.Embedding(VOCABULARY, 24), start_id=None)
        with pytest.raises(InputError, match=who):
            Speculative(draft=DraftModel(models[1])).generate(models[0], canvas_of([[]], 3))
    other = Speculative(draft=DraftModel(tiny_model(0)), sampling=Sampling(temperature=1.0))
    with pytest.raises(ConfigError, match="the draft model has 4 values, the target 23"):
        other.generate(model, canvas)
    with pytest.raises(ConfigError, match="the draft model has 4 values, the target 23"):
        other.generate(GuidedModel(model, scale=2.0), canvas)


def test_a_draft_model_without_a_start_token_drafts_for_one_with() -> None:
    draft = small_model(seed=1, shifted=True, sharpness=2.0)
    draft.inputs = ShiftedInputs(draft.inputs.embedding, start_id=None)  # type: ignore[attr-defined]
    prompts = random_prompts(0, [1, 4, 2])
    for models in ((target(), draft), (draft, target())):
        plain = run(Autoregressive(), models[0], prompts, 9)
        decoder = Speculative(draft=DraftModel(models[1]), draft_length=3)
        assert run(decoder, models[0], prompts, 9).sequences() == plain.sequences()


def test_the_catalogue_lists_it() -> None:
    assert Speculative in {EntryPoint("x", info.factory, "x").load() for info in CORE_DECODERS}
