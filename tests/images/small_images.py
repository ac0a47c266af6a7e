"""Image models of random weights, small enough to run in milliseconds, and pictures to read."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from seqgen.tokenizers import ConvTokenizer, MultiScaleRVQ, PatchKMeans, Tokenizer
from seqgen.transformer import TransformerConfig
from seqgen_images.labels import Labels
from seqgen_images.model import AvatarConfig, AvatarModel, Engine, save_image_model

LABELS = Labels(
    (("glasses", ("no", "yes")), ("hat", ("no", "yes")), ("hair", ("bald", "long", "short")))
)
SIDE = 8


def random_images(count: int, *, side: int = SIDE) -> Tensor:
    """Images in [-1, 1] [N, 3, H, W] of flat squares of four pixels."""
    generator = torch.Generator().manual_seed(0)
    small = torch.rand(count, 3, side // 2, side // 2, generator=generator)
    return small.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3) * 2 - 1


def random_tokenizer(engine: str) -> Tokenizer | None:
    if engine == "continuous":
        return None
    torch.manual_seed(0)
    if engine == "next-scale":
        quantizer = MultiScaleRVQ((1, 2, 4), 16, 4)
        made = ConvTokenizer(quantizer, image_shape=(3, SIDE, SIDE), downsample=2, width=8)
        made.initialise(random_images(32))
        return made.eval()
    kmeans = PatchKMeans(height=SIDE, width=SIDE, channels=3, patch=2, codes=24)
    kmeans.fit(random_images(32), seed=0)
    return kmeans


def random_model(engine: Engine, *, labels: Labels = LABELS) -> AvatarModel:
    tokenizer = random_tokenizer(engine)
    torch.manual_seed(1)
    config = AvatarConfig(
        engine=engine,
        height=SIDE,
        width=SIDE,
        labels=labels,
        transformer=TransformerConfig(width=16, layers=1, heads=2, axes=2),
        flow_hidden=16,
        flow_depth=1,
        flow_steps=2,
    )
    model = AvatarModel(config, tokenizer)
    if model.pixels is not None:
        model.pixels.fit(random_images(32))
    return model.eval()


def save_random(engine: Engine, path: Path) -> Path:
    return save_image_model(random_model(engine), path, {})


def save_random_judge(path: Path) -> Path:
    """An untrained judge that has looked at random images."""
    from seqgen_images.data import ImageData
    from seqgen_images.judge import Judge, save_judge
    from seqgen_images.pixels import to_bytes

    torch.manual_seed(2)
    images = to_bytes(random_images(200))
    sizes = [len(values) for _, values in LABELS.attributes]
    indices = torch.stack([torch.randint(0, size, (200,)) for size in sizes], dim=1)
    data = ImageData(images, LABELS, indices)
    known, real = data.split(20)
    judge = Judge(LABELS, (SIDE, SIDE), codes=24, real=len(real), known=len(known)).eval()
    judge.tokenizer.fit(random_images(32))
    judge.look_at(known, real)
    return save_judge(judge, path, {})
