"""Beam search against a plain one, against brute force, and against itself run in other ways."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
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
from torch import Tensor

import seqgen.beams
import seqgen.decoders.beam
from seqgen.beams import rows_of
from seqgen.cache import Cache
from seqgen.canvas import COMMITTED, Canvas
from seqgen.constraints import Automaton
from seqgen.decoders import Autoregressive, Beam, Generated
from seqgen.errors import ConfigError, InputError
from seqgen.guidance import GuidedModel, guided_context
from seqgen.heads import CategoricalHead, Proposal, Request
from seqgen.inputs import GivenInputs
from seqgen.logits import sample_from
from seqgen.masks import BlockCausal, Causal, Window
from seqgen.model import Context, SequenceModel
from seqgen.orders import Raster
from seqgen.paths import stable_topk

SEEDS = st.integers(0, 10_000)
quick = settings(max_examples=20, deadline=None)
few = settings(max_examples=10, deadline=None)

Answer = tuple[float, list[int], bool]
"""Score, values (the prompt included), finished."""


def narrow_model(seed: int, vocabulary: int, *, sharpness: float = 2.0) -> SequenceModel:
    """A model of few values, with shifted inputs, for brute force."""
    model = small_model(seed=seed, shifted=True)
    model.head = CategoricalHead(WIDTH, vocabulary)
    model.head.weight.data *= sharpness
    return model.eval()


@torch.inference_mode()
def forced_logits(model: SequenceModel, ids: list[list[int]], context: Context | None) -> Tensor:
    """Logits [N, S, V] of sequences of one length, all in one pass; the context is one row's."""
    canvas = canvas_of(ids, 0)
    table = Raster().table(canvas.slots, canvas.device)
    wide = rows_of(context, torch.zeros(len(ids), dtype=torch.int64), 1)
    slots = torch.arange(canvas.slots)[None]
    assert isinstance(model.head, CategoricalHead)
    return model.head.logits(model.hidden(canvas, table, slots, context=wide))


def plain_beam(
    model: SequenceModel, prompt: list[int], new: int, options: Beam, context: Context | None
) -> list[Answer]:
    """Beam search by definition, for one row, without a cache and without an early end."""
    live: list[tuple[float, float, list[int]]] = [(0.0, 0.0, prompt)]
    ended: list[Answer] = []
    width = options.beams * (1 + len(options.stop_ids) * options.refill)
    for length in range(1, new + 1):
        fed = [[*ids, 0] for _, _, ids in live]
        logits = forced_logits(model, fed, context)[:, -1]
        log_p = logits.log_softmax(-1)
        gain = logits if options.score == "mean-logit" else log_p
        found = [
            (total + float(gain[k, v]), so_far + float(log_p[k, v]), [*ids, v])
            for k, (total, so_far, ids) in enumerate(live)
            for v in range(logits.shape[1])
        ]
        found.sort(key=lambda c: -c[0])
        live = []
        for rank, (total, so_far, ids) in enumerate(found[:width]):
            if ids[-1] in options.stop_ids:
                if rank < options.beams:
                    ended.append((so_far / length**options.length_penalty, ids, True))
            elif len(live) < options.beams:
                live.append((total, so_far, ids))
        if not live:
            break
    ended.sort(key=lambda a: -a[0])
    complete = not options.stop_ids
    cut = [(so_far / new**options.length_penalty, ids, complete) for _, so_far, ids in live]
    return [*ended, *sorted(cut, key=lambda a: -a[0])][: options.keep or options.beams]


def answers_of(generated: Generated, row: int) -> list[Answer]:
    found = generated.hypotheses
    assert found is not None
    scores, finished = found.score_BN[row].tolist(), found.finished_BN[row].tolist()
    return list(zip(scores, found.sequences(row), finished, strict=False))


def assert_same(found: list[Answer], wanted: list[Answer]) -> None:
    assert [a[1:] for a in found] == [a[1:] for a in wanted]
    assert [a[0] for a in found] == pytest.approx([a[0] for a in wanted], abs=1e-4)


