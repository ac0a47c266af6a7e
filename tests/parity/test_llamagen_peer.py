"""Parity with the published code of LlamaGen and NAR on fresh random weights: `make peers`.

Their repositories are given by LLAMAGEN_SRC=path and NAR_SRC=path (llamagen_reference.py).
"""

from __future__ import annotations

import secrets
from typing import Any

import llamagen_reference
import pytest
import torch
from llamagen_reference import Published

from seqgen.guidance import Guidance, guided_context
from seqgen.training.objectives import teacher_states
from seqgen_images.decoding import DecodingConfig
from seqgen_images.official import llamagen
from seqgen_images.official.llamagen import LlamaGen, interval
from seqgen_images.official.llamagen_vq import tokenizer_from_state

TOLERANCE = 1e-4
SIZES: dict[str, dict[str, Any]] = {
    "small": {},
    "heads of 64": {"width": 256, "heads": 4, "layers": 3, "side": 6},
    "one head": {"heads": 1, "codes": 100, "classes": 12, "side": 3},
}

pytestmark = pytest.mark.peer


@pytest.fixture(scope="module", params=SIZES)
def pair(request: pytest.FixtureRequest) -> tuple[Published, LlamaGen]:
    return build_pair("llamagen", llamagen.from_state, SIZES[request.param])


def build_pair(kind: str, load: Any, sizes: dict[str, Any]) -> tuple[Published, Any]:
    path = llamagen_reference.source(kind)
    if path is None:
        pytest.skip(f"no published code of {kind}: {llamagen_reference.HOW[kind]}")
    seed = secrets.randbelow(10_000)
    print(f"seed {seed}")  # shown when a test fails
    theirs = llamagen_reference.build(path, seed=seed, **sizes)
    ours = load(theirs.gpt.state_dict(), side=theirs.side, heads=theirs.gpt.config.n_head)
    return theirs, ours


def our_tokens(
    model: LlamaGen, labels: torch.Tensor, guidance: Guidance | None, **options: Any
) -> torch.Tensor:
    context, sequence = model.context(labels[:, None]), model.sequence
    if guidance is not None:
        null = model.context(torch.full_like(labels[:, None], -1))
        context, sequence = guided_context(context, null), model.guided(guidance)
    canvas = model.canvas(torch.zeros(len(labels)).long())
    decoder = model.decoder(DecodingConfig(temperature=0, **options))
    return decoder.generate(sequence, canvas, context).values[:, model.prefix :]


@torch.no_grad()
def test_teacher_logits(pair: tuple[Published, LlamaGen]) -> None:
    theirs, ours = pair
    labels = torch.tensor([0, 4, 2])
    tokens = torch.randint(ours.config.vocabulary, (3, theirs.side**2))
    theirs.gpt.freqs_cis = theirs.gpt.freqs_cis.cpu()
    for layer in theirs.gpt.layers:  # what an earlier `generate` left
        layer.attention.kv_cache = None
    positions = torch.arange(tokens.shape[1])
    causal = torch.ones(len(positions), len(positions), dtype=torch.bool).tril()[None, None]
    want, _ = theirs.gpt(tokens[:, :-1], labels, input_pos=positions, mask=causal)
    hidden, _ = teacher_states(
        ours.sequence, tokens, order=ours.order(), context=ours.context(labels[:, None])
    )
    torch.testing.assert_close(ours.sequence.head.logits(hidden), want, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("cfg", [1.0, 1.5, 4.0])
def test_greedy_tokens(pair: tuple[Published, LlamaGen], cfg: float) -> None:
    theirs, ours = pair
    labels = torch.tensor([1, 3, 0])
    want = theirs.tokens(labels, cfg=cfg, sample_logits=False)
    guidance = None if cfg == 1 else Guidance(cfg)
    assert torch.equal(our_tokens(ours, labels, guidance), want)


@pytest.mark.parametrize("n", [0, 3, 8])
def test_guidance_interval(pair: tuple[Published, LlamaGen], n: int) -> None:
    theirs, ours = pair
    labels = torch.tensor([1, 3])
    want = theirs.tokens(labels, cfg=5.0, cfg_interval=n, sample_logits=False)
    assert torch.equal(our_tokens(ours, labels, interval(n, 5.0)), want)


@pytest.mark.parametrize("levels", [(1, 1, 2), (1, 2, 2, 4)])
@torch.no_grad()
def test_tokenizer(levels: tuple[int, ...]) -> None:
    path = llamagen_reference.source("llamagen")
    if path is None:
        pytest.skip(f"no published code of llamagen: {llamagen_reference.HOW['llamagen']}")
    seed = secrets.randbelow(10_000)
    print(f"seed {seed}")
    theirs = llamagen_reference.build_tokenizer(path, seed=seed, channels=32, levels=levels)
    ours = tokenizer_from_state(theirs.state_dict(), size=32)
    images = torch.rand(3, 3, 32, 32) * 2 - 1
    latent = theirs.quant_conv(theirs.encoder(images))
    torch.testing.assert_close(ours.latent(images), latent, atol=TOLERANCE, rtol=0)
    noise = torch.randn_like(latent)
    _, _, (_, _, ids) = theirs.quantize(noise)
    assert torch.equal(ours.nearest(noise).flatten(), ids)
    ids = ids.view(3, -1)
    decoded = theirs.decode_code(ids, latent.shape)
    torch.testing.assert_close(ours.decode(ids), decoded, atol=TOLERANCE, rtol=0)
