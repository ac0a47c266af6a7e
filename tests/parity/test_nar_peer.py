"""Parity with the published code of NAR on fresh random weights: `make peers`.

Its repository is given by NAR_SRC=path (llamagen_reference.py).
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from llamagen_reference import Published
from test_llamagen_peer import build_pair, our_tokens

from seqgen.guidance import Guidance
from seqgen.training.objectives import teacher_states
from seqgen_images.official import nar
from seqgen_images.official.nar import NAR

SIZES: dict[str, dict[str, Any]] = {
    "small": {},
    "heads of 64": {"width": 256, "heads": 4, "layers": 3, "side": 6},
    "one head": {"heads": 1, "codes": 100, "classes": 12, "side": 3},
}

pytestmark = pytest.mark.peer


@pytest.fixture(scope="module", params=SIZES)
def pair(request: pytest.FixtureRequest) -> tuple[Published, NAR]:
    return build_pair("nar", nar.from_state, SIZES[request.param])


@torch.no_grad()
def test_teacher_logits(pair: tuple[Published, NAR]) -> None:
    """Of all tokens at once: right and below states averaged as in its training."""
    theirs, ours = pair
    labels, side = torch.tensor([0, 4, 2]), theirs.side
    tokens = torch.randint(ours.config.vocabulary, (3, side * side))
    for layer in theirs.gpt.layers:  # what an earlier `generate` left
        layer.attention.kv_cache = None
    theirs.gpt.setup_caches(3, 1 + side * side, torch.float32)
    for layer in theirs.gpt.layers:
        layer.attention.kv_cache = None
    slots = 1 + side * side
    mask = theirs.gpt.proximity_mask[:, :slots, :slots]
    want, _ = theirs.gpt(tokens, labels, input_pos=torch.arange(slots), mask=mask)
    ids = torch.cat([torch.zeros(3, 1).long(), tokens], dim=1)
    hidden, _ = teacher_states(
        ours.sequence, ids, order=ours.order(), context=ours.context(labels[:, None])
    )
    got = ours.sequence.head.logits(hidden)[:, -side * side :]
    torch.testing.assert_close(got, want, atol=1e-4, rtol=0)


@pytest.mark.parametrize("cfg", [1.0, 1.5, 4.0])
def test_greedy_tokens(pair: tuple[Published, NAR], cfg: float) -> None:
    theirs, ours = pair
    labels = torch.tensor([1, 3, 0])
    want = theirs.tokens(labels, cfg=cfg, sample_logits=False)
    guidance = None if cfg == 1 else Guidance(cfg)
    assert torch.equal(our_tokens(ours, labels, guidance), want)


@pytest.mark.parametrize("n", [0, 3, 8])
def test_guidance_interval(pair: tuple[Published, NAR], n: int) -> None:
    theirs, ours = pair
    labels = torch.tensor([1, 3])
    want = theirs.tokens(labels, cfg=5.0, cfg_interval=n, sample_logits=False)
    guidance = nar.interval(n, 5.0, theirs.side)
    assert torch.equal(our_tokens(ours, labels, guidance), want)
