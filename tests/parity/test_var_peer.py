"""Parity with the published VAR code run beside ours, on fresh random weights: `make peers`.

Its repository is given by VAR_SRC=path (var_reference.py).
"""

from __future__ import annotations

import secrets
from typing import Any

import pytest
import torch
import var_reference
from torch import Tensor
from var_reference import Published

from seqgen.canvas import Canvas
from seqgen.guidance import guided_context
from seqgen.training.objectives import teacher_states
from seqgen_images.decoding import DecodingConfig
from seqgen_images.official.var import VarModel, from_states, ramp

TOLERANCE = 1e-4
SMALLER = (1, 3, 4, 6)
KINDS: dict[str, dict[str, Any]] = {
    "as at 256 pixels": {},
    "as at 512 pixels": {"shared": True, "scales": SMALLER},
    "dot products": {"l2": False, "width": 192, "heads": 3},
    "other sizes": {"codes": 100, "latent": 16, "channels": 64, "depth": 3, "classes": 7},
}

pytestmark = pytest.mark.peer


@pytest.fixture(scope="module", params=KINDS)
def pair(request: pytest.FixtureRequest) -> tuple[Published, VarModel]:
    path = var_reference.source()
    if path is None:
        pytest.skip(f"no published VAR code: {var_reference.HOW}")
    seed = secrets.randbelow(10_000)
    print(f"seed {seed}")  # shown when a test fails
    theirs = var_reference.build(path, seed=seed, **KINDS[request.param])
    return theirs, from_states(*theirs.states())


def images_for(model: VarModel) -> Tensor:
    return torch.rand(3, 3, *model.size) * 2 - 1


@torch.no_grad()
def test_tokenizer(pair: tuple[Published, VarModel]) -> None:
    theirs, ours = pair
    images = images_for(ours)
    latent = theirs.vae.quant_conv(theirs.vae.encoder(images))
    torch.testing.assert_close(ours.tokenizer.latent(images), latent, atol=TOLERANCE, rtol=0)
    scales = theirs.vae.quantize.f_to_idxBl_or_fhat(latent, to_fhat=False)
    ids = torch.cat(scales, dim=1)
    assert torch.equal(ours.tokenizer.quantizer.encode(latent), ids)
    decoded = theirs.vae.idxBl_to_img(scales, same_shape=True, last_one=True)
    torch.testing.assert_close(ours.tokenizer.decode(ids), decoded, atol=TOLERANCE, rtol=0)


@torch.no_grad()
def test_teacher_logits(pair: tuple[Published, VarModel]) -> None:
    theirs, ours = pair
    labels = torch.tensor([0, 4, 2])
    ids = torch.randint(ours.config.vocabulary, (3, ours.tokenizer.slots))
    parts = [ids[:, start:end] for start, end in ours.tokenizer.quantizer.bounds]
    want = theirs.var(labels, theirs.vae.quantize.idxBl_to_var_input(parts))
    hidden, _ = teacher_states(
        ours.sequence, ids, order=ours.order(), context=ours.context(labels[:, None])
    )
    got = ours.sequence.head.logits(hidden)
    torch.testing.assert_close(got, want, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("cfg", [0.0, 1.5, 4.0])
def test_greedy_images(pair: tuple[Published, VarModel], cfg: float) -> None:
    theirs, ours = pair
    labels = torch.tensor([1, 3, 0])
    want = theirs.var.autoregressive_infer_cfg(3, labels, g_seed=0, cfg=cfg, top_k=1)
    context = guided_context(ours.context(labels[:, None]), ours.context(torch.full((3, 1), -1)))
    decoder = ours.decoder(DecodingConfig(temperature=0))
    done = decoder.generate(ours.guided(ramp(cfg)), ours.canvas(torch.zeros(3).long()), context)
    got = (ours.tokenizer.decode(done.values) + 1) / 2
    torch.testing.assert_close(got, want, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize(("top_k", "top_p"), [(900, 0.96), (900, 0.0), (0, 0.95), (3, 0.5)])
def test_filters(pair: tuple[Published, VarModel], top_k: int, top_p: float) -> None:
    """The same values are left, but for one whose fate hangs on the last digit of a sum."""
    theirs, ours = pair
    logits = 3 * torch.randn(2, 20, 4096)
    masked = logits.clone()
    theirs.filters(masked, top_k=top_k, top_p=top_p)
    options = DecodingConfig(top_k=top_k, top_p=top_p or 1.0)
    got, canvas, slots = logits, Canvas(torch.zeros(2, 20).long()), torch.arange(20)[None]
    for processor in ours.decoder(options).sampling.filters:
        got = processor(got, canvas, slots)
    assert (got.isfinite() != masked.isfinite()).sum(dim=-1).max() <= 1
    assert (got.isfinite() != masked.isfinite()).sum() <= 4
