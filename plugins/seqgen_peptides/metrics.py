"""Precision of sequences against references, by the field's rule and by a strict one.

Two peptides are walked side by side with their cumulative masses (the rule of DeepNovo, Tran et
al., PNAS 2017, in Casanovo's "best" mode): residues that stand at the same mass match if their own
masses are the same. So I is L, N[Deamidated] is D, and K is Q (0.036 Da apart). The strict rule
asks for the same residues and modifications; only I is L.

A row that failed is no prediction: it counts as a spectrum and as residues to find, not as found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from seqgen.errors import InputError
from seqgen_peptides.residues import Residues

CUMULATIVE = 0.5
"""Residues pair up if their cumulative masses differ by less than this, in Da."""
INDIVIDUAL = 0.1
"""A pair matches if the residues' masses differ by less than this, in Da."""
PRECURSOR_PPM = 20.0
"""An answer this near to the precursor's mass explains it."""


class Annotated(Protocol):
    """What scoring needs of an item."""

    @property
    def id(self) -> str: ...

    @property
    def peptide(self) -> str | None: ...


@dataclass(frozen=True)
class Judged:
    """Rows against references, one element a row; shapes [N].

    Attributes:
        hit: the whole peptide matches.
        same: it is the same string, I as L.
        matched: residues that match.
        true, predicted: residues of the reference, and of the answer (0 without one).
        score: of the peptide; -inf without an answer.
        answered: there is one.
        near: its mass is within `PRECURSOR_PPM` of the precursor's.
    """

    hit: NDArray[np.bool_]
    same: NDArray[np.bool_]
    matched: NDArray[np.int64]
    true: NDArray[np.int64]
    predicted: NDArray[np.int64]
    score: NDArray[np.float64]
    answered: NDArray[np.bool_]
    near: NDArray[np.bool_]


def score(
    rows: Sequence[Mapping[str, Any]],
    items: Sequence[Annotated],
    *,
    residues: Residues | None = None,
) -> dict[str, float]:
    """Metrics of output rows against their items' peptides, item by item.

    Args:
        residues: where modifications are used that UNIMOD does not know.

    Returns:
        `peptide_precision` (whole peptides found, of all spectra), `aa_precision` and `aa_recall`
        (residues that match, of those predicted and of those true), `peptide_precision_strict`
        (the same string), `coverage_auc` (mean precision of the best 1, 2, ... all spectra by
        score: the area under the precision-coverage curve), `coverage` (spectra with an answer),
        `precursor_match` (answers within 20 ppm of the precursor's mass). Shares from 0 to 1.

    Raises:
        InputError: there are no rows, or an item has no peptide or an unreadable one.
    """
    judged = judge(rows, items, residues=residues)
    answers = max(1, int(judged.answered.sum()))
    return {
        "peptide_precision": float(judged.hit.mean()),
        "aa_precision": float(judged.matched.sum() / max(1, judged.predicted.sum())),
        "aa_recall": float(judged.matched.sum() / max(1, judged.true.sum())),
        "peptide_precision_strict": float(judged.same.mean()),
        "coverage_auc": float(precision_at(judged.score, judged.hit).mean()),
        "coverage": float(judged.answered.mean()),
        "precursor_match": float((judged.near & judged.answered).sum() / answers),
    }


