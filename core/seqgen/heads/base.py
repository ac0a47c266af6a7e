"""What a head gets and gives.

Shapes: B rows, Q open slots, D width, V vocabulary, C channels of a continuous value, P parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from seqgen.canvas import Canvas
from seqgen.logits import Sampling


@dataclass(slots=True)  # not frozen: one is made in every pass, in a third of the time
class Request:
    """What to propose for.

    Attributes:
        canvas, slots_BQ: slots of a canvas.
        sampling: how to choose values.
        draw: which draw of the slots' noise; in the loop the number of the pass within the group.
        step, steps: which pass of how many the decode takes at most, for schedules (guidance,
            temperatures). Host numbers; 0 of 1 where a decoder does not count.
        size: slots of the group that quotas divide, where all rows agree; a host number, or None.
    """

    canvas: Canvas
    slots_BQ: Tensor
    sampling: Sampling
    draw: int
    step: int = 0
    steps: int = 1
    size: int | None = None


@dataclass(slots=True)  # not frozen: one is made in every pass, in a third of the time
class Proposal:
    """Values proposed for slots.

    Attributes:
        values: ids [B, Q] or vectors [B, Q, C].
        confidence_BQ: by the definition that `Sampling.confidence` names; for continuous values
            see `heads.continuous`.
        logits_BQV: after all processors; None for heads without a finite vocabulary.
        scores_BQV: the logits whose softmax is the confidence; None where that is `logits_BQV`.
        parameters: float32 [B, Q, C, P], the distribution of each number of continuous values at
            temperature 1, which the head's `distribution(parameters)` reads (mean and standard
            deviation, quantiles); None for heads that do not know it.
    """

    values: Tensor
    confidence_BQ: Tensor
    logits_BQV: Tensor | None = None
    scores_BQV: Tensor | None = None
    parameters: Tensor | None = None

    def confidence_in(self, values_BQ: Tensor) -> Tensor:
        """Confidence [B, Q] in other ids than the proposed ones."""
        scores_BQV = self.logits_BQV if self.scores_BQV is None else self.scores_BQV
        if scores_BQV is None:
            raise ValueError("only a head with logits has a confidence in any value")
        log_p = scores_BQV.log_softmax(dim=-1)
        return log_p.gather(-1, values_BQ[..., None]).squeeze(-1).exp()

    @staticmethod
    def join(proposals: Sequence[Proposal]) -> Proposal:
        """Proposals for consecutive slots as one."""
        return Proposal(
            torch.cat([p.values for p in proposals], dim=1),
            torch.cat([p.confidence_BQ for p in proposals], dim=1),
            _join([p.logits_BQV for p in proposals]),
            _join([p.scores_BQV for p in proposals]),
            _join([p.parameters for p in proposals]),
        )


class Head(Protocol):
    """Hidden state -> proposal, and -> loss."""

    def propose(self, hidden_BQD: Tensor, request: Request) -> Proposal:
        """Propose a value for each slot."""
        ...

    def loss(self, hidden_BQD: Tensor, targets: Tensor) -> Tensor:
        """Loss of each slot, [B, Q], for ids [B, Q] or vectors [B, Q, C]."""
        ...


def _join(parts: Sequence[Tensor | None]) -> Tensor | None:
    present = [x for x in parts if x is not None]
    return torch.cat(present, dim=1) if present else None
