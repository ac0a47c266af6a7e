"""Tables in every layout, and the frequencies and times found in them."""

from __future__ import annotations

import gzip
import io
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqgen.errors import ConfigError, InputError
from seqgen_time_series.frequency import Frequency, next_times, season_of, time_texts
from seqgen_time_series.readers import TableConfig, list_series, series_of
from seqgen_time_series.series import Series

DAYS = pd.date_range("2024-01-01", periods=6, freq="D")


def write(folder: Path, text: str, name: str = "t.csv") -> str:
    (folder / name).write_bytes(text.encode())
    return str(folder / name)


def one(found: list[Series]) -> Series:
    (series,) = found
    assert series.problem is None, series.problem
    return series


def long_table(**more: Any) -> pd.DataFrame:
    columns = {"unique_id": ["b"] * 6 + ["a"] * 6, "ds": [*DAYS, *DAYS], "y": np.arange(12.0)}
    return pd.DataFrame(columns | more)


def test_the_three_layouts_hold_the_same_series(tmp_path: Path) -> None:
    frame = long_table()
    wide = frame.pivot(index="ds", columns="unique_id", values="y").reset_index()
    for folder, kind in ((tmp_path / "csv", "csv"), (tmp_path / "parquet", "parquet")):
        folder.mkdir()
        for name, table in (("long", frame), ("wide", wide), ("a", frame[6:][["ds", "y"]])):
            path = folder / f"{name}.{kind}"
            if kind == "csv":
                table.to_csv(path, index=False)
            else:
                table.to_parquet(path)
            found = {s.unique_id: s for s in list_series(str(path))}
            assert set(found) == ({"a"} if name == "a" else {"a", "b"})
            assert found["a"].y.tolist() == [6, 7, 8, 9, 10, 11]
            assert found["a"].ds.dtype == "datetime64[ns]"
            assert (found["a"].ds == DAYS.to_numpy()).all()
            assert (found["a"].frequency, found["a"].season) == ("D", 1)
    assert [s.unique_id for s in series_of(frame)] == ["b", "a"]  # in order of appearance


@settings(max_examples=20)
@given(st.permutations(range(12)))
def test_the_order_of_the_rows_does_not_matter(order: list[int]) -> None:
    found = {s.unique_id: s.y.tolist() for s in series_of(long_table().iloc[order])}
    assert found == {"b": [0, 1, 2, 3, 4, 5], "a": [6, 7, 8, 9, 10, 11]}


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_csv_dialects(tmp_path: Path, end: str, separator: str) -> None:
    lines = ["unique_id,ds,y", "NA,2024-01-01,1.5", "NA,2024-01-02,2", "NA,2024-01-03,3"]
    text = "\ufeff" + end.join(lines).replace(",", separator) + end
    series = one(list(list_series(write(tmp_path, text))))
    assert series.unique_id == "NA"  # a name, not a missing value
    assert series.y.tolist() == [1.5, 2, 3]


def test_decimal_commas_gzip_and_standard_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "ds;y\n2024-01-01;1,5\n2024-01-02;2,5\n2024-01-03;3,5\n"
    path = tmp_path / "t.csv.gz"
    path.write_bytes(gzip.compress(text.encode()))
    config = TableConfig(decimal=",")
    assert one(list(list_series(str(path), config))).y.tolist() == [1.5, 2.5, 3.5]
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(text.encode())))
    assert one(list(list_series("-", config))).unique_id == "stdin"


def test_folders_and_patterns(tmp_path: Path) -> None:
    write(tmp_path, "ds,y\n1,1\n2,2\n", "a.csv")
    write(tmp_path, "ds,y\n1,1\n2,2\n", "b.csv")
    write(tmp_path, "nothing", "notes.txt")
    assert [s.unique_id for s in list_series(str(tmp_path))] == ["a", "b"]
    assert [s.unique_id for s in list_series(str(tmp_path / "[ab].csv"))] == ["a", "b"]


