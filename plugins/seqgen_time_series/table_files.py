"""Table files: finding them, telling CSV from parquet, and reading the columns asked for.

CSV may be separated by commas, semicolons, tabs or bars, end its lines in any way (a bare carriage
return too), begin with a byte-order mark, be packed with gzip, or come from standard input.
"""

from __future__ import annotations

import gzip
import importlib
import io
import re
import sys
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seqgen.errors import InputError, PluginError
from seqgen.sources import find_files

if TYPE_CHECKING:
    import pandas as pd

SUFFIXES = (".csv", ".tsv", ".csv.gz", ".tsv.gz", ".parquet", ".pq")
MISSING_WORDS = (
    "",
    "NA",
    "N/A",
    "n/a",
    "NaN",
    "nan",
    "-nan",
    "NULL",
    "null",
    "None",
    "<NA>",
    "#N/A",
)
"""What counts as a missing number. The id column has none: a series may be called NA."""

_HEAD = 1 << 16
_EXTRA = "\0"
_FOREIGN = (
    (b"PK\x03\x04", "a zip archive or an Excel workbook"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (b"SQLite format 3\0", "an SQLite database"),
    (b"ARROW1", "an Arrow (Feather) file"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook"),
)


@dataclass(frozen=True)
class TableFile:
    """A table whose columns are known, but not read.

    Attributes:
        name: for messages, as the user gave it.
        columns: their names, in order.
        read: the rows of some columns; takes the columns, and that of them which is text.
    """

    name: str
    columns: tuple[str, ...]
    read: Callable[[Sequence[str], str], pd.DataFrame] = field(repr=False)


def find_tables(source: str) -> list[Path]:
    """The files of one INPUT: a file, a folder, a pattern, or `-` for standard input.

    Raises:
        InputError: there is none.
    """
    if source == "-":
        return [Path(source)]
    return [path for _, path in find_files(source, what="tables", suffixes=SUFFIXES)]


def open_table(path: Path, *, separator: str = "", decimal: str = ".") -> TableFile:
    """Look at the head of a file.

    Args:
        path: the file, or `-` for standard input.
        separator: between the columns of a CSV file; "" tells it from the first line.
        decimal: the decimal point of a CSV file.

    Raises:
        InputError: it cannot be read, is empty, or is no table.
        PluginError: pandas or pyarrow is missing.
    """
    name = "standard input" if str(path) == "-" else str(path)
    try:
        data = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{name} cannot be read", why=why, fix="check the file") from error
    if data[:4] == b"PAR1":
        return _parquet(name, data)
    for magic, kind in _FOREIGN:
        if data.startswith(magic):
            raise InputError(f"{name} is {kind}", fix="save the table as CSV or parquet")
    return _csv(name, data, separator, decimal)


def table_of(frame: pd.DataFrame, name: str) -> TableFile:
    """A data frame in memory as a table."""
    columns = [str(column) for column in frame.columns]
    named = frame.set_axis(columns, axis=1)
    _distinct(name, columns)
    return TableFile(name, tuple(columns), lambda wanted, text: named[list(wanted)])


def pandas() -> Any:
    """The pandas module.

    Raises:
        PluginError: it is not installed.
    """
    return _module("pandas", "tables cannot be read")


def pyarrow() -> Any:
    """The pyarrow module.

    Raises:
        PluginError: it is not installed.
    """
    return _module("pyarrow", "parquet cannot be read")


def _module(name: str, what: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise PluginError(
            f"{what}: {name} is not installed",
            why=str(error),
            fix="pip install pandas pyarrow (the extra time-series of seqgen-kit)",
        ) from error


def _parquet(name: str, data: bytes) -> TableFile:
    pandas()
    pa = pyarrow()
    import pyarrow.parquet as pq

    try:
        columns = [str(column) for column in pq.read_schema(io.BytesIO(data)).names]
    except (pa.ArrowException, OSError) as error:
        raise InputError(
            f"{name} is damaged", why=str(error).splitlines()[0], fix="write the file again"
        ) from error
    _distinct(name, columns)

    def read(wanted: Sequence[str], text: str) -> pd.DataFrame:
        try:
            frame = pq.read_table(io.BytesIO(data), columns=list(wanted)).to_pandas()
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{name} cannot be read", why=str(error).splitlines()[0]) from error
        if not len(frame):
            raise InputError(f"{name} has columns, but no rows", fix="give it rows")
        return frame.reset_index()[list(wanted)]

    return TableFile(name, tuple(columns), read)


def _csv(name: str, data: bytes, separator: str, decimal: str) -> TableFile:
    pd = pandas()
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InputError(f"{name} is UTF-16 text", fix="save it as CSV in UTF-8, or as parquet")
    if b"\0" in data[:_HEAD]:
        raise InputError(f"{name} is not text", fix="save the table as CSV (UTF-8) or parquet")
    if not data.removeprefix(b"\xef\xbb\xbf").strip():
        raise InputError(
            f"{name} is empty", fix="give a table with the columns unique_id, ds and y"
        )
    data = data.removeprefix(b"\xef\xbb\xbf").lstrip(b"\r\n")
    head = data[:_HEAD].decode("utf-8", errors="replace")
    first = re.split(r"\r\n|\r|\n", head)[0]
    separator = separator or max(",;\t|", key=first.count)

    def parse(**options: Any) -> Any:
        try:
            with warnings.catch_warnings():
                # A line with too many fields would lose some with a mere warning.
                warnings.simplefilter("error", pd.errors.ParserWarning)
                return pd.read_csv(
                    io.BytesIO(data), sep=separator, decimal=decimal, encoding="utf-8",
                    keep_default_na=False, low_memory=False, **options,
                )  # fmt: skip
        except UnicodeDecodeError as error:
            raise InputError(
                f"{name} is not UTF-8 text", why=str(error), fix="save it as CSV in UTF-8"
            ) from error
        except (pd.errors.ParserError, pd.errors.ParserWarning, ValueError) as error:
            raise InputError(
                f"{name} is no regular table",
                why=_why(str(error)),
                fix="give every line as many fields as the first; quote those with a separator",
            ) from error

    # Without a header pandas would rename the second of two columns of the same name.
    columns = [str(x).strip() for x in parse(nrows=1, header=None, dtype=str).iloc[0]]
    _distinct(name, columns)

    def read(wanted: Sequence[str], text: str) -> Any:
        # Every column is parsed, and one more: pandas would quietly take a first column without a
        # name as the index, or leave out fields behind the last name.
        frame = parse(
            header=None,
            skiprows=1,
            names=[*columns, _EXTRA],
            dtype={_EXTRA: str} | ({text: str} if text else {}),
            na_values={column: list(MISSING_WORDS) for column in columns if column != text},
        )
        more = frame.index[frame[_EXTRA].fillna("") != ""]
        if len(more):
            raise InputError(
                f"{name} is no regular table",
                why=f"row {more[0] + 1} has more fields than the {len(columns)} names of the first",
                fix="name every column, and quote fields that hold a separator",
            )
        if not len(frame):
            raise InputError(f"{name} has a line of column names, but no rows", fix="give it rows")
        return frame[list(wanted)]

    return TableFile(name, tuple(columns), read)


def _why(error: str) -> str:
    """The first line of what pandas says; it counts one field more than the table has."""
    if found := re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", error):
        expected, line, saw = map(int, found.groups())
        return f"line {line} has {saw} fields, and there are {expected - 1} columns"
    return error.strip().splitlines()[0]


def _distinct(name: str, columns: Sequence[str]) -> None:
    for column, count in Counter(columns).items():
        if column and count > 1:
            raise InputError(
                f"{name} has {count} columns called {column!r}",
                fix="give every column a name of its own",
            )
