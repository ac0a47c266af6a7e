"""Compiled decoding gives the same tokens, for any length, and keeps models apart."""

from __future__ import annotations

import copy
import shutil
from functools import partial

import pytest
import torch
from small_models import WIDTH, canvas_of, random_prompts, small_model

from seqgen.cache import Cache
from seqgen.compiled import MOST_SHAPES, MOST_WEIGHTS, compiled
from seqgen.constraints import Automaton
from seqgen.decoders import Autoregressive, BlockDiffusion, Speculative
from seqgen.decoders.base import Decoder
from seqgen.errors import ConfigError
from seqgen.linear import quantize
from seqgen.logits import Sampling
from seqgen.model import SequenceModel
from seqgen.models.qwen3 import Qwen3Config
from seqgen.models.qwen3_write import new_qwen3
from seqgen.transformer import Transformer, TransformerConfig

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


@pytest.fixture
def not_fused(monkeypatch: pytest.MonkeyPatch) -> None:
    """What would be compiled runs as it is: what is asked of it is the same."""
    monkeypatch.setattr(torch, "compile", lambda step, **_: step)


@pytest.mark.usefixtures("not_fused")
@pytest.mark.parametrize(
    ("decoder", "passes"),
    [
        (Autoregressive(), {(2, 1, 0, (), "greedy")}),
        (Autoregressive(sampling=Sampling(temperature=0.7)), {(2, 1, 0, (), "logits")}),
        (
            Autoregressive(constraint=Automaton.banning([3, 4], vocabulary=30)),
            {(2, 1, 0, (), "hidden")},
        ),
        (
            BlockDiffusion(block_length=4, threshold=1.0),
            {(2, 4, 0, (), "greedy"), (2, 8, 4, ((4, 4), (8, 0)), "greedy")},
        ),
        (BlockDiffusion(block_length=80, threshold=1.0), set()),  # wider than pays
        (Autoregressive(cached=False), set()),
        (Speculative(), set()),
    ],
)
def test_which_passes_are_taken(decoder: Decoder, passes: set[tuple[object, ...]]) -> None:
    shifted = not isinstance(decoder, BlockDiffusion)
    model = causal_model(0, mask_id=None if shifted else 29)
    fused = compiled(copy.deepcopy(model))
    check_equal(decoder, model, fused, 15)
    assert fused.compiled is not None
    assert {key[:5] for key in fused.compiled._steps} == passes
    assert copy.deepcopy(fused).compiled is None


@pytest.mark.usefixtures("not_fused")
def test_how_many_passes_are_taken() -> None:
    model = causal_model(0)
    fused = compiled(copy.deepcopy(model))
    assert fused.compiled is not None
    for batch in range(1, MOST_SHAPES + 3):
        prompts = random_prompts(batch, [5] * batch)
        want = Autoregressive().generate(model, canvas_of(prompts, 4))
        assert torch.equal(
            Autoregressive().generate(fused, canvas_of(prompts, 4)).values, want.values
        )
    assert len(fused.compiled._steps) == MOST_SHAPES


@pytest.mark.usefixtures("not_fused")
def test_parts_that_came_later_run_as_ever() -> None:
    model = causal_model(0)
    fused = compiled(copy.deepcopy(model))
    assert fused.compiled is not None
    steps = fused.compiled._steps
    check_equal(Autoregressive(), model, fused, 6)
    for one in (model, fused):
        one.head = causal_model(1).head
    check_equal(Autoregressive(), model, fused, 6)
    assert {key[4] for key in steps} == {"greedy", "hidden"}
    for one in (model, fused):
        one.inputs = causal_model(2).inputs
    steps.clear()
    check_equal(Autoregressive(), model, fused, 6)
    assert not steps


@needs_compiler
@pytest.mark.slow
def test_models_of_different_heads_in_one_process() -> None:
    """Sizes that differ between models must not become variables of what is compiled."""
    for kv_heads in (2, 4):
        model = small_model(shifted=True, layers=1)
        model.backbone = Transformer(
            TransformerConfig(width=WIDTH, layers=1, heads=4, kv_heads=kv_heads)
        ).eval()
        check_equal(Autoregressive(), model, compiled(copy.deepcopy(model)), 6)


@needs_compiler
@pytest.mark.slow
def test_dropout_of_training_is_not_kept() -> None:
    torch.manual_seed(0)
    model = small_model(shifted=True, layers=1)
    model.backbone = Transformer(
        TransformerConfig(width=WIDTH, layers=1, heads=2, dropout=0.5)
    ).eval()
    fused = compiled(copy.deepcopy(model)).train()
    Autoregressive().generate(fused, canvas_of(random_prompts(0, [5, 5]), 4))
    check_equal(Autoregressive(), model, fused.eval(), 9)


@pytest.mark.usefixtures("not_fused")
def test_passes_under_autocast_are_not_taken() -> None:
    fused = compiled(causal_model(0))
    assert fused.compiled is not None
    with torch.autocast("cpu", torch.bfloat16):
        Autoregressive().generate(fused, canvas_of(random_prompts(0, [5, 5]), 4))
    assert not fused.compiled._steps


def test_large_models_run_as_ever() -> None:
    model = compiled(causal_model(0))
    assert model.compiled is not None
    cache = Cache(layers=1, batch=1, capacity=9, heads=1, head_width=2)
    takes = partial(model.compiled._takes, 1, 2, cache)
    assert not takes()  # gradients may be asked for
    with torch.inference_mode():
        assert takes()
        model.compiled._weights = MOST_WEIGHTS
        assert not takes()
        model.compiled._weights = MOST_WEIGHTS // 2
        assert takes()
        assert not model.compiled._takes(64, 1, cache)


def test_what_cannot_be_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="cross-attention"):
        compiled(small_model(cross=True))
    small = causal_model(0)
    quantize(small)
    with pytest.raises(ConfigError, match="8-bit"):
        compiled(small)
    with pytest.raises(ConfigError, match="8-bit"):
        quantize(compiled(causal_model(0)))
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(ConfigError, match=r"no C\+\+ compiler"):
        compiled(causal_model(0))