# Whole seasons from the first time on, so that weekends and months' ends are among them.
@pytest.mark.parametrize(
    ("alias", "season"),
    [
        ("s", 3600), ("10s", 360), ("min", 1440), ("5min", 288), ("15min", 96), ("h", 24),
        ("6h", 4), ("7h", 1), ("D", 7), ("2D", 1), ("B", 5), ("W-SUN", 52), ("W-WED", 52),
        ("2W-MON", 26), ("MS", 12), ("ME", 12), ("2MS", 6), ("QS", 4), ("QS-FEB", 4), ("QE", 4),
        ("QE-JAN", 4), ("YS", 1), ("YS-APR", 1), ("YE", 1), ("YE-JUN", 1),
    ],
)  # fmt: skip
def test_frequencies_are_those_of_pandas(alias: str, season: int) -> None:
    times = pd.date_range("2023-01-01 06:00", periods=40, freq=alias)
    if times.freqstr != alias and times.freqstr.split("-")[0] != alias:  # QS is QS-JAN
        raise AssertionError(times.freqstr)
    (series,) = series_of(pd.DataFrame({"ds": times[:30], "y": np.arange(30.0)}))
    assert series.problem is None, series.problem
    assert series.frequency == alias
    assert season_of(alias) == season
    assert (next_times(series.ds, alias, 10) == times[30:].to_numpy()).all()
    given = series_of(pd.DataFrame({"ds": times[:30], "y": 1.0}), TableConfig(frequency=alias))
    assert one(given).frequency == alias


def test_a_month_keeps_its_day() -> None:
    times = pd.to_datetime([f"2024-{month:02}-15 12:00" for month in range(1, 13)])
    series = one(series_of(pd.DataFrame({"ds": times, "y": 1.0})))
    assert series.frequency == "MS"
    assert time_texts(next_times(series.ds, "MS", 2)) == [
        "2025-01-15T12:00:00",
        "2025-02-15T12:00:00",
    ]


def test_a_day_that_a_month_lacks_is_its_last_one() -> None:
    times = pd.to_datetime([f"2023-{month:02}-30 12:00" for month in range(3, 13)])
    series = one(series_of(pd.DataFrame({"ds": times, "y": 1.0})))
    assert time_texts(next_times(series.ds, series.frequency, 3)) == [
        "2024-01-30T12:00:00",
        "2024-02-29T12:00:00",
        "2024-03-30T12:00:00",
    ]


def test_old_aliases_are_known_and_wrong_ones_are_not() -> None:
    assert Frequency.parse("H") == Frequency.parse("h") == Frequency.parse("60min")
    assert Frequency.parse("M") == Frequency.parse("ME")
    assert Frequency.parse("7D") == Frequency.parse("W-SUN")
    for wrong in ("x", "0h", "W-XXX", "h-SUN", ""):
        with pytest.raises(ConfigError, match="no frequency"):
            Frequency.parse(wrong)
    with pytest.raises(ConfigError, match="did you mean 'min'"):
        Frequency.parse("mins")


@pytest.mark.parametrize(
    ("texts", "first", "options"),
    [
        (["20240131", "20240229", "20240331"], "2024-01-31", {}),
        (["2023Q4", "2024Q1", "2024Q2"], "2023-10-01", {}),
        (["2024-01-01T00:00:00+02:00", "2024-01-01T01:00:00+02:00"], "2023-12-31T22:00:00", {}),
        (["13/01/2024", "14/01/2024", "15/01/2024"], "2024-01-13", {}),
        (["01/13/2024", "01/14/2024", "01/15/2024"], "2024-01-13", {}),
        (["1.2.2024", "2.2.2024", "3.2.2024"], "2024-02-01", {}),
        (["01/02/2024", "02/02/2024"], "2024-02-01", {"time_format": "%d/%m/%Y"}),
        (["2024", "2025"], "2024-01-01", {"frequency": "YS"}),
        (["202402", "202403"], "2024-02-01", {"time_format": "%Y%m"}),
    ],
)
def test_times_of_every_form(
    tmp_path: Path, texts: list[str], first: str, options: dict[str, str]
) -> None:
    path = write(tmp_path, "ds,y\n" + "".join(f"{text},1\n" for text in texts))
    series = one(list(list_series(path, TableConfig(**options))))
    assert series.ds[0] == np.datetime64(first)


