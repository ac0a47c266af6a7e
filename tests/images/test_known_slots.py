"""Which tokens known pixels decide, and what completing an image by scales makes of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from seqgen_images.decoding import DecodingConfig
from seqgen_images.family import build_family
from seqgen_images.known_slots import over_scales, whole_cells
from seqgen_images.painting import Known, Painter
from seqgen_images.pixels import from_bytes

FINEST = 8


def left_known(columns: int, side: int = 8) -> Tensor:
    known_BHW = torch.zeros(1, side, side, dtype=torch.bool)
    known_BHW[:, :, :columns] = True
    return known_BHW


def counts(known_BHW: Tensor, sides: tuple[int, ...]) -> list[int]:
    parts = over_scales(known_BHW, sides)[0].split([side * side for side in sides])
    return [int(part.sum()) for part in parts]


def test_a_cell_is_known_whole_or_not() -> None:
    assert whole_cells(left_known(5), 4, 4).view(4, 4).all(0).tolist() == [True, True, False, False]
    # Three cells over eight pixels share the pixels 2 and 5.
    assert whole_cells(left_known(5), 3, 3).view(3, 3).all(0).tolist() == [True, False, False]
    assert whole_cells(left_known(6), 3, 3).view(3, 3).all(0).tolist() == [True, True, False]


@pytest.mark.parametrize(
    ("columns", "wanted"),
    [
        (0, [0, 0, 0, 0]),
        (1, [1, 0, 0, 8]),  # nothing but the single token of the whole is known of so little
        (4, [1, 2, 8, 32]),  # halves: the finest, and coarser ones that lie on one side
        (7, [1, 4, 12, 56]),
        (8, [1, 4, 16, 64]),
    ],
)
def test_coarse_tokens_are_known_by_majority(columns: int, wanted: list[int]) -> None:
    assert counts(left_known(columns), (1, 2, 4, 8)) == wanted


def test_a_part_without_a_whole_token_decides_nothing_of_the_whole() -> None:
    assert counts(left_known(1), (1, 2, 4)) == [0, 0, 0]
    assert counts(left_known(2), (1, 2, 4)) == [1, 0, 4]


def test_plain_residual_scales_are_all_finest() -> None:
    assert counts(left_known(5), (4, 4)) == [8, 8]


def strip(images_NHWC: np.ndarray, column: int) -> float:
    """Mean absolute step between the pixels on both sides of a line."""
    values = images_NHWC.astype(float)
    return float(np.abs(values[:, :, column] - values[:, :, column - 1]).mean())


def test_the_coarse_tokens_of_the_kept_part_make_the_seam_smaller(shared_data: Path) -> None:
    """Of the shipped next-scale model, against coarse tokens that are all drawn anew."""
    from seqgen.plugins import Plugins

    card = Plugins().registry("images").card("avatars", plugin="images")
    model = build_family(card, torch.device("cpu"))["next-scale"]
    with np.load(shared_data / "images" / "dicebear_pixelart_16_rgb_12k.npz") as file:
        real = torch.from_numpy(file["images"][11_000:11_064])
    known_BHW = left_known(8, 16).expand(len(real), -1, -1)
    filled = real.clone()
    filled[:, :, 8:] = real[:, :, :8].float().mean(dim=(1, 2), keepdim=True).round().byte()
    context = model.context(torch.full((len(real), len(model.labels.attributes)), -1))

    def seam(*, coarse: bool) -> float:
        canvas = model.canvas(
            torch.arange(len(real)), images_BCHW=from_bytes(filled), known_BHW=known_BHW
        )
        if not coarse:
            canvas.state_BS[:, : -FINEST * FINEST] = 0
        painter = Painter(model.decoder(DecodingConfig()), model, Known(real, known_BHW))
        made = painter.generate(model.sequence, canvas, context)
        assert made.images_BHWC is not None
        return strip(made.images_BHWC.numpy(), 8)

    assert seam(coarse=True) < 0.9 * seam(coarse=False)
