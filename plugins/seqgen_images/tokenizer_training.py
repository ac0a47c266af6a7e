"""Training a tokenizer, and reading one.

Shapes: B images, C channels, H and W.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from seqgen import checkpoints
from seqgen.errors import ConfigError
from seqgen.tokenizers import (
    ConvTokenizer,
    FiniteScalarQuantizer,
    LookupFreeQuantizer,
    MultiScaleRVQ,
    Tokenizer,
    VectorQuantizer,
    build_tokenizer,
    tokenizer_config,
)
from seqgen.tokenizers.measure import code_use, perplexity, psnr, use_by_scale
from seqgen_images.data import ImageData, batches_of, chunks
from seqgen_images.pixels import from_bytes

if TYPE_CHECKING:
    from seqgen_images.training import ImageTraining

KIND = "seqgen-image-tokenizer"

FSQ_LEVELS = {
    256: (8, 6, 5),
    512: (8, 8, 8),
    1024: (8, 5, 5, 5),
    4096: (7, 5, 5, 5, 5),
    16384: (8, 8, 8, 6, 5),
}
"""Levels for about so many codes (Mentzer et al. 2023, arXiv 2309.15505, table 1)."""

FIRST_IMAGES = 1024
"""Images whose latents place the codes at the start."""


def new_tokenizer(options: ImageTraining, images: ImageData) -> ConvTokenizer:
    """An untrained convolutional tokenizer around the quantizer asked for."""
    height, width, channels = images.shape
    grid = (height // options.patch, width // options.patch)
    quantizer = _quantizer(options, grid)
    return ConvTokenizer(
        quantizer,
        image_shape=(channels, height, width),
        downsample=options.patch,
        width=options.tokenizer_width,
    )


class TokenizerRun:
    """The tokenizer, its batches and its losses."""

    def __init__(
        self, model: ConvTokenizer, images: ImageData, options: ImageTraining, *, seed: int
    ) -> None:
        self.model = model
        self.size, self.seed = options.batch, seed
        train, held_out = images.split(options.held_out)
        self.train, self.held_out = train.images_NHWC, held_out.images_NHWC
        model.initialise(from_bytes(self.train[:FIRST_IMAGES]))

    def batch(self, step: int, rank: int, world: int) -> Tensor:
        index = batches_of(
            len(self.train), self.size, seed=self.seed, step=step, rank=rank, world=world
        )
        return from_bytes(self.train[index].to(next(self.model.parameters()).device))

    def losses(self, batch: Tensor, step: int) -> dict[str, Tensor]:
        return self.model.loss(batch)

    def validate(self) -> dict[str, float]:
        """PSNR of held-out images, and how much of the codebook they use."""
        ids, ratios = [], []
        device = next(self.model.parameters()).device
        with torch.no_grad():
            for rows in chunks(len(self.held_out), 250):
                images = from_bytes(self.held_out[rows].to(device))
                ids.append(self.model.encode(images))
                ratios.append(psnr(self.model.decode(ids[-1]), images))
        found, vocabulary = torch.cat(ids), self.model.vocabulary
        figures = {
            "psnr": float(torch.cat(ratios).mean()),
            "code_use": code_use(found, vocabulary),
            "perplexity": perplexity(found, vocabulary),
        }
        quantizer = self.model.quantizer
        if isinstance(quantizer, MultiScaleRVQ):
            for side, use in zip(
                quantizer.scales, use_by_scale(found, quantizer.bounds, vocabulary), strict=True
            ):
                figures[f"perplexity_scale_{side}"] = use.perplexity
        return figures

    def export(self, folder: Path, notes: Mapping[str, Any]) -> Path:
        return save_tokenizer(self.model, folder / "model.safetensors", notes)


def save_tokenizer(tokenizer: nn.Module, path: Path, notes: Mapping[str, Any]) -> Path:
    """Write one safetensors file, in half precision, with everything `load_tokenizer` needs."""
    config = {"kind": KIND, "tokenizer": tokenizer_config(tokenizer), "training": dict(notes)}
    return checkpoints.save(path, tokenizer.state_dict(), config, half=True)


def load_tokenizer(path: Path) -> Tokenizer:
    """Load a tokenizer that `seqgen train` wrote: a file, or its folder.

    Raises:
        CheckpointError: missing, damaged, of another kind, or not fitting.
    """
    fix = "train one: seqgen train --plugin images --preset tokenizer"
    state, config = checkpoints.load_kind(path, KIND, what="an image tokenizer", fix=fix)
    with checkpoints.building(path):
        tokenizer = build_tokenizer(config["tokenizer"])
    checkpoints.load_strict(tokenizer, state, source=path)
    checkpoints.require_finite(tokenizer, source=path)
    return tokenizer.eval()


def _quantizer(options: ImageTraining, grid: tuple[int, int]) -> Any:
    kind, codes, latent = options.quantizer, options.codes, options.latent
    if kind == "vq":
        return VectorQuantizer(codes, latent)
    if kind == "multi-scale":
        return MultiScaleRVQ(_halved(grid), codes, latent)
    if kind == "fsq":
        if codes not in FSQ_LEVELS:
            raise ConfigError(
                f"codes={codes} is none of fsq's sizes", fix=f"choose one of {sorted(FSQ_LEVELS)}"
            )
        return FiniteScalarQuantizer(FSQ_LEVELS[codes])
    bits = codes.bit_length() - 1
    if codes != 1 << bits:
        raise ConfigError(f"codes={codes} must be a power of 2 for {kind}")
    return LookupFreeQuantizer(bits, spherical=kind == "bsq")


def _halved(grid: tuple[int, int]) -> tuple[int, ...]:
    """Sides 1, 2, 4, ... up to the grid's."""
    if grid[0] != grid[1]:
        raise ConfigError(f"a multi-scale tokenizer needs square images, not a grid of {grid}")
    sides = [grid[0]]
    while sides[0] > 1:
        sides.insert(0, (sides[0] + 1) // 2)
    return tuple(sides)
