"""Prefix beam search over CTC paths that ends on a mass, and knows whether it found the best.

Hypotheses are prefixes of the collapsed sequence, each with its best path that ends with a blank
and its best path that ends in a run of its last value, and with its exact weight. They are ranked
by their log-probability plus an upper bound of the rest (`suffix_bounds.py`), the f of A*. What
falls off the beam is not forgotten: its greatest f is kept. No sequence that the search did not
return can be more probable than that, so an answer that is at least as probable as everything
dropped is proven best.

Proof. Take a peptide within a window and its best path, of log-probability p. After every slot,
the beginning of that path has either a hypothesis with a path at least as good in the same state,
or it was dropped, then or before, with f >= p, as f bounds all that can become of it. If it was
never dropped, the peptide is found with p. So what is not found, or found with less than p, has p
no greater than the greatest f dropped. (Prefixes are told apart by hashes of 64 bits.)

Shapes: B rows, K hypotheses, E values, T slots, W windows, N answers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from seqgen.ctc.search import grown_key
from seqgen.logits import NEVER
from seqgen_peptides.suffix_bounds import NominalMasses, SuffixBounds


@dataclass(frozen=True)
class Found:
    """The best sequences of every row, by falling log-probability of their best path.

    Attributes:
        places_BNT: places of the values in `NominalMasses.id_E`.
        length_BN: values in use.
        log_p_BN: of the best path, float64; -inf where there is no sequence.
        dropped_B: no sequence that was not found has a path more probable than this.
    """

    places_BNT: Tensor
    length_BN: Tensor
    log_p_BN: Tensor
    dropped_B: Tensor


@dataclass(frozen=True)
class _Beam:
    """The hypotheses of all rows.

    Attributes:
        blank_BK, run_BK: log-probability of the best path that ends with a blank, and in a run of
            the last value; both -inf in an empty place.
        weight_BK: exact mass.
        last_BK: state of a path in a run: 1 + the last value's place; 0 of the empty prefix.
        residues_BK: residues (modifications do not count).
        key_BK, parent_BK: 64-bit hashes of the prefix, and of the prefix without its last value.
        length_BK, places_BKT: the prefix.
    """

    blank_BK: Tensor
    run_BK: Tensor
    weight_BK: Tensor
    last_BK: Tensor
    residues_BK: Tensor
    key_BK: Tensor
    parent_BK: Tensor
    length_BK: Tensor
    places_BKT: Tensor

    @classmethod
    def empty(cls, batch: int, beams: int, slots: int, device: torch.device) -> _Beam:
        """One empty prefix a row."""
        none = torch.zeros(batch, beams, dtype=torch.int64, device=device)
        dead = torch.full((batch, beams), NEVER, dtype=torch.float64, device=device)
        start = dead.clone()
        start[:, 0] = 0
        places = torch.zeros(batch, beams, slots, dtype=torch.int64, device=device)
        return cls(start, dead, torch.zeros_like(dead), none, none, none, none - 1, none, places)


def search(
    masses: NominalMasses,
    log_p_BTE: Tensor,
    blank_BT: Tensor,
    bounds: SuffixBounds,
    *,
    beams: int,
    answers: int,
    min_length: int,
) -> Found:
    """Search with `beams` hypotheses a row for the `answers` best sequences within the windows."""
    batch, slots, _ = log_p_BTE.shape
    beam = _Beam.empty(batch, beams, slots, log_p_BTE.device)
    dropped_B = torch.full_like(beam.blank_BK[:, 0], NEVER)
    for slot in range(slots):
        says_BE, blank_B = log_p_BTE[:, slot].double(), blank_BT[:, slot].double()
        beam, lost_B = _step(masses, beam, says_BE, blank_B, bounds, slot)
        dropped_B = torch.maximum(dropped_B, lost_B)
    log_p_BK = torch.maximum(beam.blank_BK, beam.run_BK)
    weight_BK1 = beam.weight_BK[..., None]
    fits_BKW = (weight_BK1 >= bounds.low_BK[:, None]) & (weight_BK1 <= bounds.high_BK[:, None])
    answer_BK = fits_BKW.any(dim=-1) & (beam.residues_BK >= min_length)
    log_p_BN, best_BN = log_p_BK.masked_fill(~answer_BK, NEVER).topk(min(answers, beams), dim=1)
    return Found(
        places_BNT=beam.places_BKT.gather(1, best_BN[..., None].expand(-1, -1, slots)),
        length_BN=beam.length_BK.gather(1, best_BN),
        log_p_BN=log_p_BN,
        dropped_B=dropped_B,
    )


def _step(
    masses: NominalMasses,
    beam: _Beam,
    says_BE: Tensor,
    blank_B: Tensor,
    bounds: SuffixBounds,
    slot: int,
) -> tuple[_Beam, Tensor]:
    """The beam after a slot, and the greatest f of what fell off it."""
    batch, beams = beam.length_BK.shape
    values = says_BE.shape[1]
    device = says_BE.device
    value_E = torch.arange(values, device=device)
    last_value_BK = (beam.last_BK - 1).clamp(min=0)
    total_BK = torch.maximum(beam.blank_BK, beam.run_BK)

    # The prefix stays: a blank, or its last value again.
    again_BK = says_BE.gather(1, last_value_BK)
    stay_blank_BK = total_BK + blank_B[:, None]
    stay_run_BK = beam.run_BK + again_BK

    # The prefix grows; by its last value only from a blank, and not behind a modification.
    from_BKE = torch.where(
        value_E == last_value_BK[..., None], beam.blank_BK[..., None], total_BK[..., None]
    )
    grown_BKE = from_BKE + says_BE[:, None]
    grown_BKE = grown_BKE.masked_fill((beam.last_BK > masses.residues)[..., None], NEVER)

    # A prefix that grows into another hypothesis joins it.
    owner_BK, known_BK = _find(beam.parent_BK, beam.key_BK, total_BK > NEVER)
    place_BK = owner_BK * values + last_value_BK
    known_BK &= (beam.length_BK > 0) & (total_BK > NEVER)
    joins_BK = grown_BKE.flatten(1).gather(1, place_BK).masked_fill(~known_BK, NEVER)
    stay_run_BK = torch.maximum(stay_run_BK, joins_BK)
    taken = torch.zeros(batch, beams * values, device=device)
    taken.scatter_add_(1, place_BK, known_BK.float())
    grown_BKE = grown_BKE.masked_fill(taken.view(batch, beams, values) > 0, NEVER)

    # f: with the bound of what is still to come.
    row_BK = torch.arange(batch, device=device)[:, None].expand(-1, beams)
    later = slot + 1
    stay_BK = torch.maximum(
        stay_blank_BK + bounds.at(later, torch.zeros_like(row_BK), row_BK, beam.weight_BK),
        stay_run_BK + bounds.at(later, beam.last_BK, row_BK, beam.weight_BK),
    )
    weight_BKE = beam.weight_BK[..., None] + masses.mass_E
    row_BKE = row_BK[..., None].expand_as(weight_BKE)
    grow_BKE = grown_BKE + bounds.at(later, (value_E + 1).expand_as(row_BKE), row_BKE, weight_BKE)

    # The best K of all; candidate c < K stays, the others grow.
    every_BC = torch.cat([stay_BK, grow_BKE.flatten(1)], dim=1)
    f_BK, choice_BK = every_BC.topk(beams + 1, dim=1)
    lost_B, f_BK, choice_BK = f_BK[:, beams], f_BK[:, :beams], choice_BK[:, :beams]
    grows_BK = choice_BK >= beams
    grown = (choice_BK - beams).clamp(min=0)
    value_BK = grown % values
    parent_BK = torch.where(grows_BK, grown // values, choice_BK)

    blank_BK = stay_blank_BK.gather(1, parent_BK).masked_fill(grows_BK | (f_BK == NEVER), NEVER)
    run_BK = torch.where(
        grows_BK, grown_BKE.flatten(1).gather(1, grown), stay_run_BK.gather(1, parent_BK)
    )
    key_BK, length_BK = beam.key_BK.gather(1, parent_BK), beam.length_BK.gather(1, parent_BK)
    places_BKT = beam.places_BKT.gather(1, parent_BK[..., None].expand_as(beam.places_BKT))
    at_BK1 = length_BK.clamp(max=places_BKT.shape[-1] - 1)[..., None]
    written = torch.where(grows_BK[..., None], value_BK[..., None], places_BKT.gather(-1, at_BK1))
    is_residue_BK = grows_BK & (value_BK < masses.residues)
    after = _Beam(
        blank_BK=blank_BK,
        run_BK=run_BK.masked_fill(f_BK == NEVER, NEVER),
        weight_BK=beam.weight_BK.gather(1, parent_BK) + masses.mass_E[value_BK] * grows_BK,
        last_BK=torch.where(grows_BK, value_BK + 1, beam.last_BK.gather(1, parent_BK)),
        residues_BK=beam.residues_BK.gather(1, parent_BK) + is_residue_BK,
        key_BK=torch.where(grows_BK, grown_key(key_BK, value_BK), key_BK),
        parent_BK=torch.where(grows_BK, key_BK, beam.parent_BK.gather(1, parent_BK)),
        length_BK=length_BK + grows_BK,
        places_BKT=places_BKT.scatter(-1, at_BK1, written),
    )
    return after, lost_B


def _find(wanted_BK: Tensor, key_BK: Tensor, alive_BK: Tensor) -> tuple[Tensor, Tensor]:
    """Which hypothesis has each wanted key, and whether one has."""
    ordered_BK, order_BK = key_BK.masked_fill(~alive_BK, torch.iinfo(torch.int64).max).sort(dim=1)
    place_BK = torch.searchsorted(ordered_BK, wanted_BK).clamp(max=key_BK.shape[1] - 1)
    return order_BK.gather(1, place_BK), ordered_BK.gather(1, place_BK) == wanted_BK
