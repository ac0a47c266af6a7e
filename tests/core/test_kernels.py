"""The Triton kernels against attention by definition: on a GPU, or in Triton's interpreter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from seqgen import kernels
from seqgen.attention import reference_attention

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
OBSTACLE = kernels.obstacle(DEVICE)

pytestmark = pytest.mark.skipif(OBSTACLE is not None, reason=str(OBSTACLE))

if OBSTACLE is None:
    from seqgen.kernels.block_attention import _parts, block_attention

# Rounding of a result of size 1 to the type, and some for the sums.
TOLERANCE = {torch.float32: 2e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator).to(DEVICE, dtype)


def check(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    staircase: tuple[Tensor, Tensor] | None = None,
    mask: Tensor | None = None,
    valid: Tensor | None = None,
    end: Tensor | None = None,
    parts: int = 0,
) -> None:
    """The kernel equals the definition where a query sees something, and is zero elsewhere."""
    got = block_attention(
        q,
        k,
        v,
        staircase=staircase,
        mask_BQK=mask,
        key_valid_BK=valid,
        key_end_B=end,
        parts=parts,
    )
    batch, _, queries, _ = q.shape
    sees = torch.ones(batch, queries, k.shape[2], dtype=torch.bool, device=DEVICE)
    if staircase is not None:
        sees = sees & (staircase[1][:, None, :] <= staircase[0][:, :, None])
    if mask is not None:
        sees = sees & mask
    if valid is not None:
        sees = sees & valid[:, None, :]
    if end is not None:
        sees = sees & (torch.arange(k.shape[2], device=DEVICE) < end[:, None])[:, None, :]
    some = sees.any(dim=-1, keepdim=True)
    want = reference_attention(q, k, v, (sees | ~some)[:, None])
    want = torch.where(some[:, None], want, 0)
    assert got.shape == q.shape
    assert got.dtype == q.dtype
    torch.testing.assert_close(got, want, atol=TOLERANCE[q.dtype], rtol=TOLERANCE[q.dtype])


@settings(max_examples=16, deadline=None, derandomize=True)
@given(data=st.data())
def test_the_kernel_equals_the_definition(data: st.DataObject) -> None:
    """Grouped heads, any width, ragged rows, every form of mask, keys in one part or several."""
    draw = data.draw
    batch, groups, share = draw(st.integers(1, 3)), draw(st.integers(1, 2)), draw(st.integers(1, 3))
    queries, keys = draw(st.integers(1, 40)), draw(st.integers(1, 200))
    width, seed = draw(st.sampled_from([4, 16, 24, 32, 64])), draw(st.integers(0, 999))
    dtype = draw(st.sampled_from(list(TOLERANCE)))
    generator = torch.Generator().manual_seed(seed)

    def integers(high: int, *shape: int) -> Tensor:
        return torch.randint(high, shape, generator=generator).to(DEVICE)

    rows = draw(st.sampled_from([1, batch]))
    form = draw(st.sampled_from(["nothing", "staircase", "mask"]))
    staircase = (integers(5, rows, queries), integers(5, batch, keys))
    check(
        normal(batch, groups * share, queries, width, seed=seed, dtype=dtype),
        normal(batch, groups, keys, width, seed=seed + 1, dtype=dtype),
        normal(batch, groups, keys, width, seed=seed + 2, dtype=dtype),
        staircase=staircase if form == "staircase" else None,
        mask=integers(2, rows, queries, keys).bool() if form == "mask" else None,
        valid=integers(3, rows, keys) > 0 if draw(st.booleans()) else None,
        end=integers(keys + 1, batch) if draw(st.booleans()) else None,
        parts=draw(st.integers(0, 4)),
    )


@pytest.mark.parametrize("width", [80, 256])
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_widths_and_types(width: int, dtype: torch.dtype) -> None:
    """A block of 4 and the one before it, four query heads a key/value head."""
    q = normal(1, 8, 8, width, dtype=dtype)
    k, v = (normal(1, 2, 150, width, seed=s, dtype=dtype) for s in (1, 2))
    number = torch.arange(150, device=DEVICE)[None] // 4
    check(q, k, v, staircase=(number[:, 142:], number), parts=1)
    check(q, k, v, staircase=(number[:, 142:], number), parts=2)


@pytest.mark.parametrize("block", [1, 2, 4, 16, 64])
def test_blocks_behind_a_cache_of_ragged_rows(block: int) -> None:
    """As in a decode: views into a longer cache, queries laid out head by head, rows that end."""
    keys, width = 128 + block, 32
    whole_k, whole_v = (normal(3, 2, 256, width, seed=s) for s in (1, 2))
    q = normal(3, block, 4, width).transpose(1, 2)
    end = torch.tensor([keys, 40 + block, block], device=DEVICE)
    valid = torch.arange(keys, device=DEVICE) < end[:, None]
    valid[1, 3:7] = False
    check(q, whole_k[:, :, :keys], whole_v[:, :, :keys], valid=valid, end=end)


def test_many_queries_are_several_tiles() -> None:
    """A prefill: more rows than a tile holds, each with its own causal border."""
    q, k, v = (normal(1, h, 150, 16, seed=h) for h in (4, 2, 1))
    v = k.flip(-1)
    position = torch.arange(150, device=DEVICE)[None]
    check(q, k, v, staircase=(position, position))


def test_large_scores_do_not_overflow() -> None:
    q, k, v = 300 * normal(1, 1, 4, 16), 300 * normal(1, 1, 90, 16, seed=1), normal(1, 1, 90, 16)
    for parts in (1, 3):
        check(q, k, v, parts=parts)


def test_queries_that_see_nothing_get_zeros() -> None:
    q, k = normal(2, 2, 3, 16), normal(2, 2, 70, 16, seed=1)
    valid = torch.zeros(2, 70, dtype=torch.bool, device=DEVICE)
    valid[1, 5] = True
    for parts in (1, 4):
        got = block_attention(q, k, k, key_valid_BK=valid, parts=parts)
        assert torch.equal(got[0], torch.zeros_like(got[0]))
        torch.testing.assert_close(got[1], k[1, :, 5:6].expand_as(got[1]))


def test_invalid_keys_are_never_read_into_the_result() -> None:
    """Behind a row's end may lie anything."""
    q, k = normal(1, 1, 2, 16), normal(1, 1, 100, 16, seed=1)
    end = torch.tensor([30], device=DEVICE)
    clean = block_attention(q, k, k, key_end_B=end)
    k[:, :, 30:] = float("nan")
    assert torch.equal(block_attention(q, k, k, key_end_B=end), clean)