def test_times_with_and_without_a_zone_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "ds,y\n2024-01-01T00:00+01:00,1\n2024-01-01T01:00,1\n")
    with pytest.raises(InputError, match=r"'2024-01-01T01:00'"):
        list(list_series(path))


def test_times_with_a_zone_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    times = pd.date_range("2024-01-01", periods=3, freq="h", tz="Europe/Berlin")
    frame = pd.DataFrame({"ds": times, "y": 1.0})
    for source in (frame, frame.assign(ds=times.map(lambda t: t.isoformat()))):
        caplog.clear()
        assert one(series_of(source)).ds[0] == np.datetime64("2023-12-31T23:00")
        assert "in UTC" in caplog.text
    caplog.clear()
    series_of(long_table(ds=[str(day) for day in [*DAYS, *DAYS]]))
    assert not caplog.text


def test_ten_thousand_columns(tmp_path: Path) -> None:
    names = [f"s{i}" for i in range(10_000)]
    frame = pd.DataFrame(np.arange(200_000.0).reshape(20, -1), columns=names)
    frame.insert(0, "ds", pd.date_range("2024-01-01", periods=20))
    path = tmp_path / "wide.parquet"
    frame.to_parquet(path)
    started = time.process_time()
    found = list(list_series(str(path)))
    assert time.process_time() - started < 10
    assert (len(found), found[7].y[1], found[7].frequency) == (10_000, 10_007, "D")


def test_dates_that_could_be_read_in_two_ways_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "ds,y\n01/02/2024,1\n02/02/2024,1\n")
    with pytest.raises(InputError, match="can be read as %d/%m/%Y and as %m/%d/%Y"):
        list(list_series(path))


def test_counts_stay_counts(tmp_path: Path) -> None:
    path = write(tmp_path, "ds,y\n10,1\n20,2\n30,3\n")
    series = one(list(list_series(path)))
    assert (series.ds.dtype, series.frequency, series.season) == (np.int64, "", 1)
    assert next_times(series.ds, "", 2).tolist() == [40, 50]


def test_counts_that_look_like_seconds_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path, "ds,y\n1577836800,1\n1577923200,2\n1578009600,3\n")
    assert one(list(list_series(path))).frequency == ""
    assert "times such as 1577836800 are taken as counts" in caplog.text


def test_years_and_quarters_or_months(tmp_path: Path) -> None:
    quarters = write(tmp_path, "year,quarter,a\n2023,4,1\n2024,1,2\n2024,2,3\n")
    series = one(list(list_series(quarters)))
    assert series.ds.astype("datetime64[D]").astype(str).tolist()[0] == "2023-10-01"
    assert series.frequency == "QS"
    months = write(tmp_path, "Year,Month,a\n2023,12,1\n2024,1,2\n2024,2,3\n")
    assert one(list(list_series(months))).frequency == "MS"


def test_future_columns_go_beyond_the_last_value(tmp_path: Path) -> None:
    frame = long_table(promo=np.arange(12.0) % 2, temp=np.arange(12.0) + 0.5)
    frame.loc[[4, 5, 10, 11], "y"] = np.nan
    frame.loc[[4, 5, 10, 11], "temp"] = np.nan  # known up to the last value only
    config = TableConfig(future=("promo",), past=("temp",), horizon=2)
    for series in series_of(frame, config):
        assert series.problem is None, series.problem
        assert (len(series.y), len(series.past["temp"]), len(series.future["promo"])) == (4, 4, 6)
        assert series.ds[-1] == DAYS[3]

    table = tmp_path / "future.csv"
    frame.iloc[[4, 5, 10, 11]][["unique_id", "ds", "promo"]].to_csv(table, index=False)
    history = frame.dropna()
    apart = TableConfig(future=("promo",), horizon=2, future_table=str(table))
    assert [s.future["promo"].tolist() for s in series_of(history, apart)] == [
        [0, 1, 0, 1, 0, 1],
        [0, 1, 0, 1, 0, 1],
    ]
    table.write_text("ds,promo\n2024-01-05,7\n2024-01-06,8\n")  # the same for all series
    assert [s.future["promo"].tolist()[-2:] for s in series_of(history, apart)] == [[7, 8]] * 2


