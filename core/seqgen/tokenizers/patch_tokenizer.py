"""Raw patches around any quantizer that can place its codes: several scales without training.

    tokenizer = PatchTokenizer(MultiScaleRVQ((1, 2, 4, 8), codes=512, channels=12), patch=2)
    tokenizer.fit(images_BCHW)                  # residual k-means: seconds

The latent is the image itself, a place a patch, with the patch's pixels as channels. For one scale
`PatchKMeans` is the simpler choice.

Shapes: B rows, S slots, C channels, H and W of images or latents.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seqgen.errors import ConfigError
from seqgen.tokenizers.multi_scale import MultiScaleRVQ
from seqgen.tokenizers.patches import cells, check_ids, check_images
from seqgen.tokenizers.vector_quantizer import VectorQuantizer


class PatchTokenizer(nn.Module):
    """A quantizer on patches.

    Args:
        quantizer: of latents with one channel a number of a patch; `MultiScaleRVQ`, or
            `VectorQuantizer`.
        patch: side of a patch in pixels.
        image_shape: channels, height and width of the images.
    """

    def __init__(
        self,
        quantizer: VectorQuantizer | MultiScaleRVQ,
        *,
        patch: int = 2,
        image_shape: tuple[int, int, int] = (3, 16, 16),
    ) -> None:
        super().__init__()
        channels, height, width = image_shape
        self.image_shape = (channels, height, width)
        self.patch = patch
        self.grid = cells(height, width, patch)
        if quantizer.channels != channels * patch**2:
            raise ConfigError(
                f"the quantizer has {quantizer.channels} channels",
                why=f"a patch has {channels} x {patch} x {patch} numbers",
                fix=f"channels={channels * patch**2}",
            )
        if quantizer.grid != self.grid and (quantizer.grid or self.grid[0] != self.grid[1]):
            raise ConfigError(
                f"the quantizer's grid {quantizer.grid} is not that of the patches, {self.grid}"
            )
        self.quantizer = quantizer
        self.vocabulary = quantizer.vocabulary
        self.slots = (
            quantizer.slots if isinstance(quantizer, MultiScaleRVQ) else self.grid[0] * self.grid[1]
        )

    @torch.no_grad()
    def fit(self, images_BCHW: Tensor, *, seed: int = 0) -> None:
        """Place the codes on the patches of images in [-1, 1]."""
        self.quantizer.initialise(self.latent(images_BCHW), seed=seed)

    def latent(self, images_BCHW: Tensor) -> Tensor:
        """The patches as a latent [B, C p p, rows, columns]."""
        check_images(images_BCHW, self.image_shape)
        return F.pixel_unshuffle(images_BCHW, self.patch)

    def image(self, f_BCHW: Tensor) -> Tensor:
        """The images [B, C, H, W] of a latent, clipped to [-1, 1]."""
        return F.pixel_shuffle(f_BCHW, self.patch).clamp(-1, 1)

    def encode(self, images_BCHW: Tensor) -> Tensor:
        """Ids [B, S] of images in [-1, 1]."""
        return self.quantizer.encode(self.latent(images_BCHW))

    def decode(self, ids_BS: Tensor) -> Tensor:
        """Images [B, C, H, W] in [-1, 1]."""
        check_ids(ids_BS, self.slots)
        return self.image(self.quantizer.decode(ids_BS))

    def decode_partial(self, ids_BS: Tensor, known_BS: Tensor) -> Tensor:
        """Images of the known slots: the scales so far, or the mean patch elsewhere."""
        check_ids(ids_BS, self.slots)
        return self.image(self.quantizer.decode_partial(ids_BS, known_BS))
