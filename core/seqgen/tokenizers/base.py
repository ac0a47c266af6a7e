"""The two seams of image tokenizers: `Tokenizer` on images, `Quantizer` on latents.

A tokenizer turns an image into the ids of a canvas and back; what generates the ids knows nothing
else of it. Inside a learned tokenizer a quantizer does the same with the latent of an encoder.

Shapes: B rows, S slots, C channels, H and W height and width; K scales, V vocabulary.
Images are floats in [-1, 1]; ids are int64 in [0, V). Slots lie in raster order, for several scales
one scale after the other, coarse first.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor


class Tokenizer(Protocol):
    """Images to ids and back. In practice an `nn.Module`, whose state dict is all there is to save.

    Attributes:
        vocabulary: number of ids V.
        grid: rows and columns of the finest token grid.
        slots: tokens an image S; more than rows x columns if there are several scales.
        image_shape: channels, height and width of the images.
    """

    @property
    def vocabulary(self) -> int: ...

    @property
    def grid(self) -> tuple[int, int]: ...

    @property
    def slots(self) -> int: ...

    @property
    def image_shape(self) -> tuple[int, int, int]: ...

    def encode(self, images_BCHW: Tensor) -> Tensor:
        """Ids [B, S] of images in [-1, 1].

        Raises:
            InputError: the images are not [B, C, H, W] of `image_shape`.
        """
        ...

    def decode(self, ids_BS: Tensor) -> Tensor:
        """Images [B, C, H, W] in [-1, 1]."""
        ...

    def decode_partial(self, ids_BS: Tensor, known_BS: Tensor) -> Tensor:
        """Images of which only some slots are known, for previews.

        Args:
            ids_BS: ids; an unknown slot may hold anything, a mask id for instance.
            known_BS: which slots are known, bool. If all are, the result equals `decode`.
        """
        ...


@dataclass(frozen=True)
class Quantized:
    """What a quantizer makes of a latent in training.

    Attributes:
        latent_BCHW: the quantized latent; gradients pass straight through to the latent given.
        ids_BS: its ids.
        loss: scalar to be added to the reconstruction loss (0 where nothing has to be learned).
        parts: the terms of the loss and other scalars, detached, by name.
    """

    latent_BCHW: Tensor
    ids_BS: Tensor
    loss: Tensor
    parts: dict[str, Tensor] = field(default_factory=dict)


class Quantizer(Protocol):
    """Latents to ids and back. In practice an `nn.Module`.

    Attributes:
        vocabulary: number of ids V.
        channels: channels of the latent C.
        grid: rows and columns of the latent; None if any size will do. Ids without a grid are
            decoded to a square.
    """

    @property
    def vocabulary(self) -> int: ...

    @property
    def channels(self) -> int: ...

    @property
    def grid(self) -> tuple[int, int] | None: ...

    def encode(self, f_BCHW: Tensor) -> Tensor:
        """Ids [B, S] of a latent."""
        ...

    def decode(self, ids_BS: Tensor) -> Tensor:
        """The latent [B, C, H, W] that ids stand for."""
        ...

    def decode_partial(self, ids_BS: Tensor, known_BS: Tensor) -> Tensor:
        """A latent of which only some slots are known: the mean code, or the scales so far.

        Args:
            ids_BS: ids; an unknown slot may hold anything.
            known_BS: which slots are known, bool.
        """
        ...

    def initialise(self, f_BCHW: Tensor) -> None:
        """Place the codes on latents (nothing, if the codes are fixed)."""
        ...

    def __call__(self, f_BCHW: Tensor) -> Quantized:
        """Quantize for training; statistics are updated in training mode only."""
        ...
