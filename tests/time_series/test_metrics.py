"""Metrics worked out by hand, by closed forms, and by what must hold for any numbers."""

from __future__ import annotations

from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqgen.errors import InputError
from seqgen_time_series import metrics
from seqgen_time_series.naive import (
    is_seasonal,
    naive2,
    seasonal_indices,
    seasonal_naive,
    seasonal_naive_quantiles,
)
from seqgen_time_series.readers import list_series
from seqgen_time_series.scoring import Case, cases_of, judge, score
from seqgen_time_series.series import Series

NAN = float("nan")
VALUES = st.lists(st.floats(-100, 100), min_size=1, max_size=30)


def test_mase_by_hand() -> None:
    history = [10, 12, 14, 13]
    assert metrics.naive_scale(history, 1) == pytest.approx(5 / 3)  # (2 + 2 + 1) / 3
    assert metrics.naive_scale(history, 2) == pytest.approx(2.5)  # (4 + 1) / 2
    assert metrics.mase([15, 16], [14, 18], 5 / 3) == pytest.approx(0.9)  # 1.5 / (5 / 3)
    assert np.isnan(metrics.naive_scale(history, 4))
    assert np.isnan(metrics.naive_scale([3, 3, 3], 1))  # a constant has no scale
    assert np.isnan(metrics.mase([1], [2], NAN))
    assert metrics.mase([1, NAN], [2, 9], 2.0) == 0.5  # what is missing does not count


def test_smape_by_hand() -> None:
    # 100 (10 / 210 + 20 / 380)
    assert metrics.smape([100, 200], [110, 180]) == pytest.approx(10.0250626566)
    assert metrics.smape([1.0], [-1.0]) == 200
    assert metrics.smape([0.0, 1.0], [0.0, 1.0]) == 0


@given(VALUES, VALUES)
def test_smape_lies_between_0_and_200(y: list[float], forecast: list[float]) -> None:
    count = min(len(y), len(forecast))
    found = metrics.smape(y[:count], forecast[:count])
    assert 0 <= found <= 200 + 1e-9
    assert found == pytest.approx(metrics.smape(forecast[:count], y[:count]))


def test_owa_takes_means_first_and_ratios_then() -> None:
    # (mean 15 / mean 20 + mean 1.5 / mean 1) / 2; the mean of ratios would be another
    found, count = metrics.owa([10, 20], [1, 2], [10, 30], [0.5, 1.5])
    assert (found, count) == (pytest.approx((0.75 + 1.5) / 2), 2)
    assert metrics.owa([10, 5], [1, NAN], [10, 5], [1, 1]) == (1.0, 1)
    assert np.isnan(metrics.owa([1], [NAN], [1], [1])[0])


def test_interval_scores_by_hand() -> None:
    # widths 6; the first misses by 1, the last by 2; 2 / 0.2 = 10 a unit
    y, low, high = [1, 5, 10], [2, 2, 2], [8, 8, 8]
    assert metrics.msis(y, low, high, 0.8, 2.0) == pytest.approx((16 + 6 + 26) / 3 / 2)
    assert metrics.coverage(y, low, high) == pytest.approx(1 / 3)
    assert metrics.coverage([2, 8, NAN], low, high) == 1.0  # the ends are inside
    assert metrics.below([1, 2, 3, NAN], [[1, 3], [1, 3], [1, 3], [1, 3]]).tolist() == [1 / 3, 1.0]


def test_wql_by_hand() -> None:
    # 0.1 (10 - 8) and 0.1 (12 - 10), twice their mean over 10
    assert metrics.wql([10], [[8, 12]], (0.1, 0.9)) == pytest.approx(0.04)
    assert metrics.wql([10, NAN], [[8, 12], [0, 0]], (0.1, 0.9)) == pytest.approx(0.04)
    assert np.isnan(metrics.wql([0], [[0, 0]], (0.1, 0.9)))
    y, quantiles = np.array([[10.0], [30.0]]), np.array([[[8.0, 12.0]], [[30.0, 30.0]]])
    assert metrics.total_wql(y, quantiles, (0.1, 0.9)) == pytest.approx(0.4 / 40)
    # The median alone: the absolute error over the size.
    assert metrics.wql([10, 20], [[11], [17]], (0.5,)) == pytest.approx(4 / 30)


