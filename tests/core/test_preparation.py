"""8-bit weights and compiled passes for whatever a domain builds."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from small_models import canvas_of, random_prompts
from torch import nn

from seqgen.decoders import Autoregressive
from seqgen.errors import ConfigError
from seqgen.heads import CategoricalHead
from seqgen.linear import Linear, Product
from seqgen.model import SequenceModel
from seqgen.models.qwen3 import Qwen3Config
from seqgen.models.qwen3_write import new_qwen3
from seqgen.preparation import prepare
from seqgen.training.convert import to_masked

needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None, reason="torch.compile needs a C++ compiler"
)


@pytest.fixture
def model() -> SequenceModel:
    torch.manual_seed(0)
    config = Qwen3Config(
        vocabulary=30, width=32, hidden=48, layers=2, heads=2, kv_heads=1, head_width=16,
        rope_theta=1e4, norm_eps=1e-6, tied=True, max_positions=256,
    )  # fmt: skip
    return new_qwen3(config).eval()


@dataclass(frozen=True)
class Pair:
    """What a domain may build."""

    first: SequenceModel
    parts: dict[str, Any]
    name: str = "pair"


class Lazy:
    """A model whose parts come later."""

    def __init__(self) -> None:
        self.steps: list[Callable[[nn.Module], None]] = []

    def when_loaded(self, step: Callable[[nn.Module], None]) -> None:
        self.steps.append(step)


def held_in_8_bits(model: nn.Module) -> bool:
    products = [part for part in model.modules() if isinstance(part, Product)]
    return bool(products) and all(part.in_8_bits for part in products)


def test_nothing_is_done_unless_asked_for(model: SequenceModel) -> None:
    prepare(model)
    prepare(object())
    assert not held_in_8_bits(model)
    assert model.compiled is None


def test_every_module_that_a_model_holds_is_prepared(model: SequenceModel) -> None:
    inner, last = copy.deepcopy(model), Linear(16, 3)
    prepare(Pair(model, {"inner": [inner, (last, model)], "size": 3}), int8=True)
    assert held_in_8_bits(model)
    assert held_in_8_bits(inner)
    assert held_in_8_bits(last)


def test_parts_that_are_loaded_later_are_prepared_then(model: SequenceModel) -> None:
    lazy = Lazy()
    prepare(lazy, int8=True)
    assert not held_in_8_bits(model)
    with torch.inference_mode():  # as while a batch is planned
        for step in lazy.steps:
            step(model)
    assert held_in_8_bits(model)
    assert not any(p._int8 and p._int8[2].is_inference() for p in _products(model))


def _products(model: nn.Module) -> list[Product]:
    return [part for part in model.modules() if isinstance(part, Product)]


def test_8_bits_give_nearly_the_same_probabilities(model: SequenceModel) -> None:
    prompts = random_prompts(0, [5, 9])
    want = Autoregressive().generate(model, canvas_of(prompts, 1))
    state = copy.deepcopy(model.state_dict())
    other = copy.deepcopy(model)
    prepare(model, int8=True)
    got = Autoregressive().generate(model, canvas_of(prompts, 1))
    assert got.sequences() == want.sequences()
    difference = (got.confidence_BS - want.confidence_BS).abs().max()
    assert 0 < difference < 0.05
    # The weights themselves are what they were, and other models are not touched.
    torch.testing.assert_close(model.state_dict(), state, atol=0, rtol=0)
    again = Autoregressive().generate(other, canvas_of(prompts, 1))
    torch.testing.assert_close(again.confidence_BS, want.confidence_BS, atol=0, rtol=0)


@pytest.mark.parametrize(
    ("model", "setting", "message"),
    [
        (nn.Linear(16, 16), {"int8": True}, "it is not made of the core's layers"),
        (CategoricalHead(12, 3), {"int8": True}, "a multiple of 16 wide"),
        (Linear(16, 3), {"compile": True}, "a Linear cannot be compiled for decoding"),
        (object(), {"int8": True}, "there are no weights in object to prepare"),
    ],
)
def test_what_cannot_be_prepared(model: Any, setting: dict[str, bool], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        prepare(model, **setting)


def test_8_bits_are_not_compiled(model: SequenceModel) -> None:
    with pytest.raises(ConfigError, match="8-bit weights cannot be compiled"):
        prepare(model, int8=True, compile=True)


@pytest.mark.gpu
def test_8_bits_are_for_cpus(model: SequenceModel) -> None:
    with pytest.raises(ConfigError, match="8-bit weights are for a CPU"):
        prepare(model.cuda(), int8=True)


@needs_compiler
def test_transformers_are_compiled_and_a_conversion_is_not(model: SequenceModel) -> None:
    prepare(model, compile=True)
    assert model.compiled is not None
    masked = to_masked(model)
    assert masked.compiled is None
    assert model.compiled is not None


def test_without_a_compiler(model: SequenceModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(ConfigError, match="there is no C\\+\\+ compiler"):
        prepare(model, compile=True)
