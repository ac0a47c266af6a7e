"""Images to train on: a folder (its subfolders are classes) or an npz.

Shapes: N images, H, W, C of an image, A attributes.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from seqgen.errors import InputError, did_you_mean, similar_path
from seqgen.seeds import item_seed
from seqgen.sources import find_files
from seqgen_images.labels import Labels, from_columns
from seqgen_images.readers import SUFFIXES, read_picture

IMAGE_KEYS = ("images", "arr_0", "x")
LABEL_KEYS = ("label", "labels", "class", "arr_1", "y")


@dataclass(frozen=True)
class ImageData:
    """Images with their labels.

    Attributes:
        images_NHWC: uint8.
        labels: what they can be conditioned on; none if they have no labels.
        indices_NA: int64, the value of each attribute.
    """

    images_NHWC: Tensor
    labels: Labels
    indices_NA: Tensor

    def __len__(self) -> int:
        return len(self.images_NHWC)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels."""
        height, width, channels = self.images_NHWC.shape[1:]
        return height, width, channels

    def split(self, held_out: int) -> tuple[ImageData, ImageData]:
        """All but the last `held_out` images, and those (a tenth of a small set at most)."""
        cut = len(self) - min(held_out, len(self) // 10)
        return self._part(slice(0, cut)), self._part(slice(cut, None))

    def _part(self, rows: slice) -> ImageData:
        return ImageData(self.images_NHWC[rows], self.labels, self.indices_NA[rows])


def load_images(source: Path, *, columns: Sequence[str] = (), size: int = 0) -> ImageData:
    """Read images to train on.

    Args:
        source: an npz with `images` uint8 [N, H, W, 3] and label columns, or a folder.
        columns: label columns of an npz; none: `label` if there is one.
        size: side to resize a folder's images to; 0: they must all have one size.

    Raises:
        InputError: missing, unreadable, or not images of one size.
    """
    if not source.exists():
        raise InputError(f"{source} does not exist", fix=similar_path(source))
    data = _from_folder(source, size) if source.is_dir() else _from_npz(source, columns)
    if len(data) < 2:
        raise InputError(f"{source} holds {len(data)} images", why="training needs several")
    return data


def batches_of(count: int, size: int, *, seed: int, step: int, rank: int, world: int) -> Tensor:
    """Indices of a step's batch: a random permutation an epoch, a function of (seed, step)."""
    first = (step * world + rank) * size
    index = torch.arange(first, first + size)
    out = torch.empty(size, dtype=torch.int64)
    for epoch in range(first // count, (first + size - 1) // count + 1):
        here = index // count == epoch
        generator = torch.Generator().manual_seed(item_seed(seed, f"epoch {epoch}"))
        out[here] = torch.randperm(count, generator=generator)[index[here] % count]
    return out


def _from_npz(path: Path, columns: Sequence[str]) -> ImageData:
    try:
        with np.load(path, allow_pickle=False) as file:
            names = list(file.files)
            key = next((name for name in IMAGE_KEYS if name in names), None)
            if key is None:
                raise InputError(
                    f"{path} has no images",
                    why=f"its arrays are {', '.join(names)}",
                    fix="name the array of images (uint8 [N, H, W, 3]) `images`",
                )
            images = file[key]
            wanted = list(columns) or [name for name in LABEL_KEYS if name in names][:1]
            for name in wanted:
                if name not in names:
                    raise InputError(
                        f"{path} has no column {name!r}", fix=did_you_mean(name, names)
                    )
            table = {name: file[name].tolist() for name in wanted}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path} is not a readable npz file",
            why=str(error),
            fix="write it with numpy.savez(path, images=...)",
        ) from error
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise InputError(
            f"{path}: images are {images.dtype} of shape {images.shape}",
            why="expected uint8 [N, H, W] or [N, H, W, C]",
            fix="scale them to 0 .. 255 and convert them: images.astype(numpy.uint8)",
        )
    pixels = torch.from_numpy(images if images.ndim == 4 else images[..., None])
    return _labelled(_colour(pixels, path), table, path)


def _from_folder(folder: Path, size: int) -> ImageData:
    from PIL import Image

    files = [path for _, path in find_files(str(folder), what="images", suffixes=SUFFIXES)]
    found: list[np.ndarray] = []
    for path in files:
        rgb_HWC = read_picture(path).rgb_HWC
        if size:
            small = Image.fromarray(rgb_HWC).resize((size, size), Image.Resampling.BOX)
            rgb_HWC = np.asarray(small)
        found.append(rgb_HWC)
        if found[-1].shape != found[0].shape:
            raise InputError(
                f"{path} is {found[-1].shape[1]}x{found[-1].shape[0]}, "
                f"{files[0].name} is {found[0].shape[1]}x{found[0].shape[0]}",
                why="a model makes images of one size",
                fix="--set size=16 resizes them all",
            )
    classes = [path.relative_to(folder).parts[0] for path in files if path.parent != folder]
    table = {"class": classes} if len(classes) == len(files) and len(set(classes)) > 1 else {}
    return _labelled(torch.from_numpy(np.stack(found)), table, folder)


def _labelled(images_NHWC: Tensor, table: Mapping[str, Sequence[object]], path: Path) -> ImageData:
    for name, column in table.items():
        if len(column) != len(images_NHWC):
            raise InputError(
                f"{path}: {len(column)} entries in {name!r}, {len(images_NHWC)} images",
                fix="give every image one entry, in the same sequence",
            )
    if not table:
        none = torch.zeros(len(images_NHWC), 0, dtype=torch.int64)
        return ImageData(images_NHWC, Labels(), none)
    labels, rows = from_columns(table)
    return ImageData(images_NHWC, labels, torch.tensor(rows))


def _colour(images_NHWC: Tensor, path: Path) -> Tensor:
    """Three channels: grey ones three times, transparent ones over white."""
    channels = images_NHWC.shape[-1]
    if channels == 3:
        return images_NHWC
    if channels == 1:
        return images_NHWC.repeat(1, 1, 1, 3)
    if channels == 4:
        colour, alpha = images_NHWC[..., :3].float(), images_NHWC[..., 3:].float() / 255
        return (colour * alpha + 255 * (1 - alpha)).round().to(torch.uint8)
    raise InputError(f"{path}: images have {channels} channels", why="1, 3 or 4 are possible")


def chunks(count: int, size: int) -> Iterator[slice]:
    """Slices that cover `count` rows."""
    for first in range(0, count, size):
        yield slice(first, min(first + size, count))