@st.composite
def beams(draw: st.DrawFn) -> Beam:
    return Beam(
        beams=draw(st.integers(1, 6)),
        keep=draw(st.integers(0, 4)),
        stop_ids=draw(st.sampled_from([(), (3,), (3, 4), (1, 2, 3, 5)])),
        length_penalty=draw(st.sampled_from([0.0, 0.6, 1.0])),
        score=draw(st.sampled_from(["log-probability", "mean-logit"])),
        refill=draw(st.booleans()),
    )


@quick
@given(options=beams(), prompt=st.integers(0, 3), seed=SEEDS, cross=st.booleans())
def test_equals_a_plain_beam_search(options: Beam, prompt: int, seed: int, cross: bool) -> None:
    model = small_model(seed=seed, shifted=True, cross=cross, sharpness=1.5)
    context = random_context(seed, 3, ragged=True) if cross else None
    prompts, new = random_prompts(seed, [prompt] * 3), [7, 2, 4]
    generated = options.generate(model, Canvas.tokens(prompts, new=new), context)
    for row, room in enumerate(new):
        own = None if context is None else row_of(context, row)
        wanted = plain_beam(model, prompts[row], room, options, own)
        assert_same(answers_of(generated, row), wanted)


@few
@given(seed=SEEDS, penalty=st.sampled_from([0.0, 1.0]))
def test_a_beam_of_everything_equals_brute_force(seed: int, penalty: float) -> None:
    model, new, values = narrow_model(seed, 4), 4, range(4)
    wanted: dict[tuple[int, ...], Answer] = {}
    every = [[2, *ids] for ids in itertools.product(values, repeat=new)]
    log_p = forced_logits(model, every, None).log_softmax(-1)[:, 1:]
    for row, (_, *ids) in enumerate(every):
        length = ids.index(0) + 1 if 0 in ids else new
        score = sum(float(log_p[row, i, ids[i]]) for i in range(length)) / length**penalty
        wanted[tuple(ids[:length])] = (score, [2, *ids[:length]], 0 in ids)
    best = sorted(wanted.values(), key=lambda a: (not a[2], -a[0]))[:9]
    options = Beam(beams=4**new, keep=9, stop_ids=(0,), length_penalty=penalty)
    assert_same(answers_of(options.generate(model, canvas_of([[2]], new)), 0), best)


@quick
@given(
    batch=st.integers(1, 4),
    prompt=st.integers(0, 4),
    new=st.integers(0, 9),
    seed=SEEDS,
    shifted=st.booleans(),
    cross=st.booleans(),
    mask=st.sampled_from([BlockCausal(), Causal(), BlockCausal() & Window(3)]),
)
def test_one_beam_equals_greedy(
    batch: int, prompt: int, new: int, seed: int, shifted: bool, cross: bool, mask: Any
) -> None:
    model = small_model(seed=seed, shifted=shifted, cross=cross, mask=mask)
    context = random_context(seed, batch, ragged=True) if cross else None
    prompts, stop = random_prompts(seed, [prompt] * batch), (3, 4, 5)
    greedy = Autoregressive(stop_ids=stop).generate(model, canvas_of(prompts, new), context)
    beam = Beam(beams=1, stop_ids=stop).generate(model, canvas_of(prompts, new), context)
    assert beam.sequences() == greedy.sequences()
    assert torch.equal(beam.finished_B, greedy.finished_B)
    assert torch.equal(beam.length_B, greedy.length_B)
    used = torch.arange(prompt + new) < greedy.length_B[:, None]
    torch.testing.assert_close(beam.confidence_BS * used, greedy.confidence_BS * used)


@quick
@given(
    options=beams(),
    prompt=st.integers(0, 3),
    new=st.integers(1, 14),
    seed=SEEDS,
    shifted=st.booleans(),
    mask=st.sampled_from([BlockCausal(), Causal(), BlockCausal() & Window(4)]),
)
def test_cached_equals_uncached(
    options: Beam, prompt: int, new: int, seed: int, shifted: bool, mask: Any
) -> None:
    model = small_model(seed=seed, shifted=shifted, cross=True, mask=mask, sharpness=2.0)
    context = random_context(seed, 2, ragged=True)
    prompts = random_prompts(seed, [prompt] * 2)
    cached = options.generate(model, canvas_of(prompts, new), context)
    plain = replace(options, cached=False).generate(model, canvas_of(prompts, new), context)
    for row in range(2):
        assert_same(answers_of(cached, row), answers_of(plain, row))