def test_the_season_is_the_frequencys_if_there_are_two_of_it() -> None:
    def season(count: int, **options: Any) -> int:
        times = pd.date_range("2024-01-01", periods=count, freq="MS")
        return one(series_of(pd.DataFrame({"ds": times, "y": 1.0}), TableConfig(**options))).season

    assert (season(24), season(23), season(23, season=6)) == (12, 1, 6)


def test_unused_columns_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    list(list_series(write(tmp_path, "ds,y,weather\n1,1,sun\n2,2,rain\n")))
    assert "columns not used: weather" in caplog.text


def test_ten_thousand_short_series_take_seconds(tmp_path: Path) -> None:
    count, length = 10_000, 40
    ids = np.repeat([f"s{i}" for i in range(count)], length)
    times = np.tile(pd.date_range("2024-01-01", periods=length, freq="D").astype(str), count)
    frame = pd.DataFrame({"unique_id": ids, "ds": times, "y": np.arange(count * length) % 7})
    frame.loc[length * 123 + 7, "y"] = -1  # to be told apart
    bad = frame.drop(index=[length * 5000 + 3])
    path = tmp_path / "many.csv"
    bad.to_csv(path, index=False)
    started = time.process_time()
    found = list(list_series(str(path)))
    assert time.process_time() - started < 10
    assert len(found) == count
    assert found[123].y[7] == -1
    problems = [series for series in found if series.problem is not None]
    assert [series.unique_id for series in problems] == ["s5000"]
    assert "1 time is missing between 2024-01-03 and 2024-01-05" in str(problems[0].problem)


def test_the_shipped_example() -> None:
    import seqgen_time_series

    assets = Path(str(seqgen_time_series.__file__)).parent / "assets"
    found = {s.unique_id: s for s in list_series(str(assets / "example.csv"))}
    assert {name: (s.frequency, s.season) for name, s in found.items()} == {
        "co2": ("MS", 12),
        "nile": ("YS", 1),
        "real_gdp": ("QS", 4),
        "sunspots": ("YS", 1),
        "unemployment": ("QS", 4),
    }
    assert all(series.problem is None for series in found.values())
    assert "public domain" in (assets / "example.LICENSE.txt").read_text()


@pytest.mark.parametrize(
    ("file", "count", "frequency", "last"),
    [
        ("neuralprophet_mit/air_passengers.csv", 144, "MS", 432.0),
        ("neuralprophet_mit/retail_sales.csv", 293, "MS", None),
        ("neuralprophet_mit/wp_log_peyton_manning.csv", 2964, "D", None),
        ("neuralprophet_mit/yosemite_temps.csv", 18721, "5min", None),
        ("statsmodels_pd/nile.csv", 100, "YS", 740.0),
        ("statsmodels_pd/sunspots.csv", 309, "YS", None),
    ],
)
def test_real_tables(
    shared_data: Path, file: str, count: int, frequency: str, last: float | None
) -> None:
    series = one(list(list_series(str(shared_data / "timeseries" / file))))
    assert (len(series.y), series.frequency) == (count, frequency)
    assert last is None or series.y[-1] == last


def test_real_wide_tables_and_missing_values(shared_data: Path) -> None:
    folder = shared_data / "timeseries"
    hours = list(list_series(str(folder / "ett_ccbynd" / "ETTh1.csv")))
    assert [(s.frequency, len(s.y)) for s in hours] == [("h", 17420)] * 7
    quarters = list(list_series(str(folder / "statsmodels_pd" / "macrodata.csv")))
    assert [(s.frequency, len(s.y)) for s in quarters] == [("QS", 203)] * 12
    weeks = str(folder / "statsmodels_pd" / "co2.csv")
    (bad,) = list_series(weeks)
    assert "'co2' has no value at 1958-05-10 (59 such cells)" in str(bad.problem)
    kept = one(list(list_series(weeks, TableConfig(missing="keep"))))
    assert (kept.frequency, int(np.isnan(kept.y).sum())) == ("W-SAT", 59)
