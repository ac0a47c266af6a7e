"""The learned tokenizer: a small convolutional autoencoder around any quantizer.

    tokenizer = ConvTokenizer(MultiScaleRVQ((1, 2, 4, 8), codes=512, channels=16))
    losses = tokenizer.loss(images_BCHW)        # minimise losses["loss"]
    ids_BS = tokenizer.encode(images_BCHW)

Each halving of the resolution moves 2x2 pixels into the channels at once, so that all the
convolutions run on small grids and nothing of the image is averaged away.

Shapes: B rows, S slots, C channels, H and W of images or latents.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seqgen.errors import ConfigError
from seqgen.tokenizers.multi_scale import MultiScaleRVQ
from seqgen.tokenizers.patches import cells, check_ids, check_images
from seqgen.tokenizers.pointwise import PointwiseQuantizer

COLOUR_BATCHES = 1000
"""Batches that the running mean colour looks back on."""


class ConvTokenizer(nn.Module):
    """Encoder, quantizer, decoder.

    Args:
        quantizer: of latents of `quantizer.channels` channels; what a model over scales works with.
        image_shape: channels, height and width of the images.
        downsample: image pixels a latent place, each way; a power of 2.
        width: channels of the convolutions, a multiple of `groups`.
        depth: residual blocks at every resolution, in the encoder and in the decoder.
        groups: of the group norms.
        l1, l2: weights of mean absolute and mean squared error.
    """

    mean_colour_C: Tensor
    batches_seen: Tensor

    def __init__(
        self,
        quantizer: PointwiseQuantizer | MultiScaleRVQ,
        *,
        image_shape: tuple[int, int, int] = (3, 16, 16),
        downsample: int = 2,
        width: int = 64,
        depth: int = 2,
        groups: int = 8,
        l1: float = 0.0,
        l2: float = 1.0,
    ) -> None:
        super().__init__()
        channels, height, image_width = image_shape
        self.image_shape = (channels, height, image_width)
        self.downsample, self.width, self.depth, self.groups = downsample, width, depth, groups
        self.l1, self.l2 = l1, l2
        halvings = downsample.bit_length() - 1
        if downsample < 1 or downsample != 1 << halvings:
            raise ConfigError(f"downsample={downsample} is not a power of 2")
        if width % groups:
            raise ConfigError(f"width={width} is not a multiple of groups={groups}")
        self.grid = cells(height, image_width, downsample)
        if quantizer.grid not in (None, self.grid):
            raise ConfigError(
                f"the quantizer's grid {quantizer.grid} is not that of the latents, {self.grid}",
                why=f"{height}x{image_width} images are downsampled {downsample} times",
            )
        if quantizer.grid is None and self.grid[0] != self.grid[1]:
            raise ConfigError(f"the quantizer needs grid={self.grid}, which is no square")
        self.quantizer = quantizer
        self.vocabulary = quantizer.vocabulary
        self.slots = (
            quantizer.slots if isinstance(quantizer, MultiScaleRVQ) else self.grid[0] * self.grid[1]
        )
        self.encoder = _encoder(channels, quantizer.channels, halvings, width, depth, groups)
        self.decoder = _decoder(channels, quantizer.channels, halvings, width, depth, groups)
        self.register_buffer("mean_colour_C", torch.zeros(channels))
        self.register_buffer("batches_seen", torch.tensor(0))

    def latent(self, images_BCHW: Tensor) -> Tensor:
        """The encoder's latent [B, C, rows, columns], not quantized."""
        check_images(images_BCHW, self.image_shape)
        f_BCHW: Tensor = self.encoder(images_BCHW)
        return f_BCHW

    def image(self, f_BCHW: Tensor) -> Tensor:
        """The decoder's images [B, C, H, W] of a latent, clipped to [-1, 1]."""
        images_BCHW: Tensor = self.decoder(f_BCHW)
        return images_BCHW.clamp(-1, 1)

    def encode(self, images_BCHW: Tensor) -> Tensor:
        """Ids [B, S] of images in [-1, 1]."""
        return self.quantizer.encode(self.latent(images_BCHW))

    def decode(self, ids_BS: Tensor) -> Tensor:
        """Images [B, C, H, W] in [-1, 1]."""
        check_ids(ids_BS, self.slots)
        return self.image(self.quantizer.decode(ids_BS))

    def decode_partial(self, ids_BS: Tensor, known_BS: Tensor) -> Tensor:
        """Images of the known slots.

        With one scale, unknown places have the mean colour of the training images; with several,
        the image is that of the scales so far.
        """
        check_ids(ids_BS, self.slots)
        images_BCHW = self.image(self.quantizer.decode_partial(ids_BS, known_BS))
        if isinstance(self.quantizer, MultiScaleRVQ):
            return images_BCHW
        known_B1HW = known_BS.view(-1, 1, *self.grid)
        for axis in (2, 3):
            known_B1HW = known_B1HW.repeat_interleave(self.downsample, axis)
        return torch.where(known_B1HW, images_BCHW, self.mean_colour_C[:, None, None])

    def initialise(self, images_BCHW: Tensor) -> None:
        """Place the quantizer's codes on the latents of images, with the encoder as it is."""
        with torch.no_grad():
            self.quantizer.initialise(self.latent(images_BCHW))

    def loss(self, images_BCHW: Tensor) -> dict[str, Tensor]:
        """Named scalars; `loss` is the one to minimise: reconstruction + the quantizer's own."""
        if self.training:
            self._see(images_BCHW)
        quantized = self.quantizer(self.latent(images_BCHW))
        made_BCHW = self.decoder(quantized.latent_BCHW).float()
        squared = F.mse_loss(made_BCHW, images_BCHW)
        reconstruction = self.l2 * squared
        if self.l1:
            reconstruction = reconstruction + self.l1 * F.l1_loss(made_BCHW, images_BCHW)
        return {
            "loss": reconstruction + quantized.loss,
            "squared_error": squared.detach(),
            **quantized.parts,
        }

    @torch.no_grad()
    def _see(self, images_BCHW: Tensor) -> None:
        self.batches_seen.add_(1)
        share = 1 / self.batches_seen.clamp(max=COLOUR_BATCHES)
        colour_C = images_BCHW.float().mean(dim=(0, 2, 3))
        self.mean_colour_C.add_((colour_C - self.mean_colour_C) * share)