@quick
@given(
    options=beams(),
    new=st.lists(st.integers(0, 9), min_size=1, max_size=5),
    seed=SEEDS,
    shifted=st.booleans(),
)
def test_a_row_of_a_batch_equals_the_row_alone(
    options: Beam, new: list[int], seed: int, shifted: bool
) -> None:
    model = small_model(seed=seed, shifted=shifted, cross=True, sharpness=2.0)
    context = random_context(seed, len(new), ragged=True)
    prompts = random_prompts(seed, [2] * len(new))
    batch = options.generate(model, Canvas.tokens(prompts, new=new), context)
    for row, room in enumerate(new):
        alone = options.generate(model, canvas_of([prompts[row]], room), row_of(context, row))
        assert_same(answers_of(batch, row), answers_of(alone, 0))
        assert batch.sequences()[row] == alone.sequences()[0]


@quick
@given(options=beams(), seed=SEEDS, prompt=st.integers(0, 3))
def test_answers_are_distinct_and_their_scores_are_the_models(
    options: Beam, seed: int, prompt: int
) -> None:
    model, new = small_model(seed=seed, shifted=True, sharpness=2.0), 8
    prompts = random_prompts(seed, [prompt] * 3)
    generated = options.generate(model, canvas_of(prompts, new))
    found = generated.hypotheses
    assert found is not None
    assert found.count == (options.keep or options.beams)
    for row, prompt_ids in enumerate(prompts):
        answers = answers_of(generated, row)
        assert len({tuple(ids) for _, ids, _ in answers}) == len(answers) > 0
        assert answers == sorted(answers, key=lambda a: (not a[2], -a[0]))
        for place, (score, ids, finished) in enumerate(answers):
            assert ids[:prompt] == prompt_ids
            values = ids[prompt:]
            stops = [v in options.stop_ids for v in values]
            assert not any(stops[:-1])
            assert finished == (stops[-1] if options.stop_ids else len(values) == new)
            log_p = forced_logits(model, [ids], None)[0, prompt:].log_softmax(-1)
            log_p = log_p.gather(1, torch.tensor(values)[:, None])[:, 0]
            confidence = found.confidence_BNS[row, place, prompt : len(ids)]
            torch.testing.assert_close(confidence, log_p.exp(), rtol=1e-4, atol=1e-6)
            total = float(log_p.sum()) / len(values) ** options.length_penalty
            assert score == pytest.approx(total, abs=1e-4)
        # The canvas holds the best.
        assert generated.sequences()[row] == answers[0][1][prompt:]


@few
@given(seed=SEEDS, shifted=st.booleans(), keep=st.integers(1, 3), penalty=st.sampled_from([0, 1]))
def test_leaving_early_and_dropping_entries_change_nothing(
    seed: int, shifted: bool, keep: int, penalty: float
) -> None:
    model = small_model(seed=seed, shifted=shifted, cross=True, sharpness=2.0)
    context = random_context(seed, 6, ragged=True)
    prompts = random_prompts(seed, [1] * 6)
    options = Beam(beams=4, keep=keep, stop_ids=(3, 4), length_penalty=penalty)
    runs, fed = [], []
    # Never compact nor drop entries; at every chance; as usual.
    for below, room in [(-1.0, 100), (1.0, 1), (None, None)]:
        with pytest.MonkeyPatch.context() as patch, counted_rows(model) as rows:
            if below is not None:
                patch.setattr(seqgen.decoders.beam, "COMPACT_BELOW", below)
                patch.setattr(seqgen.beams, "STEPS_OF_ROOM", room)
            runs.append(options.generate(model, canvas_of(prompts, 16), context))
            fed.append(sum(rows))
    for run in runs[1:]:
        for row in range(6):
            assert_same(answers_of(run, row), answers_of(runs[0], row))
    assert fed[1] <= fed[2] <= fed[0]


