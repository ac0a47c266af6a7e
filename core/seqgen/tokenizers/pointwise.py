"""Base of the quantizers that give every place of a latent one id, whatever its neighbours are.

A subclass says how vectors become ids (`ids_of`), what vectors ids stand for (`vectors`) and what
is learned (`quantize`); the layout of latents and previews is here.

Shapes: B rows, S slots in raster order, C channels, H and W of the latent.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from math import isqrt

import torch
from torch import Tensor, nn

from seqgen.errors import InputError
from seqgen.tokenizers.base import Quantized


class PointwiseQuantizer(nn.Module, ABC):
    """One id a place.

    Args:
        vocabulary: number of ids.
        channels: of the latent C.
        grid: rows and columns that ids are decoded to; None for a square of as many as there are.
    """

    def __init__(self, vocabulary: int, channels: int, grid: tuple[int, int] | None) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.channels = channels
        self.grid = None if grid is None else (grid[0], grid[1])

    @abstractmethod
    def ids_of(self, x_BSC: Tensor) -> Tensor:
        """Ids [B, S] of vectors."""

    @abstractmethod
    def vectors(self, ids_BS: Tensor) -> Tensor:
        """Vectors [B, S, C] of ids."""

    @abstractmethod
    def mean_vector(self) -> Tensor:
        """The mean code [C], which stands for an unknown one."""

    @abstractmethod
    def quantize(self, x_BSC: Tensor) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
        """For training: vectors with straight-through gradients, ids, loss and its parts."""

    def initialise(self, f_BCHW: Tensor) -> None:
        """Place the codes on latents; nothing here, for codes that are fixed."""

    def encode(self, f_BCHW: Tensor) -> Tensor:
        """Ids [B, S] of a latent."""
        with torch.no_grad():
            return self.ids_of(_vectors_of(f_BCHW))

    def decode(self, ids_BS: Tensor) -> Tensor:
        """The latent [B, C, H, W] of ids."""
        return self._latent(self.vectors(ids_BS))

    def decode_partial(self, ids_BS: Tensor, known_BS: Tensor) -> Tensor:
        """The latent with the mean code where a slot is unknown."""
        x_BSC = self.vectors(ids_BS.masked_fill(~known_BS, 0))
        return self._latent(torch.where(known_BS[..., None], x_BSC, self.mean_vector()))

    def forward(self, f_BCHW: Tensor) -> Quantized:
        """Quantize a latent for training, in float32 whatever the precision around it."""
        with torch.autocast(f_BCHW.device.type, enabled=False):
            x_BSC, ids_BS, loss, parts = self.quantize(_vectors_of(f_BCHW).float())
        latent_BCHW = x_BSC.transpose(1, 2).reshape(f_BCHW.shape)
        return Quantized(latent_BCHW, ids_BS, loss, {name: p.detach() for name, p in parts.items()})

    def _latent(self, x_BSC: Tensor) -> Tensor:
        batch, slots, channels = x_BSC.shape
        rows, columns = self.grid or (isqrt(slots), isqrt(slots))
        if rows * columns != slots:
            why = f"the grid is {self.grid}" if self.grid else "they do not fill a square"
            raise InputError(f"{slots} ids cannot be laid out", why=why)
        return x_BSC.transpose(1, 2).reshape(batch, channels, rows, columns)


def straight_through(x: Tensor, quantized: Tensor) -> Tensor:
    """The quantized value, with the gradient of x."""
    return x + (quantized - x).detach()


def _vectors_of(f_BCHW: Tensor) -> Tensor:
    return f_BCHW.flatten(2).transpose(1, 2)
