"""The noise that numpy makes on a CPU is bit for bit that of any device."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from seqgen.noise import _uniform_on_any_device, uniform

SEEDS = st.lists(st.integers(-(1 << 63), (1 << 63) - 1), min_size=1, max_size=3)
SLOTS = st.lists(st.integers(0, 1 << 40), min_size=1, max_size=4)


@given(SEEDS, SLOTS, st.integers(0, 1 << 40), st.sampled_from([None, 1, 3]))
def test_same_bits(seeds: list[int], slots: list[int], draw: int, count: int | None) -> None:
    seeds_B, slots_1Q = torch.tensor(seeds), torch.tensor(slots)[None]
    got = uniform(seeds_B, slots_1Q, draw, count)
    want = _uniform_on_any_device(seeds_B, slots_1Q, draw, count)
    assert torch.equal(got, want)
    assert got.dtype == want.dtype
    assert 0 < got.min() <= got.max() < 1


@pytest.mark.parametrize("rows", [1, 3])
def test_slots_of_each_row(rows: int) -> None:
    """Slots may differ by row, and may be a view that is not contiguous."""
    slots_BQ = torch.arange(12).view(4, 3).t()[:rows]
    seeds_B = torch.arange(rows) * 7
    assert torch.equal(
        uniform(seeds_B, slots_BQ, 2), _uniform_on_any_device(seeds_B, slots_BQ, 2, None)
    )
