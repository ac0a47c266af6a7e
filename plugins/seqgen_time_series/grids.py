"""The frequency of every series of a table at once, and the place of every time on its grid.

Shape suffixes: N rows of the table, sorted by series and time; S series.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seqgen_time_series.frequency import DAY, Frequency, Ints, Kind, month_places

Bools = NDArray[np.bool_]
_NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Grids:
    """A grid for every series.

    Attributes:
        kind_S: `Kind`.
        step_S: steps of the kind between two times; 0 where one time says nothing.
        place_N: which step of its series' grid a time is, from 0.
        on_grid_N: whether it is one at all (if not, its place is that of the step before).
    """

    kind_S: Ints
    step_S: Ints
    place_N: Ints
    on_grid_N: Bools

    def frequency(self, series: int) -> Frequency:
        """The frequency of one series."""
        return Frequency(Kind(int(self.kind_S[series])), int(self.step_S[series]))


def find_grids(
    time_N: Ints, starts_S: Ints, *, steps: bool, given: Frequency | None = None
) -> Grids:
    """Infer or check the grids.

    The step of a series is the median distance of its times, so a few gaps do not matter. Distances
    of 28 days and more are months if every time lies equally far into its month, or equally far
    before the month's end. Days without a single weekend are business days.

    Args:
        time_N: ns since 1970, or counts; rising within a series.
        starts_S: the first row of every series.
        steps: the times are counts.
        given: the frequency, where the user states it; where a series starts is its own.
    """
    count_S = np.diff(np.append(starts_S, len(time_N)))
    series_N = np.repeat(np.arange(len(starts_S)), count_S)
    diff_N = _within(time_N, starts_S)
    if steps:
        kind_S = np.zeros(len(starts_S), dtype=np.int64)
        step_S = np.full_like(kind_S, given.step) if given else _median(diff_N, series_N, starts_S)
        return _placed(kind_S, step_S, time_N, starts_S, series_N)

    month_N, into_N, until_N = month_places(time_N)
    same_day_S = _constant(into_N, starts_S)
    # A period's end is its last day or later; the 15th is equally far from no month's end.
    same_end_S = _constant(until_N, starts_S) & (until_N[starts_S] <= DAY)
    if given is None:
        step_S = _median(diff_N, series_N, starts_S)
        kind_S = np.full_like(step_S, Kind.FIXED)
        monthly_S = (step_S >= 28 * DAY) & (same_day_S | same_end_S)
        kind_S[monthly_S] = Kind.MONTHS
        month_step_S = _median(_within(month_N, starts_S), series_N, starts_S)
        step_S = np.where(monthly_S, month_step_S, step_S)
        business_S = (step_S == DAY) & (kind_S == Kind.FIXED) & _skips_weekends(time_N, starts_S)
        kind_S[business_S] = Kind.BUSINESS
        step_S[business_S] = 1
        _borrow(kind_S, step_S)
    else:
        kind_S = np.full(len(starts_S), given.kind, dtype=np.int64)
        step_S = np.full(len(starts_S), given.step, dtype=np.int64)
    months_S = (kind_S == Kind.MONTHS) | (kind_S == Kind.MONTH_ENDS)
    # Of years, each 31st of December is both the same day and the month's last one: an end.
    kind_S[months_S] = np.where(same_end_S[months_S], Kind.MONTH_ENDS, Kind.MONTHS)
    return _placed(kind_S, step_S, time_N, starts_S, series_N)


def _placed(kind_S: Ints, step_S: Ints, time_N: Ints, starts_S: Ints, series_N: Ints) -> Grids:
    place_N = np.zeros_like(time_N)
    on_grid_N = np.ones(len(time_N), dtype=bool)
    kind_N, step_N = kind_S[series_N], np.maximum(step_S, 1)[series_N]
    first_N = time_N[starts_S][series_N]
    for kind in np.unique(kind_S):
        rows = np.flatnonzero(kind_N == kind)
        time, first, step = time_N[rows], first_N[rows], step_N[rows]
        if kind in (Kind.STEPS, Kind.FIXED):
            moved, exact = time - first, np.ones(len(rows), dtype=bool)
        elif kind == Kind.BUSINESS:
            day, rest = np.divmod(time, DAY)
            first_day, first_rest = np.divmod(first, DAY)
            moved = np.busday_count(
                first_day.astype("datetime64[D]"), day.astype("datetime64[D]")
            ).astype(np.int64)
            exact = (rest == first_rest) & np.is_busday(day.astype("datetime64[D]"))
        else:
            month, into, until = month_places(time)
            first_month, first_into, first_until = month_places(first)
            moved = month - first_month
            exact = until == first_until if kind == Kind.MONTH_ENDS else into == first_into
        place_N[rows], rest = np.divmod(moved, step)
        on_grid_N[rows] = exact & (rest == 0)
    return Grids(kind_S, step_S, place_N, on_grid_N)


def _borrow(kind_S: Ints, step_S: Ints) -> None:
    """Series of one time take the grid that most others have."""
    known_S = step_S > 0
    if known_S.all() or not known_S.any():
        return
    pairs, counts = np.unique(
        np.stack([kind_S[known_S], step_S[known_S]]), axis=1, return_counts=True
    )
    kind_S[~known_S], step_S[~known_S] = pairs[:, counts.argmax()]


def _within(values_N: Ints, starts_S: Ints) -> Ints:
    """Differences to the row before; 0 for the first of a series."""
    diff_N = np.diff(values_N, prepend=values_N[:1])
    diff_N[starts_S] = 0
    return diff_N


def _median(diff_N: Ints, series_N: Ints, starts_S: Ints) -> Ints:
    """The lower median of the positive differences of every series; 0 where there are none."""
    key_N = np.where(diff_N > 0, diff_N, _NEVER)
    sorted_N = key_N[np.lexsort((key_N, series_N))]
    positive_S = np.add.reduceat((diff_N > 0).astype(np.int64), starts_S)
    middle_S = sorted_N[starts_S + np.maximum(positive_S - 1, 0) // 2]
    return np.where(positive_S > 0, middle_S, 0)


def _constant(values_N: Ints, starts_S: Ints) -> Bools:
    low_S, high_S = (f.reduceat(values_N, starts_S) for f in (np.minimum, np.maximum))
    return np.asarray(low_S == high_S)


def _skips_weekends(time_N: Ints, starts_S: Ints) -> Bools:
    day_N, rest_N = np.divmod(time_N, DAY)
    weekend_N = (day_N + 3) % 7 >= 5  # 1970-01-01 was a Thursday
    over_N = (_within(time_N, starts_S) == 3 * DAY) & ((day_N + 3) % 7 == 0)
    return np.asarray(
        ~np.logical_or.reduceat(weekend_N, starts_S)
        & np.logical_or.reduceat(over_N, starts_S)
        & _constant(rest_N, starts_S)
    )
