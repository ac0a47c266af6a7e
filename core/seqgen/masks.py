"""Masks: which slot a slot may see, as one predicate on slot metadata.

`mask(q, k)` is elementwise on broadcastable metadata, so the same object gives a dense boolean mask
(q as a column, k as a row), a FlexAttention `mask_mod` (q and k as scalars) and an entry of a test.
Masks combine with `&` and `|`. They are the single source from which every backend's mask is made.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

CLEAN = 0
NOISY = 1


@dataclass(frozen=True)
class SlotInfo:
    """Metadata of slots, each field a tensor [B or 1, N] (or a scalar inside a `mask_mod`).

    Attributes:
        group: when the slot is decided (see `orders`).
        position: its index in the sequence.
        copy: `CLEAN` or `NOISY` in block-diffusion training, where both lie side by side.
        segment: which of several packed sequences it belongs to.
    """

    group: Tensor
    position: Tensor
    copy: Tensor | None = None
    segment: Tensor | None = None

    def column(self) -> SlotInfo:
        """As queries of a dense mask: fields [B, N, 1]."""
        return self._map(lambda x: x[..., :, None])

    def row(self) -> SlotInfo:
        """As keys of a dense mask: fields [B, 1, N]."""
        return self._map(lambda x: x[..., None, :])

    def part(self, first: int, last: int) -> SlotInfo:
        """Slots first..last-1."""
        return self._map(lambda x: x[:, first:last])

    def at(self, batch: Tensor, index: Tensor) -> SlotInfo:
        """One slot, as FlexAttention asks for it."""
        return self._map(lambda x: x[batch if x.shape[0] > 1 else 0, index])

    def _map(self, f: Callable[[Tensor], Tensor]) -> SlotInfo:
        return SlotInfo(
            f(self.group),
            f(self.position),
            None if self.copy is None else f(self.copy),
            None if self.segment is None else f(self.segment),
        )


class Mask:
    """A predicate on (query, key) metadata.

    Attributes:
        past_is_visible: a slot sees its whole own group and every earlier group. Then a decoding
            step over one group needs no mask at all.
    """

    past_is_visible = False

    def __call__(self, q: SlotInfo, k: SlotInfo) -> Tensor:
        raise TypeError("Mask is a base class: use one of its subclasses")

    def __and__(self, other: Mask) -> Mask:
        return _Both(self, other)

    def __or__(self, other: Mask) -> Mask:
        return _Either(self, other)


@dataclass(frozen=True)
class Full(Mask):
    """Everything sees everything."""

    past_is_visible = True

    def __call__(self, q: SlotInfo, k: SlotInfo) -> Tensor:
        return _true_like(q.position, k.position)


@dataclass(frozen=True)
class Causal(Mask):
    """A slot sees itself and the positions before it."""

    def __call__(self, q: SlotInfo, k: SlotInfo) -> Tensor:
        return k.position <= q.position


@dataclass(frozen=True)
class BlockCausal(Mask):
    """A slot sees its own group and the groups before it; groups of one make it causal."""

    past_is_visible = True

    def __call__(self, q: SlotInfo, k: SlotInfo) -> Tensor:
        return k.group <= q.group


@dataclass(frozen=True)
class Markov(Mask):
    """A slot sees its own group and the one before it."""

    def __call__(self, q: SlotInfo, k: SlotInfo) -> Tensor:
        return (k.group == q.group) | (k.group == q.group - 1)


@dataclass(frozen=True)
class Window(Mask):
    """A slot sees positions less than `size` away; combine with `Causal` for one side."""

    size: int

    def __call__(self, q: SlotInfo, k: SlotInfo) -> Tensor:
        return (q.position - k.position).abs() < self.size


@dataclass(frozen=True)
class Prefix(Mask):
    """Every slot sees the first `length` positions (a prefix LM is `Prefix(n) | Causal()`)."""

    length: int

    def __call__(self, q: SlotInfo, k: SlotInfo) -> Tensor:
        return (k.position < self.length) & _true_like(q.position, k.position)


@dataclass(frozen=True)
class SameSegment(Mask):
    """A slot sees its own packed sequence only."""

    def __call__(self, q: SlotInfo, k: SlotInfo) -> Tensor:
        if q.segment is None or k.segment is None:
            raise ValueError("SameSegment needs slots with a segment")
        return q.segment == k.segment


@dataclass(frozen=True)
class NoisyClean(Mask):
    """Block-diffusion training on [noisy | clean] (SDAR; BD3-LM, arXiv 2503.09573, section 3).

    A noisy slot sees its own noisy group and the clean groups before it: what it will see when it
    is decoded. A clean slot sees clean groups up to its own: what the cache will hold.
    """

    def __call__(self, q: SlotInfo, k: SlotInfo) -> Tensor:
        if q.copy is None or k.copy is None:
            raise ValueError("NoisyClean needs slots with a copy (NOISY or CLEAN)")
        same_group = (q.copy == k.copy) & (q.group == k.group)
        clean_past = (k.copy == CLEAN) & (k.group < q.group)
        return same_group | clean_past


@dataclass(frozen=True)
class _Both(Mask):
    left: Mask
    right: Mask

    @property
    def past_is_visible(self) -> bool:  # type: ignore[override]
        return self.left.past_is_visible and self.right.past_is_visible

    def __call__(self, q: SlotInfo, k: SlotInfo) -> Tensor:
        return self.left(q, k) & self.right(q, k)


@dataclass(frozen=True)
class _Either(Mask):
    left: Mask
    right: Mask

    @property
    def past_is_visible(self) -> bool:  # type: ignore[override]
        return self.left.past_is_visible or self.right.past_is_visible

    def __call__(self, q: SlotInfo, k: SlotInfo) -> Tensor:
        return self.left(q, k) | self.right(q, k)


def _true_like(q: Tensor, k: Tensor) -> Tensor:
    return torch.ones_like(q, dtype=torch.bool) & torch.ones_like(k, dtype=torch.bool)
