"""Every attention backend against attention by definition, for every mask."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import WIDTH, canvas_of, small_model
from torch.nn.attention import flex_attention
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from seqgen import kernels
from seqgen.attention import Backend, MaskView, attend, choose, reference_attention
from seqgen.cache import Cache
from seqgen.canvas import Canvas
from seqgen.decoders import BlockDiffusion
from seqgen.errors import ConfigError
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
from seqgen.orders import Blocks

MASKS = [
    Full(), Causal(), BlockCausal(), Markov(), NoisyClean(), SameSegment(),
    Window(3) & Causal(), Prefix(2) | Causal(), BlockCausal() & SameSegment(),
]  # fmt: skip
OBSTACLE = kernels.obstacle(torch.device("cpu"))
TRITON = pytest.param(
    "triton", marks=pytest.mark.skipif(OBSTACLE is not None, reason=str(OBSTACLE))
)
BACKENDS = ["sdpa", "flex", TRITON]

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


@pytest.mark.skipif(OBSTACLE is not None, reason=str(OBSTACLE))
@settings(max_examples=12, deadline=None)  # the interpreter is slow
@given(case=passes())
def test_triton_equals_the_definition(case: Case) -> None:
    check("triton", case)


@settings(max_examples=6, deadline=None)  # its block masks take long to make
@given(case=passes())
def test_flex_equals_the_definition(case: Case) -> None:
    check("flex", case)


def check(backend: Backend, case: Case) -> None:
    query, key, value, view = case
    got = attend(query, key, value, view=view, backend=backend)
    want = reference_attention(query, key, value, view.dense)
    assert got.shape == query.shape
    # `flex` and `triton` give an unused query zeros, the others an average that nobody reads.
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
    with pytest.raises(ConfigError, match=r"'sdp'(.|\n)*did you mean 'sdpa'"):
        attend(x, x, x, backend="sdp")  # type: ignore[arg-type]


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
    for backend in get_args(Backend):
        if backend != "triton" or OBSTACLE is None:
            got = attend(x, x, x, view=view, backend=backend)
            want = reference_attention(x, x, x, view.dense)
            torch.testing.assert_close(got, want, atol=2e-5, rtol=2e-5)


def test_masks_are_all_covered() -> None:
    named = {type(mask) for mask in MASKS} | {Window, Prefix}
    assert named >= {m for m in Mask.__subclasses__() if not m.__name__.startswith("_")}


# What is chosen, and what cannot be forced -------------------------------------------------------


def test_on_a_cpu_the_fused_attention_of_torch_is_chosen() -> None:
    for queries in (1, 8, 500):
        x = torch.zeros(1, 1, queries, 16)
        assert {choose(x, masked=masked) for masked in (True, False)} == {"sdpa"}


class OnCuda:
    """What `choose` asks of a tensor, as if it were on a GPU."""

    def __init__(self, *shape: int, dtype: torch.dtype = torch.float32, grad: bool = False) -> None:
        self.shape, self.dtype, self.requires_grad, self.is_cuda = shape, dtype, grad, True
        self.device = torch.device("cuda")


@pytest.mark.parametrize(
    ("query", "masked", "expected"),
    [
        (OnCuda(1, 4, 4, 128), False, "triton"),
        (OnCuda(1, 4, 128, 128), True, "triton"),
        (OnCuda(1, 4, 129, 128), True, "flex"),
        (OnCuda(1, 4, 129, 128), False, "sdpa"),
        (OnCuda(1, 4, 129, 8), True, "sdpa"),
        (OnCuda(1, 4, 4, 128, grad=True), True, "sdpa"),
        (OnCuda(1, 4, 4096, 128, grad=True), True, "flex"),
        (OnCuda(1, 4, 4, 512), True, "sdpa"),
        (OnCuda(1, 4, 4, 128, dtype=torch.float64), True, "sdpa"),
    ],
)
def test_on_a_gpu_the_pass_decides(query: OnCuda, masked: bool, expected: str) -> None:
    if not kernels.installed():
        pytest.skip("without triton there is no kernel to choose")
    assert choose(query, masked=masked) == expected  # type: ignore[arg-type]


def test_what_cannot_be_forced_says_why_and_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.zeros(1, 2, 3, 16, requires_grad=True)
    with pytest.raises(ConfigError, match=r"no backward pass on a CPU(.|\n)*'sdpa'"):
        attend(x, x, x, backend="flex")
    if OBSTACLE is None:
        with pytest.raises(ConfigError, match=r"no backward pass(.|\n)*'flex' or 'sdpa'"):
            attend(x, x, x, backend="triton")
        wide = torch.zeros(1, 1, 1, 300)
        with pytest.raises(ConfigError, match="256 numbers wide at most, these are 300"):
            attend(wide, wide, wide, backend="triton")
        double = torch.zeros(1, 1, 1, 16, dtype=torch.float64)
        with pytest.raises(ConfigError, match=r"torch\.float64"):
            attend(double, double, double, backend="triton")
    x = x.detach()
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    if kernels.installed():
        with pytest.raises(ConfigError, match=r"run on a GPU(.|\n)*TRITON_INTERPRET=1"):
            attend(x, x, x, backend="triton")
    monkeypatch.setattr(kernels, "installed", lambda: False)
    with pytest.raises(ConfigError, match=r"not installed(.|\n)*pip install triton"):
        attend(x, x, x, backend="triton")


def test_the_option_of_a_model_reaches_every_layer() -> None:
    """A backend that cannot train is refused where the model is trained, not silently replaced."""
    model = small_model(backend="flex")
    x = torch.randn(1, 3, WIDTH)
    with pytest.raises(ConfigError, match="no backward pass"):
        model.backbone(x, torch.arange(3)[None, :, None])
    with pytest.raises(ConfigError, match="unknown attention backend"):
        small_model(backend="fused").backbone(x, torch.arange(3)[None, :, None])  # type: ignore[arg-type]


# Masks are made of what is needed only ------------------------------------------------------------


def test_a_long_prefill_is_attended_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some queries at a time, in every mask, and no key is read behind the last that is seen."""
    torch.manual_seed(0)
    index = torch.arange(90)[None]
    info = SlotInfo(index // 3, index, index % 2, index // 60)
    valid = index < torch.tensor([[90], [71]])
    query, key, value = (torch.randn(2, heads, 90, 16) for heads in (4, 2, 2))
    for mask in MASKS:
        view = MaskView(mask, info, info, valid)
        want = attend(query, key, value, view=view, backend="sdpa")
        with monkeypatch.context() as patch:
            patch.setattr("seqgen.attention.MASK_ELEMENTS", 2 * 90 * 7)
            pieces = MaskView(mask, info, info, valid)
            got = attend(query, key, value, view=pieces, backend="sdpa")
        torch.testing.assert_close(got, want, atol=1e-6, rtol=1e-6)
        assert "dense" in vars(pieces) or not isinstance(mask, Full)
        assert "dense" not in vars(pieces) or isinstance(mask, Full)


@pytest.mark.parametrize("mask", MASKS, ids=lambda mask: str(mask)[:20])
def test_block_masks_are_those_of_pytorch(mask: Mask) -> None:
    """Tile by tile, the partly and the wholly seen ones; the partly seen ones may be full."""
    from torch.nn.attention.flex_attention import create_block_mask

    queries, keys = 300, 400
    index = torch.arange(keys)[None]
    k = SlotInfo(index // 128, index, index // 200, index // 256)
    q = k.part(100, 100 + queries)
    valid = index < torch.tensor([[400], [129]])
    view = MaskView(mask, q, k, valid)
    ours = view.block_mask
    theirs = create_block_mask(view.mask_mod, 2, None, queries, keys, device="cpu")
    assert ours.to_dense().tolist() == theirs.to_dense().tolist()
    if not isinstance(mask, Full):
        assert ours.full_kv_num_blocks.tolist() == theirs.full_kv_num_blocks.tolist()


class Largest(TorchDispatchMode):
    """Remembers the largest tensor that is made."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        made = func(*args, **(kwargs or {}))
        for x in made if isinstance(made, (tuple, list)) else (made,):
            if isinstance(x, torch.Tensor):
                # An expanded tensor has many elements and little memory.
                self.elements = max(self.elements, min(x.numel(), x.untyped_storage().nbytes()))
        return made


def unwatched(call: Callable[..., Any]) -> Callable[..., Any]:
    def made(*args: Any, **kwargs: Any) -> Any:
        with _disable_current_modes():
            return call(*args, **kwargs)

    return made


SLOTS = 2048


@pytest.mark.parametrize("settled", [[2040, 2040], [2040, 700]], ids=["uniform", "ragged"])
@pytest.mark.parametrize("backend", [*BACKENDS, "reference"])
def test_no_backend_makes_slots_times_slots_in_a_decode(
    backend: Backend, settled: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first pass of a late block, which feeds the finished block before it as well."""
    # Without a compiler FlexAttention is an emulation that does not run under a watch.
    eager = flex_attention.flex_attention
    monkeypatch.setattr(flex_attention, "flex_attention", unwatched(eager))
    model = small_model(backend=backend)
    table = Blocks(4).table(SLOTS, torch.device("cpu"))
    canvas = Canvas.tokens([[0] * (n + 4) for n in settled], new=[SLOTS - n - 4 for n in settled])
    cache = model.backbone.new_cache(2, SLOTS)
    assert isinstance(cache, Cache)
    cache.begin(torch.arange(settled[0])[None], None)
    for layer in range(len(cache.keys)):
        cache.write(layer, *(0.1 * torch.randn(2, 2, 2, settled[0], 6)))
    cache.settle(settled[0])
    if settled[1] != settled[0]:
        cache.truncate(torch.tensor(settled), bound=settled[0])
    slots = torch.tensor(settled)[:, None] + torch.arange(8)
    slots = slots[:1] if settled[0] == settled[1] else slots
    model.inputs.positions = None  # its table is smaller than this canvas
    with torch.inference_mode(), Largest() as largest:
        hidden = model.hidden(canvas, table, slots, cache=cache)
    assert hidden.shape == (2, 8, WIDTH)
    assert bool(hidden.isfinite().all())
    # Keys of a layer are 2 x 2 x 2048 x 6; FlexAttention's tiles are 128 queries high.
    assert SLOTS <= largest.elements <= 2 * 128 * SLOTS < SLOTS * SLOTS / 4


def test_nor_does_the_prefill_of_a_long_prompt_on_a_cpu() -> None:
    model = small_model(layers=1)
    model.inputs.positions = None
    canvas = canvas_of([[1] * (SLOTS - 7), [1] * (SLOTS - 11)], 6)
    with Largest() as largest:
        out = BlockDiffusion(block_length=4, threshold=0.0).generate(model, canvas)
    assert [len(row) for row in out.sequences()] == [6, 6]
    assert largest.elements < SLOTS * SLOTS


@pytest.mark.parametrize("sizes", [[3, 3], [1, 6, 0]], ids=["uniform", "ragged"])
def test_a_step_that_sees_everything_builds_no_mask(
    sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that agree: none at all. Rows that do not: the keys in use, once for all queries."""
    made: list[tuple[int, ...]] = []
    dense_rows = MaskView.dense_rows

    def watched(view: MaskView, first: int, last: int) -> torch.Tensor:
        made.append(tuple(dense_rows(view, first, last).shape))
        return dense_rows(view, first, last)

    monkeypatch.setattr(MaskView, "dense_rows", watched)
    model, prompts = small_model(layers=1), [[1] * n for n in sizes]
    decoder = BlockDiffusion(block_length=4, remasking="low_confidence_static")
    out = decoder.generate(model, canvas_of(prompts, 9))
    alone = [shape for shape in made if shape[2] == 1]
    fused = [shape for shape in made if shape[2] > 1]
    # The first pass of a block feeds the block before it too; the three others feed it alone.
    assert len(fused) <= -(-out.forwards // 4) + 1
    if len(set(sizes)) == 1:
        assert not alone
    else:
        assert len(alone) + len(fused) == out.forwards
        assert len(alone) > len(fused)
