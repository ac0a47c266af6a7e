"""Attention: one function over fused backends.

`sdpa` runs and trains anywhere; `flex` (FlexAttention) is for CUDA training and prefill and also
runs forward on CPU; `reference` is dense float64, the oracle of the tests. What a backend needs of
the mask is made by a `MaskView`, once a pass, from the one predicate `mask(q, k)`.

Shapes: B rows, H query heads, G key/value heads, Q queries, K keys, d head width.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, lru_cache
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from seqgen.masks import Mask, SlotInfo

Backend = Literal["auto", "sdpa", "flex", "reference"]


class MaskView:
    """A mask applied to the queries and keys of one pass.

    A query that would see nothing (an unused slot) sees everything instead: its result is never
    read, and a softmax over nothing would be NaN.
    """

    def __init__(
        self, mask: Mask, q: SlotInfo, k: SlotInfo, key_valid_BK: Tensor | None = None
    ) -> None:
        self.mask = mask
        self.q = q
        self.k = k
        self.key_valid_BK = key_valid_BK

    @cached_property
    def dense(self) -> Tensor:
        """Boolean mask, True where a query sees a key: [B or 1, 1, Q, K]."""
        sees = self.mask(self.q.column(), self.k.row())
        if self.key_valid_BK is not None:
            sees = sees & self.key_valid_BK[:, None, :]
        sees = sees | ~sees.any(dim=-1, keepdim=True)
        return sees[:, None]

    @cached_property
    def block_mask(self) -> Any:
        """FlexAttention's block mask of the same predicate."""
        from torch.nn.attention.flex_attention import create_block_mask

        queries, keys = self.q.position.shape[1], self.k.position.shape[1]
        batch = max(
            self.q.position.shape[0],
            self.k.position.shape[0],
            1 if self.key_valid_BK is None else self.key_valid_BK.shape[0],
        )
        return create_block_mask(
            self.mask_mod, batch, None, queries, keys, device=str(self.q.position.device)
        )

    @property
    def mask_mod(self) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
        mask, q_info, k_info, valid_BK = self.mask, self.q, self.k, self.key_valid_BK

        def mod(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
            sees = mask(q_info.at(b, q), k_info.at(b, k))
            if valid_BK is not None:
                sees = sees & valid_BK[b if valid_BK.shape[0] > 1 else 0, k]
            return sees

        return mod


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
        backend: `auto` takes `flex` for masked CUDA passes over many queries, else `sdpa`.

    Raises:
        ValueError: unknown backend.
    """
    if backend == "auto":
        masked_prefill = view is not None and query_BHQd.shape[2] >= 128
        backend = "flex" if query_BHQd.is_cuda and masked_prefill else "sdpa"
    if backend == "sdpa":
        dense = None if view is None else view.dense
        return fused_attention(query_BHQd, key_BGKd, value_BGKd, dense)
    if backend == "flex":
        return _flex(query_BHQd, key_BGKd, value_BGKd, view)
    if backend == "reference":
        return reference_attention(
            query_BHQd, key_BGKd, value_BGKd, None if view is None else view.dense
        )
    raise ValueError(f"unknown attention backend {backend!r}: auto, sdpa, flex or reference")


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
