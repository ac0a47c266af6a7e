"""Patches: an image as a grid of vectors, one a patch, and the check of images at the door."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from seqgen.errors import ConfigError, InputError


def patchify(images_BCHW: Tensor, patch: int) -> Tensor:
    """Vectors [B, S, C p p] of the patches in raster order (channel, row, column within one)."""
    return F.pixel_unshuffle(images_BCHW, patch).flatten(2).transpose(1, 2)


def unpatchify(patches_BSD: Tensor, patch: int, grid: tuple[int, int]) -> Tensor:
    """Images [B, C, H, W] from `patchify`'s vectors on a grid of rows and columns."""
    return F.pixel_shuffle(patches_BSD.transpose(1, 2).reshape(len(patches_BSD), -1, *grid), patch)


def check_images(images_BCHW: Tensor, image_shape: tuple[int, int, int]) -> None:
    """Raise an `InputError` unless these are float images [B, C, H, W] of that shape."""
    if images_BCHW.dim() != 4 or tuple(images_BCHW.shape[1:]) != image_shape:
        channels, height, width = image_shape
        raise InputError(
            f"images of shape {tuple(images_BCHW.shape)} do not fit this tokenizer",
            why=f"it was made for [batch, {channels}, {height}, {width}]",
            fix=f"resize the images to {height}x{width} with {channels} channels",
        )
    if not images_BCHW.is_floating_point():
        raise InputError(
            f"images are {images_BCHW.dtype}, not floats in [-1, 1]",
            fix="images.float() / 127.5 - 1",
        )


def check_ids(ids_BS: Tensor, slots: int) -> None:
    """Raise an `InputError` unless these are ids [B, S] of so many slots."""
    if ids_BS.dim() != 2 or ids_BS.shape[1] != slots:
        raise InputError(
            f"ids of shape {tuple(ids_BS.shape)} do not fit this tokenizer",
            why=f"an image has {slots} tokens: [batch, {slots}]",
        )


def cells(height: int, width: int, patch: int) -> tuple[int, int]:
    """Rows and columns of the patches of an image.

    Raises:
        ConfigError: the patches do not cover it exactly.
    """
    if patch < 1 or height < 1 or width < 1 or height % patch or width % patch:
        raise ConfigError(
            f"{height}x{width} images cannot be cut into patches of {patch}x{patch}",
            fix="choose a height and a width that are multiples of the patch",
        )
    return height // patch, width // patch
