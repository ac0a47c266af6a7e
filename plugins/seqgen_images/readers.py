"""Reading image files: any mode, 8 bits a channel, and nothing decoded that would not fit.

Shapes: H and W height and width.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from seqgen.errors import InputError, PluginError, SeqgenError, UsageError, similar_path

if TYPE_CHECKING:
    from PIL.Image import Image

MOST_PIXELS = 64_000_000
"""More are refused by the file's header, before anything is decoded."""

FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "PPM")
"""What is read. Pillow knows more, among them some that start other programs."""

SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm",
)  # fmt: skip
"""What a folder is searched for; a file named explicitly is tried whatever its suffix."""

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Picture:
    """An image as read.

    Attributes:
        rgb_HWC: uint8, transparent pixels laid over the background.
        alpha_HW: uint8; None where everything is opaque.
    """

    rgb_HWC: Bytes
    alpha_HW: Bytes | None = None


def read_picture(path: Path, *, background: str = "white") -> Picture:
    """An image file as RGB. Photographs are turned as their EXIF entry says.

    Raises:
        InputError: missing, no image, damaged, too large, animated, or of numbers that are no
            colours.
        UsageError: no such background colour.
    """
    colour = _colour(background)
    with _opened(path) as image:
        try:
            picture = _upright(image)
            if picture.mode in ("I;16", "I;16B", "I;16L", "I;16N", "I", "F"):
                return Picture(_from_deep(picture, path))
            if "A" in picture.mode or "a" in picture.mode or "transparency" in picture.info:
                return _over(picture.convert("RGBA"), colour)
            return Picture(np.array(picture.convert("RGB")))
        except SeqgenError:
            raise
        except Exception as error:  # arbitrary bytes make decoders fail in arbitrary ways
            raise _damaged(path, error) from error


def read_mask(path: Path) -> NDArray[np.bool_]:
    """Which pixels are to be painted [H, W]: the bright ones.

    Raises:
        UsageError: it cannot be read; all items need it.
    """
    try:
        grey = read_picture(path, background="black").rgb_HWC.mean(axis=2)
    except InputError as error:
        raise UsageError(
            f"the mask cannot be used: {error.what}", why=error.why, fix=error.fix
        ) from error
    return np.asarray(grey >= 128)


@contextmanager
def _opened(path: Path) -> Iterator[Image]:
    """The file, its header read and checked."""
    pil = _pillow()
    if not path.exists():
        raise InputError(f"{path} does not exist", fix=similar_path(path))
    if path.is_dir():
        raise InputError(f"{path} is a folder, not an image", fix="name an image file in it")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty", why="it has 0 bytes", fix="get it again")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large images; those are refused below
            image = pil.open(path, formats=FORMATS)
    except pil.DecompressionBombError as error:
        raise _too_large(path) from error
    except pil.UnidentifiedImageError as error:
        raise InputError(
            f"{path} is not an image that can be read",
            why=f"its content is none of {', '.join(FORMATS)}",
            fix="save it as a PNG; a list of classes ends in .txt or .jsonl",
        ) from error
    except Exception as error:  # a header may be wrong in arbitrary ways
        raise _damaged(path, error) from error
    with image:
        if image.width * image.height > MOST_PIXELS:
            raise _too_large(path, f"it is {image.width}x{image.height}")
        # Cameras store a second, smaller view in MPO files; that is no animation.
        if getattr(image, "is_animated", False) and image.format != "MPO":
            raise InputError(
                f"{path} holds several images",
                why="it is animated, or has several pages",
                fix="save the one that you mean as a PNG",
            )
        yield image


def _upright(image: Image) -> Image:
    from PIL import ImageOps

    image.load()
    return ImageOps.exif_transpose(image)


def _over(image: Image, colour: tuple[int, int, int]) -> Picture:
    rgba = np.array(image)
    alpha_HW = rgba[..., 3]
    if alpha_HW.min() == 255:
        return Picture(rgba[..., :3])
    share = alpha_HW[..., None] / 255
    mixed = rgba[..., :3] * share + np.array(colour) * (1 - share)
    return Picture(mixed.round().astype(np.uint8), alpha_HW)


def _from_deep(image: Image, path: Path) -> Bytes:
    """Grey of more than 8 bits."""
    values = np.array(image)
    if values.dtype.kind == "f" or values.min() < 0 or values.max() > 65535:
        raise InputError(
            f"{path} holds numbers that are no colours",
            why=f"from {values.min():g} to {values.max():g}; 8 or 16 bits a pixel can be read",
            fix="save it as an 8-bit PNG",
        )
    grey = (values.astype(np.float64) / 257).round().astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def _colour(text: str) -> tuple[int, int, int]:
    _pillow()
    from PIL import ImageColor

    try:
        red, green, blue = ImageColor.getrgb(text)[:3]
    except ValueError as error:
        raise UsageError(
            f"background: unknown colour {text!r}",
            fix="a name such as white or skyblue, or #rrggbb",
        ) from error
    return red, green, blue


def _too_large(path: Path, why: str = "") -> InputError:
    return InputError(
        f"{path} has more than {MOST_PIXELS:,} pixels",
        why=why or "a small file can hold an image that fills the memory",
        fix="make it smaller first",
    )


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(
        f"{path} is cut off or damaged", why=str(error) or type(error).__name__, fix="get it again"
    )


def _pillow() -> Any:
    """Pillow's module `Image`.

    Raises:
        PluginError: it is not installed.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise PluginError(
            "the images plugin needs Pillow", why=str(error), fix="pip install pillow"
        ) from error
    return Image
