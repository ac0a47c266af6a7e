"""Counter-based randomness: the noise of a slot depends on its row's seed, never on the batch.

A pseudo-random number is a hash of (row seed, slot, draw), so a row gives the same sample alone, in
any batch, on any shard, and without a generator object whose state would have to be kept per row.
The hash is splitmix64 (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators"),
written with int64 tensors, whose products wrap on every device.

Shapes: B rows, Q slots, N numbers a slot.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_GAMMA = 0x9E3779B97F4A7C15 - (1 << 64)
_MIX_1 = 0xBF58476D1CE4E5B9 - (1 << 64)
_MIX_2 = 0x94D049BB133111EB - (1 << 64)
_ALL = (1 << 64) - 1


def uniform(seeds_B: Tensor, slots_BQ: Tensor, draw: int, count: int | None = None) -> Tensor:
    """Uniform numbers in (0, 1), float32 [B, Q], or [B, Q, count].

    Args:
        seeds_B: int64 seed a row.
        slots_BQ: slot indices, [B, Q] or [1, Q].
        draw: which number of this slot (the refinement, say); another draw is independent.
        count: how many numbers a slot; None for one, without a last axis.
    """
    of = _uniform_on_cpu if seeds_B.device.type == "cpu" else _uniform_on_any_device
    return of(seeds_B, slots_BQ, draw, count)


def normal(seeds_B: Tensor, slots_BQ: Tensor, draw: int, count: int) -> Tensor:
    """Standard normal numbers, float32 [B, Q, count] (Box-Muller)."""
    pairs = (count + 1) // 2
    u = uniform(seeds_B, slots_BQ, draw, 2 * pairs)
    radius = torch.sqrt(-2.0 * torch.log(u[..., :pairs]))
    angle = (2.0 * math.pi) * u[..., pairs:]
    return torch.cat([radius * torch.cos(angle), radius * torch.sin(angle)], dim=-1)[..., :count]


def _uniform_on_any_device(
    seeds_B: Tensor, slots_BQ: Tensor, draw: int, count: int | None
) -> Tensor:
    state = _mix(seeds_B[:, None] + _GAMMA * (slots_BQ + 1))
    state = _mix(state + _wrap(_GAMMA * (draw + 1)))
    if count is not None:
        index = torch.arange(1, count + 1, device=seeds_B.device)
        state = _mix(state[..., None] + _GAMMA * index)
    # 24 bits fill a float32 exactly; the last of them set keeps 0 out, and 1 is never reached.
    return (((state >> 40) & 0xFFFFFF) | 1).float().mul_(2.0**-24)


def _uniform_on_cpu(seeds_B: Tensor, slots_BQ: Tensor, draw: int, count: int | None) -> Tensor:
    """The same numbers, whose many small steps cost numpy half the time."""
    seeds, slots = seeds_B.numpy().view(np.uint64), slots_BQ.numpy().view(np.uint64)
    gamma = np.uint64(_GAMMA & _ALL)
    state = _mix_unsigned(seeds[:, None] + gamma * (slots + np.uint64(1)))
    state = _mix_unsigned(state + np.uint64(_GAMMA * (draw + 1) & _ALL))
    if count is not None:
        state = _mix_unsigned(state[..., None] + gamma * np.arange(1, count + 1, dtype=np.uint64))
    bits = ((state >> np.uint64(40)) | np.uint64(1)).astype(np.float32)
    return torch.from_numpy(bits * np.float32(2.0**-24))


def _mix_unsigned(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(_MIX_1 & _ALL)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(_MIX_2 & _ALL)
    return x ^ (x >> np.uint64(31))


def _wrap(number: int) -> int:
    """A Python integer as the int64 it would wrap to."""
    return (number + (1 << 63)) % (1 << 64) - (1 << 63)


def _mix(x: Tensor) -> Tensor:
    x = (x ^ _logical_shift(x, 30)) * _MIX_1
    x = (x ^ _logical_shift(x, 27)) * _MIX_2
    return x ^ _logical_shift(x, 31)


def _logical_shift(x: Tensor, bits: int) -> Tensor:
    """Right shift that fills with zeros (torch's own fills with the sign)."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)
