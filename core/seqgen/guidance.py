"""Classifier-free guidance: two branches of every row in one batch.

Ho and Salimans 2022 (arXiv 2207.12598), eq. 6: guided = unconditional + scale * (conditional -
unconditional), of logits, or of what a flow or diffusion head predicts in every step. The branches
are the conditional and the unconditional context of the same canvas; each keeps its own keys and
values. The scale may follow a schedule over the passes of a decode.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from seqgen.heads.base import Head, Proposal, Request
from seqgen.heads.categorical import CategoricalHead
from seqgen.heads.flow import Field
from seqgen.logits import sample_from
from seqgen.model import Context, SequenceModel

Schedule = Callable[[int, int], float]
"""(pass, passes) -> guidance scale."""


@dataclass(frozen=True)
class Guidance:
    """How the scale changes while a sequence is decoded.

    With x = pass / (passes - 1) from 0 to 1, `scale` s and `start` a:

        constant    s
        linear      a + (s - a) x                                (VAR: a = 1, s = 1 + its cfg)
        cosine      a + (s - a) (1 - cos(pi x)) / 2
        interval    s in passes first .. last, else 1            (LlamaGen's cfg_interval: first 0)

    Attributes:
        scale: 1 is the conditional model, 0 the unconditional one, more than 1 sharpens.
        schedule: which of the above.
        start: scale of the first pass (linear, cosine).
        first, last: passes of the interval, counted from 0; last -1 is the last pass.
    """

    scale: float
    schedule: Literal["constant", "linear", "cosine", "interval"] = "constant"
    start: float = 1.0
    first: int = 0
    last: int = -1

    def __post_init__(self) -> None:
        if self.schedule not in ("constant", "linear", "cosine", "interval"):
            raise ValueError(
                f"unknown guidance schedule {self.schedule!r}: constant, linear, cosine, interval"
            )
        if min(self.scale, self.start) < 0:
            raise ValueError(f"guidance must be 0 or more, not {min(self.scale, self.start)}")

    def __call__(self, step: int, steps: int) -> float:
        if self.schedule == "constant":
            return self.scale
        if self.schedule == "interval":
            last = steps - 1 if self.last < 0 else self.last
            return self.scale if self.first <= step <= last else 1.0
        x = step / max(steps - 1, 1)
        if self.schedule == "cosine":
            x = (1 - math.cos(math.pi * x)) / 2
        return self.start + (self.scale - self.start) * x


class GuidedModel(SequenceModel):
    """A guided model; decode with `guided_context(conditional, unconditional)`.

    Args:
        model: the model to guide, with a categorical head or one that samples along a field.
        scale: a constant scale, or a schedule.
    """

    branches = 2

    def __init__(self, model: SequenceModel, *, scale: float | Schedule) -> None:
        head: Head
        if isinstance(scale, int | float):
            scale = Guidance(scale)
        if isinstance(model.head, LogitsHead):
            head = GuidedHead(model.head, scale)
        elif isinstance(model.head, FieldHead):
            head = GuidedFieldHead(model.head, scale)
        else:
            raise ValueError(
                f"guidance needs logits or a field, which {type(model.head).__name__} has not"
            )
        super().__init__(inputs=model.inputs, backbone=model.backbone, head=head, mask=model.mask)


@runtime_checkable
class LogitsHead(Protocol):
    """A head over a finite vocabulary."""

    def propose(self, hidden_BQD: Tensor, request: Request) -> Proposal:
        """Propose a value for each slot."""
        ...

    def logits(self, hidden_BQD: Tensor) -> Tensor:
        """Logits [B, Q, V]."""
        ...

    def loss(self, hidden_BQD: Tensor, targets: Tensor) -> Tensor:
        """Loss of each slot."""
        ...


class GuidedHead(torch.nn.Module):
    """Combines the logits of the two halves of the batch."""

    def __init__(self, head: LogitsHead, scale: Schedule) -> None:
        super().__init__()
        self.head = head
        self.scale = scale

    def propose(self, hidden_BQD: Tensor, request: Request) -> Proposal:
        scale = self.scale(request.step, request.steps)
        # This head is linear, so one set of logits will do; heads derived from it may not be.
        if type(self.head) is CategoricalHead and hidden_BQD.dtype == torch.float32:
            return sample_from(self.head.logits(_guided(hidden_BQD, scale)), request)
        return sample_from(_guided(self.head.logits(hidden_BQD).float(), scale), request)

    def loss(self, hidden_BQD: Tensor, targets: Tensor) -> Tensor:
        """The loss of the model itself: guidance is for decoding."""
        return self.head.loss(hidden_BQD, targets)


@runtime_checkable
class FieldHead(Protocol):
    """A head that samples in steps, each led by a prediction for the present noisy values.

    `FlowHead` is one (the prediction is a velocity), a diffusion head is another (the noise).
    """

    def field(self, hidden_BQD: Tensor) -> Field:
        """What the network predicts, as a function of (noisy values, time)."""
        ...

    def sample(self, field: Field, request: Request) -> Proposal:
        """Values along any field."""
        ...

    def loss(self, hidden_BQD: Tensor, targets: Tensor) -> Tensor:
        """Loss of each slot."""
        ...


class GuidedFieldHead(torch.nn.Module):
    """Combines the fields of the two halves of the batch, which share noise and noisy values."""

    def __init__(self, head: FieldHead, scale: Schedule) -> None:
        super().__init__()
        self.head = head
        self.scale = scale

    def propose(self, hidden_BQD: Tensor, request: Request) -> Proposal:
        both = self.head.field(hidden_BQD)
        scale = self.scale(request.step, request.steps)

        def guided(x_BQC: Tensor, t: Tensor) -> Tensor:
            with_context, without = both(x_BQC.repeat(2, 1, 1), t).chunk(2, dim=0)
            channels = x_BQC.shape[-1]
            if with_context.shape[-1] == channels:
                return without + scale * (with_context - without)
            # What comes beside the prediction (a variance) is the conditional branch's own.
            first, base = with_context[..., :channels], without[..., :channels]
            rest = with_context[..., channels:]
            return torch.cat([base + scale * (first - base), rest], dim=-1)

        return self.head.sample(guided, request)

    def loss(self, hidden_BQD: Tensor, targets: Tensor) -> Tensor:
        """The loss of the model itself: guidance is for decoding."""
        return self.head.loss(hidden_BQD, targets)


def _guided(both: Tensor, scale: float) -> Tensor:
    with_context, without = both.chunk(2, dim=0)
    return torch.lerp(without, with_context, scale)


def guided_context(conditional: Context, unconditional: Context) -> Context:
    """Both contexts in one batch, conditional rows first."""
    return Context(
        states_BTD=_join(conditional.states_BTD, unconditional.states_BTD),
        valid_BT=_join(conditional.valid_BT, unconditional.valid_BT),
        given_BSD=_join(conditional.given_BSD, unconditional.given_BSD),
        condition_BD=_join(conditional.condition_BD, unconditional.condition_BD),
    )


def _join(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    if first is None and second is None:
        return None
    if first is None or second is None:
        raise ValueError("both contexts must have the same parts")
    return torch.cat([first, second])
