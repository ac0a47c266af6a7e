"""Forecasts as long tables: names of columns, every row's lines, and the way back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqgen.errors import InputError, UsageError
from seqgen_time_series import formats
from seqgen_time_series.formats import (
    column_of,
    from_frame,
    level_of,
    read_rows,
    to_frame,
    write_rows,
)


def row(name: str = "a", count: int = 3, **more: Any) -> dict[str, Any]:
    fields = {
        "id": name,
        "status": "ok",
        "unique_id": name,
        "ds": [f"2024-01-{day:02}" for day in range(1, count + 1)],
        "cutoff": ["2023-12-31"] * count,
        "forecast": [1.5 + i for i in range(count)],
        "quantiles": {
            "0.1": [0.1 + i for i in range(count)],
            "0.5": [1.25 + i for i in range(count)],
            "0.9": [2.9 + i for i in range(count)],
        },
        "naive": [7.0] * count,
    }
    return fields | more


def failed(name: str) -> dict[str, Any]:
    return {"id": name, "status": "failed", "reason": f"{name}: it has a gap"}


FIELDS = ("unique_id", "ds", "cutoff", "forecast", "quantiles", "naive")


@pytest.mark.parametrize(
    ("level", "column"),
    [
        (0.1, "y-lo-80"), (0.9, "y-hi-80"), (0.025, "y-lo-95"), (0.975, "y-hi-95"),
        (0.005, "y-lo-99"), (0.4, "y-lo-20"), (0.5, "y-median"), (0.0125, "y-lo-97.5"),
    ],
)  # fmt: skip
def test_columns_are_called_as_by_statsforecast(level: float, column: str) -> None:
    assert column_of(level) == column
    assert level_of(column) == pytest.approx(level)


@given(st.integers(1, 999))
def test_levels_and_columns_are_one_to_one(thousandths: int) -> None:
    assert level_of(column_of(thousandths / 1000)) == pytest.approx(thousandths / 1000)


def test_a_csv_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "f.csv"
    write_rows([failed("bad, one"), row(count=2)], path, "csv")
    assert path.read_text().splitlines() == [
        "unique_id,ds,cutoff,y,y-lo-80,y-median,y-hi-80,SeasonalNaive,reason",
        '"bad, one",,,,,,,,"bad, one: it has a gap"',
        "a,2024-01-01,2023-12-31,1.5,0.1,1.25,2.9,7.0,",
        "a,2024-01-02,2023-12-31,2.5,1.1,2.25,3.9,7.0,",
    ]


@pytest.mark.parametrize("format", formats.FORMATS)
@pytest.mark.parametrize("chunk", [1, 4, 100_000])
def test_round_trip(
    tmp_path: Path, format: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formats, "_CHUNK", chunk)
    cutoffs = ["2023-12-31", "2023-12-31", "2024-01-02"]  # a backtest
    rows = [failed("x"), failed("y"), row("b"), failed("z"), row("NA", cutoff=cutoffs), row("c", 5)]
    write_rows(iter(rows), tmp_path, format)
    path = tmp_path / f"forecasts.{format}"
    if format == "parquet":
        frame = pd.read_parquet(path)
        assert frame["ds"].dtype == "datetime64[ns]"
        assert frame["y-lo-80"].dtype == "float64"
    back = read_rows(path)
    assert [r["unique_id"] for r in back] == ["x", "y", "b", "z", "NA", "c"]
    for old, new in zip(rows, back, strict=True):
        assert new["status"] == old["status"]
        if old["status"] == "ok":
            assert {name: new[name] for name in FIELDS} == {name: old[name] for name in FIELDS}
        else:
            assert new["reason"] == old["reason"]


@settings(max_examples=30)
@given(
    st.lists(
        st.floats(allow_nan=False, allow_infinity=False).map(lambda x: x + 0.0),
        min_size=1,
        max_size=5,
    )
)
def test_numbers_come_back_to_the_last_bit(values: list[float]) -> None:
    old = row(count=len(values), forecast=values)
    assert from_frame(to_frame([old]))[0]["forecast"] == values


def test_counts_and_a_single_cutoff(tmp_path: Path) -> None:
    counted = row(ds=[7, 8, 9], cutoff=6, quantiles={}, naive=[None, 1.0, 2.0])
    for format in formats.FORMATS:
        path = tmp_path / f"f.{format}"
        write_rows([failed("x"), counted], path, format)
        frame = pd.read_csv(path) if format == "csv" else pd.read_parquet(path)
        assert list(frame.columns) == [
            "unique_id", "ds", "cutoff", "y", "SeasonalNaive", "reason",
        ]  # fmt: skip
        assert frame["ds"].tolist()[1:] == [7, 8, 9]
        assert frame["cutoff"].tolist()[1:] == [6, 6, 6]
        assert np.isnan(frame["SeasonalNaive"].iloc[1])
        assert read_rows(path)[1]["ds"] == [7, 8, 9]
    assert "a,7,6,1.5,,\n" in (tmp_path / "f.csv").read_text()


@pytest.mark.parametrize("format", formats.FORMATS)
def test_tables_without_a_forecast_have_their_columns(tmp_path: Path, format: str) -> None:
    for rows in ([], [failed("x")]):
        path = tmp_path / f"f.{format}"
        write_rows(rows, path, format)
        frame = pd.read_csv(path) if format == "csv" else pd.read_parquet(path)
        assert list(frame.columns)[:3] == ["unique_id", "ds", "cutoff"]
        assert len(frame) == len(rows)


def test_rows_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    other = row("b", quantiles={"0.2": [1, 2, 3], "0.8": [4, 5, 6]})
    with pytest.raises(UsageError, match="'b' has quantiles at other levels"):
        write_rows([row(), other], tmp_path, "csv")
    counted = row("n", ds=[1, 2, 3], cutoff=0)
    with pytest.raises(UsageError, match="dates and counts do not fit"):
        write_rows([row(), counted], tmp_path, "parquet")
    write_rows([row(), counted], tmp_path, "csv")
    with pytest.raises(InputError, match="2 values of forecast for 3 times"):
        write_rows([row(forecast=[1, 2])], tmp_path, "csv")
    (tmp_path / "other.csv").write_text("unique_id,ds\na,1\n")
    with pytest.raises(InputError, match="no table of forecasts: it has no column 'cutoff'"):
        read_rows(tmp_path / "other.csv")
    with pytest.raises(UsageError, match="did you mean 'parquet'"):
        write_rows([row()], tmp_path, "parket")


def test_series_of_one_name_stay_apart() -> None:
    rows = [row("co2"), {**row("co2"), "id": "co2#2"}]
    assert [r["unique_id"] for r in from_frame(to_frame(rows))] == ["co2", "co2#2"]


def test_rows_are_written_as_they_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "_CHUNK", 30)
    path = tmp_path / "f.csv"
    seen: list[int] = []

    def rows() -> Iterator[dict[str, Any]]:
        for number in range(40):
            if path.exists():
                seen.append(path.stat().st_size)
            yield row(f"s{number}", count=10)

    write_rows(rows(), path, "csv")
    assert len(pd.read_csv(path)) == 400
    assert max(seen) > 0  # something was on disk before the last row came
