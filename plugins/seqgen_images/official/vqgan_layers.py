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


def norm(width: int) -> nn.GroupNorm:
    """The group norm."""
    return nn.GroupNorm(GROUPS, width, eps=1e-6)
