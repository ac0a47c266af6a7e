"""Decoding passes fused by torch.compile: the same tokens, in about half the time in small models.

    compiled(model)
    Autoregressive().generate(model, canvas)

A step of a small transformer is some eighty calls of small kernels; compiled it is one call, from
the ids that enter to the most probable values. What is compiled are the passes of a cached decode
over a few groups of consecutive slots (a step of autoregressive decoding, a refinement of a block,
with or without the block before it), once for each number of rows and slots, at its first use; that
takes 2 to 10 seconds. Prefills and rows of different lengths run as ever, and on a CPU so do passes
of models so large that their weights decide, which oneDNN multiplies faster (`seqgen.linear`).

Shapes: B rows, R slots fed, N entries seen, G key/value heads, d head width.
"""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from seqgen.cache import Cache, Written
from seqgen.canvas import Canvas
from seqgen.errors import ConfigError
from seqgen.heads.base import Proposal, Request
from seqgen.heads.categorical import CategoricalHead
from seqgen.linear import Product
from seqgen.logits import sample_from
from seqgen.mask_view import MaskView, Parts
from seqgen.masks import BlockCausal
from seqgen.model import MOST_PARTS, SequenceModel, id_inputs
from seqgen.orders import OrderTable
from seqgen.transformer import Transformer

WIDEST = 64
"""Slots of a pass up to which it pays; beyond, kernels take the time and not their calls."""

MOST_SHAPES = 8
"""Passes that are compiled (by rows, slots, groups and what is asked); others run as ever."""

MOST_WEIGHTS = 1 << 19
"""Weights of a layer's widest product from which a CPU reads rather than computes."""

MOST_PRODUCTS = 1 << 23
"""Multiplications of that product from which they, and not calls, take a CPU's time."""

_NUMBERS = itertools.count()
"""Of compiled passes in this process."""

Asked = Literal["hidden", "logits", "greedy"]
"""What a pass gives: hidden states, for another head than the model's own; logits; also the most
probable values and their probabilities."""


def compiled(model: SequenceModel) -> SequenceModel:
    """Compile the decoding passes of a model, in place; returns the model.

    Raises:
        ConfigError: the backbone is no `Transformer`, looks at a context or holds 8-bit weights, or
            there is no C++ compiler for a CPU.
    """
    backbone, without = model.backbone, "leave --compile out, or decode without compiled()"
    if not isinstance(backbone, Transformer):
        raise ConfigError(
            f"a {type(backbone).__name__} cannot be compiled for decoding",
            why="only the passes of seqgen.transformer.Transformer are",
            fix=without,
        )
    if backbone.config.context_width:
        raise ConfigError(
            "a transformer with cross-attention cannot be compiled for decoding",
            why="every length of the context would be compiled anew",
            fix=without,
        )
    if any(isinstance(part, Product) and part.in_8_bits for part in model.modules()):
        raise ConfigError(
            "a model of 8-bit weights cannot be compiled for decoding",
            why="compiled passes multiply by the weights as they were loaded",
            fix="do either",
        )
    require_compiler(backbone.norm.weight.device)
    model.compiled = CompiledPass(model, backbone)
    return model


def cpp_compiler() -> str | None:
    """The path of the C++ compiler that torch.compile finds for a CPU, if there is one."""
    names = (os.environ.get("CXX", ""), "g++", "clang++")
    return next((path for name in names if name and (path := shutil.which(name))), None)


def require_compiler(device: torch.device) -> None:
    """Raise a ConfigError where torch.compile would find no compiler."""
    if device.type == "cpu" and cpp_compiler() is None:
        raise ConfigError(
            "decoding cannot be compiled here",
            why="torch.compile makes C++ for a CPU, and there is no C++ compiler",
            fix="install g++, or leave --compile out (do without compiled())",
        )


