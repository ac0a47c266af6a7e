"""Continuous integrate-and-fire (CIF): how many tokens there are, and one embedding for each.

Dong and Xu, "CIF: Continuous Integrate-and-Fire for End-to-End Speech Recognition"
(arXiv:1905.11235); predictor variants as in Paraformer (arXiv:2206.08317). Every frame gets a
weight alpha; the weights are integrated over time and a token fires whenever the integral passes a
whole number. Token k is the sum of the frames whose share of the integral lies in [k, k + 1].

Shape suffixes: B batch, T frames, N tokens, D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from seqgen_speech.encoder import padding_mask


@dataclass(frozen=True, kw_only=True)
class CifConfig:
    """Sizes and thresholds of the predictor.

    Attributes:
        width: model width D.
        version: v1 (depthwise convolution with a residual; the AISHELL recipe), v2 (full
            convolution; Paraformer-large), v3 (v2 and a second, finer head for timestamps).
        left: frames of left context of the convolution.
        right: frames of right context.
        tail_threshold: weight added behind the last frame at inference, so that a last token of
            at least 1 - tail_threshold fires.
        smooth_factor: scales the weights.
        noise_threshold: subtracted from the scaled weights.
        dropout: before the relu, v1 only.
        upsample: v3: finer frames per frame.
        smooth_factor2: v3: as smooth_factor, for the finer weights.
        noise_threshold2: v3: as noise_threshold, for the finer weights.
        upsample_convolved: v3: the finer head reads the convolution's output, not the encoder's.
    """

    width: int = 512
    version: Literal["v1", "v2", "v3"] = "v2"
    left: int = 1
    right: int = 1
    tail_threshold: float = 0.45
    smooth_factor: float = 1.0
    noise_threshold: float = 0.0
    dropout: float = 0.1
    upsample: int = 3
    smooth_factor2: float = 0.25
    noise_threshold2: float = 0.01
    upsample_convolved: bool = False


class CifOutput(NamedTuple):
    """What the predictor found.

    Attributes:
        embeddings_BND: one acoustic embedding a token, zero beyond a row's count.
        counts_B: tokens of each row, int64.
        alphas_BT: the weights; at inference one frame longer than the input (the tail), in
            training scaled to the target count.
        peaks_BT: the integral since the last token, plus 1 where a token fires.
        mass_B: sum of the weights before scaling and without the tail: the predicted count as a
            real number, which the training compares with the true one.
    """

    embeddings_BND: Tensor
    counts_B: Tensor
    alphas_BT: Tensor
    peaks_BT: Tensor
    mass_B: Tensor


class CifPredictor(nn.Module):
    """Encoder states -> acoustic embeddings. Runs in float32 whatever the autocast says."""

    def __init__(self, config: CifConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.cif_conv1d = nn.Conv1d(
            width,
            width,
            config.left + config.right + 1,
            groups=width if config.version == "v1" else 1,
        )
        self.cif_output = nn.Linear(width, 1)
        self.dropout = nn.Dropout(config.dropout)
        if config.version == "v3":
            self.upsample_cnn = nn.ConvTranspose1d(width, width, config.upsample, config.upsample)
            self.blstm = nn.LSTM(width, width, batch_first=True, bidirectional=True)
            self.cif_output2 = nn.Linear(2 * width, 1)

    def forward(
        self, h_BTD: Tensor, lengths_B: Tensor, target_lengths_B: Tensor | None = None
    ) -> CifOutput:
        """Integrate and fire.

        Args:
            h_BTD: encoder states.
            lengths_B: valid frames of each row.
            target_lengths_B: the true token counts; given in training only. Every row then yields
                exactly that many embeddings (see `fire_shares`).
        """
        with torch.autocast(h_BTD.device.type, enabled=False):
            h_BTD = mask_frames(h_BTD.float(), lengths_B)
            alphas_BT = self.alphas(h_BTD, lengths_B)
            mass_B = alphas_BT.sum(-1)
            if target_lengths_B is not None:
                integral_BT = scaled_integral(alphas_BT, target_lengths_B)
                scale_B = target_lengths_B / mass_B.clamp_min(1e-8)
                alphas_BT = alphas_BT * scale_B[:, None]
                counts_B = target_lengths_B.long()
            else:
                alphas_BT = add_tail(alphas_BT, lengths_B, self.config.tail_threshold)
                # The tail frame's state is zero: it completes a token without changing it.
                h_BTD = F.pad(h_BTD, (0, 0, 0, 1))
                # Rounded to float32 before the floor, as upstream does.
                integral_BT = alphas_BT.cumsum(-1, dtype=torch.float64).float()
                counts_B = integral_BT[:, -1].floor().long()
            shares_BNT = fire_shares(integral_BT, counts_B)
            embeddings_BND = shares_BNT.to(h_BTD.dtype) @ h_BTD
            return CifOutput(
                embeddings_BND, counts_B, alphas_BT, peaks(integral_BT).float(), mass_B
            )

    def alphas(self, h_BTD: Tensor, lengths_B: Tensor | None = None) -> Tensor:
        """The weights [B, T], in [0, 1); zero beyond a row's length where lengths are given."""
        config = self.config
        x_BTD = F.relu(self._convolve(h_BTD))
        alphas_BT = weights(self.cif_output(x_BTD), config.smooth_factor, config.noise_threshold)
        return alphas_BT if lengths_B is None else mask_frames(alphas_BT, lengths_B)

    def fine_peaks(
        self, h_BTD: Tensor, lengths_B: Tensor, counts_B: Tensor
    ) -> tuple[Tensor, Tensor]:
        """v3 only: weights and peak trace [B, T * upsample] on finer frames, for timestamps.

        The weights are scaled so that each row's sum is its count; the trace fires at 1 - 1e-4 so
        that rounding cannot swallow the last token.
        """
        config = self.config
        with torch.autocast(h_BTD.device.type, enabled=False):
            h_BTD = mask_frames(h_BTD.float(), lengths_B)
            if config.upsample_convolved:
                h_BTD = mask_frames(F.relu(self._convolve(h_BTD)), lengths_B)
            fine_BTD = self.upsample_cnn(h_BTD.transpose(1, 2)).transpose(1, 2)
            fine_lengths_B = lengths_B * config.upsample
            # Packed, so that the backward direction does not start in a row's padding.
            packed = pack_padded_sequence(
                fine_BTD, fine_lengths_B.cpu(), batch_first=True, enforce_sorted=False
            )
            states_BTD, _ = pad_packed_sequence(
                self.blstm(packed)[0], batch_first=True, total_length=fine_BTD.shape[1]
            )
            logits = self.cif_output2(states_BTD)
            alphas_BT = weights(logits, config.smooth_factor2, config.noise_threshold2)
            alphas_BT = mask_frames(alphas_BT, fine_lengths_B)
            scale_B = counts_B / alphas_BT.sum(-1).clamp_min(1e-8)
            alphas_BT = alphas_BT * scale_B[:, None]
            threshold = 1 - 1e-4
            integral_BT = alphas_BT.cumsum(-1, dtype=torch.float64) / threshold
            return alphas_BT, (peaks(integral_BT) * threshold).float()

    def _convolve(self, h_BTD: Tensor) -> Tensor:
        config = self.config
        h_BDT = h_BTD.transpose(1, 2)
        out_BDT = self.cif_conv1d(F.pad(h_BDT, (config.left, config.right)))
        if config.version == "v1":
            out_BDT = self.dropout(out_BDT + h_BDT)
        result: Tensor = out_BDT.transpose(1, 2)
        return result


