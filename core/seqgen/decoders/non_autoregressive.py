"""Non-autoregressive decoding: all slots at once, in one pass or refined by confidence."""

from __future__ import annotations

from dataclasses import dataclass

from seqgen.commits import All, CommitRule, ConfidenceQuota
from seqgen.decoders.base import GroupDecoder
from seqgen.logits import GREEDY, Sampling
from seqgen.loop import Recipe
from seqgen.model import SequenceModel
from seqgen.orders import Whole


@dataclass(frozen=True, kw_only=True)
class NonAutoregressive(GroupDecoder):
    """Decode every slot in parallel; the canvas says how many there are (a predicted length).

    Attributes:
        steps: 1 decides all slots in one pass (Paraformer, CPPD); more is mask-predict, which
            commits the most confident slots first.
        commit: another rule over the one group, in place of `steps`.
        sampling: greedy by default.
        stop_ids: values that end a row.
    """

    steps: int = 1
    commit: CommitRule | None = None
    sampling: Sampling = GREEDY
    stop_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, not {self.steps}")

    def recipe(self, model: SequenceModel) -> Recipe:
        rule = self.commit or (All() if self.steps == 1 else ConfidenceQuota(self.steps))
        return Recipe(
            order=Whole(),
            commit=rule,
            sampling=self.sampling,
            stop_ids=self.stop_ids,
            quota_over="open",
        )
