"""VAR: the published numbers, the core's promises, sizes and sampling as published."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.images.official_var import (
    SIZES,
    generated,
    golden,
    published_shapes,
    ruled,
    tiny,
    tiny_config,
)
from torch import Tensor

from seqgen.adaln_transformer import AdaLNTransformerConfig
from seqgen.canvas import Canvas
from seqgen.guidance import Guidance
from seqgen.logits import LogitsProcessor, TopK, TopP
from seqgen.training.objectives import teacher_forcing, teacher_states
from seqgen_images.decoding import DecodingConfig
from seqgen_images.official.var import VarModel, ramp
from seqgen_images.official.var_keys import SCALES, VarConfig
from seqgen_images.official.var_vqvae import VQVAEConfig

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def model() -> VarModel:
    return tiny()


@pytest.fixture(scope="module", params=["copy", "shared"])
def saved(request: pytest.FixtureRequest) -> dict[str, np.ndarray]:
    if request.param == "copy":
        return golden()
    return golden(request.getfixturevalue("shared_data") / "images" / "golden")


def near(got: Tensor, want: np.ndarray) -> bool:
    return bool((got - torch.from_numpy(want)).abs().max() < TOLERANCE)


def test_the_copy_is_of_the_shared_file(shared_data: Path) -> None:
    copy, original = golden(), golden(shared_data / "images" / "golden")
    assert copy.keys() == original.keys()
    for name, values in original.items():
        np.testing.assert_array_equal(values, copy[name])


def test_names_and_inputs_follow_the_rules(shared_data: Path) -> None:
    with np.load(shared_data / "images" / "golden" / "var_tiny.npz") as file:
        for kind, shapes in zip(
            ("var", "vae"), published_shapes(tiny_config(), SIZES), strict=True
        ):
            assert sorted(shapes) == file[f"{kind}_keys"].tolist()
        np.testing.assert_array_equal(ruled(2, 3, 64, 64), file["image"])
        np.testing.assert_array_equal(ruled(2, 8, 4, 4, amplitude=2), file["fq"])


@torch.no_grad()
def test_published_tokenizer(model: VarModel, saved: dict[str, np.ndarray]) -> None:
    image, ids = ruled(2, 3, 64, 64), torch.from_numpy(saved["idx"])
    assert near(model.tokenizer.latent(image), saved["encoded"])
    assert torch.equal(model.tokenizer.encode(image), ids)
    assert near(model.tokenizer.quantizer.inputs(ids), saved["var_input"])
    assert near(model.tokenizer.decode(ids)[:, :, ::2, ::2], saved["reconstruction"])


@torch.no_grad()
def test_published_quantizer(model: VarModel, saved: dict[str, np.ndarray]) -> None:
    quantizer = model.tokenizer.quantizer
    ids = quantizer.encode(ruled(2, 8, 4, 4, amplitude=2))
    assert torch.equal(ids, torch.from_numpy(saved["fq_idx"]))
    assert near(quantizer.decode(ids), saved["fq_fhat"])


@torch.no_grad()
def test_published_logits(model: VarModel, saved: dict[str, np.ndarray]) -> None:
    ids, labels = torch.from_numpy(saved["idx"]), torch.from_numpy(saved["labels"])
    assert near(one_pass(model, ids, labels), saved["logits"])


@pytest.mark.parametrize("cached", [True, False])
def test_published_greedy_image(
    model: VarModel, saved: dict[str, np.ndarray], cached: bool
) -> None:
    """Guidance 1.5, that is 1 to 2.5 over the scales."""
    options = DecodingConfig(temperature=0, cached=cached)
    labels = torch.from_numpy(saved["labels"])
    ids, _ = generated(model, labels, guidance=ramp(1.5), options=options)
    image = model.tokenizer.decode(ids)[:, :, ::2, ::2]
    assert near((image + 1) / 2, saved["greedy_cfg15"])


def one_pass(model: VarModel, ids: Tensor, labels: Tensor) -> Tensor:
    hidden, first = teacher_states(
        model.sequence, ids, order=model.order(), context=model.context(labels[:, None])
    )
    assert first == 0
    logits: Tensor = model.sequence.head.logits(hidden)
    return logits


@torch.no_grad()
def test_decode_logits_are_those_of_one_pass(model: VarModel) -> None:
    labels = torch.tensor([0, 4])
    ids, confidence = generated(model, labels)
    chosen = one_pass(model, ids, labels).softmax(dim=-1)
    torch.testing.assert_close(
        confidence, chosen.gather(-1, ids[..., None]).squeeze(-1), atol=1e-5, rtol=0
    )


def test_guided_decode_logits_are_those_of_two_passes(model: VarModel) -> None:
    labels, null = torch.tensor([2, 3]), torch.tensor([-1, -1])
    ids, confidence = generated(model, labels, guidance=ramp(1.5))
    with torch.no_grad():
        given, without = one_pass(model, ids, labels), one_pass(model, ids, null)
    for scale, (start, end) in enumerate(model.tokenizer.quantizer.bounds):
        t = 1.5 * scale / 3
        logits = (1 + t) * given[:, start:end] - t * without[:, start:end]
        chosen = logits.softmax(dim=-1).gather(-1, ids[:, start:end, None]).squeeze(-1)
        torch.testing.assert_close(confidence[:, start:end], chosen, atol=1e-5, rtol=0)


@pytest.mark.parametrize("guidance", [None, ramp(1.5)])
def test_a_seed_gives_the_same_image_in_any_batch(
    model: VarModel, guidance: Guidance | None
) -> None:
    labels, seeds = torch.tensor([3, 1, 3]), torch.tensor([11, 12, 13])
    runs = [
        generated(
            model,
            labels[rows],
            guidance=guidance,
            seeds_B=seeds[rows],
            options=DecodingConfig(top_k=30, top_p=0.9, cached=cached),
        )[0]
        for rows, cached in ((slice(0, 3), True), (slice(2, 3), True), (slice(0, 3), False))
    ]
    assert torch.equal(runs[0][2:], runs[1])
    assert torch.equal(runs[0], runs[2])
    assert not torch.equal(runs[0][0], runs[0][2])


def test_ramp_is_the_published_guidance() -> None:
    assert [ramp(4)(k, 10) for k in (0, 3, 9)] == pytest.approx([1, 1 + 4 / 3, 5])


def published_top_k(logits: Tensor, k: int) -> Tensor:
    return logits >= logits.sort(dim=-1).values[..., -k, None]


def published_top_p(logits: Tensor, p: float) -> Tensor:
    """Without the values whose ascending cumulative mass is at most 1 - p; the best one stays."""
    ascending, indices = logits.double().sort(dim=-1)
    kept = ascending.softmax(dim=-1).cumsum(dim=-1) > 1 - p
    kept[..., -1] = True
    return torch.zeros_like(kept).scatter(-1, indices, kept)


@pytest.mark.parametrize(
    ("processor", "published"),
    [
        (TopK(900), lambda logits: published_top_k(logits, 900)),
        (TopP(0.96), lambda logits: published_top_p(logits, 0.96)),
        (TopP(0.05), lambda logits: published_top_p(logits, 0.05)),
    ],
)
def test_filters_are_the_published_ones(
    processor: LogitsProcessor, published: Callable[[Tensor], Tensor]
) -> None:
    logits = 3 * torch.randn(2, 5, 1500, generator=torch.Generator().manual_seed(0))
    kept = processor(logits, Canvas(torch.zeros(2, 5).long()), torch.arange(5)[None]).isfinite()
    assert (kept != published(logits)).sum() <= 1  # rounding may decide the last one otherwise


def test_filters_come_in_the_published_sequence() -> None:
    kinds = [type(f) for f in DecodingConfig(top_k=900, top_p=0.96).sampling().filters]
    assert kinds == [TopK, TopP]


def test_published_sizes() -> None:
    """var_d16.pth and vae_ch160v4096z32.pth: names and numbers of parameters."""
    transformer = AdaLNTransformerConfig(
        width=1024, layers=16, heads=16, qk="l2", learned_scale=True, bias="qv"
    )
    vae = VQVAEConfig(SCALES[0], codes=4096, latent=32, first=160, widths=(160, 160, 320, 320, 640))
    shapes = published_shapes(VarConfig(transformer, 1000, 4096, SCALES[0], 32), vae)
    buffers = (2 + 16, 1)  # lvl_1L, attn_bias_for_masking, zero_k_bias; ema_vocab_hit_SV
    assert [len(found) + n for found, n in zip(shapes, buffers, strict=True)] == [220, 324]
    numbers = [sum(math.prod(shape) for shape in found.values()) for found in shapes]
    assert numbers == [310_283_520, 108_948_355]


def test_known_pixels_stay(model: VarModel) -> None:
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    known = torch.zeros(2, 64, 64, dtype=torch.bool)
    known[0, :, :40] = True
    known[1] = True
    canvas = model.canvas(torch.arange(2), images_BCHW=images, known_BHW=known)
    given = canvas.state_BS[0].bool()
    assert [int(part.sum()) for part in given.split([1, 4, 9, 16])] == [1, 2, 6, 8]
    assert canvas.state_BS[1].all()
    before = canvas.values.clone()
    context = model.context(torch.tensor([[1], [2]]))
    done = model.decoder(DecodingConfig()).generate(model.sequence, canvas, context)
    assert torch.equal(done.values[0][given], before[0][given])
    assert torch.equal(done.values[1], before[1])
    images = model.images(done.values, known_BS=canvas.state_BS.bool())
    assert (images.shape, images.dtype) == ((2, 64, 64, 3), torch.uint8)
    assert torch.equal(images, model.images(done.values))


def test_no_class_is_the_last_row(model: VarModel) -> None:
    context = model.context(torch.tensor([[-1], [0]]))
    assert torch.equal(context.condition_BD, model.classes.weight[torch.tensor([5, 0])])
    assert model.labels.parse("3") == (3,)


def test_it_can_be_trained_on(model: VarModel) -> None:
    """Teacher forcing reaches every weight of the transformer and none of the tokenizer."""
    own = tiny()
    own.requires_grad_(True).train()
    ids = torch.randint(64, (3, 30), generator=torch.Generator().manual_seed(0))
    context = own.context(torch.tensor([[0], [1], [-1]]))
    teacher_forcing(own.sequence, ids, order=own.order(), context=context).backward()
    for name, parameter in own.named_parameters():
        assert (parameter.grad is None) == name.startswith("tokenizer."), name
    qkv = own.sequence.backbone.blocks[0].attention.qkv
    assert not qkv.bias.grad[64:128].any()
    assert qkv.bias.grad[:64].any()
