"""Reading series: CSV and parquet, long, single and wide tables, with exogenous columns.

    for series in list_series("sales.csv", TableConfig(future=("price",))): ...

A table is checked as a whole, column by column; a series in which something is wrong is listed with
a `problem` that names it and the time, and the others go on. Nothing is filled unless a policy was
chosen, and then the log says what was filled and where.

A time with an empty value behind the last value of a series is a future time, if there are `future`
columns: it tells them beyond the history. They may also stand in a table of their own.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from seqgen.errors import InputError
from seqgen_time_series import problems
from seqgen_time_series.columns import Columns, find_columns
from seqgen_time_series.cut import cut_series
from seqgen_time_series.frequency import Frequency, Kind
from seqgen_time_series.rows import Rows, Y, add_future, duplicates, make_rows, merge_duplicates
from seqgen_time_series.series import Series
from seqgen_time_series.table_config import TableConfig
from seqgen_time_series.table_files import TableFile, find_tables, open_table, table_of
from seqgen_time_series.times import read_times

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["TableConfig", "list_series", "series_of"]

_LOG = logging.getLogger("seqgen")


def list_series(source: str, config: TableConfig | None = None) -> Iterator[Series]:
    """The series of one INPUT: a file, a folder, a pattern, or `-` for a CSV on standard input.

    Raises:
        InputError: the source does not exist, or is one table that cannot be read. One of several
            tables is listed with its problem instead.
    """
    config = config or TableConfig()
    found = find_tables(source)
    for path in found:
        try:
            table = open_table(path, separator=config.separator, decimal=config.decimal)
            single = "stdin" if str(path) == "-" else path.name.split(".")[0]
            series = _read(table, single, config)
        except InputError as error:
            if len(found) == 1:
                raise
            series = [_failed(path.name, str(path), error)]
        yield from series


def series_of(frame: pd.DataFrame, config: TableConfig | None = None) -> list[Series]:
    """The series of a data frame.

    Raises:
        InputError: it lacks columns, or nothing of it can be read.
    """
    if not len(frame):
        raise InputError("the data frame has no rows")
    return _read(table_of(frame, "the data frame"), "y", config or TableConfig())


def _read(table: TableFile, single: str, config: TableConfig) -> list[Series]:
    """One series for every name of the table, in order of appearance."""
    columns = find_columns(
        table.name,
        table.columns,
        id_column=config.id_column,
        time_column=config.time_column,
        value_column=config.value_column,
        past=config.past,
        future=config.future,
        layout=config.layout,
    )
    if columns.unused:
        names = ", ".join(columns.unused[:5]) + (", ..." if len(columns.unused) > 5 else "")
        _LOG.warning("%s: columns not used: %s (name them with past or future)", table.name, names)
    rows = _rows(table, columns, single, config)
    if config.future_table:
        rows = add_future(rows, _future_rows(columns, rows.steps, config))

    failed = problems.bad_times(rows)
    if "" in rows.names:
        failed[rows.names.index("")] = InputError(
            f"{table.name} has rows without a name of their series",
            fix=f"fill the column {columns.id!r}",
        )
    rows = rows.take(~np.isin(rows.code_N, list(failed))).sorted()
    if columns.wide:
        rows = _without_beginnings(rows, table.name)
    if config.duplicates == "error":
        same_N = duplicates(rows)
        failed |= problems.duplicate_times(rows, same_N)
        rows = rows.take(~np.isin(rows.code_N, rows.code_N[same_N]))
    else:
        rows, gone = merge_duplicates(rows, config.duplicates)
        if gone:
            _LOG.warning("%s: duplicates=%s took %d rows", table.name, config.duplicates, gone)
    made = {code: _failed(rows.names[code], table.name, why) for code, why in failed.items()}
    made |= cut_series(rows, config, table.name)
    return [made[code] for code in range(len(rows.names))]


def _rows(table: TableFile, columns: Columns, single: str, config: TableConfig) -> Rows:
    given = Frequency.parse(config.frequency) if config.frequency else None
    frame = table.read(columns.all, columns.id)
    moments = read_times(
        frame[list(columns.time)],
        table.name,
        time_format=config.time_format,
        dated=given is not None,
    )
    if moments.steps and given is not None and given.kind != Kind.STEPS:
        raise InputError(
            f"the times of {table.name} are whole numbers, and the frequency is "
            f"{config.frequency!r}",
            fix="write dates (2024-01-31 or 20240131), or leave the frequency out",
        )
    return make_rows(frame, columns, moments, single)


def _future_rows(columns: Columns, steps: bool, config: TableConfig) -> Rows:
    """Rows of `future_table`; its columns are called as in the first table."""
    path = find_tables(config.future_table)[0]
    table = open_table(path, separator=config.separator, decimal=config.decimal)
    own_id = columns.id if columns.id in table.columns else ""
    found = find_columns(
        table.name,
        (*table.columns, Y) if Y not in table.columns else table.columns,
        id_column=own_id,
        time_column=columns.time[0] if len(columns.time) == 1 else "",
        value_column=Y,
        future=config.future,
        layout="long" if own_id else "single",
    )
    known = Columns(own_id, found.time, (), (), found.future, False, ())
    rows = _rows(table, known, "", config)
    if rows.steps != steps:
        raise InputError(
            f"the times of {table.name} are {'counts' if rows.steps else 'dates'}, those of the "
            "series are not",
            fix="write the times of both tables in the same way",
        )
    return rows


def _without_beginnings(rows: Rows, name: str) -> Rows:
    """Rows of a wide table from the first value of each series on: some begin later than others."""
    empty_N = np.isnan(rows.numbers[Y])
    for marks_N in rows.text.values():
        empty_N &= ~marks_N
    starts_S = rows.starts
    index_N = np.arange(len(empty_N))
    first_S = np.minimum.reduceat(np.where(empty_N, len(empty_N), index_N), starts_S)
    counts_S = np.diff(np.append(starts_S, len(empty_N)))
    # A column without any value keeps its rows, so that its problem can be named.
    first_S = np.where(first_S < starts_S + counts_S, first_S, starts_S)
    late_S = first_S > starts_S
    if late_S.any():
        codes = rows.code_N[starts_S[late_S]]
        _LOG.warning(
            "%s: %d series begin later than the table, such as %r",
            name, len(codes), rows.names[codes[0]],
        )  # fmt: skip
    return rows.take(index_N >= np.repeat(first_S, counts_S))


def _failed(name: str, source: str, error: InputError) -> Series:
    nothing = np.zeros(0)
    return Series(name, source, nothing.astype(np.int64), nothing, problem=error)
