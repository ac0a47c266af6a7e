"""The engines of a card: one file each, loaded when first used.

    family = build_family(card, device)
    model = family["next-scale"]

A card's files, a folder with several checkpoints, one file, or an official checkpoint (a family of
one) are the same to the domain. Which engine a file holds stands in its header, so nothing is
loaded to know it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seqgen.checkpoints import FILE_NAME, load_config
from seqgen.errors import CheckpointError, UsageError, did_you_mean
from seqgen.registry import Card
from seqgen.weights import local_files
from seqgen_images.labels import Labels

if TYPE_CHECKING:
    import torch
    from torch import nn

    from seqgen.tokenizers import Tokenizer
    from seqgen_images.model import ImageModel

JUDGE = "seqgen-image-judge"
TOKENIZER = "seqgen-image-tokenizer"

EXACT = ("raster", "diagonal", "next-scale")
"""Engines that decide every token given all decided before: their likelihood is a product."""

OFFICIAL = {"var": "next-scale", "llamagen": "raster", "nar": "diagonal"}
"""Kind of an official checkpoint (`config: {kind: var}` of its card) -> its engine."""

OFFICIAL_NAMES = {"var_*": "var", "c2i_*": "llamagen", "nar*": "nar"}
"""Names under which official checkpoints are published -> their kind."""

OFFICIAL_SUFFIXES = (".pt", ".pth", ".bin", ".safetensors")

CONVERTED = {
    ("seqgen-images-var", ""): "var",
    ("seqgen-llamagen", "raster"): "llamagen",
    ("seqgen-llamagen", "diagonal"): "nar",
}
"""(kind, engine) in the header of a converted official checkpoint -> its kind here."""


@dataclass
class ImageFamily:
    """Engine -> model.

    Attributes:
        name: of the card, for messages.
        files: engine -> checkpoint, those not yet loaded.
        size: height and width of the images.
        labels: what the models can be conditioned on.
        device: where models go.
        judge: the checkpoint of the judge that came with them.
        ranked: tokenizers that came with them, by name, to be compared.
        held_out: engine -> loss on held-out images, in nats a token, where that is a likelihood.
    """

    name: str
    files: Mapping[str, Path]
    size: tuple[int, int]
    labels: Labels
    device: torch.device
    judge: Path | None = None
    ranked: Mapping[str, Path] = field(default_factory=dict)
    held_out: Mapping[str, float] = field(default_factory=dict)
    _models: dict[str, ImageModel] = field(default_factory=dict, repr=False)
    _steps: list[Callable[[nn.Module], None]] = field(default_factory=list, repr=False)

    @classmethod
    def of(cls, model: ImageModel, name: str, device: torch.device) -> ImageFamily:
        """A family of one."""
        own = {model.engine: model}
        return cls(name, {}, model.size, model.labels, device, _models=own)

    @property
    def engines(self) -> tuple[str, ...]:
        """Engines that there are."""
        return tuple(dict.fromkeys([*self._models, *self.files]))

    @property
    def tokenizers(self) -> dict[str, Tokenizer]:
        """The tokenizer of every engine that has one."""
        found = {engine: self[engine].tokenizer for engine in self.engines}
        return {engine: made for engine, made in found.items() if made is not None}

    def __getitem__(self, engine: str) -> ImageModel:
        """The model of an engine.

        Raises:
            UsageError: there is none.
            CheckpointError: its file is damaged or does not fit.
        """
        if engine not in self._models:
            if engine not in self.files:
                raise UsageError(
                    f"the model {self.name} cannot decode by {engine!r}",
                    why=f"it was trained for {', '.join(self.engines)}",
                    fix=f"--decoder {self.engines[0]}",
                )
            import torch

            from seqgen_images.model import load_image_model

            # Weights that are made while a batch is planned must be ordinary tensors all the same.
            with torch.inference_mode(False):
                file = self.files[engine]
                made = _ready(load_image_model(file), file, self.device)
            for step in self._steps:
                step(made.sequence)
            self._models[engine] = made
        return self._models[engine]

    def when_loaded(self, step: Callable[[nn.Module], None]) -> None:
        """Do `step` to the network of every engine, once it is loaded."""
        for model in self._models.values():
            step(model.sequence)
        self._steps.append(step)


def build_family(card: Card, device: torch.device) -> ImageFamily:
    """The models of a card.

    Raises:
        CheckpointError: a file is missing, damaged or no image model, or the files do not belong
            together.
    """
    kind, source = _official_source(card)
    if kind:
        file = source or local_files(card)[0]
        return ImageFamily.of(_ready(_official(kind, card, file), file, device), card.name, device)
    files = _checkpoints(card)
    headers = {path: read_config(path) for path in files}
    # Beside the models there may lie their judge, and the tokenizer that they were trained with.
    judge = next((path for path, c in headers.items() if c.get("kind") == JUDGE), None)
    found = headers
    headers = {path: c for path, c in headers.items() if _engine(c)} or headers
    engines: dict[str, Path] = {}
    for path, config in headers.items():
        engine = _engine(config)
        if not engine:
            raise CheckpointError(
                f"{path} is not an image model",
                why=f"its kind is {config.get('kind')!r}",
                fix="name a checkpoint made by `seqgen train --plugin images`",
            )
        if engine in engines:
            raise CheckpointError(
                f"{engines[engine]} and {path} are both {engine} models",
                fix="name the one that you mean: --model FILE",
            )
        engines[engine] = path
    shapes = {path: _shape(path, config) for path, config in headers.items()}
    first = next(iter(shapes.values()))
    for path, shape in shapes.items():
        if shape != first:
            raise CheckpointError(
                f"{path} makes other images than {next(iter(shapes))}",
                why=f"size and labels are {_said(shape)}, of the other {_said(first)}",
                fix="name one of them: --model FILE",
            )
    return ImageFamily(
        card.name,
        engines,
        first[0],
        first[1],
        device,
        judge=judge,
        ranked={p.stem: p for p, c in found.items() if c.get("kind") == TOKENIZER},
        held_out=_likelihoods(headers.values()),
    )


def _ready(model: Any, file: Path, device: torch.device) -> Any:
    """On its device, and on a CPU with its weights in the layout that is multiplied fastest."""
    from seqgen.checkpoints import require_finite
    from seqgen.linear import pack

    require_finite(model, source=file)
    made = model.to(device)
    if device.type == "cpu":
        pack(made)
    return made


def own_engine(card: Card) -> str:
    """The engine of a user's checkpoint if it is one alone, else ""; reads headers only."""
    if kind := official_kind(card):
        return OFFICIAL.get(kind, "")
    if card.path is None:
        return ""
    try:
        engines = {_engine(read_config(path)) for path in _checkpoints(card)} - {""}
    except CheckpointError:
        return ""  # `build_family` says what is wrong
    return engines.pop() if len(engines) == 1 else ""


