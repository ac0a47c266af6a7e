"""Proposals only where they can stand: for commit rules that choose slots without looking.

Where the order is random (MAR), which slots a pass decides is known before it proposes anything. A
head that samples in many small steps need then run for those slots alone, not for all open ones.

Shapes: B rows, Q slots of the group, N slots chosen, D width, C channels of a value.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from seqgen.canvas import take
from seqgen.commits import ScheduledConfidence
from seqgen.heads.base import Head, Proposal, Request


class ChosenHead(nn.Module):
    """The same head, run for the slots that the rule is about to keep.

    The others get zeros, which the rule does not keep. Rows use all their slots.

    Args:
        head: any head.
        rule: with `rank="random"`.
    """

    def __init__(self, head: Head, rule: ScheduledConfidence) -> None:
        super().__init__()
        self.head = head
        self.rule = rule
        self._size_B = torch.empty(0)

    def propose(self, hidden_BQD: Tensor, request: Request) -> Proposal:
        canvas, slots_BQ = request.canvas, request.slots_BQ.expand(request.canvas.batch, -1)
        open_BQ = canvas.open_at(slots_BQ, None)
        if request.draw == 0:
            self._size_B = open_BQ.sum(dim=1)
        keep_BQ = self.rule(None, open_BQ, self._size_B, request)
        # Asking the device costs less than the steps of the sampler for slots that are not kept.
        most = int(keep_BQ.sum(dim=1).max())
        index_BN = keep_BQ.byte().topk(most, dim=1).indices.sort(dim=1).values
        branches = hidden_BQD.shape[0] // canvas.batch
        hidden_BND = take(hidden_BQD, index_BN.repeat(branches, 1))
        own = self.head.propose(hidden_BND, replace(request, slots_BQ=slots_BQ.gather(1, index_BN)))
        return Proposal(
            _spread(own.values, index_BN, keep_BQ.shape[1]),
            _spread(own.confidence_BQ, index_BN, keep_BQ.shape[1]),
            parameters=None
            if own.parameters is None
            else _spread(own.parameters, index_BN, keep_BQ.shape[1]),
        )

    def loss(self, hidden_BQD: Tensor, targets: Tensor) -> Tensor:
        """The loss of the head itself."""
        return self.head.loss(hidden_BQD, targets)


def _spread(own: Tensor, index_BN: Tensor, slots: int) -> Tensor:
    """Values [B, N, ...] at their places of [B, Q, ...], zeros elsewhere."""
    wide = index_BN.view(*index_BN.shape, *[1] * (own.dim() - 2)).expand_as(own)
    return own.new_zeros(len(own), slots, *own.shape[2:]).scatter(1, wide, own)
