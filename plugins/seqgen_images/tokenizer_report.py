"""Which tokenizer keeps most of an image: `seqgen bench --plugin images --tokenizers`.

The idea of VTBench: not only how near the pixels are, but whether what matters in
a picture can still be seen. Here a classifier says whether the attributes survive.

Shapes: N images, H, W, C of one, S tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from seqgen.errors import InputError
from seqgen.model import parameter_count
from seqgen.tokenizers import MultiScaleRVQ, Tokenizer
from seqgen.tokenizers.measure import code_use, perplexity, psnr, ssim, use_by_scale
from seqgen_images.data import chunks, load_images
from seqgen_images.figures import labelled_rows
from seqgen_images.grids import Bytes, grid
from seqgen_images.judge import Judge, reconstructed
from seqgen_images.metrics import attribute_accuracy
from seqgen_images.pixels import from_bytes
from seqgen_images.tokenizer_training import load_tokenizer

if TYPE_CHECKING:
    from seqgen_images.family import ImageFamily

SHOWN = 12


def gathered(
    family: ImageFamily, judge: Judge, sources: Sequence[str]
) -> tuple[dict[str, Tokenizer], Tensor, Tensor]:
    """The tokenizers to rank, and images with labels to try them on.

    Tokenizers are those of the family's models and beside them, and checkpoints in `sources`. The
    images are the judge's examples, or those of an npz in `sources` (its last 1000).

    Raises:
        InputError: a source is neither.
        CheckpointError: a tokenizer cannot be loaded.
    """
    images, labels_NA = judge.examples_NHWC, judge.real_labels_NA[: len(judge.examples_NHWC)].long()
    found: dict[str, Tokenizer] = {"patch-kmeans": judge.tokenizer}
    found |= {name: load_tokenizer(path) for name, path in sorted(family.ranked.items())}
    for engine, tokenizer in family.tokenizers.items():
        if not any(_alike(tokenizer, other, images) for other in found.values()):
            found[engine] = tokenizer
    for source in map(Path, sources):
        if source.suffix == ".npz":
            columns = [name for name, _ in judge.labels.attributes]
            data = load_images(source, columns=columns).split(1000)[1]
            if data.labels != judge.labels or data.shape[:2] != judge.classifier.size:
                raise InputError(f"{source} has other images or labels than the judge knows")
            images, labels_NA = data.images_NHWC, data.indices_NA
        elif source.is_dir() or source.suffix == ".safetensors":
            found[source.stem] = load_tokenizer(source)
        else:
            raise InputError(
                f"{source} is no tokenizer and holds no images",
                fix="name the folder of a trained tokenizer, or an npz of images",
            )
    return found, images, labels_NA


@torch.no_grad()
def _alike(one: Tokenizer, other: Tokenizer, images_NHWC: Tensor) -> bool:
    """Whether two tokenizers are the same, up to the precision they were written in."""
    if (one.slots, one.vocabulary) != (other.slots, other.vocabulary):
        return False
    images = from_bytes(images_NHWC[:50])
    return float((one.encode(images) == other.encode(images)).double().mean()) > 0.9


def rank_tokenizers(
    tokenizers: Mapping[str, Tokenizer], images_NHWC: Tensor, judge: Judge, labels_NA: Tensor
) -> list[dict[str, Any]]:
    """A row a tokenizer, the best PSNR first; the first row is the images themselves.

    Args:
        images_NHWC: uint8 images that no tokenizer was trained on.
        labels_NA: the attributes of each.

    Returns:
        Rows with `tokenizer`, `tokens` an image, `codes`, `parameters`, `psnr` in dB, `ssim`,
        `code_use` (part of the codes that occur), `perplexity`, `accuracy` of the judge (by
        attribute too), and `by_scale`: code use of every scale.
    """
    names = [name for name, _ in judge.labels.attributes]
    real = {
        "tokenizer": "(the images)",
        **attribute_accuracy(judge.judged(images_NHWC), labels_NA, names),
    }
    rows = [
        _row(name, tokenizer, images_NHWC, judge, labels_NA, names)
        for name, tokenizer in tokenizers.items()
    ]
    return [real, *sorted(rows, key=lambda row: -row["psnr"])]


def report_picture(
    tokenizers: Mapping[str, Tokenizer],
    rows: Sequence[Mapping[str, Any]],
    images_NHWC: Tensor,
    format: str,
) -> bytes:
    """The images and, below, what each tokenizer makes of them."""
    shown = images_NHWC[:SHOWN]
    sheets: dict[str, Bytes | None] = {}
    for row in rows:
        name = row["tokenizer"]
        made = reconstructed(tokenizers[name], shown) if name in tokenizers else shown
        label = name if "psnr" not in row else f"{name}\n{row['psnr']:.1f} dB"
        label += f"\naccuracy {row['accuracy']:.3f}"
        sheets[label] = grid(list(made.numpy()), scale=6, columns=len(shown))
    return labelled_rows(sheets, format, columns=len(shown), margin=2.5)


def _row(
    name: str,
    tokenizer: Tokenizer,
    images_NHWC: Tensor,
    judge: Judge,
    labels_NA: Tensor,
    names: list[str],
) -> dict[str, Any]:
    made_NHWC = reconstructed(tokenizer, images_NHWC)
    made, real = from_bytes(made_NHWC), from_bytes(images_NHWC)
    ids_NS = _ids(tokenizer, images_NHWC)
    row: dict[str, Any] = {
        "tokenizer": name,
        "tokens": tokenizer.slots,
        "codes": tokenizer.vocabulary,
        "parameters": parameter_count(tokenizer) if isinstance(tokenizer, nn.Module) else 0,
        "psnr": float(psnr(made, real).mean()),
        "ssim": float(ssim(made, real).mean()),
        "code_use": code_use(ids_NS, tokenizer.vocabulary),
        "perplexity": perplexity(ids_NS, tokenizer.vocabulary),
        **attribute_accuracy(judge.judged(made_NHWC), labels_NA, names),
    }
    quantizer = getattr(tokenizer, "quantizer", None)
    if isinstance(quantizer, MultiScaleRVQ):
        uses = use_by_scale(ids_NS, quantizer.bounds, tokenizer.vocabulary)
        row["by_scale"] = [
            {"side": side, "codes": use.codes, "perplexity": use.perplexity}
            for side, use in zip(quantizer.scales, uses, strict=True)
        ]
    return row


@torch.no_grad()
def _ids(tokenizer: Tokenizer, images_NHWC: Tensor) -> Tensor:
    parts = [
        tokenizer.encode(from_bytes(images_NHWC[rows])) for rows in chunks(len(images_NHWC), 250)
    ]
    return torch.cat(parts)
