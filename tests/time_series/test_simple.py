"""Simple forecasts of many histories at once: each as if it were alone, and as AR-Net fits it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqgen_time_series.linear.many import ridge_autoregressions
from seqgen_time_series.linear.model import ARNet
from seqgen_time_series.simple import RECENT, simple_errors, simple_forecasts
from seqgen_time_series.windows import window_of, windows_of


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(8, 200), st.integers(1, 30))
def test_the_fits_are_those_of_arnet(seed: int, count: int, lags: int) -> None:
    lags = min(lags, (count - 2) // 3)
    x = 5.0 + np.random.default_rng(seed).normal(size=(3, count)).cumsum(axis=1)
    weights, intercepts = ridge_autoregressions(x, lags)
    for row in range(3):
        alone = ARNet(lags=lags, penalty="ridge").fit(x[row])
        np.testing.assert_allclose(weights[row], alone.coefficients[0], rtol=1e-7, atol=1e-9)
        np.testing.assert_allclose(intercepts[row], alone.intercept[0], rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("level", [0.0, 3.0, 1e6])
def test_a_lag_that_is_constant_has_no_weight(level: float) -> None:
    x = np.full((2, 60), level)
    x[0, -1] += 1.0  # every lag is constant, the target is not
    x[1, 10] += 1.0
    weights, intercepts = ridge_autoregressions(x, 12)
    assert (weights[0] == 0.0).all()
    assert intercepts[0] == pytest.approx(level + 1 / 48, rel=1e-9)
    assert np.isfinite(weights).all()


def test_the_autoregression_is_fed_back() -> None:
    x = np.random.default_rng(0).normal(size=(2, 90)).cumsum(axis=1)
    found = simple_forecasts(x, 7, 20)
    fitted = ARNet(lags=17, penalty="ridge")
    for row in range(2):
        expected = fitted.fit(x[row]).forecast(x[row], 20)
        np.testing.assert_allclose(found[row, :, -2], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("count", "season"), [(12, 1), (40, 7), (RECENT + 300, 24)])
def test_a_history_is_forecast_as_if_it_were_alone(count: int, season: int) -> None:
    """Not a bit may differ: rows must not depend on the batch that they came in."""
    rng = np.random.default_rng(1)
    z = rng.normal(size=(5, count)).cumsum(axis=1)
    z[2] = 1.0
    units = np.ones(5)
    together = simple_forecasts(z, season, 30), simple_errors(z, season, units)
    for row in range(5):
        alone = z[row : row + 1]
        np.testing.assert_array_equal(together[0][row], simple_forecasts(alone, season, 30)[0])
        np.testing.assert_array_equal(together[1][row], simple_errors(alone, season, units[:1])[0])
    assert np.isfinite(together[0]).all()


def test_windows_of_any_shapes_come_in_order() -> None:
    rng = np.random.default_rng(2)
    histories = [rng.normal(size=count).cumsum() for count in (30, 50, 30, 7, 50)]
    histories[2][4] = np.nan
    seasons, slots = [7, 1, 7, 4, 12], [2, 1, 2, 3, 1]
    found = windows_of(histories, seasons, patch=4, context=8, slots=slots)
    for window, y, season, count in zip(found, histories, seasons, slots, strict=True):
        alone = window_of(y, season, patch=4, context=8, slots=count)
        for name in ("patches_TE", "simple_SPJ", "unit_S", "facts_SG", "level", "scale"):
            np.testing.assert_array_equal(getattr(window, name), getattr(alone, name))
