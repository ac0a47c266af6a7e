"""The judge: a classifier with what it knows of the real images, in one file.

    seqgen train --plugin images --preset judge --data avatars.npz --set labels=... -o runs/judge

`Judge.figures` compares generated images with the real ones. Copies are found by tokens: an image
is a duplicate if it differs from some training image in fewer tokens than 99 of 100 real images
that were not trained on do.

Shapes: N images, M training images, F features, A attributes, S tokens, B, C, H, W of images.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from seqgen import checkpoints
from seqgen.tokenizers import PatchKMeans, Tokenizer
from seqgen_images.classifier import FEATURES, AttributeClassifier
from seqgen_images.data import ImageData, batches_of, chunks
from seqgen_images.labels import Labels
from seqgen_images.metrics import (
    attribute_accuracy,
    frechet_distance,
    nearest_tokens,
    precision_recall,
)
from seqgen_images.pixels import from_bytes, to_bytes

if TYPE_CHECKING:
    from seqgen_images.training import ImageTraining

KIND = "seqgen-image-judge"

EXAMPLES = 500
"""Real images that a judge keeps whole, to tell how well a tokenizer brings them back."""


class Judge(nn.Module):
    """A trained classifier, features of real images, and the tokens of those trained on.

    Args:
        labels, size, channels: of the images.
        patch, codes: of the tokens that copies are found by.
        real, known: real images that were not trained on, and training images.
    """

    real_features_NF: Tensor
    real_labels_NA: Tensor
    real_distance_N: Tensor
    known_tokens_MS: Tensor
    examples_NHWC: Tensor

    def __init__(
        self,
        labels: Labels,
        size: tuple[int, int],
        *,
        channels: int = 3,
        patch: int = 2,
        codes: int = 512,
        real: int,
        known: int,
    ) -> None:
        super().__init__()
        self.labels = labels
        self.classifier = AttributeClassifier(labels, size, channels)
        self.tokenizer = PatchKMeans(
            height=size[0], width=size[1], channels=channels, patch=patch, codes=codes
        )
        buffers = {
            "real_features_NF": torch.zeros(real, FEATURES),
            "real_labels_NA": torch.zeros(real, len(labels.attributes), dtype=torch.int16),
            "real_distance_N": torch.zeros(real, dtype=torch.int16),
            "known_tokens_MS": torch.zeros(known, self.tokenizer.slots, dtype=torch.int16),
            "examples_NHWC": torch.zeros(min(real, EXAMPLES), *size, channels, dtype=torch.uint8),
        }
        for name, empty in buffers.items():
            self.register_buffer(name, empty)

    @torch.no_grad()
    def look_at(self, known: ImageData, real: ImageData) -> None:
        """Note what the real images are like, once the classifier is trained."""
        self.real_features_NF.copy_(self.features(real.images_NHWC))
        self.real_labels_NA.copy_(real.indices_NA)
        self.examples_NHWC.copy_(real.images_NHWC[: len(self.examples_NHWC)])
        self.known_tokens_MS.copy_(self.tokens(known.images_NHWC))
        self.real_distance_N.copy_(self.distances(real.images_NHWC))

    @torch.no_grad()
    def features(self, images_NHWC: Tensor) -> Tensor:
        """[N, F] of uint8 images."""
        parts = [
            self.classifier.features(from_bytes(images_NHWC[r])) for r in self._rows(images_NHWC)
        ]
        return torch.cat(parts)

    @torch.no_grad()
    def judged(self, images_NHWC: Tensor) -> Tensor:
        """The value of every attribute of uint8 images, int64 [N, A]."""
        parts = [
            self.classifier.judged(from_bytes(images_NHWC[r])) for r in self._rows(images_NHWC)
        ]
        return torch.cat(parts)

    def tokens(self, images_NHWC: Tensor) -> Tensor:
        """Tokens [N, S] of uint8 images."""
        return torch.cat(
            [self.tokenizer.encode(from_bytes(images_NHWC[r])) for r in self._rows(images_NHWC)]
        )

    def distances(self, images_NHWC: Tensor) -> Tensor:
        """Tokens in which each image differs from the nearest training image, [N]."""
        return nearest_tokens(self.tokens(images_NHWC).short(), self.known_tokens_MS)

    def ceiling(self, tokenizer: Tokenizer) -> float:
        """Accuracy of real images that a tokenizer took apart and put together again."""
        made_NHWC = reconstructed(tokenizer, self.examples_NHWC)
        asked_NA = self.real_labels_NA[: len(made_NHWC)]
        names = [name for name, _ in self.labels.attributes]
        return attribute_accuracy(self.judged(made_NHWC), asked_NA, names)["accuracy"]

    def figures(self, images_NHWC: Tensor, labels_NA: Tensor) -> dict[str, float]:
        """Figures of generated images uint8 [N, H, W, C].

        Args:
            labels_NA: what each was asked to show; -1 for nothing.

        Returns:
            `accuracy` (and by attribute), `frechet` with `frechet_floor` (where there are at least
            64 images), `precision`, `recall`, `duplicates`, `nearest` (mean tokens apart).
        """
        names = [name for name, _ in self.labels.attributes]
        figures = attribute_accuracy(self.judged(images_NHWC), labels_NA, names)
        count = len(images_NHWC)
        if count >= FEATURES:
            made, real = self.features(images_NHWC), self.real_features_NF
            half = len(real) // 2
            size = min(count, half)
            figures["frechet"] = frechet_distance(made[:size], real[half:])
            figures["frechet_floor"] = frechet_distance(real[:size], real[half:])
            precision, recall = precision_recall(made[:size], real[half : half + size])
            figures |= {"precision": precision, "recall": recall}
        apart_N = self.distances(images_NHWC)
        limit = self.real_distance_N.double().quantile(0.01)
        figures["duplicates"] = float((apart_N < limit).double().mean())
        figures["nearest"] = float(apart_N.double().mean())
        return figures

    def _rows(self, images_NHWC: Tensor) -> list[slice]:
        return list(chunks(len(images_NHWC), 500))


@torch.no_grad()
def reconstructed(tokenizer: Tokenizer, images_NHWC: Tensor) -> Tensor:
    """uint8 images as the tokenizer brings them back."""
    parts = [
        to_bytes(tokenizer.decode(tokenizer.encode(from_bytes(images_NHWC[rows]))))
        for rows in chunks(len(images_NHWC), 250)
    ]
    return torch.cat(parts)


class JudgeRun:
    """Training of the classifier; the rest is worked out when it is written."""

    def __init__(self, images: ImageData, options: ImageTraining, *, seed: int) -> None:
        self.known, self.real = images.split(options.held_out)
        height, width, channels = images.shape
        self.model = Judge(
            images.labels,
            (height, width),
            channels=channels,
            patch=options.patch,
            codes=options.codes,
            real=len(self.real),
            known=len(self.known),
        )
        self.model.tokenizer.fit(from_bytes(self.known.images_NHWC), seed=seed)
        self.size, self.seed = options.batch, seed

    def batch(self, step: int, rank: int, world: int) -> tuple[Tensor, Tensor]:
        index = batches_of(
            len(self.known), self.size, seed=self.seed, step=step, rank=rank, world=world
        )
        return from_bytes(self.known.images_NHWC[index]), self.known.indices_NA[index]

    def losses(self, batch: tuple[Tensor, Tensor], step: int) -> dict[str, Tensor]:
        images_BCHW, labels_BA = batch
        return {"loss": self.model.classifier.loss(images_BCHW, labels_BA)}

    def validate(self) -> dict[str, float]:
        names = [name for name, _ in self.model.labels.attributes]
        judged = self.model.judged(self.real.images_NHWC)
        return attribute_accuracy(judged, self.real.indices_NA, names)

    def export(self, folder: Path, notes: Mapping[str, Any]) -> Path:
        self.model.look_at(self.known, self.real)
        return save_judge(self.model, folder / "model.safetensors", notes)


def save_judge(judge: Judge, path: Path, notes: Mapping[str, Any]) -> Path:
    """Write one safetensors file."""
    config = {
        "kind": KIND,
        "labels": judge.labels.attributes,
        "size": judge.classifier.size,
        "channels": judge.classifier.channels,
        "patch": judge.tokenizer.patch,
        "codes": judge.tokenizer.codes,
        "real": len(judge.real_features_NF),
        "known": len(judge.known_tokens_MS),
        "training": dict(notes),
    }
    return checkpoints.save(path, judge.state_dict(), config)


def load_judge(path: Path) -> Judge:
    """Load a judge that `seqgen train` wrote: a file, or its folder.

    Raises:
        CheckpointError: missing, damaged, of another kind, or not fitting.
    """
    fix = "train one: seqgen train --plugin images --preset judge"
    state, config = checkpoints.load_kind(path, KIND, what="a judge of images", fix=fix)
    with checkpoints.building(path):
        height, width = config["size"]
        judge = Judge(
            Labels.of(config["labels"]),
            (height, width),
            channels=config["channels"],
            patch=config["patch"],
            codes=config["codes"],
            real=config["real"],
            known=config["known"],
        )
    checkpoints.load_strict(judge, state, source=path)
    checkpoints.require_finite(judge, source=path)
    return judge.eval()
