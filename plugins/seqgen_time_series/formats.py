"""Forecasts as long tables, CSV or parquet, with a line for every time of every series.

Rows are output rows. A row is a series, and its lists are as long as the horizon (for several
cutoffs, one after the other):

    id          unique within the run; `unique_id`, its name, where there is none
    ds          times, ISO 8601, or counts
    cutoff      the last time of the history, of each
    forecast    the point forecast
    quantiles   {"0.1": [...], "0.9": [...]}, by level
    naive       seasonal naive, for comparison

Columns are called as statsforecast calls them: unique_id, ds, cutoff, y (the point), y-lo-80 and
y-hi-80 (the 0.1 and 0.9 quantiles), y-median, SeasonalNaive. The last column, reason, is empty but
for series that failed, which have one line each.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seqgen.errors import InputError, UsageError, did_you_mean

if TYPE_CHECKING:
    import pandas as pd

Row = Mapping[str, Any]

FORMATS = ("csv", "parquet")

ID, DS, CUTOFF, POINT, NAIVE, REASON = "unique_id", "ds", "cutoff", "y", "SeasonalNaive", "reason"

_CHUNK = 100_000
"""Lines held at a time."""


def write_rows(rows: Iterable[Row], destination: Path, format: str) -> None:
    """Write rows in one of `FORMATS`, as they come: the run's length does not matter.

    Args:
        destination: a file, or a folder in which `forecasts.FORMAT` is written.

    Raises:
        UsageError: the format is unknown, or the rows do not fit into one table (quantiles at
            different levels; dates and counts in one parquet file).
        PluginError: pandas or pyarrow is missing.
    """
    if format not in FORMATS:
        raise UsageError(f"unknown format {format!r}", fix=did_you_mean(format, FORMATS))
    path = destination / f"forecasts.{format}" if destination.is_dir() else destination
    if format == "csv":
        _write_csv(rows, path)
    else:
        _write_parquet(rows, path)


def to_frame(rows: Iterable[Row]) -> pd.DataFrame:
    """Rows as one long table; times are texts or counts."""
    from seqgen_time_series.table_files import pandas

    frames = list(_frames(rows))
    table: pd.DataFrame = pandas().concat(frames, ignore_index=True)
    return table


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a file that `write_rows` wrote, see `from_frame`.

    Raises:
        InputError: it cannot be read, or is no such table.
    """
    from seqgen_time_series.table_files import open_table

    table = open_table(path)
    missing = [c for c in (ID, DS, CUTOFF, POINT, NAIVE) if c not in table.columns]
    if missing:
        raise InputError(
            f"{path} is no table of forecasts: it has no column {missing[0]!r}",
            fix="name a file that seqgen run --plugin time-series -o FILE wrote",
        )
    return from_frame(table.read(table.columns, ID))