def weights(logits_BT1: Tensor, smooth_factor: float, noise_threshold: float) -> Tensor:
    """relu(sigmoid(x) * smooth_factor - noise_threshold), [B, T, 1] -> [B, T]."""
    return F.relu(torch.sigmoid(logits_BT1.squeeze(-1)) * smooth_factor - noise_threshold)


def add_tail(alphas_BT: Tensor, lengths_B: Tensor, threshold: float) -> Tensor:
    """Append a frame and add `threshold` at the first frame behind each row's end."""
    out_BT = F.pad(alphas_BT, (0, 1))
    tail_B1 = torch.full_like(out_BT[:, :1], threshold)
    return out_BT.scatter_add(1, lengths_B[:, None].long(), tail_B1)


def scaled_integral(alphas_BT: Tensor, target_lengths_B: Tensor) -> Tensor:
    """The integral scaled to end at exactly the target length, float64.

    Scaling the weights and then adding them up in float32 ends just below the target length as
    often as not, and the last token never fires. Dividing the integral by its own last value cannot
    miss: x / x is 1.
    """
    integral_BT = alphas_BT.cumsum(-1, dtype=torch.float64)
    total_B1 = integral_BT[:, -1:].clamp_min(1e-12)
    return integral_BT / total_B1 * target_lengths_B[:, None]


def fire_shares(integral_BT: Tensor, counts_B: Tensor) -> Tensor:
    """How much of each frame's weight each token takes, [B, N, T] with N the largest count.

    Frame t covers [S(t-1), S(t)] of the integral S and token k covers [k, k + 1]; the share is the
    length of the overlap. The rows of the result sum to 1 up to a row's count and are 0 beyond.
    It equals the sequential loop, and a frame of weight > 1 may fire more than once.
    """
    size = int(counts_B.max()) if counts_B.numel() else 0
    start_B1T = F.pad(integral_BT[:, :-1], (1, 0))[:, None, :]
    end_B1T = integral_BT[:, None, :]
    token_N = torch.arange(size, device=integral_BT.device)
    left_N1 = token_N.to(integral_BT.dtype)[:, None]
    shares_BNT = (torch.minimum(end_B1T, left_N1 + 1) - torch.maximum(start_B1T, left_N1)).relu()
    if bool((counts_B == size).all()):
        return shares_BNT
    return shares_BNT * (token_N < counts_B[:, None])[..., None]


def peaks(integral_BT: Tensor) -> Tensor:
    """frac(S), plus 1 at the frames where S passes a whole number."""
    whole_BT = integral_BT.floor()
    fired_BT = whole_BT > F.pad(whole_BT[:, :-1], (1, 0))
    return integral_BT - whole_BT + fired_BT


def mask_frames(x: Tensor, lengths_B: Tensor) -> Tensor:
    """Zero [B, T] or [B, T, D] beyond each row's length."""
    mask_BT = padding_mask(lengths_B, x.shape[1])
    if mask_BT is None:
        return x
    return x.masked_fill(~(mask_BT if x.dim() == 2 else mask_BT[..., None]), 0.0)
