"""The CTC lattice of given sequences: their exact probability, and their best alignment.

A sequence y1 .. yL becomes the states blank, y1, blank, y2, .. yL, blank; a path walks through
them, a slot a step, and may pass over a blank between different values (Graves et al. 2006,
section 4.1). Batched over rows and hypotheses; the only loop is over slots.

Shapes: B rows, N hypotheses a row, L values, E = 2 L + 1 states, S slots, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from seqgen.ctc.loss import log_probabilities
from seqgen.hypotheses import Hypotheses
from seqgen.logits import NEVER


@dataclass(frozen=True)
class Alignment:
    """The most probable path of each hypothesis (Viterbi).

    Attributes:
        position_BNS: the index of the value that a slot says; -1 where it says blank, and
            everywhere if there is no path.
        confidence_BNL: the highest probability of a value among the slots that say it.
        score_BN: log-probability of the path.
    """

    position_BNS: Tensor
    confidence_BNL: Tensor
    score_BN: Tensor


@torch.no_grad()
def ctc_score(
    logits_BSV: Tensor, hypotheses: Hypotheses, *, slots_B: Tensor | None = None, blank: int
) -> Tensor:
    """Log-probability [B, N] of each hypothesis, summed over all its paths.

    -inf where the values do not fit into the slots. `slots_B`: slots in use a row. For training use
    `ctc_loss`: this has no gradient.
    """
    lattice = _Lattice(logits_BSV, hypotheses, slots_B, blank)
    alpha_BNE = lattice.first()
    for slot in range(1, lattice.slots):
        # Graves et al., eq. 6 and 7, in the log domain.
        alpha_BNE = lattice.arrivals(alpha_BNE).logsumexp(dim=-1) + lattice.says(slot)
    return lattice.ends(alpha_BNE).logsumexp(dim=-1)


@torch.no_grad()
def align(
    logits_BSV: Tensor, hypotheses: Hypotheses, *, slots_B: Tensor | None = None, blank: int
) -> Alignment:
    """Which slot says which value: the most probable path of each hypothesis.

    Forced alignment of a target is the same with one hypothesis a row. `slots_B`: slots in use.
    """
    lattice = _Lattice(logits_BSV, hypotheses, slots_B, blank)
    alpha_BNE = lattice.first()
    came = [torch.zeros_like(alpha_BNE, dtype=torch.int64)]
    for slot in range(1, lattice.slots):
        best_BNE, by_BNE = lattice.arrivals(alpha_BNE).max(dim=-1)
        alpha_BNE = best_BNE + lattice.says(slot)
        came.append(by_BNE)
    score_BN, end_BN = lattice.ends(alpha_BNE).max(dim=-1)

    # Back from the last state; an even state is a blank, state 2 i + 1 is value i.
    state_BN1 = (2 * hypotheses.length_BN - end_BN).clamp(min=0)[..., None]
    states = []
    for by_BNE in reversed(came):
        states.append(state_BN1)
        state_BN1 = state_BN1 - by_BNE.gather(-1, state_BN1)
    state_BNS = torch.cat(states[::-1], dim=-1)
    says_value = (state_BNS % 2 == 1) & (score_BN > NEVER)[..., None]
    position_BNS = torch.where(says_value, state_BNS // 2, -1)

    log_p_BNS = torch.stack(
        [
            lattice.says(slot).gather(-1, state_BNS[..., slot, None])[..., 0]
            for slot in range(lattice.slots)
        ],
        dim=-1,
    )
    values = hypotheses.values_BNS.shape[-1]
    # One place more takes the blanks.
    place_BNS = torch.where(says_value, position_BNS, values)
    confidence = log_p_BNS.new_zeros(*place_BNS.shape[:2], values + 1)
    confidence = confidence.scatter_reduce(-1, place_BNS, log_p_BNS.exp(), "amax")
    return Alignment(position_BNS, confidence[..., :values], score_BN)


class _Lattice:
    """States of every hypothesis, what they say, and how they follow each other."""

    def __init__(
        self, logits_BSV: Tensor, hypotheses: Hypotheses, slots_B: Tensor | None, blank: int
    ) -> None:
        self.log_p_BSV = log_probabilities(logits_BSV, slots_B, blank)
        self.slots = logits_BSV.shape[1]
        self.length_BN = hypotheses.length_BN
        values = hypotheses.values_BNS.clamp(min=0, max=logits_BSV.shape[-1] - 1)
        # What lies behind a hypothesis's length cannot be left again, so it may be anything.
        self.label_BNE = values.new_full((*values.shape[:2], 2 * values.shape[2] + 1), blank)
        self.label_BNE[..., 1::2] = values
        before = self.label_BNE[..., :-2]
        self.skips_BNE = (self.label_BNE[..., 2:] != blank) & (self.label_BNE[..., 2:] != before)

    def says(self, slot: int) -> Tensor:
        """Log-probability [B, N, E] of what each state says in a slot."""
        batch, count, states = self.label_BNE.shape
        log_p = self.log_p_BSV[:, slot].gather(1, self.label_BNE.flatten(1))
        return log_p.view(batch, count, states)

    def first(self) -> Tensor:
        """Paths [B, N, E] after slot 0: at the first blank or the first value."""
        alpha_BNE = self.says(0).clone()
        alpha_BNE[..., 2:] = NEVER
        return alpha_BNE

    def arrivals(self, alpha_BNE: Tensor) -> Tensor:
        """Paths [B, N, E, 3] that stay in a state, come from the one before, or pass over one."""
        stay, one, two = alpha_BNE, *(torch.full_like(alpha_BNE, NEVER) for _ in range(2))
        one[..., 1:] = alpha_BNE[..., :-1]
        two[..., 2:] = torch.where(self.skips_BNE, alpha_BNE[..., :-2], NEVER)
        return torch.stack([stay, one, two], dim=-1)

    def ends(self, alpha_BNE: Tensor) -> Tensor:
        """Paths [B, N, 2] that end with the blank behind the last value, or with that value."""
        blank_BN = 2 * self.length_BN
        both = alpha_BNE.gather(-1, torch.stack([blank_BN, (blank_BN - 1).clamp(min=0)], dim=-1))
        both[..., 1] = both[..., 1].masked_fill(self.length_BN == 0, NEVER)
        return both
