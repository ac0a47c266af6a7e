"""Classifier-free guidance: two branches of every row in one batch.

Ho and Salimans 2022 (arXiv 2207.12598), eq. 6: logits = unconditional + scale * (conditional -
unconditional). The branches are the conditional and the unconditional context of the same canvas;
each keeps its own keys and values.
"""

from __future__ import annotations

import torch
from torch import Tensor

from seqgen.heads.base import Proposal, Request
from seqgen.heads.categorical import CategoricalHead
from seqgen.logits import sample_from
from seqgen.model import Context, SequenceModel


class GuidedModel(SequenceModel):
    """A model whose logits are guided; decode with `guided_context(conditional, unconditional)`.

    Args:
        model: the model to guide, with a categorical head.
        scale: 1 is the conditional model, 0 the unconditional one, more than 1 sharpens.
    """

    branches = 2

    def __init__(self, model: SequenceModel, *, scale: float) -> None:
        if not isinstance(model.head, CategoricalHead):
            raise ValueError("guidance of logits needs a categorical head")
        super().__init__(
            inputs=model.inputs,
            backbone=model.backbone,
            head=GuidedHead(model.head, scale),
            mask=model.mask,
        )


class GuidedHead(torch.nn.Module):
    """Combines the two halves of the batch."""

    def __init__(self, head: CategoricalHead, scale: float) -> None:
        super().__init__()
        self.head = head
        self.scale = scale

    def propose(self, hidden_BQD: Tensor, request: Request) -> Proposal:
        with_context, without = self.head.logits(hidden_BQD).float().chunk(2, dim=0)
        return sample_from(without + self.scale * (with_context - without), request)

    def loss(self, hidden_BQD: Tensor, targets: Tensor) -> Tensor:
        """The loss of the model itself: guidance is for decoding."""
        return self.head.loss(hidden_BQD, targets)


def guided_context(conditional: Context, unconditional: Context) -> Context:
    """Both contexts in one batch, conditional rows first."""
    return Context(
        states_BTD=_join(conditional.states_BTD, unconditional.states_BTD),
        valid_BT=_join(conditional.valid_BT, unconditional.valid_BT),
        given_BSD=_join(conditional.given_BSD, unconditional.given_BSD),
    )


def _join(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    if first is None and second is None:
        return None
    if first is None or second is None:
        raise ValueError("both contexts must have the same parts")
    return torch.cat([first, second])
