"""Constraints: the automaton by brute force, and decoders that obey it."""

from __future__ import annotations

import itertools
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

from seqgen.beams import rows_of
from seqgen.canvas import Canvas
from seqgen.constraints import Automaton, State
from seqgen.decoders import Autoregressive, Beam, Generated
from seqgen.heads import CategoricalHead, Head, Proposal, Request
from seqgen.logits import Sampling, TopK
from seqgen.model import Context, SequenceModel
from seqgen.orders import Raster

SEEDS = st.integers(0, 10_000)
STOP = 3
quick = settings(max_examples=20, deadline=None)


def random_automaton(seed: int, states: int = 5, *, density: float = 0.2) -> Automaton:
    """Random transitions; the stop value leads to the one state in which a sequence may end."""
    generator = torch.Generator().manual_seed(seed)
    shape = (states, VOCABULARY)
    next_SV = torch.randint(states - 1, shape, generator=generator)
    next_SV[torch.rand(shape, generator=generator) > density] = -1
    stops = torch.rand(states, generator=generator) < 0.5
    next_SV[:, STOP] = torch.where(stops, states - 1, -1)
    next_SV[-1] = -1
    return Automaton(next_SV, torch.arange(states) == states - 1)


def can_end(automaton: Automaton, state: int, left: int) -> bool:
    """By definition: whether some sequence of at most `left` values ends well."""
    if bool(automaton.ends_S[state]):
        return True
    if left == 0:
        return False
    return any(
        can_end(automaton, after, left - 1)
        for after in set(automaton.next_SV[state].tolist()) - {-1}
    )


def state_after(automaton: Automaton, values: list[int]) -> int:
    """-1 if a value is forbidden."""
    state = 0
    for value in values:
        state = int(automaton.next_SV[state, value]) if state >= 0 else -1
    return state


@quick
@given(seed=SEEDS, left=st.integers(0, 4))
def test_a_value_is_allowed_if_an_end_can_be_reached(seed: int, left: int) -> None:
    automaton = random_automaton(seed, density=0.04)
    states = torch.arange(5)
    allowed = automaton.allowed((states,), torch.full((5,), left))
    for state in range(5):
        for value in range(VOCABULARY):
            after = int(automaton.next_SV[state, value])
            wanted = left > 0 and after >= 0 and can_end(automaton, after, left - 1)
            assert bool(allowed[state, value]) == wanted


def test_a_forbidden_value_leads_nowhere() -> None:
    automaton = Automaton.listed([[1, 2], [1]], vocabulary=5, stop=0)
    state: State = (torch.zeros(2, dtype=torch.int64),)
    state = automaton.advance(state, torch.tensor([1, 4]))
    assert automaton.allowed(state, torch.tensor([9, 9])).tolist() == [
        [True, False, True, False, False],
        [False] * 5,
    ]
    state = automaton.advance(state, torch.tensor([2, 2]))
    assert automaton.allowed(state, torch.tensor([1, 1])).tolist() == [
        [True] + [False] * 4,
        [False] * 5,
    ]


def test_transitions_are_checked() -> None:
    with pytest.raises(ValueError, match="states 0 to 1"):
        Automaton(torch.full((2, 3), 2), torch.ones(2, dtype=torch.bool))
    with pytest.raises(ValueError, match="2 rows of transitions for 3 states"):
        Automaton(torch.zeros(2, 3, dtype=torch.int64), torch.ones(3, dtype=torch.bool))


def is_well_formed(automaton: Automaton, generated: Generated, row: int) -> bool:
    """Finished answers satisfy the automaton; a row in a dead end holds a prefix that does."""
    state = state_after(automaton, generated.sequences()[row])
    return state >= 0 and bool(automaton.ends_S[state]) == bool(generated.finished_B[row])


@st.composite
def samplings(draw: st.DrawFn) -> Sampling:
    return draw(
        st.sampled_from(
            [
                Sampling(),
                Sampling(temperature=1.0),
                Sampling(temperature=0.7, filters=(TopK(1),)),
                Sampling(filters=(TopK(2),)),
            ]
        )
    )


@quick
@given(
    sizes=st.lists(st.integers(0, 4), min_size=1, max_size=4),
    new=st.integers(1, 8),
    seed=SEEDS,
    sampling=samplings(),
    shifted=st.booleans(),
)
def test_autoregressive_output_obeys(
    sizes: list[int], new: int, seed: int, sampling: Sampling, shifted: bool
) -> None:
    model = small_model(seed=seed, shifted=shifted)
    automaton = random_automaton(seed)
    decoder = Autoregressive(stop_ids=(STOP,), sampling=sampling, constraint=automaton)
    prompts, seeds = random_prompts(seed, sizes), list(range(len(sizes)))
    generated = decoder.generate(model, canvas_of(prompts, new, seeds=seeds))
    reachable = can_end(automaton, 0, new)
    for row, prompt in enumerate(prompts):
        assert is_well_formed(automaton, generated, row)
        # With reachability there is no dead end but at the start.
        assert bool(generated.finished_B[row]) == reachable
        assert reachable or int(generated.length_B[row]) == len(prompt)
        alone = decoder.generate(model, canvas_of([prompt], new, seeds=[row]))
        assert alone.sequences()[0] == generated.sequences()[row]


