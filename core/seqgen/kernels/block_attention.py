"""Attention of one block of queries over a cache, as one Triton kernel: decoding on a GPU.

A step of decoding has few queries (1 to 64 slots of a block, or the block before it as well) and
many keys. The queries of all heads that share a key/value head are rows of one tile, so keys and
values are read once; the softmax is computed online (Milakov and Gimelshein 2018, arXiv 1805.02867;
FlashAttention-2, arXiv 2307.08691, algorithm 1); and where there are too few rows to fill the
device, the keys are divided among several programs whose results are joined by their log-sum-exp
(Flash-Decoding). Scores never leave the registers: the only memory made is the result, and with
divided keys one partial result a part.

What a query sees comes in one of two forms: a *staircase*, a number a query and a number a key,
with key numbers up to its own visible (groups or positions; no mask is stored at all), or a boolean
mask [B or 1, Q, K]. Keys may be invalid on top, and rows may end early.

This module imports Triton; import it only where a kernel is to run.

Shapes: B rows, H query heads, G key/value heads, Q queries, K keys, d head width, P parts of the
keys, M rows of a tile, N keys of a tile, W head width padded to a power of two.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from seqgen.kernels import interpreted

LOG2E = 1.4426950408889634


def block_attention(
    query_BHQd: Tensor,
    key_BGKd: Tensor,
    value_BGKd: Tensor,
    *,
    staircase: tuple[Tensor, Tensor] | None = None,
    mask_BQK: Tensor | None = None,
    key_valid_BK: Tensor | None = None,
    key_end_B: Tensor | None = None,
    parts: int = 0,
) -> Tensor:
    """Attention [B, H, Q, d]; a query that sees no key gets zeros. Any strides; no gradients.

    Args:
        staircase: int64 (queries [B or 1, Q], keys [B or 1, K]): a query sees the keys whose number
            is not above its own.
        mask_BQK: bool [B or 1, Q, K], in place of a staircase.
        key_valid_BK: bool [B or 1, K], keys in use.
        key_end_B: int64 [B or 1], keys from there on are in no use and not even read.
        parts: into how many parts the keys are divided; 0 chooses what fills the device.
    """
    B, H, Q, d = query_BHQd.shape
    G, K = key_BGKd.shape[1:3]
    rows = H // G * Q
    W = max(triton.next_power_of_2(d), 16)
    N = tile_size(W, query_BHQd.element_size())
    M = min(max(triton.next_power_of_2(rows), 16), N)
    tiles = triton.cdiv(rows, M)
    parts = parts or _parts(B * G * tiles, K, N, query_BHQd.device)
    out_BHQd = torch.empty_like(query_BHQd, memory_format=torch.contiguous_format)
    # Unused pointers must still be tensors; the query stands in.
    q_number, k_number = staircase or (query_BHQd, query_BHQd)
    mask = query_BHQd if mask_BQK is None else mask_BQK
    valid = query_BHQd if key_valid_BK is None else key_valid_BK
    end = query_BHQd if key_end_B is None else key_end_B
    partial, log_sum = out_BHQd, out_BHQd
    if parts > 1:
        partial = out_BHQd.new_empty(B, G, parts, rows, d, dtype=torch.float32)
        log_sum = out_BHQd.new_empty(B, G, parts, rows, dtype=torch.float32)
    _attend[(B * G, tiles, parts)](
        query_BHQd,
        key_BGKd,
        value_BGKd,
        out_BHQd,
        partial,
        log_sum,
        q_number,
        k_number,
        mask,
        valid,
        end,
        *query_BHQd.stride(),
        *key_BGKd.stride(),
        *value_BGKd.stride(),
        _batch_stride(q_number) if staircase else 0,
        _batch_stride(k_number) if staircase else 0,
        _batch_stride(mask) if mask_BQK is not None else 0,
        mask.stride(1) if mask_BQK is not None else 0,
        mask.stride(2) if mask_BQK is not None else 0,
        _batch_stride(valid) if key_valid_BK is not None else 0,
        valid.stride(1) if key_valid_BK is not None else 0,
        _batch_stride(end) if key_end_B is not None else 0,
        H,
        G,
        Q,
        K,
        d,
        d**-0.5 * LOG2E,
        STAIRCASE=staircase is not None,
        MASKED=mask_BQK is not None,
        VALID=key_valid_BK is not None,
        ENDS=key_end_B is not None,
        # Triton's interpreter holds bfloat16 as integers and cannot multiply it.
        WIDEN=interpreted() and query_BHQd.dtype == torch.bfloat16,
        PARTS=parts,
        M=M,
        N=N,
        W=W,
        num_warps=4,
    )
    if parts > 1:
        _join[(B * G, tiles)](
            partial, log_sum, out_BHQd, H, G, Q, d, PARTS=parts, M=M, W=W, num_warps=4
        )
    return out_BHQd


def tile_size(width: int, size: int) -> int:
    """Rows and keys of a tile, for heads of a (padded) width and numbers of so many bytes.

    Three tiles of keys and values are on their way at a time and must fit shared memory; float32 is
    multiplied without tensor cores, in registers.
    """
    return max(16, 64 // max(1, width * size**2 // 512))


def _parts(programs: int, keys: int, tile: int, device: torch.device) -> int:
    """Parts of the keys: enough programs for two a processor, and no part below four tiles."""
    wanted = -(-2 * _processors(device) // programs)
    return max(1, min(wanted, keys // (4 * tile), 64))


@lru_cache(maxsize=16)
def _processors(device: torch.device) -> int:
    if device.type != "cuda":
        return 1
    count: int = torch.cuda.get_device_properties(device).multi_processor_count
    return count


def _batch_stride(x: Tensor) -> int:
    """The stride from row to row; 0 where one row serves all."""
    return x.stride(0) if x.shape[0] > 1 else 0


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _attend(  # type: ignore[no-untyped-def]
    query,
    key,
    value,
    out,
    partial,
    log_sum,
    q_number,
    k_number,
    seen,
    valid,
    ends,
    query_b,
    query_h,
    query_q,
    query_d,
    key_b,
    key_g,
    key_k,
    key_d,
    value_b,
    value_g,
    value_k,
    value_d,
    q_number_b,
    k_number_b,
    seen_b,
    seen_q,
    seen_k,
    valid_b,
    valid_k,
    ends_b,
    H,
    G,
    Q,
    K,
    d,
    scale,
    STAIRCASE: tl.constexpr,
    MASKED: tl.constexpr,
    VALID: tl.constexpr,
    ENDS: tl.constexpr,
    WIDEN: tl.constexpr,
    PARTS: tl.constexpr,
    M: tl.constexpr,
    N: tl.constexpr,
    W: tl.constexpr,
):
    b = (tl.program_id(0) // G).to(tl.int64)
    g = (tl.program_id(0) % G).to(tl.int64)
    part = tl.program_id(2)
    share = H // G
    rows = share * Q

    row_M = tl.program_id(1) * M + tl.arange(0, M)
    head_M = g * share + row_M // Q
    q_M = row_M % Q
    w_W = tl.arange(0, W)
    in_M = row_M < rows
    in_W = w_W < d
    at_MW = head_M[:, None] * query_h + q_M[:, None] * query_q + w_W[None, :] * query_d
    q_MW = tl.load(query + b * query_b + at_MW, mask=in_M[:, None] & in_W[None, :], other=0.0)
    if WIDEN:
        q_MW = q_MW.to(tl.float32)
    if STAIRCASE:
        own_M = tl.load(q_number + b * q_number_b + q_M, mask=in_M, other=0)

    # A part is a whole number of tiles, so that no tile is read twice.
    size = tl.cdiv(tl.cdiv(K, N), PARTS) * N
    first = part * size
    last = tl.minimum(first + size, K)
    if ENDS:
        last = tl.minimum(last, tl.load(ends + b * ends_b).to(tl.int32))

    best_M = tl.full([M], float("-inf"), tl.float32)
    total_M = tl.zeros([M], tl.float32)
    mixed_MW = tl.zeros([M, W], tl.float32)
    for start in range(first, last, N):
        k_N = start + tl.arange(0, N)
        in_N = k_N < last
        offset_N = k_N.to(tl.int64)
        key_WN = tl.load(
            key + b * key_b + g * key_g + offset_N[None, :] * key_k + w_W[:, None] * key_d,
            mask=in_W[:, None] & in_N[None, :],
            other=0.0,
        )
        if WIDEN:
            key_WN = key_WN.to(tl.float32)
        score_MN = tl.dot(q_MW, key_WN, input_precision="ieee") * scale
        sees_MN = in_M[:, None] & in_N[None, :]
        if VALID:
            valid_N = tl.load(valid + b * valid_b + offset_N * valid_k, mask=in_N, other=0)
            sees_MN = sees_MN & (valid_N != 0)[None, :]
        if STAIRCASE:
            number_N = tl.load(k_number + b * k_number_b + offset_N, mask=in_N, other=0)
            sees_MN = sees_MN & (number_N[None, :] <= own_M[:, None])
        if MASKED:
            seen_MN = tl.load(
                seen + b * seen_b + q_M[:, None] * seen_q + offset_N[None, :] * seen_k,
                mask=sees_MN,
                other=0,
            )
            sees_MN = sees_MN & (seen_MN != 0)
        score_MN = tl.where(sees_MN, score_MN, float("-inf"))
        higher_M = tl.maximum(best_M, tl.max(score_MN, axis=1))
        # Where nothing was seen yet both are -inf, and their difference would be NaN.
        base_M = tl.where(higher_M == float("-inf"), 0.0, higher_M)
        weight_MN = tl.exp2(score_MN - base_M[:, None])
        kept_M = tl.exp2(best_M - base_M)
        total_M = total_M * kept_M + tl.sum(weight_MN, axis=1)
        value_NW = tl.load(
            value
            + b * value_b
            + g * value_g
            + offset_N[:, None] * value_k
            + w_W[None, :] * value_d,
            mask=in_N[:, None] & in_W[None, :],
            other=0.0,
        )
        weight_MN = weight_MN.to(value_NW.dtype)
        if WIDEN:
            weight_MN, value_NW = weight_MN.to(tl.float32), value_NW.to(tl.float32)
        added_MW = tl.dot(weight_MN, value_NW, input_precision="ieee")
        mixed_MW = mixed_MW * kept_M[:, None] + added_MW
        best_M = higher_M

    mixed_MW = mixed_MW / tl.where(total_M == 0.0, 1.0, total_M)[:, None]
    inside_MW = in_M[:, None] & in_W[None, :]
    if PARTS == 1:
        to_MW = ((b * H + head_M[:, None]) * Q + q_M[:, None]) * d + w_W[None, :]
        tl.store(out + to_MW, mixed_MW.to(out.dtype.element_ty), mask=inside_MW)
    else:
        line_M = ((b * G + g) * PARTS + part) * rows + row_M
        tl.store(partial + line_M[:, None] * d + w_W[None, :], mixed_MW, mask=inside_MW)
        # A part that sees nothing gets no weight.
        safe_M = tl.where(total_M == 0.0, 1.0, total_M)
        tl.store(log_sum + line_M, best_M + tl.log2(safe_M), mask=in_M)


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _join(  # type: ignore[no-untyped-def]
    partial,
    log_sum,
    out,
    H,
    G,
    Q,
    d,
    PARTS: tl.constexpr,
    M: tl.constexpr,
    W: tl.constexpr,
):
    b = (tl.program_id(0) // G).to(tl.int64)
    g = (tl.program_id(0) % G).to(tl.int64)
    share = H // G
    rows = share * Q
    row_M = tl.program_id(1) * M + tl.arange(0, M)
    w_W = tl.arange(0, W)
    in_M = row_M < rows
    inside_MW = in_M[:, None] & (w_W < d)[None, :]

    best_M = tl.full([M], float("-inf"), tl.float32)
    total_M = tl.zeros([M], tl.float32)
    mixed_MW = tl.zeros([M, W], tl.float32)
    for part in range(PARTS):
        line_M = ((b * G + g) * PARTS + part) * rows + row_M
        log_M = tl.load(log_sum + line_M, mask=in_M, other=float("-inf"))
        higher_M = tl.maximum(best_M, log_M)
        base_M = tl.where(higher_M == float("-inf"), 0.0, higher_M)
        kept_M = tl.exp2(best_M - base_M)
        weight_M = tl.exp2(log_M - base_M)
        part_MW = tl.load(partial + line_M[:, None] * d + w_W[None, :], mask=inside_MW, other=0.0)
        mixed_MW = mixed_MW * kept_M[:, None] + part_MW * weight_M[:, None]
        total_M = total_M * kept_M + weight_M
        best_M = higher_M
    mixed_MW = mixed_MW / tl.where(total_M == 0.0, 1.0, total_M)[:, None]
    head_M = g * share + row_M // Q
    to_MW = ((b * H + head_M[:, None]) * Q + (row_M % Q)[:, None]) * d + w_W[None, :]
    tl.store(out + to_MW, mixed_MW.to(out.dtype.element_ty), mask=inside_MW)
