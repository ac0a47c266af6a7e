"""A table's rows in one form, whatever its layout: sorted by series and time, numbers as float64.

Shape suffixes: N rows, S series.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from seqgen_time_series.columns import Columns
from seqgen_time_series.frequency import Ints
from seqgen_time_series.grids import Bools
from seqgen_time_series.times import Moments

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]

Y = "y"
"""The value column's key, whatever its name in the table."""


@dataclass(frozen=True)
class Rows:
    """Rows of all series.

    Attributes:
        names: of the series.
        code_N: the series of a row.
        time_N: ns since 1970, or counts; meaningless where it is bad.
        bad_time_N: missing or unreadable.
        steps: the times are counts.
        numbers: `Y` and the exogenous columns; NaN where missing.
        text: rows whose cell in a column is no number, for the columns that have any.
        raw: the cell of a column ("" for the time) in a row of the table, for messages.
        origin_N: that row.
    """

    names: tuple[str, ...]
    code_N: Ints
    time_N: Ints
    bad_time_N: Bools
    steps: bool
    numbers: Mapping[str, Floats]
    text: Mapping[str, Bools]
    raw: Callable[[str, int, int], str]
    origin_N: Ints

    def take(self, rows: Ints | Bools) -> Rows:
        """Some of the rows."""
        return Rows(
            self.names,
            self.code_N[rows],
            self.time_N[rows],
            self.bad_time_N[rows],
            self.steps,
            {name: values[rows] for name, values in self.numbers.items()},
            {name: marks[rows] for name, marks in self.text.items()},
            self.raw,
            self.origin_N[rows],
        )

    def sorted(self) -> Rows:
        """By series and time; equal times keep their order."""
        same = np.diff(self.code_N) == 0
        if (np.diff(self.code_N) >= 0).all() and (np.diff(self.time_N)[same] >= 0).all():
            return self
        return self.take(np.lexsort((self.time_N, self.code_N)))

    @property
    def starts(self) -> Ints:
        """The first row of every series that has rows, in order; the rows are sorted."""
        return np.flatnonzero(np.diff(self.code_N, prepend=-1) != 0)

    def cell(self, column: str, row: int) -> str:
        """What the table holds in a column ("" for the time)."""
        return self.raw(column, int(self.code_N[row]), int(self.origin_N[row]))


def make_rows(frame: pd.DataFrame, columns: Columns, moments: Moments, single: str) -> Rows:
    """The rows of a table that was read.

    Args:
        single: the name of the series, where the table holds one.
    """
    import pandas as pd

    count = len(frame)
    if columns.wide:
        names, copies = columns.values, len(columns.values)
        code_N = np.repeat(np.arange(copies), count)
    elif columns.id:
        ids = frame[columns.id]
        code_N, unique = pd.factorize(ids.astype(str).where(ids.notna(), "").str.strip())
        names, copies = tuple(str(name) for name in unique), 1
    else:
        names, copies, code_N = (single,), 1, np.zeros(count, dtype=np.int64)

    found = {name: to_numbers(frame[name]) for name in (*columns.past, *columns.future)}
    parts = [to_numbers(frame[column]) for column in columns.values]
    if not parts:  # a table of future columns alone
        parts = [(np.full(count, np.nan), np.zeros(count, dtype=bool))]
    numbers = {Y: np.concatenate([values for values, _ in parts])}
    text = {Y: np.concatenate([marks for _, marks in parts])}
    for name, (values, marks) in found.items():
        numbers[name], text[name] = np.tile(values, copies), np.tile(marks, copies)

    def raw(column: str, code: int, row: int) -> str:
        if not column:
            return moments.raw(row)
        own = columns.values[code if columns.wide else 0] if column == Y else column
        return str(frame[own].iloc[row])

    return Rows(
        tuple(names),
        code_N.astype(np.int64),
        np.tile(moments.value_N, copies),
        np.tile(moments.bad_N, copies),
        moments.steps,
        numbers,
        {name: marks for name, marks in text.items() if marks.any()},
        raw,
        np.tile(np.arange(count), copies),
    )


