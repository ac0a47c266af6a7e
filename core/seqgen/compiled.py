"""Decoding passes fused by torch.compile: the same tokens, in about half the time in small models.

    compiled(model)
    Autoregressive().generate(model, canvas)

A step of a small transformer is some sixty calls of small kernels; compiled it is one call. What is
compiled is a pass that sees the whole cache (a step of autoregressive decoding, a refinement of a
block), once for each number of rows and slots, at its first use; that takes 2 to 5 seconds.
Prefills, masked passes and rows of different lengths run as ever.

Shapes: B rows, R slots fed, N entries seen, G key/value heads, d head width.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from seqgen.cache import Cache
from seqgen.errors import ConfigError

if TYPE_CHECKING:
    from seqgen.model import SequenceModel

WIDEST = 64
"""Slots of a pass up to which it pays; beyond, kernels take the time and not their calls."""

MOST_SHAPES = 4
"""Numbers of rows and slots that are compiled; passes of further ones run as ever."""


def compiled(model: SequenceModel) -> SequenceModel:
    """Compile the decoding passes of a model's transformer, in place; returns the model.

    Raises:
        ConfigError: the backbone is no `Transformer`, or there is no C++ compiler for a CPU.
    """
    from seqgen.transformer import Transformer

    if not isinstance(model.backbone, Transformer):
        raise ConfigError(
            f"a {type(model.backbone).__name__} cannot be compiled for decoding",
            why="only the passes of seqgen.transformer.Transformer are",
            fix="decode it without compiled()",
        )
    model.backbone.compile_decoding()
    return model


def require_compiler(device: torch.device) -> None:
    """Raise a ConfigError where torch.compile would find no compiler."""
    names = (os.environ.get("CXX", ""), "g++", "clang++")
    if device.type == "cpu" and not any(name and shutil.which(name) for name in names):
        raise ConfigError(
            "decoding cannot be compiled here",
            why="torch.compile makes C++ for a CPU, and there is no C++ compiler",
            fix="install g++, or decode without compiled()",
        )


@dataclass(frozen=True)
class Written:
    """The side of a cache that a backbone sees in a compiled pass.

    Attributes:
        keys, values: a layer each, [B, G, capacity, d].
        place_R: entries that this pass writes.
        seen: how many entries it looks at.
    """

    keys: Sequence[Tensor]
    values: Sequence[Tensor]
    place_R: Tensor
    seen: int

    def write(self, layer: int, key_BGRd: Tensor, value_BGRd: Tensor) -> tuple[Tensor, Tensor]:
        """As `Cache.write`; an index write is what the compiler can do in place."""
        keys, values = self.keys[layer], self.values[layer]
        keys[:, :, self.place_R] = key_BGRd
        values[:, :, self.place_R] = value_BGRd
        return keys[:, :, : self.seen], values[:, :, : self.seen]


class CompiledPass:
    """A compiled forward pass of one backbone."""

    def __init__(
        self, forward: Callable[[Tensor, Tensor, Written], Tensor], *, on_gpu: bool
    ) -> None:
        """Prepare to compile `forward(embeddings, coordinates, cache)`."""

        def step(
            x_BRD: Tensor,
            coordinates_BRA: Tensor,
            keys: list[Tensor],
            values: list[Tensor],
            place_R: Tensor,
            seen_N: Tensor,
        ) -> Tensor:
            return forward(x_BRD, coordinates_BRA, Written(keys, values, place_R, seen_N.shape[0]))

        # Compiled code is kept by code object; one of its own, or models would share it.
        step.__code__ = step.__code__.replace()
        # Weights are inputs of the compiled function, so changed ones count; the modules
        # themselves are not looked at again, which would take longer than the pass.
        options: dict[str, Any] = {
            "guard_filter_fn": torch.compiler.skip_guard_on_all_nn_modules_unsafe
        }
        if not on_gpu:
            options["cpp_wrapper"] = True  # the calls between kernels in C++ too
        self._step: Callable[..., Any] = torch.compile(step, fullgraph=True, options=options)
        self._shapes: set[tuple[int, ...]] = set()
        self._index_N = torch.empty(0, dtype=torch.int64)

    def takes(self, x_BRD: Tensor, cache: Cache) -> bool:
        """Whether a pass that sees the whole cache is one to compile."""
        shape = tuple(x_BRD.shape)
        fits = (
            cache.uniform is not None
            and cache.visible >= 2  # the compiler treats 0 and 1 as cases of their own
            and cache.visible < cache.capacity  # and so a slice that is the whole
            and shape[1] <= WIDEST
            and torch.is_inference_mode_enabled()
        )
        if not fits or shape in self._shapes:
            return fits
        if len(self._shapes) == MOST_SHAPES:
            return False
        self._shapes.add(shape)
        return True

    def __call__(self, x_BRD: Tensor, coordinates_BRA: Tensor, cache: Cache) -> Tensor:
        """Hidden states [B, R, D]; `Cache.begin` has announced the rows."""
        if self._index_N.shape[0] < cache.capacity or self._index_N.device != x_BRD.device:
            self._index_N = torch.arange(2 * cache.capacity, device=x_BRD.device)
        assert cache.uniform is not None
        place_R = self._index_N[cache.uniform : cache.visible]
        seen_N = self._index_N[: cache.visible]
        torch._dynamo.maybe_mark_dynamic(seen_N, 0)
        if not cache.marked:
            cache.marked = True
            for buffer in (*cache.keys, *cache.values):
                torch._dynamo.maybe_mark_dynamic(buffer, 2)
        out = self._step(x_BRD, coordinates_BRA, cache.keys, cache.values, place_R, seen_N)
        assert isinstance(out, Tensor)
        return out
