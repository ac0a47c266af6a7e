"""The distance of two times of a series: pandas' aliases, seasons, and the times that come next.

A frequency is a whole number of steps (tables that count), of nanoseconds ("h", "15min", "W-SUN"),
of business days ("B") or of months ("MS", "QE-DEC", "YS"). Months begin or end a period, or keep
their day (the 15th of each month is "MS" too: the series says which day).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seqgen.errors import ConfigError, did_you_mean

Times = NDArray[np.generic]
Ints = NDArray[np.int64]

DAY = 86_400 * 10**9
"""Nanoseconds."""
WEEK = 7 * DAY


class Kind(IntEnum):
    """What a step is counted in."""

    STEPS = 0
    FIXED = 1
    BUSINESS = 2
    MONTHS = 3
    MONTH_ENDS = 4


@dataclass(frozen=True)
class Frequency:
    """A distance of times.

    Attributes:
        kind: the unit.
        step: how many: counts, nanoseconds, business days or months.
    """

    kind: Kind
    step: int

    @classmethod
    def parse(cls, alias: str) -> Frequency:
        """The frequency of an alias of pandas, old ("H", "M") or new ("h", "ME").

        Weekdays and months after a dash are checked, but a series says itself on which day its
        weeks, and with which month its years begin.

        Raises:
            ConfigError: there is no such alias.
        """
        match = re.fullmatch(r"(\d*)([A-Za-z]+)(?:-([A-Z]{3}))?", alias.strip())
        count, unit, anchor = match.groups() if match else ("", "", None)
        unit = _OLD.get(unit, unit)
        anchors = _WEEKDAYS if unit == "W" else _MONTHS if unit[:1] in ("Q", "Y") else ()
        number = int(count or 1)
        if unit not in _UNITS or number < 1 or (anchor is not None and anchor not in anchors):
            raise ConfigError(
                f"there is no frequency {alias!r}",
                fix=f"give one of pandas' aliases, with a number before it if need be: "
                f"{did_you_mean(alias, _UNITS)}",
            )
        kind, size = _UNITS[unit]
        return cls(kind, size * number)

    def alias(self, first: int) -> str:
        """pandas' alias; "" for steps.

        Args:
            first: a time of the series, ns since 1970: weeks are named after its weekday, quarters
                and years after its month.
        """
        if self.kind == Kind.STEPS:
            return ""
        if self.kind == Kind.FIXED:
            if self.step % WEEK == 0:
                # 1970-01-01 was a Thursday.
                weekday = _WEEKDAYS[(first // DAY + 3) % 7]
                return f"{_times(self.step // WEEK)}W-{weekday}"
            unit = next(name for name in _SIZES if self.step % _UNITS[name][1] == 0)
            return f"{_times(self.step // _UNITS[unit][1])}{unit}"
        if self.kind == Kind.BUSINESS:
            return f"{_times(self.step)}B"
        month = int(_month_of(np.array([first]))[0]) % 12
        ends = self.kind == Kind.MONTH_ENDS
        letter = "E" if ends else "S"
        if self.step % 12 == 0:
            anchor = "" if month == (11 if ends else 0) else f"-{_MONTHS[month]}"
            return f"{_times(self.step // 12)}Y{letter}{anchor}"
        if self.step % 3 == 0:
            anchor = "" if month % 3 == (2 if ends else 0) else f"-{_MONTHS[month % 3]}"
            return f"{_times(self.step // 3)}Q{letter}{anchor}"
        return f"{_times(self.step)}M{letter}"

    @property
    def season(self) -> int:
        """Steps of the season that is usual for it; 1 if none is, or if it holds no whole number.

        Hours, minutes and seconds: a day, an hour of seconds for those below a minute; days: a
        week; weeks: 52; months and quarters: a year. (M4 takes 1 for days and weeks, GluonTS 1
        for days: give the season where figures are to be compared with theirs.)
        """
        span = 1
        if self.kind == Kind.BUSINESS:
            span = 5
        elif self.kind in (Kind.MONTHS, Kind.MONTH_ENDS):
            span = 12
        elif self.kind == Kind.FIXED:
            if self.step % WEEK == 0:
                span = 52 * WEEK
            elif self.step % DAY == 0:
                span = WEEK
            elif self.step % (60 * 10**9) == 0:
                span = DAY
            elif self.step % 10**9 == 0:
                span = 3600 * 10**9
        return span // self.step if span % self.step == 0 else 1

    def times(self, first: int, ordinals: Ints) -> Ints:
        """The times that lie `ordinals` steps behind the first one; ns since 1970, or counts."""
        moves = np.asarray(ordinals, dtype=np.int64) * self.step
        if self.kind in (Kind.STEPS, Kind.FIXED):
            return np.asarray(first + moves)
        if self.kind == Kind.BUSINESS:
            day, rest = divmod(first, DAY)
            moved = np.busday_offset(np.datetime64(day, "D"), moves, roll="forward")
            return np.asarray(moved.astype(np.int64) * DAY + rest)
        month = _month_of(np.array([first]))[0]
        if self.kind == Kind.MONTHS:
            start, into = _start_of(month + moves), first - int(_start_of(month))
            # The 30th of February is its last day, at the same hour.
            last = _start_of(month + moves + 1) - start - DAY + into % DAY
            return np.asarray(start + np.minimum(into, last))
        return np.asarray(_start_of(month + moves + 1) - (_start_of(month + 1) - first))


def season_of(alias: str) -> int:
    """The usual season of an alias; 1 for "" (steps)."""
    return Frequency.parse(alias).season if alias else 1


def next_times(ds: Times, alias: str, count: int) -> Times:
    """The `count` times behind a series.

    Args:
        ds: [T], datetime64, or whole numbers with the alias "".

    Returns:
        [count], of the type of `ds`.
    """
    ahead = np.arange(1, count + 1, dtype=np.int64)
    if not alias:
        steps = ds.astype(np.int64)
        step = int(np.median(np.diff(steps))) if len(steps) > 1 else 1
        return np.asarray(steps[-1] + max(1, step) * ahead)
    frequency = Frequency.parse(alias)
    first = int(ds[-1].astype("datetime64[ns]").astype(np.int64))
    return frequency.times(first, ahead).view("datetime64[ns]")


def time_texts(ds: Times) -> list[str] | list[int]:
    """Times for JSON: dates, with the time of day where one is not midnight; counts stay numbers.

    All are written to the same precision, the coarsest that loses nothing.
    """
    if not np.issubdtype(ds.dtype, np.datetime64):
        counts: list[int] = ds.astype(np.int64).tolist()
        return counts
    ns = ds.astype("datetime64[ns]").astype(np.int64)
    unit: Any = next(
        name
        for name, size in (("D", DAY), ("s", 10**9), ("ms", 10**6), ("us", 10**3), ("ns", 1))
        if not (ns % size).any()
    )
    texts: list[str] = np.datetime_as_string(ns.view("datetime64[ns]"), unit=unit).tolist()
    return texts


def time_text(time: int, *, steps: bool) -> str:
    """One time for a message; ns since 1970, or a count."""
    return str(time) if steps else str(time_texts(np.array([time]).view("datetime64[ns]"))[0])


def month_places(time_N: Ints) -> tuple[Ints, Ints, Ints]:
    """The month of each time (months since 1970), ns since it began, and ns until it ends."""
    month = _month_of(time_N)
    return month, time_N - _start_of(month), _start_of(month + 1) - time_N


def _month_of(time_N: Ints) -> Ints:
    return time_N.view("datetime64[ns]").astype("datetime64[M]").astype(np.int64)


def _start_of(month: Ints) -> Ints:
    start = np.asarray(month).astype("datetime64[M]").astype("datetime64[ns]")
    return np.asarray(start.astype(np.int64))


def _times(count: int) -> str:
    return "" if count == 1 else str(count)


_WEEKDAYS = ("MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN")
_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_UNITS = {
    "D": (Kind.FIXED, DAY),
    "h": (Kind.FIXED, 3600 * 10**9),
    "min": (Kind.FIXED, 60 * 10**9),
    "s": (Kind.FIXED, 10**9),
    "ms": (Kind.FIXED, 10**6),
    "us": (Kind.FIXED, 10**3),
    "ns": (Kind.FIXED, 1),
    "W": (Kind.FIXED, WEEK),
    "B": (Kind.BUSINESS, 1),
    "MS": (Kind.MONTHS, 1),
    "ME": (Kind.MONTH_ENDS, 1),
    "QS": (Kind.MONTHS, 3),
    "QE": (Kind.MONTH_ENDS, 3),
    "YS": (Kind.MONTHS, 12),
    "YE": (Kind.MONTH_ENDS, 12),
}
_SIZES = ("D", "h", "min", "s", "ms", "us", "ns")
_OLD = {
    "d": "D", "H": "h", "T": "min", "S": "s", "L": "ms", "U": "us", "N": "ns",
    "M": "ME", "Q": "QE", "Y": "YE", "A": "YE", "AS": "YS",
}  # fmt: skip
