"""Reading image files: every mode gives 8-bit RGB, and what cannot be read says why."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.images.pictures import cut_in_half, gradient, header_only, save

from seqgen.errors import InputError, UsageError
from seqgen_images.readers import read_mask, read_picture


def test_rgb_is_read_as_it_is(tmp_path: Path) -> None:
    picture = read_picture(save(tmp_path / "häuser am see.png"))
    assert picture.alpha_HW is None
    np.testing.assert_array_equal(picture.rgb_HWC, gradient())


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr"])
def test_modes_without_alpha(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(gradient()).convert(mode)
    path = tmp_path / f"picture.{'jpg' if mode in ('CMYK', 'YCbCr') else 'png'}"
    image.save(path)
    picture = read_picture(path)
    assert picture.rgb_HWC.shape == (8, 8, 3)
    assert picture.rgb_HWC.dtype == np.uint8
    assert picture.alpha_HW is None
    expected = np.asarray(image.convert("RGB"), dtype=float)
    lossless = path.suffix == ".png"
    np.testing.assert_allclose(picture.rgb_HWC, expected, atol=0 if lossless else 130)


def test_sixteen_bits_keep_their_high_byte(tmp_path: Path) -> None:
    values = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1040
    Image.fromarray(values).save(tmp_path / "deep.png")
    found = read_picture(tmp_path / "deep.png").rgb_HWC
    np.testing.assert_array_equal(found[..., 0], np.round(values / 257))
    np.testing.assert_array_equal(found[..., 0], found[..., 2])


def test_alpha_lies_over_the_background(tmp_path: Path) -> None:
    rgba = np.dstack([gradient(), np.full((8, 8), 255, np.uint8)])
    rgba[:4, :, 3] = 0
    rgba[4, :, 3] = 128
    save(tmp_path / "glass.png", rgba)
    picture = read_picture(tmp_path / "glass.png", background="#ff0000")
    assert picture.alpha_HW is not None
    assert (picture.rgb_HWC[:4] == [255, 0, 0]).all()
    np.testing.assert_array_equal(picture.rgb_HWC[5:], gradient()[5:])
    mixed = gradient()[4] * (128 / 255) + np.array([255, 0, 0]) * (127 / 255)
    np.testing.assert_allclose(picture.rgb_HWC[4], mixed, atol=0.5)


def test_an_opaque_alpha_channel_is_none(tmp_path: Path) -> None:
    rgba = np.dstack([gradient(), np.full((8, 8), 255, np.uint8)])
    assert read_picture(save(tmp_path / "a.png", rgba)).alpha_HW is None


def test_a_transparent_colour_of_a_palette_is_transparent(tmp_path: Path) -> None:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    image.paste(0, (0, 0, 4, 8))
    image.save(tmp_path / "p.png", transparency=0)
    picture = read_picture(tmp_path / "p.png")
    assert picture.alpha_HW is not None
    assert (picture.alpha_HW[:, :4] == 0).all()
    assert (picture.rgb_HWC[:, 4:] == [10, 20, 30]).all()


def test_a_photograph_is_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.fromarray(gradient(8, 4)).save(tmp_path / "p.png", exif=exif)
    assert read_picture(tmp_path / "p.png").rgb_HWC.shape == (4, 8, 3)


def text(path: Path) -> None:
    path.write_text("not a picture at all")


def nothing(path: Path) -> None:
    path.write_bytes(b"")


def truncated(path: Path) -> None:
    cut_in_half(path)


def half_a_header(path: Path) -> None:
    save(path)
    path.write_bytes(path.read_bytes()[:20])


def huge(path: Path) -> None:
    header_only(path, 20_000, 20_000)


def large(path: Path) -> None:
    header_only(path, 9_000, 9_000)


def animated(path: Path) -> None:
    frames = [Image.fromarray(gradient()), Image.fromarray(gradient()[::-1])]
    frames[0].save(path, format="GIF", save_all=True, append_images=frames[1:])


def floats(path: Path) -> None:
    Image.fromarray(np.full((8, 8), 0.5, np.float32)).save(path, format="TIFF")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (text, "not an image that can be read"),
        (nothing, "is empty"),
        (truncated, "cut off or damaged"),
        (half_a_header, "cut off or damaged|not an image"),
        (huge, "more than 64,000,000 pixels"),
        (large, "more than 64,000,000 pixels"),
        (animated, "several images"),
        (floats, "no colours"),
        (lambda path: path.mkdir(), "is a folder"),
        (lambda path: None, "does not exist"),
    ],
)
def test_what_cannot_be_read(tmp_path: Path, make: Callable[[Path], None], message: str) -> None:
    path = tmp_path / "bad one.png"
    make(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing is said beside the error
        with pytest.raises(InputError, match=message) as caught:
            read_picture(path)
    assert "bad one.png" in caught.value.what


def test_an_unknown_background(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown colour 'blurple'"):
        read_picture(save(tmp_path / "a.png"), background="blurple")


def test_a_mask_opens_bright_pixels(tmp_path: Path) -> None:
    grey = np.array([[0, 127], [128, 255]], np.uint8)
    np.testing.assert_array_equal(
        read_mask(save(tmp_path / "m.png", grey)), [[False, False], [True, True]]
    )
    with pytest.raises(UsageError, match=r"the mask cannot be used: .*none\.png does not exist"):
        read_mask(tmp_path / "none.png")
