"""Dense layers that run on oneDNN.

For float32 on a CPU, `F.linear` calls MKL, which uses half of the vector width of AMD processors;
oneDNN uses all of it on any make and applies the relu on the way out. The operator is the one that
`torch.compile` emits; `F.linear` is used where it is missing, and for other devices and types.
Both compute in full float32.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class Linear(nn.Linear):
    """`nn.Linear` with the fast path, and `relu` for the two steps in one."""

    _packed: tuple[int, int, Tensor] | None = None
    """(address, version, copy of the weight in oneDNN's own layout), see `pack`."""

    def forward(self, input: Tensor) -> Tensor:
        """[..., in] -> [..., out]."""
        return self._apply_to(input, relu=False)

    def relu(self, input: Tensor) -> Tensor:
        """relu(W x + b)."""
        return self._apply_to(input, relu=True)

    def _apply_to(self, x: Tensor, *, relu: bool) -> Tensor:
        weight = self.weight
        if not _fast_path(x, weight):
            out = F.linear(x, weight, self.bias)
            return F.relu(out, inplace=True) if relu else out
        if torch.is_grad_enabled():
            out = _Dense.apply(x, weight, self.bias)  # type: ignore[no-untyped-call]
            return F.relu(out) if relu else out
        return _product(x, self._current(weight), self.bias, relu=relu)

    def _current(self, weight: Tensor) -> Tensor:
        """The packed copy of the weight if there is one and it is not outdated."""
        if self._packed is None:
            return weight
        address, version, packed = self._packed
        if address == weight.data_ptr() and version == weight._version:
            return packed
        self._packed = None  # the weight was replaced or changed in place
        return weight

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_packed": None}  # copies and pickles hold plain weights only


def pack(model: nn.Module) -> None:
    """Keep a copy of every `Linear` weight in the layout that the fast path wants.

    For models that are only decoded from now on: it saves 5 to 15 % of the time and costs as much
    memory again as the weights. Nothing happens where the fast path does not exist. Weights that
    are replaced or changed in place afterwards are noticed, changes through `.data` are not.
    """
    for module in model.modules():
        if isinstance(module, Linear):
            with torch.no_grad():
                weight = module.weight.detach()
                if _fast_path(weight, weight):
                    packed = torch.ops.mkldnn._reorder_linear_weight(weight)
                    module._packed = (weight.data_ptr(), module.weight._version, packed)


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
