"""From what a decoder wrote to the fields of an output row: ProForma, scores, errors, reasons.

Shapes: B rows, N hypotheses a row, S slots.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from seqgen.decoders.base import Generated
from seqgen.domain import Fields
from seqgen_peptides.constraint import ISOTOPE_STEP
from seqgen_peptides.masses import to_mz
from seqgen_peptides.options import PeptideOptions
from seqgen_peptides.residues import FIRST, STOP, Residues
from seqgen_peptides.spectra import SpectrumItem

PROBLEM = "problem"
"""The field of a spectrum without an answer: why there is none."""


@dataclass(frozen=True)
class _Found:
    """One sequence as it was decoded, from the C-terminus.

    Attributes:
        ids: with the stop, where there is one.
        confidences: of the ids.
        log_score: what the decoder ranks it by.
        complete: it came to an end.
    """

    ids: list[int]
    confidences: list[float]
    log_score: float
    complete: bool


def fields_of(
    generated: Generated,
    pieces: Sequence[SpectrumItem],
    residues: Residues,
    options: PeptideOptions,
) -> list[Fields]:
    """The fields of each spectrum: its best peptides, or `PROBLEM`."""
    everything = []
    slots = generated.values.shape[1]
    for piece, found in zip(pieces, _hypotheses(generated), strict=True):
        answers, refused = [], ""
        for one in found:
            if not one.complete and len(one.ids) < slots:
                continue  # the constraint left nothing to go on with
            reason = _refused(one, residues, options)
            refused = refused or reason
            if not reason:
                answers.append(_answer(one, piece, residues, options))
        common = about(piece)
        if not answers:
            everything.append({PROBLEM: _no_peptide(refused, options), **common})
            continue
        kept: Fields = {**answers[0], **common}
        if options.top > 1:
            charge = {"charge": piece.charge}
            kept["candidates"] = [{**answer, **charge} for answer in answers[: options.top]]
        everything.append(kept)
    return everything


def about(item: SpectrumItem) -> Fields:
    """What is known of a spectrum without an answer: fields of every row."""
    return {
        "precursor_mz": item.precursor_mz,
        "charge": item.charge,
        "title": item.title,
        "file": str(item.path),
        "spectra_ref": item.reference,
    }


def join_charges(parts: Sequence[Fields], top: int) -> Fields:
    """One row of the answers for every charge that a spectrum may have: the best one's."""
    best = max(parts, key=lambda part: part.get("score", -1.0))
    if len(parts) == 1 or "candidates" not in best:
        return best
    candidates = [answer for part in parts for answer in part.get("candidates", ())]
    candidates.sort(key=lambda answer: -float(answer["score"]))
    return {**best, "candidates": candidates[:top]}


def _hypotheses(generated: Generated) -> Iterator[list[_Found]]:
    """The sequences of each row, best first."""
    several = generated.hypotheses
    if several is None:
        rows = zip(
            generated.values.tolist(),
            generated.confidence_BS.tolist(),
            generated.length_B.tolist(),
            generated.finished_B.tolist(),
            strict=True,
        )
        for ids, confidences, length, complete in rows:
            yield [_Found(ids[:length], confidences[:length], 0.0, complete)]
        return
    tensors = (
        several.values_BNS,
        several.confidence_BNS,
        several.length_BN,
        several.score_BN,
        several.finished_BN,
    )
    for row in zip(*(x.tolist() for x in tensors), strict=True):
        yield [
            _Found(ids[:length], confidences[:length], score, complete)
            for ids, confidences, length, score, complete in zip(*row, strict=True)
            if score > -math.inf
        ]


def _refused(found: _Found, residues: Residues, options: PeptideOptions) -> str:
    """Why a sequence is no peptide, or nothing."""
    body = found.ids[:-1] if found.ids[-1:] == [STOP] else found.ids
    ends = residues.n_terminal()
    if not found.complete:
        return f"no peptide came to an end within {options.max_length} residues"
    if any(i < FIRST for i in body):
        return "the decoder's answer is no peptide: it holds a padding or a stop"
    if any(ends[i] for i in body[:-1]):
        return "the decoder's answer is no peptide: an N-terminal modification stands within it"
    count = sum(not ends[i] for i in body)
    if count < options.min_length:
        return f"the decoder's answer has {count} residues, fewer than {options.min_length}"
    if count > options.max_length:
        return f"the decoder's answer has {count} residues, more than {options.max_length}"
    return ""


def _no_peptide(refused: str, options: PeptideOptions) -> str:
    if refused or not options.precursor_constraint:
        return refused or "no peptide was found"
    return (
        f"no peptide of {options.min_length} to {options.max_length} residues was found within "
        f"{options.precursor_tol_ppm:g} ppm of the precursor; a wider tolerance (--set "
        "precursor_tol_ppm=50), more isotopes (--set isotope_high=2) or more beams may help"
    )


def _answer(
    found: _Found, piece: SpectrumItem, residues: Residues, options: PeptideOptions
) -> Fields:
    """The fields of one peptide.

    Its score is the probability of the whole: the product over residues and stop (as Casanovo's),
    or of all CTC paths. Those of the residues are softmax probabilities, from the N-terminus.
    """
    stops = found.ids[-1:] == [STOP]
    ids = found.ids[:-1] if stops else found.ids
    score = math.prod(found.confidences) if stops else math.exp(found.log_score)
    ids, confidences = ids[::-1], found.confidences[: len(ids)][::-1]
    error_ppm, isotope = _error_ppm(residues.mass(ids), piece, options.isotopes)
    return {
        "peptide": residues.decode(ids),
        "score": _digits(score),
        "residue_scores": [round(c, 5) for c in confidences],
        "precursor_error_ppm": error_ppm,
        "isotope": isotope,
    }


def _error_ppm(mass: float, piece: SpectrumItem, isotopes: tuple[int, int]) -> tuple[float, int]:
    """How far the peptide lies above the precursor, taken as the isotope that is nearest; and that.

    Casanovo's definition, relative to the measured m/z.
    """
    assert piece.precursor_mz is not None
    assert piece.charge is not None
    difference = to_mz(mass, piece.charge) - piece.precursor_mz
    steps = range(isotopes[0], isotopes[1] + 1)
    errors = {i: difference + i * ISOTOPE_STEP / piece.charge for i in steps}
    isotope = min(errors, key=lambda i: abs(errors[i]))
    return round(errors[isotope] / piece.precursor_mz * 1e6, 3), isotope


def _digits(x: float) -> float:
    """Six significant digits: small probabilities must keep their order."""
    return float(f"{x:.6g}")
