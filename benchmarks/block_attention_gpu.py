"""Block decoding's attention on a GPU: our Triton kernel against SDPA and FlexAttention.

    python benchmarks/block_attention_gpu.py [--json FILE] [--repeats 7]

The heads of SDAR-1.7B (16 query, 8 key/value heads of width 128) in bfloat16; blocks of K queries
over caches of several lengths, in two passes of a decode:

- `alone`: a refinement of a block. Every query sees every key, and no mask exists.
- `fused`: the first pass of a block, which feeds the finished block before it too (2 K queries
  under the block-causal mask), in rows whose caches end at different lengths.

Each backend must agree with attention by definition before it is timed. Besides milliseconds there
is the share of the card's bandwidth: bytes of the keys and values in use over the kernel's time,
over the bandwidth measured with a large copy.

Without a CUDA device a small smoke version runs in Triton's interpreter: it checks agreement, and
its times mean nothing.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor

from seqgen.attention import Backend, MaskView, attend, reference_attention
from seqgen.benchmark import interleaved, print_result, result, write_result
from seqgen.kernels import obstacle
from seqgen.masks import BlockCausal, SlotInfo

CUDA = torch.cuda.is_available()
if not CUDA:
    os.environ["TRITON_INTERPRET"] = "1"  # Triton looks when the first kernel imports it
DEVICE = torch.device("cuda" if CUDA else "cpu")
BACKENDS: tuple[Backend, ...] = ("triton", "sdpa", "flex")


@dataclass(frozen=True)
class Sizes:
    """What is measured: every combination."""

    heads: int
    kv_heads: int
    width: int
    caches: tuple[int, ...]
    batches: tuple[int, ...]
    blocks: tuple[int, ...]
    dtype: torch.dtype
    calls: int
    """Calls between two waits for the device."""


ON_GPU = Sizes(16, 8, 128, (512, 4096, 16384), (1, 16, 128), (1, 4, 16, 64), torch.bfloat16, 20)
SMOKE = Sizes(4, 2, 16, (64,), (1, 2), (4,), torch.float32, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path, help="also write the result here")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    sizes = ON_GPU if CUDA else SMOKE
    backends = BACKENDS
    if not CUDA:
        print("no CUDA device is at hand: a smoke run in Triton's interpreter, times mean nothing")
    if (missing := obstacle(DEVICE)) is not None:
        print(f"without the kernel: {missing[0]}; {missing[1]}")
        backends = ("sdpa", "flex")
    bandwidth = copy_bandwidth(1 << (30 if CUDA else 20))
    rows = [
        measure(sizes, backends, cache, batch, block, fused, bandwidth, arguments.repeats)
        for cache in sizes.caches
        for batch in sizes.batches
        for block in sizes.blocks
        for fused in (False, True)
    ]
    outcome = result("block_attention_gpu", rows)
    outcome["machine"]["device"] = torch.cuda.get_device_name() if CUDA else "none (smoke run)"
    outcome["machine"]["copy_gigabytes_a_second"] = round(bandwidth / 1e9, 1)
    print_result(outcome)
    if arguments.json:
        write_result(outcome, arguments.json)


def measure(
    sizes: Sizes,
    backends: tuple[Backend, ...],
    cache: int,
    batch: int,
    block: int,
    fused: bool,
    bandwidth: float,
    repeats: int,
) -> dict[str, object]:
    """One row of the table."""
    query, key, value, view, used = make_pass(sizes, cache, batch, block, fused)
    calls: dict[str, Callable[[], object]] = {}
    errors = {}
    for backend in backends:
        call = partial(attend, query, key, value, view=view, backend=backend)
        errors[backend] = error(call(), query, key, value, view)
        calls[backend] = partial(several, call, sizes.calls)
    times = interleaved(calls, repeats=repeats, warm_up=2)
    row: dict[str, object] = {
        "case": f"cache {cache}, batch {batch}, K {block}, {'fused' if fused else 'alone'}"
    }
    for backend in backends:
        seconds = times[backend].wall_ms / 1e3 / sizes.calls
        row[f"{backend}_ms"] = 1e3 * seconds
        row[f"{backend}_bandwidth"] = used / seconds / bandwidth
        row[f"{backend}_error"] = errors[backend]
    for backend in backends[1:]:
        ratio = times[backend].wall_ms / times[backends[0]].wall_ms
        row[f"{backend}_over_{backends[0]}"] = ratio
    return row


def make_pass(
    sizes: Sizes, cache: int, batch: int, block: int, fused: bool
) -> tuple[Tensor, Tensor, Tensor, MaskView | None, int]:
    """Queries, keys, values and mask of a decoding pass, and the bytes of keys and values used."""
    generator = torch.Generator(DEVICE).manual_seed(0)
    queries = 2 * block if fused else block
    keys = cache + queries
    shapes = ((sizes.heads, queries), (sizes.kv_heads, keys), (sizes.kv_heads, keys))
    query, key, value = (
        torch.randn(
            batch, heads, count, sizes.width, generator=generator, device=DEVICE, dtype=sizes.dtype
        )
        for heads, count in shapes
    )
    line = 2 * sizes.kv_heads * sizes.width * query.element_size()
    if not fused:
        return query, key, value, None, batch * keys * line
    # Rows end at between a half and all of the cache; a row's own blocks lie behind its end.
    ends_B = torch.linspace(cache // 2, cache, batch, device=DEVICE).long() // block * block
    offset_K = torch.arange(keys, device=DEVICE)
    valid_BK = offset_K < ends_B[:, None] + queries
    group_BK = (offset_K // block).expand(batch, -1)
    group_BQ = (ends_B[:, None] + torch.arange(queries, device=DEVICE)) // block
    view = MaskView(
        BlockCausal(), SlotInfo(group_BQ, group_BQ), SlotInfo(group_BK, group_BK), valid_BK
    )
    return query, key, value, view, int(valid_BK.sum()) * line


def error(found: Tensor, query: Tensor, key: Tensor, value: Tensor, view: MaskView | None) -> float:
    """The largest difference from attention by definition, in the first and the last row."""
    worst = 0.0
    for row in {0, len(query) - 1}:
        part = slice(row, row + 1)
        dense = None if view is None else view.dense[part if len(view.dense) > 1 else slice(1)]
        want = reference_attention(query[part], key[part], value[part], dense)
        worst = max(worst, float((found[part].double() - want.double()).abs().max()))
    limit = 3e-2 if query.dtype == torch.bfloat16 else 1e-4
    if not worst <= limit:
        raise SystemExit(f"a backend is off by {worst:.2g}, more than {limit:.0e}")
    return worst


def several(call: Callable[[], object], count: int) -> None:
    """Calls in a row, then wait for the device."""
    for _ in range(count):
        call()
    if CUDA:
        torch.cuda.synchronize()


def copy_bandwidth(size: int) -> float:
    """Bytes a second, read and written, of copying `size` bytes."""
    source = torch.zeros(size, dtype=torch.uint8, device=DEVICE)
    target = torch.empty_like(source)
    time = interleaved({"copy": partial(several, partial(target.copy_, source), 10)}, repeats=5)
    return 2 * 10 * size / (time["copy"].wall_ms / 1e3)


if __name__ == "__main__":
    with torch.inference_mode():
        main()
