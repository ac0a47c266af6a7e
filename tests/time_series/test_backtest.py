"""Rolling origins: every window, and nothing of what comes later."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from seqgen.errors import ConfigError, InputError
from seqgen_time_series.backtest import Rolling, cut_at, observed, pairs, windows
from seqgen_time_series.readers import TableConfig, series_of
from seqgen_time_series.series import Series

ROLLINGS = st.builds(
    Rolling,
    horizon=st.integers(1, 8),
    windows=st.integers(0, 6),
    step=st.integers(0, 9),
    shortest=st.integers(1, 10),
    refit=st.integers(0, 3),
)


def series(length: int, ahead: int = 0, **more: Any) -> Series:
    days = np.datetime64("2024-01-01", "ns") + np.arange(length) * np.timedelta64(1, "D")
    columns = {
        "past": {"temp": np.arange(length) + 0.25},
        "future": {"promo": np.arange(length + ahead) + 0.5},
    }
    return Series("a", "t.csv", days, np.arange(length, dtype=float), "D", 7, **(columns | more))


def test_windows_by_hand() -> None:
    found = list(windows(series(10), Rolling(horizon=2, windows=3, step=1, shortest=4, refit=2)))
    assert [w.history.y[-1] for w in found] == [5, 6, 7]
    assert [w.y.tolist() for w in found] == [[6, 7], [7, 8], [8, 9]]
    assert [w.fit for w in found] == [True, False, True]
    assert found[0].cutoff == np.datetime64("2024-01-06")
    assert found[0].ds[0] == np.datetime64("2024-01-07")
    apart = list(windows(series(10), Rolling(horizon=3, windows=0, refit=0)))
    assert [w.y.tolist() for w in apart] == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    assert [w.fit for w in apart] == [True, False, False]


@given(st.integers(1, 60), ROLLINGS)
def test_every_window_counts_and_the_last_ends_with_the_series(
    length: int, config: Rolling
) -> None:
    assume(length >= config.needed)
    found = list(windows(series(length), config))
    room = length - config.horizon - config.shortest
    assert len(found) == (config.windows or room // config.stride + 1)
    assert found[-1].ds[-1] == series(length).ds[-1]
    assert len(found[0].history.y) >= config.shortest
    cuts = [len(w.history.y) for w in found]
    assert set(np.diff(cuts)) <= {config.stride}
    if config.windows == 0:  # there is no room for one more
        assert cuts[0] - config.stride < config.shortest


@given(st.integers(1, 60), ROLLINGS, st.integers(0, 5))
def test_a_history_does_not_know_what_comes(length: int, config: Rolling, ahead: int) -> None:
    assume(length >= config.needed)
    whole = series(length, ahead)
    for window in windows(whole, config):
        cut = len(window.history.y)
        later = np.arange(length) >= cut
        other = replace(
            whole,
            y=np.where(later, -999.0, whole.y),
            past={"temp": np.where(later, -999.0, whole.past["temp"])},
            future={"promo": np.where(np.arange(length + ahead) >= cut + config.horizon, -999.0,
                                      whole.future["promo"])},
        )  # fmt: skip
        same = cut_at(other, cut, config.horizon)
        assert same.y.tolist() == window.history.y.tolist()
        assert same.past["temp"].tolist() == window.history.past["temp"].tolist()
        assert same.future["promo"].tolist() == window.history.future["promo"].tolist()
        assert len(window.history.ds) == cut
        assert len(window.history.future["promo"]) == cut + config.horizon
        assert window.y.tolist() == list(range(cut, cut + config.horizon))


@settings(max_examples=25, deadline=None)
@given(st.sets(st.integers(1, 38), max_size=20), st.sets(st.integers(1, 38), max_size=20))
def test_what_is_interpolated_does_not_know_what_comes(gone: set[int], lacking: set[int]) -> None:
    """A hole that reaches over the cutoff is filled with the value before it, not on a line to the
    next one; in the target it stays a hole."""
    days = pd.date_range("2024-01-01", periods=40)
    config = TableConfig(missing="interpolate", past=("x",))
    y, x = np.sqrt(np.arange(40.0)), np.cos(np.arange(40.0))
    y[list(gone)], x[list(lacking)] = np.nan, np.nan
    (whole,) = series_of(pd.DataFrame({"ds": days, "y": y, "x": x}), config)
    start = int((whole.ds[0] - days[0].to_datetime64()) // np.timedelta64(1, "D"))
    found = list(windows(whole, Rolling(horizon=3, windows=0, step=1, shortest=2)))
    assert len(found) == len(whole.y) - 4
    for window in found[::3]:
        cut = start + len(window.history.y)
        later = np.arange(40) >= cut
        other = pd.DataFrame(
            {"ds": days, "y": np.where(later, -99.0, y), "x": np.where(later, 7.0, x)}
        )
        (changed,) = series_of(other, config)
        same = cut_at(changed, cut - start, 3)
        np.testing.assert_allclose(window.history.y, same.y, atol=1e-12)
        np.testing.assert_allclose(window.history.past["x"], same.past["x"], atol=1e-12)
        last = max(i for i in range(cut) if i not in gone)
        assert window.history.y[-1] == y[last]
        np.testing.assert_array_equal(window.y, y[cut : cut + 3])


@given(ROLLINGS, st.integers(0, 20))
def test_calibration_sees_only_targets_that_are_over(config: Rolling, number: int) -> None:
    known = observed(number, config)
    cut = 100 + number * config.stride
    ends = [100 + i * config.stride + config.horizon for i in range(number)]
    assert list(known) == [i for i, end in enumerate(ends) if end <= cut]


@given(st.integers(1, 40), st.integers(1, 10), st.integers(1, 10), st.integers(1, 5))
def test_arrays_of_all_windows(length: int, context: int, horizon: int, step: int) -> None:
    y = np.arange(float(length))
    if length < context + horizon:
        with pytest.raises(InputError, match="hold no window"):
            pairs(y, context, horizon)
        return
    past, target = pairs(y, context, horizon, step=step)
    count = (length - context - horizon) // step + 1
    assert (past.shape, target.shape) == ((count, context), (count, horizon))
    assert (past[:, -1] + 1 == target[:, 0]).all()
    assert np.shares_memory(past, y)
    if step == 1:
        assert target[-1, -1] == y[-1]


def test_what_is_too_short_or_bad_is_named() -> None:
    config = Rolling(horizon=4, windows=3, shortest=5)
    assert (config.needed, config.count(16), config.count(17), config.count(8)) == (17, 2, 3, 0)
    with pytest.raises(InputError, match="'a' has 16 values, and the backtest needs 17"):
        list(windows(series(16), config))
    problem = InputError("series 'a' has a gap")
    with pytest.raises(InputError, match="has a gap"):
        list(windows(series(30, problem=problem), config))
    with pytest.raises(ConfigError, match="horizon is 0"):
        Rolling(horizon=0)
