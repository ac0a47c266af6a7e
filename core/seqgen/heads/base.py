"""What a head gets and gives.

Shapes: B rows, Q open slots, D width, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from seqgen.canvas import Canvas
from seqgen.logits import Sampling


@dataclass(frozen=True)
class Request:
    """What to propose for: slots of a canvas, how to sample, and which draw of the slots' noise."""

    canvas: Canvas
    slots_BQ: Tensor
    sampling: Sampling
    draw: int


@dataclass(frozen=True)
class Proposal:
    """Values proposed for slots.

    Attributes:
        values: ids [B, Q] or vectors [B, Q, C].
        confidence_BQ: by the definition that `Sampling.confidence` names.
        logits_BQV: after all processors; None for heads without a finite vocabulary.
    """

    values: Tensor
    confidence_BQ: Tensor
    logits_BQV: Tensor | None = None


class Head(Protocol):
    """Hidden state -> proposal, and -> loss."""

    def propose(self, hidden_BQD: Tensor, request: Request) -> Proposal:
        """Propose a value for each slot."""
        ...

    def loss(self, hidden_BQD: Tensor, targets: Tensor) -> Tensor:
        """Loss of each slot, [B, Q]."""
        ...