@pytest.mark.parametrize("y", [-2.0, 0.3, 1.7])
def test_wql_of_many_levels_is_the_crps(y: float) -> None:
    normal = NormalDist()
    levels = tuple(np.arange(0.5, 2000) / 2000)
    quantiles = [[normal.inv_cdf(level) for level in levels]]
    # Gneiting and Raftery 2007, equation 21
    crps = y * (2 * normal.cdf(y) - 1) + 2 * normal.pdf(y) - 1 / np.sqrt(np.pi)
    assert metrics.wql([y], quantiles, levels) * abs(y) == pytest.approx(crps, abs=1e-4)


@given(VALUES, st.floats(0.01, 0.99), st.floats(-100, 100))
def test_no_value_beats_the_true_quantile(y: list[float], level: float, other: float) -> None:
    truth = float(np.quantile(y, level, method="inverted_cdf"))

    def loss(value: float) -> float:
        return float(metrics.pinball(y, np.full((len(y), 1), value), (level,)).mean())

    assert loss(truth) <= loss(other) + 1e-9


def test_leading_axes_are_kept() -> None:
    rng = np.random.default_rng(0)
    y, quantiles = rng.normal(size=(3, 5, 7)), rng.normal(size=(3, 5, 7, 2))
    low, high = quantiles[..., 0], quantiles[..., 1]
    for found, one in (
        (metrics.mase(y, low, 2.0), metrics.mase(y[1, 2], low[1, 2], 2.0)),
        (metrics.smape(y, low), metrics.smape(y[1, 2], low[1, 2])),
        (metrics.mse(y, low), metrics.mse(y[1, 2], low[1, 2])),
        (metrics.wql(y, quantiles, (0.2, 0.8)),
         metrics.wql(y[1, 2], quantiles[1, 2], (0.2, 0.8))),
        (metrics.msis(y, low, high, 0.6, 1.0),
         metrics.msis(y[1, 2], low[1, 2], high[1, 2], 0.6, 1.0)),
    ):  # fmt: skip
        assert found.shape == (3, 5)
        assert found[1, 2] == pytest.approx(float(one))


def test_relative_errors_have_a_geometric_mean() -> None:
    assert metrics.relative([1, 4], [2, 2]) == (pytest.approx(1.0), 2)  # half and twice as good
    assert metrics.relative([0, 1], [1, 1]) == (pytest.approx(0.1), 2)  # 0 counts as 0.01
    assert metrics.relative([1, 1], [0, 1]) == (pytest.approx(10.0), 2)  # x / 0 as 100
    assert metrics.relative([0, NAN, 3], [0, 1, 1]) == (pytest.approx(3.0), 1)
    assert np.isnan(metrics.relative([NAN], [1])[0])


def test_seasonal_naive_repeats_the_last_season() -> None:
    assert seasonal_naive([9, 1, 2, 3], 3, 7).tolist() == [1, 2, 3, 1, 2, 3, 1]
    assert seasonal_naive([4, 5], 1, 3).tolist() == [5, 5, 5]
    with pytest.raises(InputError, match="needs a season of 3 values, and there are 2"):
        seasonal_naive([1, 2], 3, 1)


def test_quantiles_of_seasonal_naive_widen_by_the_season() -> None:
    history = [1.0, 2.0, 4.0, 4.0, 4.0, 8.0]  # errors at lag 2: 3, 2, 0, 4
    spread = np.sqrt((9 + 4 + 0 + 16) / 4)
    z = NormalDist().inv_cdf(0.9)
    found = seasonal_naive_quantiles(history, 2, 5, (0.1, 0.5, 0.9))
    assert found[:, 1].tolist() == pytest.approx([4, 8, 4, 8, 4])
    widths = z * spread * np.sqrt([1, 1, 2, 2, 3])
    assert (found[:, 2] - found[:, 1]).tolist() == pytest.approx(widths.tolist())
    assert (found[:, 1] - found[:, 0]).tolist() == pytest.approx(widths.tolist())


def test_naive2_continues_a_pure_season() -> None:
    index = np.array([0.5, 1.5, 0.7, 1.3])
    history = 100 * np.resize(index, 23)  # ends within a season
    assert is_seasonal(history, 4)
    assert seasonal_indices(history, 4).tolist() == pytest.approx(index.tolist())
    found = naive2(history, 4, 6)
    assert found.tolist() == pytest.approx((100 * np.resize(index, 29)[23:]).tolist())
    odd = np.array([0.5, 1.5, 1.0])
    assert seasonal_indices(np.resize(odd, 20), 3).tolist() == pytest.approx(odd.tolist())


