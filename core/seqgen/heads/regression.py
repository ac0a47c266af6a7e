"""The regression head: one number a channel, without a distribution.

Shapes: B rows, Q open slots, D width, C channels of a value.
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from seqgen.heads.base import Proposal, Request
from seqgen.heads.continuous import refuse_processors
from seqgen.linear import Linear

Error = Literal["mse", "l1", "huber"]


class RegressionHead(nn.Module):
    """A linear layer to the value itself.

    It proposes the same at any temperature, and its confidence is 1 everywhere: it cannot tell
    which slot it knows best, so rules that commit the most confident slots go from left to right.

    Args:
        width: hidden width D.
        channels: numbers a value C.
        error: what is minimised. `mse`: (y - x)^2, which makes it the mean; `l1`: |y - x|, the
            median; `huber`: (y - x)^2 / 2 within `delta`, delta (|y - x| - delta / 2) beyond
            (Huber 1964).
        delta: in units of the values.
    """

    def __init__(
        self, width: int, channels: int, *, error: Error = "mse", delta: float = 1.0
    ) -> None:
        super().__init__()
        if error not in ("mse", "l1", "huber"):
            raise ValueError(f"unknown error {error!r}: mse, l1, huber")
        if delta <= 0:
            raise ValueError(f"delta must be positive, not {delta}")
        self.channels, self.error, self.delta = channels, error, delta
        self.projection = Linear(width, channels)

    def values(self, hidden_BQD: Tensor) -> Tensor:
        """Values float32 [B, Q, C]."""
        x: Tensor = self.projection(hidden_BQD).float()
        return x

    def propose(self, hidden_BQD: Tensor, request: Request) -> Proposal:
        """The value."""
        refuse_processors(self, request.sampling)
        values = self.values(hidden_BQD)
        return Proposal(values, values.new_ones(values.shape[:2]))

    def loss(self, hidden_BQD: Tensor, targets: Tensor) -> Tensor:
        """Mean error over the channels [B, Q]; targets [B, Q, C]."""
        values, targets = self.values(hidden_BQD), targets.float()
        if self.error == "mse":
            loss = F.mse_loss(values, targets, reduction="none")
        elif self.error == "l1":
            loss = F.l1_loss(values, targets, reduction="none")
        else:
            loss = F.huber_loss(values, targets, reduction="none", delta=self.delta)
        return loss.mean(dim=-1)
