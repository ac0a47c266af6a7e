"""Classifier-free guidance: two branches of every row in one batch.

Ho and Salimans 2022 (arXiv 2207.12598), eq. 6: guided = unconditional + scale * (conditional -
unconditional), of logits, or of what a flow or diffusion head predicts in every step. The branches
are the conditional and the unconditional context of the same canvas; each keeps its own keys and
values.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from seqgen.heads.base import Head, Proposal, Request
from seqgen.heads.categorical import CategoricalHead
from seqgen.heads.flow import Field
from seqgen.logits import sample_from
from seqgen.model import Context, SequenceModel


class GuidedModel(SequenceModel):
    """A guided model; decode with `guided_context(conditional, unconditional)`.

    Args:
        model: the model to guide, with a categorical head or one that samples along a field.
        scale: 1 is the conditional model, 0 the unconditional one, more than 1 sharpens.
    """

    branches = 2

    def __init__(self, model: SequenceModel, *, scale: float) -> None:
        head: Head
        if isinstance(model.head, CategoricalHead):
            head = GuidedHead(model.head, scale)
        elif isinstance(model.head, FieldHead):
            head = GuidedFieldHead(model.head, scale)
        else:
            raise ValueError(
                f"guidance needs logits or a field, which {type(model.head).__name__} has not"
            )
        super().__init__(inputs=model.inputs, backbone=model.backbone, head=head, mask=model.mask)


class GuidedHead(torch.nn.Module):
    """Combines the logits of the two halves of the batch."""

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

    def __init__(self, head: FieldHead, scale: float) -> None:
        super().__init__()
        self.head = head
        self.scale = scale

    def propose(self, hidden_BQD: Tensor, request: Request) -> Proposal:
        both = self.head.field(hidden_BQD)

        def guided(x_BQC: Tensor, t: Tensor) -> Tensor:
            with_context, without = both(x_BQC.repeat(2, 1, 1), t).chunk(2, dim=0)
            return without + self.scale * (with_context - without)

        return self.head.sample(guided, request)

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