class _Block(nn.Module):
    """Norm, SiLU, 3x3 convolution, twice, beside an identity."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, width)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups, width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)  # a block begins as the identity

    def forward(self, x_BCHW: Tensor) -> Tensor:
        h: Tensor = self.conv1(F.silu(self.norm1(x_BCHW)))
        h = self.conv2(F.silu(self.norm2(h)))
        return x_BCHW + h


def _encoder(
    channels: int, latent: int, halvings: int, width: int, depth: int, groups: int
) -> nn.Sequential:
    layers: list[nn.Module] = []
    here = channels
    for _ in range(halvings):
        layers += [nn.PixelUnshuffle(2), nn.Conv2d(4 * here, width, 3, padding=1)]
        layers += [_Block(width, groups) for _ in range(depth)]
        here = width
    if not halvings:
        layers += [nn.Conv2d(channels, width, 3, padding=1)]
        layers += [_Block(width, groups) for _ in range(depth)]
    layers += [nn.GroupNorm(groups, width), nn.SiLU(), nn.Conv2d(width, latent, 3, padding=1)]
    return nn.Sequential(*layers)


def _decoder(
    channels: int, latent: int, halvings: int, width: int, depth: int, groups: int
) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(latent, width, 3, padding=1)]
    for _ in range(halvings - 1):
        layers += [_Block(width, groups) for _ in range(depth)]
        layers += [nn.Conv2d(width, 4 * width, 3, padding=1), nn.PixelShuffle(2)]
    layers += [_Block(width, groups) for _ in range(depth)]
    layers += [nn.GroupNorm(groups, width), nn.SiLU()]
    if halvings:
        return nn.Sequential(
            *layers, nn.Conv2d(width, 4 * channels, 3, padding=1), nn.PixelShuffle(2)
        )
    return nn.Sequential(*layers, nn.Conv2d(width, channels, 3, padding=1))
