"""What is wrong with the series of a table: each finding names the series and the time.

Shape suffixes: N rows, sorted by series and time; S series.
"""

from __future__ import annotations

import re

import numpy as np

from seqgen.errors import InputError
from seqgen_time_series.frequency import Frequency, Ints, Kind, time_text
from seqgen_time_series.grids import Bools, Grids
from seqgen_time_series.rows import Rows, Y, first_rows

MISSING_FIX = (
    "put the values in, or choose what shall be done: --set missing=interpolate (a line between "
    "the neighbours), cut (use only what follows the last hole), drop (as if the times left "
    "followed one another), keep (as holes, which the neural model understands)"
)
BEHIND_FIX = (
    "leave the rows behind the last value out, or, if they tell what is known beforehand, name "
    "those columns: --set future=COLUMN"
)
LARGEST = 1e100
"""Squares of larger values, and sums of squares, are out of reach of float64."""
_NO_TIME = ("nan", "NaT", "None", "<NA>")
_CLOCKS = "; if clocks were set there, write the times in UTC or with their zone"
_DUPLICATES_FIX = (
    "remove one, or choose: --set duplicates=first, last or mean; if the table holds several "
    "series, name the column that tells them apart: --set id_column=COLUMN"
)


def bad_times(rows: Rows) -> dict[int, InputError]:
    """Series with a time that cannot be read."""
    found = {}
    for code, row in first_rows(rows.bad_time_N, rows.code_N).items():
        text = rows.cell("", row)
        bad = "no time" if text in _NO_TIME else f"the time {text!r}, which cannot be read"
        found[code] = InputError(
            f"series {rows.names[code]!r} has {bad}",
            why=f"it is row {int(rows.origin_N[row]) + 1} of the table; times lie in the years "
            "1678 to 2261",
            fix="correct it, or say the form of the times: --set time_format=%d/%m/%Y",
        )
    return found


def duplicate_times(rows: Rows, same_N: Bools) -> dict[int, InputError]:
    """Series with two values of one time."""
    counts = np.bincount(rows.code_N[same_N], minlength=len(rows.names))
    return {
        code: InputError(
            f"series {rows.names[code]!r} has the time {_time(rows, row)} more than once",
            why=f"{counts[code]} of its rows repeat the time of another",
            fix=_DUPLICATES_FIX + _clock_change(_time(rows, row)),
        )
        for code, row in first_rows(same_N, rows.code_N).items()
    }


def off_grid(rows: Rows, grids: Grids, series_N: Ints, *, given: str) -> dict[int, InputError]:
    """Series with times that do not fit their frequency."""
    found = {}
    for code, row in first_rows(~grids.on_grid_N, rows.code_N).items():
        alias = _alias(rows, grids, series_N, row)
        name = rows.names[code]
        fix = "use one frequency for a series; round the times, or split the series"
        if given:
            fix += f"; or leave out --set frequency={given}"
        found[code] = InputError(
            f"series {name!r} mixes frequencies: {_time(rows, row)} does not fit {alias}",
            why=f"the time before it is {_time(rows, row - 1)}, and its series "
            f"{'was said to have' if given else 'mostly has'} one time every {alias}",
            fix=fix,
        )
    return found


def gaps(
    rows: Rows, grids: Grids, series_N: Ints, jump_N: Ints, *, given: str
) -> dict[int, InputError]:
    """Series that lack times.

    Args:
        jump_N: steps to the time before, 0 for a series' first time.
    """
    found = {}
    for code, row in first_rows(jump_N > 1, rows.code_N).items():
        alias, missing = _alias(rows, grids, series_N, row), int(jump_N[row]) - 1
        after = jump_N[row : row + 3]
        name, before, now = rows.names[code], _time(rows, row - 1), _time(rows, row)
        regular = len(after) == 3 and (after == after[0]).all() and rows.code_N[row + 2] == code
        if regular and not given:
            found[code] = InputError(
                f"series {name!r} mixes frequencies: its times are {alias} until {before}, and "
                f"{missing + 1} steps apart from there",
                why=f"the next time is {now}",
                fix="use one frequency for a series: resample it, or split it",
            )
            continue
        times = "time is" if missing == 1 else "times are"
        found[code] = InputError(
            f"series {name!r} has a gap: {missing} {times} missing between {before} and {now}",
            why=f"its frequency {'was said to be' if given else 'is'} {alias}",
            fix=MISSING_FIX + (_clock_change(now) if missing == 1 else ""),
        )
    return found


