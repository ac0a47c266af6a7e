"""The benchmarks on public series: their figures hold."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def etth1(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("etth1")


@pytest.fixture
def ts_coverage(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("ts_coverage")


@pytest.mark.parametrize(("horizon", "mse", "naive"), [(96, 0.370, 0.512), (192, 0.403, 0.581)])
def test_etth1(
    etth1: ModuleType, shared_data: Path, horizon: int, mse: float, naive: float
) -> None:
    _check_etth1(etth1, shared_data, horizon, mse, naive)


@pytest.mark.slow
@pytest.mark.parametrize(("horizon", "mse", "naive"), [(336, 0.426, 0.650), (720, 0.421, 0.655)])
def test_etth1_far_ahead(
    etth1: ModuleType, shared_data: Path, horizon: int, mse: float, naive: float
) -> None:
    _check_etth1(etth1, shared_data, horizon, mse, naive)


def _check_etth1(etth1: ModuleType, data: Path, horizon: int, mse: float, naive: float) -> None:
    columns = etth1.read(data / "timeseries" / "ett_ccbynd" / "ETTh1.csv")
    row = etth1.measure(columns, horizon)
    assert row["mse"] == pytest.approx(mse, abs=0.01)
    assert row["naive_mse"] == pytest.approx(naive, abs=0.002)
    # Every window of the test part: none is dropped with a last, smaller batch.
    assert row["windows_a_column"] == 2880 - horizon + 1


def test_windows_are_those_of_a_loop(etth1: ModuleType) -> None:
    rng = np.random.default_rng(0)
    columns = rng.normal(size=(2, 500))
    weights_LH = rng.normal(size=(etth1.LAGS, 5)) / 20
    start, length = 400, 60
    errors = [
        column[t - etth1.LAGS : t] @ weights_LH - column[t : t + 5]
        for column in columns
        for t in range(start, start + length - 5 + 1)
    ]
    mse, mae, windows = etth1.linear(columns, weights_LH, 5, start, length)
    assert windows == length - 5 + 1
    assert mse == pytest.approx(np.square(errors).mean())
    assert mae == pytest.approx(np.abs(errors).mean())


FOUR = (
    "neuralprophet_mit/air_passengers.csv",
    "neuralprophet_mit/wp_log_peyton_manning.csv",
    "statsmodels_pd/co2.csv",
    "statsmodels_pd/sunspots.csv",
)


@pytest.mark.slow
@pytest.mark.parametrize("file", FOUR)
def test_intervals_hold_what_they_promise(
    ts_coverage: ModuleType, shared_data: Path, file: str
) -> None:
    row = ts_coverage.measure(shared_data / "timeseries", file, 40)
    assert 0.75 <= row["arnet"] <= 0.85
