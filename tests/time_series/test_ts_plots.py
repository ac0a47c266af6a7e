"""The pictures hold what they are for."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from seqgen_time_series import plots
from seqgen_time_series.linear.model import ARNet
from seqgen_time_series.plots import (
    FORECAST,
    HISTORY,
    NAIVE,
    forecast_plot,
    lag_plot,
    metrics_chart,
)
from seqgen_time_series.scoring import Case
from seqgen_time_series.series import Series


def series(length: int = 60, dated: bool = True) -> Series:
    steps = np.arange(length)
    days = np.datetime64("2024-01-01", "ns") + steps * np.timedelta64(1, "D")
    y = 10 + np.sin(steps * 2 * np.pi / 7)
    return Series("a $b$_c", "t.csv", days if dated else steps, y, "D" if dated else "", 7)


def row(of: Series, start: int = 50, count: int = 7, **more: Any) -> dict[str, Any]:
    dated = np.issubdtype(of.ds.dtype, np.datetime64)
    times = of.ds[start : start + count]
    ds = np.datetime_as_string(times, unit="D").tolist() if dated else times.tolist()
    cutoff = np.datetime_as_string(of.ds[start - 1], unit="D") if dated else int(of.ds[start - 1])
    middle = np.full(count, 10.0)
    quantiles = {f"{q:g}": (middle + 5 * (q - 0.5)).tolist() for q in (0.1, 0.25, 0.5, 0.75, 0.9)}
    naive = of.y[start - 7 :][:count].tolist()
    fields = {"ds": ds, "cutoff": cutoff, "forecast": middle.tolist(), "quantiles": quantiles,
              "naive": naive, "model": "m", "decoder": "ar"}  # fmt: skip
    return fields | more


def share_of(picture: bytes, colour: str, tolerance: float = 0.04) -> float:
    """How much of a picture has a colour."""
    image = imread(BytesIO(picture))[..., :3]
    return float((np.abs(image - np.array(to_rgb(colour))).max(axis=-1) < tolerance).mean())


@pytest.mark.parametrize("dated", [True, False])
def test_a_forecast_with_history_intervals_and_seasonal_naive(dated: bool) -> None:
    own = series(dated=dated)
    picture = forecast_plot(row(own), own)
    assert imread(BytesIO(picture)).shape[:2] == (630, 1500)
    for colour in (HISTORY, FORECAST, NAIVE):
        assert share_of(picture, colour) > 0.0003
    bare = forecast_plot(row(own, quantiles={}, naive=None), own)
    assert share_of(bare, NAIVE) == 0
    image, without = (imread(BytesIO(p))[..., :3] for p in (picture, bare))
    tinted = (image[..., 2] - image[..., 0] > 0.04).mean()  # bands are pale blue
    assert tinted > (without[..., 2] - without[..., 0] > 0.04).mean() + 0.01


def test_several_cutoffs_and_missing_values() -> None:
    own = series()
    y = own.y.copy()
    y[30:33] = np.nan
    own = Series(own.unique_id, own.source, own.ds, y, "D", 7)
    first, second = row(own, 40), row(own, 50)
    both: dict[str, Any] = {
        name: [*first[name], *second[name]] for name in ("ds", "forecast", "naive")
    }
    both["cutoff"] = [first["cutoff"]] * 7 + [second["cutoff"]] * 7
    both["quantiles"] = {
        q: [*first["quantiles"][q], *second["quantiles"][q]] for q in first["quantiles"]
    }
    assert share_of(forecast_plot(both, own), FORECAST) > share_of(
        forecast_plot(first, own), FORECAST
    )


def test_a_long_history_keeps_its_spikes() -> None:
    y = np.zeros(100_000)
    y[12_345], y[54_321] = 9.0, -9.0
    x, drawn = plots._thinned(np.arange(100_000), y)
    assert len(drawn) <= plots.MOST_POINTS + 2
    assert drawn[x == 12_345].tolist() == [9.0]
    assert drawn[x == 54_321].tolist() == [-9.0]
    assert (np.diff(x) > 0).all()
    assert (x[0], x[-1]) == (0, 99_999)


def cases(count: int, wide: bool = True) -> list[Case]:
    rng = np.random.default_rng(0)
    levels = (0.1, 0.5, 0.9) if wide else ()
    found = []
    for number in range(count):
        y = 50 + np.cumsum(rng.normal(size=48))
        quantiles = y[39] + np.array([[-2.0, 0.0, 2.0]] * 8) if wide else np.empty((8, 0))
        found.append(Case(f"s{number}", y[:40], 4, y[40:], np.full(8, y[39]), levels, quantiles))
    return found


@pytest.mark.parametrize(
    ("format", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")]
)
def test_the_chart_of_metrics(format: str, start: bytes) -> None:
    assert metrics_chart(cases(6), format=format, title="walks").startswith(start)
    assert metrics_chart(cases(1, wide=False), format=format).startswith(start)


def test_the_chart_of_series_without_any_mase() -> None:
    flat = Case("a", np.ones(9), 1, np.ones(3), np.full(3, 1.5))
    assert metrics_chart([flat]).startswith(b"\x89PNG")


def test_lags_with_their_errors() -> None:
    rng = np.random.default_rng(0)
    y = np.zeros(600)
    for t in range(3, 600):
        y[t] = 0.5 * y[t - 1] - 0.3 * y[t - 3] + rng.normal()
    picture = lag_plot(ARNet(lags=6).fit(y), title="a $ in the name")
    assert picture.startswith(b"\x89PNG")
    assert share_of(picture, FORECAST) > 0.001
    many = ARNet(lags=150, horizon=2).fit(y)
    assert share_of(lag_plot(many, step=1), FORECAST) > 0.001
    ridge = ARNet(lags=6, regressor_lags={"temp": 2}).fit(
        y, regressors={"temp": rng.normal(size=600)}
    )
    two = imread(BytesIO(lag_plot(ridge)))
    assert two.shape[0] > imread(BytesIO(picture)).shape[0]  # a panel for each
