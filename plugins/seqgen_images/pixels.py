"""Pixels as continuous values: patches without a tokenizer, and images as bytes.

Shapes: B rows, S slots, C channels, N numbers a patch (C p p).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from seqgen.tokenizers.patches import cells, check_images, patchify, unpatchify


class Pixels(nn.Module):
    """Images as a sequence of patches' pixels, scaled to about unit variance.

    Args:
        height, width, channels: of the images.
        patch: side of a patch.
    """

    mean_N: Tensor
    scale: Tensor

    def __init__(self, height: int, width: int, channels: int, patch: int) -> None:
        super().__init__()
        self.grid = cells(height, width, patch)
        self.slots = self.grid[0] * self.grid[1]
        self.image_shape = (channels, height, width)
        self.patch = patch
        self.numbers = channels * patch * patch
        self.register_buffer("mean_N", torch.zeros(self.numbers))
        self.register_buffer("scale", torch.tensor(0.5))

    @torch.no_grad()
    def fit(self, images_BCHW: Tensor) -> None:
        """Take mean colour and spread from images in [-1, 1]."""
        colour_C = images_BCHW.mean(dim=(0, 2, 3))
        self.mean_N.copy_(colour_C.repeat_interleave(self.patch**2))
        self.scale.copy_((images_BCHW - colour_C[:, None, None]).std().clamp(min=1e-3))

    def encode(self, images_BCHW: Tensor) -> Tensor:
        """Values [B, S, N] of images in [-1, 1]."""
        check_images(images_BCHW, self.image_shape)
        return (patchify(images_BCHW, self.patch) - self.mean_N) / self.scale

    def decode(self, values_BSN: Tensor, known_BS: Tensor | None = None) -> Tensor:
        """Images in [-1, 1]; slots that are not known have the mean colour."""
        if known_BS is not None:
            values_BSN = values_BSN.masked_fill(~known_BS[..., None], 0)
        patches = values_BSN * self.scale + self.mean_N
        return unpatchify(patches, self.patch, self.grid).clamp(-1, 1)


def to_bytes(images_BCHW: Tensor) -> Tensor:
    """Images in [-1, 1] as uint8 [B, H, W, C]."""
    return ((images_BCHW + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).movedim(1, -1)


def from_bytes(images_BHWC: Tensor) -> Tensor:
    """uint8 images [B, H, W, C] as floats [B, C, H, W] in [-1, 1]."""
    return images_BHWC.movedim(-1, 1).float() / 127.5 - 1
