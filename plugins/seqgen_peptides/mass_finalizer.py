"""The finalizer of the one-pass decoder that only gives peptides of the precursor's mass.

    finalizer = MassConstrainedCTC.for_batch(
        residues, context.mass_B, context.charge_B, context.precursor_mz_B,
        draft=PrefixBeamCTC(blank=PAD, beams=5),
    )
    OnePass(finalizer=finalizer)

Shapes: B rows, S slots, V vocabulary, K windows of mass, N, M answers, R rows that are searched.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from seqgen.ctc import ctc_score
from seqgen.ctc.loss import log_probabilities
from seqgen.finalizers import Finalizer, ranked
from seqgen.hypotheses import Hypotheses
from seqgen.logits import NEVER
from seqgen_peptides.constraint import fits, mass_windows
from seqgen_peptides.mass_program import ROUNDS, mass_program
from seqgen_peptides.residues import PAD, Residues


@dataclass(frozen=True, kw_only=True, eq=False)
class MassConstrainedCTC:
    """A `seqgen.finalizers.Finalizer`: peptides of the precursor's mass; made by `for_batch`.

    Answers are ranked by the log-probability of the sequence, all its paths summed. The program
    finds them by their best path; a draft by another finalizer adds what it knows: drafts of the
    right mass are candidates as well, and where the draft's best is one and one answer is wanted,
    it stands, as in PrimeNovo.

    Attributes:
        residues: the vocabulary.
        low_BK, high_BK: windows of the sum of residue masses, float64.
        answers: wanted (N).
        min_length: residues at least.
        rounds: see `mass_program`.
        draft: `PrefixBeamCTC`, say; None: the program decides alone.
    """

    residues: Residues
    low_BK: Tensor
    high_BK: Tensor
    answers: int = 1
    min_length: int = 6
    rounds: tuple[int, ...] = ROUNDS
    draft: Finalizer | None = None

    @classmethod
    def for_batch(
        cls,
        residues: Residues,
        mass_B: Tensor,
        charge_B: Tensor,
        precursor_mz_B: Tensor,
        *,
        tol_ppm: float = 20.0,
        isotopes: tuple[int, int] = (0, 1),
        answers: int = 1,
        min_length: int = 6,
        rounds: tuple[int, ...] = ROUNDS,
        draft: Finalizer | None = None,
    ) -> MassConstrainedCTC:
        """The finalizer of a batch of spectra; arguments as `PrecursorMass.for_batch`."""
        low_BK, high_BK = mass_windows(
            mass_B, charge_B, precursor_mz_B, tol_ppm=tol_ppm, isotopes=isotopes
        )
        return cls(
            residues=residues,
            low_BK=low_BK,
            high_BK=high_BK,
            answers=answers,
            min_length=min_length,
            rounds=rounds,
            draft=draft,
        )

    def __call__(self, logits_BSV: Tensor, slots_B: Tensor | None) -> Hypotheses:
        """The best peptides of every row; score -inf where no peptide has the mass."""
        log_p_BSV = log_probabilities(logits_BSV, slots_B, PAD)
        if self.draft is None:
            return self._solve(log_p_BSV, self.low_BK, self.high_BK)
        drafts = self.draft(logits_BSV, slots_B)
        fits_BN = fits(
            self.residues,
            drafts.values_BNS,
            drafts.length_BN,
            self.low_BK,
            self.high_BK,
            min_length=self.min_length,
        )
        score_BN = drafts.score_BN.masked_fill(~fits_BN, NEVER)
        open_B = torch.ones_like(fits_BN[:, 0])
        if self.answers == 1:
            open_B = score_BN[:, 0] == NEVER
        open_R = open_B.nonzero().squeeze(1)
        candidates = ranked(drafts, score_BN)
        if open_R.shape[0]:
            found = self._solve(log_p_BSV[open_R], self.low_BK[open_R], self.high_BK[open_R])
            candidates = _united(candidates, _spread(found, open_R, len(score_BN)))
        best = Hypotheses(*(value[:, : self.answers] for value in vars(candidates).values()))
        return replace(best, finished_BN=best.score_BN > NEVER)

    def _solve(self, log_p_BSV: Tensor, low_BK: Tensor, high_BK: Tensor) -> Hypotheses:
        found = mass_program(
            log_p_BSV,
            self.residues,
            low_BK,
            high_BK,
            answers=self.answers,
            min_length=self.min_length,
            rounds=self.rounds,
        ).hypotheses
        score_BN = ctc_score(log_p_BSV, found, blank=PAD)
        return ranked(found, score_BN.masked_fill(found.score_BN == NEVER, NEVER))


def _spread(found: Hypotheses, rows_R: Tensor, batch: int) -> Hypotheses:
    """Answers of some rows as those of a whole batch, in which the others have none."""

    def spread(value: Tensor, empty: float) -> Tensor:
        wide = value.new_full((batch, *value.shape[1:]), empty)
        return wide.index_copy(0, rows_R, value)

    return Hypotheses(
        values_BNS=spread(found.values_BNS, PAD),
        length_BN=spread(found.length_BN, 0),
        score_BN=spread(found.score_BN, NEVER),
        confidence_BNS=spread(found.confidence_BNS, 0),
        finished_BN=spread(found.finished_BN, False),
    )


def _united(one: Hypotheses, other: Hypotheses) -> Hypotheses:
    """The answers of both, best first, each once; both hold padding behind a sequence's end."""
    same_BNM = (one.values_BNS[:, :, None] == other.values_BNS[:, None]).all(dim=-1)
    known_BM = (same_BNM & (one.score_BN > NEVER)[..., None]).any(dim=1)
    pairs = zip(vars(one).values(), vars(other).values(), strict=True)
    both = Hypotheses(*(torch.cat(pair, dim=1) for pair in pairs))
    score_BM = other.score_BN.masked_fill(known_BM, NEVER)
    return ranked(both, torch.cat([one.score_BN, score_BM], dim=1))
