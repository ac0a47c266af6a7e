"""Which column of a table is what: the layouts that are understood, and how they are told apart.

long       unique_id, ds, y: a row is a value of one series (Nixtla's convention)
single     ds, y: one series, named after the file (Prophet's convention)
wide       ds and a column for every series

Times may also stand in the columns year and quarter, or year and month (and day).
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from seqgen.errors import InputError

Layout = Literal["auto", "long", "single", "wide"]

ID_NAMES = ("unique_id", "series_id", "item_id")
TIME_NAMES = ("ds", "date", "datetime", "timestamp", "time")
VALUE_NAMES = ("y", "value", "target")
PART_NAMES = ("year", "quarter", "month", "day")
_INDEX = ("Unnamed:", "__index_level_")
"""What pandas calls an index without a name."""


@dataclass(frozen=True)
class Columns:
    """The columns of a table by what they are.

    Attributes:
        id: names of the series; "" if the table holds one, or one a column.
        time: one column, or year, quarter, month, day as far as they are there.
        values: one column, or in the wide layout one a series.
        past, future: exogenous columns.
        wide: every value column is a series.
        unused: columns that are none of these.
    """

    id: str
    time: tuple[str, ...]
    values: tuple[str, ...]
    past: tuple[str, ...]
    future: tuple[str, ...]
    wide: bool
    unused: tuple[str, ...]

    @property
    def all(self) -> list[str]:
        """Every column to be read."""
        own = [self.id] if self.id else []
        return [*own, *self.time, *self.values, *self.past, *self.future]


def find_columns(
    name: str,
    columns: Sequence[str],
    *,
    id_column: str = "",
    time_column: str = "",
    value_column: str = "",
    past: Sequence[str] = (),
    future: Sequence[str] = (),
    layout: Layout = "auto",
) -> Columns:
    """Tell what the columns of a table are.

    Names that are not given are looked for among `ID_NAMES`, `TIME_NAMES` and `VALUE_NAMES`,
    whatever their case. Without a value column, the only column left of a long table is it, and
    the columns left of a table without ids are series (wide).

    Args:
        name: of the table, for messages.
        columns: its columns.

    Raises:
        InputError: a column is missing; the names there are suggested.
    """
    for label, wanted in (
        ("id_column", id_column),
        ("time_column", time_column),
        ("value_column", value_column),
        *(("past", column) for column in past),
        *(("future", column) for column in future),
    ):
        if wanted and wanted not in columns:
            raise InputError(
                f"{name} has no column {wanted!r} ({label})", fix=_suggestion(wanted, columns)
            )
    if both := sorted(set(past) & set(future)):
        raise InputError(
            f"the column {both[0]!r} is named both as past and as future",
            fix="name it once: what is known beforehand is future",
        )
    unique = id_column or _first(columns, ID_NAMES)
    if layout == "long" and not unique:
        raise _missing(name, columns, "names of the series", ID_NAMES, "id_column")
    if layout in ("single", "wide") and not id_column:
        unique = ""
    time = _times(name, columns, time_column)
    taken = {unique, *time, *past, *future, ""}
    rest = [c for c in columns if c not in taken and not c.startswith(_INDEX)]
    value = value_column or _first(rest, VALUE_NAMES)
    if layout == "wide" or (layout == "auto" and not value and not unique):
        close = [c for c in rest if difflib.get_close_matches(c.lower(), ID_NAMES, 1, 0.85)]
        if layout == "auto" and close:  # a slip of the pen rather than the name of a series
            raise _missing(name, columns, "names of the series", ID_NAMES, "id_column")
        if not rest:
            raise _missing(name, columns, "values", VALUE_NAMES, "value_column")
        values = (value_column,) if value_column else tuple(rest)
        unused = tuple(c for c in rest if value_column and c != value_column)
        return Columns("", time, values, tuple(past), tuple(future), True, unused)
    if not value and len(rest) == 1:
        value = rest[0]
    if not value:
        raise _missing(name, columns, "values", VALUE_NAMES, "value_column")
    unused = tuple(c for c in rest if c != value)
    return Columns(unique, time, (value,), tuple(past), tuple(future), False, unused)


def _times(name: str, columns: Sequence[str], time_column: str) -> tuple[str, ...]:
    if time_column:
        return (time_column,)
    if found := _first(columns, TIME_NAMES):
        return (found,)
    parts = tuple(_first(columns, (part,)) for part in PART_NAMES)
    if not parts[0]:
        raise _missing(name, columns, "times", TIME_NAMES, "time_column")
    return tuple(part for part in parts if part)


def _first(columns: Sequence[str], names: Sequence[str]) -> str:
    lower = {column.lower(): column for column in reversed(columns)}
    return next((lower[name] for name in names if name in lower), "")


def _missing(
    name: str, columns: Sequence[str], what: str, names: Sequence[str], option: str
) -> InputError:
    return InputError(
        f"{name} has no column of {what} ({', '.join(names)})",
        fix=f"name it: --set {option}=COLUMN. {_suggestion(names[0], columns)}",
    )


def _suggestion(wanted: str, columns: Sequence[str]) -> str:
    """The nearest name, and the first ones of what may be thousands."""
    close = difflib.get_close_matches(wanted, columns, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    more = f" and {len(columns) - 20} more" if len(columns) > 20 else ""
    return f"{hint}Its columns: {', '.join(columns[:20])}{more}"
