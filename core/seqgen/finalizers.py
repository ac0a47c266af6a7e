"""Finalizers: from the logits of a whole canvas, all slots at once, to its n best sequences.

Between one non-autoregressive pass and its answer may lie a search: CTC's collapse or prefix beams,
or an exact program over a domain's constraint (a sequence that must have a given mass). A finalizer
is made for a batch, so that it may hold what it needs to know of each row.

Shapes: B rows, S slots, V vocabulary, N hypotheses.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from seqgen.ctc import collapse, ctc_score, prefix_beam_search
from seqgen.ctc.loss import log_probabilities
from seqgen.hypotheses import Hypotheses
from seqgen.logits import NEVER


class Finalizer(Protocol):
    """Turns logits into sequences."""

    def __call__(self, logits_BSV: Tensor, slots_B: Tensor | None) -> Hypotheses:
        """The best sequences of every row, values [B, N, at most S].

        Args:
            slots_B: slots in use a row; all if None.

        Returns:
            Hypotheses by falling score, without blanks; score -inf where there is no answer.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class GreedyCTC:
    """The most probable path, collapsed.

    One hypothesis a row. Its score is the log-probability of the sequence, all paths summed; a
    value's confidence is the highest probability among the slots that say it.

    Attributes:
        blank: id of the blank.
    """

    blank: int

    def __call__(self, logits_BSV: Tensor, slots_B: Tensor | None) -> Hypotheses:
        log_p_BSV = log_probabilities(logits_BSV, slots_B, self.blank)
        best_BS, ids_BS = log_p_BSV.max(dim=-1)
        path = collapse(ids_BS, best_BS.exp(), blank=self.blank)
        hypotheses = Hypotheses(
            values_BNS=path.values_BS[:, None],
            length_BN=path.length_B[:, None],
            score_BN=torch.zeros_like(path.confidence_BS[:, :1]),
            confidence_BNS=path.confidence_BS[:, None],
            finished_BN=torch.ones_like(path.length_B[:, None], dtype=torch.bool),
        )
        score_BN = ctc_score(logits_BSV, hypotheses, slots_B=slots_B, blank=self.blank)
        return replace(hypotheses, score_BN=score_BN)


@dataclass(frozen=True, kw_only=True)
class PrefixBeamCTC:
    """The most probable sequences, found by prefix beam search.

    They are ranked by their log-probability, all paths summed, not only those that the beam kept.

    Attributes:
        blank: id of the blank.
        beams: sequences kept a slot, and given back.
    """

    blank: int
    beams: int = 10

    def __post_init__(self) -> None:
        if self.beams < 1:
            raise ValueError(f"beams must be at least 1, not {self.beams}")

    def __call__(self, logits_BSV: Tensor, slots_B: Tensor | None) -> Hypotheses:
        found = prefix_beam_search(logits_BSV, beams=self.beams, blank=self.blank, slots_B=slots_B)
        score_BN = ctc_score(logits_BSV, found, slots_B=slots_B, blank=self.blank)
        # A place without a sequence holds a copy of another, so its own score means nothing.
        return ranked(found, score_BN.masked_fill(~found.finished_BN, NEVER))


def ranked(hypotheses: Hypotheses, score_BN: Tensor) -> Hypotheses:
    """The same hypotheses in the order of other scores, which they now carry."""
    score_BN, order_BN = score_BN.sort(dim=1, descending=True, stable=True)
    wide_BNS = order_BN[..., None].expand_as(hypotheses.values_BNS)
    return Hypotheses(
        values_BNS=hypotheses.values_BNS.gather(1, wide_BNS),
        length_BN=hypotheses.length_BN.gather(1, order_BN),
        score_BN=score_BN,
        confidence_BNS=hypotheses.confidence_BNS.gather(1, wide_BNS),
        finished_BN=hypotheses.finished_BN.gather(1, order_BN),
    )
