"""The vocabulary: every spelling of a modification, reasons for what is not known, new ones."""

from __future__ import annotations

import json
import math
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqgen.errors import ConfigError, InputError
from seqgen_peptides.masses import WATER
from seqgen_peptides.modifications import convert, read_modifications, unimod
from seqgen_peptides.residues import FIRST, PAD, STOP, Residues

RESIDUES = Residues()
N_TERMINAL = [i for i, is_end in enumerate(RESIDUES.n_terminal()) if is_end]
INNER = [i for i in range(FIRST, len(RESIDUES)) if i not in N_TERMINAL]


@given(st.lists(st.sampled_from([*INNER, *N_TERMINAL]), min_size=1, max_size=40))
def test_what_it_writes_it_reads(ids: list[int]) -> None:
    """Whatever a model gives: an N-terminal modification in the middle, or two."""
    assert RESIDUES.encode(RESIDUES.decode(ids)) == ids
    assert RESIDUES.decode([PAD, *ids, STOP, PAD]) == RESIDUES.decode(ids)
    assert RESIDUES.mass(ids) == pytest.approx(sum(RESIDUES.table()[i] for i in ids) + WATER)
    assert "".join(RESIDUES.split(RESIDUES.decode(ids))) == RESIDUES.decode(ids)


@pytest.mark.parametrize(
    ("spelling", "proforma"),
    [
        ("PEPTIDE", "PEPTLDE"),
        ("PEPTIDE/2", "PEPTLDE"),
        ("M[UNIMOD:35]K", "M[Oxidation]K"),
        ("M[U:Oxidation]K", "M[Oxidation]K"),
        ("M[U:35]K", "M[Oxidation]K"),
        ("M[oxidation]K", "M[Oxidation]K"),
        ("M[+15.9949]K", "M[Oxidation]K"),
        ("M[U:+15.9949]K", "M[Oxidation]K"),
        ("M[MyName|UNIMOD:35]K", "M[Oxidation]K"),
        ("M[+15.9949|info:seen twice]K", "M[Oxidation]K"),
        ("M[+16]K", "M[Oxidation]K"),
        ("M+15.995PEPTC+57.021K", "M[Oxidation]PEPTC[Carbamidomethyl]K"),
        ("M(+15.99)PEPTC(+57.02)K", "M[Oxidation]PEPTC[Carbamidomethyl]K"),
        ("M[+15.98]K", None),
        ("M[+15.5]K", None),
        ("N[UNIMOD:7]Q+0.984K", "N[Deamidated]Q[Deamidated]K"),
        ("[UNIMOD:1]-AK", "[Acetyl]-AK"),
        ("[Acetyl]AK", "[Acetyl]-AK"),
        ("+42.011AK", "[Acetyl]-AK"),
        ("[+42.010565]-AK", "[Acetyl]-AK"),
        ("+43.006AK", "[Carbamyl]-AK"),
        ("-17.027QK", "[Ammonia-loss]-QK"),
        ("+43.006-17.027QK", "[+25.980265]-QK"),
        ("[Carbamyl][Ammonia-loss]-QK", "[+25.980265]-QK"),
        ("+25.980AK", "[+25.980265]-AK"),
        # the ring of an N-terminal glutamine, and of an alkylated cysteine
        ("Q[Gln->pyro-Glu]K", "[Ammonia-loss]-QK"),
        ("Q-17.027K", "[Ammonia-loss]-QK"),
        ("C[+39.995]K", "[Ammonia-loss]-C[Carbamidomethyl]K"),
        ("AQ-17.027K", None),
        # the side chain's acetyl is another molecule than the N-terminus's
        ("K[Acetyl]AK", None),
    ],
)
def test_spellings(spelling: str, proforma: str | None) -> None:
    if proforma is None:
        with pytest.raises(InputError, match="cannot read the peptide"):
            RESIDUES.encode(spelling)
    else:
        assert RESIDUES.decode(RESIDUES.encode(spelling)) == proforma


@pytest.mark.parametrize(
    ("peptide", "words"),
    [
        ("PES[Phospho]K", ("'Phospho'", "of S", "add 'S[Phospho]'")),
        ("PES[+79.966]K", ("UNIMOD: Phospho", "add 'S[Phospho]'")),
        ("M[Acetyl]K", ("'Acetyl'", "it knows M[Oxidation]")),
        ("M[Oxidatoin]K", ("'Oxidatoin' at M", "did you mean Oxidation")),
        ("M[UNIMOD:99999]K", ("UNIMOD:99999",)),
        ("[TMT6plex]-AK", ("the N-terminus", "[Acetyl]-", "add '[TMT6plex]-'")),
        ("PEXK", ("no residue 'X'",)),
        ("PEPTIDE-[Amidated]", ("C-terminus",)),
        ("<[Carbamidomethyl]@C>PEPC", ("global",)),
        ("[Acetyl]?PEPTIDE", ("unknown place",)),
        ("PEPtIDE", ("'tIDE' holds a small letter",)),
        ("PEP TIDE", ("' TIDE'",)),
        ("PE[TMT6plex]-K", ("'-K'",)),
        ("PEP[Oxidation", ("'[Oxidation'",)),
        ("", ("no residues",)),
        ("+42.011", ("'+42.011'",)),
    ],
)
def test_the_reason_names_what_is_wrong(peptide: str, words: tuple[str, ...]) -> None:
    with pytest.raises(InputError) as caught:
        RESIDUES.encode(peptide)
    for word in (repr(peptide), *words):
        assert word in str(caught.value)


