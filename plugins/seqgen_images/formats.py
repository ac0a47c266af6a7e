"""Output formats beside JSON lines: a grid as PNG, and npz as the ADM evaluator reads it.

In a row `file` is the path of the image's own PNG, of the model's size, relative to the folder that
the output lies in. A folder holds those, and the grid `grid.png` or the arrays `images.npz`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seqgen.errors import UsageError, did_you_mean
from seqgen_images.grids import Bytes, enlargement, grid, most_images, png, read_png
from seqgen_images.labels import Labels

Row = Mapping[str, Any]

FORMATS = ("png", "npz")

_LOG = logging.getLogger("seqgen")


def write_rows(
    rows: Iterable[Row],
    destination: Path,
    format: str,
    *,
    scale: int = 0,
    columns: int = 0,
    labels: Labels | None = None,
) -> None:
    """Write the images of rows in one of `FORMATS`; nothing if there is none.

    Args:
        destination: a file, or a folder.
        scale, columns: of the grid; see `ImageOptions`.
        labels: the model's; without them an npz has images only.

    Raises:
        UsageError: the format is unknown.
    """
    if format not in FORMATS:
        raise UsageError(f"unknown format {format!r}", fix=did_you_mean(format, FORMATS))
    done = [row for row in rows if row["status"] == "ok"]
    if not done:
        return
    base = destination.parent
    if format == "npz":
        path = destination / "images.npz" if destination.is_dir() else destination
        write_npz(done, base, path, labels)
        return
    path = destination / _free("grid.png", done) if destination.is_dir() else destination
    write_grid(done, base, path, scale=scale, columns=columns)


def write_grid(rows: list[Row], base: Path, path: Path, *, scale: int, columns: int) -> None:
    """All images in one PNG, in the order of the rows."""
    first = read_png(base / rows[0]["file"])
    scale = enlargement(first.shape[0], first.shape[1], scale)
    most = most_images(first.shape[0], first.shape[1], scale)
    if len(rows) > most:
        _LOG.warning("%s shows the first %d of %d images", path.name, most, len(rows))
    images = [read_png(base / row["file"]) for row in rows[:most]]
    path.write_bytes(png(grid(images, scale=scale, columns=columns)))


def write_npz(rows: list[Row], base: Path, path: Path, labels: Labels | None) -> None:
    """`arr_0`: uint8 [N, H, W, 3]; `arr_1`: the classes, int64 [N], or [N, A] of attributes.

    An attribute that a row does not specify is -1.
    """
    arrays: list[NDArray[Any]] = [np.stack([_three(read_png(base / r["file"])) for r in rows])]
    if labels is not None and labels.attributes:
        indices = [
            [-1 if index is None else index for index in labels.parse(row["class"])] for row in rows
        ]
        classes = np.array(indices, dtype=np.int64)
        arrays.append(classes[:, 0] if classes.shape[1] == 1 else classes)
    with path.open("wb") as file:  # a name without .npz would be given one
        np.savez(file, *arrays)


def _three(image: Bytes) -> Bytes:
    return image if image.shape[-1] == 3 else image.repeat(3, axis=-1)


def _free(name: str, rows: list[Row]) -> str:
    """The name, or the next one that no image has."""
    taken = {Path(row["file"]).name.casefold() for row in rows}
    stem, suffix, count = Path(name).stem, Path(name).suffix, 1
    while name.casefold() in taken:
        count += 1
        name = f"{stem}-{count}{suffix}"
    return name
