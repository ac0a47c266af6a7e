"""Rows of a table cut into series: onto their grid, by the policy for what is missing.

Shape suffixes: N rows, sorted by series and time; S series; T times of one series.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from seqgen.errors import InputError
from seqgen_time_series import problems
from seqgen_time_series.frequency import Frequency, Ints, time_text
from seqgen_time_series.grids import Bools, Grids, find_grids
from seqgen_time_series.rows import Floats, Rows, Y
from seqgen_time_series.series import Series
from seqgen_time_series.table_config import Missing, TableConfig

_LOG = logging.getLogger("seqgen")

_SPARSEST = 50
"""A grid with this many times for one that is there was not meant: it would only fill memory."""


def cut_series(rows: Rows, config: TableConfig, source: str) -> dict[int, Series]:
    """Every series of the rows by its code: to be forecast, or with its problem.

    Args:
        rows: sorted, without duplicates, times readable.
        source: the table, for messages.
    """
    if not len(rows.code_N):
        return {}
    given = Frequency.parse(config.frequency) if config.frequency else None
    starts_S = rows.starts
    stops_S = np.append(starts_S[1:], len(rows.code_N))
    series_N = np.repeat(np.arange(len(starts_S)), stops_S - starts_S)
    grids = find_grids(rows.time_N, starts_S, steps=rows.steps, given=given)
    jump_N = np.diff(grids.place_N, prepend=0)
    jump_N[starts_S] = 0

    empty_N = np.isnan(rows.numbers[Y])
    if Y in rows.text:
        empty_N &= ~rows.text[Y]
    index_N = np.arange(len(empty_N))
    last_S = np.maximum.reduceat(np.where(empty_N, -1, index_N), starts_S)
    ends_S = last_S + 1 if config.future else stops_S
    history_N = index_N < ends_S[series_N]
    hole_N = history_N & np.logical_or.reduce([np.isnan(v) for v in rows.numbers.values()])
    jump_N = np.where(history_N, jump_N, np.minimum(jump_N, 1))

    found: list[dict[int, InputError]] = [
        _without_values(rows, starts_S[last_S < 0], source),
        problems.off_grid(rows, grids, series_N, given=config.frequency),
        *problems.bad_numbers(rows, history_N, frozenset(config.past)),
    ]
    if config.missing == "error":
        found += [
            problems.gaps(rows, grids, series_N, jump_N, given=config.frequency),
            *_holes(rows, history_N, index_N > last_S[series_N]),
        ]
    failed: dict[int, InputError] = {}
    for errors in reversed(found):  # the first finding of a series is the one that is told
        failed |= errors

    broken_S = np.logical_or.reduceat(hole_N | (jump_N > 1), starts_S)
    repairs = _Repairs(config.missing)
    made = {}
    for s, (start, stop, end, broken) in enumerate(
        zip(starts_S.tolist(), stops_S.tolist(), ends_S.tolist(), broken_S.tolist(), strict=True)
    ):
        code = int(rows.code_N[start])
        part = _Part(rows, code, start, end, stop, grids, grids.frequency(s))
        try:
            if code in failed:
                raise failed[code]
            whole = repairs.apply(part, hole_N, jump_N) if broken else part.history()
            made[code] = _series(part, whole, config, source)
        except InputError as error:
            made[code] = Series(
                rows.names[code], source, _moments(part.time, rows.steps),
                rows.numbers[Y][start:end], problem=error,
            )  # fmt: skip
    repairs.report(source)
    return made


@dataclass(frozen=True)
class _History:
    """Times [T] and numbers [T] of a series, and which of the numbers were filled in."""

    time: Ints
    numbers: Mapping[str, Floats]
    filled: Mapping[str, Bools] = field(default_factory=dict)


@dataclass(frozen=True)
class _Part:
    """The rows of one series: history from `start` to `end`, future columns from there to `stop`.

    Attributes:
        frequency: step 0 where one time says nothing.
    """

    rows: Rows
    code: int
    start: int
    end: int
    stop: int
    grids: Grids
    frequency: Frequency

    @property
    def name(self) -> str:
        return self.rows.names[self.code]

    @property
    def time(self) -> Ints:
        return self.rows.time_N[self.start : self.end]

    def history(self) -> _History:
        numbers = self.rows.numbers
        return _History(self.time, {k: v[self.start : self.end] for k, v in numbers.items()})

    def text(self, time: int) -> str:
        return time_text(time, steps=self.rows.steps)


def _series(part: _Part, history: _History, config: TableConfig, source: str) -> Series:
    rows, time_T, numbers = part.rows, history.time, history.numbers
    y = numbers[Y]
    if not part.frequency.step and not rows.steps:
        raise problems.one_time(part.name, part.text(int(time_T[-1])))
    alias = part.frequency.alias(int(time_T[0])) if part.frequency.step else ""
    season = config.season
    if not season:
        season = part.frequency.season if part.frequency.step else 1
        season = season if len(y) >= 2 * season else 1
    needed = max(config.shortest, config.season + 1 if config.season else 1)
    if len(y) < needed:
        raise problems.too_short(part.name, len(y), needed, part.text(int(time_T[-1])))
    future = {}
    for column in config.future:
        ahead = rows.numbers[column][part.end : part.stop]
        place = part.grids.place_N[part.end - 1 : part.stop]
        known = int(np.argmin(np.append(np.isfinite(ahead) & (np.diff(place) == 1), False)))
        # Without a horizon it goes as far as a column does; a hole within it is told.
        reach = int(place[1:][np.isfinite(ahead)].max(initial=place[0] + 1) - place[0])
        needed = config.horizon or reach
        if known < needed:
            raise problems.missing_future(
                rows, part.code, part.end - 1, known, needed, column, part.frequency
            )
        future[column] = _fixed(np.concatenate([numbers[column], ahead[:known]]))
    return Series(
        part.name, source, _moments(time_T, rows.steps), _fixed(y), alias, season,
        {column: _fixed(numbers[column]) for column in config.past}, future,
        {column: marks for column, marks in history.filled.items() if column not in future},
    )  # fmt: skip


@dataclass
class _Repairs:
    """The policy for holes and gaps, and a count of what it did."""

    policy: Missing
    series: int = 0
    values: int = 0
    first: str = field(default="")

    def apply(self, part: _Part, hole_N: Bools, jump_N: Ints) -> _History:
        """A series without its holes."""
        history = part.history()
        time, numbers = history.time, history.numbers
        hole, jump = hole_N[part.start : part.end], jump_N[part.start : part.end]
        self._note(part, time, hole, jump)
        if self.policy == "drop":
            chosen = np.flatnonzero(~hole)
            kept = {k: v[chosen] for k, v in numbers.items()}
            return self._checked(part, _History(time[chosen], kept))
        if self.policy == "cut":
            whole = np.flatnonzero(~hole)
            end = int(whole[-1]) + 1 if len(whole) else 0
            behind_hole = int(np.flatnonzero(hole[:end]).max(initial=-1)) + 1
            start = max(behind_hole, int(np.flatnonzero(jump[:end] > 1).max(initial=0)))
            kept = {k: v[start:end] for k, v in numbers.items()}
            return self._checked(part, _History(time[start:end], kept))
        return self._spread(part, time, numbers)

    def _spread(self, part: _Part, time: Ints, numbers: Mapping[str, Floats]) -> _History:
        """Every time of the grid; missing values NaN, or interpolated."""
        place = part.grids.place_N[part.start : part.end]
        # Nothing is extrapolated: it begins and ends where there are values.
        columns = numbers if self.policy == "interpolate" else {Y: numbers[Y]}
        whole = np.logical_and.reduce([np.isfinite(values) for values in columns.values()])
        if not whole.any():
            raise InputError(
                f"series {part.name!r} has no time at which all its columns have a value",
                fix="leave a column out, or put the values in",
            )
        first = int(place[whole][0])
        last = min(int(place[np.isfinite(values)][-1]) for values in columns.values())
        if last - first > _SPARSEST * len(place) + 1000:
            raise InputError(
                f"series {part.name!r} has {len(place)} of {last - first + 1} times",
                why=f"its frequency was taken to be {part.frequency.alias(int(time[0])) or 1}",
                fix="state the frequency: --set frequency=ALIAS, or --set missing=drop",
            )
        grid, inside = np.arange(first, last + 1), (place >= first) & (place <= last)
        full, filled = {}, {}
        for name, values in numbers.items():
            full[name] = np.full(len(grid), np.nan)
            full[name][place[inside] - first] = values[inside]
            if self.policy == "interpolate":
                there, filled[name] = np.isfinite(values), np.isnan(full[name])
                full[name] = np.interp(grid, place[there], values[there])
        times = part.frequency.times(int(part.time[0]), grid)
        return self._checked(part, _History(times, full, filled))

    def _checked(self, part: _Part, history: _History) -> _History:
        if not len(history.time):
            raise InputError(
                f"series {part.name!r} has nothing left with missing={self.policy}",
                fix="choose another policy, or put the values in",
            )
        if part.stop > part.end and history.time[-1] != part.time[-1]:
            raise InputError(
                f"series {part.name!r} lacks an exogenous value at {part.text(int(part.time[-1]))}"
                ", the time of its last value",
                fix="put the value in: the future columns go on from there",
            )
        return history

    def _note(self, part: _Part, time: Ints, hole: Bools, jump: Ints) -> None:
        if not self.series:
            row = int(np.flatnonzero(hole | (jump > 1))[0])
            before = "" if hole[row] else "before "
            self.first = f"{part.name!r} {before}{part.text(int(time[row]))}"
        self.series += 1
        self.values += int(hole.sum() + np.maximum(jump - 1, 0).sum())

    def report(self, source: str) -> None:
        """What was done, for the log."""
        if self.series:
            _LOG.warning(
                "%s: %d missing values or times in %d series, the first %s (missing=%s)",
                source, self.values, self.series, self.first, self.policy,
            )  # fmt: skip


def _holes(rows: Rows, history_N: Bools, behind_N: Bools) -> list[dict[int, InputError]]:
    found = []
    for column, values in rows.numbers.items():
        hole_N = np.isnan(values) & history_N
        for marks_N, fix in ((~behind_N, problems.MISSING_FIX), (behind_N, problems.BEHIND_FIX)):
            found.append(problems.cells(rows, column, hole_N & marks_N, "no value", fix))
    return found


def _without_values(rows: Rows, starts: Ints, source: str) -> dict[int, InputError]:
    return {
        int(rows.code_N[start]): InputError(
            f"series {rows.names[rows.code_N[start]]!r} of {source} has no value at all",
            fix="leave the series out, or check the column of values",
        )
        for start in starts
    }


def _moments(time: Ints, steps: bool) -> np.ndarray:
    return time if steps else time.view("datetime64[ns]")


def _fixed(values: Floats) -> Floats:
    """The values behind a lock: many series share one array."""
    values = values.view()
    values.flags.writeable = False
    return values
