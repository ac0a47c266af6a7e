"""The avatars of the shared data, as the tokenizers take them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

FILE = "images/dicebear_pixelart_16_rgb_12k.npz"
TRAIN = 11_000


def avatars(shared_data: Path) -> tuple[Tensor, Tensor]:
    """Images [B, 3, 16, 16] in [-1, 1]: the first 11,000 to train with, the last 1,000 to test."""
    path = shared_data / FILE
    if not path.is_file():
        pytest.skip(f"no avatars at {path}")
    with np.load(path) as file:
        images = torch.from_numpy(file["images"]).permute(0, 3, 1, 2).float() / 127.5 - 1
    return images[:TRAIN], images[TRAIN:]