def test_the_vocabulary_is_massive_kb_s() -> None:
    assert len(RESIDUES) == 29
    assert RESIDUES.tokens[0] == "A"
    assert RESIDUES.encode("I") == RESIDUES.encode("L")
    for token in RESIDUES.tokens:
        residue, bracket, name = token.removesuffix("-").partition("[")
        found = unimod().named(name.removesuffix("]")) if bracket else None
        if found is not None:
            bare = RESIDUES.masses.get(residue, 0.0)
            assert RESIDUES.masses[token] - bare == pytest.approx(found.mass, abs=2e-6)


def test_new_tokens_stand_behind_the_known_ones() -> None:
    larger = RESIDUES.extended(["S[Phospho]", "K[+8.0142]", "[TMT6plex]-", "A"])
    assert larger.tokens[:-3] == RESIDUES.tokens
    assert larger.masses["S[Phospho]"] == pytest.approx(166.998359, abs=1e-5)
    assert larger.masses["K[+8.0142]"] == pytest.approx(128.094963 + 8.0142)
    assert larger.decode(larger.encode("[U:TMT6plex]-PES[UNIMOD:21]K+8.014")) == (
        "[TMT6plex]-PES[Phospho]K[+8.0142]"
    )
    parents = RESIDUES.parents(larger)
    assert parents[: len(RESIDUES)] == list(range(len(RESIDUES)))
    nearest = RESIDUES.encode("[Carbamyl]-")[0]
    assert parents[len(RESIDUES) :] == [*RESIDUES.encode("SK"), nearest]


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        ({"S[Phospho]": 79.966331}, "should be 166.998"),
        ({"S[Phosfo]": None}, "did you mean Phospho"),
        ({"X[Phospho]": None}, "residue 'X' is not in the vocabulary"),
        ({"U": None}, "the mass of 'U' is not known"),
        ({"A": 70.0}, "the mass of 'A' is 71.037114"),
        ({"s[Phospho]": 10.0}, "is not a residue"),
        ({"S[Phospho": None}, "is not a residue"),
        ({"K[Mine]": math.nan}, "is nan"),
    ],
)
def test_bad_tokens_are_refused(tokens: dict[str, float | None], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        RESIDUES.extended(tokens)
    assert words in str(caught.value)


def test_tokens_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "more.yaml"
    path.write_text('residues:\n  S[Phospho]:\n  U: 150.953636\n  "[TMT6plex]-":\n')
    larger = RESIDUES.extended(read_modifications(path))
    assert larger.tokens[-3:] == ("S[Phospho]", "U", "[TMT6plex]-")
    path.write_text("residues: [S[Phospho], T[Phospho]]")
    with pytest.raises(ConfigError, match=r"more.yaml"):
        read_modifications(path)  # YAML reads brackets within a list as another list
    path.write_text("residues:\n- S[Phospho]\n- T[Phospho]")
    assert list(read_modifications(path)) == ["S[Phospho]", "T[Phospho]"]
    for text in ("residues: 3", "- S", "residues: {S: heavy}", "{"):
        path.write_text(text)
        with pytest.raises(ConfigError, match=r"more.yaml"):
            read_modifications(path)


def test_it_survives_json_and_pickle() -> None:
    larger = RESIDUES.extended(["S[Phospho]"])
    larger.encode("PES[Phospho]K")
    text = json.dumps(larger.to_json(), sort_keys=True)
    assert Residues.from_json(json.loads(text)) == larger
    assert Residues.from_json(json.loads(text)).tokens == larger.tokens
    assert pickle.loads(pickle.dumps(larger)) == larger


def test_real_annotations_are_read(shared_data: Path) -> None:
    text = (shared_data / "peptides" / "real_valid.mgf").read_text()
    peptides = [line[4:] for line in text.splitlines() if line.startswith("SEQ=")]
    assert len(peptides) == 189
    for peptide in peptides:
        ids = RESIDUES.encode(peptide)
        assert RESIDUES.decode(ids).replace("L", "I") == peptide.replace("L", "I")


def test_the_table_is_unimod_s(shared_data: Path) -> None:
    found = {m.accession: m for m in convert(shared_data / "peptides" / "unimod.xml.gz")}
    assert found == dict(unimod().by_accession)
    assert len(found) > 1500
    assert [m.name for m in unimod().near(79.966331, 0.001)] == ["Phospho"]
