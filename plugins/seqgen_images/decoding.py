"""How an image is decoded: the options, and the recipe of each engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from seqgen.commits import All, CommitRule, ConfidenceQuota, ScheduledConfidence, Threshold
from seqgen.decoders import Ordered
from seqgen.decoders.base import Decoder
from seqgen.logits import LogitsProcessor, Sampling, TopK, TopP
from seqgen.orders import Order


@dataclass(frozen=True, kw_only=True)
class DecodingConfig:
    """How to decode.

    Attributes:
        steps: passes a group at most (masked, block-diffusion, continuous); 0: the engine's own.
        temperature: of the samples; 0 takes the most probable token.
        top_k, top_p: filters of the tokens; 0 and 1 keep all.
        annealing: temperature of the noise on confidences in early passes (masked).
        schedule: how many tokens a pass leaves open (masked, continuous).
        remasking: which tokens of a block stand (block-diffusion).
        threshold: confidence of the dynamic strategy.
        cached: False recomputes everything in every pass.
    """

    steps: int = 0
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    annealing: float = 4.5
    schedule: Literal["cosine", "linear"] = "cosine"
    remasking: Literal["static", "dynamic"] = "dynamic"
    threshold: float = 0.9
    cached: bool = True

    def sampling(self) -> Sampling:
        """How values are chosen."""
        filters: list[LogitsProcessor] = []
        if self.top_k:
            filters.append(TopK(self.top_k))
        if self.top_p < 1:
            filters.append(TopP(self.top_p))
        return Sampling(temperature=self.temperature, filters=tuple(filters))


STEPS = {"masked": 10, "block-diffusion": 4, "continuous": 16}
"""Passes a group, where an engine refines groups."""


TEMPERATURES = {"next-scale": 0.9, "masked": 0.8}
"""Our own models' temperatures where 1 is not the best: chosen by eye and by the judge."""


def engine_decoder(engine: str, order: Order, config: DecodingConfig) -> Decoder:
    """The recipe of an engine."""
    steps = config.steps or STEPS.get(engine, 1)
    commit: CommitRule = All()
    if engine == "masked":
        commit = ScheduledConfidence(steps, config.schedule, annealing=config.annealing)
    elif engine == "continuous":
        commit = ScheduledConfidence(steps, config.schedule, rank="random")
    elif engine == "block-diffusion":
        dynamic = config.remasking == "dynamic"
        commit = Threshold(steps, config.threshold) if dynamic else ConfidenceQuota(steps)
    return Ordered(order=order, commit=commit, sampling=config.sampling(), cached=config.cached)
