"""The categorical head: a distribution over a finite vocabulary.

Shapes: B rows, Q open slots, D width, V vocabulary.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqgen.heads.base import Proposal, Request
from seqgen.linear import Product
from seqgen.logits import sample_from


class CategoricalHead(Product):
    """A linear layer to logits.

    Args:
        width: hidden width D.
        vocabulary: number of values V.
        tied: an embedding table to share weights with ([>= V, D]; its first V rows are used).
        label_smoothing: probability mass given to the other values in the loss.
        bias: whether the linear layer has a bias.
    """

    def __init__(
        self,
        width: int,
        vocabulary: int,
        *,
        tied: nn.Embedding | None = None,
        label_smoothing: float = 0.0,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.label_smoothing = label_smoothing
        self.tied = tied is not None
        self.weight: Tensor
        self.bias: Tensor | None
        if tied is None:
            self.weight = nn.Parameter(torch.empty(vocabulary, width))
            nn.init.normal_(self.weight, std=width**-0.5)
        else:
            self.weight = tied.weight
        self.bias = nn.Parameter(torch.zeros(vocabulary)) if bias else None

    @classmethod
    def of(cls, linear: nn.Linear) -> CategoricalHead:
        """A head that shares the weights of an existing output layer."""
        head = cls.__new__(cls)
        nn.Module.__init__(head)
        head.vocabulary, head.label_smoothing, head.tied = linear.out_features, 0.0, True
        head.weight, head.bias = linear.weight, linear.bias
        return head

    def logits(self, hidden_BQD: Tensor) -> Tensor:
        """Logits [B, Q, V]."""
        return self.product(hidden_BQD, self.factor(), self.bias, relu=False)

    def factor(self) -> Tensor:
        """The weight of the values [V, D]."""
        return self.weight[: self.vocabulary]

    def propose(self, hidden_BQD: Tensor, request: Request) -> Proposal:
        """Propose by argmax or by sampling, as `request.sampling` says."""
        return sample_from(self.logits(hidden_BQD), request)

    def loss(self, hidden_BQD: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy of each slot [B, Q]; targets int64 [B, Q]."""
        logits = self.logits(hidden_BQD).float()
        return F.cross_entropy(
            logits.flatten(0, -2),
            targets.flatten(),
            reduction="none",
            label_smoothing=self.label_smoothing,
        ).view(targets.shape)
