"""Orders: groups cover every slot once, and steps open exactly what the prompt leaves."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seqgen.canvas import Canvas
from seqgen.orders import (
    Blocks,
    Order,
    Raster,
    Whole,
    closed_prompt,
    steps,
    table_from_groups,
)

CPU = torch.device("cpu")
ORDERS = st.one_of(st.just(Raster()), st.just(Whole()), st.builds(Blocks, st.integers(1, 7)))


@pytest.mark.parametrize(
    ("order", "groups"),
    [
        (Raster(), [0, 1, 2, 3, 4, 5, 6]),
        (Whole(), [0, 0, 0, 0, 0, 0, 0]),
        (Blocks(3), [0, 0, 0, 1, 1, 1, 2]),
        (Blocks(1), [0, 1, 2, 3, 4, 5, 6]),
        (Blocks(9), [0, 0, 0, 0, 0, 0, 0]),
    ],
)
def test_groups(order: Order, groups: list[int]) -> None:
    table = order.table(7, CPU)
    assert table.group_S.tolist() == groups
    assert table.groups == groups[-1] + 1
    assert table.widest == max(groups.count(g) for g in groups)
    assert table.coordinates_SA.tolist() == [[i] for i in range(7)]


def test_no_slots_no_groups() -> None:
    for order in (Raster(), Whole(), Blocks(2)):
        table = order.table(0, CPU)
        assert (table.groups, table.widest) == (0, 0)


@pytest.mark.parametrize("order", [Raster(), Whole(), Blocks(3)])
def test_a_table_made_in_a_decode_serves_training(order: Order) -> None:
    embedding = torch.nn.Embedding(37, 2)
    with torch.inference_mode():
        table = order.table(37, CPU)  # a size of this test alone, so that none is kept already
        assert table.rank_S.tolist() == list(range(37))
    for kept in (table.sequence_S, table.coordinates_SA[:, 0], table.group_S, table.rank_S):
        embedding(kept).sum().backward()


@settings(max_examples=60, deadline=None)
@given(groups=st.lists(st.integers(0, 5), min_size=1, max_size=12))
def test_a_table_from_any_groups(groups: list[int]) -> None:
    dense = {g: i for i, g in enumerate(sorted(set(groups)))}
    table = table_from_groups(torch.tensor([dense[g] for g in groups]))
    seen: list[int] = []
    for group in range(table.groups):
        slots = table.slots_of(group, group + 1)[0].tolist()
        assert slots == [i for i, g in enumerate(groups) if dense[g] == group]
        seen += slots
    assert sorted(seen) == list(range(len(groups)))
    assert table.contiguous == (seen == sorted(seen))


def test_the_groups_of_a_run() -> None:
    table = Blocks(3).table(11, CPU)
    assert table.parts_of(slice(3, 6), 4) == ((3, 0),)
    assert table.parts_of(slice(3, 11), 4) == ((3, 5), (6, 2), (8, 0))
    assert table.parts_of(slice(3, 11), 2) is None  # more groups than that
    assert table.parts_of(slice(3, 5), 4) is None
    assert table.parts_of(slice(4, 6), 4) is None  # a group is cut


def test_a_group_without_slots_is_refused() -> None:
    with pytest.raises(ValueError, match="group 1 has no slot"):
        table_from_groups(torch.tensor([0, 2, 2]))
    with pytest.raises(ValueError, match="at least 1, not 0"):
        Blocks(0)


@settings(max_examples=150, deadline=None)
@given(
    order=ORDERS,
    rows=st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), min_size=1, max_size=4),
)
def test_prompt_and_steps_cover_every_slot_once(order: Order, rows: list[tuple[int, int]]) -> None:
    """By row: the groups that the prompt fills, then the steps; no slot twice, none missing."""
    prompts = [prompt for prompt, _ in rows]
    lengths = [prompt + new for prompt, new in rows]
    if max(lengths) == 0:
        return
    canvas = Canvas(
        torch.zeros(len(rows), max(lengths), dtype=torch.int64), prompt=prompts, length=lengths
    )
    table = order.table(canvas.slots, CPU)
    slots, valid = closed_prompt(table, canvas)
    covered = [in_use(slots, valid, row) for row in range(len(rows))]
    for row, prompt in enumerate(prompts):
        assert all(slot < prompt for slot in covered[row])
    for number, step in enumerate(steps(table, canvas)):
        assert step.index == number
        for row in range(len(rows)):
            used = in_use(step.slots_BQ, step.valid_BQ, row)
            groups = {int(table.group_S[slot]) for slot in used}
            assert len(groups) <= 1
            if step.group is not None:
                assert groups <= {step.group}
            covered[row] += used
    for row, length in enumerate(lengths):
        mine = [slot for slot in covered[row] if slot < length]
        assert mine == list(range(length)), (row, covered[row])


def in_use(slots: torch.Tensor, valid: torch.Tensor | None, row: int) -> list[int]:
    own = slots[row if len(slots) > 1 else 0]
    return own.tolist() if valid is None else own[valid[row if len(valid) > 1 else 0]].tolist()


def test_scattered_groups_take_prompts_of_one_length_only() -> None:
    table = table_from_groups(torch.tensor([0, 1, 0, 1]))
    ragged = Canvas(torch.zeros(2, 4, dtype=torch.int64), prompt=[1, 2])
    with pytest.raises(ValueError, match="contiguous runs"):
        list(steps(table, ragged))
    # The first group is whole when the prompt holds slot 2.
    for prompt, wanted in [(1, [[0, 2], [1, 3]]), (3, [[1, 3]])]:
        canvas = Canvas(torch.zeros(1, 4, dtype=torch.int64), prompt=prompt)
        assert [step.slots_BQ[0].tolist() for step in steps(table, canvas)] == wanted
    free = list(steps(table, Canvas(torch.zeros(1, 4, dtype=torch.int64))))
    assert [step.slots_BQ[0].tolist() for step in free] == [[0, 2], [1, 3]]
