"""Generated texts as a txt file.

Rows are output rows: `id`, `status`, `text`, ... A failed row has an empty text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from seqgen.errors import UsageError, did_you_mean

FORMATS = ("txt",)


def write_rows(rows: Iterable[Mapping[str, Any]], destination: Path, format: str) -> None:
    """Write rows in one of `FORMATS`; into a folder as `texts.txt`.

    Raises:
        UsageError: the format is unknown.
    """
    if format not in FORMATS:
        raise UsageError(f"unknown format {format!r}", fix=did_you_mean(format, FORMATS))
    path = destination / "texts.txt" if destination.is_dir() else destination
    path.write_text(to_txt(list(rows)), encoding="utf-8")


def to_txt(rows: list[Mapping[str, Any]]) -> str:
    """One row: its text. Several: each under a line `== id ==`."""
    if len(rows) == 1:
        return f"{rows[0].get('text') or ''}\n"
    parts = [f"== {' '.join(str(row['id']).split())} ==\n{row.get('text') or ''}\n" for row in rows]
    return "\n".join(parts)
