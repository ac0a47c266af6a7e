"""A residual MLP under adaptive layer norm: the network of heads that sample by many small steps.

The condition and the time do not enter as inputs: they scale, shift and gate every block
(AdaLN-Zero, Peebles and Xie 2023, arXiv 2212.09748, section 3.2). So a token's noisy value, a few
numbers, is refined by a network that its hidden state configures. It works on each token alone, as
the head of MAR (Li et al. 2024, arXiv 2406.11838, section 3.2) does. What it predicts is up to the
head: a velocity, the noise, the noise and its variance.

Shapes: [...] tokens, C numbers a token, D width of the condition, W width of the network.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqgen.linear import Linear


class AdaLNMLP(nn.Module):
    """(x, time, condition) -> out, for every token on its own.

    It begins as zero for any input: gates and last layer are zero at first, so that every block
    begins as the identity.

    Args:
        channels: numbers a token C.
        condition: width of the condition D.
        width: W.
        depth: residual blocks.
        out_channels: numbers it gives a token; 0 for C.
        time_scale: what times are multiplied by, so that they reach about 1000 (the sinusoids).
    """

    def __init__(
        self,
        channels: int,
        condition: int,
        *,
        width: int = 256,
        depth: int = 3,
        out_channels: int = 0,
        time_scale: float = 1000.0,
    ) -> None:
        super().__init__()
        self.input = Linear(channels, width)
        self.condition = Linear(condition, width)
        self.time = TimeEmbedding(width, scale=time_scale)
        self.blocks = nn.ModuleList(_Block(width) for _ in range(depth))
        self.modulation = Linear(width, 2 * width)
        self.output = Linear(width, out_channels or channels)
        for last in (self.modulation, self.output):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def embed_condition(self, condition: Tensor) -> Tensor:
        """The condition [..., D] as [..., W]: the same in all steps of a sample."""
        embedded: Tensor = self.condition(condition)
        return embedded

    def forward(self, x: Tensor, time: Tensor, embedded: Tensor) -> Tensor:
        """Out [..., C'], float32.

        Args:
            x: [..., C].
            time: broadcastable to [...].
            embedded: `embed_condition(condition)`, [..., W].
        """
        # silu(time + condition) is what all modulations read (DiT).
        context = F.silu(self.time(time).to(embedded.dtype) + embedded)
        h: Tensor = self.input(x.to(embedded.dtype))
        for block in self.blocks:
            h = block(h, context)
        shift, scale = self.modulation(context).chunk(2, dim=-1)
        out: Tensor = self.output(_modulate(h, shift, scale))
        return out.float()


class TimeEmbedding(nn.Module):
    """Times [...] as vectors [..., W]: sinusoids (Ho et al. 2020) and a small MLP.

    Args:
        width: W.
        scale: what times are multiplied by.
        sinusoids: how many numbers the sinusoids have.
    """

    def __init__(self, width: int, *, scale: float = 1000.0, sinusoids: int = 256) -> None:
        super().__init__()
        self.scale, self.pairs = scale, sinusoids // 2
        self.first = Linear(sinusoids, width)
        self.second = Linear(width, width)

    def forward(self, time: Tensor) -> Tensor:
        # Not a buffer: `module.bfloat16()` would round it, and angles reach 1000.
        index = torch.arange(self.pairs, dtype=torch.float32, device=time.device)
        frequencies = (-math.log(10_000) / self.pairs * index).exp()
        angle = self.scale * time.float()[..., None] * frequencies
        sinusoids = torch.cat([angle.cos(), angle.sin()], dim=-1)
        out: Tensor = self.second(F.silu(self.first(sinusoids.to(self.first.weight.dtype))))
        return out


class _Block(nn.Module):
    """h + gate * MLP((1 + scale) * norm(h) + shift)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.first = Linear(width, width)
        self.second = Linear(width, width)
        self.modulation = Linear(width, 3 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, h: Tensor, context: Tensor) -> Tensor:
        shift, scale, gate = self.modulation(context).chunk(3, dim=-1)
        inner = self.norm(h) * (1 + scale) + shift
        out: Tensor = h + gate * self.second(F.silu(self.first(inner)))
        return out


def _modulate(h: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return F.layer_norm(h, h.shape[-1:], eps=1e-6) * (1 + scale) + shift
