"""VAR's image tokenizer (`vae_ch160v4096z32.pth`): a VQGAN around a quantizer over scales.

A convolutional autoencoder (Esser et al. 2021, arXiv 2012.09841) that halves the image four times;
between its halves lies `MultiScaleRVQ` (Tian et al. 2024, arXiv 2404.02905, section 3.2). The
networks carry their published names.

Shapes: B rows, S slots, C channels, H and W of images or latents, V codes.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqgen.tokenizers import MultiScaleRVQ
from seqgen.tokenizers.patches import check_ids, check_images
from seqgen_images.official.vqgan_layers import (
    Downsample,
    Residual,
    Upsample,
    activated,
    norm,
    through_level,
)

MOST_NUMBERS = 1 << 26
"""Numbers of the largest activation that a part of a batch may have: 256 MB."""


@dataclass(frozen=True)
class VQVAEConfig:
    """Sizes of a `VarTokenizer`.

    Attributes:
        scales: side of each scale's grid of tokens; the last is the side of the latent.
        codes: V.
        latent: channels of the latent.
        first: channels after the first convolution.
        widths: channels of each resolution, the finest first; each halves the one before.
        blocks: residual blocks a resolution of the encoder; the decoder has one more.
        attends: whether the coarsest resolution has an attention after every block.
        kernel: of the convolutions around the quantizer.
        phis: convolutions that the scales share.
    """

    scales: tuple[int, ...]
    codes: int
    latent: int
    first: int
    widths: tuple[int, ...]
    blocks: int = 2
    attends: bool = True
    kernel: int = 3
    phis: int = 4

    @property
    def side(self) -> int:
        """Height and width of the images."""
        return self.scales[-1] << (len(self.widths) - 1)


class VarTokenizer(nn.Module):
    """Images to ids and back; a `Tokenizer`.

    Attributes:
        quantizer: what a model over the scales works with.
    """

    def __init__(self, config: VQVAEConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = _Encoder(config)
        self.quant_conv = _conv(config.latent, config.latent, config.kernel)
        self.quantizer = MultiScaleRVQ(
            config.scales, config.codes, config.latent, phis=config.phis, revive_below=0.0
        )
        self.post_quant_conv = _conv(config.latent, config.latent, config.kernel)
        self.decoder = _Decoder(config)
        self.vocabulary = config.codes
        self.grid = (config.scales[-1], config.scales[-1])
        self.slots = self.quantizer.slots
        self.image_shape = (3, config.side, config.side)

    @torch.no_grad()
    def latent(self, images_BCHW: Tensor) -> Tensor:
        """What is quantized: [B, C, rows, columns] of images in [-1, 1]."""
        check_images(images_BCHW, self.image_shape)
        parts = [
            self.quant_conv(self.encoder(part.contiguous(memory_format=torch.channels_last)))
            for part in torch.split(images_BCHW.to(self.quant_conv.weight.dtype), self._at_once)
        ]
        return torch.cat(parts)

    @torch.no_grad()
    def image(self, f_BCHW: Tensor) -> Tensor:
        """Images [B, C, H, W] in [-1, 1] of a quantized latent."""
        parts = [
            self.decoder(self.post_quant_conv(part.contiguous(memory_format=torch.channels_last)))
            for part in torch.split(f_BCHW, self._at_once)
        ]
        whole = parts[0] if len(parts) == 1 else torch.cat(parts)
        return whole.clamp_(-1, 1).contiguous()

    def encode(self, images_BCHW: Tensor) -> Tensor:
        """Ids [B, S] of images in [-1, 1]."""
        return self.quantizer.encode(self.latent(images_BCHW).contiguous())

    @torch.no_grad()
    def decode(self, ids_BS: Tensor) -> Tensor:
        """Images [B, C, H, W] in [-1, 1]."""
        check_ids(ids_BS, self.slots)
        return self.image(self.quantizer.decode(ids_BS))

    @torch.no_grad()
    def decode_partial(self, ids_BS: Tensor, known_BS: Tensor) -> Tensor:
        """Images of the known slots only: the scales so far."""
        check_ids(ids_BS, self.slots)
        return self.image(self.quantizer.decode_partial(ids_BS, known_BS))

    @property
    def _at_once(self) -> int:
        return max(1, MOST_NUMBERS // (self.config.side**2 * self.config.widths[0]))


class _Encoder(nn.Module):
    def __init__(self, c: VQVAEConfig) -> None:
        super().__init__()
        coarsest = len(c.widths) - 1
        self.conv_in = _conv(3, c.first)
        self.down = nn.ModuleList(
            _Level(
                [before, *[width] * c.blocks],
                attends=c.attends and level == coarsest,
                downsample=level < coarsest,
            )
            for level, (before, width) in enumerate(pairwise((c.first, *c.widths)))
        )
        self.mid = _Middle(c.widths[-1])
        self.norm_out = norm(c.widths[-1])
        self.conv_out = _conv(c.widths[-1], c.latent)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv_in(x)
        for level in self.down:
            h = level(h)
        out: Tensor = self.conv_out(activated(self.norm_out, self.mid(h)))
        return out


class _Decoder(nn.Module):
    def __init__(self, c: VQVAEConfig) -> None:
        super().__init__()
        coarsest = len(c.widths) - 1
        self.conv_in = _conv(c.latent, c.widths[-1])
        self.mid = _Middle(c.widths[-1])
        # The finest level has the index 0 and comes last.
        self.up = nn.ModuleList(
            _Level(
                [before, *[width] * (c.blocks + 1)],
                attends=c.attends and level == coarsest,
                upsample=level > 0,
            )
            for level, (width, before) in enumerate(pairwise((*c.widths, c.widths[-1])))
        )
        self.norm_out = norm(c.widths[0])
        self.conv_out = _conv(c.widths[0], 3)

    def forward(self, z: Tensor) -> Tensor:
        h = self.mid(self.conv_in(z))
        for level in reversed(self.up):
            h = level(h)
        out: Tensor = self.conv_out(activated(self.norm_out, h))
        return out


class _Level(nn.Module):
    """The blocks of one resolution, and the step to the next one.

    Args:
        widths: channels before the first block and after each.
    """

    def __init__(
        self,
        widths: list[int],
        *,
        attends: bool,
        downsample: bool = False,
        upsample: bool = False,
    ) -> None:
        super().__init__()
        self.block = nn.ModuleList(Residual(*pair) for pair in pairwise(widths))
        self.attn = nn.ModuleList(_Attention(width) for width in widths[1:] if attends)
        self.downsample = Downsample(widths[-1]) if downsample else None
        self.upsample = Upsample(widths[-1]) if upsample else None

    def forward(self, x: Tensor) -> Tensor:
        return through_level(self.block, self.attn, self.downsample or self.upsample, x)


class _Middle(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.block_1 = Residual(width, width)
        self.attn_1 = _Attention(width)
        self.block_2 = Residual(width, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.block_2(self.attn_1(self.block_1(x)))
        return out


class _Attention(nn.Module):
    """One head over all places."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = norm(width)
        self.qkv = nn.Conv2d(width, 3 * width, 1)
        self.proj_out = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        qkv_BSE = self.qkv(self.norm(x)).flatten(2).transpose(1, 2)
        mixed = F.scaled_dot_product_attention(*qkv_BSE.chunk(3, dim=-1))
        out: Tensor = x + self.proj_out(mixed.transpose(1, 2).reshape(x.shape))
        return out


def _conv(before: int, after: int, kernel: int = 3) -> nn.Conv2d:
    return nn.Conv2d(before, after, kernel, padding=kernel // 2)