def judge(
    rows: Sequence[Mapping[str, Any]],
    items: Sequence[Annotated],
    *,
    residues: Residues | None = None,
) -> Judged:
    """Each row against its item's peptide.

    Raises:
        InputError: as `score`.
    """
    truths = [item.peptide for item in items]
    missing = [item.id for item in items if not item.peptide]
    if missing or not rows:
        raise InputError(
            f"{len(missing)} of {len(rows)} spectra have no peptide to compare with"
            if rows
            else "there is nothing to score",
            why=f"the first is {missing[0]}" if missing else "no rows were given",
            fix="give an MGF file with a line SEQ=PEPTIDE in every spectrum",
        )
    answers = [_answer(row) for row in rows]
    residues = (residues or Residues()).covering([text for text in (*truths, *answers) if text])
    table = residues.table()
    columns: list[tuple[bool, bool, int, int, int]] = []
    for truth, answer in zip(truths, answers, strict=True):
        assert truth is not None
        true = residues.encode(truth)
        found = residues.encode(answer) if answer else []
        if true == found:
            columns.append((True, True, len(true), len(true), len(true)))
            continue
        marks = matches([table[i] for i in true], [table[i] for i in found])
        columns.append((all(marks), False, sum(marks), len(true), len(found)))
    hit, same, matched, true_count, predicted = np.array(columns).T
    return Judged(
        hit.astype(bool),
        same.astype(bool),
        matched.astype(np.int64),
        true_count.astype(np.int64),
        predicted.astype(np.int64),
        np.array([_score(row) if a else -np.inf for row, a in zip(rows, answers, strict=True)]),
        np.array([bool(answer) for answer in answers]),
        np.array([_is_near(row) for row in rows]),
    )


def matches(
    truth: Sequence[float],
    found: Sequence[float],
    *,
    cumulative: float = CUMULATIVE,
    individual: float = INDIVIDUAL,
) -> list[bool]:
    """Which places of two peptides match; as long as the longer of them.

    Args:
        truth, found: masses of the residues in Da, from the N-terminus.
        cumulative, individual: see `CUMULATIVE`, `INDIVIDUAL`.
    """
    marks = [False] * max(len(truth), len(found))
    _walk(marks, truth, found, cumulative, individual, low=0, backward=False)
    if all(marks):
        return marks
    # From the C-terminus down to the first place that the walk from the N-terminus left.
    low = marks.index(False)
    _walk(marks, truth, found, cumulative, individual, low=low, backward=True)
    return marks


def _walk(
    marks: list[bool],
    truth: Sequence[float],
    found: Sequence[float],
    cumulative: float,
    individual: float,
    *,
    low: int,
    backward: bool,
) -> None:
    """Mark the pairs met on the way; of two that do not pair up, the lighter side moves on."""
    step = -1 if backward else 1
    i, j = (len(truth) - 1, len(found) - 1) if backward else (0, 0)
    mass_i = mass_j = 0.0
    while low <= i < len(truth) and low <= j < len(found):
        next_i, next_j = mass_i + truth[i], mass_j + found[j]
        if abs(next_i - next_j) < cumulative:
            marks[max(i, j)] = abs(truth[i] - found[j]) < individual
            i, j, mass_i, mass_j = i + step, j + step, next_i, next_j
        elif next_j > next_i:
            i, mass_i = i + step, next_i
        else:
            j, mass_j = j + step, next_j


def precision_at(scores: NDArray[np.float64], hits: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Precision of the 1, 2, ... N spectra of highest score: the curve over coverage k / N.

    Among equal scores (all that failed, for one) the order is chance: the hits count as spread
    evenly over them, so that the curve does not depend on the order of the rows.

    Args:
        scores: [N], -inf without an answer.
        hits: [N].
    """
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    found = np.cumsum(hits[order])
    last = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))  # of each group of equals
    places = np.arange(1, len(scores) + 1)
    expected = np.interp(places, [0, *(last + 1)], [0, *found[last]])
    precision: NDArray[np.float64] = expected / places
    return precision


def _answer(row: Mapping[str, Any]) -> str | None:
    return str(row.get("peptide") or "") or None if row.get("status", "ok") == "ok" else None


def _score(row: Mapping[str, Any]) -> float:
    value = row.get("score")
    return float(value) if value is not None and np.isfinite(value) else -np.inf


def _is_near(row: Mapping[str, Any]) -> bool:
    error = row.get("precursor_error_ppm")
    return error is not None and abs(float(error)) <= PRECURSOR_PPM