def test_naive2_is_naive_without_a_season() -> None:
    walk = np.cumsum(np.random.default_rng(0).normal(size=40)) + 50
    assert naive2(walk, 1, 3).tolist() == [walk[-1]] * 3
    seasonal = np.resize([1.0, 2.0, 3.0, 9.0], 11)  # fewer than three seasons
    assert not is_seasonal(seasonal, 4)
    assert naive2(seasonal, 4, 2).tolist() == [seasonal[-1]] * 2
    assert not is_seasonal(np.ones(40), 4)
    assert np.isnan(naive2(np.resize([-1.0, 2.0, 3.0, 9.0], 40), 4, 2)).all()


def test_the_test_of_seasonality_is_wrong_for_about_a_tenth_of_all_noise() -> None:
    rng = np.random.default_rng(1)
    found = np.mean([is_seasonal(rng.normal(size=200), 12) for _ in range(500)])
    assert 0.05 < found < 0.15


def test_seasonal_indices_are_those_of_r(shared_data: Path) -> None:
    """R's `decompose(AirPassengers, "multiplicative")$figure`."""
    path = shared_data / "timeseries" / "neuralprophet_mit" / "air_passengers.csv"
    (series,) = list_series(str(path))
    figure = [0.9102304, 0.8836253, 1.0073663, 0.9759060, 0.9813780, 1.1127758,
              1.2265555, 1.2199110, 1.0604919, 0.9217572, 0.8011781, 0.8988244]  # fmt: skip
    assert seasonal_indices(series.y, 12).tolist() == pytest.approx(figure, abs=1e-6)


def case(name: str, y: list[float], forecast: list[float], history: list[float]) -> Case:
    quantiles = np.array(forecast)[:, None] + np.array([-1.0, 0.0, 1.0])
    return Case(name, np.array(history), 1, np.array(y), np.array(forecast), (0.1, 0.5, 0.9),
                quantiles)  # fmt: skip


def test_every_series_weighs_the_same() -> None:
    history = [1.0, 2.0, 3.0, 4.0]  # scale 1
    a = [case("a", [5, 6], [5, 7], history), case("a", [5, 6], [8, 8], history)]  # 0.5, 2.5
    b = case("b", [9, 9], [9, 14], history)  # 2.5; seasonal naive 5
    found = score([*a, b])
    assert found["mase"] == pytest.approx((1.5 + 2.5) / 2)
    assert found["mase_naive"] == pytest.approx((1.5 + 5) / 2)
    assert found["relative_mase"] == pytest.approx(np.sqrt(1.5 / 1.5 * 2.5 / 5))
    assert found["coverage_80"] == pytest.approx((0.5 + 0.5) / 2)
    assert (found["series"], found["windows"]) == (2, 3)
    assert "undefined_mase" not in found
    assert judge([*a, b]).below_CK.tolist() == [[0.5, 1, 1], [1, 1, 1], [0.5, 1, 1]]


def test_a_constant_history_has_no_mase_but_other_figures() -> None:
    found = score([case("a", [5, 5], [5, 6], [5, 5, 5])])
    assert "mase" not in found
    assert (found["undefined_mase"], found["smape"] > 0) == (1, True)
    with pytest.raises(InputError, match="nothing to score"):
        score([])


def test_cases_are_the_parts_of_a_row_whose_future_is_known() -> None:
    days = np.arange("2024-01-01", "2024-01-09", dtype="datetime64[D]").astype("datetime64[ns]")
    series = Series("a", "t.csv", days, np.arange(8.0), "D", 1)
    row = {
        "ds": ["2024-01-05", "2024-01-06", "2024-01-08", "2024-01-09", "2024-01-10"],
        "cutoff": ["2024-01-04", "2024-01-04", "2024-01-07", "2024-01-07", "2024-01-08"],
        "forecast": [4.5, 5.5, 7.5, 8.5, 9.5],
        "quantiles": {"0.9": [5, 6, 8, 9, 10], "0.1": [4, 5, 7, 8, 9]},
    }
    first, second = cases_of(row, series)
    assert first.history.tolist() == [0, 1, 2, 3]
    assert (first.y.tolist(), first.levels) == ([4, 5], (0.1, 0.9))
    assert first.quantiles.tolist() == [[4, 5], [5, 6]]
    assert second.history.tolist() == [0, 1, 2, 3, 4, 5, 6]
    np.testing.assert_array_equal(second.y, [7, np.nan])
    (only,) = cases_of({**row, "cutoff": "2024-01-04"}, series)  # one for all times
    assert (only.history.size, only.y[:3].tolist()) == (4, [4, 5, 7])
    with pytest.raises(InputError, match="cutoff of series 'a'"):
        list(cases_of({**row, "cutoff": "2023-01-01"}, series))
