"""Training: a tokenizer, a model of any engine over one, or the judge of what they make.

    seqgen train --plugin images --preset raster --data avatars.npz -o runs/raster
    seqgen train --plugin images --preset tokenizer --data avatars.npz -o runs/tokenizer
    seqgen train --plugin images --preset next-scale --set tokenizer=runs/tokenizer --data ...

The objective follows from the engine's order and inputs: teacher forcing where a row does not hold
the value it predicts, the masked objective of one pass over [noisy | clean] otherwise.

Shapes: B images, A attributes, S slots.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from seqgen.errors import CheckpointError, ConfigError, InputError
from seqgen.seeds import item_seed
from seqgen.tokenizers import PatchKMeans, Tokenizer
from seqgen.training.convert import BlockDiffusionOptions, to_masked
from seqgen.training.objectives import Noise, noisy_clean, teacher_forcing
from seqgen.training.task import FitConfig, TrainingRun
from seqgen.transformer import TransformerConfig
from seqgen_images.data import ImageData, batches_of, chunks, load_images
from seqgen_images.judge import JudgeRun
from seqgen_images.model import (
    AvatarConfig,
    AvatarModel,
    Engine,
    load_image_model,
    save_image_model,
)
from seqgen_images.pixels import from_bytes
from seqgen_images.tokenizer_training import TokenizerRun, load_tokenizer, new_tokenizer


@dataclass(frozen=True)
class DataOptions:
    """Options of a training and of a conversion; `--set key=value`."""

    labels: str = field(
        default="", metadata={"help": "label columns of an npz, such as glasses,hat,hair,beard"}
    )
    size: int = field(default=0, metadata={"help": "side to resize a folder's images to"})
    batch: int = field(default=64, metadata={"help": "images a batch"})
    label_dropout: float = field(
        default=0.1, metadata={"help": "chance of an attribute, and of all, to be left out"}
    )
    held_out: int = field(default=1000, metadata={"help": "last images, to validate on"})


@dataclass(frozen=True)
class ImageTraining(DataOptions):
    """Options of training; `--set key=value`."""

    engine: Literal[
        "raster",
        "diagonal",
        "next-scale",
        "masked",
        "block-diffusion",
        "continuous",
        "tokenizer",
        "judge",
    ] = field(default="raster", metadata={"help": "what to train"})
    tokenizer: str = field(
        default="patch-kmeans",
        metadata={"help": "patch-kmeans, or the folder of a trained tokenizer"},
    )
    patch: int = field(default=2, metadata={"help": "side of a token in pixels"})
    codes: int = field(default=512, metadata={"help": "vocabulary of a new tokenizer"})
    quantizer: Literal["vq", "fsq", "lfq", "bsq", "multi-scale"] = field(
        default="multi-scale", metadata={"help": "quantizer of a new learned tokenizer"}
    )
    latent: int = field(default=8, metadata={"help": "channels of its latent"})
    tokenizer_width: int = field(default=64, metadata={"help": "width of its convolutions"})
    width: int = field(default=128, metadata={"help": "model width"})
    layers: int = field(default=4, metadata={"help": "layers"})
    heads: int = field(default=4, metadata={"help": "attention heads"})
    dropout: float = field(default=0.0, metadata={"help": "dropout of the layers' outputs"})
    block_length: int = field(
        default=0, metadata={"help": "tokens a block of block diffusion; 0: a row"}
    )
    flow_hidden: int = field(default=192, metadata={"help": "width of the continuous head"})


@dataclass(frozen=True)
class ImageConversion(BlockDiffusionOptions, DataOptions):
    """Options of a conversion of a raster model; `--set key=value`."""

    block_length: int = field(default=0, metadata={"help": "tokens a block; 0: a row"})


_FIT = FitConfig(
    steps=2000,
    lr=2e-3,
    schedule="cosine",
    final_lr=0.02,
    warmup=100,
    weight_decay=0.03,
    beta2=0.95,
    ema=0.995,
    precision="bfloat16",
    compile=True,
    log_every=100,
    validate_every=1000,
    save_every=500,
)

PRESETS: dict[str, tuple[ImageTraining, FitConfig]] = {
    "raster": (ImageTraining(engine="raster", dropout=0.1), _FIT),
    "diagonal": (ImageTraining(engine="diagonal", dropout=0.1), _FIT),
    "next-scale": (ImageTraining(engine="next-scale", dropout=0.1), _FIT),
    "masked": (ImageTraining(engine="masked"), replace(_FIT, steps=4000)),
    "block-diffusion": (ImageTraining(engine="block-diffusion"), replace(_FIT, steps=4000)),
    "continuous": (ImageTraining(engine="continuous"), replace(_FIT, steps=4000)),
    "tokenizer": (
        ImageTraining(engine="tokenizer"),
        replace(_FIT, lr=4e-3, ema=0.0, precision="float32", compile=False),
    ),
    "judge": (
        ImageTraining(engine="judge", batch=128),
        replace(
            _FIT, steps=3000, lr=1e-3, ema=0.0, precision="float32", compile=False, weight_decay=0.1
        ),
    ),
    "micro": (
        ImageTraining(
            width=32, heads=2, layers=1, codes=32, batch=16, held_out=32, flow_hidden=32,
            tokenizer_width=8, latent=4,
        ),
        FitConfig(steps=40, lr=3e-3, warmup=5, log_every=10, validate_every=40, save_every=20),
    ),
}  # fmt: skip
"""One a shipped model; `micro` shows that everything works (`--set engine=...`)."""


class ImageTask:
    """What `seqgen train --plugin images` offers.

    `--data` is an npz with `images` uint8 [N, H, W, 3] and label columns, or a folder of images
    whose subfolders are classes.
    """

    presets: Mapping[str, tuple[Any, FitConfig]] = PRESETS
    conversions: Mapping[str, tuple[Any, FitConfig]] = {
        "block-diffusion": (
            ImageConversion(rate_low=0.2, weighting="none"),
            replace(_FIT, steps=2000, lr=1.5e-3),
        )
    }

    def convert(
        self,
        checkpoint: Path,
        options: ImageConversion,
        fit: FitConfig,
        *,
        data: Path | None,
        seed: int,
        folder: Path,
    ) -> TrainingRun:
        images = _read(options, data)
        raster = load_image_model(checkpoint)
        if raster.engine != "raster":
            raise CheckpointError(
                f"{checkpoint} is a {raster.engine} model",
                why="only a raster model becomes block diffusion",
                fix="--from a model of --preset raster",
            )
        if (raster.labels, raster.size) != (images.labels, images.shape[:2]):
            raise InputError(
                f"{data} is not like the data of {checkpoint}",
                why=f"{images.shape[:2]} pixels with {images.labels.describe()}; the model has "
                f"{raster.size} with {raster.labels.describe()}",
                fix="the same images, and the same --set labels=...",
            )
        config = replace(raster.config, engine="block-diffusion", block_length=options.block_length)
        model = AvatarModel(config, raster.tokenizer)
        model.values, model.start_D = raster.values, raster.start_D
        model.sequence = to_masked(raster.sequence, positions=raster.slots, adds_given=True)
        return ImageRun(model.train(), images, options, seed=seed, noise=options.noise)

    def start(
        self,
        options: ImageTraining,
        fit: FitConfig,
        *,
        data: Path | None,
        seed: int,
        folder: Path,
    ) -> TrainingRun:
        images = _read(options, data)
        torch.manual_seed(seed)
        if options.engine == "tokenizer":
            return TokenizerRun(new_tokenizer(options, images), images, options, seed=seed)
        if options.engine == "judge":
            return JudgeRun(images, options, seed=seed)
        model = new_model(options, images, seed=seed)
        return ImageRun(model, images, options, seed=seed)


def new_model(options: ImageTraining, images: ImageData, *, seed: int) -> AvatarModel:
    """An untrained model for these images, with its tokenizer fitted or read."""
    height, width, channels = images.shape
    if options.engine in ("tokenizer", "judge"):
        raise ConfigError(f"engine={options.engine} generates nothing")
    engine = cast(Engine, options.engine)
    config = AvatarConfig(
        engine=engine,
        height=height,
        width=width,
        channels=channels,
        labels=images.labels,
        seen=_seen(images.split(options.held_out)[0]),
        transformer=TransformerConfig(
            width=options.width,
            layers=options.layers,
            heads=options.heads,
            axes=2,
            dropout=options.dropout,
        ),
        block_length=options.block_length,
        patch=options.patch,
        flow_hidden=options.flow_hidden,
    )
    train = from_bytes(images.split(options.held_out)[0].images_NHWC)
    tokenizer = None if engine == "continuous" else _tokenizer(options, train, seed=seed)
    model = AvatarModel(config, tokenizer)
    if model.pixels is not None:
        model.pixels.fit(train)
    return model


class ImageRun:
    """The model, its batches and its loss."""

    def __init__(
        self,
        model: AvatarModel,
        images: ImageData,
        options: DataOptions,
        *,
        seed: int,
        noise: Noise | None = None,
    ) -> None:
        self.model = model
        self.options = options
        self.seed = seed
        self.noise = noise or masking(model.engine)
        if isinstance(model.tokenizer, nn.Module):
            model.tokenizer.requires_grad_(False)
        train, held_out = images.split(options.held_out)
        self.train, self.held_out = self._values(train), self._values(held_out)
        self.labels, self.held_out_labels = train.indices_NA, held_out.indices_NA

    def batch(self, step: int, rank: int, world: int) -> tuple[Tensor, Tensor]:
        index = batches_of(
            len(self.train),
            self.options.batch,
            seed=self.seed,
            step=step,
            rank=rank,
            world=world,
        )
        device = next(self.model.parameters()).device
        return self.train[index].to(device), self.labels[index].to(device)

    def losses(self, batch: tuple[Tensor, Tensor], step: int) -> dict[str, Tensor]:
        values, labels_BA = batch
        share = self.options.label_dropout
        left_out = torch.rand(labels_BA.shape) < share
        left_out |= torch.rand(len(labels_BA), 1) < share
        labels_BA = labels_BA.masked_fill(left_out.to(labels_BA.device), -1)
        generator = torch.Generator().manual_seed(item_seed(self.seed, f"noise {step}"))
        return {"loss": objective(self.model, values, labels_BA, generator, self.noise)}

    def validate(self) -> dict[str, float]:
        """Mean loss of held-out images, given all labels."""
        device = next(self.model.parameters()).device
        generator = torch.Generator().manual_seed(0)
        total = 0.0
        with torch.no_grad():
            for rows in chunks(len(self.held_out), 250):
                values, labels = self.held_out[rows].to(device), self.held_out_labels[rows]
                loss = objective(self.model, values, labels.to(device), generator, self.noise)
                total += float(loss) * len(values)
        return {"validation_loss": total / max(len(self.held_out), 1)}

    def export(self, folder: Path, notes: Mapping[str, Any]) -> Path:
        return save_image_model(self.model, folder / "model.safetensors", notes)

    def _values(self, images: ImageData) -> Tensor:
        parts = [
            self.model.tokens(from_bytes(images.images_NHWC[rows]))
            for rows in chunks(len(images), 1000)
        ]
        return torch.cat(parts)


def objective(
    model: AvatarModel,
    values: Tensor,
    labels_BA: Tensor,
    generator: torch.Generator,
    noise: Noise,
) -> Tensor:
    """The loss of an engine, in nats a token (of the continuous one, an error of velocities).

    Exact likelihood for raster, diagonal and next-scale; for the masked ones the mean over masked
    tokens, which is no likelihood.
    """
    context, order, sequence = model.context(labels_BA), model.order(), model.sequence
    if model.engine in ("raster", "diagonal", "next-scale"):
        return teacher_forcing(sequence, values, order=order, context=context)
    return noisy_clean(
        sequence, values, order=order, generator=generator, noise=noise, context=context
    )


def masking(engine: str) -> Noise:
    """How much is masked where training is not told otherwise."""
    if engine == "block-diffusion":
        return Noise(low=0.2, per="group", weighting="none")
    return Noise(low=0.15, weighting="none")


def _seen(images: ImageData) -> tuple[tuple[tuple[int, ...], int], ...]:
    """The most frequent combinations of labels."""
    rows = Counter(tuple(row) for row in images.indices_NA.tolist())
    return tuple(rows.most_common(1000)) if images.labels.attributes else ()


def _read(options: DataOptions, data: Path | None) -> ImageData:
    if data is None:
        raise InputError(
            "training an image model needs images",
            fix="--data FILE.npz (images uint8 [N, H, W, 3]) or --data FOLDER",
        )
    columns = [name.strip() for name in options.labels.split(",") if name.strip()]
    return load_images(data, columns=columns, size=options.size)


def _tokenizer(options: ImageTraining, train_NCHW: Tensor, *, seed: int) -> Tokenizer:
    if options.tokenizer != "patch-kmeans":
        return load_tokenizer(Path(options.tokenizer))
    if options.engine == "next-scale":
        raise ConfigError(
            "next-scale generation needs a multi-scale tokenizer",
            fix="train one (--preset tokenizer) and name its folder: --set tokenizer=RUN",
        )
    _, channels, height, width = train_NCHW.shape
    tokenizer = PatchKMeans(
        height=height, width=width, channels=channels, patch=options.patch, codes=options.codes
    )
    tokenizer.fit(train_NCHW, seed=seed)
    return tokenizer
