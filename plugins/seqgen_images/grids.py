"""Many images as one: grids, enlarged by whole pixels; PNG bytes.

Shapes: N images, H, W, C of one; arrays are uint8.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]

SIDE = 96
"""Pixels of an image's longer side that enlarging aims at."""

MOST_PIXELS = 100_000_000
"""Of a grid; further images are left out of it."""

PAPER = 255


def enlargement(height: int, width: int, scale: int = 0) -> int:
    """`scale`, or how often a pixel is repeated so that an image can be looked at."""
    return scale or max(1, round(SIDE / max(height, width)))


def columns_of(count: int, columns: int = 0) -> int:
    """Images a row: `columns`, or about as many as rows."""
    return min(columns or int(np.ceil(np.sqrt(count))), count)


def most_images(height: int, width: int, scale: int) -> int:
    """How many enlarged images a grid holds at most."""
    return max(1, MOST_PIXELS // (height * width * scale * scale))


def grid(images: Sequence[Bytes], *, scale: int = 1, columns: int = 0) -> Bytes:
    """Images [H, W, C] beside and below each other, with white lines between them."""
    height, width, channels = images[0].shape
    across = columns_of(len(images), columns)
    down = -(-len(images) // across)
    gap, tall, wide = max(scale, 2), height * scale, width * scale
    shape = (down * (tall + gap) - gap, across * (wide + gap) - gap, channels)
    sheet = np.full(shape, PAPER, dtype=np.uint8)
    for place, image in enumerate(images):
        top, left = (place // across) * (tall + gap), (place % across) * (wide + gap)
        sheet[top : top + tall, left : left + wide] = enlarged(image, scale)
    return sheet


def enlarged(image: Bytes, scale: int) -> Bytes:
    """Every pixel `scale` times in both directions."""
    return image.repeat(scale, axis=0).repeat(scale, axis=1)


def png(image: Bytes) -> bytes:
    """An image [H, W, C] as a PNG file."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(_plain(image)).save(stream, format="PNG")
    return stream.getvalue()


def read_png(source: Path | bytes) -> Bytes:
    """An image [H, W, C] that `png` wrote."""
    from PIL import Image

    with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
        pixels = np.array(image)
    return pixels if pixels.ndim == 3 else pixels[..., None]


def _plain(image: Bytes) -> Bytes:
    return image[..., 0] if image.shape[-1] == 1 else image
