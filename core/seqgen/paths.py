"""Paths of a beam search: back-pointers of every step, and the answers read off them at the end.

A step records its candidates, not the sequences they belong to, so its cost does not grow with
their length; only the answers returned are followed back, once.

Shapes: B rows, M items still searched (`item_M` names their rows), K hypotheses an item, C >= K
candidates a step, T steps, P answers, S slots.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from seqgen.canvas import Canvas
from seqgen.hypotheses import Hypotheses
from seqgen.logits import NEVER


class Paths:
    """What the steps of a search chose from, for every row of its canvas."""

    def __init__(self, canvas: Canvas, *, beams: int, candidates: int) -> None:
        self.canvas, self.prompt = canvas, canvas.max_prompt
        shape, device = (canvas.slots - self.prompt, canvas.batch), canvas.device
        self.value_TBC = torch.zeros(*shape, candidates, dtype=torch.int64, device=device)
        self.parent_TBC = torch.zeros_like(self.value_TBC)
        """The hypothesis of the step before that a candidate goes on from."""
        self.log_p_TBC = torch.zeros(*shape, candidates, device=device)
        self.chosen_TBK = torch.zeros(*shape, beams, dtype=torch.int64, device=device)
        """The candidate that became a hypothesis."""
        self.ended_BTK = torch.full((shape[1], shape[0], beams), NEVER, device=device)
        """Scores of the candidates (the first K) that ended with a stop value."""
        self.cut_BK = self.ended_BTK.new_full((shape[1], beams), NEVER)
        """Scores of the hypotheses that reached the limit of their row."""

    def record(
        self,
        step: int,
        item_M: Tensor,
        *,
        value_MC: Tensor,
        parent_MC: Tensor,
        log_p_MC: Tensor,
        chosen_MK: Tensor,
        ended_MK: Tensor,
    ) -> None:
        """Note a step of the items still searched."""
        self.value_TBC[step].index_copy_(0, item_M, value_MC)
        self.parent_TBC[step].index_copy_(0, item_M, parent_MC)
        self.log_p_TBC[step].index_copy_(0, item_M, log_p_MC)
        self.chosen_TBK[step].index_copy_(0, item_M, chosen_MK)
        self.ended_BTK[:, step].index_copy_(0, item_M, ended_MK)

    def cut(self, item_M: Tensor, score_MK: Tensor) -> None:
        """Note the hypotheses of items that have reached their limit."""
        self.cut_BK.index_copy_(0, item_M, score_MK)

    def worst(self, item_M: Tensor, steps: int, keep: int) -> Tensor:
        """The score of the worst of `keep` answers that have ended [M]; -inf if there are fewer."""
        ended = self.ended_BTK[:, :steps].index_select(0, item_M).flatten(1)
        if ended.shape[1] < keep:
            return ended.new_full(item_M.shape, NEVER)
        return ended.amax(dim=1) if keep == 1 else ended.topk(keep, dim=1).values[:, -1]

    def answers(self, steps: int, keep: int, *, complete: bool) -> Hypotheses:
        """The best answers of all rows: those that ended, then those that were cut.

        Args:
            steps: how many were recorded.
            complete: whether an answer that was cut counts as finished.
        """
        canvas, beams = self.canvas, self.cut_BK.shape[1]
        ended_BE, ended_index_BE = stable_topk(self.ended_BTK[:, :steps].flatten(1), keep)
        cut_BP, cut_index_BP = stable_topk(self.cut_BK, keep)
        last_B1 = (canvas.limit_B - self.prompt - 1)[:, None]
        if steps:
            last_BK = last_B1.clamp(0, steps - 1)[..., None].expand(-1, 1, beams)
            cut_chosen_BK = self.chosen_TBK.transpose(0, 1).gather(1, last_BK).squeeze(1)
            cut_index_BP = cut_chosen_BK.gather(1, cut_index_BP)

        score = torch.cat([ended_BE, cut_BP], dim=1)
        step_ = torch.cat([ended_index_BE // beams, last_B1.expand_as(cut_BP)], dim=1)
        candidate = torch.cat([ended_index_BE % beams, cut_index_BP], dim=1)
        is_cut = torch.cat([torch.zeros_like(ended_BE), torch.ones_like(cut_BP)], dim=1)
        rank = torch.where(score > NEVER, is_cut, 2.0).argsort(dim=1, stable=True)[:, :keep]

        found_BP = score.gather(1, rank) > NEVER
        end_BP = torch.where(found_BP, step_.gather(1, rank), -1)
        values_BPS, confidence_BPS = self._trace(steps, end_BP, candidate.gather(1, rank))
        return Hypotheses(
            values_BNS=values_BPS,
            length_BN=self.prompt + end_BP + 1,
            score_BN=torch.where(found_BP, score.gather(1, rank), NEVER),
            confidence_BNS=confidence_BPS,
            finished_BN=found_BP & ((is_cut.gather(1, rank) == 0) | complete),
        )

    def _trace(self, steps: int, end_BP: Tensor, candidate_BP: Tensor) -> tuple[Tensor, Tensor]:
        """Follow candidates of the steps `end_BP` back to the start: values and confidences."""
        answers = end_BP.shape[1]
        values_BPS = self.canvas.values[:, None].repeat(1, answers, 1)
        confidence_BPS = torch.ones(values_BPS.shape, device=values_BPS.device)
        for step in reversed(range(steps)):
            on_BP, slot = step <= end_BP, self.prompt + step
            value_BP = self.value_TBC[step].gather(1, candidate_BP)
            values_BPS[..., slot] = torch.where(on_BP, value_BP, values_BPS[..., slot])
            confidence_BP = self.log_p_TBC[step].gather(1, candidate_BP).exp()
            confidence_BPS[..., slot] = torch.where(on_BP, confidence_BP, 1.0)
            if step > 0:
                parent_BP = self.parent_TBC[step].gather(1, candidate_BP)
                earlier_BP = self.chosen_TBK[step - 1].gather(1, parent_BP)
                candidate_BP = torch.where(on_BP, earlier_BP, candidate_BP)
        return values_BPS, confidence_BPS


def stable_topk(x_BN: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k greatest float32 numbers of each row and where they are; of equals, the first come.

    `Tensor.topk` leaves the sequence of equals to the backend. Rows of fewer than k are filled up
    with -inf at index 0.
    """
    count = x_BN.shape[1]
    if count < k:
        values, indices = stable_topk(x_BN, count) if count else (x_BN, x_BN.long())
        return F.pad(values, (0, k - count), value=NEVER), F.pad(indices, (0, k - count))
    # As integers, floats sort by magnitude; with the index below them no two keys are equal.
    bits = x_BN.contiguous().view(torch.int32)
    ordered = (bits ^ ((bits >> 31) & 0x7FFF_FFFF)).long()
    index = torch.arange(count, device=x_BN.device)
    keys = (ordered << 32) | (0x7FFF_FFFF - index)
    indices = 0x7FFF_FFFF - (keys.topk(k, dim=1).values & 0x7FFF_FFFF)
    return x_BN.gather(1, indices), indices