def test_the_model_keeps_its_own_head() -> None:
    class Plain:
        """A head that is no module."""

        def __init__(self, head: Head) -> None:
            self.head = head

        def propose(self, hidden: torch.Tensor, request: Request) -> Proposal:
            return self.head.propose(hidden, request)

    model = small_model(shifted=True)
    plain = SequenceModel(inputs=model.inputs, backbone=model.backbone, head=Plain(model.head))  # type: ignore[arg-type]
    only = Automaton.listed([[5, 6]], vocabulary=VOCABULARY, stop=STOP)
    decoder = Autoregressive(stop_ids=(STOP,), constraint=only)
    for own in (model, plain):
        head = own.head
        assert decoder.generate(own, canvas_of([[1]], 5)).sequences() == [[5, 6, STOP]]
        assert own.head is head


def test_confidence_is_the_models_own() -> None:
    model, prompt = small_model(seed=4, shifted=True), [[1, 2]]
    free = Autoregressive(stop_ids=(STOP,)).generate(model, canvas_of(prompt, 1))
    best = free.sequences()[0][0]
    ban = Automaton.banning([best], vocabulary=VOCABULARY)
    for sampling in (Sampling(), Sampling(temperature=1.0)):
        decoder = Autoregressive(constraint=ban, sampling=sampling)
        other = decoder.generate(model, canvas_of(prompt, 1))
        value = other.sequences()[0][0]
        assert value != best
        only = Automaton.listed([[value]], vocabulary=VOCABULARY, stop=STOP)
        again = Autoregressive(constraint=only).generate(model, canvas_of(prompt, 2))
        assert float(other.confidence_BS[0, 2]) == pytest.approx(float(again.confidence_BS[0, 2]))
        assert float(other.confidence_BS[0, 2]) <= float(free.confidence_BS[0, 2])


class Trap:
    """A constraint that does not look ahead: after `turns` values nothing is allowed."""

    def __init__(self, turns: list[int]) -> None:
        self.turns = torch.tensor(turns)

    def start(self, canvas: Canvas) -> State:
        return (self.turns.clone(),)

    def allowed(self, state: State, left_N: torch.Tensor) -> torch.Tensor:
        return (state[0] > 0)[:, None].expand(-1, VOCABULARY)

    def advance(self, state: State, values_N: torch.Tensor) -> State:
        return (state[0] - 1,)


@pytest.mark.parametrize("shifted", [True, False])
def test_dead_ends(shifted: bool) -> None:
    """Rows end where nothing is allowed, unfinished; the others go on."""
    model, prompts = small_model(seed=1, shifted=shifted), random_prompts(1, [2, 2, 2])
    trap = Trap([0, 3, 99])
    greedy = Autoregressive(constraint=trap).generate(model, canvas_of(prompts, 6))
    free = Autoregressive().generate(model, canvas_of(prompts, 6))
    assert greedy.length_B.tolist() == [2, 5, 8]
    assert not greedy.finished_B.any()
    assert greedy.sequences()[1] == free.sequences()[1][:3]
    assert greedy.sequences()[2] == free.sequences()[2]
    # In a beam hypotheses in a dead end are gone, and a row that has no other has no answer.
    beam = Beam(beams=3, constraint=trap).generate(model, canvas_of(prompts, 6))
    assert beam.hypotheses is not None
    assert beam.length_B.tolist() == [2, 2, 8]
    assert beam.hypotheses.score_BN[:2].tolist() == [[float("-inf")] * 3] * 2
    assert beam.hypotheses.length_BN[:2].tolist() == [[2] * 3] * 2
    assert beam.hypotheses.sequences(0) == []
    assert len(beam.hypotheses.sequences(2)) == 3
    assert beam.values[:2, :2].tolist() == prompts[:2]


def test_all_rows_in_a_dead_end_cost_no_more_passes() -> None:
    model = small_model(shifted=True)
    decoder = Autoregressive(constraint=Trap([2, 1]), stop_ids=(STOP,))
    assert decoder.generate(model, canvas_of([[1], [2]], 20)).forwards <= 3
    beam = Beam(constraint=Trap([2, 1]), stop_ids=(STOP,))
    assert beam.generate(model, canvas_of([[1], [2]], 20)).forwards <= 4