def test_entries_are_dropped_and_room_is_made() -> None:
    """40 steps of 5 hypotheses in a cache that begins with room for 12 and one."""
    model = small_model(seed=3, shifted=True, sharpness=1.0)
    prompts = random_prompts(3, [2, 2])
    capacities = []
    new_cache = model.backbone.new_cache

    def watched(batch: int, capacity: int) -> Any:
        cache = new_cache(batch, capacity)
        assert cache is not None
        begin = cache.begin

        def noted(*args: Any) -> None:
            begin(*args)
            capacities.append(cache.bound)

        cache.begin = noted  # type: ignore[method-assign]
        return cache

    model.backbone.new_cache = watched  # type: ignore[method-assign]
    options = Beam(beams=5)
    cached = options.generate(model, canvas_of(prompts, 40))
    plain = replace(options, cached=False).generate(model, canvas_of(prompts, 40))
    assert 3 + 13 * 5 < max(capacities) < 40 * 5 * 0.75
    for row in range(2):
        assert_same(answers_of(cached, row), answers_of(plain, row))


def test_the_cache_keeps_rows_and_entries() -> None:
    cache = Cache(layers=2, batch=3, capacity=4, heads=1, head_width=1)
    marks = torch.arange(9.0).view(3, 1, 3, 1)
    cache.begin(torch.arange(3)[None], None)
    for layer in range(2):
        cache.write(layer, marks, -marks)
    cache.settle(3)
    with pytest.raises(ValueError, match="cannot keep 4 of 3 rows"):
        cache.keep_rows(torch.tensor([0, 1, 2, 0]))
    with pytest.raises(ValueError, match="3 entries do not fit a capacity of 2"):
        cache.keep_entries(torch.zeros(3, 3, dtype=torch.int64), capacity=2)
    cache.keep_rows(torch.tensor([2, 0]))
    cache.keep_entries(torch.tensor([[2, 0], [1, 1]]), capacity=6)
    cache.begin(torch.tensor([[3]]), None)
    for layer in range(2):
        new = torch.tensor([10.0, 11.0]).view(2, 1, 1, 1)
        keys, values = cache.write(layer, new, -new)
        assert keys.flatten(1).tolist() == [[8, 6, 10], [1, 1, 11]]
        assert torch.equal(values, -keys)
    assert cache.slots_BN[:, : cache.visible].tolist() == [[2, 0, 3], [1, 1, 3]]
    assert cache.capacity == 6
    assert cache.length_B.tolist() == [2, 2]


@contextmanager
def counted_rows(model: SequenceModel) -> Iterator[list[int]]:
    """The slots fed to a model's backbone, a pass."""
    passes: list[int] = []

    def count(module: object, inputs: tuple[Tensor, ...]) -> None:
        passes.append(inputs[0].shape[0] * inputs[0].shape[1])

    assert isinstance(model.backbone, torch.nn.Module)
    hook = model.backbone.register_forward_pre_hook(count)
    yield passes
    hook.remove()


class CountDown(torch.nn.Module):
    """A backbone whose hidden state says how many values are left: a number of each context row."""

    def forward(self, x_BRD: Tensor, coordinates_BRA: Tensor, **options: Any) -> Tensor:
        cache, context = options["cache"], options["context"]
        if cache is not None:
            cache.write(0, *[x_BRD[:, None, :, :1]] * 2)
        left_BR1 = context.states_BTD[:, 0, :1, None] - coordinates_BRA[..., 0, None].float()
        return left_BR1.expand(x_BRD.shape[0], -1, -1)

    def prepare(self, context: Context) -> Context:
        return context

    def new_cache(self, batch: int, capacity: int) -> Cache:
        return Cache(layers=1, batch=batch, capacity=capacity, heads=1, head_width=1)


