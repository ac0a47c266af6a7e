"""The backbone: a pre-norm transformer with rotary positions, grouped-query attention, SwiGLU and
optional cross-attention. Without cross-attention it computes what Qwen3 does (`models/qwen3.py`).

Shapes: B rows, R slots fed, D width, H query heads, G key/value heads, d head width, T context
length, A coordinate axes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqgen.attention import Backend, MaskView, attend, fused_attention
from seqgen.cache import Cache, Written
from seqgen.linear import Linear
from seqgen.model import Context
from seqgen.norms import RMSNorm, rms_norm


@dataclass(frozen=True)
class TransformerConfig:
    """Sizes of a `Transformer`.

    Attributes:
        width: D.
        layers: number of blocks.
        heads: query heads H.
        kv_heads: key/value heads G; 0 means H.
        head_width: d; 0 means D / H.
        hidden: width of the feed-forward layer; 0 means 8/3 D rounded up to a multiple of 16.
        context_width: width of the context for cross-attention; 0 for none.
        axes: coordinate axes of the rotary positions.
        rope_theta: base of the rotary frequencies.
        norm_eps: epsilon of the RMS norms.
        qk_norm: normalise queries and keys per head (Qwen3).
        dropout: dropout of the sublayers' outputs in training.
        backend: attention backend.
    """

    width: int
    layers: int
    heads: int
    kv_heads: int = 0
    head_width: int = 0
    hidden: int = 0
    context_width: int = 0
    axes: int = 1
    rope_theta: float = 10_000.0
    norm_eps: float = 1e-6
    qk_norm: bool = True
    dropout: float = 0.0
    backend: Backend = "auto"

    @property
    def G(self) -> int:
        return self.kv_heads or self.heads

    @property
    def d(self) -> int:
        return self.head_width or self.width // self.heads

    @property
    def feed_forward(self) -> int:
        return self.hidden or -(-8 * self.width // 3 // 16) * 16


class Transformer(nn.Module):
    """A stack of blocks and a final norm; a `Backbone`."""

    frequencies: Tensor

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        if config.heads % config.G:
            raise ValueError(f"{config.heads} heads cannot share {config.G} key/value heads")
        if config.d % (2 * config.axes):
            raise ValueError(f"head width {config.d} does not divide into {config.axes} axes")
        self.config = config
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.layers))
        self.norm = RMSNorm(config.width, eps=config.norm_eps)
        self.register_buffer("frequencies", rotary_frequencies(config), persistent=False)
        self._compiled: Callable[..., Tensor] | None = None
        self._both_signs: tuple[Tensor, Tensor] | None = None
        # Residual branches start small, so that depth does not raise the variance (GPT-2).
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                scale = (2 * config.layers) ** -0.5 if name.endswith("out.weight") else 1.0
                nn.init.normal_(parameter, std=scale * parameter.shape[1] ** -0.5)

    def forward(
        self,
        x_BRD: Tensor,
        coordinates_BRA: Tensor,
        *,
        view: MaskView | None = None,
        cache: Cache | None = None,
        context: Context | None = None,
    ) -> Tensor:
        """Hidden states [B, R, D] of embeddings [B, R, D] at coordinates [B or 1, R, A]."""
        if self.training and cache is None and self._compiled is not None:
            return self._compiled(x_BRD, coordinates_BRA, view, cache, context)
        return self.layers(x_BRD, coordinates_BRA, view, cache, context)

    def compile_training(self) -> None:
        """Fuse the passes of training with torch.compile (needs a C++ compiler on a CPU)."""
        self._compiled = torch.compile(self.layers, dynamic=True)

    def layers(
        self,
        x_BRD: Tensor,
        coordinates_BRA: Tensor,
        view: MaskView | None,
        cache: Cache | Written | None,
        context: Context | None,
    ) -> Tensor:
        """The pass itself, which `compile_training` and `seqgen.compiled` fuse."""
        rotation = self._rotation(coordinates_BRA, x_BRD.dtype)
        for index, block in enumerate(self.blocks):
            x_BRD = block(x_BRD, rotation, index, view, cache, context)
        out: Tensor = self.norm(x_BRD)
        return out

    def new_cache(self, batch: int, capacity: int) -> Cache:
        for block in self.stack:
            block.attention.forget()
        weight = self.norm.weight
        return Cache(
            layers=self.config.layers,
            batch=batch,
            capacity=capacity,
            heads=self.config.G,
            head_width=self.config.d,
            dtype=weight.dtype,
            device=weight.device,
        )

    def prepare(self, context: Context) -> Context:
        """Project the context's keys and values of every layer, once a decode."""
        if not self.config.context_width or context.states_BTD is None or context.layers:
            return context
        states = context.states_BTD
        layers = tuple(block.keys_values(states) for block in self.stack)
        return replace(context, layers=layers)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Self:
        """Move or cast the module, but never the rotary frequencies' precision.

        A frequency rounded to bfloat16 turns positions in the hundreds by whole radians.
        """
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.frequencies = rotary_frequencies(self.config).to(self.frequencies.device)
        return self

    @property
    def stack(self) -> Iterator[_Block]:
        """The blocks, typed."""
        for block in self.blocks:
            assert isinstance(block, _Block)
            yield block

    def _rotation(self, coordinates_BRA: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Cosine and signed sine [B or 1, 1, R, d] of the rotary angles; axes share the width."""
        frequencies = self.frequencies
        held = self._both_signs
        if torch.compiler.is_compiling() or held is None or held[0] is not frequencies:
            held = frequencies, torch.stack([-frequencies, frequencies])
            if not torch.compiler.is_compiling():
                self._both_signs = held
        # float32, of int64 and float32; cos(-a) = cos(a), and sin(-a) = -sin(a) is wanted.
        angles = coordinates_BRA[..., None, :, None] * held[1]
        angles = angles.flatten(-3)[:, None]
        return angles.cos().to(dtype), angles.sin().to(dtype)


class _Block(nn.Module):
    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.width, eps=config.norm_eps)
        self.attention = _SelfAttention(config)
        if config.context_width:
            self.cross_norm = RMSNorm(config.width, eps=config.norm_eps)
            self.cross = _CrossAttention(config)
        self.feed_norm = RMSNorm(config.width, eps=config.norm_eps)
        self.feed_in = Linear(config.width, 2 * config.feed_forward, bias=False)
        self.feed_out = Linear(config.feed_forward, config.width, bias=False)
        self.dropout = nn.Dropout(config.dropout)
        self.crosses = bool(config.context_width)

    def keys_values(self, states_BTD: Tensor) -> tuple[Tensor, Tensor]:
        """The context's keys and values for this block."""
        return self.cross.keys_values(states_BTD)

    def forward(
        self,
        x_BRD: Tensor,
        rotation: tuple[Tensor, Tensor],
        layer: int,
        view: MaskView | None,
        cache: Cache | Written | None,
        context: Context | None,
    ) -> Tensor:
        mixed = self.attention(self.attention_norm(x_BRD), rotation, layer, view, cache)
        x_BRD = self._plus(x_BRD, mixed)
        if self.crosses:
            if context is None:
                raise ValueError("this transformer was built with cross-attention: give a context")
            x_BRD = self._plus(x_BRD, self.cross(self.cross_norm(x_BRD), layer, context))
        gate, up = self.feed_in(self.feed_norm(x_BRD)).chunk(2, dim=-1)
        return self._plus(x_BRD, self.feed_out(F.silu(gate) * up))

    def _plus(self, x_BRD: Tensor, branch_BRD: Tensor) -> Tensor:
        return x_BRD + (self.dropout(branch_BRD) if self.training else branch_BRD)


class _SelfAttention(nn.Module):
    _stacked: tuple[Tensor, Tensor, tuple[int, int], Tensor] | None = None
    """(the norms' weights, their versions, those weights for all heads), during a decode.

    A cast or a change through `.data`, which happens between decodes, has no version.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        heads = config.heads + 2 * config.G
        self.qkv = Linear(config.width, heads * config.d, bias=False)
        self.out = Linear(config.heads * config.d, config.width, bias=False)
        if config.qk_norm:
            self.q_norm = RMSNorm(config.d, eps=config.norm_eps)
            self.k_norm = RMSNorm(config.d, eps=config.norm_eps)

    def forward(
        self,
        x_BRD: Tensor,
        rotation: tuple[Tensor, Tensor],
        layer: int,
        view: MaskView | None,
        cache: Cache | Written | None,
    ) -> Tensor:
        c = self.config
        H, G = c.heads, c.G
        projected: Tensor = self.qkv(x_BRD)
        batch, rows = projected.shape[:2]
        heads = projected.view(batch, rows, H + 2 * G, c.d).transpose(1, 2)
        # Queries and keys together: a small pass costs what its kernel calls cost.
        both, value = heads[:, : H + G], heads[:, H + G :]
        if c.qk_norm:
            both = rms_norm(both, self._gains(keep=cache is not None), c.norm_eps)
        both = _rotate(both, rotation)
        query, key = both[:, :H], both[:, H:]
        if cache is not None:
            key, value = cache.write(layer, key, value)
        mixed = attend(query, key, value, view=view, backend=c.backend)
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out

    def forget(self) -> None:
        """Work the weights of the norms out again: a decode begins."""
        self._stacked = None

    def _gains(self, *, keep: bool) -> Tensor:
        """Weights of the norms of all query and key heads, [H + G, 1, d]."""
        c = self.config
        query_d, key_d = self.q_norm.weight, self.k_norm.weight
        # What was made in inference mode has no version to compare.
        if (
            not keep
            or torch.compiler.is_compiling()
            or torch.is_grad_enabled()
            or query_d.is_inference()
            or key_d.is_inference()
        ):
            return torch.cat([query_d.expand(c.heads, -1), key_d.expand(c.G, -1)])[:, None]
        versions = (query_d._version, key_d._version)
        held = self._stacked
        if held is None or not (held[0] is query_d and held[1] is key_d and held[2] == versions):
            stacked = torch.cat([query_d.expand(c.heads, -1), key_d.expand(c.G, -1)])[:, None]
            held = self._stacked = query_d, key_d, versions, stacked
        return held[3]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_stacked": None}


class _CrossAttention(nn.Module):
    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.query = Linear(config.width, config.heads * config.d, bias=False)
        self.key_value = Linear(config.context_width, 2 * config.G * config.d, bias=False)
        self.out = Linear(config.heads * config.d, config.width, bias=False)

    def keys_values(self, states_BTD: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of the context, [B, G, T, d] each."""
        projected: Tensor = self.key_value(states_BTD)
        both = projected.view(*projected.shape[:2], -1, self.config.d).transpose(1, 2)
        key, value = both.chunk(2, dim=1)
        return key.contiguous(), value.contiguous()

    def forward(self, x_BRD: Tensor, layer: int, context: Context) -> Tensor:
        c = self.config
        projected: Tensor = self.query(x_BRD)
        query = projected.view(*projected.shape[:2], -1, c.d).transpose(1, 2)
        if context.layers:
            key, value = context.layers[layer]
        else:
            assert context.states_BTD is not None
            key, value = self.keys_values(context.states_BTD)
        batch, rows = query.shape[0], query.shape[2]
        if key.shape[0] != batch:
            # Several hypotheses share a context row (beams): they are more queries of that row.
            query = query.view(key.shape[0], -1, *query.shape[1:]).transpose(1, 2).flatten(2, 3)
        mixed = fused_attention(query, key, value, context.key_mask)
        if key.shape[0] != batch:
            mixed = mixed.view(key.shape[0], c.heads, -1, rows, c.d).transpose(1, 2).flatten(0, 1)
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out


def rotary_frequencies(config: TransformerConfig) -> Tensor:
    """Rotary frequencies [A, d / 2 / A] (RoFormer, eq. 15), the head width shared by the axes."""
    half = config.d // 2 // config.axes
    # On the CPU first: on the meta device the first power costs a second of imports.
    exponent = torch.arange(half, dtype=torch.float32, device="cpu") / half
    frequencies = (config.rope_theta**-exponent).expand(config.axes, half).clone()
    return frequencies.to(torch.get_default_device())


def _rotate(x_BHRd: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    # (a, b) -> (a cos - b sin, b cos + a sin); the sign lies in the sine, so a roll swaps a and b.
    cos, sin = rotation
    return torch.addcmul(x_BHRd * cos, x_BHRd.roll(x_BHRd.shape[-1] // 2, -1), sin)
