"""Upsampling and convolution in one step: the same numbers, also after the weights change."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from seqgen.upsample import UpsampleConv


def two_steps(layer: UpsampleConv, x: Tensor) -> Tensor:
    larger = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    return torch.nn.functional.conv2d(larger, layer.weight, layer.bias, padding=1)


@pytest.mark.parametrize("size", [(1, 1), (1, 3), (4, 4), (5, 2)])
def test_one_step_equals_two(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    layer, x = UpsampleConv(3, 5), torch.randn(2, 3, *size)
    with torch.no_grad():
        got = layer(x)
    assert got.shape == (2, 5, 2 * size[0], 2 * size[1])
    torch.testing.assert_close(got, two_steps(layer, x), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(layer(x), two_steps(layer, x))


def test_changed_weights_are_noticed() -> None:
    torch.manual_seed(0)
    layer, x = UpsampleConv(3, 3), torch.randn(1, 3, 4, 4)
    with torch.no_grad():
        layer(x)
        layer.weight.mul_(-2)
        torch.testing.assert_close(layer(x), two_steps(layer, x), atol=1e-5, rtol=1e-5)
        other = copy.deepcopy(layer)
        other.load_state_dict({k: v + 1 for k, v in layer.state_dict().items()})
        torch.testing.assert_close(other(x), two_steps(other, x), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(layer(x), two_steps(layer, x), atol=1e-5, rtol=1e-5)


def test_weights_made_for_inference() -> None:
    with torch.inference_mode():
        layer, x = UpsampleConv(2, 2), torch.randn(1, 2, 3, 3)
        torch.testing.assert_close(layer(x), two_steps(layer, x), atol=1e-5, rtol=1e-5)
        layer.weight.mul_(3)
        torch.testing.assert_close(layer(x), two_steps(layer, x), atol=1e-5, rtol=1e-5)


def test_it_trains() -> None:
    torch.manual_seed(0)
    layer, x = UpsampleConv(2, 2), torch.randn(1, 2, 3, 3)
    layer(x).square().sum().backward()
    got = layer.weight.grad
    layer.weight.grad = None
    two_steps(layer, x).square().sum().backward()
    torch.testing.assert_close(got, layer.weight.grad)