class StopAtZero(torch.nn.Module):
    """A head that stops, with value 0, when nothing is left, and takes any other value before."""

    def propose(self, left_BQ1: Tensor, request: Request) -> Proposal:
        stop_BQ1 = torch.where(left_BQ1 <= 0, 50.0, -50.0)
        others_V = torch.arange(1, 6) * 0.1
        others_BQV = others_V.expand(*stop_BQ1.shape[:2], -1)
        return sample_from(torch.cat([stop_BQ1, others_BQV], dim=-1), request)


def test_the_cost_is_the_total_length_of_the_answers() -> None:
    """Items that end soon leave the batch: what is fed is linear in the values generated."""
    lengths = torch.tensor([2, 30, 4, 6, 3, 12, 2, 5, 9, 3, 4, 7, 2, 3, 16, 5])
    model = SequenceModel(
        inputs=small_model(shifted=True).inputs,
        backbone=CountDown(),
        head=StopAtZero(),  # type: ignore[arg-type]
    )
    context = Context(states_BTD=(lengths - 1).float()[:, None, None])
    options, canvas = Beam(beams=3, keep=1, stop_ids=(0,)), canvas_of([[]] * len(lengths), 40)
    with counted_rows(model) as fed:
        generated = options.generate(model, canvas, context)
    assert generated.length_B.tolist() == lengths.tolist()
    assert generated.finished_B.all()
    # It is known at the next check that nothing can beat an answer.
    assert generated.forwards == len(fed) <= int(lengths.max()) + 2
    assert sum(fed) <= 3 * (int(lengths.sum()) / 0.85 + 2 * len(lengths))
    assert sum(fed) < 0.5 * 3 * len(lengths) * len(fed)


@few
@given(seed=SEEDS, shifted=st.booleans(), scale=st.sampled_from([0.0, 1.5]))
def test_guidance(seed: int, shifted: bool, scale: float) -> None:
    model = GuidedModel(small_model(seed=seed, shifted=shifted, cross=True), scale=scale)
    context = guided_context(random_context(seed, 3), random_context(seed + 1, 3))
    prompts = random_prompts(seed, [2] * 3)
    greedy = Autoregressive(stop_ids=(3, 4)).generate(model, canvas_of(prompts, 6), context)
    one = Beam(beams=1, stop_ids=(3, 4)).generate(model, canvas_of(prompts, 6), context)
    assert one.sequences() == greedy.sequences()
    options = Beam(beams=4, keep=2, stop_ids=(3, 4))
    canvas = Canvas.tokens(prompts, new=[6, 0, 5])
    cached = options.generate(model, canvas, context)
    canvas = Canvas.tokens(prompts, new=[6, 0, 5])
    plain = replace(options, cached=False).generate(model, canvas, context)
    for row in range(3):
        assert_same(answers_of(cached, row), answers_of(plain, row))


def test_embeddings_given_for_slots_are_each_items_own() -> None:
    model = small_model(seed=5, cross=True)
    model.inputs.adds_given = True  # type: ignore[attr-defined]
    context = replace(
        random_context(5, 2), given_BSD=torch.randn(2, 9, WIDTH, generator=torch.manual_seed(1))
    )
    options = Beam(beams=4, stop_ids=(3,))
    both = options.generate(model, canvas_of([[1], [2]], 8), context)
    plain = replace(options, cached=False).generate(model, canvas_of([[1], [2]], 8), context)
    for row in range(2):
        own = rows_of(context, torch.tensor([row]), 2)
        alone = options.generate(model, canvas_of([[row + 1]], 8), own)
        assert_same(answers_of(both, row), answers_of(alone, 0))
        assert_same(answers_of(both, row), answers_of(plain, row))


def test_events_show_every_pass_and_then_the_answers() -> None:
    model, prompts = small_model(seed=2, shifted=True), random_prompts(2, [2, 2])
    canvas, events = canvas_of(prompts, 6), []
    generated = Beam(beams=3, stop_ids=(3,)).generate(model, canvas, on_event=events.append)
    *passes, last = events
    assert [e.forward for e in passes] == list(range(generated.forwards))
    assert not any(e.kept_BQ.any() for e in passes)
    assert last.forward == generated.forwards - 1
    for row in range(2):
        kept = last.values[row][last.kept_BQ[row]].tolist()
        assert kept == generated.sequences()[row]
    used = torch.arange(canvas.slots) < canvas.length_B[:, None]
    assert torch.equal(canvas.state_BS == COMMITTED, used)


