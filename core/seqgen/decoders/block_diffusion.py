"""Block diffusion: blocks in order, masked diffusion inside a block (SDAR; BD3-LM)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from seqgen.commits import CommitRule, ConfidenceQuota, EntropyBound, Sequential, Threshold, Ties
from seqgen.decoders.base import GroupDecoder
from seqgen.errors import ConfigError, did_you_mean
from seqgen.logits import GREEDY, Sampling
from seqgen.loop import Recipe
from seqgen.model import SequenceModel
from seqgen.orders import Blocks

Remasking = Literal[
    "sequential", "low_confidence_static", "low_confidence_dynamic", "entropy_bounded"
]


@dataclass(frozen=True, kw_only=True)
class BlockDiffusion(GroupDecoder):
    """Decode blocks of `block_length` slots, each in up to `steps` passes.

    The names of the strategies are SDAR's. Blocks are aligned to slot 0; the part of the prompt
    that does not fill a block lies as known slots in the first decoded block.

    What a pass commits is bounded by what is still masked, in every row: neither the prompt nor a
    committed token is ever changed. docs/block-diffusion.md says which settings reproduce which
    published system.

    Attributes:
        block_length: slots a block (K), at least 1; 1 decodes token by token.
        steps: passes a block at most (S); 0 means `block_length`, and so does more than that,
            since every pass commits a slot (SDAR's quota of K slots over S > K steps is one slot in
            each of the first K).
        remasking: `sequential` (the first masked slots, K/S a pass), `low_confidence_static` (the
            K/S most confident), `low_confidence_dynamic` (all above `threshold`, at least K/S) or
            `entropy_bounded` (rising entropy while the sum stays below `entropy_bound`, at least
            one; `steps` does not matter).
        threshold: confidence of the dynamic strategy, in 0..1.
        entropy_bound: nats, 0 or more, of the entropy-bounded strategy.
        entropy_own: a slot's own entropy counts in that sum (SDAR, JetEngine); False: only those
            before it (DiffusionGemma), which accepts a slot more.
        ties: which of equally confident slots go first (`topk`: as SDAR's generate.py).
        sampling: greedy by default; `Sampling.confidence` chooses the definition of confidence.
        stop_ids: values that end a row, each row at its own first one.
        cached: False recomputes everything in every pass (for comparisons).
        fused_commit: False spends a pass a block on writing the cache, as published loops do.

    Raises:
        ConfigError: a setting is out of its range.
    """

    block_length: int = 4
    steps: int = 0
    remasking: Remasking = "low_confidence_dynamic"
    threshold: float = 0.85
    entropy_bound: float = 0.35
    entropy_own: bool = True
    ties: Ties = "earliest"
    sampling: Sampling = GREEDY
    stop_ids: tuple[int, ...] = ()
    cached: bool = True
    fused_commit: bool = True

    def __post_init__(self) -> None:
        _whole("block_length", self.block_length, least=1)
        _whole("steps", self.steps, least=0)
        _within("threshold", self.threshold, most=1.0)
        _within("entropy_bound", self.entropy_bound, most=math.inf)
        _one_of("remasking", self.remasking, get_args(Remasking))
        _one_of("ties", self.ties, get_args(Ties))

    def rule(self) -> CommitRule:
        """The commit rule of the chosen strategy."""
        steps = min(self.steps or self.block_length, self.block_length)
        rules: dict[Remasking, CommitRule] = {
            "sequential": Sequential(steps),
            "low_confidence_static": ConfidenceQuota(steps, self.ties),
            "low_confidence_dynamic": Threshold(steps, self.threshold, self.ties),
            "entropy_bounded": EntropyBound(self.entropy_bound, strict=self.entropy_own),
        }
        return rules[self.remasking]

    def recipe(self, model: SequenceModel) -> Recipe:
        return Recipe(
            order=Blocks(self.block_length),
            commit=self.rule(),
            sampling=self.sampling,
            stop_ids=self.stop_ids,
            cached=self.cached,
            fused_commit=self.fused_commit,
        )


def _whole(name: str, value: object, *, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(
            f"{name} is {value!r}", fix=f"a whole number of at least {least}: {name}={least or 4}"
        )


def _within(name: str, value: float, *, most: float) -> None:
    if not 0 <= value <= most:  # also false for NaN
        span = "0 or more" if most == math.inf else f"from 0 to {most:g}"
        raise ConfigError(f"{name} is {value!r}", fix=f"a number {span}")


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ConfigError(f"{name} is {value!r}", fix=did_you_mean(str(value), known))
