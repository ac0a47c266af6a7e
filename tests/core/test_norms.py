"""The short way to an RMS norm equals the definition, and is left where it may not be taken."""

from __future__ import annotations

import pytest
import torch

from seqgen.norms import _SMALL, RMSNorm, _constants, rms_norm


def by_definition(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    x = x.double()
    return x / (x.pow(2).mean(dim=-1, keepdim=True) + eps).sqrt() * weight.double()


@pytest.mark.parametrize("shape", [(1, 1, 64), (8, 6, 1, 32), (2, 3, 384), (_SMALL // 16 + 1, 16)])
@pytest.mark.parametrize("size", [1e-6, 1e-3, 1.0, 1e4])
@pytest.mark.parametrize("eps", [0.0, 1e-6, 1e-5])
def test_equals_the_definition(shape: tuple[int, ...], size: float, eps: float) -> None:
    """Down to numbers so small that epsilon decides."""
    torch.manual_seed(0)
    x, weight = size * torch.randn(shape), torch.rand(shape[-1]) + 0.5
    with torch.inference_mode():
        got = rms_norm(x, weight, eps)
    torch.testing.assert_close(got.double(), by_definition(x, weight, eps), atol=1e-6, rtol=2e-6)


def test_zeros_stay_zeros() -> None:
    with torch.inference_mode():
        assert rms_norm(torch.zeros(2, 8), torch.ones(8), 1e-6).eq(0).all()


def test_a_weight_a_head() -> None:
    x, weight = torch.randn(2, 3, 4, 8), torch.rand(3, 1, 8)
    want = by_definition(x, weight, 1e-6).float()
    for mode in (torch.inference_mode, torch.enable_grad):
        with mode():
            torch.testing.assert_close(rms_norm(x, weight, 1e-6), want)


def test_gradients_are_those_of_torch() -> None:
    torch.manual_seed(0)
    ours, theirs = RMSNorm(16, eps=1e-5), torch.nn.RMSNorm(16, eps=1e-5)
    x = torch.randn(3, 16)
    for norm in (ours, theirs):
        norm(x).pow(3).sum().backward()
    assert torch.equal(ours.weight.grad, theirs.weight.grad)  # type: ignore[arg-type]


@torch.inference_mode()
def test_half_precision_is_left_to_torch() -> None:
    x, weight = torch.randn(3, 64, dtype=torch.bfloat16), torch.ones(64, dtype=torch.bfloat16)
    want = torch.nn.functional.rms_norm(x, (64,), weight, 1e-6)
    assert torch.equal(rms_norm(x, weight, 1e-6), want)


@torch.inference_mode()
def test_the_default_device_and_type_do_not_matter() -> None:
    x, weight = torch.randn(3, 64), torch.rand(64)
    want = rms_norm(x, weight, 1e-6)
    _constants.cache_clear()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            assert torch.equal(rms_norm(x, weight, 1e-6), want)
    finally:
        torch.set_default_dtype(torch.float32)
