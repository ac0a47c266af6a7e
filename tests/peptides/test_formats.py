"""mzTab and TSV: what is written is read back, every spectrum has its line."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyteomics import mztab

from seqgen.errors import UsageError
from seqgen_peptides.formats import write_rows
from seqgen_peptides.masses import to_mz
from seqgen_peptides.residues import Residues

SETTINGS = {"model": "tiny", "seed": 3, "options": {"beams": 5, "precursor_tol_ppm": 20.0}}


def answer(reference: str, peptide: str, **more: Any) -> dict[str, Any]:
    file = more.pop("file", "/data/a b.mgf")
    return {
        "id": f"{Path(file).name}:{reference}",
        "status": "ok",
        "decoder": "beam",
        "model": "tiny",
        "seconds": None,
        "peptide": peptide,
        "score": 0.75,
        "residue_scores": [0.5, 0.25],
        "precursor_error_ppm": -1.5,
        "precursor_mz": 500.25,
        "charge": 2,
        "title": "scan 7\tof it",
        "file": file,
        "spectra_ref": reference,
    } | more


def failure(row_id: str, **more: Any) -> dict[str, Any]:
    reason = f"{row_id}: no peaks\nat all"
    return {"id": row_id, "status": "failed", "reason": reason, "decoder": "beam"} | more


ROWS = [
    answer("index=0", "PEM[Oxidation]K"),
    failure("a b.mgf:index=1"),
    answer(
        "index=2",
        "[Acetyl]-AC[Carbamidomethyl]K",
        candidates=[
            {"peptide": "[Acetyl]-AC[Carbamidomethyl]K", "score": 0.75},
            {"peptide": "[Acetyl]-AC[Carbamidomethyl]K", "score": 0.6, "charge": 3},
            {"peptide": "GGGK", "score": 0.5, "precursor_error_ppm": 9.0, "residue_scores": [1.0]},
            {"peptide": "[+25.980265]-GK", "score": 0.25, "residue_scores": None},
        ],
    ),
    failure("gone.mgf"),
    answer("scan=19", "GGK", file="/data/b.mzML.gz"),
]


def read_mztab(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    found = mztab.MzTab(str(path), table_format="dict")
    return dict(found.metadata), found.spectrum_match_table["rows"]


def test_mztab_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "out.mztab"
    write_rows(iter(ROWS), path, "mztab", settings=SETTINGS)
    head, table = read_mztab(path)
    assert (head["mzTab-version"], head["mzTab-mode"]) == ("1.0.0", "Summary")
    assert head["mzTab-type"] == "Identification"
    assert head["software[1]"][0] == "seqgen"
    said = [value for key, value in head.items() if key.startswith("software[1]-setting")]
    assert said == ["model = tiny", "seed = 3", "options.beams = 5",
                    "options.precursor_tol_ppm = 20.0"]  # fmt: skip
    assert head["ms_run[1]-location"] == "file:///data/a%20b.mgf"
    assert head["ms_run[1]-format"].accession == "MS:1001062"
    assert head["ms_run[2]-location"] == "file:///data/b.mzML.gz"
    assert "ms_run[3]-location" not in head
    assert len(table) == len(ROWS) + 3
    assert [row["PSM_ID"] for row in table] == list(range(1, 9))

    first = table[0]
    assert first["sequence"] == "PEMK"
    assert first["modifications"] == "3-UNIMOD:35"
    assert first["opt_global_cv_MS:1003169_proforma_peptidoform_sequence"] == "PEM[Oxidation]K"
    assert first["opt_global_aa_scores"] == "0.50000,0.25000"
    assert first["spectra_ref"] == "ms_run[1]:index=0"
    assert (first["search_engine_score[1]"], first["charge"]) == (0.75, 2)
    assert first["exp_mass_to_charge"] == 500.25
    residues = Residues()
    mass = residues.mass(residues.encode("PEM[Oxidation]K"))
    assert first["calc_mass_to_charge"] == pytest.approx(to_mz(mass, 2), abs=1e-5)
    assert first["opt_global_cv_MS:1000796_spectrum_title"] == "scan 7 of it"
    assert first["accession"] is None

    failed = table[1]
    assert failed["spectra_ref"] == "ms_run[1]:index=1"
    assert failed["opt_global_reason"] == "a b.mgf:index=1: no peaks at all"
    assert failed["sequence"] is None
    assert failed["search_engine_score[1]"] is None
    assert failed["opt_global_rank"] is None

    best = table[2:6]
    assert [row["opt_global_rank"] for row in best] == [1, 2, 3, 4]
    assert [row["charge"] for row in best] == [2, 3, 2, 2]
    assert [row["sequence"] for row in best] == ["ACK", "ACK", "GGGK", "GK"]
    assert [row["modifications"] for row in best] == [
        "0-UNIMOD:1,2-UNIMOD:4", "0-UNIMOD:1,2-UNIMOD:4", None, "0-CHEMMOD:+25.980265",
    ]  # fmt: skip
    assert {row["spectra_ref"] for row in best} == {"ms_run[1]:index=2"}
    assert best[2]["opt_global_precursor_error_ppm"] == 9.0

    assert table[6]["spectra_ref"] is None
    assert table[7]["spectra_ref"] == "ms_run[2]:scan=19"


def test_mztab_has_casanovo_s_columns_first(tmp_path: Path) -> None:
    path = tmp_path / "out.mztab"
    write_rows(ROWS, path, "mztab")
    header = next(line for line in path.read_text().splitlines() if line.startswith("PSH"))
    assert header.split("\t")[1:21] == [
        "sequence", "PSM_ID", "accession", "unique", "database", "database_version",
        "search_engine", "search_engine_score[1]", "modifications", "retention_time", "charge",
        "exp_mass_to_charge", "calc_mass_to_charge", "spectra_ref", "pre", "post", "start", "end",
        "opt_global_aa_scores", "opt_global_cv_MS:1003169_proforma_peptidoform_sequence",
    ]  # fmt: skip


def test_mztab_names_the_modifications_looked_for(tmp_path: Path) -> None:
    path = tmp_path / "out.mztab"
    write_rows([], path, "mztab")
    head, _ = read_mztab(path)
    assert head["fixed_mod[1]"].accession == "MS:1002453"
    variable = {
        (head[key].accession, head[f"{key}-site"])
        for key in head
        if key.startswith("variable_mod") and key.endswith("]")
    }
    assert ("UNIMOD:35", "M") in variable
    assert ("UNIMOD:1", "N-term") in variable
    assert ("CHEMMOD:+25.980265", "N-term") in variable
    assert len(variable) == 8
    masses = {token: mass for token, mass in Residues().masses.items() if token != "C"}
    write_rows([], path, "mztab", residues=Residues(masses))
    head, _ = read_mztab(path)
    assert (head["fixed_mod[1]"].accession, head["fixed_mod[1]-site"]) == ("UNIMOD:4", "C")


def test_own_modifications(tmp_path: Path) -> None:
    path = tmp_path / "out.mztab"
    rows = [answer("index=0", "AK[Mine]S[Phospho]"), answer("index=1", "AK[Mine]")]
    residues = Residues().extended({"K[Mine]": 328.094963})
    write_rows(rows, path, "mztab", residues=residues)
    _, table = read_mztab(path)
    assert table[0]["modifications"] == "2-CHEMMOD:+200.000000,3-UNIMOD:21"
    mass = 71.037114 + 328.094963 + 18.010564684
    assert table[1]["calc_mass_to_charge"] == pytest.approx(to_mz(mass, 2), abs=1e-5)
    write_rows(rows, path, "mztab")  # without the vocabulary that knows it: still a line
    _, table = read_mztab(path)
    assert table[1]["sequence"] == "AK"
    assert table[1]["calc_mass_to_charge"] is None


def test_files_of_equal_names_stay_apart(tmp_path: Path) -> None:
    rows = [
        answer("index=0", "GGK", file="/one/a.mgf"),
        answer("index=0", "GGK", file="/two/a.mgf", id="a.mgf:index=0#2"),
        failure("a.mgf:index=1#2", file="/two/a.mgf", spectra_ref="index=1", charge=3),
        failure("late.mgf:index=0"),
        answer("index=1", "GGK", file="/three/late.mgf"),
    ]
    write_rows(rows, tmp_path / "out.mztab", "mztab")
    head, table = read_mztab(tmp_path / "out.mztab")
    assert [row["spectra_ref"] for row in table] == [
        "ms_run[1]:index=0", "ms_run[2]:index=0", "ms_run[2]:index=1", "ms_run[3]:index=0",
        "ms_run[3]:index=1",
    ]  # fmt: skip
    assert table[2]["charge"] == 3
    assert head["ms_run[3]-location"] == "file:///three/late.mgf"


def test_standard_input_has_no_location(tmp_path: Path) -> None:
    write_rows([answer("index=0", "GGK", file="-")], tmp_path / "out.mztab", "mztab")
    head, table = read_mztab(tmp_path / "out.mztab")
    assert head["ms_run[1]-location"] is None
    assert table[0]["spectra_ref"] == "ms_run[1]:index=0"


def test_an_answer_that_is_no_peptide_is_written_all_the_same(tmp_path: Path) -> None:
    write_rows([answer("index=0", "PE[Acetyl]-K")], tmp_path / "out.mztab", "mztab")
    _, table = read_mztab(tmp_path / "out.mztab")
    assert table[0]["sequence"] == "PEK"
    assert table[0]["modifications"] is None


def test_tsv(tmp_path: Path) -> None:
    path = tmp_path / "out.tsv"
    write_rows([{**row, "passes": 4} for row in ROWS], path, "tsv")
    with path.open(newline="") as file:
        table = list(csv.DictReader(file, delimiter="\t"))
    assert [row["id"] for row in table] == [
        "a b.mgf:index=0", "a b.mgf:index=1", *["a b.mgf:index=2"] * 4, "gone.mgf",
        "b.mzML.gz:scan=19",
    ]  # fmt: skip
    assert [row["rank"] for row in table] == ["1", "", "1", "2", "3", "4", "", "1"]
    assert table[0]["peptide"] == "PEM[Oxidation]K"
    assert float(table[0]["score"]) == 0.75
    assert table[0]["residue_scores"] == "0.50000,0.25000"
    assert table[0]["title"] == "scan 7 of it"
    assert table[1]["reason"] == "a b.mgf:index=1: no peaks at all"
    assert table[1]["peptide"] == ""
    assert json.loads(table[0]["other"]) == {"passes": 4}


def test_a_folder_and_an_unknown_format(tmp_path: Path) -> None:
    write_rows(ROWS, tmp_path, "tsv")
    assert (tmp_path / "peptides.tsv").exists()
    with pytest.raises(UsageError, match="unknown format 'mzTab2'"):
        write_rows(ROWS, tmp_path / "x", "mzTab2")


def test_rows_are_not_gathered(tmp_path: Path) -> None:
    """A long run is written as it comes: no row is kept once the next is asked for."""
    import weakref

    class Row(dict[str, Any]):
        pass

    alive: list[weakref.ref[Row]] = []

    def many() -> Iterator[Row]:
        for number in range(50):
            row = Row(answer(f"index={number}", "GGK"))
            alive.append(weakref.ref(row))
            yield row
            assert sum(ref() is not None for ref in alive) <= 2

    for format in ("tsv", "mztab"):
        write_rows(many(), tmp_path / f"out.{format}", format)