class CompiledPass:
    """The compiled passes of one model."""

    def __init__(self, model: SequenceModel, backbone: Transformer) -> None:
        self._model, self._backbone = model, backbone
        self._inputs, self._head = model.inputs, model.head
        self._on_cpu = backbone.norm.weight.device.type == "cpu"
        self._weights = 2 * backbone.config.width * backbone.config.feed_forward
        self._steps: dict[tuple[object, ...], Callable[..., Any]] = {}
        self._index_N = torch.empty(0, dtype=torch.int64)

    def propose(
        self,
        model: SequenceModel,
        canvas: Canvas,
        table: OrderTable,
        slots_1R: Tensor,
        request: Request,
        *,
        lead: int,
        alone: bool,
        cache: Cache | None,
        run: slice,
    ) -> Proposal | None:
        """As `SequenceModel.propose`; None, and nothing is done, for a pass that is not compiled.

        Args:
            model: the model that was compiled, or one that shares all but the head with it. With
                inputs or a backbone that came later, no pass is compiled.
        """
        rows = slots_1R.shape[1]
        if cache is None or model.branches > 1 or not self._takes(canvas.batch, rows, cache):
            return None
        if model.inputs is not self._inputs or model.backbone is not self._backbone:
            return None
        parts = self._parts(table, run, alone)
        inputs = id_inputs(model.inputs)
        ids_BR = None if inputs is None else inputs.ids_of_run(canvas, run)
        if parts is None or ids_BR is None:
            return None
        asked = self._asked(model, request)
        kind = cache.keys[0].dtype, cache.keys[0].device, model.training
        key = (canvas.batch, rows, lead, parts, asked, *kind)
        step = self._steps.get(key)
        if step is None:
            if len(self._steps) == MOST_SHAPES:
                return None
            step = self._steps[key] = self._compile(lead, parts, asked)
        coordinates_1RA = table.coordinates_SA[None, run]
        made = self._run(step, ids_BR.contiguous(), slots_1R, coordinates_1RA, cache)
        if asked == "hidden":
            return model.head.propose(made[0], request)
        if asked == "logits":
            return sample_from(made[0], request)
        return Proposal(made[1], made[2], logits_BQV=made[0], scores_BQV=made[0])

    def _takes(self, batch: int, rows: int, cache: Cache) -> bool:
        settled = cache.uniform
        if settled is None or rows > WIDEST or not torch.is_inference_mode_enabled():
            return False
        if torch.is_autocast_enabled(cache.keys[0].device.type):
            return False
        # The compiler treats 0 and 1 as cases of their own, and so a slice that is the whole.
        if not 2 <= settled + rows < cache.capacity:
            return False
        if not self._on_cpu:
            return True
        return self._weights < MOST_WEIGHTS and batch * rows * self._weights < MOST_PRODUCTS

    def _parts(self, table: OrderTable, run: slice, alone: bool) -> Parts | None:
        """The groups of a pass, () for one; None where it needs another mask."""
        mask = self._model.mask
        if alone:
            return () if mask.past_is_visible else None
        if not isinstance(mask, BlockCausal) or not self._on_cpu:
            return None
        return table.parts_of(run, MOST_PARTS)

    def _asked(self, model: SequenceModel, request: Request) -> Asked:
        head, sampling = model.head, request.sampling
        if head is not self._head or type(head) is not CategoricalHead:
            return "hidden"
        plain = not (sampling.temperature or sampling.constraints or sampling.filters)
        return "greedy" if plain else "logits"

    def _compile(self, lead: int, parts: Parts, asked: Asked) -> Callable[..., Any]:
        model, backbone = self._model, self._backbone

        def unknown() -> Any:
            raise AssertionError("parts are all that is asked of this mask")

        def step(
            ids_BR: Tensor,
            slots_1R: Tensor,
            coordinates_1RA: Tensor,
            keys: list[Tensor],
            values: list[Tensor],
            place_R: Tensor,
            seen_N: Tensor,
        ) -> tuple[Tensor, ...]:
            x_BRD = model.inputs.embed_ids(ids_BR, slots_1R)  # type: ignore[attr-defined]
            view = MaskView(model.mask, unknown, unknown, parts=parts) if parts else None
            cache = Written(keys, values, place_R, seen_N.shape[0])
            hidden_BQD = backbone.layers(x_BRD, coordinates_1RA, view, cache, None)[:, lead:]
            if asked == "hidden":
                return (hidden_BQD,)
            logits_BQV = model.head.logits(hidden_BQD).float()  # type: ignore[attr-defined]
            if asked == "logits":
                return (logits_BQV,)
            probability_BQ = logits_BQV.softmax(dim=-1).amax(dim=-1)
            return logits_BQV, logits_BQV.argmax(dim=-1), probability_BQ

        # Compiled code is kept by code object; one of its own, or passes would share it. And by the
        # name of that, sizes that were seen to differ (heads of another model) become variables.
        step.__code__ = step.__code__.replace(co_name=f"step_{next(_NUMBERS)}")
        # Weights are inputs of the compiled function, so changed ones count. Whether the code fits
        # is not asked again, which takes as long as a layer: the key of the step says so.
        options: dict[str, Any] = {"guard_filter_fn": torch.compiler.skip_all_guards_unsafe}
        if self._on_cpu:
            options["cpp_wrapper"] = True  # the calls between kernels in C++ too
        made: Callable[..., Any] = torch.compile(step, fullgraph=True, options=options)
        return made

    def _run(
        self,
        step: Callable[..., Any],
        ids_BR: Tensor,
        slots_1R: Tensor,
        coordinates_1RA: Tensor,
        cache: Cache,
    ) -> Sequence[Tensor]:
        if self._index_N.shape[0] < cache.capacity or self._index_N.device != ids_BR.device:
            self._index_N = torch.arange(2 * cache.capacity, device=ids_BR.device)
        first = cache.uniform
        assert first is not None
        cache.begin(slots_1R, None)
        place_R, seen_N = self._index_N[first : cache.visible], self._index_N[: cache.visible]
        torch._dynamo.maybe_mark_dynamic(seen_N, 0)
        if not cache.marked:
            cache.marked = True
            for buffer in (*cache.keys, *cache.values):
                torch._dynamo.maybe_mark_dynamic(buffer, 2)
        made: Sequence[Tensor] = step(
            ids_BR, slots_1R, coordinates_1RA, cache.keys, cache.values, place_R, seen_N
        )
        return made
