"""An input image on the model's canvas: sizes, margins, masks, and what is known of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.images.pictures import gradient

from seqgen.errors import ConfigError, InputError, UsageError
from seqgen_images.options import ImageOptions
from seqgen_images.placing import Given, place
from seqgen_images.readers import Picture

SIZE = (8, 8)


def placed(height: int, width: int, mask: Any = None, **options: Any) -> Given:
    picture = Picture(gradient(height, width))
    return place(picture, mask, SIZE, ImageOptions(**options), name="a.png")


def box(given: Given) -> tuple[int, int, int, int]:
    """Top, left, bottom, right of the known part."""
    rows, columns = np.nonzero(given.known_HW)
    return rows.min(), columns.min(), rows.max() + 1, columns.max() + 1


def test_a_mask_opens_its_pixels_and_leaves_the_others_as_they_are() -> None:
    mask = np.zeros(SIZE, bool)
    mask[2:5, 1:4] = True
    given = placed(8, 8, mask)
    np.testing.assert_array_equal(given.known_HW, ~mask)
    np.testing.assert_array_equal(given.pixels_HWC[~mask], gradient()[~mask])
    mean = gradient()[~mask].mean(axis=0).round()
    assert (given.pixels_HWC[mask] == mean).all()


@pytest.mark.parametrize(
    ("outpaint", "expected"),
    [
        ("", (1, 2, 7, 6)),
        ("left:1", (1, 1, 7, 5)),
        ("right:1", (1, 3, 7, 7)),
        ("top:0,left:4", (0, 4, 6, 8)),
        ("left:3,right:1,bottom:2", (0, 3, 6, 7)),
    ],
)
def test_a_smaller_image_lies_where_the_margins_say(
    outpaint: str, expected: tuple[int, int, int, int]
) -> None:
    given = placed(6, 4, outpaint=outpaint)
    assert box(given) == expected
    top, left, bottom, right = expected
    np.testing.assert_array_equal(given.pixels_HWC[top:bottom, left:right], gradient(6, 4))


def test_resizing() -> None:
    assert box(placed(32, 16, resize="fit")) == (0, 2, 8, 6)
    assert box(placed(2, 2, resize="stretch", outpaint="left:4,top:2")) == (2, 4, 8, 8)
    cropped = placed(16, 32, resize="crop", outpaint="bottom:4")
    assert box(cropped) == (0, 0, 4, 8)
    big = gradient(16, 32).astype(float)
    first = big[0:4, 0:4].mean(axis=(0, 1))
    np.testing.assert_allclose(cropped.pixels_HWC[0, 0], first, atol=1)


def test_a_pixel_is_open_if_any_pixel_that_it_covers_is() -> None:
    mask = np.zeros((16, 16), bool)
    mask[5, 5] = True
    known = placed(16, 16, mask, resize="stretch").known_HW
    assert not known[2, 2]
    assert known.sum() == 63


def test_transparency_opens_unless_it_is_laid_over_a_colour() -> None:
    alpha = np.full(SIZE, 255, np.uint8)
    alpha[:, :3] = 127
    picture = Picture(gradient(), alpha)
    known = place(picture, None, SIZE, ImageOptions(), name="a.png").known_HW
    np.testing.assert_array_equal(known, alpha == 255)
    with pytest.raises(InputError, match="nothing is left to paint"):
        place(picture, None, SIZE, ImageOptions(alpha="over"), name="a.png")


def opened(*, all_of_it: bool) -> Any:
    return np.full(SIZE, all_of_it)


@pytest.mark.parametrize(
    ("height", "width", "mask", "options", "message"),
    [
        (8, 8, None, {}, "nothing is left to paint"),
        (8, 8, opened(all_of_it=False), {}, "the mask opens no pixel"),
        (8, 8, opened(all_of_it=True), {}, "nothing of the image is kept"),
        (6, 8, opened(all_of_it=True), {}, "a.png is 8x6, the mask is 8x8"),
        (9, 8, None, {}, "a.png is 8x9, there is room for 8x8"),
        (8, 6, None, {"outpaint": "left:4"}, "there is room for 4x8"),
        (8, 4, None, {"outpaint": "left:1,right:1"}, "left:1 and right:1 do not fit"),
    ],
)
def test_what_does_not_fit(
    height: int, width: int, mask: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        placed(height, width, mask, **options)


def test_margins_that_leave_nothing_are_a_mistake_of_the_command() -> None:
    with pytest.raises(UsageError, match="leaves no room"):
        placed(1, 1, outpaint="left:5,right:3")


@pytest.mark.parametrize(
    ("outpaint", "message"),
    [
        ("lft:4", "unknown side 'lft'"),
        ("left", "names no number"),
        ("left:-4", "names no number"),
        ("left:4,left:2", "left twice"),
    ],
)
def test_margins_that_cannot_be_read(outpaint: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ImageOptions(outpaint=outpaint)
