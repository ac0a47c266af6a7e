"""Image files of all kinds, good and bad, for tests of reading."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tests.images.small_images import SIDE


def gradient(height: int = SIDE, width: int = SIDE) -> NDArray[np.uint8]:
    """A picture [H, W, 3] without two equal pixels."""
    index = np.arange(height * width).reshape(height, width)
    channels = [index * 3 % 256, index * 7 % 256, index * 11 % 256]
    return np.stack(channels, axis=-1).astype(np.uint8)


def save(path: Path, pixels: NDArray[np.uint8] | None = None) -> Path:
    """A picture as a file; `gradient` without pixels."""
    Image.fromarray(gradient() if pixels is None else pixels).save(path)
    return path


def half_mask(path: Path, *, height: int = SIDE, columns: int = SIDE // 2) -> Path:
    """A mask that opens the columns from `columns` on."""
    mask = np.zeros((height, SIDE), dtype=np.uint8)
    mask[:, columns:] = 255
    return save(path, mask)


def header_only(path: Path, width: int, height: int) -> Path:
    """A PNG that claims a size and holds nothing of it: 60 bytes."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    data = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    return path


def cut_in_half(path: Path) -> Path:
    """A picture whose file ends too early."""
    save(path, gradient(64, 64))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    return path
