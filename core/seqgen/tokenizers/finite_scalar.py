"""Finite scalar quantization (FSQ): every channel is rounded to one of a few levels.

No codebook, no loss, and every id has its place. Source: Mentzer et al., "Finite Scalar
Quantization: VQ-VAE Made Simple" (2023), section 3.1 and appendix A.1.

Shapes: B rows, S slots, C channels.
"""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from seqgen.errors import ConfigError
from seqgen.tokenizers.pointwise import PointwiseQuantizer, straight_through

MARGIN = 1e-3
"""The outermost levels lie this far inside the bound, so that they are reached."""


class FiniteScalarQuantizer(PointwiseQuantizer):
    """A lattice of levels; the first channel changes fastest from one id to the next.

    Args:
        levels: number of levels of each channel, 3 or more (for 2, see `LookupFreeQuantizer`). The
            latent has as many channels as there are numbers here.
        grid: rows and columns of the latent; None for a square of any size.
    """

    levels_C: Tensor
    basis_C: Tensor

    def __init__(
        self, levels: tuple[int, ...] = (8, 8, 8), *, grid: tuple[int, int] | None = None
    ) -> None:
        levels = tuple(levels)
        if not levels or min(levels) < 3:
            raise ConfigError(f"levels={levels} must be 3 or more each", fix="such as 8,8,8")
        super().__init__(prod(levels), len(levels), grid)
        self.levels = levels
        basis = [prod(levels[:channel]) for channel in range(len(levels))]
        # Not in the state dict: the configuration says it all.
        self.register_buffer("levels_C", torch.tensor(levels), persistent=False)
        self.register_buffer("basis_C", torch.tensor(basis), persistent=False)

    def ids_of(self, x_BSC: Tensor) -> Tensor:
        """Ids [B, S] of vectors that are not yet bounded."""
        return self._ids(self._bound(x_BSC.float()).round())

    def lattice_ids(self, codes_BSC: Tensor) -> Tensor:
        """Ids of lattice points, as `vectors` gives them: its inverse."""
        return self._ids((codes_BSC * (self.levels_C // 2)).round())

    def vectors(self, ids_BS: Tensor) -> Tensor:
        """Lattice points [B, S, C] between -1 and 1."""
        half_C = self.levels_C // 2
        steps_BSC = ids_BS[..., None] // self.basis_C % self.levels_C
        return (steps_BSC - half_C) / half_C

    def mean_vector(self) -> Tensor:
        """The middle of the lattice [C]."""
        return torch.zeros(self.channels, device=self.levels_C.device)

    def quantize(self, x_BSC: Tensor) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
        """No loss; the gradient passes the rounding, not the bound."""
        bounded_BSC = self._bound(x_BSC)
        rounded_BSC = bounded_BSC.round()
        straight = straight_through(bounded_BSC, rounded_BSC) / (self.levels_C // 2)
        return straight, self._ids(rounded_BSC.detach()), x_BSC.new_zeros(()), {}

    def _bound(self, x_BSC: Tensor) -> Tensor:
        """Values that round to the integers from -(L // 2) to (L - 1) // 2."""
        half_C = (self.levels_C - 1) * (1 + MARGIN) / 2
        # An even number of levels has no middle one: the lattice is shifted by half a step.
        offset_C = torch.where(self.levels_C % 2 == 0, 0.5, 0.0)
        return torch.tanh(x_BSC + torch.atanh(offset_C / half_C)) * half_C - offset_C

    def _ids(self, rounded_BSC: Tensor) -> Tensor:
        return ((rounded_BSC.long() + self.levels_C // 2) * self.basis_C).sum(-1)