def test_decoders_without_several_answers_have_none() -> None:
    model = small_model(shifted=True)
    assert Autoregressive().generate(model, canvas_of([[1]], 3)).hypotheses is None


def test_logits_that_are_not_numbers_give_no_answer() -> None:
    model = small_model(shifted=True)
    assert isinstance(model.head, CategoricalHead)
    model.head.weight.data.fill_(float("nan"))
    for new in (1, 5):
        generated = Beam(beams=2, stop_ids=(3,)).generate(model, canvas_of([[1]], new))
        assert generated.hypotheses is not None
        assert generated.hypotheses.score_BN.tolist() == [[float("-inf")] * 2]
        assert generated.length_B.tolist() == [1]
        assert not generated.finished_B.any()


def test_what_cannot_be_decoded_is_refused() -> None:
    model = small_model(shifted=True)
    with pytest.raises(InputError, match="prompts of 1 to 2 values"):
        Beam().generate(model, canvas_of([[1], [1, 2]], 3))
    known = torch.tensor([[False, True, False]])
    with pytest.raises(ValueError, match="known slots"):
        Beam().generate(model, Canvas(torch.zeros(1, 3, dtype=torch.int64), given=known))
    model.inputs = GivenInputs()
    with pytest.raises(ValueError, match="decided so far"):
        Beam().generate(model, canvas_of([[1]], 3))
    for wrong in ({"beams": 0}, {"keep": -1}, {"length_penalty": -0.5}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            Beam(**wrong)  # type: ignore[arg-type]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
@pytest.mark.parametrize("shifted", [True, False])
@pytest.mark.parametrize("beams", [4, 130])  # many queries take another attention backend
def test_on_a_cuda_device(shifted: bool, beams: int) -> None:
    model = small_model(seed=7, shifted=shifted, cross=True, sharpness=2.0).double()
    context, prompts = random_context(7, 3, ragged=True), random_prompts(7, [2] * 3)
    context = replace(context, states_BTD=context.states_BTD.double())  # type: ignore[union-attr]
    ban = Automaton.banning([0, 1], vocabulary=VOCABULARY)
    options = Beam(beams=beams, keep=4, stop_ids=(3, 4), constraint=ban)
    here = options.generate(model, Canvas.tokens(prompts, new=[9, 0, 20]), context)
    assert context.valid_BT is not None
    there = Context(states_BTD=context.states_BTD.cuda(), valid_BT=context.valid_BT.cuda())
    canvas = Canvas.tokens(prompts, new=[9, 0, 20], device="cuda")
    cuda = options.generate(model.cuda(), canvas, there)
    for row in range(3):
        assert_same(answers_of(cuda, row), answers_of(here, row))


@given(
    rows=st.lists(
        st.lists(
            st.sampled_from([-2.5, -1.0, 0.0, 1.0, 3e38, float("-inf")]), min_size=6, max_size=6
        ),
        min_size=1,
        max_size=3,
    ),
    k=st.integers(1, 9),
)
@settings(max_examples=60, deadline=None)
def test_of_equal_scores_the_first_come(rows: list[list[float]], k: int) -> None:
    values, indices = stable_topk(torch.tensor(rows), k)
    wanted = torch.tensor(rows).sort(dim=1, descending=True, stable=True)
    inside = min(k, 6)
    assert torch.equal(values[:, :inside], wanted.values[:, :inside])
    assert torch.equal(indices[:, :inside], wanted.indices[:, :inside])
    assert (values[:, inside:] == float("-inf")).all()
    assert values.shape == indices.shape == (len(rows), k)


def test_uniform_logits_choose_the_lowest_values() -> None:
    model = small_model(shifted=True)
    assert isinstance(model.head, CategoricalHead)
    model.head.weight.data.zero_()
    generated = Beam(beams=2).generate(model, canvas_of([[]], 2))
    assert generated.hypotheses is not None
    assert generated.hypotheses.sequences(0) == [[0, 0], [0, 1]]
