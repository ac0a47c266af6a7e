"""From the logits of all slots to sequences: the best path collapsed, and prefix beam search.

Batched over rows; the only loop is over slots.

Shapes: B rows, S slots, K beams, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from seqgen.ctc.lattice import align
from seqgen.ctc.loss import log_probabilities
from seqgen.hypotheses import Hypotheses
from seqgen.logits import NEVER


@dataclass(frozen=True)
class Collapsed:
    """Paths without repeats and blanks.

    Attributes:
        values_BS: ids; 0 behind the length.
        length_B: values of each row.
        confidence_BS: the highest confidence among the slots that say a value; 0 behind them.
    """

    values_BS: Tensor
    length_B: Tensor
    confidence_BS: Tensor


def collapse(ids_BS: Tensor, confidence_BS: Tensor, *, blank: int) -> Collapsed:
    """Merge repeats, then drop blanks: the map B of Graves et al. 2006, section 3.1."""
    batch, slots = ids_BS.shape
    is_value_BS = ids_BS != blank
    starts_BS = is_value_BS.clone()
    starts_BS[:, 1:] &= ids_BS[:, 1:] != ids_BS[:, :-1]
    # Each slot's place in the result; one place more takes the blanks.
    place_BS = torch.where(is_value_BS, starts_BS.cumsum(dim=1) - 1, slots)
    values = ids_BS.new_zeros(batch, slots + 1).scatter(1, place_BS, ids_BS)
    confidence = confidence_BS.new_zeros(batch, slots + 1)
    confidence = confidence.scatter_reduce(1, place_BS, confidence_BS, "amax")
    return Collapsed(values[:, :slots], starts_BS.sum(dim=1), confidence[:, :slots])


@torch.no_grad()
def prefix_beam_search(
    logits_BSV: Tensor, *, beams: int, blank: int, slots_B: Tensor | None = None
) -> Hypotheses:
    """The most probable sequences, paths of the same sequence summed.

    Graves 2012 (Supervised Sequence Labelling, section 7.5.3); Hannun et al. 2014 (arXiv
    1408.2873), algorithm 1 without a language model. With enough beams it is exact; otherwise
    `score_BN` sums the paths that the beam kept, and `ctc_score` gives the whole.

    Args:
        beams: sequences kept a slot (K), and returned.
        slots_B: slots in use a row; all if None.

    Returns:
        Hypotheses with values [B, K, S]; score -inf where there are fewer sequences than beams. A
        value's confidence is its highest probability on the most probable path (see `align`).
    """
    if beams < 1:
        raise ValueError(f"beams must be at least 1, not {beams}")
    batch, slots = logits_BSV.shape[:2]
    log_p_BSV = log_probabilities(logits_BSV, slots_B, blank)
    beam = _Beam.empty(batch, beams, slots, blank, logits_BSV.device)
    for slot in range(slots):
        beam = _step(beam, log_p_BSV[:, slot], blank)
    hypotheses = Hypotheses(
        values_BNS=beam.values_BKS,
        length_BN=beam.length_BK,
        score_BN=beam.total(),
        confidence_BNS=torch.zeros_like(beam.values_BKS, dtype=torch.float32),
        finished_BN=beam.total() > NEVER,
    )
    where = align(logits_BSV, hypotheses, slots_B=slots_B, blank=blank)
    return replace(hypotheses, confidence_BNS=where.confidence_BNL)


@dataclass(frozen=True)
class _Beam:
    """The prefixes kept.

    Attributes:
        values_BKS, length_BK, last_BK: the prefix; the blank is the last value of an empty one.
        key_BK: a hash of the prefix, by which equal ones are found.
        blank_BK, value_BK: log-probability of its paths that end with a blank, or with its last
            value.
    """

    values_BKS: Tensor
    length_BK: Tensor
    last_BK: Tensor
    key_BK: Tensor
    blank_BK: Tensor
    value_BK: Tensor

    def total(self) -> Tensor:
        """Log-probability [B, K] of each prefix."""
        return torch.logaddexp(self.blank_BK, self.value_BK)

    @classmethod
    def empty(cls, batch: int, beams: int, slots: int, blank: int, device: torch.device) -> _Beam:
        """One empty prefix a row; the other places are dead (-inf)."""
        zeros = torch.zeros(batch, beams, dtype=torch.int64, device=device)
        dead = torch.full((batch, beams), NEVER, device=device)
        start = dead.clone()
        start[:, 0] = 0.0
        values = zeros[..., None].repeat(1, 1, slots)
        return cls(values, zeros, torch.full_like(zeros, blank), zeros, start, dead)


def _step(beam: _Beam, log_p_BV: Tensor, blank: int) -> _Beam:
    """The beam after one more slot."""
    beams = beam.length_BK.shape[1]
    total_BK = beam.total()
    last_BK1 = beam.last_BK[..., None]

    # The prefix stays: a blank, or its last value again.
    stay_blank_BK = total_BK + log_p_BV[:, blank, None]
    again_BK = log_p_BV.gather(1, beam.last_BK)
    stay_value_BK = beam.value_BK + again_BK.masked_fill(beam.length_BK == 0, NEVER)

    # The prefix grows by v; by its last value only from paths that end with a blank.
    grown_BKV = total_BK[..., None] + log_p_BV[:, None]
    grown_BKV.scatter_(-1, last_BK1, (beam.blank_BK + again_BK)[..., None])
    grown_BKV[..., blank] = NEVER

    # Prefix i grown by the last value of prefix j may be prefix j: then j takes it over.
    last_BKK = beam.last_BK[:, None, :].expand(-1, beams, -1)
    same_BKK = grown_key(beam.key_BK[..., None], last_BKK) == beam.key_BK[:, None, :]
    # A dead place repeats a prefix that lives elsewhere.
    same_BKK = same_BKK & (total_BK > NEVER)[:, None, :]
    joins_BKK = grown_BKV.gather(-1, last_BKK).masked_fill(~same_BKK, NEVER)
    stay_value_BK = torch.logaddexp(stay_value_BK, joins_BKK.logsumexp(dim=1))
    taken_BKV = torch.zeros_like(grown_BKV).scatter_add_(-1, last_BKK, same_BKK.float())
    grown_BKV = grown_BKV.masked_fill(taken_BKV > 0, NEVER)

    # The best of all; candidate c < K stays, the others grow.
    stay_BK = torch.logaddexp(stay_blank_BK, stay_value_BK)
    best_BK, choice_BK = torch.cat([stay_BK, grown_BKV.flatten(1)], dim=1).topk(beams, dim=1)
    grows_BK = choice_BK >= beams
    grown = (choice_BK - beams).clamp(min=0)
    parent_BK = torch.where(grows_BK, grown // log_p_BV.shape[1], choice_BK)
    value_BK = grown % log_p_BV.shape[1]

    length_BK = beam.length_BK.gather(1, parent_BK)
    key_BK = beam.key_BK.gather(1, parent_BK)
    values_BKS = beam.values_BKS.gather(1, parent_BK[..., None].expand_as(beam.values_BKS))
    at_BK1 = length_BK.clamp(max=values_BKS.shape[-1] - 1)[..., None]
    written = torch.where(grows_BK[..., None], value_BK[..., None], values_BKS.gather(-1, at_BK1))
    return _Beam(
        values_BKS=values_BKS.scatter(-1, at_BK1, written),
        length_BK=length_BK + grows_BK,
        last_BK=torch.where(grows_BK, value_BK, beam.last_BK.gather(1, parent_BK)),
        key_BK=torch.where(grows_BK, grown_key(key_BK, value_BK), key_BK),
        blank_BK=torch.where(grows_BK, NEVER, stay_blank_BK.gather(1, parent_BK)),
        value_BK=torch.where(grows_BK, best_BK, stay_value_BK.gather(1, parent_BK)),
    )


def grown_key(key: Tensor, value: Tensor) -> Tensor:
    """The hash of a prefix with one more value: 64 bits, multiplied and mixed (splitmix64)."""
    key = (key + value + 1) * -7046029254386353131  # 2^64 / golden ratio, odd
    key = (key ^ ((key >> 30) & 0x3FFFFFFFF)) * -4658895280553007687
    return key ^ ((key >> 27) & 0x1FFFFFFFFF)
