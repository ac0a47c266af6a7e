"""Sinusoidal features of masses, precise to a thousandth of a Dalton.

Wavelengths run geometrically from 0.001 to 10000 Da (Casanovo; PrimeNovo). The phase is reduced to
one turn in float64 before it becomes a float32: at 2000 Da a float32 resolves 0.0001 Da, a tenth of
the shortest wavelength.

Shapes: [...] any leading axes, W features.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

SHORTEST, LONGEST = 0.001, 10_000.0
"""Wavelengths in Da."""


class MassSines(nn.Module):
    """Masses float64 [...] -> sines and cosines float32 [..., W]."""

    turns: Tensor

    def __init__(self, width: int, *, shortest: float = SHORTEST, longest: float = LONGEST) -> None:
        super().__init__()
        if width % 2:
            raise ValueError(f"the width of sine features must be even, not {width}")
        place = torch.arange(width // 2, dtype=torch.float64) / max(1, width // 2 - 1)
        wavelengths = shortest * (longest / shortest) ** place
        self.register_buffer("turns", 1 / wavelengths, persistent=False)
        self.width = width

    def forward(self, mass: Tensor) -> Tensor:
        turns = mass[..., None].double() * self.turns
        phase = (2 * math.pi) * (turns - turns.floor()).float()
        return torch.cat([phase.sin(), phase.cos()], dim=-1)

    def _apply(self, fn: object, recurse: bool = True) -> MassSines:
        """Move to a device; the wavelengths stay float64 whatever the type of the weights."""
        kept = self.turns
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.turns = kept.to(self.turns.device)
        return self
