"""Logits processors and sampling.

Constraints (banned values, repetition penalty, guidance, a domain's physics) act on the raw logits;
then comes the temperature, then filters that truncate the distribution (top-k, top-p, min-p).
Sampling inverts the cumulative distribution with one counter-based uniform number a slot, without a
device sync and without a generator.

Shapes: B rows, Q open slots, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from seqgen import noise
from seqgen.canvas import COMMITTED, Canvas

if TYPE_CHECKING:
    from seqgen.heads.base import Proposal, Request

NEVER = float("-inf")

Confidence = Literal["raw", "temperature", "filtered"]
"""Which probability of the chosen value counts as its confidence; published systems differ.

`raw`: softmax of the logits as the model gave them (diffusers). `temperature`: after temperature
only (JetEngine). `filtered`: after temperature and filters, renormalised (SDAR's generate.py).
"""


class LogitsProcessor(Protocol):
    """Maps logits to logits; may look at the canvas and the slots the logits are for."""

    def __call__(self, logits_BQV: Tensor, canvas: Canvas, slots_BQ: Tensor) -> Tensor:
        """New logits [B, Q, V] (another tensor, or the same one changed in place)."""
        ...


@dataclass(frozen=True)
class Sampling:
    """How a value is chosen from logits.

    Attributes:
        temperature: 0 takes the most probable value (filters then change nothing but a `filtered`
            confidence); otherwise logits are divided by it.
        constraints: processors of the raw logits.
        filters: processors after the temperature.
        confidence: which probability is the confidence.
    """

    temperature: float = 0.0
    constraints: tuple[LogitsProcessor, ...] = ()
    filters: tuple[LogitsProcessor, ...] = ()
    confidence: Confidence = "raw"

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise ValueError(f"temperature must be 0 or more, not {self.temperature}")


GREEDY = Sampling()
"""The most probable value."""


@dataclass(frozen=True)
class TopK:
    """Keep the k most probable values, and any that are just as probable as the last of them."""

    k: int

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"top-k must be at least 1, not {self.k}")

    def __call__(self, logits_BQV: Tensor, canvas: Canvas, slots_BQ: Tensor) -> Tensor:
        if self.k >= logits_BQV.shape[-1]:
            return logits_BQV
        return _at_least(logits_BQV, _kth_largest(logits_BQV, self.k))


@dataclass(frozen=True)
class TopP:
    """Keep the smallest set of values whose probability reaches p (nucleus; Holtzman 2020).

    Of values that are equally probable it keeps all or none.
    """

    p: float

    def __post_init__(self) -> None:
        if not 0 < self.p <= 1:
            raise ValueError(f"top-p must lie in (0, 1], not {self.p}")

    def __call__(self, logits_BQV: Tensor, canvas: Canvas, slots_BQ: Tensor) -> Tensor:
        ordered = _descending(logits_BQV)
        probability = ordered.softmax(dim=-1)
        # A value stays while the mass before it is below p; so the first always stays.
        before = probability.cumsum(dim=-1) - probability
        last = (before < self.p).sum(dim=-1, keepdim=True).clamp(min=1) - 1
        return _at_least(logits_BQV, ordered.gather(-1, last))


@dataclass(frozen=True)
class MinP:
    """Keep values at least p times as probable as the most probable one."""

    p: float

    def __post_init__(self) -> None:
        if not 0 <= self.p <= 1:
            raise ValueError(f"min-p must lie in [0, 1], not {self.p}")

    def __call__(self, logits_BQV: Tensor, canvas: Canvas, slots_BQ: Tensor) -> Tensor:
        if self.p == 0:
            return logits_BQV
        floor = logits_BQV.amax(dim=-1, keepdim=True) + torch.log(torch.tensor(self.p))
        return logits_BQV.masked_fill(logits_BQV < floor, NEVER)


@dataclass(frozen=True)
class RepetitionPenalty:
    """Make values that the row already holds less likely (Keskar et al. 2019, CTRL, eq. 1).

    Positive logits are divided by the penalty, negative ones multiplied.
    """

    penalty: float

    def __post_init__(self) -> None:
        if self.penalty <= 0:
            raise ValueError(f"the repetition penalty must be positive, not {self.penalty}")

    def __call__(self, logits_BQV: Tensor, canvas: Canvas, slots_BQ: Tensor) -> Tensor:
        batch, _, vocabulary = logits_BQV.shape
        seen_BV = torch.zeros(batch, vocabulary, device=logits_BQV.device)
        # A prompt may hold ids that are never generated (a start token).
        counted = (canvas.state_BS == COMMITTED) & (canvas.values < vocabulary)
        seen_BV.scatter_add_(1, canvas.values.clamp(max=vocabulary - 1), counted.float())
        scaled = torch.where(logits_BQV > 0, logits_BQV / self.penalty, logits_BQV * self.penalty)
        return torch.where((seen_BV > 0)[:, None, :], scaled, logits_BQV)


@dataclass(frozen=True)
class Ban:
    """Never choose these values (the mask id, padding)."""

    ids: tuple[int, ...]

    def __call__(self, logits_BQV: Tensor, canvas: Canvas, slots_BQ: Tensor) -> Tensor:
        logits_BQV = logits_BQV.clone()
        for i in self.ids:
            if i < logits_BQV.shape[-1]:
                logits_BQV[..., i] = NEVER
        return logits_BQV


def _at_least(logits: Tensor, least: Tensor) -> Tensor:
    return torch.where(logits >= least, logits, NEVER)


def _kth_largest(logits: Tensor, k: int) -> Tensor:
    """The k-th largest of every row [..., 1]."""
    if k == 1:
        return logits.detach().amax(dim=-1, keepdim=True)
    if _numpy_sorts(logits):
        place = logits.shape[-1] - k
        found = np.partition(logits.detach().numpy(), place, axis=-1)[..., place : place + 1]
        return torch.from_numpy(np.ascontiguousarray(found))
    return logits.detach().topk(k, dim=-1, sorted=False).values.amin(dim=-1, keepdim=True)


def _descending(logits: Tensor) -> Tensor:
    """The values of every row, the largest first."""
    if _numpy_sorts(logits):
        return torch.from_numpy(np.sort(logits.detach().numpy(), axis=-1)).flip(-1)
    return logits.detach().sort(dim=-1, descending=True).values


def _most_probable(logits: Tensor) -> Tensor:
    """The first of the largest values of every row [...]."""
    if _numpy_sorts(logits):
        # torch looks at one number at a time.
        return torch.from_numpy(np.asarray(logits.detach().numpy().argmax(axis=-1)))
    return logits.argmax(dim=-1)


def _numpy_sorts(logits: Tensor) -> bool:
    """On a CPU numpy sorts values 20 times as fast as torch, which sorts their indices too."""
    return logits.device.type == "cpu" and logits.dtype == torch.float32


def sample_from(logits_BQV: Tensor, request: Request) -> Proposal:
    """Choose one value a slot from raw logits."""
    from seqgen.heads.base import Proposal

    sampling, canvas, slots = request.sampling, request.canvas, request.slots_BQ
    logits = logits_BQV.float()
    for processor in sampling.constraints:
        logits = processor(logits, canvas, slots)
    raw = logits
    if sampling.temperature > 0 and sampling.temperature != 1:
        logits = logits / sampling.temperature
    tempered = logits
    for processor in sampling.filters:
        logits = processor(logits, canvas, slots)

    source = {"raw": raw, "temperature": tempered, "filtered": logits}[sampling.confidence]
    if sampling.temperature == 0:
        values = _most_probable(raw)
        probability = source.softmax(dim=-1)
    else:
        chosen_from = logits.softmax(dim=-1)
        u_BQ = noise.uniform(canvas.seeds_B, slots, request.draw)
        values = invert_cumulative(chosen_from.cumsum(dim=-1), u_BQ)
        probability = chosen_from if source is logits else source.softmax(dim=-1)
    if source is raw and sampling.temperature == 0:
        confidence = probability.amax(dim=-1)  # the chosen value is the most probable one
    else:
        confidence = probability.gather(-1, values[..., None]).squeeze(-1)
    return Proposal(values, confidence, logits_BQV=logits, scores_BQV=source)


def invert_cumulative(cumulative_BQV: Tensor, u_BQ: Tensor) -> Tensor:
    """Sample ids [B, Q] from cumulative mass of any total, with one uniform number a slot."""
    target = u_BQ[..., None] * cumulative_BQV[..., -1:]
    # right=True: the first value whose cumulative mass exceeds u, never one of mass zero.
    values = torch.searchsorted(cumulative_BQV, target, right=True).squeeze(-1)
    return values.clamp(max=cumulative_BQV.shape[-1] - 1)
