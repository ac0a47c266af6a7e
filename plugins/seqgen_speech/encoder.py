"""The SANM encoder of Paraformer: self-attention with an FSMN memory beside it.

SANM: Gao et al., "SAN-M: Memory Equipped Self-Attention for End-to-End Speech Recognition"
(arXiv:2006.01713). Parameter names and shapes are those of the official checkpoints.

Shape suffixes: B batch, T frames, D width, H heads, F feature width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqgen.linear import Linear

EPS = 1e-12
"""Epsilon of every LayerNorm of the official models."""


@dataclass(frozen=True, kw_only=True)
class SanmEncoderConfig:
    """Sizes of the encoder; the defaults are those of Paraformer-large.

    Attributes:
        input_width: width of a feature frame (80 mel bins, 7 frames joined).
        width: model width D.
        heads: attention heads.
        ffn_width: inner width of the feed-forward layers.
        layers: all layers, the first one (input_width -> width) included.
        kernel: frames that the FSMN memory spans.
        shift: frames by which the memory's window is moved into the past.
        dropout: after every sub-layer, and inside the feed-forward layers.
        attention_dropout: on the attention probabilities.
    """

    input_width: int = 560
    width: int = 512
    heads: int = 4
    ffn_width: int = 2048
    layers: int = 50
    kernel: int = 11
    shift: int = 0
    dropout: float = 0.1
    attention_dropout: float = 0.1


class SanmEncoder(nn.Module):
    """Feature frames -> hidden frames, the same number of them."""

    def __init__(self, config: SanmEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.encoders0 = nn.ModuleList([SanmEncoderLayer(config, input_width=config.input_width)])
        self.encoders = nn.ModuleList(
            SanmEncoderLayer(config, input_width=config.width) for _ in range(config.layers - 1)
        )
        self.after_norm = nn.LayerNorm(config.width, eps=EPS)
        self._positions: Tensor = torch.empty(0)

    def forward(self, x_BTF: Tensor, lengths_B: Tensor) -> Tensor:
        """Encode a padded batch; frames beyond a row's length are arbitrary in the result.

        Args:
            x_BTF: normalised features [B, T, input_width].
            lengths_B: valid frames of each row, int.

        Returns:
            [B, T, width]; the valid part of a row does not depend on the other rows.
        """
        mask_BT = padding_mask(lengths_B, x_BTF.shape[1])
        h_BTD = self.embed(x_BTF)
        for layer in self.layers():
            h_BTD = layer(h_BTD, mask_BT)
        out: Tensor = self.after_norm(h_BTD)
        return out

    def layers(self) -> list[SanmEncoderLayer]:
        """All layers in order."""
        return [*self.encoders0, *self.encoders]

    def embed(self, x_BTF: Tensor, *, start: int = 1) -> Tensor:
        """Scale by sqrt(width) and add the sinusoids of positions `start`, start + 1, ..."""
        end = start + x_BTF.shape[1]
        table = self._positions
        if table.shape[0] < end or table.device != x_BTF.device or table.dtype != x_BTF.dtype:
            with torch.inference_mode(False):  # a training step may use the same table later
                positions = torch.arange(max(end, 512), device=x_BTF.device)
                table = sinusoids(positions, self.config.input_width).to(x_BTF.dtype)
            self._positions = table
        return torch.add(table[start:end], x_BTF, alpha=math.sqrt(self.config.width))


class SanmEncoderLayer(nn.Module):
    """Pre-norm: x += attention(norm1(x)), x += feed_forward(norm2(x)).

    Where the widths differ (the first layer) there is no residual around the attention.
    """

    def __init__(self, config: SanmEncoderConfig, *, input_width: int) -> None:
        super().__init__()
        self.residual = input_width == config.width
        self.self_attn = SanmAttention(config, input_width=input_width)
        self.feed_forward = FeedForward(config.width, config.ffn_width, config.dropout)
        self.norm1 = nn.LayerNorm(input_width, eps=EPS)
        self.norm2 = nn.LayerNorm(config.width, eps=EPS)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x_BTD: Tensor, mask_BT: Tensor | None = None) -> Tensor:
        """`mask_BT` is True where a frame is valid; None where all are."""
        h = self.dropout(self.self_attn(self.norm1(x_BTD), mask_BT))
        x_BTD = x_BTD + h if self.residual else h
        out: Tensor = x_BTD + self.dropout(self.feed_forward(self.norm2(x_BTD)))
        return out


class SanmAttention(nn.Module):
    """linear_out(softmax(q k^T / sqrt(d)) v) + memory(v)."""

    def __init__(self, config: SanmEncoderConfig, *, input_width: int) -> None:
        super().__init__()
        self.heads = config.heads
        self.attention_dropout = config.attention_dropout
        self.linear_q_k_v = Linear(input_width, 3 * config.width)
        self.linear_out = Linear(config.width, config.width)
        self.fsmn_block = FsmnMemory(config.width, config.kernel, config.shift)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x_BTD: Tensor, mask_BT: Tensor | None = None) -> Tensor:
        """[B, T, input_width] -> [B, T, width]."""
        q_BTD, k_BTD, v_BTD = self.linear_q_k_v(x_BTD).chunk(3, dim=-1)
        memory_BTD = self.dropout(self.fsmn_block(v_BTD, mask_BT))
        out: Tensor = self.linear_out(self.attend(q_BTD, k_BTD, v_BTD, mask_BT)) + memory_BTD
        return out

    def attend(
        self, q_BQD: Tensor, k_BKD: Tensor, v_BKD: Tensor, mask_BK: Tensor | None = None
    ) -> Tensor:
        """Multi-head attention of given queries, keys and values, heads joined again."""
        dropout = self.attention_dropout if self.training else 0.0
        return attention(q_BQD, k_BKD, v_BKD, mask_BK, heads=self.heads, dropout=dropout)


class FsmnMemory(nn.Module):
    """A depthwise convolution over time, without bias, plus its own input.

    The window of frame t reaches (kernel - 1) / 2 + shift frames back and the rest ahead; frames
    outside the row count as zero.
    """

    def __init__(self, width: int, kernel: int, shift: int = 0) -> None:
        super().__init__()
        self.left = (kernel - 1) // 2 + max(shift, 0)
        self.right = kernel - 1 - self.left
        # The official key is `fsmn_block.weight` with the shape of a grouped Conv1d.
        self.weight = nn.Parameter(torch.empty(width, 1, kernel))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))

    def forward(self, v_BTD: Tensor, mask_BT: Tensor | None = None) -> Tensor:
        """Invalid frames neither enter nor leave: they are zero in the result."""
        if mask_BT is not None:
            v_BTD = v_BTD * mask_BT[..., None]
        out_BTD = self.convolve(v_BTD, left=self.left, right=self.right) + v_BTD
        return out_BTD if mask_BT is None else out_BTD * mask_BT[..., None]

    def convolve(self, v_BTD: Tensor, *, left: int, right: int) -> Tensor:
        """The convolution alone with `left` and `right` zero frames around the input."""
        if left != right:
            v_BTD, left = F.pad(v_BTD, (0, 0, left, right)), 0
        # As a 2-d convolution over [B, D, 1, T] in the channels-last layout, which is the memory
        # layout of [B, T, D]: nothing is moved, and it takes a third of the time of conv1d.
        out_BD1T = F.conv2d(
            v_BTD.transpose(1, 2).unsqueeze(2),
            self.weight.unsqueeze(2),
            padding=(0, left),
            groups=self.weight.shape[0],
        )
        return out_BD1T.squeeze(2).transpose(1, 2)


class FeedForward(nn.Module):
    """w_2(relu(w_1 x))."""

    def __init__(self, width: int, ffn_width: int, dropout: float) -> None:
        super().__init__()
        self.w_1 = Linear(width, ffn_width)
        self.w_2 = Linear(ffn_width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.w_2(self.dropout(self.w_1.relu(x)))
        return out


def attention(
    q_BQD: Tensor,
    k_BKD: Tensor,
    v_BKD: Tensor,
    mask_BK: Tensor | None,
    *,
    heads: int,
    dropout: float = 0.0,
) -> Tensor:
    """Fused multi-head attention over views of joined heads; True in `mask_BK` may be seen."""
    q, k, v = (x.view(*x.shape[:2], heads, -1).transpose(1, 2) for x in (q_BQD, k_BKD, v_BKD))
    mask = None if mask_BK is None else mask_BK[:, None, None, :]
    out_BHQD = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
    return out_BHQD.transpose(1, 2).flatten(2)


def padding_mask(lengths_B: Tensor, size: int) -> Tensor | None:
    """[B, size] bool, True where valid; None if every row is full (then no mask is needed)."""
    if lengths_B.numel() == 0 or int(lengths_B.min()) >= size:
        return None
    return torch.arange(size, device=lengths_B.device) < lengths_B[:, None]


def sinusoids(positions_T: Tensor, width: int) -> Tensor:
    """[T, width] float32: all sines, then all cosines (not interleaved)."""
    half = width // 2
    rates = torch.exp(
        torch.arange(half, device=positions_T.device, dtype=torch.float32)
        * (-math.log(10000.0) / (half - 1))
    )
    angles = positions_T.to(torch.float32)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)
