"""Metrics: the matching rule, rows without an answer, the curve."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqgen.errors import InputError
from seqgen_peptides.metrics import judge, matches, precision_at, score
from seqgen_peptides.residues import Residues

RESIDUES = Residues()


@dataclass(frozen=True)
class Item:
    id: str
    peptide: str | None


def row(peptide: str | None, value: float | None = 0.5, **more: Any) -> dict[str, Any]:
    if peptide is None:
        return {"id": "x", "status": "failed", "reason": "no peaks"}
    return {"id": "x", "status": "ok", "peptide": peptide, "score": value, **more}


def items(*peptides: str | None) -> list[Item]:
    return [Item(f"a.mgf:index={place}", peptide) for place, peptide in enumerate(peptides)]


def marks(truth: str, found: str) -> str:
    table = RESIDUES.table()
    pair = [[table[i] for i in RESIDUES.encode(peptide)] for peptide in (truth, found)]
    return "".join(str(int(mark)) for mark in matches(*pair))


@pytest.mark.parametrize(
    ("truth", "found", "expected"),
    [
        ("PEPTIDE", "PEPTLDE", "1111111"),
        ("PEPTIDE", "PETPIDE", "1100111"),  # worked out by hand: TP weighs what PT does
        ("PEPTIDE", "PEPTIDQ", "1111110"),
        ("AGK", "QK", "001"),  # AG weighs what Q does
        ("QK", "AGK", "001"),
        ("NK", "GGK", "001"),
        ("KF", "QM[Oxidation]", "11"),  # 0.036 and 0.033 Da apart
        ("NQ", "N[Deamidated]Q", "01"),
        ("DE", "N[Deamidated]Q[Deamidated]", "11"),
        ("[Acetyl]-PEK", "PEK", "0111"),
        ("PEPTIDE", "", "0000000"),
        ("PEP", "PEPTIDE", "1110000"),
    ],
)
def test_the_rule(truth: str, found: str, expected: str) -> None:
    if not found:
        assert matches([1.0] * len(truth), []) == [False] * len(truth)
    else:
        assert marks(truth, found) == expected


def test_figures_of_a_few_rows() -> None:
    found = score(
        [
            row("PEPTLDE", 0.9, precursor_error_ppm=3.0),
            row("QPEPK", 0.8, precursor_error_ppm=-19.0),  # right by mass, not by letter
            row("GGEK", 0.7, precursor_error_ppm=250.0),
            row(None),
        ],
        items("PEPTIDE", "KPEPK", "NEK", "AAAA"),
    )
    assert found == {
        "peptide_precision": 2 / 4,
        "aa_precision": (7 + 5 + 2) / (7 + 5 + 4),
        "aa_recall": (7 + 5 + 2) / (7 + 5 + 3 + 4),
        "peptide_precision_strict": 1 / 4,
        "coverage_auc": pytest.approx((1 + 1 + 2 / 3 + 2 / 4) / 4),
        "coverage": 3 / 4,
        "precursor_match": 2 / 3,
    }


def test_nothing_found_is_nought() -> None:
    found = score([row(None), row("", 0.3)], items("PEK", "PEK"))
    assert set(found.values()) == {0.0}


def test_other_spellings_of_a_reference() -> None:
    found = score(
        [row("M[Oxidation]PK"), row("[Acetyl]-AK"), row("S[UNIMOD:21]K")],
        items("M+15.995PK", "+42.011AK", "S[Phospho]K"),
    )
    assert found["peptide_precision_strict"] == 1.0


def test_references_outside_the_vocabulary_can_still_be_missed() -> None:
    judged = judge([row("SEK"), row("AEK"), row("CEK")], items("S[Phospho]EK", "AXEK", "UEK"))
    assert judged.hit.tolist() == [False, False, False]
    assert judged.true.tolist() == [3, 4, 3]
    assert judged.matched.tolist() == [2, 3, 2]


def test_without_references_it_says_so() -> None:
    with pytest.raises(InputError, match="1 of 2 spectra have no peptide") as caught:
        score([row("PEK"), row("PEK")], items("PEK", None))
    assert "a.mgf:index=1" in str(caught.value)
    with pytest.raises(InputError, match="nothing to score"):
        score([], [])
    with pytest.raises(InputError, match="'K\\[Mine\\]AK'"):
        score([row("KAK")], items("K[Mine]AK"))
    mine = RESIDUES.extended({"K[Mine]": 500.0})
    assert score([row("KAK")], items("K[Mine]AK"), residues=mine)["aa_recall"] == 2 / 3


@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.booleans()).map(lambda t: (t[0] / 4 - 1, t[1])),
        min_size=1,
        max_size=30,
    ),
    st.randoms(use_true_random=False),
)
def test_the_curve_is_the_expected_one_whatever_the_order(
    pairs: list[tuple[float, bool]], rng: Any
) -> None:
    scores, hits = np.array([s for s, _ in pairs]), np.array([h for _, h in pairs])
    curve = precision_at(scores, hits)
    assert curve[-1] == pytest.approx(hits.mean())
    shuffled = list(pairs)
    rng.shuffle(shuffled)
    other = precision_at(np.array([s for s, _ in shuffled]), np.array([h for _, h in shuffled]))
    np.testing.assert_allclose(other, curve)
    distinct = np.array([s + place / 1000 for place, (s, _) in enumerate(pairs)])
    order = np.argsort(-distinct)
    plain = np.cumsum(hits[order]) / np.arange(1, len(hits) + 1)
    np.testing.assert_allclose(precision_at(distinct, hits), plain)


def test_the_curve_falls_over_the_spectra_without_an_answer() -> None:
    scores = np.array([0.9, -np.inf, -np.inf, 0.8])
    hits = np.array([True, False, False, True])
    np.testing.assert_allclose(precision_at(scores, hits), [1, 1, 2 / 3, 1 / 2])


@given(st.lists(st.sampled_from(RESIDUES.tokens[:23]), min_size=1, max_size=20))
def test_a_peptide_matches_itself(tokens: list[str]) -> None:
    peptide = "".join(tokens)
    assert set(marks(peptide, peptide)) == {"1"}


def test_a_hundred_thousand_rows_in_seconds() -> None:
    rng = np.random.default_rng(0)
    tokens = np.array(RESIDUES.tokens[:23])
    truths = ["".join(tokens[rng.integers(23, size=14)]) for _ in range(2000)]
    wrong = ["".join(tokens[rng.integers(23, size=14)]) for _ in range(2000)]
    started = time.process_time()
    found = score([row(peptide) for peptide in wrong], items(*truths))
    assert time.process_time() - started < 1.0  # 50 s for 1e5, on a machine ten times too slow
    assert found["coverage"] == 1.0
