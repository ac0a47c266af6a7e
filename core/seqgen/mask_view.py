"""A mask applied to the queries and keys of one pass: the forms that the backends need of it.

All forms are made from the one predicate `mask(q, k)`: a boolean mask, in whole or some queries at
a time; a *staircase* of two numbers, where the mask has that form; FlexAttention's block mask.

Shapes: B rows, Q queries, K keys.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from seqgen.masks import BlockCausal, Causal, Full, Mask, SlotInfo

FLEX_TILE = 128
"""Queries and keys of a tile of FlexAttention's block mask."""

Parts = tuple[tuple[int, int], ...]
"""Runs of queries that see the same keys, and all before them: (end of the run, keys that lie
behind the last one it sees). Host numbers that do not depend on how much is cached."""


class MaskView:
    """A mask applied to the queries and keys of one pass.

    A query that would see nothing (an unused slot) sees everything instead, or gets zeros: its
    result is never read, and a softmax over nothing would be NaN.
    """

    def __init__(
        self,
        mask: Mask,
        q: SlotInfo | Callable[[], SlotInfo],
        k: SlotInfo | Callable[[], SlotInfo],
        key_valid_BK: Tensor | None = None,
        *,
        parts: Parts | None = None,
    ) -> None:
        """Apply `mask` to queries `q` and keys `k`, which may be worked out only when needed.

        Args:
            key_valid_BK: keys in use; None if all are.
            parts: the same mask as runs of queries, where the caller knows it.
        """
        self.mask = mask
        self._q = q
        self._k = k
        self.key_valid_BK = key_valid_BK
        self.parts = parts

    @cached_property
    def q(self) -> SlotInfo:
        return self._q() if callable(self._q) else self._q

    @cached_property
    def k(self) -> SlotInfo:
        return self._k() if callable(self._k) else self._k

    def sees(self, first: int, last: int) -> Tensor:
        """The predicate for queries first..last-1: bool [B or 1, Q or 1, K]."""
        valid = None if self.key_valid_BK is None else self.key_valid_BK[:, None, :]
        if self.queries_agree:
            every = torch.ones_like(self.k.position, dtype=torch.bool)[:, None]
            return every if valid is None else valid
        sees = self.mask(self.q.part(first, last).column(), self.k.row())
        return sees if valid is None else sees & valid

    def dense_rows(self, first: int, last: int) -> Tensor:
        """Boolean mask of queries first..last-1, True where one sees a key.

        [B or 1, 1, Q, K], or [B or 1, 1, 1, K] where all queries see the same.
        """
        sees = self.sees(first, last)
        return (sees | ~sees.any(dim=-1, keepdim=True))[:, None]

    @cached_property
    def dense(self) -> Tensor:
        """Boolean mask of all queries."""
        return self.dense_rows(0, self.queries)

    @property
    def queries_agree(self) -> bool:
        """Whether all queries of a row see the same keys; then one row of the mask is enough."""
        return isinstance(self.mask, Full)

    @property
    def queries(self) -> int:
        return self.q.position.shape[1]

    @property
    def keys(self) -> int:
        return self.k.position.shape[1]

    @property
    def batch(self) -> int:
        """Rows of the mask: 1 where one serves all."""
        valid = 1 if self.key_valid_BK is None else self.key_valid_BK.shape[0]
        return max(self.q.position.shape[0], self.k.position.shape[0], valid)

    @property
    def staircase(self) -> tuple[Tensor, Tensor] | None:
        """Numbers of queries [B or 1, Q] and keys [B or 1, K] such that a query sees the (valid)
        keys whose number is not above its own; None if the mask is not of that form.
        """
        if isinstance(self.mask, BlockCausal):
            return self.q.group, self.k.group
        if isinstance(self.mask, Causal):
            return self.q.position, self.k.position
        return None

    @cached_property
    def key_end_B(self) -> Tensor | None:
        """The end of the valid keys, int64 [B or 1]; None if all are valid."""
        if self.key_valid_BK is None:
            return None
        after_K = torch.arange(1, self.keys + 1, device=self.key_valid_BK.device)
        return (self.key_valid_BK * after_K).amax(dim=1)

    @cached_property
    def block_mask(self) -> Any:
        """FlexAttention's block mask of the same predicate, made a row of tiles at a time."""
        from torch.nn.attention.flex_attention import BlockMask

        rows, columns = -(-self.queries // FLEX_TILE), -(-self.keys // FLEX_TILE)
        shape = (self.batch, 1, rows, columns)
        some = torch.zeros(shape, dtype=torch.bool, device=self.q.position.device)
        every = torch.zeros_like(some)
        for row in range(rows):
            last = min((row + 1) * FLEX_TILE, self.queries)
            sees = self.sees(row * FLEX_TILE, last)
            sees = F.pad(sees, (0, columns * FLEX_TILE - self.keys))
            sees = sees.view(*sees.shape[:2], columns, FLEX_TILE)
            some[:, 0, row] = sees.any(dim=-1).any(dim=1)
            if last % FLEX_TILE == 0:  # a tile that is not full of queries is not seen whole
                every[:, 0, row] = sees.all(dim=-1).all(dim=1)
        return BlockMask.from_kv_blocks(
            *_tile_list(some & ~every),
            *_tile_list(every),
            BLOCK_SIZE=FLEX_TILE,
            mask_mod=self.mask_mod,
            seq_lengths=(self.queries, self.keys),
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


def _tile_list(tiles_B1RC: Tensor) -> tuple[Tensor, Tensor]:
    """Tiles as FlexAttention lists them: how many are marked a row, and the marked ones first."""
    order = tiles_B1RC.to(torch.uint8).argsort(dim=-1, descending=True, stable=True)
    return tiles_B1RC.sum(dim=-1, dtype=torch.int32), order.to(torch.int32)
