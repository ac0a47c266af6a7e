"""The fast dense layer equals the plain one, and never answers with old weights."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from seqgen.heads import CategoricalHead
from seqgen.linear import Linear, _available, pack, quantize


@pytest.fixture(autouse=True)
def _fast_path_at_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seqgen.linear._ENOUGH", 1)


@pytest.fixture
def layer() -> Linear:
    torch.manual_seed(0)
    return Linear(20, 30)


@pytest.mark.parametrize("shape", [(20,), (7, 20), (2, 5, 20), (2, 0, 20)])
@pytest.mark.parametrize("packed", [False, True])
def test_equals_nn_linear(shape: tuple[int, ...], packed: bool, layer: Linear) -> None:
    if packed:
        pack(layer)
    x = torch.randn(shape)
    want = nn.functional.linear(x, layer.weight, layer.bias)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), want, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(layer.relu(x), want.relu(), atol=1e-5, rtol=1e-5)
    with torch.inference_mode():
        torch.testing.assert_close(layer(x), want, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shape", [(20,), (7, 20), (2, 5, 20)])
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_gradients_equal_nn_linears(shape: tuple[int, ...], relu: bool, bias: bool) -> None:
    torch.manual_seed(0)
    fast = Linear(20, 30, bias=bias)
    pack(fast)
    plain = nn.Linear(20, 30, bias=bias)
    plain.load_state_dict(fast.state_dict())
    x_fast = torch.randn(shape, requires_grad=True)
    x_plain = x_fast.detach().clone().requires_grad_()
    slope = torch.randn(*shape[:-1], 30)
    got = fast.relu(x_fast) if relu else fast(x_fast)
    want = plain(x_plain).relu() if relu else plain(x_plain)
    (got * slope).sum().backward()
    (want * slope).sum().backward()
    torch.testing.assert_close(x_fast.grad, x_plain.grad, atol=1e-5, rtol=1e-5)
    for mine, theirs in zip(fast.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, atol=1e-5, rtol=1e-5)


def test_frozen_weights_get_no_gradient(layer: Linear) -> None:
    layer.requires_grad_(False)
    x = torch.randn(3, 20, requires_grad=True)
    layer(x).sum().backward()
    assert x.grad is not None
    assert layer.weight.grad is None


@pytest.mark.parametrize("how", ["optimiser", "load_state_dict", "replace"])
def test_changed_weights_are_noticed(how: str, layer: Linear) -> None:
    pack(layer)
    assert (layer._packed is not None) == _available()
    if how == "optimiser":
        layer(torch.randn(4, 20)).sum().backward()
        torch.optim.SGD(layer.parameters(), lr=1.0).step()
    elif how == "load_state_dict":
        layer.load_state_dict(Linear(20, 30).state_dict())
    else:
        layer.weight = nn.Parameter(torch.randn(30, 20))
    x = torch.randn(4, 20)
    with torch.no_grad():
        want = nn.functional.linear(x, layer.weight, layer.bias)
        torch.testing.assert_close(layer(x), want, atol=1e-5, rtol=1e-5)


def test_packed_layers_can_be_copied_and_pickled(layer: Linear) -> None:
    pack(layer)
    x = torch.randn(4, 20)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        torch.testing.assert_close(other(x), layer(x))
        assert other._packed is None
    assert set(layer.state_dict()) == {"weight", "bias"}


def test_other_types_use_the_plain_layer(layer: Linear) -> None:
    pack(layer)
    double = layer.double()
    x = torch.randn(4, 20, dtype=torch.float64)
    with torch.no_grad():
        assert torch.equal(double(x), nn.functional.linear(x, double.weight, double.bias))


def test_pack_covers_output_heads() -> None:
    torch.manual_seed(0)
    head = CategoricalHead(20, 30)
    plain = copy.deepcopy(head)
    pack(head)
    assert (head._packed is not None) == _available()
    x = torch.randn(4, 1, 20)
    with torch.inference_mode():
        torch.testing.assert_close(head.logits(x), plain.logits(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_eight_bits_are_near(dtype: torch.dtype, layer: Linear) -> None:
    torch.manual_seed(0)
    layer = Linear(256, 128).to(dtype)
    plain = copy.deepcopy(layer)
    quantize(layer)
    x = torch.randn(3, 2, 256, dtype=dtype)
    with torch.inference_mode():
        got, want = layer(x), plain(x)
        assert got.dtype == dtype
        assert (got - want).norm() < 0.015 * want.norm()
        assert not torch.equal(got, want)
        torch.testing.assert_close(layer.relu(x), layer(x).relu())
        # A row does not depend on the others.
        torch.testing.assert_close(layer(x[1:2]), got[1:2], atol=1e-2, rtol=1e-2)
    assert layer.weight.dtype == dtype


def test_eight_bits_leave_odd_widths_alone(layer: Linear) -> None:
    assert layer.in_features % 16
    quantize(layer)
    assert layer._int8 is None


def test_training_and_changed_weights_do_without_eight_bits() -> None:
    torch.manual_seed(0)
    layer = Linear(32, 30)
    quantize(layer)
    x = torch.randn(4, 32)
    want = nn.functional.linear(x, layer.weight, layer.bias)
    torch.testing.assert_close(layer(x), want, atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        assert not torch.allclose(layer(x), want, atol=1e-5, rtol=1e-5)
        layer.weight.mul_(2)
        want = nn.functional.linear(x, layer.weight, layer.bias)
        torch.testing.assert_close(layer(x), want, atol=1e-5, rtol=1e-5)
    assert copy.deepcopy(layer)._int8 is None


def test_eight_bits_of_a_model_made_in_inference_mode() -> None:
    torch.manual_seed(0)
    with torch.inference_mode():
        layer = Linear(256, 128)
    plain = copy.deepcopy(layer)
    quantize(layer)
    x = torch.randn(3, 256)
    with torch.inference_mode():
        got, want = layer(x), plain(x)
    assert not torch.equal(got, want)
    assert (got - want).norm() < 0.015 * want.norm()
