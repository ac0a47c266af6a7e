"""What can be wrong with a table: the series and the time are named, and the others go on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqgen.errors import ConfigError, InputError
from seqgen_time_series.readers import TableConfig, list_series, series_of
from seqgen_time_series.series import Series

DAYS = [f"2024-01-{day:02}" for day in range(1, 11)]
GOOD = [("good", day, str(10 + i)) for i, day in enumerate(DAYS)]


def read(
    folder: Path, rows: list[tuple[str, str, str]], **options: Any
) -> tuple[Series, dict[str, Series]]:
    """The series `bad` and all by name; `good` stands around it."""
    lines = [",".join(row) for row in [*GOOD[:5], *rows, *GOOD[5:]]]
    path = folder / "t.csv"
    path.write_text("unique_id,ds,y\n" + "\n".join(lines) + "\n")
    found = {s.unique_id: s for s in list_series(str(path), TableConfig(**options))}
    assert found["good"].problem is None
    assert found["good"].y.tolist() == list(range(10, 20))
    return found["bad"], found


def write(folder: Path, text: str) -> str:
    path = folder / "t.csv"
    path.write_text(text)
    return str(path)


def series(values: list[str], days: list[str] | None = None) -> list[tuple[str, str, str]]:
    return [("bad", day, value) for day, value in zip(days or DAYS, values, strict=False)]


ONES = ["1"] * 10


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (series([*ONES[:3], "", *ONES]), "'bad' has no value at 2024-01-04"),
        (series([*ONES[:3], "NaN", "", *ONES]), "no value at 2024-01-04 (2 such cells)"),
        (series([*ONES[:3], "inf", *ONES]), "'bad' has an infinite value at 2024-01-04"),
        (series([*ONES[:3], "-Inf", *ONES]), "'bad' has an infinite value at 2024-01-04"),
        (series([*ONES[:3], "1e200", *ONES]), "'bad' has a value beyond 1e+100 at 2024-01-04"),
        (series([*ONES[:3], "n.a.", *ONES]), "'bad' has the text 'n.a.' at 2024-01-04"),
        (series(ONES[:9]), "no value at all"),
        (series(ONES, [*DAYS[:3], *DAYS[2:]]), "the time 2024-01-03 more than once"),
        (
            series(ONES, [*DAYS[:3], *DAYS[5:]]),
            "2 times are missing between 2024-01-03 and 2024-01-06",
        ),
        (
            series(ONES, [*DAYS[:8], "2024-02-01", "2024-03-01", "2024-04-01"]),
            "gap: 23 times are missing between 2024-01-08 and 2024-02-01",
        ),
        (
            series(ONES, [*DAYS[:6], "2024-01-13", "2024-01-20", "2024-01-27"]),
            "mixes frequencies: its times are D until 2024-01-06, and 7 steps apart",
        ),
        (
            series(ONES, [*DAYS[:5], "2024-01-05T12:00", *DAYS[5:]]),
            "mixes frequencies: 2024-01-05T12:00:00 does not fit D",
        ),
        (series(ONES, [*DAYS[:3], "soon", *DAYS[4:]]), "the time 'soon', which cannot be read"),
        (series(ONES, [*DAYS[:3], "", *DAYS[4:]]), "'bad' has no time"),
        (series(ONES, [*DAYS[:3], "1066-10-14"]), "the time '1066-10-14', which cannot be read"),
    ],
)
def test_a_bad_series_is_named_and_the_other_goes_on(
    tmp_path: Path, rows: list[tuple[str, str, str]], reason: str
) -> None:
    if reason == "no value at all":
        rows = [(name, day, "") for name, day, _ in rows]
    bad, _ = read(tmp_path, rows)
    assert bad.problem is not None
    assert reason in bad.problem.what
    assert "'bad'" in bad.problem.what
    assert bad.problem.fix


@pytest.mark.parametrize(
    ("cell", "fix"),
    [("1,234.5", "1234.5, not 1,234.5"), ("1,5", "--set decimal=,"), ("x", "put a number there")],
)
def test_commas_in_numbers_are_told_apart(tmp_path: Path, cell: str, fix: str) -> None:
    bad, _ = read(tmp_path, series([f'"{cell}"', *ONES]))
    assert bad.problem is not None
    assert f"the text {cell!r} at 2024-01-01" in bad.problem.what
    assert fix in bad.problem.fix


def test_where_clocks_are_set_the_zone_is_asked_for(tmp_path: Path) -> None:
    hours = [f"2024-03-31T{hour:02}:00" for hour in range(10)]
    for times in (hours[:2] + hours[3:], hours[:3] + hours[2:]):
        bad, _ = read(tmp_path, series(ONES, times))
        assert bad.problem is not None
        assert "in UTC or with their zone" in bad.problem.fix
    bad, _ = read(tmp_path, series(ONES, hours[:7] + hours[8:]))
    assert bad.problem is not None
    assert "zone" not in bad.problem.fix


def test_empty_values_at_the_end_may_be_future_rows(tmp_path: Path) -> None:
    bad, _ = read(tmp_path, series(["1", "2", "", ""]))
    assert bad.problem is not None
    assert "'bad' has no value at 2024-01-03 (2 such cells)" in bad.problem.what
    assert "--set future=COLUMN" in bad.problem.fix
    bad, _ = read(tmp_path, series(["1", "", "2", ""]))
    assert bad.problem is not None
    assert "no value at 2024-01-02" in bad.problem.what
    assert "--set missing=interpolate" in bad.problem.fix


@pytest.mark.parametrize("lost", ["row", "value"])
def test_a_hole_in_a_future_column_is_named(tmp_path: Path, lost: str) -> None:
    """It neither ends the horizon silently nor is filled."""
    lines = [f"{day},{i},1" for i, day in enumerate(DAYS)]
    ahead = [f"2024-01-{day}" for day in range(11, 16)]
    later = [f"{day},,{'' if lost == 'value' and day == ahead[2] else 2}" for day in ahead]
    if lost == "row":
        del later[2]
    path = write(tmp_path, "\n".join(["ds,y,price", *lines, *later]) + "\n")
    (whole,) = list_series(path, TableConfig(future=("price",)))
    assert "lacks the future column 'price' from 2024-01-13 on" in str(whole.problem)
    (short,) = list_series(path, TableConfig(future=("price",), horizon=2))
    assert short.problem is None


def test_one_date_has_no_frequency_but_one_may_be_stated(tmp_path: Path) -> None:
    path = write(tmp_path, "ds,y\n2024-01-01,3\n")
    (found,) = list_series(path)
    assert found.problem is not None
    assert "has one time only, 2024-01-01" in str(found.problem)
    (stated,) = list_series(path, TableConfig(frequency="MS"))
    assert stated.problem is None
    assert stated.frequency == "MS"
    (counted,) = list_series(write(tmp_path, "ds,y\n7,3\n"))
    assert counted.problem is None


def test_future_columns_of_one_series_only(tmp_path: Path) -> None:
    days = [f"2024-01-{day:02}" for day in range(1, 13)]
    lines = [f"{name},{day},1,2" for name in "ab" for day in days]
    lines += ["a,2024-01-13,,2"]
    path = write(tmp_path, "\n".join(["unique_id,ds,y,price", *lines]) + "\n")
    first, second = list_series(path, TableConfig(future=("price",)))
    assert first.problem is None
    assert "'b' lacks the future column 'price' from 2024-01-13 on" in str(second.problem)


def test_rows_without_a_name(tmp_path: Path) -> None:
    _, found = read(tmp_path, [*series(ONES), ("", "2024-01-01", "1")])
    assert found["bad"].problem is None
    assert "rows without a name" in str(found[""].problem)


def test_a_series_shorter_than_needed(tmp_path: Path) -> None:
    bad, _ = read(tmp_path, series(ONES[:4]), shortest=5)
    assert "'bad' is too short: 4 values up to 2024-01-04, and 5 are needed" in str(bad.problem)
    bad, _ = read(tmp_path, series(ONES[:4]), season=7)
    assert "and 8 are needed" in str(bad.problem)
    bad, _ = read(tmp_path, series(ONES[:1]))  # alone it has no frequency: the table's
    assert (bad.problem, bad.frequency) == (None, "D")


def test_a_given_frequency_is_checked(tmp_path: Path) -> None:
    bad, _ = read(tmp_path, series(ONES, [*DAYS[:3], "2024-01-03T06:00"]), frequency="D")
    assert "2024-01-03T06:00:00 does not fit D" in str(bad.problem)
    path = tmp_path / "counts.csv"
    path.write_text("ds,y\n1,1\n2,1\n")
    with pytest.raises(InputError, match="whole numbers, and the frequency is 'h'"):
        list(list_series(str(path), TableConfig(frequency="h")))


@pytest.mark.parametrize(
    ("missing", "values"),
    [
        ("interpolate", [1, 2, 3, 4, 5, 6, 7, 8]),
        ("keep", [1, np.nan, 3, 4, 5, np.nan, np.nan, 8]),
        ("drop", [1, 3, 4, 5, 8]),
        ("cut", [8]),
    ],
)
def test_policies_for_holes_and_gaps(
    tmp_path: Path, missing: str, values: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    # Nothing before the 2nd, a hole on the 3rd, a gap on the 7th and 8th, nothing on the 10th.
    rows = series(["", "1", "", "3", "4", "5", "8", ""], [*DAYS[:6], *DAYS[8:]])
    bad, _ = read(tmp_path, rows, missing=missing)
    assert bad.problem is None, bad.problem
    np.testing.assert_array_equal(bad.y, values)
    assert bad.frequency == "D"
    assert bad.ds[-1] == np.datetime64("2024-01-09")
    assert len(bad.ds) == len(values)
    assert "5 missing values or times in 1 series, the first 'bad' 2024-01-01" in caplog.text


@pytest.mark.parametrize(
    ("policy", "values"), [("first", [1, 2, 4]), ("last", [1, 3, 4]), ("mean", [1, 2.5, 4])]
)
def test_policies_for_duplicates(tmp_path: Path, policy: str, values: list[float]) -> None:
    rows = series(["1", "2", "3", "4"], [DAYS[0], DAYS[1], DAYS[1], DAYS[2]])
    bad, _ = read(tmp_path, rows, duplicates=policy)
    assert bad.y.tolist() == values


@settings(max_examples=30, deadline=None)
@given(st.lists(st.one_of(st.none(), st.floats(-10, 10)), min_size=1, max_size=12))
def test_no_policy_makes_up_values_beyond_those_there_are(values: list[float | None]) -> None:
    times = pd.date_range("2024-01-01", periods=len(values), freq="D")
    y = np.array([np.nan if v is None else v for v in values])
    for missing in ("interpolate", "keep", "drop", "cut", "error"):
        config = TableConfig(missing=missing, frequency="D")
        (found,) = series_of(pd.DataFrame({"ds": times, "y": y}), config)
        if found.problem is not None:
            assert np.isnan(y).all() or (missing == "error" and np.isnan(y).any())
            continue
        places = ((found.ds - times[0].to_datetime64()) // np.timedelta64(1, "D")).astype(int)
        there = ~np.isnan(y[places])
        np.testing.assert_array_equal(found.y[there], y[places][there])
        assert there[-1]
        assert missing == "cut" or there[0]
        if missing == "interpolate":
            assert np.nanmin(y) - 1e-9 <= found.y.min() <= found.y.max() <= np.nanmax(y) + 1e-9


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(["10s", "h", "D", "B", "W-WED", "MS", "ME", "QS-FEB", "QE", "YS", "YE-JUN"]),
    st.sets(st.integers(1, 38), min_size=1, max_size=6),
)
def test_gaps_are_found_at_every_frequency(alias: str, gone: set[int]) -> None:
    times = pd.date_range("2023-01-01", periods=40, freq=alias)
    left = [i for i in range(40) if i not in gone]
    frame = pd.DataFrame({"ds": times[left], "y": np.array(left, float)})
    (bad,) = series_of(frame)
    first = min(gone)
    behind = next(i for i in left if i > first)
    before, after = (str(times[i]).removesuffix(" 00:00:00") for i in (first - 1, behind))
    text = str(bad.problem).replace("T", " ")
    assert f"missing between {before} and {after}" in text or (
        "mixes frequencies" in text and f"until {before}" in text
    )
    (filled,) = series_of(frame, TableConfig(missing="interpolate"))
    assert filled.frequency == alias
    assert (filled.ds == times.to_numpy()).all()
    np.testing.assert_allclose(filled.y, np.arange(40.0))


def test_a_grid_far_finer_than_the_data_is_refused(tmp_path: Path) -> None:
    days = ["2024-01-01T00:00:00", "2024-01-01T00:00:01", "2024-01-01T00:00:02", "2024-03-01"]
    bad, _ = read(tmp_path, series(ONES, days), missing="interpolate")
    assert "has 4 of 5184001 times" in str(bad.problem)


def test_exogenous_columns_are_checked_too(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "unique_id": ["a"] * 4 + ["b"] * 4 + ["c"] * 4,
            "ds": DAYS[:4] * 3,
            "y": [1, 2, 3, np.nan] * 3,
            "promo": [1, 0, 1, 0, 1, np.nan, 1, 0, 1, 0, 1, np.nan],
        }
    )
    config = TableConfig(future=("promo",), horizon=1)
    a, b, c = series_of(frame, config)
    assert a.problem is None
    assert "'b' has no value in the column 'promo' at 2024-01-02" in str(b.problem)
    assert "'c' lacks the future column 'promo' from 2024-01-04 on" in str(c.problem)
    assert "known for 0 of them" in str(c.problem)
    texts = frame.assign(promo=["x", *["1"] * 11])
    assert "the text 'x' in the column 'promo' at 2024-01-01" in str(
        series_of(texts, config)[0].problem
    )


def test_wide_tables_may_begin_late_but_not_end_early(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "wide.csv"
    path.write_text("ds,a,b,c,d\n1,1,,1,\n2,2,2,2,\n3,3,3,,\n")
    a, b, c, d = list_series(str(path))
    assert (a.problem, a.y.tolist()) == (None, [1, 2, 3])
    assert (b.problem, b.y.tolist()) == (None, [2, 3])
    assert "'c' has no value at 3" in str(c.problem)
    assert "'d' of" in str(d.problem)
    assert "1 series begin later than the table, such as 'b'" in caplog.text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("unique_id,ds,y\n", "column names, but no rows"),
        ("unique_id,when,y\na,1,1\n", "no column of times"),
        ("unique_id,ds,sales,cost\na,1,1,1\n", "no column of values"),
        ("ds\n1\n", "no column of values"),
        ("ds,y\nsoon,1\n", "no time can be read; the first is 'soon'"),
        ("ds,y,y\n1,1,1\n", "2 columns called 'y'"),
        ("ds,y\n1,1,5\n2,2,5\n", "is no regular table"),
        ("ds,y\n1,1\n2,2,5\n", "is no regular table"),
        ("PK\x03\x04 and more", "zip archive or an Excel workbook"),
        ("a\0b", "is not text"),
        ("\xff\xfed\0s\0", "is UTF-16 text"),
        ("unique_ids,date,values\na,1,1\n", "no column of names of the series"),
        ("ds,y\n2024-01-01,1\n2024-01-02T00:00Z,1\n", "times with a zone"),
        ("ds,y\n1,1\n2,2,5,7\n", "line 3 has 4 fields, and there are 2 columns"),
        ("PAR1 but not really", "is damaged"),
    ],
)
def test_tables_that_cannot_be_read(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=reason) as caught:
        list(list_series(str(path)))
    assert caught.value.fix
    (tmp_path / "u.csv").write_text("ds,y\n1,1\n2,2\n")  # another table goes on
    found = {s.unique_id: s.problem for s in list_series(str(tmp_path))}
    assert found["u"] is None
    assert reason.split(";")[0] in str(found["t.csv"])


def test_missing_columns_are_suggested(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("date,sales,prise\n1,1,1\n2,2,2\n")
    for options, hint in (
        ({"time_column": "dates"}, "no column 'dates' (time_column).*did you mean 'date'"),
        ({"value_column": "sale"}, "no column 'sale' (value_column).*did you mean 'sales'"),
        ({"future": ("price",)}, "no column 'price' (future).*did you mean 'prise'"),
        ({"layout": "long"}, "no column of names of the series"),
    ):
        with pytest.raises(InputError, match="(?s)" + hint.replace("(", r"\(").replace(")", r"\)")):
            list(list_series(str(path), TableConfig(**options)))  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"did you mean .*t\.csv\?"):
        list(list_series(str(tmp_path / "tt.csv")))
    with pytest.raises(ConfigError, match="horizon is -1"):
        TableConfig(horizon=-1)
    with pytest.raises(ConfigError, match="separator 'ab'"):
        TableConfig(separator="ab")
    with pytest.raises(ConfigError, match="no names of such columns"):
        TableConfig(future_table="f.csv")
