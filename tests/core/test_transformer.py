"""The backbone: what a module's type and device must not change."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from small_models import canvas_of, random_prompts, small_model
from torch import nn

from seqgen.decoders import Autoregressive
from seqgen.model import SequenceModel
from seqgen.transformer import Transformer, TransformerConfig, rotary_frequencies

CONFIG = TransformerConfig(width=32, layers=2, heads=2, kv_heads=1, head_width=16, rope_theta=1e6)
CASTS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "bfloat16": lambda module: module.bfloat16(),
    "half": lambda module: module.half(),
    "double": lambda module: module.double(),
    "to": lambda module: module.to(torch.bfloat16),
    "there and back": lambda module: module.bfloat16().float(),
    "within another module": lambda module: nn.Sequential(module).bfloat16()[0],
    "copied": lambda module: copy.deepcopy(module).bfloat16(),
    "made without memory": lambda module: module.to("meta").to_empty(device="cpu"),
}


@pytest.mark.parametrize("cast", CASTS.values(), ids=CASTS)
def test_rotary_frequencies_are_never_rounded(cast: Callable[[nn.Module], nn.Module]) -> None:
    module = cast(Transformer(CONFIG))
    assert isinstance(module, Transformer)
    assert module.frequencies.dtype == torch.float32
    assert torch.equal(module.frequencies, rotary_frequencies(CONFIG))


def test_angles_of_a_bfloat16_module_are_those_of_float32() -> None:
    """Far from the start, where a frequency rounded to 8 bits is off by radians."""
    full = Transformer(CONFIG)
    small = copy.deepcopy(full).bfloat16()
    places = torch.tensor([0, 1, 100, 5000, 30_000])[None, :, None]
    exact = places[..., None].double() * rotary_frequencies(CONFIG).double()
    for module in (full, small):
        cos, sin = module._rotation(places, torch.float32)
        half = CONFIG.d // 2
        torch.testing.assert_close(
            cos[0, 0, :, :half].double(), exact.cos().flatten(2)[0], atol=4e-3, rtol=0
        )
        torch.testing.assert_close(
            sin[0, 0, :, half:].double(), exact.sin().flatten(2)[0], atol=4e-3, rtol=0
        )


def test_a_bfloat16_module_computes_what_the_float32_one_does() -> None:
    """Same weights, slots in the thousands: the difference is the rounding of bfloat16 alone."""
    torch.manual_seed(0)
    full = Transformer(CONFIG).eval()
    for parameter in full.parameters():  # weights that bfloat16 holds exactly
        parameter.data = parameter.data.bfloat16().float()
    small = copy.deepcopy(full).bfloat16()
    x = torch.randn(1, 12, CONFIG.width).bfloat16()
    places = torch.randint(30_000, (1, 12, 1), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        want, got = full(x.float(), places), small(x, places).float()
        rounded = copy.deepcopy(full)
        rounded.frequencies = rounded.frequencies.bfloat16().float()
        wrong = rounded(x.float(), places)
    error = float((got - want).abs().mean())
    assert error < 0.01
    assert error < 0.1 * float((wrong - want).abs().mean())


def _swap_gains(model: SequenceModel) -> None:
    """As averages of weights are put into a model: neither object nor version tells."""
    for name, parameter in model.named_parameters():
        if "q_norm" in name or "k_norm" in name:
            parameter.data.copy_(torch.linspace(0.5, 3, parameter.numel()))


CHANGES: dict[str, Callable[[SequenceModel], object]] = {
    "bfloat16": lambda model: model.bfloat16(),
    "double": lambda model: model.double(),
    "there and back": lambda model: model.bfloat16().float(),
    "through data": _swap_gains,
    "loaded": lambda model: model.load_state_dict(
        small_model(seed=5, shifted=True).state_dict(), assign=True
    ),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_model_changed_between_decodes_decodes_as_a_new_one(
    change: Callable[[SequenceModel], object],
) -> None:
    model = small_model(shifted=True)
    untouched = copy.deepcopy(model)
    prompts = random_prompts(0, [3, 5])
    Autoregressive().generate(model, canvas_of(prompts, 6))
    for one in (model, untouched):
        change(one)
    found, want = (
        Autoregressive().generate(one, canvas_of(prompts, 6)) for one in (model, untouched)
    )
    assert torch.equal(found.values, want.values)
    assert torch.equal(found.confidence_BS, want.confidence_BS)