def from_frame(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a long table: `unique_id`, `status` and the fields of a forecast."""
    levels = {c: level_of(c) for c in frame.columns if c.startswith(f"{POINT}-")}
    rows: list[dict[str, Any]] = []
    for name, own in frame.groupby(ID, sort=False):
        reason = own[REASON].iloc[0] if REASON in own else ""
        if isinstance(reason, str) and reason:
            rows.append({"unique_id": str(name), "status": "failed", "reason": reason})
            continue
        rows.append(
            {
                "unique_id": str(name),
                "status": "ok",
                "ds": _times(own[DS]),
                "cutoff": _times(own[CUTOFF]),
                "forecast": own[POINT].tolist(),
                "quantiles": {f"{level:g}": own[c].tolist() for c, level in levels.items()},
                "naive": own[NAIVE].tolist(),
            }
        )
    return rows


def column_of(level: float) -> str:
    """The column of a quantile: 0.1 is `y-lo-80`, 0.9 is `y-hi-80`, 0.5 is `y-median`."""
    if not 0 < level < 1:
        raise UsageError(f"{level} is no level of a quantile", fix="a number between 0 and 1")
    share = round(100 * abs(1 - 2 * level), 6)
    if share == 0:
        return f"{POINT}-median"
    return f"{POINT}-{'lo' if level < 0.5 else 'hi'}-{share:g}"


def level_of(column: str) -> float:
    """The level of a quantile's column; the inverse of `column_of`."""
    if column == f"{POINT}-median":
        return 0.5
    side, share = column.removeprefix(f"{POINT}-").split("-", 1)
    half = float(share) / 200
    return round(0.5 - half if side == "lo" else 0.5 + half, 10)


def _write_csv(rows: Iterable[Row], path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        for number, frame in enumerate(_frames(rows)):
            frame.to_csv(file, index=False, header=number == 0, lineterminator="\n")


def _write_parquet(rows: Iterable[Row], path: Path) -> None:
    from seqgen_time_series.table_files import pyarrow

    pa = pyarrow()
    import pyarrow.parquet as pq

    writer = None
    try:
        for frame in _frames(rows, typed=True):
            if writer is None:
                time = pa.int64() if frame[DS].dtype.name == "Int64" else pa.timestamp("ns")
                types = {ID: pa.string(), DS: time, CUTOFF: time, REASON: pa.string()}
                schema = pa.schema([(c, types.get(c, pa.float64())) for c in frame.columns])
                writer = pq.ParquetWriter(path, schema)
            table = pa.Table.from_pandas(frame, schema=writer.schema, preserve_index=False)
            writer.write_table(table)
    finally:
        if writer is not None:
            writer.close()


@dataclass(frozen=True)
class _Shape:
    """What the first forecast of a run says of its table.

    Attributes:
        keys: levels of the quantiles, as the rows have them.
        counted: times are counts.
    """

    keys: tuple[str, ...] = ()
    counted: bool = False

    @classmethod
    def of(cls, row: Row) -> _Shape:
        keys = sorted(row.get("quantiles") or (), key=float)
        return cls(tuple(keys), isinstance(row["ds"][0] if row["ds"] else "", int))


def _frames(rows: Iterable[Row], *, typed: bool = False) -> Iterator[pd.DataFrame]:
    """The table in pieces of about `_CHUNK` lines; at least one.

    The first forecast says which columns there are, so failed rows before it have to wait.

    Args:
        typed: times have one type, and dates are timestamps; for parquet.
    """
    iterator = iter(rows)
    held: list[Row] = []
    shape = _Shape()
    for row in iterator:
        held.append(row)
        if row.get("status", "ok") == "ok":
            shape = _Shape.of(row)
            break
    lines = 0
    for row in iterator:
        held.append(row)
        lines += len(row.get("ds") or ()) or 1
        if lines >= _CHUNK:
            yield _frame(held, shape, typed)
            held, lines = [], 0
    if held or not lines:
        yield _frame(held, shape, typed)


def _frame(rows: Sequence[Row], shape: _Shape, typed: bool) -> pd.DataFrame:
    from seqgen_time_series.table_files import pandas

    pd = pandas()
    names = [column_of(float(key)) for key in shape.keys]
    columns: dict[str, list[Any]] = {
        name: [] for name in (ID, DS, CUTOFF, POINT, *names, NAIVE, REASON)
    }
    for row in rows:
        failed = row.get("status", "ok") != "ok"
        fields: Row = {} if failed else row
        count = 1 if failed else len(row["ds"])
        quantiles = fields.get("quantiles") or {}
        if not failed:
            _check_shape(row, shape, typed)
        # Two tables may have series of one name; the ids of a run differ.
        columns[ID] += [str(row.get("id") or row.get("unique_id", ""))] * count
        columns[REASON] += [str(row.get("reason") or "failed") if failed else None] * count
        for name, key in ((DS, "ds"), (CUTOFF, "cutoff"), (POINT, "forecast"), (NAIVE, "naive")):
            columns[name] += _cells(row, key, fields.get(key), count)
        for name, key in zip(names, shape.keys, strict=True):
            columns[name] += _cells(row, f"quantile {key}", quantiles.get(key), count)
    frame = pd.DataFrame(columns)
    for name in (POINT, *names, NAIVE):
        frame[name] = frame[name].astype("float64")
    for name in (DS, CUTOFF):
        if shape.counted and typed:
            frame[name] = pd.array(columns[name], dtype="Int64")
        elif typed:
            times = pd.to_datetime(pd.Series(columns[name], dtype=object), format="ISO8601")
            frame[name] = times.astype("datetime64[ns]")
        else:  # as they are: a column of counts with a gap would become floats
            frame[name] = pd.Series(columns[name], dtype=object)
    return frame


def _check_shape(row: Row, shape: _Shape, typed: bool) -> None:
    own = _Shape.of(row)
    if own.keys != shape.keys:
        raise UsageError(
            f"series {row.get('unique_id')!r} has quantiles at other levels than the first",
            why=f"{', '.join(own.keys) or 'none'}, not {', '.join(shape.keys) or 'none'}",
            fix="write jsonl, or forecast with one set of levels",
        )
    if typed and own.counted != shape.counted:
        raise UsageError(
            "dates and counts do not fit into one parquet file",
            why=f"the times of {row.get('unique_id')!r} are of the other kind",
            fix="forecast tables with dates and tables with counts apart, or write csv",
        )


def _cells(row: Row, name: str, values: Any, count: int) -> list[Any]:
    if not isinstance(values, list | tuple):
        return [values] * count  # one cutoff for all
    if len(values) != count:
        raise InputError(
            f"series {row.get('unique_id')!r} has {len(values)} values of {name} for {count} times"
        )
    return list(values)


def _times(column: pd.Series) -> list[Any]:
    """Timestamps as texts, counts as whole numbers; texts as they are."""
    from seqgen_time_series.frequency import time_texts

    if column.dtype.kind == "M":
        return list(time_texts(column.to_numpy("datetime64[ns]")))
    # A failed series' empty time makes floats of a column of counts.
    return list((column.astype("int64") if column.dtype.kind == "f" else column).tolist())
