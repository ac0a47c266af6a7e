"""Attention: one function over fused backends.

`sdpa` (PyTorch's fused attention) runs and trains anywhere; `flex` (FlexAttention) is for CUDA
training and prefill and also runs forward on CPU; `triton` is a kernel of our own for CUDA
decoding (`kernels/block_attention.py`); `reference` is dense float64, the oracle of the tests. What
a backend needs of the mask is made by a `MaskView`, once a pass, from the predicate `mask(q, k)`.
docs/attention.md has the table of what is chosen where.

Shapes: B rows, H query heads, G key/value heads, Q queries, K keys, d head width.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from seqgen import kernels
from seqgen.errors import ConfigError, did_you_mean
from seqgen.mask_view import FLEX_TILE, Parts
from seqgen.mask_view import MaskView as MaskView

Backend = Literal["auto", "sdpa", "flex", "triton", "reference"]

DECODE_QUERIES = 128
"""Passes of at most so many queries count as decoding: a block of 64 and the one before it."""

MASK_ELEMENTS = 1 << 21
"""Without gradients no boolean mask is made that is larger than this (but for one query's)."""


def attend(
    query_BHQd: Tensor,
    key_BGKd: Tensor,
    value_BGKd: Tensor,
    *,
    view: MaskView | None = None,
    backend: Backend = "auto",
) -> Tensor:
    """Scaled dot-product attention with grouped key/value heads; returns [B, H, Q, d].

    Args:
        view: the mask of this pass; None when every query sees every key.
        backend: `auto` takes what `choose` says.

    Raises:
        ConfigError: the backend is unknown, or cannot do this here.
    """
    if backend == "auto":
        backend = choose(query_BHQd, masked=view is not None)
    else:
        require(backend, query_BHQd)
    if backend == "flex":
        return _flex(query_BHQd, key_BGKd, value_BGKd, view)
    if backend == "triton":
        return _triton(query_BHQd, key_BGKd, value_BGKd, view)
    if backend == "reference":
        return reference_attention(
            query_BHQd, key_BGKd, value_BGKd, None if view is None else view.dense
        )
    if view is None:
        return _unmasked(query_BHQd, key_BGKd, value_BGKd)
    if view.parts is not None:
        return _in_parts(query_BHQd, key_BGKd, value_BGKd, view.parts)
    if _needs_pieces(query_BHQd, view):
        return _in_pieces(query_BHQd, key_BGKd, value_BGKd, view)
    return fused_attention(query_BHQd, key_BGKd, value_BGKd, view.dense)


def choose(query_BHQd: Tensor, *, masked: bool) -> Backend:
    """The backend for a pass: `sdpa` on CPU; on CUDA `triton` to decode, `flex` for long passes
    under a mask (training, prefill), `sdpa` for what is left.
    """
    if not query_BHQd.is_cuda:
        return "sdpa"
    if query_BHQd.shape[2] <= DECODE_QUERIES and _why_not("triton", query_BHQd) is None:
        return "triton"
    # FlexAttention's tiles are 16 numbers wide at least.
    if masked and query_BHQd.shape[2] >= FLEX_TILE and query_BHQd.shape[3] >= 16:
        return "flex"
    return "sdpa"


def require(backend: str, query_BHQd: Tensor) -> None:
    """Raise a ConfigError, with the reason, if a backend cannot attend for these queries."""
    if backend not in get_args(Backend):
        raise ConfigError(
            f"unknown attention backend {backend!r}", fix=did_you_mean(backend, get_args(Backend))
        )
    obstacle = _why_not(backend, query_BHQd)
    if obstacle is not None:
        why, fix = obstacle
        raise ConfigError(f"attention backend {backend!r} cannot be used here", why=why, fix=fix)


def _why_not(backend: str, query_BHQd: Tensor) -> tuple[str, str] | None:
    """Why a backend cannot attend for these queries, and what to do; None if it can."""
    device = query_BHQd.device
    gradients = torch.is_grad_enabled() and query_BHQd.requires_grad
    if backend == "flex" and gradients and device.type == "cpu":
        return "FlexAttention has no backward pass on a CPU", "train with backend 'sdpa'"
    if backend == "flex" and device.type == "cuda" and query_BHQd.shape[3] < 16:
        return (
            f"FlexAttention needs heads of width 16 or more, not {query_BHQd.shape[3]}",
            "take backend 'sdpa'",
        )
    if backend != "triton":
        return None
    if (missing := kernels.obstacle(device)) is not None:
        return missing
    if gradients:
        return "the kernel has no backward pass", "train with backend 'flex' or 'sdpa', or 'auto'"
    if query_BHQd.dtype not in kernels.DTYPES:
        return f"the kernel does not know {query_BHQd.dtype}", "use float32, bfloat16 or float16"
    if query_BHQd.shape[3] > kernels.WIDEST:
        return (
            f"the kernel's heads are {kernels.WIDEST} numbers wide at most, "
            f"these are {query_BHQd.shape[3]}",
            "take backend 'sdpa'",
        )
    return None


def fused_attention(
    query_BHQd: Tensor, key_BGKd: Tensor, value_BGKd: Tensor, mask: Tensor | None
) -> Tensor:
    """PyTorch's fused attention under a boolean mask that broadcasts to [B, H, Q, K].

    Every query must see a key: a softmax over nothing is NaN.
    """
    gqa = query_BHQd.shape[1] != key_BGKd.shape[1]
    half = query_BHQd.dtype == torch.bfloat16 or torch.is_autocast_enabled("cpu")
    training = torch.is_grad_enabled() and query_BHQd.requires_grad
    if query_BHQd.device.type == "cpu" and training and half and not gqa:
        # The fused kernel's backward pass in bfloat16 takes three times as long as its parts.
        scores = query_BHQd @ key_BGKd.transpose(-1, -2) * query_BHQd.shape[-1] ** -0.5
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf"))
        mixed: Tensor = scores.softmax(dim=-1) @ value_BGKd
        return mixed
    return F.scaled_dot_product_attention(
        query_BHQd, key_BGKd, value_BGKd, attn_mask=mask, enable_gqa=gqa
    )


def reference_attention(
    query_BHQd: Tensor, key_BGKd: Tensor, value_BGKd: Tensor, dense: Tensor | None
) -> Tensor:
    """Attention by definition, in float64."""
    groups = query_BHQd.shape[1] // key_BGKd.shape[1]
    key = key_BGKd.double().repeat_interleave(groups, dim=1)
    value = value_BGKd.double().repeat_interleave(groups, dim=1)
    scores = query_BHQd.double() @ key.transpose(-1, -2) / query_BHQd.shape[-1] ** 0.5
    if dense is not None:
        scores = scores.masked_fill(~dense, float("-inf"))
    mixed: Tensor = scores.softmax(dim=-1) @ value
    return mixed.to(query_BHQd.dtype)


def _unmasked(query_BHQd: Tensor, key_BGKd: Tensor, value_BGKd: Tensor) -> Tensor:
    batch, heads, queries, width = query_BHQd.shape
    groups = key_BGKd.shape[1]
    if heads == groups or query_BHQd.is_cuda:
        return fused_attention(query_BHQd, key_BGKd, value_BGKd, None)
    # All see the same keys: heads that share them are further queries of one head.
    grouped = query_BHQd.reshape(batch, groups, -1, width)
    mixed = fused_attention(grouped, key_BGKd, value_BGKd, None)
    return mixed.reshape(batch, heads, queries, width)


def _in_parts(query_BHQd: Tensor, key_BGKd: Tensor, value_BGKd: Tensor, parts: Parts) -> Tensor:
    """Runs of queries one after the other, each without a mask."""
    keys, first, mixed = key_BGKd.shape[2], 0, []
    for last, behind in parts:
        end = keys - behind
        query = query_BHQd[:, :, first:last]
        mixed.append(_unmasked(query, key_BGKd[:, :, :end], value_BGKd[:, :, :end]))
        first = last
    return torch.cat(mixed, dim=2)


def _needs_pieces(query_BHQd: Tensor, view: MaskView) -> bool:
    """Whether the mask is too large to be made at once. Training keeps it for all layers."""
    if view.queries_agree or (torch.is_grad_enabled() and query_BHQd.requires_grad):
        return False
    return view.batch * view.queries * view.keys > MASK_ELEMENTS


def _in_pieces(query_BHQd: Tensor, key_BGKd: Tensor, value_BGKd: Tensor, view: MaskView) -> Tensor:
    """A long prefill: some queries at a time, so that no mask [Q, K] is ever whole."""
    size = max(1, MASK_ELEMENTS // (view.batch * view.keys))
    out = torch.empty_like(query_BHQd)
    for first in range(0, view.queries, size):
        last = min(first + size, view.queries)
        dense, end = view.dense_rows(first, last), view.keys
        if dense.device.type == "cpu":  # elsewhere asking would wait for the device
            end = int(dense.flatten(0, 2).any(dim=0).nonzero().max()) + 1
        out[:, :, first:last] = fused_attention(
            query_BHQd[:, :, first:last],
            key_BGKd[:, :, :end],
            value_BGKd[:, :, :end],
            dense[..., :end],
        )
    return out


def _triton(query: Tensor, key: Tensor, value: Tensor, view: MaskView | None) -> Tensor:
    from seqgen.kernels.block_attention import block_attention

    if view is None:
        return block_attention(query, key, value)
    staircase = view.staircase
    return block_attention(
        query,
        key,
        value,
        staircase=staircase,
        mask_BQK=None if staircase or view.queries_agree else view.dense[:, 0],
        key_valid_BK=view.key_valid_BK,
        key_end_B=view.key_end_B,
    )


def _flex(query: Tensor, key: Tensor, value: Tensor, view: MaskView | None) -> Tensor:
    from torch.nn.attention.flex_attention import flex_attention

    run: Callable[..., Any] = _compiled_flex() if query.is_cuda else flex_attention  # type: ignore[assignment]
    out = run(
        query,
        key,
        value,
        block_mask=None if view is None else view.block_mask,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    assert isinstance(out, Tensor)
    return out


@lru_cache(maxsize=1)
def _compiled_flex() -> Callable[..., Any]:
    """FlexAttention is fused only when compiled; eager on CUDA would build the score matrix."""
    from torch.nn.attention.flex_attention import flex_attention

    compiled: Callable[..., Any] = torch.compile(flex_attention, dynamic=True)
    return compiled