def cells(rows: Rows, column: str, marks_N: Bools, what: str, fix: str) -> dict[int, InputError]:
    """Series with a bad cell in a column."""
    counts = np.bincount(rows.code_N[marks_N], minlength=len(rows.names))
    found = {}
    for code, row in first_rows(marks_N, rows.code_N).items():
        where = "" if column == Y else f" in the column {column!r}"
        more = f" ({counts[code]} such cells)" if counts[code] > 1 else ""
        shown = f" {rows.cell(column, row)!r}" if column in rows.text else ""
        found[code] = InputError(
            f"series {rows.names[code]!r} has {what}{shown}{where} at {_time(rows, row)}{more}",
            fix=fix,
        )
    return found


def bad_numbers(rows: Rows, history_N: Bools, past: frozenset[str]) -> list[dict[int, InputError]]:
    """Series with text or infinite values among their numbers.

    Args:
        history_N: rows up to the last value of a series; behind it, only future columns count.
        past: columns that do not.
    """
    found = []
    for column, values in rows.numbers.items():
        counts_N = history_N if column in past or column == Y else np.ones_like(history_N)
        if column in rows.text:
            shown = [
                rows.cell(column, row)
                for row in first_rows(rows.text[column], rows.code_N).values()
            ]
            fix = "put a number there"
            if any("," in cell and "." in cell for cell in shown):
                fix = "write numbers without separators of thousands: 1234.5, not 1,234.5"
            elif any("," in cell for cell in shown):
                fix = "--set decimal=, reads decimal commas"
            found.append(cells(rows, column, rows.text[column] & counts_N, "the text", fix))
        found.append(
            cells(rows, column, np.isinf(values) & counts_N, "an infinite value",
                  "put a finite number there, or leave the cell empty and choose --set missing")
        )  # fmt: skip
        large_N = np.isfinite(values) & (np.abs(values) > LARGEST)
        found.append(
            cells(rows, column, large_N & counts_N, f"a value beyond {LARGEST:g}",
                  "give the values in a larger unit")
        )  # fmt: skip
    return found


def missing_future(
    rows: Rows, code: int, last: int, known: int, needed: int, column: str, frequency: Frequency
) -> InputError:
    """A series without the values of a future column that its forecast needs.

    Args:
        last: the row of the last value.
        known: steps behind it that the column is known for.
    """
    at = int(frequency.times(int(rows.time_N[last]), np.array([known + 1]))[0])
    return InputError(
        f"series {rows.names[code]!r} lacks the future column {column!r} from "
        f"{time_text(at, steps=rows.steps)} on",
        why=f"the forecast goes on from the last value, {_time(rows, last)}, for {needed} or more "
        f"steps, and it is known for {known} of them",
        fix="add rows with the time and the future columns below the last value (with an empty "
        "value), or give them in a table of their own: --set future_table=FILE",
    )


def one_time(name: str, time: str) -> InputError:
    """A series with one date, which has no distance from another."""
    return InputError(
        f"series {name!r} has one time only, {time}: its frequency cannot be told",
        fix="state it: --set frequency=MS (or D, h, ...), or give more values",
    )


def too_short(name: str, count: int, needed: int, last: str) -> InputError:
    """A series with fewer values than are needed."""
    values = "value" if count == 1 else "values"
    return InputError(
        f"series {name!r} is too short: {count} {values} up to {last}, and {needed} are needed",
        fix="give a longer history, or ask for fewer lags, a shorter season or horizon",
    )


def _clock_change(time: str) -> str:
    """What to do where clocks are set to summer time or back: between midnight and four."""
    return _CLOCKS if re.search(r"T0[0-4]:", time) else ""


def _time(rows: Rows, row: int) -> str:
    return time_text(int(rows.time_N[row]), steps=rows.steps)


def _alias(rows: Rows, grids: Grids, series_N: Ints, row: int) -> str:
    frequency = grids.frequency(int(series_N[row]))
    if frequency.kind == Kind.STEPS:
        return f"{frequency.step} (counts)"
    # Weeks and quarters are named after the series' first time.
    first = int(np.searchsorted(series_N, series_N[row]))
    return frequency.alias(int(rows.time_N[first]))
