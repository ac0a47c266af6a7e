"""The tokenizers around each quantizer, its configuration, and its checkpoints."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.core.image_tokenizers.avatars import avatars
from torch import nn

from seqgen import checkpoints
from seqgen.errors import ConfigError, InputError
from seqgen.tokenizers import (
    ConvTokenizer,
    FiniteScalarQuantizer,
    LookupFreeQuantizer,
    MultiScaleRVQ,
    PatchKMeans,
    PatchTokenizer,
    Tokenizer,
    VectorQuantizer,
    build_tokenizer,
    tokenizer_config,
)
from seqgen.tokenizers.config import LookupFreeConfig
from seqgen.tokenizers.measure import psnr, use_by_scale

SMALL = {"image_shape": (3, 8, 8), "width": 8, "depth": 1, "groups": 4}

AnyTokenizer = ConvTokenizer | PatchKMeans | PatchTokenizer

MAKERS: dict[str, Callable[[], AnyTokenizer]] = {
    "patch k-means": lambda: PatchKMeans(patch=2, codes=16, height=8, width=8),
    "patches, several scales": lambda: PatchTokenizer(
        MultiScaleRVQ((1, 2, 4), 16, 12), image_shape=(3, 8, 8)
    ),
    "patches, one scale": lambda: PatchTokenizer(VectorQuantizer(16, 12), image_shape=(3, 8, 8)),
    "vector": lambda: ConvTokenizer(VectorQuantizer(16, 4), **SMALL),
    "vector, l2": lambda: ConvTokenizer(
        VectorQuantizer(16, 4, grid=(4, 4), l2_normalised=True, decay=0.0), **SMALL
    ),
    "finite scalar": lambda: ConvTokenizer(FiniteScalarQuantizer((5, 4, 3)), **SMALL),
    "lookup free": lambda: ConvTokenizer(LookupFreeQuantizer(5), **SMALL),
    "spherical": lambda: ConvTokenizer(LookupFreeQuantizer(5, spherical=True), **SMALL),
    "multi-scale": lambda: ConvTokenizer(MultiScaleRVQ((1, 2, 4), 16, 4), **SMALL),
}


@pytest.fixture(params=list(MAKERS))
def tokenizer(request: pytest.FixtureRequest) -> AnyTokenizer:
    torch.manual_seed(0)
    made = MAKERS[request.param]()
    if not isinstance(made, ConvTokenizer):
        made.fit(torch.rand(16, 3, 8, 8) * 2 - 1)
        return made.eval()
    made.loss(torch.rand(16, 3, 8, 8) * 2 - 1)["loss"].backward()
    return made.eval()


def test_the_protocol(tokenizer: AnyTokenizer) -> None:
    as_protocol: Tokenizer = tokenizer
    images = torch.rand(3, 3, 8, 8) * 2 - 1
    ids = as_protocol.encode(images)
    assert ids.shape == (3, as_protocol.slots)
    assert ids.dtype == torch.int64
    assert ids.max() < as_protocol.vocabulary
    assert as_protocol.grid == (4, 4)
    assert as_protocol.image_shape == (3, 8, 8)
    decoded = as_protocol.decode(ids)
    assert decoded.shape == images.shape
    assert decoded.abs().max() <= 1
    everything = torch.ones_like(ids, dtype=torch.bool)
    assert torch.equal(as_protocol.decode_partial(ids, everything), decoded)
    half = torch.arange(as_protocol.slots).expand_as(ids) < as_protocol.slots // 2
    preview = as_protocol.decode_partial(ids.masked_fill(~half, 10**6), half)
    assert preview.isfinite().all()
    assert not torch.equal(preview, decoded)
    assert torch.equal(as_protocol.encode(images[1:2])[0], ids[1])
    with pytest.raises(InputError, match="do not fit"):
        as_protocol.encode(images[:, :, :4])
    with pytest.raises(InputError, match="tokens"):
        as_protocol.decode(ids[:, 1:])


def test_checkpoints_name_their_tokenizer(tokenizer: AnyTokenizer, tmp_path: Path) -> None:
    config = tokenizer_config(tokenizer)
    path = checkpoints.save(
        tmp_path / "model.safetensors", tokenizer.state_dict(), {"tokenizer": config}
    )
    state, read = checkpoints.load(path)
    again = build_tokenizer(read["tokenizer"]).eval()
    checkpoints.load_strict(again, state, source=path)
    assert tokenizer_config(again) == json.loads(json.dumps(config))
    images = torch.rand(3, 3, 8, 8) * 2 - 1
    ids = tokenizer.encode(images)
    assert torch.equal(again.encode(images), ids)
    assert torch.equal(again.decode(ids), tokenizer.decode(ids))


def changed(tokenizer: nn.Module, **values: Any) -> dict[str, Any]:
    return {**tokenizer_config(tokenizer), **values}


def test_configurations_that_cannot_be_built() -> None:
    conv = MAKERS["vector"]()
    with pytest.raises(ConfigError, match="did you mean 'patch-kmeans'"):
        build_tokenizer(changed(conv, kind="patch_kmeans"))
    with pytest.raises(ConfigError, match="unknown option 'wdith'"):
        build_tokenizer(changed(conv, wdith=3))
    with pytest.raises(ConfigError, match="kind of quantizer"):
        build_tokenizer(changed(conv, quantizer=None))
    missing = tokenizer_config(conv)
    del missing["depth"]
    with pytest.raises(ConfigError, match="'depth'"):
        build_tokenizer(missing)
    with pytest.raises(ConfigError, match="Linear"):
        tokenizer_config(nn.Linear(1, 1))


def test_shapes_that_do_not_fit() -> None:
    with pytest.raises(ConfigError, match="power of 2"):
        ConvTokenizer(VectorQuantizer(8, 4), downsample=3)
    with pytest.raises(ConfigError, match="groups"):
        ConvTokenizer(VectorQuantizer(8, 4), width=12)
    with pytest.raises(ConfigError, match=r"\(4, 4\)"):
        ConvTokenizer(MultiScaleRVQ((1, 2, 4), 8, 4))
    with pytest.raises(ConfigError, match="no square"):
        ConvTokenizer(VectorQuantizer(8, 4), image_shape=(3, 16, 32))
    with pytest.raises(ConfigError, match="15x16"):
        ConvTokenizer(VectorQuantizer(8, 4), image_shape=(3, 15, 16))


@pytest.mark.parametrize("downsample", [1, 2, 4, 8])
def test_downsampling_of_rectangles(downsample: int) -> None:
    grid = (8 // downsample, 16 // downsample)
    made = ConvTokenizer(
        VectorQuantizer(8, 4, grid=grid),
        image_shape=(1, 8, 16),
        downsample=downsample,
        width=8,
        depth=1,
    )
    assert made.grid == grid
    images = torch.rand(2, 1, 8, 16)
    made.loss(images)
    assert made.decode(made.encode(images)).shape == images.shape


def test_patches_that_do_not_fit() -> None:
    with pytest.raises(ConfigError, match="channels=12"):
        PatchTokenizer(MultiScaleRVQ((1, 2, 4, 8), 8, 4))
    with pytest.raises(ConfigError, match=r"\(8, 8\)"):
        PatchTokenizer(MultiScaleRVQ((1, 2, 4), 8, 12))
    with pytest.raises(ConfigError, match=r"\(8, 16\)"):
        PatchTokenizer(VectorQuantizer(8, 12), image_shape=(3, 16, 32))
    lattice = {"kind": "lookup-free", **vars(LookupFreeConfig(12, None, False, 1, 1, 1, 1, 4))}
    with pytest.raises(ConfigError, match="'vector' or 'multi-scale'"):
        build_tokenizer(
            {"kind": "patch", "patch": 2, "image_shape": [3, 16, 16], "quantizer": lattice}
        )


def test_residual_kmeans_on_avatars(shared_data: Path) -> None:
    """Without training: every scale adds to the picture, and coarse codes have not collapsed."""
    images, test = avatars(shared_data)
    quantizer = MultiScaleRVQ((1, 2, 4, 8), 512, 12)
    made = PatchTokenizer(quantizer).eval()
    made.fit(images[:1000])
    ids = made.encode(test)
    qualities = [float(psnr(made.image(quantizer.decode(ids, k)), test).mean()) for k in range(5)]
    uses = use_by_scale(ids, quantizer.bounds, quantizer.vocabulary)
    print([f"{quality:.2f} dB" for quality in qualities], uses)
    assert qualities == sorted(qualities)
    assert qualities[-1] > 22
    for use, least in zip(uses, (30, 90, 200, 350), strict=True):
        assert use.perplexity > least


def test_the_default_is_small() -> None:
    for quantizer in (VectorQuantizer(512, 8), MultiScaleRVQ((1, 2, 4, 8), 512, 8)):
        made = ConvTokenizer(quantizer)
        count = sum(parameter.numel() for parameter in made.parameters())
        assert 200_000 < count < 400_000
        assert made.grid == (8, 8)


def test_a_preview_has_the_mean_colour_where_nothing_is_known() -> None:
    torch.manual_seed(0)
    made = MAKERS["vector"]()
    assert isinstance(made, ConvTokenizer)
    images = torch.rand(16, 3, 8, 8) * 2 - 1
    made.loss(images)
    made.loss(images * 0.5)
    expected = images.mean(dim=(0, 2, 3)) * 0.75
    torch.testing.assert_close(made.mean_colour_C, expected)
    made.eval()
    made.loss(images)  # of evaluations nothing is kept
    ids = made.encode(images[:1])
    known = torch.zeros_like(ids, dtype=torch.bool)
    known[0, 5] = True  # row 1, column 1 of the tokens
    preview = made.decode_partial(ids, known)
    shown = torch.zeros(8, 8, dtype=torch.bool)
    shown[2:4, 2:4] = True
    torch.testing.assert_close(
        preview[0][:, ~shown], expected[:, None].expand(3, 60), atol=1e-6, rtol=0
    )
    assert not torch.allclose(preview[0][:, shown], expected[:, None])


def test_the_loss_is_reconstruction_and_quantizer() -> None:
    made = ConvTokenizer(VectorQuantizer(16, 4), **SMALL, l1=0.5, l2=2.0).eval()
    images = torch.rand(4, 3, 8, 8) * 2 - 1
    losses = made.loss(images)
    quantized = made.quantizer(made.latent(images))
    error = made.decoder(quantized.latent_BCHW) - images
    expected = 2 * error.square().mean() + 0.5 * error.abs().mean() + quantized.loss
    torch.testing.assert_close(losses["loss"], expected)


def train(made: ConvTokenizer, images: torch.Tensor, *, steps: int, lr: float, batch: int) -> None:
    optimizer = torch.optim.AdamW(made.parameters(), lr=lr, betas=(0.9, 0.98))
    made.train()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * min(1, (step + 1) / 20) * (1 - step / steps)
        made.loss(images[torch.randint(len(images), (batch,))])["loss"].backward()
        nn.utils.clip_grad_norm_(made.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    made.eval()


def test_a_few_images_are_learned() -> None:
    torch.manual_seed(0)
    images = torch.rand(8, 3, 8, 8).round() * 2 - 1
    images = images[:, :, ::4, ::4].repeat_interleave(4, 2).repeat_interleave(4, 3)
    made = ConvTokenizer(VectorQuantizer(32, 8), image_shape=(3, 8, 8), width=16, depth=1, groups=4)
    before = float(psnr(made.eval().decode(made.encode(images)), images).mean())
    train(made, images, steps=80, lr=1e-2, batch=8)
    after = float(psnr(made.decode(made.encode(images)), images).mean())
    print(f"{before:.1f} -> {after:.1f} dB")
    assert after > before + 8


@pytest.mark.slow
def test_avatars_one_scale(shared_data: Path) -> None:
    images, test = avatars(shared_data)
    torch.manual_seed(0)
    made = ConvTokenizer(VectorQuantizer(512, 8, decay=0.97))
    train(made, images, steps=300, lr=4e-3, batch=64)
    ids = made.encode(test)
    quality = float(psnr(made.decode(ids), test).mean())
    print(f"{quality:.2f} dB, {len(ids.unique())} codes")
    assert quality > 22.5
    assert len(ids.unique()) > 480


@pytest.mark.slow
def test_avatars_several_scales(shared_data: Path) -> None:
    """Every scale adds to the picture, and coarse scales keep many codes alive."""
    images, test = avatars(shared_data)
    torch.manual_seed(0)
    quantizer = MultiScaleRVQ((1, 2, 4, 8), 512, 8)
    made = ConvTokenizer(quantizer)
    train(made, images, steps=300, lr=4e-3, batch=64)
    ids = made.encode(test)
    qualities = [float(psnr(made.image(quantizer.decode(ids, k)), test).mean()) for k in range(5)]
    uses = use_by_scale(ids, quantizer.bounds, quantizer.vocabulary)
    print([f"{quality:.2f} dB" for quality in qualities], uses)
    assert qualities == sorted(qualities)
    assert qualities[-1] > 22.5
    for use, least in zip(uses, (8, 50, 150, 300), strict=True):
        assert use.perplexity > least
