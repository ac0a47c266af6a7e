"""mzTab 1.0.0 (Griss et al., Molecular & Cellular Proteomics 2014), mode Summary, Identification.

The columns are Casanovo's in Casanovo's order, followed by ours, so that what reads its files
reads these. What differs is what the standard asks for: modifications are named by accession, and
a spectrum without an answer has a line, with nulls and a reason.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePath
from typing import IO, Any

from seqgen import __version__
from seqgen.errors import InputError
from seqgen_peptides.formats import Row, answers, one_line
from seqgen_peptides.masses import to_mz
from seqgen_peptides.modifications import unimod
from seqgen_peptides.proforma import TAG, number, read, split
from seqgen_peptides.residues import Residues

COLUMNS = (
    "sequence", "PSM_ID", "accession", "unique", "database", "database_version", "search_engine",
    "search_engine_score[1]", "modifications", "retention_time", "charge", "exp_mass_to_charge",
    "calc_mass_to_charge", "spectra_ref", "pre", "post", "start", "end", "opt_global_aa_scores",
    "opt_global_cv_MS:1003169_proforma_peptidoform_sequence",
    "opt_global_cv_MS:1000796_spectrum_title", "opt_global_precursor_error_ppm",
    "opt_global_isotope", "opt_global_rank", "opt_global_reason",
)  # fmt: skip

SOFTWARE = f"[, , seqgen, {__version__}]"
SCORE = "[MS, MS:1001143, search engine specific score for PSMs, ]"
_FILES = {  # suffix -> format, and how a spectrum of it is named
    ".mgf": ("[MS, MS:1001062, Mascot MGF format, ]",
             "[MS, MS:1000774, multiple peak list nativeID format, ]"),
    ".mzml": ("[MS, MS:1000584, mzML format, ]",
              "[MS, MS:1000776, scan number only nativeID format, ]"),
    ".mzxml": ("[MS, MS:1000566, ISB mzXML format, ]",
               "[MS, MS:1000776, scan number only nativeID format, ]"),
}  # fmt: skip


def write_mztab(
    rows: Iterable[Row], path: Path, *, settings: Mapping[str, Any], residues: Residues
) -> None:
    """Write rows as they come.

    Args:
        settings: of the run, named one by one in the head; nested mappings as `options.steps`.
        residues: the model's vocabulary: which modifications are looked for.
    """
    runs = _Runs()
    # The files that the head lists are known when the last row has come.
    with tempfile.TemporaryFile("w+", encoding="utf-8", newline="\n") as body:
        _line(body, "PSH", COLUMNS)
        count = 0
        for row in rows:
            for rank, answer in answers(row):
                count += 1
                _line(body, "PSM", _psm(answer, count, rank, runs, residues))
        body.seek(0)
        with path.open("w", encoding="utf-8", newline="\n") as file:
            for key, value in _head(settings, residues, runs):
                _line(file, "MTD", (key, value))
            shutil.copyfileobj(body, file)


def _psm(row: Row, count: int, rank: int, runs: _Runs, residues: Residues) -> list[Any]:
    peptide, charge = row.get("peptide") or None, row.get("charge")
    values = {
        "PSM_ID": count,
        "search_engine": SOFTWARE,
        "charge": charge,
        "exp_mass_to_charge": row.get("precursor_mz"),
        "spectra_ref": runs.reference(row),
        "opt_global_cv_MS:1000796_spectrum_title": row.get("title"),
        "opt_global_reason": row.get("reason"),
    }
    if peptide is not None:
        mass = _mass(str(peptide), residues)
        scores = row.get("residue_scores") or ()
        values |= {
            "sequence": re.sub(rf"{TAG}-?", "", str(peptide)),
            "search_engine_score[1]": row.get("score"),
            "modifications": ",".join(_modifications(str(peptide), residues)),
            "calc_mass_to_charge": round(to_mz(mass, int(charge)), 6) if mass and charge else None,
            "opt_global_aa_scores": ",".join(f"{score:.5f}" for score in scores),
            "opt_global_cv_MS:1003169_proforma_peptidoform_sequence": peptide,
            "opt_global_precursor_error_ppm": row.get("precursor_error_ppm"),
            "opt_global_isotope": row.get("isotope"),
            "opt_global_rank": rank,
        }
    return [values.get(name) for name in COLUMNS]


def _mass(peptide: str, residues: Residues) -> float | None:
    """Neutral mass in Da; None where a modification's mass is known to nobody."""
    try:
        known = residues.covering([peptide])
    except InputError:
        return None
    return known.mass(known.encode(peptide))


def _modifications(peptide: str, residues: Residues) -> Iterator[str]:
    """`3-UNIMOD:35`, or `3-CHEMMOD:+8.0142` where UNIMOD has none; the N-terminus is 0."""
    try:
        sites = read(peptide)
    except InputError:  # no peptide: a model may put the N-terminus in the middle
        return
    place = 0
    for site in sites:
        place += site.residue != "-"
        for tag in site.tags:
            name = _accession(site.residue, tag, residues)
            if name is not None:
                yield f"{place}-{name}"


