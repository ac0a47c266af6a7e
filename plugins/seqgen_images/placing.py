"""What of an input image is given: the image brought to the model's size, and its known pixels.

Open pixels (to be painted) are those that a mask marks, that are transparent, or that lie outside
an image smaller than the canvas.

Shapes: H and W of the model's images.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seqgen.errors import InputError, UsageError
from seqgen_images.options import ImageOptions
from seqgen_images.readers import Picture

Bytes = NDArray[np.uint8]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Given:
    """An image of the model's size, part of which is known.

    Attributes:
        pixels_HWC: uint8; pixels that are not known hold the mean of the known ones.
        known_HW: bool.
    """

    pixels_HWC: Bytes
    known_HW: Flags


def place(
    picture: Picture,
    mask_HW: Flags | None,
    size: tuple[int, int],
    options: ImageOptions,
    *,
    name: str,
) -> Given:
    """Lay a picture onto the model's canvas.

    Args:
        mask_HW: pixels of the picture to paint.
        name: of the picture, for messages.

    Raises:
        InputError: the sizes do not fit, or nothing or everything would be painted.
        UsageError: `outpaint` leaves no room for any image.
    """
    open_HW = _open_pixels(picture, mask_HW, options, name)
    rgb, open_HW = _fitted(picture.rgb_HWC, open_HW, _room(size, options), options, name)
    top, left = _corner(rgb.shape[:2], size, options, name)
    known_HW = np.zeros(size, dtype=bool)
    pixels_HWC = np.zeros((*size, 3), dtype=np.uint8)
    height, width = rgb.shape[:2]
    known_HW[top : top + height, left : left + width] = ~open_HW
    pixels_HWC[top : top + height, left : left + width] = rgb
    if known_HW.all():
        fix = "--set mask=MASK.png (white is painted), --set outpaint=left:4, or transparent pixels"
        raise InputError(f"{name}: nothing is left to paint", fix=fix)
    if not known_HW.any():
        raise InputError(
            f"{name}: nothing of the image is kept",
            why="every pixel is to be painted",
            fix="leave INPUT out to generate whole images",
        )
    # An encoder that looks beyond a token then sees no edge where the known part ends.
    pixels_HWC[~known_HW] = pixels_HWC[known_HW].mean(axis=0).round().astype(np.uint8)
    return Given(pixels_HWC, known_HW)


def _open_pixels(
    picture: Picture, mask_HW: Flags | None, options: ImageOptions, name: str
) -> Flags:
    shape = picture.rgb_HWC.shape[:2]
    open_HW = np.zeros(shape, dtype=bool)
    if mask_HW is not None:
        if mask_HW.shape != shape:
            raise InputError(
                f"{name} is {_by(shape)}, the mask is {_by(mask_HW.shape)}",
                fix="give a mask of the image's size",
            )
        if not mask_HW.any():
            raise InputError(
                f"{name}: the mask opens no pixel",
                why="it is black everywhere",
                fix="paint white what shall be painted",
            )
        open_HW |= mask_HW
    if picture.alpha_HW is not None and options.alpha == "mask":
        open_HW |= picture.alpha_HW < 128
    return open_HW


def _room(size: tuple[int, int], options: ImageOptions) -> tuple[int, int]:
    """Height and width that the margins leave."""
    margins = options.margins()
    height = size[0] - margins.get("top", 0) - margins.get("bottom", 0)
    width = size[1] - margins.get("left", 0) - margins.get("right", 0)
    if min(height, width) < 1:
        raise UsageError(
            f"outpaint={options.outpaint} leaves no room for an image",
            why=f"this model's images are {_by(size)}",
            fix="paint fewer pixels",
        )
    return height, width


def _fitted(
    rgb: Bytes, open_HW: Flags, room: tuple[int, int], options: ImageOptions, name: str
) -> tuple[Bytes, Flags]:
    """The picture and its open pixels, no larger than the room."""
    height, width = rgb.shape[:2]
    if options.resize == "none":
        if height > room[0] or width > room[1]:
            raise InputError(
                f"{name} is {_by((height, width))}, there is room for {_by(room)}",
                why="an image is not resized unasked",
                fix="--set resize=crop, fit or stretch",
            )
        return rgb, open_HW
    box, target = (0.0, 0.0, float(width), float(height)), room
    if options.resize == "crop":
        scale = min(width / room[1], height / room[0])
        dx, dy = (width - room[1] * scale) / 2, (height - room[0] * scale) / 2
        box = (dx, dy, width - dx, height - dy)
    elif options.resize == "fit":
        scale = max(width / room[1], height / room[0])
        target = (max(round(height / scale), 1), max(round(width / scale), 1))
    return _resized(rgb, target, box), _resized(open_HW * np.uint8(255), target, box) > 0


def _resized(
    pixels: Bytes, target: tuple[int, int], box: tuple[float, float, float, float]
) -> Bytes:
    """Each new pixel is the mean of the area it covers."""
    from PIL import Image

    image = Image.fromarray(pixels)
    return np.array(image.resize((target[1], target[0]), Image.Resampling.BOX, box=box))


def _corner(
    shape: tuple[int, ...], size: tuple[int, int], options: ImageOptions, name: str
) -> tuple[int, int]:
    """Where the picture's top left corner lies: beside the margins, else in the middle."""
    margins, corner = options.margins(), []
    for axis, (before, after) in enumerate((("top", "bottom"), ("left", "right"))):
        free = size[axis] - shape[axis]
        if before in margins and after in margins and free != margins[before] + margins[after]:
            raise InputError(
                f"{name}: {before}:{margins[before]} and {after}:{margins[after]} do not fit",
                why=f"the image is {_by(shape)}, the model's are {_by(size)}",
                fix=f"name one of the two sides, or --set resize=fit; together they are {free}",
            )
        if before in margins:
            corner.append(margins[before])
        else:
            corner.append(free - margins[after] if after in margins else free // 2)
    return corner[0], corner[1]


def _by(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[0]}"
