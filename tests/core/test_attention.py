"""Every attention backend against attention by definition, for every mask."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seqgen.attention import Backend, MaskView, attend, reference_attention
from seqgen.masks import (
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

MASKS = [
    Full(), Causal(), BlockCausal(), Markov(), NoisyClean(), SameSegment(),
    Window(3) & Causal(), Prefix(2) | Causal(), BlockCausal() & SameSegment(),
]  # fmt: skip
BACKENDS: list[Backend] = ["sdpa", "flex"]

pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")


@st.composite
def passes(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, MaskView]:
    """Queries, keys, values and a mask: grouped heads, unequal counts, ragged validity."""
    batch, keys = draw(st.integers(1, 3)), draw(st.integers(1, 20))
    queries = draw(st.integers(1, keys))
    groups, share = draw(st.integers(1, 2)), draw(st.integers(1, 3))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 9999)))
    width = 16

    def normal(heads: int, count: int) -> torch.Tensor:
        return torch.randn(batch, heads, count, width, generator=generator)

    rows = batch if draw(st.booleans()) else 1
    valid = None
    if draw(st.booleans()):
        lengths = torch.randint(0, keys + 1, (batch,), generator=generator)
        valid = torch.arange(keys) < lengths[:, None]

    def whole(high: int) -> torch.Tensor:
        return torch.randint(high, (rows, keys), generator=generator)

    k = SlotInfo(whole(4), whole(12), whole(2), whole(2))
    first = draw(st.integers(0, keys - queries))
    part = slice(first, first + queries)
    q = SlotInfo(k.group[:, part], k.position[:, part], k.copy[:, part], k.segment[:, part])  # type: ignore[index]
    view = MaskView(draw(st.sampled_from(MASKS)), q, k, valid)
    return normal(groups * share, queries), normal(groups, keys), normal(groups, keys), view


Case = tuple[torch.Tensor, torch.Tensor, torch.Tensor, MaskView]


@settings(max_examples=60, deadline=None)
@given(case=passes())
def test_sdpa_equals_the_definition(case: Case) -> None:
    check("sdpa", case)


@settings(max_examples=12, deadline=None)  # its block masks take long to make
@given(case=passes())
def test_flex_equals_the_definition(case: Case) -> None:
    check("flex", case)


def check(backend: Backend, case: Case) -> None:
    query, key, value, view = case
    got = attend(query, key, value, view=view, backend=backend)
    want = reference_attention(query, key, value, view.dense)
    assert got.shape == query.shape
    # FlexAttention gives an unused query zeros, the others an average that nobody reads.
    used = sees_something(view, query)
    torch.testing.assert_close(got[used], want[used], atol=2e-5, rtol=2e-5)
    assert bool(torch.isfinite(got).all())


@pytest.mark.parametrize("mask", MASKS, ids=lambda mask: str(mask)[:20])
@pytest.mark.parametrize("backend", BACKENDS)
def test_every_mask_with_grouped_heads_and_ragged_rows(backend: Backend, mask: Mask) -> None:
    torch.manual_seed(0)
    index = torch.arange(11)[None]
    info = SlotInfo(index // 3, index, index % 2, index // 6)
    valid = index < torch.tensor([[11], [4], [0]])
    query, key, value = (torch.randn(3, heads, 11, 16) for heads in (6, 2, 2))
    check(backend, (query, key, value, MaskView(mask, info, info, valid)))


@pytest.mark.parametrize("backend", BACKENDS)
def test_without_a_mask_everything_is_seen(backend: Backend) -> None:
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, h, n, 16) for h, n in ((4, 3), (2, 7), (2, 7)))
    got = attend(query, key, value, backend=backend)
    torch.testing.assert_close(
        got, reference_attention(query, key, value, None), atol=2e-5, rtol=2e-5
    )


def test_the_definition_itself() -> None:
    """Softmax of scaled products, written out for one query that sees two of three keys."""
    query = torch.tensor([[[[2.0, 0.0]]]])
    key = torch.tensor([[[[1.0, 5.0], [3.0, 0.0], [9.0, 9.0]]]])
    value = torch.tensor([[[[1.0, 0.0], [0.0, 1.0], [7.0, 7.0]]]])
    dense = torch.tensor([[[[True, True, False]]]])
    weights = torch.tensor([2.0, 6.0]).div(2**0.5).softmax(0)
    got = reference_attention(query, key, value, dense)
    torch.testing.assert_close(got[0, 0, 0], weights)


def test_an_unknown_backend_is_named() -> None:
    x = torch.zeros(1, 1, 1, 16)
    with pytest.raises(ValueError, match="'slow': auto, sdpa"):
        attend(x, x, x, backend="slow")  # type: ignore[arg-type]


def sees_something(view: MaskView, query: torch.Tensor) -> torch.Tensor:
    """Queries that see at least one key, bool [B, H, Q]."""
    sees = view.mask(view.q.column(), view.k.row())
    if view.key_valid_BK is not None:
        sees = sees & view.key_valid_BK[:, None, :]
    return sees.any(-1)[:, None].expand(query.shape[:3])


def test_a_mask_of_one_row_serves_a_batch() -> None:
    index = torch.arange(6)[None]
    info = SlotInfo(index // 2, index)
    view = MaskView(BlockCausal(), info, info)
    assert view.dense.shape == (1, 1, 6, 6)
    torch.manual_seed(1)
    x = torch.randn(3, 2, 6, 16)
    for backend in BACKENDS:
        got = attend(x, x, x, view=view, backend=backend)
        want = reference_attention(x, x, x, view.dense)
        torch.testing.assert_close(got, want, atol=2e-5, rtol=2e-5)


def test_masks_are_all_covered() -> None:
    named = {type(mask) for mask in MASKS} | {Window, Prefix}
    assert named >= {m for m in Mask.__subclasses__() if not m.__name__.startswith("_")}
