"""CTC against brute force over all paths, against torch, and through the one-pass decoder."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import VOCABULARY, canvas_of, random_context, row_of, small_model
from torch import Tensor

from seqgen.canvas import Canvas
from seqgen.ctc import align, collapse, ctc_loss, ctc_score, prefix_beam_search
from seqgen.decoders import NonAutoregressive
from seqgen.decoders.one_pass import OnePass
from seqgen.finalizers import GreedyCTC, PrefixBeamCTC
from seqgen.hypotheses import Hypotheses
from seqgen.logits import Ban, Sampling

SEEDS = st.integers(0, 10_000)
BLANKS = st.sampled_from([0, 1, 2])
quick = settings(max_examples=25, deadline=None)
NEVER = float("-inf")


def random_logits(seed: int, batch: int, slots: int, vocabulary: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(batch, slots, vocabulary, generator=generator)


def merged(path: tuple[int, ...], blank: int) -> tuple[int, ...]:
    return tuple(value for value, _ in itertools.groupby(path) if value != blank)


def brute_force(
    logits_SV: Tensor, blank: int
) -> tuple[dict[tuple[int, ...], float], dict[tuple[int, ...], tuple[float, tuple[int, ...]]]]:
    """For every sequence: its probability, and its most probable path."""
    p = logits_SV.double().softmax(dim=-1).tolist()
    total: dict[tuple[int, ...], float] = {}
    best: dict[tuple[int, ...], tuple[float, tuple[int, ...]]] = {}
    for path in itertools.product(range(len(p[0])), repeat=len(p)):
        weight = math.prod(p[slot][value] for slot, value in enumerate(path))
        key = merged(path, blank)
        total[key] = total.get(key, 0.0) + weight
        best[key] = max(best.get(key, (0.0, path)), (weight, path))
    return total, best


def as_hypotheses(rows: list[list[tuple[int, ...]]], pad: int = 0) -> Hypotheses:
    count = max(len(row) for row in rows)
    width = max((len(ids) for row in rows for ids in row), default=0)
    values = torch.full((len(rows), count, max(width, 1)), pad)
    length = torch.zeros(len(rows), count, dtype=torch.int64)
    for b, row in enumerate(rows):
        for n, ids in enumerate(row):
            values[b, n, : len(ids)] = torch.tensor(ids, dtype=torch.int64)
            length[b, n] = len(ids)
    zeros = torch.zeros(len(rows), count)
    confidence = torch.zeros(values.shape)
    return Hypotheses(values, length, zeros, confidence, zeros == 0)


# --- exact probabilities ------------------------------------------------------------------------


@quick
@given(SEEDS, BLANKS, st.lists(st.integers(1, 5), min_size=1, max_size=3))
def test_score_sums_all_paths(seed: int, blank: int, lengths: list[int]) -> None:
    logits = random_logits(seed, len(lengths), 5)
    exact = [brute_force(row[:n], blank)[0] for row, n in zip(logits, lengths, strict=True)]
    every = sorted({key for row in exact for key in row})
    hypotheses = as_hypotheses([every] * len(lengths), pad=blank)
    score = ctc_score(logits, hypotheses, slots_B=torch.tensor(lengths), blank=blank).exp()
    expected = torch.tensor([[row.get(key, 0.0) for key in every] for row in exact])
    torch.testing.assert_close(score, expected.float(), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(score.sum(dim=1), torch.ones(len(lengths)))


@quick
@given(SEEDS, BLANKS, st.lists(st.integers(1, 5), min_size=1, max_size=3))
def test_align_finds_the_best_path(seed: int, blank: int, lengths: list[int]) -> None:
    logits = random_logits(seed, len(lengths), 5)
    exact = [brute_force(row[:n], blank)[1] for row, n in zip(logits, lengths, strict=True)]
    every = sorted({key for row in exact for key in row})
    hypotheses = as_hypotheses([every] * len(lengths), pad=-1)
    found = align(logits, hypotheses, slots_B=torch.tensor(lengths), blank=blank)
    probability = logits.softmax(dim=-1)
    for b, best in enumerate(exact):
        for n, key in enumerate(every):
            position = found.position_BNS[b, n].tolist()
            if key not in best:  # too long for this row's slots
                assert found.score_BN[b, n] == NEVER
                assert set(position) == {-1}
                assert found.confidence_BNL[b, n].sum() == 0
                continue
            weight, path = best[key]
            assert found.score_BN[b, n].exp().item() == pytest.approx(weight, rel=1e-4)
            assert [blank if p < 0 else key[p] for p in position[: lengths[b]]] == list(path)
            assert set(position[lengths[b] :]) <= {-1}
            for index in range(len(key)):
                says = [probability[b, s, key[index]] for s, p in enumerate(position) if p == index]
                assert found.confidence_BNL[b, n, index].item() == pytest.approx(
                    float(max(says)), rel=1e-5
                )


# --- the loss -----------------------------------------------------------------------------------


@quick
@given(SEEDS, BLANKS, st.lists(st.integers(0, 4), min_size=1, max_size=4))
def test_loss_is_the_mean_over_rows_of_all_paths(seed: int, blank: int, lengths: list[int]) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = random_logits(seed, len(lengths), 6)
    slots = torch.randint(1, 7, (len(lengths),), generator=generator)
    values = [v for v in range(3) if v != blank]
    targets = torch.tensor(values)[torch.randint(2, (len(lengths), 4), generator=generator)]
    size = torch.tensor(lengths)
    behind = torch.arange(4) >= size[:, None]
    loss = ctc_loss(logits, targets.masked_fill(behind, -1), size, slots_B=slots, blank=blank)
    rows = []
    for b, n in enumerate(lengths):
        exact = brute_force(logits[b, : int(slots[b])], blank)[0]
        p = exact.get(tuple(targets[b, :n].tolist()), 0.0)
        rows.append(-math.log(p) / max(n, 1) if p > 0 else 0.0)
    assert loss.item() == pytest.approx(sum(rows) / len(rows), rel=1e-4, abs=1e-6)


def test_loss_agrees_with_torch_and_with_the_score() -> None:
    logits = random_logits(3, 4, 9, 7).requires_grad_()
    targets = torch.tensor([[1, 2, 2, 6], [3, 3, 0, 0], [5, 0, 0, 0], [1, 2, 3, 4]])
    size, slots = torch.tensor([4, 2, 1, 4]), torch.tensor([9, 8, 3, 5])
    loss = ctc_loss(logits, targets, size, slots_B=slots, blank=0)
    expected = F.ctc_loss(logits.log_softmax(-1).transpose(0, 1), targets, slots, size)
    torch.testing.assert_close(loss, expected)
    (ours,) = torch.autograd.grad(loss, logits, retain_graph=True)
    (theirs,) = torch.autograd.grad(expected, logits)
    torch.testing.assert_close(ours, theirs)
    one = replace(as_hypotheses([[()]] * 4), values_BNS=targets[:, None], length_BN=size[:, None])
    score = ctc_score(logits, one, slots_B=slots, blank=0)
    torch.testing.assert_close(loss.detach(), (-score[:, 0] / size).mean())


def test_loss_of_a_target_that_does_not_fit() -> None:
    logits = random_logits(0, 2, 3).requires_grad_()
    targets, size = torch.tensor([[1, 1], [1, 2]]), torch.tensor([2, 2])
    slots = torch.tensor([2, 3])  # "1 1" needs a blank between: three slots
    assert ctc_loss(logits, targets, size, slots_B=slots, blank=0, zero_infinity=False) == math.inf
    loss = ctc_loss(logits, targets, size, slots_B=slots, blank=0)
    loss.backward()
    assert logits.grad is not None
    assert loss.isfinite()
    assert logits.grad[0].abs().sum() == 0
    assert logits.grad[1].abs().sum() > 0


# --- collapse and search ------------------------------------------------------------------------


@quick
@given(SEEDS, BLANKS, st.integers(1, 12))
def test_collapse_merges_repeats_then_drops_blanks(seed: int, blank: int, slots: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, (5, slots), generator=generator)
    confidence = torch.rand(5, slots, generator=generator)
    result = collapse(ids, confidence, blank=blank)
    for b, path in enumerate(ids.tolist()):
        runs = [
            (value, max(confidence[b, s].item() for s, _ in run))
            for value, run in itertools.groupby(enumerate(path), key=lambda pair: pair[1])
            if value != blank
        ]
        n = int(result.length_B[b])
        assert result.values_BS[b, :n].tolist() == [value for value, _ in runs]
        assert result.confidence_BS[b, :n].tolist() == pytest.approx([c for _, c in runs])
        assert result.values_BS[b, n:].sum() + result.confidence_BS[b, n:].sum() == 0


@quick
@given(SEEDS, BLANKS, st.lists(st.integers(1, 5), min_size=1, max_size=3))
def test_wide_prefix_beam_is_exact(seed: int, blank: int, lengths: list[int]) -> None:
    logits = random_logits(seed, len(lengths), 5)
    found = prefix_beam_search(logits, beams=70, blank=blank, slots_B=torch.tensor(lengths))
    for b, n in enumerate(lengths):
        exact = brute_force(logits[b, :n], blank)[0]
        sequences = [tuple(ids) for ids in found.sequences(b)]
        assert sequences == sorted(exact, key=lambda key: -exact[key])
        scores = found.score_BN[b, : len(sequences)].exp().tolist()
        assert scores == pytest.approx([exact[key] for key in sequences], rel=1e-4)


@quick
@given(SEEDS, st.integers(1, 6))
def test_narrow_prefix_beam_is_a_lower_bound_without_duplicates(seed: int, beams: int) -> None:
    logits = random_logits(seed, 3, 14, 6)
    found = prefix_beam_search(logits, beams=beams, blank=5)
    exact = ctc_score(logits, found, blank=5)
    assert (found.score_BN <= exact + 1e-4).all()
    assert (found.score_BN.diff(dim=1) <= 0).all()
    for b in range(3):
        assert len({tuple(ids) for ids in found.sequences(b)}) == beams
    alone = prefix_beam_search(logits[1:2], beams=beams, blank=5)
    assert alone.sequences(0) == found.sequences(1)
    torch.testing.assert_close(alone.score_BN[0], found.score_BN[1])


@quick
@given(SEEDS, st.integers(1, 6))
def test_the_finalizer_ranks_by_the_whole_probability(seed: int, beams: int) -> None:
    logits, slots = random_logits(seed, 3, 14, 6), torch.tensor([14, 9, 3])
    kept = prefix_beam_search(logits, beams=beams, blank=5, slots_B=slots)
    ranked = PrefixBeamCTC(blank=5, beams=beams)(logits, slots)
    torch.testing.assert_close(
        ranked.score_BN, ctc_score(logits, ranked, slots_B=slots, blank=5), atol=1e-4, rtol=1e-4
    )
    torch.testing.assert_close(
        ranked.confidence_BNS, align(logits, ranked, slots_B=slots, blank=5).confidence_BNL
    )
    assert (ranked.score_BN.diff(dim=1) <= 0).all()
    for b in range(3):
        assert sorted(ranked.sequences(b)) == sorted(kept.sequences(b))


def test_prefix_beam_beats_the_best_path() -> None:
    # The best path is all blanks (0.6 * 0.6), but "1" has three paths: 2 * 0.6 * 0.4 + 0.4 * 0.4.
    logits = torch.tensor([[[0.6, 0.4], [0.6, 0.4]]]).log()
    assert GreedyCTC(blank=0)(logits, None).sequences(0) == [[]]
    best = PrefixBeamCTC(blank=0, beams=2)(logits, None)
    assert best.sequences(0) == [[1], []]
    assert best.score_BN[0].exp().tolist() == pytest.approx([0.64, 0.36])
    assert best.confidence_BNS[0, 0, 0].item() == pytest.approx(0.4)


def test_fewer_sequences_than_beams_leave_places_empty() -> None:
    logits = random_logits(3, 2, 1, 2)
    for found in (
        prefix_beam_search(logits, beams=6, blank=0),
        PrefixBeamCTC(blank=0, beams=6)(logits, None),
    ):
        for row in range(2):
            assert sorted(found.sequences(row)) == [[], [1]]
        assert found.finished_BN.sum(dim=1).tolist() == [2, 2]


def test_a_banned_value_is_never_found() -> None:
    logits = random_logits(1, 2, 6, 4)
    logits[..., 2] = NEVER
    found = prefix_beam_search(logits, beams=40, blank=0)
    assert all(2 not in ids for b in range(2) for ids in found.sequences(b))
    assert found.score_BN[:, 0].isfinite().all()
    assert not found.score_BN.isnan().any()


def test_beams_must_be_positive() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        PrefixBeamCTC(blank=0, beams=0)
    with pytest.raises(ValueError, match="at least 1"):
        prefix_beam_search(random_logits(0, 1, 2), beams=0, blank=0)


# --- the decoder --------------------------------------------------------------------------------

BLANK = VOCABULARY - 1


@quick
@given(SEEDS, st.lists(st.integers(1, 9), min_size=1, max_size=4), st.booleans())
def test_a_batch_row_equals_the_row_alone(seed: int, lengths: list[int], beam: bool) -> None:
    model = small_model(seed=seed % 5, cross=True, sharpness=2.0)
    context = random_context(seed, len(lengths), ragged=True)
    finalizer = PrefixBeamCTC(blank=BLANK, beams=4) if beam else GreedyCTC(blank=BLANK)
    decoder = OnePass(finalizer=finalizer)
    values = torch.zeros(len(lengths), max(lengths), dtype=torch.int64)
    batch = decoder.generate(model, Canvas(values, length=lengths), context)
    assert batch.forwards == 1
    assert batch.hypotheses is not None
    for b, slots in enumerate(lengths):
        alone = decoder.generate(model, canvas_of([[]], slots), row_of(context, b))
        assert alone.hypotheses is not None
        assert batch.sequences()[b] == alone.sequences()[0]
        assert batch.hypotheses.sequences(b) == alone.hypotheses.sequences(0)
        assert BLANK not in batch.sequences()[b]
        n = int(batch.length_B[b])
        torch.testing.assert_close(batch.confidence_BS[b, :n], alone.confidence_BS[0, :n])


def test_greedy_is_the_collapsed_argmax_of_the_model() -> None:
    model = small_model(seed=1)
    canvas = canvas_of([[], []], 8)
    events = []
    result = OnePass(finalizer=GreedyCTC(blank=BLANK)).generate(
        model, canvas, on_event=events.append
    )
    assert len(events) == 1
    plain = NonAutoregressive().generate(model, canvas_of([[], []], 8))
    expected = [merged(tuple(row), BLANK) for row in plain.values.tolist()]
    assert [tuple(ids) for ids in result.sequences()] == expected
    assert result.finished_B.all()


def test_constraints_reach_the_finalizer() -> None:
    model = small_model(seed=1)
    free = OnePass(finalizer=GreedyCTC(blank=BLANK)).generate(model, canvas_of([[]], 8))
    banned = free.sequences()[0][0]
    sampling = Sampling(constraints=(Ban((banned,)),))
    bound = OnePass(finalizer=GreedyCTC(blank=BLANK), sampling=sampling)
    assert banned not in bound.generate(model, canvas_of([[]], 8)).sequences()[0]


def test_a_row_without_an_answer_is_empty_and_not_finished() -> None:
    def half(logits_BSV: Tensor, slots_B: Tensor | None) -> Hypotheses:
        found = GreedyCTC(blank=BLANK)(logits_BSV, slots_B)
        score = found.score_BN.clone()
        score[1] = NEVER
        return replace(found, score_BN=score, finished_BN=score > NEVER)

    result = OnePass(finalizer=half).generate(small_model(seed=1), canvas_of([[], []], 8))
    assert result.finished_B.tolist() == [True, False]
    assert result.length_B[0] > 0
    assert result.sequences()[1] == []


def test_what_one_pass_refuses() -> None:
    decoder = OnePass(finalizer=GreedyCTC(blank=BLANK))
    with pytest.raises(ValueError, match="no prompt"):
        decoder.generate(small_model(), canvas_of([[3]], 4))
    with pytest.raises(ValueError, match="value before"):
        decoder.generate(small_model(shifted=True), canvas_of([[]], 4))
