"""Autoregressive decoding: one slot after the other, greedy or sampled."""

from __future__ import annotations

from dataclasses import dataclass

from seqgen.commits import All
from seqgen.decoders.base import GroupDecoder
from seqgen.logits import GREEDY, Sampling
from seqgen.loop import Recipe
from seqgen.model import SequenceModel
from seqgen.orders import Raster


@dataclass(frozen=True, kw_only=True)
class Autoregressive(GroupDecoder):
    """Decode token by token.

    Works with shifted inputs (the usual causal model) and with masked inputs (a block-diffusion
    model run with blocks of one).

    Attributes:
        stop_ids: values that end a row.
        sampling: greedy by default.
        cached: False recomputes everything in every step (for comparisons).
    """

    stop_ids: tuple[int, ...] = ()
    sampling: Sampling = GREEDY
    cached: bool = True

    def recipe(self, model: SequenceModel) -> Recipe:
        return Recipe(
            order=Raster(),
            commit=All(),
            sampling=self.sampling,
            stop_ids=self.stop_ids,
            cached=self.cached,
        )
