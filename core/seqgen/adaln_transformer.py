"""A backbone conditioned by adaptive layer norm: VAR, DiT and their kin.

The condition (a class, a class and a time) is no token: it scales, shifts and gates every sublayer
(AdaLN, Peebles and Xie 2023, arXiv 2212.09748, section 3.2), here with norms that have no weights
of their own. It is the same in all passes of a decode, so `prepare` projects it once.

    x = x + gate1 * attention((1 + scale1) * norm(x) + shift1)
    x = x + gate2 * mlp((1 + scale2) * norm(x) + shift2)
    out = (1 + scale) * norm(x) + shift

Positions enter with the inputs. As VAR has it: `AdaLNTransformerConfig(..., qk="l2",
learned_scale=True, bias="qv")`; as DiT has it: the defaults.

Shapes: B rows, R slots fed, D width, H heads, d head width, E width of the condition.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqgen.attention import Backend, MaskView, attend
from seqgen.cache import Cache
from seqgen.linear import Linear, linear
from seqgen.model import Context

MAX_SCALE = 100.0
"""Most that a learned scale multiplies a cosine by (VAR; Swin v2)."""


@dataclass(frozen=True)
class AdaLNTransformerConfig:
    """Sizes and choices of an `AdaLNTransformer`.

    Attributes:
        width: D.
        layers: number of blocks.
        heads: H; they divide the width.
        condition: width of `Context.condition_BD` E; 0 means D.
        hidden: width of the feed-forward layer; 0 means 4 D.
        qk: `dot` compares queries and keys by their dot product, `l2` by their cosine.
        learned_scale: a scale a head that multiplies the cosines; for `l2`.
        scale: factor of the scores; 0 means 1 / sqrt(d) for `dot` and 1 for `l2`.
        bias: which of queries, keys and values have a bias: all, or queries and values (`qv`).
        shared: one projection of the condition for all blocks, to which each adds a vector of its
            own (VAR at 512 pixels; PixArt), in place of a projection a block.
        norm_eps: epsilon of the norms.
        dropout: of the sublayers' outputs in training.
        drop_path: chance that a row skips a sublayer of the last block in training; it rises
            linearly from 0 at the first block.
        backend: attention backend.
    """

    width: int
    layers: int
    heads: int
    condition: int = 0
    hidden: int = 0
    qk: Literal["dot", "l2"] = "dot"
    learned_scale: bool = False
    scale: float = 0.0
    bias: Literal["all", "qv"] = "all"
    shared: bool = False
    norm_eps: float = 1e-6
    dropout: float = 0.0
    drop_path: float = 0.0
    backend: Backend = "auto"

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"{self.heads} heads do not divide the width {self.width}")
        if self.learned_scale and self.qk != "l2":
            raise ValueError("a learned scale multiplies cosines: set qk='l2'")

    @property
    def d(self) -> int:
        return self.width // self.heads

    @property
    def E(self) -> int:
        return self.condition or self.width

    @property
    def feed_forward(self) -> int:
        return self.hidden or 4 * self.width

    @property
    def factor(self) -> float:
        """What queries are multiplied by, on top of the 1 / sqrt(d) of the attention."""
        usual = self.d**-0.5 if self.qk == "dot" else 1.0
        return (self.scale or usual) * math.sqrt(self.d)


class AdaLNTransformer(nn.Module):
    """A stack of conditioned blocks and a conditioned final norm; a `Backbone`.

    Gates and modulations begin small (VAR: gates times 1e-5, the rest times 0.5), so that every
    block begins near the identity.
    """

    def __init__(self, config: AdaLNTransformerConfig) -> None:
        super().__init__()
        self.config = config
        if config.shared:
            self.modulation = Linear(config.E, 6 * config.width)
        self.blocks = nn.ModuleList(_Block(config, index) for index in range(config.layers))
        self.final_modulation = Linear(config.E, 2 * config.width)
        self._initialise()

    def forward(
        self,
        x_BRD: Tensor,
        coordinates_BRA: Tensor,
        *,
        view: MaskView | None = None,
        cache: Cache | None = None,
        context: Context | None = None,
    ) -> Tensor:
        """Hidden states [B, R, D]; the coordinates are not read.

        Args:
            context: with `condition_BD` [B, E], prepared or not.
        """
        if context is None or context.condition_BD is None:
            raise ValueError("this backbone needs a context with condition_BD")
        layers = context.layers or self._modulations(context.condition_BD)
        for index, block in enumerate(self.stack):
            x_BRD = block(x_BRD, layers[index], index, view, cache)
        scale, shift = layers[-1]
        return _modulated(x_BRD, scale, shift, self.config.norm_eps)

    def new_cache(self, batch: int, capacity: int) -> Cache:
        weight = self.final_modulation.weight
        return Cache(
            layers=self.config.layers,
            batch=batch,
            capacity=capacity,
            heads=self.config.heads,
            head_width=self.config.d,
            dtype=weight.dtype,
            device=weight.device,
        )

    def prepare(self, context: Context) -> Context:
        """Scales, shifts and gates of all layers, once a decode."""
        if context.condition_BD is None or context.layers:
            return context
        return replace(context, layers=self._modulations(context.condition_BD))

    @property
    def stack(self) -> Iterator[_Block]:
        """The blocks, typed."""
        for block in self.blocks:
            assert isinstance(block, _Block)
            yield block

    def _modulations(self, condition_BE: Tensor) -> tuple[tuple[Tensor, ...], ...]:
        """1 + scale, shift and gate of both sublayers a block, 1 + scale and shift at the end."""
        condition_BE = F.silu(condition_BE.to(self.final_modulation.weight.dtype))
        common = self.modulation(condition_BE) if self.config.shared else None
        layers = [block.modulations(condition_BE, common) for block in self.stack]
        scale, shift = self.final_modulation(condition_BE)[:, None].chunk(2, dim=-1)
        return (*layers, ((1 + scale).contiguous(), shift.contiguous()))

    @torch.no_grad()
    def _initialise(self) -> None:
        c = self.config
        std = (3 * c.width) ** -0.5
        for name, parameter in self.named_parameters():
            if name.endswith("weight"):
                nn.init.trunc_normal_(parameter, std=std)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)
            if name.endswith("out.weight"):
                parameter.mul_((2 * c.layers) ** -0.5)
            if "modulation" in name:
                gates = 0 if "final" in name else 2 * c.width
                parameter[gates:].mul_(0.5)
                parameter[:gates].mul_(1e-5)


class _Block(nn.Module):
    """Attention and a GELU MLP, each scaled, shifted and gated by the condition."""

    def __init__(self, config: AdaLNTransformerConfig, index: int) -> None:
        super().__init__()
        self.config = config
        self.attention = _SelfAttention(config)
        self.feed_in = Linear(config.width, config.feed_forward)
        self.feed_out = Linear(config.feed_forward, config.width)
        if config.shared:
            own_6D = torch.randn(6, config.width) * config.width**-0.5
            own_6D[:2] *= 1e-5
            own_6D[2:] *= 0.5
            self.own_modulation_6D = nn.Parameter(own_6D)
        else:
            self.modulation = Linear(config.E, 6 * config.width)
        self.dropout = nn.Dropout(config.dropout)
        self.drop_path = config.drop_path * index / max(config.layers - 1, 1)

    def modulations(self, condition_BE: Tensor, common: Tensor | None) -> tuple[Tensor, ...]:
        """gate1, gate2, 1 + scale1, 1 + scale2, shift1, shift2: [B, 1, D] each."""
        if common is None:
            all_B6D: Tensor = self.modulation(condition_BE)
        else:
            all_B6D = common + self.own_modulation_6D.flatten()
        gate1, gate2, scale1, scale2, shift1, shift2 = all_B6D[:, None].chunk(6, dim=-1)
        return (gate1, gate2, 1 + scale1, 1 + scale2, shift1, shift2)

    def forward(
        self,
        x_BRD: Tensor,
        modulations: tuple[Tensor, ...],
        layer: int,
        view: MaskView | None,
        cache: Cache | None,
    ) -> Tensor:
        gate1, gate2, scale1, scale2, shift1, shift2 = modulations
        eps = self.config.norm_eps
        mixed = self.attention(_modulated(x_BRD, scale1, shift1, eps), layer, view, cache)
        x_BRD = self._gated(x_BRD, mixed, gate1)
        inner = F.gelu(self.feed_in(_modulated(x_BRD, scale2, shift2, eps)), approximate="tanh")
        return self._gated(x_BRD, self.feed_out(inner), gate2)

    def _gated(self, x_BRD: Tensor, branch_BRD: Tensor, gate_B1D: Tensor) -> Tensor:
        if self.training:
            branch_BRD = self.dropout(branch_BRD)
            if self.drop_path:
                kept = 1 - self.drop_path
                draw = torch.rand(len(x_BRD), 1, 1, device=x_BRD.device, dtype=x_BRD.dtype) < kept
                branch_BRD = branch_BRD * draw / kept
        return torch.addcmul(x_BRD, branch_BRD, gate_B1D)


class _SelfAttention(nn.Module):
    def __init__(self, config: AdaLNTransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.qkv = Linear(config.width, 3 * config.width)
        self.out = Linear(config.width, config.width)
        if config.learned_scale:
            self.log_scale_H = nn.Parameter(torch.full((config.heads,), 4.0).log())

    def forward(
        self, x_BRD: Tensor, layer: int, view: MaskView | None, cache: Cache | None
    ) -> Tensor:
        c = self.config
        projected = self._project(x_BRD).view(*x_BRD.shape[:2], 3 * c.heads, c.d)
        if c.qk == "l2":
            projected = _cosines(projected, self._scales(projected.dtype))
        query, key, value = projected.transpose(1, 2).chunk(3, dim=1)
        if c.qk == "dot" and c.factor != 1:
            query = query * c.factor
        if cache is not None:
            key, value = cache.write(layer, key, value)
        mixed = attend(query, key, value, view=view, backend=c.backend)
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out

    def _project(self, x_BRD: Tensor) -> Tensor:
        if self.config.bias == "qv" and torch.is_grad_enabled():
            query_D, key_D, value_D = self.qkv.bias.chunk(3)
            bias_3D = torch.cat([query_D, torch.zeros_like(key_D), value_D])
            return linear(x_BRD, self.qkv.weight, bias_3D)  # the keys' part stays 0
        out: Tensor = self.qkv(x_BRD)
        return out

    def _scales(self, dtype: torch.dtype) -> Tensor:
        """What the unit queries and keys of every head are multiplied by, [2 H]."""
        c = self.config
        ones_H = self.qkv.bias.new_ones(c.heads)
        query_H = ones_H * c.factor
        if c.learned_scale:
            query_H = self.log_scale_H.clamp(max=math.log(MAX_SCALE)).exp() * c.factor
        return torch.cat([query_H, ones_H]).to(dtype)


def _cosines(projected_BR3Hd: Tensor, scale_N: Tensor) -> Tensor:
    """Queries and keys of the given lengths; values as they are. [B, R, 3 H, d], N = 2 H."""
    both, value = torch.split(projected_BR3Hd, [len(scale_N), len(scale_N) // 2], dim=2)
    length_BRN = torch.linalg.vector_norm(both, dim=-1).clamp(min=1e-12)
    return torch.cat([both * (scale_N / length_BRN)[..., None], value], dim=2)


def _modulated(x_BRD: Tensor, scale_B1D: Tensor, shift_B1D: Tensor, eps: float) -> Tensor:
    """scale * norm(x) + shift."""
    return torch.addcmul(shift_B1D, F.layer_norm(x_BRD, x_BRD.shape[-1:], eps=eps), scale_B1D)
