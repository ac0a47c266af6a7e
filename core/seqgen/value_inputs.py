"""Inputs of continuous values: what enters the model at a slot that holds a vector.

`ValueInputs` feeds the previous value, `MaskedValueInputs` a committed slot its own and an open one
a learned vector; `inputs.py` has the same for ids.

Shapes: B rows, R slots fed, S slots, D width, C channels of a value.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from seqgen.canvas import COMMITTED, Canvas, take
from seqgen.inputs import RasterInputs, plus_given
from seqgen.model import Context
from seqgen.orders import OrderTable


class ValueInputs(RasterInputs):
    """At slot s enters the vector of slot s - 1, at slot 0 a learned start. Raster order only.

    Args:
        channels: numbers a slot C.
        width: D.
        projection: from [..., C] to [..., D]; a linear layer if None.
        adds_given: add `Context.given_BSD` to every slot: what is known of the slot itself
            (calendar features, future regressors, a draft).
    """

    def __init__(
        self,
        channels: int,
        width: int,
        *,
        projection: nn.Module | None = None,
        adds_given: bool = False,
    ) -> None:
        super().__init__()
        self.projection = nn.Linear(channels, width) if projection is None else projection
        self.start_D = nn.Parameter(torch.randn(width))
        self.adds_given = adds_given

    def forward(
        self,
        canvas: Canvas,
        slots_BR: Tensor,
        valid_BR: Tensor | None = None,
        context: Context | None = None,
    ) -> Tensor:
        values_BRC, known_BR = _known_values(canvas, (slots_BR - 1).clamp(min=0))
        x = _project(self.projection, values_BRC, known_BR, like=self.start_D)
        x = torch.where((slots_BR == 0)[..., None], self.start_D, x)
        return plus_given(x, slots_BR, context) if self.adds_given else x

    def embed_before(self, values_BSC: Tensor, context: Context | None = None) -> Tensor:
        """Embeddings [B, S, D] of slots that hold these values, for teacher forcing.

        Slot s gets that of the value of slot s - 1.
        """
        x: Tensor = self.projection(values_BSC[:, :-1].to(self.start_D.dtype))
        x = torch.cat([self.start_D.expand(len(x), 1, -1).to(x.dtype), x], dim=1)
        slots_1S = torch.arange(x.shape[1], device=x.device)[None]
        return plus_given(x, slots_1S, context) if self.adds_given else x


class MaskedValueInputs(nn.Module):
    """At a decided slot enters its vector, at an open slot a learned mask embedding.

    As with `MaskedInputs`, a model that decodes without a prompt needs positions or given
    embeddings to tell slots apart.

    Args:
        channels: numbers a slot C.
        width: D.
        projection: from [..., C] to [..., D]; a linear layer if None.
        positions: table of absolute positions, added to every slot.
        adds_given: add `Context.given_BSD` to every slot.
    """

    settles_open = False
    first_slot = 0

    def __init__(
        self,
        channels: int,
        width: int,
        *,
        projection: nn.Module | None = None,
        positions: nn.Embedding | None = None,
        adds_given: bool = False,
    ) -> None:
        super().__init__()
        self.projection = nn.Linear(channels, width) if projection is None else projection
        self.mask_D = nn.Parameter(torch.randn(width))
        self.positions = positions
        self.adds_given = adds_given

    def forward(
        self,
        canvas: Canvas,
        slots_BR: Tensor,
        valid_BR: Tensor | None = None,
        context: Context | None = None,
    ) -> Tensor:
        values_BRC, known_BR = _known_values(canvas, slots_BR)
        return self.embed(values_BRC, known_BR, slots_BR, context)

    def embed(
        self,
        values_BRC: Tensor,
        known_BR: Tensor,
        slots_BR: Tensor,
        context: Context | None = None,
    ) -> Tensor:
        """Embeddings [B, R, D] of values that lie at slots [B or 1, R]; the mask where unknown."""
        x = _project(self.projection, values_BRC, known_BR, like=self.mask_D)
        x = torch.where(known_BR[..., None], x, self.mask_D)
        if self.positions is not None:
            x = x + self.positions(slots_BR)
        return plus_given(x, slots_BR, context) if self.adds_given else x

    def embed_copies(
        self,
        values_BSC: Tensor,
        known_BS: Tensor,
        table: OrderTable,
        context: Context | None = None,
    ) -> Tensor:
        """Embeddings [B, 2 S, D] of [noisy | clean] copies, for block-diffusion training.

        Args:
            known_BS: slots whose values enter the noisy copy too.
        """
        slots_1R = torch.arange(values_BSC.shape[1], device=values_BSC.device).repeat(2)[None]
        known_BR = torch.cat([known_BS, torch.ones_like(known_BS)], dim=1)
        return self.embed(values_BSC.repeat(1, 2, 1), known_BR, slots_1R, context)


def _known_values(canvas: Canvas, slots_BR: Tensor) -> tuple[Tensor, Tensor]:
    """Vectors at slots [B, R, C], and which of them stand, bool [B, R]."""
    if canvas.values.dim() != 3:
        raise ValueError(f"continuous inputs need vectors [B, S, C], not {canvas.values.shape}")
    return canvas.take(slots_BR), take(canvas.state_BS, slots_BR) == COMMITTED


def _project(
    projection: nn.Module, values_BRC: Tensor, known_BR: Tensor, *, like: Tensor
) -> Tensor:
    # What lies in an open slot may be anything, and NaN times a weight of 0 is NaN.
    x: Tensor = projection(values_BRC.masked_fill(~known_BR[..., None], 0).to(like.dtype))
    return x
