"""Output formats beside JSON lines: mzTab and TSV, each with a line for every spectrum.

Rows are output rows: `id`, `status`, `reason`, `decoder`, `model`, `seconds`, and of an answer
`peptide` (ProForma), `score`, `residue_scores` (from the N-terminus), `precursor_error_ppm`,
`precursor_mz`, `charge`, `title`, `file`, `spectra_ref` (mzTab's name of the spectrum within its
file, `index=7`). `candidates` may hold the best answers in order, each with the fields of an
answer; those other than the row's own follow it as further lines of rank 2, 3, ...
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from seqgen.errors import UsageError, did_you_mean
from seqgen_peptides.residues import Residues

Row = Mapping[str, Any]

FORMATS = ("mztab", "tsv")

COLUMNS = (
    "id", "status", "reason", "rank", "peptide", "score", "residue_scores", "charge",
    "precursor_mz", "precursor_error_ppm", "isotope", "title", "file", "spectra_ref", "decoder",
    "model", "seconds", "other",
)  # fmt: skip
"""Columns of TSV; `other` holds what else a row has, as JSON."""


def write_rows(
    rows: Iterable[Row],
    destination: Path,
    format: str,
    *,
    settings: Mapping[str, Any] | None = None,
    residues: Residues | None = None,
) -> None:
    """Write rows in one of `FORMATS`, as they come: the run's length does not matter.

    Args:
        destination: a file, or a folder in which `peptides.FORMAT` is written.
        settings: of the run; mzTab names them.
        residues: the model's vocabulary, where it is not the standard one.

    Raises:
        UsageError: the format is unknown.
    """
    if format not in FORMATS:
        raise UsageError(f"unknown format {format!r}", fix=did_you_mean(format, FORMATS))
    path = destination / f"peptides.{format}" if destination.is_dir() else destination
    if format == "mztab":
        from seqgen_peptides.mztab import write_mztab

        write_mztab(rows, path, settings=settings or {}, residues=residues or Residues())
    else:
        write_tsv(rows, path)


def write_tsv(rows: Iterable[Row], path: Path) -> None:
    """A table with the columns `COLUMNS`; nothing where a value is missing."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write("\t".join(COLUMNS) + "\n")
        for row in rows:
            for rank, answer in answers(row):
                values = {**answer, "rank": rank if answer.get("peptide") else None}
                values["other"] = {
                    name: value
                    for name, value in row.items()
                    if name not in COLUMNS and name != "candidates"
                } or None
                file.write("\t".join(_cell(name, values.get(name)) for name in COLUMNS) + "\n")


def answers(row: Row) -> Iterator[tuple[int, Row]]:
    """(rank, fields) of a row's answer and of its other candidates; a failed row is one too."""
    yield 1, row
    rank = 1
    for candidate in row.get("candidates") or ():
        answer = {**row, **candidate}
        if any(answer.get(name) != row.get(name) for name in ("peptide", "charge")):
            rank += 1
            yield rank, answer


def one_line(text: object) -> str:
    """Text that fits a cell of a table."""
    return " ".join(str(text).split())


def _cell(name: str, value: Any) -> str:
    if value is None:
        return ""
    if name == "residue_scores":
        return ",".join(f"{score:.5f}" for score in value)
    if name == "other":
        return json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
    return one_line(value)