def official_kind(card: Card) -> str:
    """What the card says, or the files at the user's path; "" for our own models."""
    return _official_source(card)[0]


def _official_source(card: Card) -> tuple[str, Path | None]:
    """Kind, and what to load of the user's path: one file that was converted, or all of it."""
    if card.path is None:
        return str(card.config.get("kind", "")), None
    files = sorted(card.path.iterdir()) if card.path.is_dir() else [card.path]
    for file in files:
        config = _config_or_none(file) if file.suffix == ".safetensors" else {}
        if kind := CONVERTED.get((str(config.get("kind")), str(config.get("engine", "")))):
            return kind, file
        if file.suffix not in OFFICIAL_SUFFIXES or _engine(config):
            continue
        for pattern, kind in OFFICIAL_NAMES.items():
            if fnmatch(file.name.lower(), pattern):
                return kind, card.path
    return "", None


def read_config(path: Path) -> dict[str, Any]:
    """The configuration in a safetensors file's header; `{}` if there is none.

    Raises:
        CheckpointError: it is no safetensors file, or is cut off.
    """
    try:
        return load_config(path)
    except CheckpointError as error:
        if path.suffix in OFFICIAL_SUFFIXES[:-1]:
            names = ", ".join(OFFICIAL_NAMES)
            error.fix = f"published checkpoints are known by their names: {names}"
        raise


def _checkpoints(card: Card) -> list[Path]:
    if card.path is None or not card.path.is_dir():
        return local_files(card)
    if (card.path / FILE_NAME).is_file():  # a training's folder
        return [card.path / FILE_NAME]
    found = sorted(card.path.glob("*.safetensors"))
    if not found:
        raise CheckpointError(
            f"the folder {card.path} holds no checkpoint",
            why="no *.safetensors lies in it, nor a published checkpoint",
            fix="name the file, or the folder of a training",
        )
    return found


def _config_or_none(path: Path) -> dict[str, Any]:
    try:
        return read_config(path)
    except CheckpointError:
        return {}  # loading says what is wrong


def _engine(config: Mapping[str, Any]) -> str:
    model = config.get("model")
    return str(model.get("engine", "")) if isinstance(model, dict) else ""


def _shape(path: Path, config: Mapping[str, Any]) -> tuple[tuple[int, int], Labels]:
    try:
        model = config["model"]
        labels = Labels.of(model["labels"]["attributes"])
        return (int(model["height"]), int(model["width"])), labels
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path} holds a configuration that this version cannot read",
            why=f"{type(error).__name__}: {error}",
        ) from error


def _likelihoods(configs: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Losses that a training noted, of engines whose loss is a likelihood."""
    found = {}
    for config in configs:
        notes = config.get("training")
        loss = notes.get("validation_loss") if isinstance(notes, dict) else None
        if isinstance(loss, int | float) and _engine(config) in EXACT:
            found[_engine(config)] = float(loss)
    return found


def _said(shape: tuple[tuple[int, int], Labels]) -> str:
    (height, width), labels = shape
    return f"{width}x{height} with {', '.join(name for name, _ in labels.attributes) or 'none'}"


def _official(kind: str, card: Card, file: Path) -> Any:
    if kind not in OFFICIAL:
        raise CheckpointError(
            f"the card {card.name!r} is of an unknown kind {kind!r}",
            fix=did_you_mean(kind, OFFICIAL),
        )
    module = importlib.import_module(f"seqgen_images.official.{kind}")
    return module.load(file)
