"""Hypotheses: several answers a row, best first (beams, prefix beams, n-best exact programs).

Shapes: B rows, N hypotheses a row, S slots.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Hypotheses:
    """The n best answers of every row, by falling score.

    Attributes:
        values_BNS: ids, the prompt included; what lies behind `length_BN` means nothing.
        length_BN: slots in use, a stop value included.
        score_BN: what they are ranked by; -inf marks a place without an answer.
        confidence_BNS: confidence of every slot.
        finished_BN: whether the answer ended with a stop value (or, without one, is complete).
    """

    values_BNS: Tensor
    length_BN: Tensor
    score_BN: Tensor
    confidence_BNS: Tensor
    finished_BN: Tensor

    @property
    def count(self) -> int:
        """Places for an answer a row, N."""
        return int(self.score_BN.shape[1])

    def sequences(self, row: int, *, drop: tuple[int, ...] = ()) -> list[list[int]]:
        """The answers of a row that exist, best first, without the ids in `drop`."""
        scores = self.score_BN[row].tolist()
        lengths = self.length_BN[row].tolist()
        values = self.values_BNS[row].tolist()
        return [
            [i for i in ids[:length] if i not in drop]
            for ids, length, score in zip(values, lengths, scores, strict=True)
            if score != float("-inf")
        ]
