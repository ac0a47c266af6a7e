"""The order in which pictures fill: a frame a forward pass, as a GIF or a film strip.

    --set preview=order.gif       all images at once, a frame a pass
    --set preview=order.png       a row an image, a column a pass

Each image counts its own passes: those in which at least one of its tokens was decided.

Shapes: S slots, H, W, C of an image; N images.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from seqgen.journal import replacing
from seqgen_images.grids import Bytes, enlarged, enlargement, grid, png
from seqgen_images.painting import Known

if TYPE_CHECKING:
    from seqgen_images.model import ImageModel

MOST_IMAGES = 64
MOST_BYTES = 400_000_000
"""Of all frames of a GIF, which are in memory together."""

STRIP_ROWS = 8
STRIP_COLUMNS = 16
SECONDS = 4.0
LAST_SECONDS = 1.5


@dataclass(frozen=True)
class Filled:
    """How one image was decoded.

    Attributes:
        values_S: its slots, [S] or [S, C].
        pass_S: the image's own pass that decided a slot, from 1; 0 for one that was given.
        known: what of the image was given, for a batch of one; None if nothing.
    """

    values_S: Tensor
    pass_S: Tensor
    known: Known | None

    @property
    def passes(self) -> int:
        return int(self.pass_S.max())


def write_preview(
    filled: Sequence[Filled], model: ImageModel, path: Path, *, scale: int = 0, columns: int = 0
) -> str:
    """Draw how images filled; the suffix of `path` says in which way.

    Returns:
        What is shown, where that is not everything; else an empty text.
    """
    scale = enlargement(*model.size, scale)
    path.parent.mkdir(parents=True, exist_ok=True)
    passes = max(one.passes for one in filled)
    if path.suffix.lower() == ".png":
        shown = filled[:STRIP_ROWS]
        steps = _spread(passes + 1, STRIP_COLUMNS)
        frames = [_images(shown, model, step) for step in steps]
        cells = [frame[row] for row in range(len(shown)) for frame in frames]
        with replacing(path) as part:
            part.write_bytes(png(grid(cells, scale=scale, columns=len(steps))))
    else:
        size = model.size[0] * model.size[1] * model.channels * scale * scale * (passes + 1)
        shown = filled[: max(1, min(MOST_IMAGES, MOST_BYTES // size))]
        steps = list(range(passes + 1))
        sheets = [_sheet(_images(shown, model, step), scale, columns) for step in steps]
        with replacing(path) as part:
            _write_gif(sheets, part)
    notes = []
    if len(shown) < len(filled):
        notes.append(f"the first {len(shown)} of {len(filled)} images")
    if len(steps) < passes + 1:
        notes.append(f"{len(steps)} of {passes + 1} stages")
    return ", ".join(notes)


def _images(filled: Sequence[Filled], model: ImageModel, step: int) -> Bytes:
    """All images after a pass, [N, H, W, C]."""
    values = torch.stack([one.values_S for one in filled])
    pass_NS = torch.stack([one.pass_S for one in filled])
    images = model.images(values, known_BS=(pass_NS <= step).to(values.device)).cpu()
    for row, one in enumerate(filled):
        if one.known is not None:
            images[row] = one.known.over(images[row : row + 1])[0]
    found: Bytes = images.numpy()
    return found


def _sheet(images: Bytes, scale: int, columns: int) -> Bytes:
    if len(images) == 1:
        return enlarged(images[0], scale)
    return grid(list(images), scale=scale, columns=columns)


def _write_gif(sheets: Sequence[Bytes], path: Path) -> None:
    from PIL import Image

    def pictures() -> Iterator[Image.Image]:
        for sheet in sheets:
            flat = sheet[..., 0] if sheet.shape[-1] == 1 else sheet
            picture = Image.fromarray(flat).convert("RGB")
            # Each frame has colours of its own; without dithering pixel art stays flat.
            yield picture.quantize(256, dither=Image.Dither.NONE)

    first, *others = pictures()
    each = int(1000 * min(0.5, max(0.04, SECONDS / len(sheets))))
    first.save(
        path,
        save_all=True,
        append_images=others,
        duration=[each] * len(others) + [int(1000 * LAST_SECONDS)],
        loop=0,
        disposal=1,
    )


def _spread(count: int, most: int) -> list[int]:
    """0 .. count - 1, or `most` of these at even distances with the first and the last."""
    if count <= most:
        return list(range(count))
    return [int(x) for x in np.linspace(0, count - 1, most).round()]
