"""Times of a table: texts, dates of every kind, whole numbers and their parts as int64.

Nothing ambiguous is guessed: dates of a form that could be read in two ways need a `time_format`.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from seqgen.errors import InputError
from seqgen_time_series.frequency import Ints
from seqgen_time_series.grids import Bools

if TYPE_CHECKING:
    import pandas as pd

_DATES = ("%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%d-%m-%Y", "%m-%d-%Y", "%Y/%m/%d", "%Y%m%d")
_CLOCKS = ("", " %H:%M", " %H:%M:%S")
_QUARTER = re.compile(r"(\d{4})[- ]?Q([1-4])", re.IGNORECASE)
_ZONE = re.compile(r":\d\d.*(?:Z|[+-]\d\d:?\d\d)$")
_ZONED = "%s: times with a zone are taken, and shown, in UTC"
_COUNTS = "%s: times such as %d are taken as counts; if they are seconds, write dates instead"
_EPOCH = 5e8
"""Counts from here on look like seconds since 1970, or parts of them."""
_LOG = logging.getLogger("seqgen")


class Moments:
    """The times of a table's rows.

    Attributes:
        value_N: ns since 1970, or counts.
        bad_N: times that are missing or cannot be read.
        steps: the times are counts.
    """

    def __init__(self, value_N: Ints, bad_N: Bools, steps: bool, raw: pd.DataFrame) -> None:
        self.value_N, self.bad_N, self.steps = value_N, bad_N, steps
        self._raw = raw

    def raw(self, row: int) -> str:
        """What the table holds."""
        return " ".join(str(cell) for cell in self._raw.iloc[row])


def read_times(frame: pd.DataFrame, name: str, *, time_format: str, dated: bool) -> Moments:
    """The times in the columns of `frame`: one column, or year, quarter, month, day.

    Args:
        name: of the table, for messages.
        time_format: of texts, as for `strptime`; "" takes ISO 8601, quarters (2009Q4) and whatever
            other common form fits every time, if it is the only one that does.
        dated: the frequency is known to be one of dates, so that whole numbers are years.

    Raises:
        InputError: no time can be read, or they can be read in two ways.
    """
    import pandas as pd

    if len(frame.columns) > 1 or str(frame.columns[0]).lower() == "year":
        found = _from_parts(frame)
    else:
        column = frame.iloc[:, 0]
        if isinstance(column.dtype, pd.CategoricalDtype):
            column = column.astype(column.cat.categories.dtype)
        numeric = pd.api.types.is_numeric_dtype(column)
        if numeric and time_format:  # 202401 is a number to pandas
            column, numeric = _digits(column), False
        if pd.api.types.is_datetime64_any_dtype(column):
            if column.dt.tz is not None:
                _LOG.warning(_ZONED, name)
            found = _nanoseconds(column)
        elif numeric:
            numbers = _from_numbers(column, dated)
            if isinstance(numbers, Moments):
                if len(column) and column.min() > _EPOCH:
                    _LOG.warning(_COUNTS, name, int(column.iloc[0]))
                return numbers
            found = numbers
        else:
            found = _from_texts(column, name, time_format)
    value_N, bad_N = found
    moments = Moments(value_N, bad_N, False, frame)
    if bad_N.all():
        raise InputError(
            f"{name}: no time can be read; the first is {moments.raw(0)!r}",
            fix="write times as 2024-01-31 or 2024-01-31 12:00:00, or say their form: "
            "--set time_format=%d/%m/%Y",
        )
    return moments


def _from_parts(frame: pd.DataFrame) -> tuple[Ints, Bools]:
    """The first moment of a year, quarter, month or day."""
    import pandas as pd

    parts = {}
    bad_N = np.zeros(len(frame), dtype=bool)
    for column in frame.columns:
        number = pd.to_numeric(frame[column], errors="coerce").to_numpy(np.float64)
        whole = np.isfinite(number) & (number == np.floor(number))
        bad_N |= ~whole
        parts[str(column).lower()] = np.where(whole, number, 1).astype(np.int64)
    month = parts.get("month", 3 * parts.get("quarter", np.ones_like(bad_N, np.int64)) - 2)
    day = parts.get("day", np.ones_like(month))
    year = parts["year"]
    # what datetime64[ns] can hold; in-between months are checked by the calendar itself
    inside = (year >= 1678) & (year <= 2261) & (month >= 1) & (month <= 12) & (day >= 1)
    months = np.where(inside, (year - 1970) * 12 + month - 1, 0)
    dates = months.astype("datetime64[M]").astype("datetime64[D]") + np.where(inside, day - 1, 0)
    inside &= dates.astype("datetime64[M]").astype(np.int64) == months
    return dates.astype("datetime64[ns]").astype(np.int64), bad_N | ~inside


def _from_numbers(column: pd.Series, dated: bool) -> Moments | tuple[Ints, Bools]:
    """YYYYMMDD if all are dates, years if a frequency of dates was given, else counts."""
    import pandas as pd

    number = column.to_numpy(np.float64, na_value=np.nan)
    bad_N = ~np.isfinite(number)
    bad_N |= np.where(bad_N, 0, number) != np.floor(np.where(bad_N, 0, number))
    value_N = np.where(bad_N, 0, number).astype(np.int64)
    good_N = value_N[~bad_N]
    if len(good_N) and good_N.min() >= 1678_01_01 and good_N.max() <= 2261_12_31:
        texts = pd.Series(good_N).astype(str)
        dates = pd.to_datetime(texts, format="%Y%m%d", errors="coerce")
        if not dates.isna().any():
            value_N[~bad_N] = dates.to_numpy("datetime64[ns]").astype(np.int64)
            return value_N, bad_N
    if dated and len(good_N) and good_N.min() >= 1678 and good_N.max() <= 2261:
        return _from_parts(pd.DataFrame({"year": column}))
    return Moments(value_N, bad_N, True, column.to_frame())


def _digits(column: pd.Series) -> pd.Series:
    """Whole numbers as texts, without the point that missing ones bring."""
    whole = column.where(column == column.round()).astype("Int64").astype(object)
    return whole.where(column.isna() | whole.notna(), column.astype(object)).map(
        str, na_action="ignore"
    )


def _from_texts(column: pd.Series, name: str, time_format: str) -> tuple[Ints, Bools]:
    """Every distinct text is read once: series of a table mostly share their times."""
    import pandas as pd

    codes, texts = pd.factorize(column)
    texts = pd.Series(texts).astype(str).str.strip()
    zoned = texts.str.contains(_ZONE)
    if zoned.any():
        if _parsed(texts[~zoned], time_format or "ISO8601").notna().any():
            raise InputError(
                f"{name} has times with a zone, such as {texts[zoned].iloc[0]!r}, and times "
                f"without one, such as {texts[~zoned].iloc[0]!r}",
                why="how far apart they are cannot be told",
                fix="write all times with their zone, or all without one",
            )
        _LOG.warning(_ZONED, name)
    if time_format:
        times = _parsed(texts, time_format)
    else:
        times = _parsed(texts, "ISO8601")
        quarters = texts.str.fullmatch(_QUARTER)
        if quarters.all():
            years = texts.str.extract(_QUARTER).astype(int)
            times = pd.Series(pd.PeriodIndex.from_fields(
                year=years[0], quarter=years[1], freq="Q"
            ).to_timestamp())  # fmt: skip
        elif times.isna().all():
            times = _other_form(texts, name)
    value, bad = _nanoseconds(times)
    missing = codes < 0
    return np.where(missing, 0, value[codes]), missing | bad[codes]


def _other_form(texts: pd.Series, name: str) -> Any:
    fits: dict[str, Any] = {}
    for date in _DATES:
        for clock in _CLOCKS:
            times = _parsed(texts, date + clock)
            if not times.isna().any():
                fits[date + clock] = times
    first = next(iter(fits.values()), None)
    if first is None:
        return _parsed(texts, "ISO8601")
    if not all(first.equals(times) for times in fits.values()):
        raise InputError(
            f"{name}: times such as {texts.iloc[0]!r} can be read as {' and as '.join(fits)}",
            fix=f"say which: --set time_format='{next(iter(fits))}'",
        )
    return first


def _parsed(texts: pd.Series, form: str) -> Any:
    """Times with a zone become UTC."""
    import pandas as pd

    return pd.to_datetime(texts, format=form, errors="coerce", utc=True).dt.tz_localize(None)


def _nanoseconds(times: Any) -> tuple[Ints, Bools]:
    """ns since 1970, and which are missing or outside the years 1678 to 2261."""
    if getattr(times.dtype, "tz", None) is not None:
        times = times.dt.tz_convert("UTC").dt.tz_localize(None)
    moments = times.to_numpy()
    year = moments.astype("datetime64[Y]").astype(np.int64) + 1970
    bad = np.isnat(moments) | (year < 1678) | (year > 2261)
    safe = np.where(bad, np.datetime64(0, "s"), moments)
    return safe.astype("datetime64[ns]").astype(np.int64), bad
