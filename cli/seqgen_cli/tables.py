"""Plain tables and JSON for the commands that list things."""

from __future__ import annotations

import json
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import click


def print_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Aligned columns on stdout; the last column is wrapped to the terminal's width."""
    cells = [[str(row.get(column, "")) for column in columns] for row in rows]
    widths = [
        max(len(column), *(len(line[i]) for line in cells)) if cells else len(column)
        for i, column in enumerate(columns[:-1])
    ]
    indent = sum(widths) + 2 * len(widths)
    room = max(24, shutil.get_terminal_size((100, 24)).columns - indent)
    for line in [[column.upper().replace("_", " ") for column in columns], *cells]:
        head = "".join(cell.ljust(width + 2) for cell, width in zip(line[:-1], widths, strict=True))
        wrapped = textwrap.wrap(line[-1], room) or [""]
        click.echo((head + wrapped[0]).rstrip())
        for rest in wrapped[1:]:
            click.echo(" " * indent + rest)


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))
