"""Dense layers that run on oneDNN.

For float32 on a CPU, `F.linear` calls MKL, which uses half of the vector width of AMD processors;
oneDNN uses all of it on any make and applies the relu on the way out. The operator is the one that
`torch.compile` emits; `F.linear` is used where it is missing, and for other devices and types.
Both compute in full float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from seqgen.errors import ConfigError


class Product(nn.Module):
    """Base of layers that multiply by a weight; holds the copies `pack` and `quantize` make."""

    _packed: tuple[int, int, Tensor] | None = None
    """(address, version, copy of the weight in oneDNN's own layout)."""
    _int8: tuple[int, int, Tensor, Tensor] | None = None
    """(address, version, weight in 8 bits, scale of each row)."""

    @property
    def in_8_bits(self) -> bool:
        """Whether `quantize` has made a copy of the weight."""
        return self._int8 is not None

    def factor(self) -> Tensor:
        """The weight [out, in] that is multiplied by."""
        raise TypeError(f"{type(self).__name__} must define factor()")

    def product(self, x: Tensor, weight: Tensor, bias: Tensor | None, *, relu: bool) -> Tensor:
        """x W^T + b, followed by a relu if asked for."""
        if self._int8 is not None and not torch.is_grad_enabled() and x.is_cpu:
            address, version, small, scale = self._int8
            if address == weight.data_ptr() and version == _version(weight):
                out = _int8_product(x, small, scale, bias)
                return F.relu(out, inplace=True) if relu else out
            self._int8 = None  # the weight was replaced or changed in place
        if not _fast_path(x, weight):
            out = F.linear(x, weight, bias)
            return F.relu(out, inplace=True) if relu else out
        if torch.is_grad_enabled():
            out = _Dense.apply(x, weight, bias)  # type: ignore[no-untyped-call]
            return F.relu(out) if relu else out
        return _product(x, self._current(weight), bias, relu=relu)

    def _current(self, weight: Tensor) -> Tensor:
        """The packed copy of the weight if there is one and it is not outdated."""
        if self._packed is None:
            return weight
        address, version, packed = self._packed
        if address == weight.data_ptr() and version == _version(weight):
            return packed
        self._packed = None  # the weight was replaced or changed in place
        return weight

    def __getstate__(self) -> dict[str, Any]:
        # Copies and pickles hold plain weights only.
        return {**self.__dict__, "_packed": None, "_int8": None}


class Linear(Product, nn.Linear):
    """`nn.Linear` with the fast path, and `relu` for the two steps in one."""

    def factor(self) -> Tensor:
        return self.weight

    def forward(self, input: Tensor) -> Tensor:
        """[..., in] -> [..., out]."""
        return self.product(input, self.weight, self.bias, relu=False)

    def relu(self, input: Tensor) -> Tensor:
        """relu(W x + b)."""
        return self.product(input, self.weight, self.bias, relu=True)


@torch.no_grad()
def pack(model: nn.Module) -> None:
    """Keep a copy of every weight in the layout that the fast path wants (`Linear`, output heads).

    For models that are only decoded from now on: passes of 4 rows and more take half to a third of
    the time, single rows of large weights two thirds, and it costs as much memory again as the
    weights. Nothing happens where the fast path does not exist. Weights that are replaced or
    changed in place afterwards are noticed, changes through `.data` are not.
    """
    for module in _products(model):
        weight = module.factor().detach()
        if _fast_path(weight, weight) and not weight.is_inference():
            packed = torch.ops.mkldnn._reorder_linear_weight(weight)
            module._packed = (weight.data_ptr(), _version(weight), packed)


@torch.no_grad()
def quantize(model: nn.Module) -> None:
    """Decode with weights of 8 bits, a scale for each row of a weight; inputs become bfloat16.

    On a CPU one row takes a third of the time of float32, since it reads a quarter of the bytes;
    from about 8 rows on packed float32 is as fast. A product is off by 0.8 % of its size, so tokens
    may differ. Layers whose input is not a multiple of 16 wide stay as they are: the operator would
    read beyond them. The weights themselves stay as they are and serve training; as with `pack`, a
    changed one is noticed.

    Raises:
        ConfigError: the model is not on a CPU, or its passes are compiled.
    """
    if getattr(model, "compiled", None) is not None:
        raise ConfigError(
            "a compiled model cannot get 8-bit weights",
            why="compiled passes multiply by the weights as they were loaded",
            fix="do either",
        )
    for module in _products(model):
        weight = module.factor().detach()
        if weight.device.type != "cpu":
            raise ConfigError(
                f"8-bit weights are for a CPU, and this model is on {weight.device}",
                fix="take bfloat16 there",
            )
        if weight.shape[1] % _INT8_WIDTH:
            continue
        scale = weight.float().abs().amax(dim=1).clamp(min=1e-12) / 127
        small = (weight.float() / scale[:, None]).round().to(torch.int8)
        module._int8 = (weight.data_ptr(), _version(weight), small, scale.bfloat16())


def _version(weight: Tensor) -> int:
    """How often a weight was changed; what was made in inference mode does not tell, so 0."""
    return 0 if weight.is_inference() else weight._version


def _products(model: nn.Module) -> Iterator[Product]:
    return (module for module in model.modules() if isinstance(module, Product))


def _int8_product(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    # The operator is for bfloat16; of float32 it has a slow version only.
    rows = x.reshape(-1, x.shape[-1]).bfloat16()
    out: Tensor = torch._weight_int8pack_mm(rows, weight, scale).to(x.dtype)
    out = out.view(*x.shape[:-1], -1)
    return out if bias is None else out + bias


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, *, relu: bool = False) -> Tensor:
    """`F.linear`, followed by a relu if asked for."""
    if not _fast_path(x, weight):
        out = F.linear(x, weight, bias)
        return F.relu(out, inplace=True) if relu else out
    if not torch.is_grad_enabled():
        return _product(x, weight, bias, relu=relu)
    out = _Dense.apply(x, weight, bias)  # type: ignore[no-untyped-call]
    return F.relu(out) if relu else out


class _Dense(torch.autograd.Function):
    """x W^T + b with all three products of the backward pass on oneDNN."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        grad_x = grad_weight = grad_bias = None
        rows = grad.reshape(-1, grad.shape[-1])
        if ctx.needs_input_grad[0]:
            grad_x = _product(grad.contiguous(), weight.t().contiguous(), None)
        if ctx.needs_input_grad[1]:
            columns = x.reshape(-1, x.shape[-1]).t().contiguous()
            grad_weight = _product(rows.t().contiguous(), columns, None)
        if ctx.needs_input_grad[2]:
            grad_bias = rows.sum(0)
        return grad_x, grad_weight, grad_bias


def _product(x: Tensor, weight: Tensor, bias: Tensor | None, *, relu: bool = False) -> Tensor:
    then = "relu" if relu else "none"
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, then, [], "")
    return out


def _fast_path(x: Tensor, weight: Tensor) -> bool:
    return (
        x.numel() * weight.shape[0] >= _ENOUGH  # first: it is what decides in small models
        and x.device.type == weight.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and _available()
    )


_INT8_WIDTH = 16
"""Numbers that the 8-bit kernel reads at once, whether or not a row has as many left."""

_ENOUGH = 3 << 18
"""Products from which on oneDNN wins: a call costs 10 us before it starts, `F.linear` costs 1.

Measured with rows of 1 to 32 and weights of 64 x 128 to 384 x 4096: at half as many products
`F.linear` takes two thirds of the time, at twice as many oneDNN does.
"""


@lru_cache(maxsize=1)
def _available() -> bool:
    """Whether the operator exists in this build of torch and gives the right result."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    x, weight, bias = torch.ones(2, 3), torch.eye(4)[:, :3], -torch.arange(4.0) / 2
    try:
        with torch.no_grad():
            out = _product(x, weight, bias, relu=True)
    except (AttributeError, RuntimeError):
        return False
    return torch.allclose(out, F.linear(x, weight, bias).relu(), atol=1e-5)
