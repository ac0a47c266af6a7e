"""Layers that the image tokenizers of VAR and LlamaGen share: both descend from VQGAN's code."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from seqgen.upsample import UpsampleConv

GROUPS = 32
"""Of the group norms."""


class Downsample(nn.Module):
    """Half the side, by a convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        # Padded on the right and at the bottom only, as in VQGAN.
        out: Tensor = self.conv(F.pad(x, (0, 1, 0, 1)))
        return out


class Upsample(nn.Module):
    """Twice the side, by a convolution of the enlarged image."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = UpsampleConv(width, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x)
        return out


class Residual(nn.Module):
    """Two convolutions beside a path that changes the number of channels at most."""

    def __init__(self, before: int, width: int) -> None:
        super().__init__()
        self.norm1 = norm(before)
        self.conv1 = nn.Conv2d(before, width, 3, padding=1)
        self.norm2 = norm(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.nin_shortcut = None if before == width else nn.Conv2d(before, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.conv1(activated(self.norm1, x))
        h = self.conv2(activated(self.norm2, h))
        return h.add_(x if self.nin_shortcut is None else self.nin_shortcut(x))


def through_level(
    blocks: nn.ModuleList, attention: nn.ModuleList, step: nn.Module | None, x: Tensor
) -> Tensor:
    """The blocks of one resolution, an attention behind each if there is any, then the step."""
    for index, block in enumerate(blocks):
        x = block(x)
        if attention:
            x = attention[index](x)
    return x if step is None else step(x)


def activated(norm: nn.Module, x: Tensor) -> Tensor:
    """SiLU of the norm."""
    return F.silu(norm(x), inplace=True)


def norm(width: int) -> nn.GroupNorm:
    """The group norm."""
    return nn.GroupNorm(GROUPS, width, eps=1e-6)
