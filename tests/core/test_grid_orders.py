"""Orders on a grid: by definition; the same values cached, uncached, trained and in any batch."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seqgen.canvas import Canvas
from seqgen.commits import ScheduledConfidence
from seqgen.decoders import Ordered
from seqgen.decoders.base import GroupDecoder, drain
from seqgen.grid_orders import NOWHERE, Cells, Diagonals, OnGrid, Scales, Shuffled
from seqgen.guidance import Guidance, GuidedModel, guided_context
from seqgen.heads import CategoricalHead, FlowHead
from seqgen.inputs import MaskedInputs, NeighbourInputs, ShiftedInputs
from seqgen.logits import Sampling
from seqgen.model import Context, SequenceModel
from seqgen.orders import Blocks, Order, Raster, Whole
from seqgen.training.objectives import teacher_states
from seqgen.transformer import Transformer, TransformerConfig
from seqgen.value_inputs import MaskedValueInputs

CPU = torch.device("cpu")
CODES = 7


def groups(order: Order, slots: int) -> list[int]:
    table: list[int] = order.table(slots, CPU).group_S.tolist()
    return table


def test_orders_by_definition() -> None:
    assert groups(Diagonals(2, 3), 6) == [0, 1, 2, 1, 2, 3]
    assert groups(Diagonals(2, 2, prefix=1), 5) == [0, 1, 2, 2, 3]
    assert groups(Scales((1, 2)), 5) == [0, 1, 1, 1, 1]
    assert groups(Cells(2, 4, 2, 2), 8) == [0, 0, 1, 1, 0, 0, 1, 1]
    assert groups(OnGrid(Blocks(3), 2, 3), 6) == [0, 0, 0, 1, 1, 1]
    assert groups(OnGrid(Whole(), 2, 2), 4) == [0, 0, 0, 0]
    for prefix in (0, 1):
        table = Diagonals(8, 8, prefix=prefix).table(64 + prefix, CPU)
        assert table.groups - prefix == 15
    assert Scales((1, 2, 4, 8)).table(85, CPU).groups == 4


def test_coordinates() -> None:
    table = OnGrid(Raster(), 2, 2, shift=1).table(4, CPU)
    assert table.coordinates_SA.tolist() == [[NOWHERE, NOWHERE], [0, 0], [0, 1], [1, 0]]
    assert Diagonals(2, 2).table(4, CPU).coordinates_SA.tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    scales = Scales((1, 2, 4)).table(21, CPU).coordinates_SA
    assert scales[0].tolist() == [3, 3]  # the middle of 0..6
    assert scales[1:5].tolist() == [[1, 1], [1, 5], [5, 1], [5, 5]]
    assert scales[5:9].tolist() == [[0, 0], [0, 2], [0, 4], [0, 6]]


@given(size=st.integers(2, 8), passes=st.integers(1, 12), seed=st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_shuffled_sizes_grow(size: int, passes: int, seed: int) -> None:
    passes = min(passes, size * size)
    table = Shuffled(size, size, passes=passes, seed=seed).table(size * size, CPU)
    assert table.groups == passes
    sizes = torch.bincount(table.group_S).tolist()
    assert sum(sizes) == size * size
    assert min(sizes) >= 1
    if size * size >= 8 * passes:
        assert sizes[0] <= sizes[-1]


def test_wrong_sizes_name_the_order() -> None:
    for order in (Diagonals(2, 2), Scales((1, 2)), Cells(2, 2, 1, 2), Shuffled(2, 2, passes=2)):
        with pytest.raises(ValueError, match=f"7 slots do not fit {type(order).__name__}"):
            order.table(7, CPU)
    with pytest.raises(ValueError, match="do not divide"):
        Cells(4, 4, 3, 2)


def backbone(seed: int, width: int = 16) -> Transformer:
    torch.manual_seed(seed)
    return Transformer(TransformerConfig(width=width, layers=2, heads=2, axes=2))


def masked_model(seed: int, slots: int) -> SequenceModel:
    torch.manual_seed(seed)
    inputs = MaskedInputs(
        torch.nn.Embedding(CODES + 1, 16), mask_id=CODES, positions=torch.nn.Embedding(slots, 16)
    )
    return SequenceModel(inputs=inputs, backbone=backbone(seed), head=CategoricalHead(16, CODES))


def neighbour_model(seed: int, size: int, exits: int = 1) -> SequenceModel:
    torch.manual_seed(seed)
    inputs = NeighbourInputs(torch.nn.Embedding(CODES, 16), height=size, width=size, exits=exits)
    return SequenceModel(inputs=inputs, backbone=backbone(seed), head=CategoricalHead(32, CODES))


def shifted_model(seed: int) -> SequenceModel:
    torch.manual_seed(seed)
    inputs = ShiftedInputs(torch.nn.Embedding(CODES, 16), conditioned=True)
    return SequenceModel(inputs=inputs, backbone=backbone(seed), head=CategoricalHead(16, CODES))


def context(rows: int) -> Context:
    generator = torch.Generator().manual_seed(5)
    return Context(condition_BD=torch.randn(rows, 16, generator=generator))


CASES = {
    "raster": (lambda: shifted_model(1), OnGrid(Raster(), 4, 4), 0),
    "shifted positions": (lambda: shifted_model(2), OnGrid(Raster(), 4, 4, shift=1), 0),
    "diagonals": (lambda: neighbour_model(3, 4), Diagonals(4, 4, prefix=1), 1),
    "masked diagonals": (lambda: masked_model(4, 16), Diagonals(4, 4), 0),
    "rows": (lambda: masked_model(5, 16), OnGrid(Blocks(4), 4, 4), 0),
    "cells": (lambda: masked_model(6, 16), Cells(4, 4, 2, 2), 0),
    "scales": (lambda: masked_model(7, 21), Scales((1, 2, 4)), 0),
    "shuffled": (lambda: masked_model(8, 16), Shuffled(4, 4, passes=5), 0),
    "whole": (lambda: masked_model(9, 16), OnGrid(Whole(), 4, 4), 0),
}


@pytest.mark.parametrize("name", CASES)
def test_cached_equals_uncached_and_a_batch_row_equals_the_row_alone(name: str) -> None:
    make, order, prefix = CASES[name]
    model = make().eval()
    slots = {"scales": 21}.get(name, 16 + prefix)
    commit = ScheduledConfidence(steps=3, annealing=1.0)
    seeds = torch.tensor([11, 12, 13])

    def run(rows: slice, *, cached: bool) -> torch.Tensor:
        own = context(3).condition_BD[rows]  # type: ignore[index]
        canvas = Canvas(
            torch.zeros(len(own), slots, dtype=torch.int64), prompt=prefix, seeds=seeds[rows]
        )
        decoder = Ordered(
            order=order, commit=commit, sampling=Sampling(temperature=1.0), cached=cached
        )
        return decoder.generate(model, canvas, Context(condition_BD=own)).values

    together = run(slice(0, 3), cached=True)
    assert together.equal(run(slice(0, 3), cached=False))
    assert together[1:2].equal(run(slice(1, 2), cached=True))
    assert not together[0].equal(together[1])


@pytest.mark.parametrize("name", ["raster", "shifted positions", "diagonals"])
def test_training_states_are_those_of_decoding(name: str) -> None:
    """What each slot was sampled from is what one teacher-forced pass gives for it."""
    make, order, prefix = CASES[name]
    model = make().eval()
    canvas = Canvas(torch.zeros(2, 16 + prefix, dtype=torch.int64), prompt=prefix)
    decoder = Ordered(order=order, sampling=Sampling(temperature=1.0))
    decoded = decoder.generate(model, canvas, context(2))
    with torch.no_grad():
        states, first = teacher_states(model, decoded.values, order=order, context=context(2))
        assert first == prefix
        p = model.head.logits(states).softmax(-1)  # type: ignore[attr-defined]
    chosen = p.gather(-1, decoded.values[:, prefix:, None]).squeeze(-1)
    assert torch.allclose(chosen, decoded.confidence_BS[:, prefix:], atol=1e-6)


def test_neighbours_average_two_heads() -> None:
    model = neighbour_model(1, 3)
    table = Diagonals(3, 3, prefix=1).table(10, CPU)
    hidden = torch.randn(1, 10, 16)  # in the sequence of the order
    place = table.rank_S.tolist()
    right, below = model.head.weight.chunk(2, dim=1)  # type: ignore[union-attr, operator]
    inputs = model.inputs
    assert isinstance(inputs, NeighbourInputs)
    for slot in range(1, 10):
        row, column = divmod(slot - 1, 3)
        left = 0 if slot == 1 else slot - 1
        above = 0 if slot == 1 else slot - 3
        parts = []
        if column or slot == 1:
            parts.append(right @ hidden[0, place[left]])
        if row or slot == 1:
            parts.append(below @ hidden[0, place[above]])
        want = torch.stack(parts).mean(dim=0)
        got = model.head.logits(inputs.read(hidden, table, 0, torch.tensor([[slot]])))  # type: ignore[attr-defined]
        assert torch.allclose(got[0, 0], want, atol=1e-5), slot


def test_scheduled_passes() -> None:
    rule = ScheduledConfidence(steps=8)
    assert rule.passes(64, 64) == (8, 8)
    assert rule.passes(3, 3) == (3, 3)
    model = masked_model(1, 16)
    canvas = Canvas(torch.zeros(2, 16, dtype=torch.int64))
    sizes: list[int] = []
    decoder = Ordered(order=OnGrid(Whole(), 4, 4), commit=ScheduledConfidence(steps=4))
    decoder.generate(model, canvas, on_event=lambda e: sizes.append(int(e.kept_BQ[0].sum())))
    assert sizes == [2, 3, 5, 6]  # 16 - 14, 14 - 11, 11 - 6, 6


def test_random_rank_differs_by_seed_and_is_repeatable() -> None:
    model = masked_model(1, 16)
    decoder = Ordered(
        order=OnGrid(Whole(), 4, 4), commit=ScheduledConfidence(steps=4, rank="random")
    )

    def first_slots(seed: int) -> list[bool]:
        kept: list[torch.Tensor] = []
        canvas = Canvas(torch.zeros(1, 16, dtype=torch.int64), seeds=torch.tensor([seed]))
        decoder.generate(model, canvas, on_event=lambda e: kept.append(e.kept_BQ[0]))
        out: list[bool] = kept[0].tolist()
        return out

    assert first_slots(1) == first_slots(1)
    assert len({tuple(first_slots(seed)) for seed in range(6)}) > 3


def test_guidance_schedules() -> None:
    assert [Guidance(3.0)(k, 4) for k in range(4)] == [3.0] * 4
    assert [Guidance(4.0, "linear")(k, 4) for k in range(4)] == pytest.approx([1, 2, 3, 4])
    assert [Guidance(3.0, "cosine")(k, 3) for k in range(3)] == pytest.approx([1, 2, 3])
    assert [Guidance(2.0, "interval", last=1)(k, 4) for k in range(4)] == [2, 2, 1, 1]
    assert Guidance(2.0, "linear")(0, 1) == 1.0
    with pytest.raises(ValueError, match="0 or more"):
        Guidance(-1.0)
    with pytest.raises(ValueError, match="unknown guidance schedule"):
        Guidance(1.0, "square")  # type: ignore[arg-type]


@pytest.mark.parametrize("guided", [False, True])
def test_a_random_order_samples_only_the_slots_it_keeps(guided: bool) -> None:
    """Equal to sampling all open slots, with a fraction of the work."""
    torch.manual_seed(3)
    inputs = MaskedValueInputs(3, 16, positions=torch.nn.Embedding(16, 16), adds_given=True)
    head = FlowHead(16, 3, hidden=16, depth=1, steps=2)
    torch.nn.init.normal_(head.network.output.weight)
    model = SequenceModel(inputs=inputs, backbone=backbone(3), head=head).eval()
    seen: list[int] = []
    propose = head.propose
    given = torch.randn(2, 16, 16)
    own = Context(given_BSD=given)
    if guided:
        model = GuidedModel(model, scale=2.0)
        own = guided_context(own, Context(given_BSD=torch.zeros_like(given)))
    else:
        head.propose = lambda h, r: (seen.append(h.shape[1]), propose(h, r))[1]  # type: ignore
    known = torch.zeros(2, 16, dtype=torch.bool)
    known[1, :5] = True  # rows may differ in what is left

    def run(quota: str) -> torch.Tensor:
        values = torch.ones(2, 16, 3)
        canvas = Canvas(values, seeds=torch.tensor([1, 2]), given=known)
        decoder = Ordered(
            order=OnGrid(Whole(), 4, 4), commit=ScheduledConfidence(steps=4, rank="random"),
            sampling=Sampling(temperature=1.0),
        )  # fmt: skip
        plain = GroupDecoder.stream(decoder, model, canvas, own)
        if quota == "all":
            return drain(plain, canvas).values
        return decoder.generate(model, canvas, own).values

    torch.testing.assert_close(run("kept"), run("all"))
    if not guided:
        assert seen == [2, 3, 5, 6, 16, 16, 16, 16]
