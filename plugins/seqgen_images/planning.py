"""What one batch's decoding starts from: seeds, classes, given pixels; canvas, network and context.

Shapes: B rows, A attributes, H, W, C of an image.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from seqgen.canvas import COMMITTED, Canvas
from seqgen.errors import InputError
from seqgen.guidance import guided_context
from seqgen.model import Context, SequenceModel
from seqgen_images.options import ImageOptions
from seqgen_images.painting import Known
from seqgen_images.pixels import from_bytes
from seqgen_images.requests import ImageItem

if TYPE_CHECKING:
    from seqgen_images.model import ImageModel


@dataclass(frozen=True)
class Asked(Context):
    """A batch's items. What the network attends to depends on the decoder; `plan` makes it.

    Attributes:
        items: with their classes and given pixels.
        device: where the models lie.
    """

    items: tuple[ImageItem, ...] = ()
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def labels_BA(self) -> Tensor:
        """The classes, int64; -1 for what is not specified."""
        rows = [[-1 if i is None else i for i in item.indices] for item in self.items]
        return torch.tensor(rows, dtype=torch.int64, device=self.device)

    def seeds(self, seeds_B: Tensor) -> Tensor:
        """The run's seeds, or an item's own."""
        pairs = zip(self.items, seeds_B.tolist(), strict=True)
        own = [seed if item.seed is None else item.seed for item, seed in pairs]
        return torch.tensor(own, dtype=torch.int64, device=self.device)

    def known(self) -> Known | None:
        """The given pixels, on the device; None if no item has any."""
        given = [item.given for item in self.items]
        some = next((one for one in given if one is not None), None)
        if some is None:
            return None
        pixels = [np.zeros_like(some.pixels_HWC) if g is None else g.pixels_HWC for g in given]
        known = [np.zeros_like(some.known_HW) if g is None else g.known_HW for g in given]
        return Known(
            torch.from_numpy(np.stack(pixels)).to(self.device),
            torch.from_numpy(np.stack(known)).to(self.device),
        )


def canvas_of(model: ImageModel, asked: Asked, known: Known | None, seeds: Tensor) -> Canvas:
    """A canvas whose known tokens are given.

    Raises:
        InputError: an image's known part holds no whole token, so it would change nothing.
    """
    seeds_B = asked.seeds(seeds)
    if known is None:
        return model.canvas(seeds_B)
    pixels = known.colours(model.channels)
    canvas = model.canvas(seeds_B, images_BCHW=from_bytes(pixels), known_BHW=known.known_BHW)
    tokens_B = (canvas.state_BS == COMMITTED).sum(dim=1) - canvas.prompt_B
    for item, tokens in zip(asked.items, tokens_B.tolist(), strict=True):
        if item.source is not None and tokens == 0:
            raise InputError(
                f"{item.source.name}: the part that is kept holds no whole token",
                why="the model knows an image by squares of pixels, and each is partly open",
                fix="keep more of the image",
            )
    return canvas


def conditioned(
    model: ImageModel, asked: Asked, options: ImageOptions
) -> tuple[SequenceModel, Context]:
    """The network and what it attends to: both branches of it under guidance."""
    labels_BA, guidance = asked.labels_BA, options.guide(model.own)
    own = model.context(labels_BA)
    # Without any class both branches are the same.
    if guidance is None or not bool((labels_BA >= 0).any()):
        return model.sequence, own
    without = model.context(torch.full_like(labels_BA, -1))
    return model.guided(guidance), guided_context(own, without)
