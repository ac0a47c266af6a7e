"""Toy pictures with labels: a square of one of two sizes on one of two grounds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from seqgen_images.data import ImageData
from seqgen_images.labels import Labels

SIDE = 8
LABELS = Labels((("dark", ("no", "yes")), ("size", ("big", "small"))))


def toy_images(count: int, *, seed: int = 0) -> ImageData:
    """uint8 images [N, 8, 8, 3]."""
    generator = torch.Generator().manual_seed(seed)
    labels_NA = torch.randint(0, 2, (count, 2), generator=generator)
    ground_N = torch.where(labels_NA[:, 0] == 1, 40, 220)
    images = ground_N[:, None, None, None].repeat(1, SIDE, SIDE, 3).float()
    colour_N3 = torch.randint(60, 200, (count, 3), generator=generator).float()
    for row in range(count):
        edge = 1 if labels_NA[row, 1] == 0 else 3
        images[row, edge : SIDE - edge, edge : SIDE - edge] = colour_N3[row]
    return ImageData(images.to(torch.uint8), LABELS, labels_NA)


def write_toy(path: Path, count: int = 120) -> Path:
    """An npz as `seqgen train --plugin images` reads it."""
    data = toy_images(count)
    dark = np.where(data.indices_NA[:, 0].numpy() == 1, "v1", "")
    size = np.where(data.indices_NA[:, 1].numpy() == 1, "small1", "big2")
    np.savez(path, images=data.images_NHWC.numpy(), dark=dark, size=size)
    return path
