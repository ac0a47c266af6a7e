"""The training-free tokenizer: every patch becomes the id of its nearest k-means centre.

    tokenizer = PatchKMeans(patch=2, codes=512, height=16, width=16, channels=3)
    tokenizer.fit(images_BCHW, seed=0)          # seconds
    ids_BS = tokenizer.encode(images_BCHW)

Shapes: B rows, S slots, V codes, D numbers a patch (C p p).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seqgen.errors import ConfigError
from seqgen.tokenizers.kmeans import kmeans, nearest
from seqgen.tokenizers.patches import cells, check_ids, check_images, patchify, unpatchify


class PatchKMeans(nn.Module):
    """k-means on raw patches.

    Args:
        patch: side of a patch in pixels.
        codes: vocabulary V.
        height, width, channels: of the images.
    """

    codebook_VD: Tensor
    mean_D: Tensor

    def __init__(
        self, *, height: int, width: int, channels: int = 3, patch: int = 2, codes: int = 512
    ) -> None:
        super().__init__()
        if codes < 1 or channels < 1:
            raise ConfigError(f"codes={codes} and channels={channels} must be 1 or more")
        self.patch, self.codes = patch, codes
        self.height, self.width, self.channels = height, width, channels
        self.grid = cells(height, width, patch)
        self.vocabulary = codes
        self.slots = self.grid[0] * self.grid[1]
        self.image_shape = (channels, height, width)
        numbers = channels * patch * patch
        self.register_buffer("codebook_VD", torch.zeros(codes, numbers))
        self.register_buffer("mean_D", torch.zeros(numbers))

    @torch.no_grad()
    def fit(self, images_BCHW: Tensor, *, seed: int = 0, iterations: int = 10) -> None:
        """Place the codes on the patches of images in [-1, 1] (of a sample, if there are many).

        The result depends on the images, the seed and the kind of device, and on nothing else.
        """
        check_images(images_BCHW, self.image_shape)
        patches_ND = patchify(images_BCHW, self.patch).flatten(0, 1)
        self.codebook_VD.copy_(kmeans(patches_ND, self.codes, iterations=iterations, seed=seed))
        # Of every pixel of a patch the same colour: an unknown patch is flat, not a mean of edges.
        colour_C = images_BCHW.float().mean(dim=(0, 2, 3))
        self.mean_D.copy_(colour_C.repeat_interleave(self.patch**2))

    def encode(self, images_BCHW: Tensor) -> Tensor:
        """Ids [B, S] of images in [-1, 1]."""
        check_images(images_BCHW, self.image_shape)
        patches_BSD = patchify(images_BCHW, self.patch)
        return nearest(patches_BSD.flatten(0, 1), self.codebook_VD).view(patches_BSD.shape[:2])

    def decode(self, ids_BS: Tensor) -> Tensor:
        """Images [B, C, H, W] in [-1, 1]."""
        check_ids(ids_BS, self.slots)
        return unpatchify(F.embedding(ids_BS, self.codebook_VD), self.patch, self.grid).clamp(-1, 1)

    def decode_partial(self, ids_BS: Tensor, known_BS: Tensor) -> Tensor:
        """Images [B, C, H, W]; unknown patches have the mean colour of the images fitted to."""
        check_ids(ids_BS, self.slots)
        known_BS1 = known_BS[..., None]
        patches_BSD = F.embedding(ids_BS.masked_fill(~known_BS, 0), self.codebook_VD)
        patches_BSD = torch.where(known_BS1, patches_BSD, self.mean_D)
        return unpatchify(patches_BSD, self.patch, self.grid).clamp(-1, 1)