def _accession(residue: str, tag: str, residues: Residues) -> str | None:
    if (found := unimod().named(tag)) is not None:
        return f"UNIMOD:{found.accession}"
    if number(tag) is not None:
        return f"CHEMMOD:{tag}"
    token = f"[{tag}]-" if residue == "-" else f"{residue}[{tag}]"
    bare = 0.0 if residue == "-" else residues.masses.get(residue)
    if token not in residues.masses or bare is None:
        return None
    return f"CHEMMOD:{residues.masses[token] - bare:+.6f}"


class _Runs:
    """The spectrum files of the rows, numbered from 1 as they come."""

    def __init__(self) -> None:
        self.locations: list[str | None] = []
        self.names: list[str] = []
        self._by_file: dict[str, int] = {}
        self._by_name: dict[str, int] = {}

    def reference(self, row: Row) -> str | None:
        """`ms_run[1]:index=7`; None for an input of which no spectrum is known."""
        name, spectrum = _named(str(row.get("id", "")))
        file = row.get("file")
        spectrum = str(row.get("spectra_ref") or spectrum)
        if not spectrum:
            return None
        return f"ms_run[{self._number(name, None if file is None else str(file))}]:{spectrum}"

    def _number(self, name: str, file: str | None) -> int:
        if file is None:  # a row that failed may know its id only
            if name not in self._by_name:
                self._by_name[name] = self._new(name, None)
            return self._by_name[name]
        if file not in self._by_file:
            known = self._by_name.get(name)
            if known is not None and self.locations[known - 1] is None:
                self.locations[known - 1] = file
                self._by_file[file] = known
            else:
                self._by_file[file] = self._new(name, file)
            self._by_name.setdefault(name, self._by_file[file])
        return self._by_file[file]

    def _new(self, name: str, file: str | None) -> int:
        self.names.append(name)
        self.locations.append(file)
        return len(self.names)


def _named(row_id: str) -> tuple[str, str]:
    """File's name and spectrum of an id, `file.mgf:index=7`; a second one of it ends in `#2`."""
    name, _, spectrum = re.sub(r"#\d+$", "", row_id).rpartition(":")
    return (name, spectrum) if re.fullmatch(r"\w+=.+", spectrum) else (row_id, "")


def _head(
    settings: Mapping[str, Any], residues: Residues, runs: _Runs
) -> Iterator[tuple[str, Any]]:
    """Keys and values of the metadata."""
    yield "mzTab-version", "1.0.0"
    yield "mzTab-mode", "Summary"
    yield "mzTab-type", "Identification"
    yield "description", "de novo peptide sequences by seqgen"
    yield "software[1]", SOFTWARE
    for count, (key, value) in enumerate(_flat(settings), 1):
        yield f"software[1]-setting[{count}]", f"{key} = {value}"
    yield "psm_search_engine_score[1]", SCORE
    yield from _searched(residues)
    for count, (name, location) in enumerate(zip(runs.names, runs.locations, strict=True), 1):
        kind = PurePath(name.removesuffix(".gz")).suffix.lower()
        if kind in _FILES:
            yield f"ms_run[{count}]-format", _FILES[kind][0]
        known = location not in (None, "-")  # standard input has no place
        uri = Path(str(location)).absolute().as_uri() if known else None
        yield f"ms_run[{count}]-location", uri
        if kind in _FILES:
            yield f"ms_run[{count}]-id_format", _FILES[kind][1]


def _searched(residues: Residues) -> Iterator[tuple[str, str]]:
    """Modifications of the vocabulary: fixed where it has no bare form of the residue."""
    found: dict[str, list[tuple[str, str]]] = {"fixed": [], "variable": []}
    for token in residues.tokens:
        residue, tag = split(token)
        if tag:
            kind = "variable" if residue == "-" or residue in residues.masses else "fixed"
            found[kind].append((residue, tag))
    for kind, none in (("fixed", "MS:1002453"), ("variable", "MS:1002454")):
        if not found[kind]:
            yield f"{kind}_mod[1]", f"[MS, {none}, No {kind} modifications searched, ]"
        for count, (residue, tag) in enumerate(found[kind], 1):
            named = unimod().named(tag)
            accession = _accession(residue, tag, residues) or f"CHEMMOD:{tag}"
            term = (
                f"[UNIMOD, UNIMOD:{named.accession}, {named.name}, ]"
                if named is not None
                else f"[CHEMMOD, {accession}, , ]"
            )
            yield f"{kind}_mod[{count}]", term
            yield f"{kind}_mod[{count}]-site", "N-term" if residue == "-" else residue
            if residue == "-":
                yield f"{kind}_mod[{count}]-position", "Any N-term"


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _line(file: IO[str], kind: str, values: Iterable[Any]) -> None:
    cells = ("null" if value is None or value == "" else one_line(value) for value in values)
    file.write("\t".join([kind, *cells]) + "\n")
