"""Block diffusion: blocks in order, masked diffusion inside a block (SDAR; BD3-LM)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from seqgen.commits import CommitRule, ConfidenceQuota, EntropyBound, Sequential, Threshold, Ties
from seqgen.decoders.base import GroupDecoder
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

    Attributes:
        block_length: slots a block (K); 1 decodes token by token.
        steps: passes a block at most (S); 0 means `block_length`.
        remasking: `sequential`, `low_confidence_static` (the K/S most confident a pass),
            `low_confidence_dynamic` (all above `threshold`, at least K/S) or `entropy_bounded`
            (rising entropy while the sum stays below `entropy_bound`).
        threshold: confidence of the dynamic strategy.
        entropy_bound: nats, of the entropy-bounded strategy.
        ties: which of equally confident slots go first (`topk`: as SDAR's generate.py).
        sampling: greedy by default; `Sampling.confidence` chooses the definition of confidence.
        stop_ids: values that end a row.
        cached: False recomputes everything in every pass (for comparisons).
        fused_commit: False spends a pass a block on writing the cache, as published loops do.
    """

    block_length: int = 4
    steps: int = 0
    remasking: Remasking = "low_confidence_dynamic"
    threshold: float = 0.85
    entropy_bound: float = 0.35
    ties: Ties = "earliest"
    sampling: Sampling = GREEDY
    stop_ids: tuple[int, ...] = ()
    cached: bool = True
    fused_commit: bool = True

    def __post_init__(self) -> None:
        if self.block_length < 1:
            raise ValueError(f"block_length must be at least 1, not {self.block_length}")
        if self.steps < 0:
            raise ValueError(f"steps must be 0 or more, not {self.steps}")

    def rule(self) -> CommitRule:
        """The commit rule of the chosen strategy."""
        steps = min(self.steps or self.block_length, self.block_length)
        rules: dict[str, CommitRule] = {
            "sequential": Sequential(steps),
            "low_confidence_static": ConfidenceQuota(steps, self.ties),
            "low_confidence_dynamic": Threshold(steps, self.threshold, self.ties),
            "entropy_bounded": EntropyBound(self.entropy_bound),
        }
        if self.remasking not in rules:
            raise ValueError(f"unknown remasking {self.remasking!r}: {', '.join(rules)}")
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
