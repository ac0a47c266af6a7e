"""Every mask against its definition, slot by slot."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seqgen.masks import (
    CLEAN,
    NOISY,
    BlockCausal,
    Causal,
    Full,
    Markov,
    Mask,
    NoisyClean,
    Prefix,
    SameSegment,
    SlotInfo,
    Window,
)

Sees = Callable[[dict[str, int], dict[str, int]], bool]

DEFINITIONS: list[tuple[Mask, Sees]] = [
    (Full(), lambda q, k: True),
    (Causal(), lambda q, k: k["position"] <= q["position"]),
    (BlockCausal(), lambda q, k: k["group"] <= q["group"]),
    (Markov(), lambda q, k: k["group"] in (q["group"], q["group"] - 1)),
    (Window(1), lambda q, k: k["position"] == q["position"]),
    (Window(3), lambda q, k: -3 < q["position"] - k["position"] < 3),
    (Prefix(0), lambda q, k: False),
    (Prefix(4), lambda q, k: k["position"] < 4),
    (SameSegment(), lambda q, k: k["segment"] == q["segment"]),
    (
        NoisyClean(),
        lambda q, k: (
            # a noisy slot: its own noisy group and the clean past; a clean one: clean up to its own
            (k["copy"] == NOISY and k["group"] == q["group"])
            or (k["copy"] == CLEAN and k["group"] < q["group"])
            if q["copy"] == NOISY
            else k["copy"] == CLEAN and k["group"] <= q["group"]
        ),
    ),
]


@st.composite
def slots(draw: st.DrawFn, most: int = 8) -> SlotInfo:
    """Slots with any metadata, in one or two rows."""
    shape = (draw(st.integers(1, 2)), draw(st.integers(1, most)))

    def numbers(high: int) -> torch.Tensor:
        count = shape[0] * shape[1]
        values = draw(st.lists(st.integers(0, high), min_size=count, max_size=count))
        return torch.tensor(values).view(shape)

    return SlotInfo(group=numbers(5), position=numbers(9), copy=numbers(1), segment=numbers(2))


def by_definition(sees: Sees, q: SlotInfo, k: SlotInfo) -> list[list[list[bool]]]:
    rows = max(q.position.shape[0], k.position.shape[0])
    return [
        [
            [sees(slot(q, row, i), slot(k, row, j)) for j in range(k.position.shape[1])]
            for i in range(q.position.shape[1])
        ]
        for row in range(rows)
    ]


def slot(info: SlotInfo, row: int, index: int) -> dict[str, int]:
    names = ("group", "position", "copy", "segment")
    fields = {name: getattr(info, name) for name in names}
    return {name: int(x[row if len(x) > 1 else 0, index]) for name, x in fields.items()}


@pytest.mark.parametrize(("mask", "sees"), DEFINITIONS, ids=lambda x: str(x)[:20])
@settings(max_examples=20, deadline=None)
@given(q=slots(), k=slots())
def test_dense_mask_is_the_definition(mask: Mask, sees: Sees, q: SlotInfo, k: SlotInfo) -> None:
    assert mask(q.column(), k.row()).tolist() == by_definition(sees, q, k)


PAIRS = st.tuples(st.sampled_from(DEFINITIONS), st.sampled_from(DEFINITIONS))


@settings(max_examples=40, deadline=None)
@given(pair=PAIRS, q=slots(5), k=slots(5))
def test_and_and_or(pair: tuple[tuple[Mask, Sees], ...], q: SlotInfo, k: SlotInfo) -> None:
    (one, sees_one), (two, sees_two) = pair
    both = by_definition(lambda a, b: sees_one(a, b) and sees_two(a, b), q, k)
    either = by_definition(lambda a, b: sees_one(a, b) or sees_two(a, b), q, k)
    assert (one & two)(q.column(), k.row()).tolist() == both
    assert (one | two)(q.column(), k.row()).tolist() == either


@pytest.mark.parametrize(("mask", "sees"), DEFINITIONS, ids=lambda x: str(x)[:20])
def test_past_is_visible_is_true_only_if_it_is(mask: Mask, sees: Sees) -> None:
    """What the loop relies on when it builds no mask: own group and every earlier one are seen."""
    index = torch.arange(9)[None]
    info = SlotInfo(index // 3, index, torch.zeros_like(index), index // 5)
    own_and_past = BlockCausal()(info.column(), info.row())
    seen = mask(info.column(), info.row())
    hides = bool((own_and_past & ~seen).any())
    assert not (mask.past_is_visible and hides)
    if isinstance(mask, Full | BlockCausal):
        assert mask.past_is_visible
    for other in (BlockCausal(), Window(2)):
        assert (mask & other).past_is_visible == (mask.past_is_visible and other.past_is_visible)
        assert (mask | other).past_is_visible == (mask.past_is_visible or other.past_is_visible)


@pytest.mark.parametrize("mask", [SameSegment(), NoisyClean()])
def test_missing_metadata_is_named(mask: Mask) -> None:
    index = torch.arange(3)[None]
    with pytest.raises(ValueError, match="slots with a"):
        mask(SlotInfo(index, index).column(), SlotInfo(index, index).row())
