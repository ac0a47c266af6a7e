"""Compiled decoding gives the same tokens, for any length, and keeps models apart."""

from __future__ import annotations

import copy
import shutil

import pytest
import torch
from small_models import canvas_of, random_prompts, small_model

from seqgen.cache import Cache
from seqgen.compiled import MOST_SHAPES, CompiledPass, compiled
from seqgen.decoders import Autoregressive, BlockDiffusion, Speculative
from seqgen.decoders.base import Decoder
from seqgen.errors import ConfigError
from seqgen.logits import Sampling
from seqgen.model import SequenceModel
from seqgen.models.qwen3 import Qwen3Config
from seqgen.models.qwen3_write import new_qwen3

needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None, reason="torch.compile needs a C++ compiler"
)


def causal_model(seed: int, *, eps: float = 1e-6, mask_id: int | None = None) -> SequenceModel:
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocabulary=30, width=16, hidden=24, layers=1, heads=2, kv_heads=1, head_width=8,
        rope_theta=1e4, norm_eps=eps, tied=False, max_positions=256, mask_id=mask_id,
        block_length=4,
    )  # fmt: skip
    return new_qwen3(config).eval()


def check_equal(decoder: Decoder, model: SequenceModel, fused: SequenceModel, new: int) -> None:
    prompts = random_prompts(0, [5, 5])
    want = decoder.generate(model, canvas_of(prompts, new))
    got = decoder.generate(fused, canvas_of(prompts, new))
    assert got.sequences() == want.sequences()
    torch.testing.assert_close(got.confidence_BS, want.confidence_BS, atol=1e-5, rtol=1e-4)


@needs_compiler
def test_same_tokens() -> None:
    model = causal_model(0)
    check_equal(Autoregressive(), model, compiled(copy.deepcopy(model)), 9)


@needs_compiler
@pytest.mark.slow
def test_same_tokens_of_two_models_and_lengths() -> None:
    """Models of one shape differ in what is no input of the compiled function (epsilon)."""
    models = [causal_model(0), causal_model(1, eps=0.5)]
    fused = [compiled(copy.deepcopy(model)) for model in models]
    for new in (7, 30):
        for model, other in zip(models, fused, strict=True):
            check_equal(Autoregressive(), model, other, new)
    # Changed weights count.
    for model in (models[0], fused[0]):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1.5)
    check_equal(Autoregressive(), models[0], fused[0], 9)


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize(
    "decoder",
    [
        BlockDiffusion(block_length=4, remasking="low_confidence_static"),
        BlockDiffusion(block_length=8, threshold=0.3, stop_ids=(3,)),
        BlockDiffusion(block_length=2, sampling=Sampling(temperature=1.0)),
    ],
)
def test_blocks(decoder: Decoder) -> None:
    model = causal_model(0, mask_id=29)
    fused = compiled(copy.deepcopy(model))
    for new in (11, 40):
        check_equal(decoder, model, fused, new)


@needs_compiler
@pytest.mark.slow
def test_masked_passes_and_ragged_rows_run_as_ever() -> None:
    model = causal_model(0)
    fused = compiled(copy.deepcopy(model))
    check_equal(Speculative(), model, fused, 20)
    prompts = random_prompts(0, [3, 7, 1])
    want = Autoregressive().generate(model, canvas_of(prompts, 15)).sequences()
    assert Autoregressive().generate(fused, canvas_of(prompts, 15)).sequences() == want


def test_which_passes_are_taken() -> None:
    def forward(*_: object) -> torch.Tensor:
        raise AssertionError("nothing is run here")

    run = CompiledPass(forward, on_gpu=False)
    cache = Cache(layers=1, batch=1, capacity=8, heads=1, head_width=2)
    assert not run.takes(torch.zeros(1, 1, 4), cache)  # nothing is cached
    cache.begin(torch.arange(3)[None], None)
    assert not run.takes(torch.zeros(1, 3, 4), cache)  # gradients may be asked for
    with torch.inference_mode():
        assert run.takes(torch.zeros(1, 3, 4), cache)
        for batch in range(2, MOST_SHAPES + 1):
            assert run.takes(torch.zeros(batch, 3, 4), cache)
        assert not run.takes(torch.zeros(MOST_SHAPES + 1, 3, 4), cache)
        assert run.takes(torch.zeros(1, 3, 4), cache)
        cache.settle(3, torch.tensor([2]))
        cache.begin(torch.arange(3)[None], None)
        assert not run.takes(torch.zeros(1, 3, 4), cache)  # rows differ


def test_what_cannot_be_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="cross-attention"):
        compiled(small_model(cross=True))
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(ConfigError, match=r"no C\+\+ compiler"):
        compiled(causal_model(0))
