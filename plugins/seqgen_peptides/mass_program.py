"""The precursor mass for the one-pass decoder: the best CTC path that weighs what was measured.

    found = mass_program(log_p_BTV, residues, low_BK, high_BK)  # see constraint.mass_windows

Of all paths (a value or a blank for each slot) whose collapsed sequence is a peptide of a mass
within a window, the most probable one is wanted. That is the objective of precise mass control, PMC
(Zhang et al., PrimeNovo, Nature Communications 2025, doi:10.1038/s41467-024-55021-3). PMC keeps one
path for each slot and bin of 1 Da, and the path it keeps may be the one that later misses the
window by its exact mass, so it is a heuristic; its code cannot take mass away, and forgets which
value came before a blank. Here no mass is rounded: a search over prefixes with exact masses is led
by upper bounds of the rest (`suffix_bounds.py`) and either proves its answer (`mass_search.py`) or
is repeated with more hypotheses and tighter bounds. Rows that stay unproven are marked.

Shapes: B rows, T slots, V vocabulary, E values (residues, then modifications), K windows of mass,
N answers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from seqgen.ctc import align, collapse
from seqgen.errors import ConfigError
from seqgen.hypotheses import Hypotheses
from seqgen.logits import NEVER
from seqgen_peptides.constraint import fits
from seqgen_peptides.mass_search import search
from seqgen_peptides.reachability import Reachability
from seqgen_peptides.residues import PAD, Residues
from seqgen_peptides.suffix_bounds import NominalMasses, SuffixBounds

ROUNDING = 1e-3
"""Nats by which bounds, sums of float32, may be too low; answers nearer than that are ties."""

STRENGTHS = (-1.2, -0.3, 0.0, 0.3, 1.2)
"""Multipliers of the tighter bounds: what a usual rest of a mass is worth, as a share of how far
log-probabilities usually lie apart."""

ROUNDS = (32, 32, 256, 2048)
"""Hypotheses a round; the first round has the plain bounds, the others the tighter ones."""

MEMORY = 128e6
"""Bytes of bounds that are kept at a time."""


@dataclass(frozen=True)
class Solution:
    """The best peptides of every row.

    Attributes:
        hypotheses: by falling log-probability of their best path. Values in the order of the slots,
            from the C-terminus; a value's confidence is its highest probability on that path.
        proven_BN: no peptide left out is more probable than this one, by more than `ROUNDING`;
            where there is no answer: there is none to be found.
    """

    hypotheses: Hypotheses
    proven_BN: Tensor


@torch.no_grad()
def mass_program(
    log_p_BTV: Tensor,
    residues: Residues,
    low_BK: Tensor,
    high_BK: Tensor,
    *,
    answers: int = 1,
    min_length: int = 6,
    rounds: tuple[int, ...] = ROUNDS,
) -> Solution:
    """Find the most probable peptides within the windows of mass.

    A peptide has an N-terminal modification only as its last value, at most one, and at least
    `min_length` residues. Blank and stop are no values of it.

    Args:
        log_p_BTV: log-probabilities, float32; id 0 is the blank.
        low_BK, high_BK: windows of the sum of the values' masses in Da, float64.
        answers: best peptides wanted (N).
        rounds: hypotheses in each round (at least 4 for each answer); a row that a round proves
            takes no part in the next.
    """
    if answers < 1 or min(rounds, default=0) < 1:
        raise ConfigError(f"no answer is searched for: answers={answers}, rounds={rounds}")
    problem = _Problem.of(log_p_BTV, residues, low_BK, high_BK, min_length)
    best = _greedy(problem, residues, answers)
    # Where no peptide has the mass there is nothing to search for.
    table = Reachability.of(residues, low_BK.device)
    least, most = torch.tensor([min_length, log_p_BTV.shape[1]], device=low_BK.device)
    best.proven_BN.logical_or_(
        ~table.reaches(low_BK, high_BK, least=least, most=most).any(dim=1, keepdim=True)
    )
    for number, beams in enumerate(rounds):
        open_R = (~best.proven_BN.all(dim=1)).nonzero().squeeze(1)
        # Rows of like mass share a table.
        open_R = open_R[high_BK[open_R].amax(dim=1).argsort()]
        strengths = STRENGTHS if number else (0.0,)
        for part_R in problem.parts(open_R, len(strengths)):
            found = problem.rows(part_R).search(max(beams, 4 * answers), answers, strengths)
            best.improve(part_R, found)
    used_BNT = torch.arange(log_p_BTV.shape[1], device=log_p_BTV.device) < best.length_BN[..., None]
    hypotheses = Hypotheses(
        values_BNS=torch.where(used_BNT, problem.masses.id_E[best.places_BNT], PAD),
        length_BN=best.length_BN,
        score_BN=best.log_p_BN.float(),
        confidence_BNS=torch.zeros_like(used_BNT, dtype=torch.float32),
        finished_BN=best.log_p_BN > NEVER,
    )
    confidence_BNT = align(log_p_BTV, hypotheses, blank=PAD).confidence_BNL
    return Solution(replace(hypotheses, confidence_BNS=confidence_BNT), best.proven_BN)


@dataclass(frozen=True)
class _Answers:
    """What is known so far: places in `NominalMasses.id_E`, and log-probabilities of best paths."""

    places_BNT: Tensor
    length_BN: Tensor
    log_p_BN: Tensor
    proven_BN: Tensor

    def improve(self, rows_R: Tensor, found: _Answers) -> None:
        """Take over, for some rows, what is better or proven."""
        mine_R = self.log_p_BN[rows_R].clamp(min=-1e6).sum(dim=1)
        better_R = found.proven_BN.all(dim=1) | (found.log_p_BN.clamp(min=-1e6).sum(dim=1) > mine_R)
        for old, new in zip(vars(self).values(), vars(found).values(), strict=True):
            keep_R = better_R.view(-1, *[1] * (new.dim() - 1))
            old[rows_R] = torch.where(keep_R, new, old[rows_R])


@dataclass(frozen=True)
class _Problem:
    """Rows to solve: log-probabilities of values and blank, windows."""

    masses: NominalMasses
    log_p_BTE: Tensor
    blank_BT: Tensor
    low_BK: Tensor
    high_BK: Tensor
    min_length: int

    @classmethod
    def of(
        cls,
        log_p_BTV: Tensor,
        residues: Residues,
        low_BK: Tensor,
        high_BK: Tensor,
        min_length: int,
    ) -> _Problem:
        # Rows that are heavier than their slots allow are never searched.
        top = min(float(high_BK.max()), log_p_BTV.shape[1] * max(residues.table()) + 1000)
        masses = NominalMasses.of(residues, top, log_p_BTV.device)
        log_p_BTE = log_p_BTV.float().index_select(-1, masses.id_E)
        return cls(masses, log_p_BTE, log_p_BTV[..., PAD].float(), low_BK, high_BK, min_length)

    def rows(self, rows_R: Tensor) -> _Problem:
        """Some of the rows."""
        return replace(
            self,
            log_p_BTE=self.log_p_BTE[rows_R],
            blank_BT=self.blank_BT[rows_R],
            low_BK=self.low_BK[rows_R],
            high_BK=self.high_BK[rows_R],
        )

    def parts(self, rows_R: Tensor, multipliers: int) -> Iterator[Tensor]:
        """Rows, as many at a time as `MEMORY` allows."""
        if rows_R.shape[0]:
            slots, values = self.log_p_BTE.shape[1:]
            top = max(1.0, float(self.high_BK[rows_R].max()) / self.masses.unit)
            row = 4 * (slots + 1) * (values + 1) * top * multipliers
            yield from torch.split(rows_R, max(1, int(MEMORY / row)))

    def search(self, beams: int, answers: int, strengths: tuple[float, ...]) -> _Answers:
        """One round."""
        # Any multipliers are right; these are of a size that makes the bounds tight.
        apart_B1 = self.log_p_BTE.clamp(min=-30).flatten(1).std(dim=1, keepdim=True)
        rest = self.masses.rest_E[: self.masses.residues].square().mean().sqrt().float()
        multiplier_BL = torch.tensor(strengths, device=rest.device) * apart_B1 / rest
        bounds = SuffixBounds(
            self.masses, self.log_p_BTE, self.blank_BT, self.low_BK, self.high_BK, multiplier_BL
        )
        found = search(
            self.masses,
            self.log_p_BTE,
            self.blank_BT,
            bounds,
            beams=beams,
            answers=answers,
            min_length=self.min_length,
        )
        proven_BN = found.log_p_BN >= found.dropped_B[:, None] - ROUNDING
        return _Answers(found.places_BNT, found.length_BN, found.log_p_BN, proven_BN)


def _greedy(problem: _Problem, residues: Residues, answers: int) -> _Answers:
    """The best path of all: where it has the mass, it is the best answer."""
    log_p_BTE, masses = problem.log_p_BTE, problem.masses
    batch, _, values = log_p_BTE.shape
    best_BT, place_BT = torch.cat([log_p_BTE, problem.blank_BT[..., None]], dim=-1).max(dim=-1)
    path = collapse(place_BT, best_BT, blank=values)
    fits_B1 = fits(
        residues,
        masses.id_E[path.values_BS[:, None]],
        path.length_B[:, None],
        problem.low_BK,
        problem.high_BK,
        min_length=problem.min_length,
    )
    log_p_BN = torch.full((batch, answers), NEVER, dtype=torch.float64, device=log_p_BTE.device)
    log_p_BN[:, :1] = best_BT.double().sum(dim=1, keepdim=True).masked_fill(~fits_B1, NEVER)
    return _Answers(
        places_BNT=path.values_BS[:, None].repeat(1, answers, 1),
        length_BN=path.length_B[:, None].repeat(1, answers),
        log_p_BN=log_p_BN,
        proven_BN=log_p_BN > NEVER,
    )