@quick
@given(seed=SEEDS, new=st.integers(0, 7), beams=st.integers(1, 5), shifted=st.booleans())
def test_beam_output_obeys(seed: int, new: int, beams: int, shifted: bool) -> None:
    model, automaton = small_model(seed=seed, shifted=shifted), random_automaton(seed)
    prompts = random_prompts(seed, [2] * 3)
    options = Beam(beams=beams, stop_ids=(STOP,), constraint=automaton)
    generated = options.generate(model, canvas_of(prompts, new))
    plain = replace(options, cached=False).generate(model, canvas_of(prompts, new))
    found = generated.hypotheses
    assert found is not None
    for row in range(3):
        assert bool(generated.finished_B[row]) == (new > 0 and can_end(automaton, 0, new))
        answers = found.sequences(row)
        for place, ids in enumerate(answers):
            assert found.finished_BN[row, place] or new == 0
            state = state_after(automaton, ids[2:])
            assert state >= 0
            assert bool(automaton.ends_S[state]) or new == 0
        assert generated.sequences()[row] == plain.sequences()[row]


@quick
@given(seed=SEEDS, new=st.integers(1, 8), cross=st.booleans())
def test_one_beam_equals_greedy(seed: int, new: int, cross: bool) -> None:
    model, automaton = small_model(seed=seed, shifted=True, cross=cross), random_automaton(seed)
    prompts = random_prompts(seed, [1] * 3)
    context = random_context(seed, 3, ragged=True) if cross else None
    greedy = Autoregressive(stop_ids=(STOP,), constraint=automaton)
    beam = Beam(beams=1, stop_ids=(STOP,), constraint=automaton)
    wanted = greedy.generate(model, canvas_of(prompts, new), context)
    found = beam.generate(model, canvas_of(prompts, new), context)
    assert found.sequences() == wanted.sequences()
    used = torch.arange(1 + new) < wanted.length_B[:, None]
    torch.testing.assert_close(found.confidence_BS * used, wanted.confidence_BS * used)


@settings(max_examples=10, deadline=None)
@given(seed=SEEDS, keep=st.integers(1, 6))
def test_a_wide_beam_finds_the_best_of_a_list(seed: int, keep: int) -> None:
    """Any list fits a beam as wide as the list is long, and then the search is exact."""
    model = small_model(seed=seed, shifted=True, cross=True, sharpness=2.0)
    context = random_context(seed, 2)
    values = torch.randint(4, VOCABULARY, (3,), generator=torch.manual_seed(seed)).tolist()
    listed = sorted({ids for n in (1, 2, 3) for ids in itertools.product(values, repeat=n)})
    automaton = Automaton.listed(listed, vocabulary=VOCABULARY, stop=STOP)
    options = Beam(beams=len(listed), keep=keep, stop_ids=(STOP,), constraint=automaton)
    generated = options.generate(model, canvas_of([[1], [2]], 5), context)
    assert generated.hypotheses is not None
    for row in range(2):
        own = row_of(context, row)
        ended = [[*ids, STOP] for ids in listed]
        scores = dict(zip(listed, log_probabilities(model, row + 1, ended, own), strict=True))
        best = sorted(listed, key=lambda ids: -scores[ids])[:keep]
        found = generated.hypotheses.sequences(row)
        assert [tuple(ids[1:-1]) for ids in found] == best
        assert generated.hypotheses.score_BN[row, : len(best)].tolist() == pytest.approx(
            [scores[ids] for ids in best], abs=1e-4
        )


@torch.inference_mode()
def log_probabilities(
    model: SequenceModel, prompt: int, rows: list[list[int]], context: Context | None
) -> list[float]:
    """The log-probability of each row's values, all in one pass."""
    canvas = canvas_of([[prompt, *ids, *[0] * (5 - len(ids))] for ids in rows], 0)
    slots = torch.arange(canvas.slots)[None]
    wide = rows_of(context, torch.zeros(len(rows), dtype=torch.int64), 1)
    table = Raster().table(canvas.slots, canvas.device)
    assert isinstance(model.head, CategoricalHead)
    logits = model.head.logits(model.hidden(canvas, table, slots, context=wide))
    gains = logits.log_softmax(-1).gather(2, canvas.values[..., None])[:, 1:, 0]
    used = torch.arange(5) < torch.tensor([len(ids) for ids in rows])[:, None]
    total: list[float] = (gains * used).sum(dim=1).tolist()
    return total


def test_known_slots_are_refused() -> None:
    known = torch.tensor([[False, True]])
    canvas = Canvas(torch.zeros(1, 2, dtype=torch.int64), given=known)
    decoder = Autoregressive(constraint=Automaton.banning([0], vocabulary=VOCABULARY))
    with pytest.raises(ValueError, match="known slots"):
        decoder.generate(small_model(shifted=True), canvas)