def add_future(rows: Rows, more: Rows) -> Rows:
    """Rows of known future columns below those of a table; values are missing there.

    Args:
        more: rows of the same series by name, or of one series without a name for all of them.
            Series that the table does not have are left out.
    """
    if more.names == ("",):
        copies = len(rows.names)
        own = np.repeat(np.arange(copies), len(more.code_N))
        pick = np.tile(np.arange(len(more.code_N)), copies)
    else:
        place = {name: code for code, name in enumerate(rows.names)}
        codes = np.array([place.get(name, -1) for name in more.names], dtype=np.int64)
        own = codes[more.code_N]
        pick = np.flatnonzero(own >= 0)
        own = own[pick]
    more = more.take(pick)
    count = len(rows.code_N)
    source = int(rows.origin_N.max(initial=-1)) + 1

    def both(name: str) -> Floats:
        added = more.numbers.get(name, np.full(len(own), np.nan))
        return np.concatenate([rows.numbers[name], added if name != Y else added * np.nan])

    def marks(name: str) -> Bools:
        none = np.zeros(count, dtype=bool), np.zeros(len(own), dtype=bool)
        added = none[1] if name == Y else more.text.get(name, none[1])
        return np.concatenate([rows.text.get(name, none[0]), added])

    def raw(column: str, code: int, row: int) -> str:
        return rows.raw(column, code, row) if row < source else more.raw(column, 0, row - source)

    return Rows(
        rows.names,
        np.concatenate([rows.code_N, own]),
        np.concatenate([rows.time_N, more.time_N]),
        np.concatenate([rows.bad_time_N, more.bad_time_N]),
        rows.steps,
        {name: both(name) for name in rows.numbers},
        {name: marks(name) for name in {*rows.text, *more.text}},
        raw,
        np.concatenate([rows.origin_N, more.origin_N + source]),
    )


def to_numbers(column: pd.Series) -> tuple[Floats, Bools]:
    """float64 with NaN where a cell is empty, and which cells hold something else."""
    import pandas as pd

    if pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column):
        return column.to_numpy(np.float64, na_value=np.nan), np.zeros(len(column), dtype=bool)
    numbers = pd.to_numeric(column, errors="coerce")
    values = numbers.to_numpy(np.float64, na_value=np.nan)
    return values, np.asarray(np.isnan(values) & column.notna().to_numpy())


def first_rows(marks_N: Bools, code_N: Ints) -> dict[int, int]:
    """The first marked row of every series that has one."""
    rows = np.flatnonzero(marks_N)
    codes, first = np.unique(code_N[rows], return_index=True)
    return dict(zip(codes.tolist(), rows[first].tolist(), strict=True))


def merge_duplicates(rows: Rows, policy: str) -> tuple[Rows, int]:
    """One row a time: the first, the last, or the mean of those there are; and how many went.

    Args:
        rows: sorted.
        policy: `first`, `last` or `mean`.
    """
    same_N = duplicates(rows)
    if not same_N.any():
        return rows, 0
    starts = np.flatnonzero(~same_N)
    if policy == "last":
        kept = rows.take(np.append(starts[1:], len(same_N)) - 1)
    else:
        kept = rows.take(starts)
    if policy == "mean":
        counts = np.diff(np.append(starts, len(same_N)))
        means = {
            name: np.add.reduceat(values, starts) / counts for name, values in rows.numbers.items()
        }
        text = {name: np.logical_or.reduceat(m, starts) for name, m in rows.text.items()}
        kept = replace(kept, numbers=means, text=text)
    return kept, int(same_N.sum())


def duplicates(rows: Rows) -> Bools:
    """Rows whose series and time are those of the row before; the rows are sorted."""
    same_N = np.zeros(len(rows.code_N), dtype=bool)
    same_N[1:] = (np.diff(rows.code_N) == 0) & (np.diff(rows.time_N) == 0)
    return same_N
