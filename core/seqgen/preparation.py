"""What is done to a built model before it decodes: weights of 8 bits, compiled passes.

    prepare(domain.build(card, device, torch.float32), int8=True, compile=True)

A domain's model is an `nn.Module`, a dataclass, mapping or sequence that holds some, or an object
that loads them when they are first used (`seqgen.domain.LoadsLater`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from seqgen.compiled import compiled
from seqgen.domain import LoadsLater
from seqgen.errors import ConfigError
from seqgen.linear import Product, quantize
from seqgen.model import SequenceModel


def prepare(model: Any, *, int8: bool = False, compile: bool = False) -> None:
    """Make a model decode with 8-bit weights (`seqgen.linear.quantize`) or in compiled passes.

    Args:
        model: what `Domain.build` gave, in float32 for `int8`.

    Raises:
        ConfigError: both are asked for, or the model cannot do it: it is not on a CPU, or not made
            of the core's layers (`int8`), or holds no `SequenceModel` that can be compiled.
    """

    def step(module: nn.Module) -> None:
        # Copies made while a batch is planned must be ordinary tensors all the same.
        with torch.inference_mode(False):
            if int8:
                _quantize(module)
            if compile:
                _compile(module)

    if not (int8 or compile):
        return
    if isinstance(model, LoadsLater):
        model.when_loaded(step)
        return
    found = list({id(module): module for module in _modules(model)}.values())
    if not found:
        raise ConfigError(
            f"there are no weights in {type(model).__name__} to prepare",
            fix="leave --dtype int8 and --compile out",
        )
    for module in found:
        step(module)


def _modules(model: Any) -> Iterator[nn.Module]:
    """The modules that a model is or holds."""
    if isinstance(model, nn.Module):
        yield model
        return
    parts: Sequence[Any] = ()
    if dataclasses.is_dataclass(model):
        parts = [getattr(model, field.name) for field in dataclasses.fields(model)]
    elif isinstance(model, Mapping):
        parts = list(model.values())
    elif isinstance(model, list | tuple):
        parts = model
    for part in parts:
        yield from _modules(part)


def _quantize(module: nn.Module) -> None:
    quantize(module)
    products = [part for part in module.modules() if isinstance(part, Product)]
    if not any(part.in_8_bits for part in products):
        why = "no product of it is by a weight that is a multiple of 16 wide"
        raise ConfigError(
            f"a {type(module).__name__} cannot be held in 8 bits",
            why=why if products else "it is not made of the core's layers",
            fix="--dtype float32",
        )


def _compile(module: nn.Module) -> None:
    models = [part for part in module.modules() if isinstance(part, SequenceModel)]
    if not models:
        raise ConfigError(
            f"a {type(module).__name__} cannot be compiled for decoding",
            why="it holds no SequenceModel: it makes one for each batch",
            fix="leave --compile out",
        )
    for model in models:
        compiled(model)
