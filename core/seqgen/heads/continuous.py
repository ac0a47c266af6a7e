"""What the heads of continuous values share: distributions, sampling and confidence.

A value is a vector of C numbers, which these heads take as independent given the hidden state (only
`FlowHead` samples them jointly). For each number the head gives parameters of a distribution, and
these stay with the value: `head.distribution(generated.parameters).quantile((0.1, 0.9))`.

Temperature T multiplies the variance: the distance of a sample from the centre is scaled by
sqrt(T). For a Gaussian that is p^(1/T), as dividing logits by T is. T = 0 takes the centre.

Confidence of a value is p / (1 + p), p being the geometric mean over its numbers of their density:
0.5 where the density is 1, close to 1 where the distribution is narrow and the value typical. A
density has a unit, so it ranks the slots of one model (which is what commit rules do), but is no
probability; thresholds depend on how the values are scaled.

Shapes: B rows, Q open slots, D width, C channels of a value, P parameters of a number, K levels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Protocol

import torch
from torch import Tensor, nn

from seqgen import noise
from seqgen.heads.base import Proposal, Request
from seqgen.linear import Linear
from seqgen.logits import Sampling


class Distribution(Protocol):
    """Distributions of numbers, one a place of a shape [...]."""

    @property
    def mean(self) -> Tensor:
        """[...]"""
        ...

    @property
    def centre(self) -> Tensor:
        """The value without sampling, [...]: the mean, or the median where it is better known."""
        ...

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density of values [...] in nats, [...]."""
        ...

    def quantile(self, levels: Sequence[float]) -> Tensor:
        """Quantiles [..., K] at levels in (0, 1)."""
        ...

    def sample(self, u: Tensor, v: Tensor) -> Tensor:
        """One sample a place from two independent uniform numbers in (0, 1), [...] each."""
        ...

    def spread(self, factor: float) -> Distribution:
        """The same with distances from the centre multiplied."""
        ...


class DistributionHead(nn.Module):
    """Base of the heads that give a distribution of each number: a linear layer to its parameters.

    Trained by the negative log-likelihood, unless a head says otherwise.

    Args:
        width: hidden width D.
        channels: numbers a value C.
        parameters: parameters a number P.
    """

    def __init__(self, width: int, channels: int, parameters: int) -> None:
        super().__init__()
        self.channels = channels
        self.projection = Linear(width, channels * parameters)

    def parameters_of(self, hidden_BQD: Tensor) -> Tensor:
        """Parameters float32 [B, Q, C, P], as `distribution` reads them."""
        raw = self.projection(hidden_BQD).float().unflatten(-1, (self.channels, -1))
        return self.constrain(raw)

    def constrain(self, raw_BQCP: Tensor) -> Tensor:
        """Parameters in their range from unbounded numbers."""
        raise TypeError(f"{type(self).__name__} must define constrain()")

    def distribution(self, parameters_BQCP: Tensor) -> Distribution:
        """The distribution [B, Q, C] of these parameters."""
        raise TypeError(f"{type(self).__name__} must define distribution()")

    def propose(self, hidden_BQD: Tensor, request: Request) -> Proposal:
        """The centre, or a sample, with the parameters beside it."""
        refuse_processors(self, request.sampling)
        parameters = self.parameters_of(hidden_BQD)
        own = drawn_from = self.distribution(parameters)
        temperature = request.sampling.temperature
        if temperature == 0:
            values = own.centre
        else:
            if temperature != 1:
                drawn_from = own.spread(math.sqrt(temperature))
            values = drawn_from.sample(*_uniform_pair(request, self.channels))
        judge = own if request.sampling.confidence == "raw" else drawn_from
        confidence = density_confidence(judge.log_prob(values))
        return Proposal(values, confidence, parameters=parameters)

    def loss(self, hidden_BQD: Tensor, targets: Tensor) -> Tensor:
        """-log p(target) in nats a number: mean over the channels, [B, Q]; targets [B, Q, C]."""
        distribution = self.distribution(self.parameters_of(hidden_BQD))
        return -distribution.log_prob(targets.float()).mean(dim=-1)


def density_confidence(log_p_BQC: Tensor) -> Tensor:
    """p / (1 + p) [B, Q], p the geometric mean of the channels' densities."""
    return log_p_BQC.mean(dim=-1).sigmoid()


def refuse_processors(head: nn.Module, sampling: Sampling) -> None:
    """Raise a `ValueError` if the sampling asks for processors of logits."""
    if sampling.constraints or sampling.filters:
        raise ValueError(
            f"{type(head).__name__} gives continuous values: it has no logits that constraints or "
            "filters could change"
        )


def _uniform_pair(request: Request, channels: int) -> tuple[Tensor, Tensor]:
    """Two uniform numbers a channel, [B, Q, C] each."""
    u = noise.uniform(request.canvas.seeds_B, request.slots_BQ, request.draw, 2 * channels)
    first, second = u.chunk(2, dim=-1)
    return first, second


def level_tensor(levels: Sequence[float], like: Tensor) -> Tensor:
    """Quantile levels as a tensor [K].

    Raises:
        ValueError: they do not lie in (0, 1).
    """
    if not levels or not all(0 < level < 1 for level in levels):
        raise ValueError(f"quantile levels must lie in (0, 1), not {tuple(levels)}")
    return _levels(tuple(levels), like.dtype, like.device)


@lru_cache(maxsize=64)
def _levels(levels: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Kept, so that no step of a decode copies them to the device."""
    with torch.inference_mode(False):  # what is made in a decode may serve in training
        return torch.tensor(levels, dtype=dtype, device=device)
