"""Logits processors against their definitions, and sampling against its distribution."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from seqgen import noise
from seqgen.canvas import Canvas
from seqgen.heads.base import Request
from seqgen.logits import (
    Ban,
    Confidence,
    LogitsProcessor,
    MinP,
    RepetitionPenalty,
    Sampling,
    TopK,
    TopP,
    sample_from,
)

# Steps of a quarter: apart by more than rounding, so that a definition decides every case.
LOGITS = st.lists(st.integers(-24, 24).map(lambda n: n / 4), min_size=1, max_size=9, unique=True)
quick = settings(max_examples=80, deadline=None)


def apply(
    processor: LogitsProcessor, logits: list[float], values: tuple[int, ...] = ()
) -> list[float]:
    canvas = Canvas(torch.tensor([[*values, 0]]), prompt=len(values))
    return processor(torch.tensor([[logits]]), canvas, torch.tensor([[len(values)]]))[0, 0].tolist()


def probabilities(logits: list[float]) -> list[float]:
    total = sum(math.exp(x) for x in logits)
    return [math.exp(x) / total for x in logits]


def only(logits: list[float], kept: set[int]) -> list[float]:
    return [x if i in kept else -math.inf for i, x in enumerate(logits)]


@quick
@given(logits=LOGITS, k=st.integers(1, 12))
def test_top_k_keeps_the_k_best(logits: list[float], k: int) -> None:
    best = sorted(range(len(logits)), key=lambda i: -logits[i])[:k]
    assert apply(TopK(k), logits) == only(logits, set(best))


@quick
@given(logits=LOGITS, p=st.sampled_from([0.01, 0.3, 0.5, 0.9, 1.0]))
def test_top_p_keeps_the_smallest_set_that_reaches_p(logits: list[float], p: float) -> None:
    chances = probabilities(logits)
    kept: set[int] = set()
    mass = 0.0
    for i in sorted(range(len(logits)), key=lambda i: -logits[i]):
        if abs(mass - p) < 1e-5:  # on the edge rounding decides
            return
        if mass >= p:
            break
        kept.add(i)
        mass += chances[i]
    assert apply(TopP(p), logits) == only(logits, kept)


@quick
@given(logits=LOGITS, p=st.sampled_from([0.0, 0.05, 0.5, 1.0]))
def test_min_p_is_relative_to_the_best(logits: list[float], p: float) -> None:
    chances = probabilities(logits)
    if any(abs(chance - p * max(chances)) < 1e-6 for chance in chances if chance < max(chances)):
        return
    kept = {i for i, chance in enumerate(chances) if chance >= p * max(chances)}
    assert apply(MinP(p), logits) == only(logits, kept)


@quick
@given(
    logits=LOGITS,
    seen=st.lists(st.integers(0, 8), max_size=4),
    penalty=st.sampled_from([0.5, 1.0, 1.7]),
)
def test_repetition_penalty(logits: list[float], seen: list[int], penalty: float) -> None:
    """Ids beyond the logits (a start token in the prompt) count for nothing."""
    want = [
        (x / penalty if x > 0 else x * penalty) if i in seen else x for i, x in enumerate(logits)
    ]
    assert apply(RepetitionPenalty(penalty), logits, tuple(seen)) == pytest.approx(want, rel=1e-6)


def test_an_open_slot_s_leftover_value_is_not_a_repetition() -> None:
    """Slot 0 is open and holds 0: only what is committed counts."""
    assert apply(RepetitionPenalty(2.0), [4.0, 4.0, 4.0], (1,)) == [4.0, 2.0, 4.0]


@quick
@given(logits=LOGITS, ids=st.lists(st.integers(0, 12), max_size=3))
def test_ban(logits: list[float], ids: list[int]) -> None:
    kept = set(range(len(logits))) - set(ids)
    assert apply(Ban(tuple(ids)), logits) == only(logits, kept)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TopK(0), "at least 1, not 0"),
        (lambda: TopP(0.0), r"\(0, 1\], not 0"),
        (lambda: MinP(1.5), r"\[0, 1\], not 1.5"),
        (lambda: RepetitionPenalty(0), "positive, not 0"),
        (lambda: Sampling(temperature=-1), "0 or more, not -1"),
    ],
)
def test_impossible_values_are_refused(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]


def request(sampling: Sampling, rows: int, *, first_seed: int = 0, draw: int = 0) -> Request:
    seeds = torch.arange(first_seed, first_seed + rows) * 7919
    canvas = Canvas(torch.zeros(rows, 4, dtype=torch.int64), seeds=seeds)
    return Request(canvas, torch.tensor([[2]]), sampling, draw)


@pytest.mark.parametrize(
    ("temperature", "filters"),
    [(1.0, ()), (0.5, ()), (2.0, (TopK(3),)), (1.0, (TopP(0.8),)), (1.0, (MinP(0.2),))],
)
def test_samples_have_the_distribution(
    temperature: float, filters: tuple[LogitsProcessor, ...]
) -> None:
    """Chi-square of 20000 rows, a seed each; what a filter removed never appears."""
    logits = torch.tensor([1.0, 0.2, -0.5, 2.0, -2.0, 0.9])
    rows = 20_000
    sampling = Sampling(temperature=temperature, filters=filters)
    made = sample_from(logits.expand(rows, 1, 6), request(sampling, rows))
    counts = torch.bincount(made.values.flatten(), minlength=6).double()
    shaped = (logits / temperature)[None, None]
    for processor in filters:
        shaped = processor(shaped, Canvas(torch.zeros(1, 1, dtype=torch.int64)), torch.zeros(1, 1))
    expected = shaped[0, 0].double().softmax(0) * rows
    possible = expected > 0
    assert counts[~possible].sum() == 0
    test = stats.chisquare(counts[possible].numpy(), expected[possible].numpy())
    assert test.pvalue > 1e-3


def test_draws_and_slots_are_independent() -> None:
    """Pairs of (first draw, second draw), and of neighbouring slots, fill the square evenly."""
    rows, sampling = 8000, Sampling(temperature=1.0)
    logits = torch.zeros(rows, 2, 4)
    canvas = Canvas(torch.zeros(rows, 4, dtype=torch.int64), seeds=torch.arange(rows))
    slots = torch.tensor([[1, 2]])
    one = sample_from(logits, Request(canvas, slots, sampling, 0)).values
    two = sample_from(logits, Request(canvas, slots, sampling, 1)).values
    for a, b in ((one[:, 0], two[:, 0]), (one[:, 0], one[:, 1])):
        counts = torch.bincount(4 * a + b, minlength=16)
        assert stats.chisquare(counts.numpy()).pvalue > 1e-3


@pytest.mark.parametrize(("seed", "best"), [(14_790_804, 1 - 2.0**-24), (33_897_418, 2.0**-24)])
def test_uniform_numbers_reach_neither_zero_nor_one(seed: int, best: float) -> None:
    """Seeds whose first number is the highest and the lowest there is; 1 would draw value V."""
    seeds, slots = torch.tensor([seed]), torch.zeros(1, 1, dtype=torch.int64)
    assert noise.uniform(seeds, slots, 0).item() == best


@quick
@given(seed=st.integers(0, 10**6), rows=st.integers(1, 5), pick=st.integers(0, 4))
def test_a_row_draws_the_same_in_any_batch(seed: int, rows: int, pick: int) -> None:
    pick %= rows
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, 1, 9, generator=generator)
    sampling = Sampling(temperature=0.7, filters=(TopK(6),))
    batch = sample_from(logits, request(sampling, rows, first_seed=seed, draw=3))
    alone = sample_from(
        logits[pick : pick + 1], request(sampling, 1, first_seed=seed + pick, draw=3)
    )
    assert batch.values[pick].tolist() == alone.values[0].tolist()
    torch.testing.assert_close(batch.confidence_BQ[pick], alone.confidence_BQ[0])


@pytest.mark.parametrize("confidence", ["raw", "temperature", "filtered"])
@pytest.mark.parametrize("temperature", [0.0, 0.5])
def test_the_three_confidences(confidence: Confidence, temperature: float) -> None:
    logits = torch.tensor([[[2.0, 1.0, 0.0, -1.0]]])
    sampling = Sampling(temperature=temperature, filters=(TopK(2),), confidence=confidence)
    made = sample_from(logits, request(sampling, 1))
    divided = logits / (temperature or 1.0)
    shaped = {"raw": logits, "temperature": divided, "filtered": divided[..., :2]}[confidence]
    want = shaped.softmax(-1)[0, 0, int(made.values)]
    assert float(made.confidence_BQ) == pytest.approx(float(want), abs=1e-6)


def test_greedy_takes_the_best_that_is_not_banned() -> None:
    logits = torch.tensor([[[0.0, 5.0, 3.0]]])
    made = sample_from(logits, request(Sampling(constraints=(Ban((1,)),)), 1))
    assert made.values.tolist() == [[2]]
    assert float(made.confidence_BQ) == pytest.approx(1 / (1 + math.exp(-3)))
    assert logits.tolist() == [[[0.0, 5.0, 3.0]]]  # the model's logits are not changed