def test_keys_are_divided_only_where_rows_are_few() -> None:
    cpu = torch.device("cpu")  # counts as one processor
    assert _parts(1, 4096, 64, cpu) == 2
    assert _parts(2, 4096, 64, cpu) == 1
    assert _parts(1, 100, 64, cpu) == 1


COMPILE = """
import json, sys
from triton import compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from seqgen.kernels import block_attention as module

STRIDES, FREE = ("_b", "_h", "_g", "_q", "_k"), ("seen_k", "valid_k", "ends_b", "seen_q")
shared = {}
for arch, width, kind in ((80, 128, "bf16"), (90, 128, "bf16"), (80, 256, "fp32")):
    size = 2 if kind == "bf16" else 4
    common = {"PARTS": 4, "M": module.tile_size(width, size), "W": width}
    more = {"STAIRCASE": True, "MASKED": False, "VALID": True, "ENDS": True, "WIDEN": False}
    for function, constants in (
        (module._attend, {**more, **common, "N": common["M"]}), (module._join, common)
    ):
        pointers = {name: "*" + kind for name in ("query", "key", "value", "out")}
        pointers |= {"partial": "*fp32", "log_sum": "*fp32", "scale": "fp32", "seen": "*i1"}
        pointers |= {"valid": "*i1", "q_number": "*i64", "k_number": "*i64", "ends": "*i64"}
        names = function.arg_names
        signature = {
            name: "constexpr" if name in constants else pointers.get(name, "i32") for name in names
        }
        constexprs = {(names.index(name),): value for name, value in constants.items()}
        # Launches tell the compiler which pointers and strides are multiples of 16.
        aligned = {n for n in names if n in pointers or n[-2:] in STRIDES} - {"scale", *FREE}
        hints = {(names.index(name),): [["tt.divisibility", 16]] for name in aligned}
        source = ASTSource(fn=function, signature=signature, constexprs=constexprs, attrs=hints)
        made = compile(source, target=GPUTarget("cuda", arch, 32), options={"num_warps": 4})
        assert made.asm["cubin"]
        shared[f"{function.__name__} {arch} {width} {kind}"] = made.metadata.shared
print(json.dumps(shared))
"""


@pytest.mark.slow
def test_the_kernels_compile_for_gpus_without_one(tmp_path: Path) -> None:
    """Triton brings its own assembler: machine code for A100 and H100, within the shared memory
    of smaller cards (99 KiB a block)."""
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", COMPILE], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    shared = json.loads(done.stdout)
    assert len(shared) == 6
    assert max(shared.values()) <= 99 * 1024, shared
