"""The exact solver against dense least squares, on ordinary series and on singular ones."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from seqgen_time_series.linear import gram
from seqgen_time_series.linear.exact import least_squares, residuals
from seqgen_time_series.linear.gram import Layout, moments
from seqgen_time_series.linear.model import ARNet
from seqgen_time_series.linear.synthetic import random_coefficients, simulate

Floats = NDArray[np.float64]
GOLDEN = Path(__file__).parents[1] / "parity" / "golden" / "autoreg.json"


def design(values_KN: Floats, layout: Layout) -> tuple[Floats, Floats]:
    """X [rows, F] and Y [rows, H], built row by row."""
    first = max(layout.lags)
    anchors = range(first, values_KN.shape[1] - layout.horizon + 1)
    rows = [
        np.concatenate(
            [[values_KN[k, t - lag] for lag in range(1, n + 1)] for k, n in enumerate(layout.lags)]
        )
        for t in anchors
    ]
    return np.array(rows), np.array([values_KN[0, t : t + layout.horizon] for t in anchors])


def dense(values_N: Floats, lags: int) -> tuple[Floats, float]:
    """Intercept and coefficients by minimum-norm least squares, and the RMSE."""
    inputs = np.lib.stride_tricks.sliding_window_view(values_N, lags)[:-1, ::-1]
    full = np.column_stack([np.ones(len(inputs)), inputs])
    weights = np.linalg.lstsq(full, values_N[lags:], rcond=None)[0]
    return weights, float(np.sqrt(np.mean(np.square(values_N[lags:] - full @ weights))))


@settings(max_examples=30, deadline=None)
@given(
    lags=st.lists(st.integers(1, 7), min_size=1, max_size=3),
    horizon=st.integers(1, 4),
    lengths=st.lists(st.integers(20, 60), min_size=1, max_size=3),
    intercept=st.booleans(),
    seed=st.integers(0, 999),
    transform=st.booleans(),
)
def test_moments_are_those_of_the_matrix_of_lags(
    lags: list[int], horizon: int, lengths: list[int], intercept: bool, seed: int, transform: bool
) -> None:
    rng = np.random.default_rng(seed)
    layout = Layout(tuple(lags), horizon)
    series = [5.0 + rng.normal(size=(len(lags), n)).cumsum(axis=1) for n in lengths]
    # Few lags are correlated by dot products, many by FFT.
    with mock.patch.object(gram, "FEW_LAGS", 0 if transform else 100):
        made = moments(series, layout, intercept=intercept)
    parts = [design(values_KN, layout) for values_KN in series]
    x, y = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
    assert made.rows == len(x)
    if intercept:
        np.testing.assert_allclose(made.feature_means_F, x.mean(axis=0), rtol=1e-10, atol=1e-10)
        np.testing.assert_allclose(made.target_means_H, y.mean(axis=0), rtol=1e-10, atol=1e-10)
        x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    scale = float(np.abs(x.T @ x).max())
    np.testing.assert_allclose(made.gram_FF, x.T @ x, atol=1e-11 * scale)
    np.testing.assert_allclose(made.cross_FH, x.T @ y, atol=1e-11 * scale)
    np.testing.assert_allclose(made.targets_HH, y.T @ y, atol=1e-11 * scale)


@pytest.mark.parametrize("lags", [1, 10, 100])
def test_coefficients_and_their_errors_are_those_of_least_squares(lags: int) -> None:
    y = simulate(random_coefficients(lags, seed=1), 4000, seed=2, level=300.0)
    fitted = ARNet(lags=lags).fit(y)
    inputs = np.lib.stride_tricks.sliding_window_view(y, lags)[:-1, ::-1]
    x = np.column_stack([np.ones(len(inputs)), inputs])
    weights = np.linalg.lstsq(x, y[lags:], rcond=None)[0]
    errors = y[lags:] - x @ weights
    variance = errors @ errors / (len(x) - x.shape[1])
    bse = np.sqrt(np.diag(np.linalg.inv(x.T @ x)) * variance)
    np.testing.assert_allclose(fitted.coefficients[0], weights[1:], atol=1e-10)
    np.testing.assert_allclose(fitted.intercept, weights[:1], rtol=1e-8)
    np.testing.assert_allclose(fitted.standard_errors[0], bse[1:], rtol=1e-6)
    np.testing.assert_allclose(fitted.intercept_errors_H, bse[:1], rtol=1e-6)
    np.testing.assert_allclose(fitted.sigma**2, variance, rtol=1e-10)
    assert fitted.warnings == ()


@pytest.mark.parametrize("lags", [10, 100, 500])
def test_coefficients_of_autoreg(lags: int) -> None:
    """statsmodels' AutoReg(trend='c') on n = 1e5; test_autoreg_peer.py wrote the numbers."""
    golden = json.loads(GOLDEN.read_text())
    y = simulate(random_coefficients(10, seed=golden["process"]), golden["samples"], seed=lags)
    entry = golden["fits"][str(lags)]
    assert float(y.sum()) == pytest.approx(entry["sum"], rel=1e-12)  # the same series
    fitted = ARNet(lags=lags).fit(y)
    np.testing.assert_allclose(fitted.coefficients[0], entry["coefficients"], rtol=0, atol=1e-9)
    assert fitted.intercept[0] == pytest.approx(entry["intercept"], abs=1e-9)


N = 3000
T = np.arange(N, dtype=np.float64)
NOISE = np.random.default_rng(0).normal(size=N)
SINGULAR = {
    "sine": np.sin(2 * np.pi * T / 24),
    "two sines": np.sin(2 * np.pi * T / 24) + np.sin(2 * np.pi * T / 7.3),
    "line": 0.5 * T + 3.0,
    "parabola": T**2,
    "cubic": 1e-3 * T**3,
    "exponential": np.exp(T / 300),
}
HARD = {
    "random walk at 1e6": 1e6 + NOISE.cumsum(),
    "sine with noise of 1e-6": np.sin(2 * np.pi * T / 24) + 1e-6 * NOISE,
    "large unit": 1e100 * NOISE,
    "small unit": 1e-100 * NOISE,
}


@pytest.mark.parametrize("lags", [10, 50])
@pytest.mark.parametrize("name", [*SINGULAR, *HARD])
def test_no_series_fails_and_the_rmse_is_that_of_least_squares(name: str, lags: int) -> None:
    y = {**SINGULAR, **HARD}[name]
    unit = float(np.abs(y).max())
    _, best = dense(y / unit, lags)
    fitted = ARNet(lags=lags).fit(y)
    errors = (y[lags:] - fitted.predict(y)[:-1, 0]) / unit
    rmse = float(np.sqrt(np.mean(np.square(errors))))
    # Where least squares is exact up to rounding, so is ours; elsewhere the two agree.
    assert rmse <= max(best * (1 + 1e-6), 1e-13)
    assert [w.code for w in fitted.warnings] == (["singular"] if name in SINGULAR else [])
    assert np.abs(fitted.coefficients).sum() < 10.0
    assert np.isfinite(fitted.forecast(y, 10)).all()


@pytest.mark.parametrize("value", [0.0, 7.0, 1e6 / 3, -1e-30])
def test_a_constant(value: float) -> None:
    fitted = ARNet(lags=50).fit(np.full(1000, value))
    assert fitted.coefficients.tolist() == [[0.0] * 50]
    np.testing.assert_allclose(fitted.forecast(np.full(60, value), 5), value, rtol=1e-14)
    assert [w.code for w in fitted.warnings] == ["constant"]
    assert fitted.sigma[0] == pytest.approx(0.0, abs=1e-9)


def test_more_lags_than_rows_fit_every_row_and_say_so() -> None:
    y = np.random.default_rng(0).normal(size=60)
    fitted = ARNet(lags=40).fit(y)
    assert "underdetermined" in [w.code for w in fitted.warnings]
    np.testing.assert_allclose(fitted.predict(y)[:-1, 0], y[40:], atol=1e-6)
    assert np.isnan(fitted.sigma).all()
    weights, _ = dense(y, 40)
    assert np.linalg.norm(fitted.coefficients) < 1.2 * np.linalg.norm(weights)


def test_direct_steps_and_lagged_regressors_are_regressions_of_their_own() -> None:
    rng = np.random.default_rng(3)
    values_KN = np.stack(
        [rng.normal(size=400).cumsum(), rng.normal(size=400), rng.normal(size=400)]
    )
    layout = Layout((5, 3, 7), 4)
    model = ARNet(lags=5, horizon=4, regressor_lags={"a": 3, "b": 7})
    fitted = model.fit(values_KN[0], {"a": values_KN[1], "b": values_KN[2]})
    x, y = design(values_KN, layout)
    full = np.column_stack([np.ones(len(x)), x])
    weights = np.linalg.lstsq(full, y, rcond=None)[0]
    np.testing.assert_allclose(fitted.intercept, weights[0], atol=1e-9)
    np.testing.assert_allclose(fitted.coefficients, weights[1:6].T, atol=1e-9)
    np.testing.assert_allclose(fitted.regressor_coefficients["a"], weights[6:9].T, atol=1e-9)
    np.testing.assert_allclose(fitted.regressor_coefficients["b"], weights[9:].T, atol=1e-9)
    errors = y - full @ weights
    covariance_HH = errors.T @ errors / (len(x) - full.shape[1])
    np.testing.assert_allclose(fitted.covariance_HH, covariance_HH, rtol=1e-8)
    bse = np.sqrt(np.outer(np.diag(covariance_HH), np.diag(np.linalg.inv(full.T @ full))))
    np.testing.assert_allclose(fitted.errors_HF, bse[:, 1:], rtol=1e-7)


def test_regressors_of_very_different_units() -> None:
    rng = np.random.default_rng(4)
    a, b = 1e-9 * rng.normal(size=3000), 1e9 * rng.normal(size=3000)
    y = np.zeros(3000)
    noise = 0.1 * rng.normal(size=3000)
    for t in range(1, 3000):
        y[t] = 0.5 * y[t - 1] + 2e9 * a[t - 1] - 3e-9 * b[t - 1] + noise[t]
    fitted = ARNet(lags=1, regressor_lags={"a": 1, "b": 1}).fit(y, {"a": a, "b": b})
    assert fitted.coefficients[0, 0] == pytest.approx(0.5, abs=0.01)
    assert fitted.regressor_coefficients["a"][0, 0] == pytest.approx(2e9, rel=0.01)
    assert fitted.regressor_coefficients["b"][0, 0] == pytest.approx(-3e-9, rel=0.01)
    assert fitted.warnings == ()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("strength", [0.0, 1e-12, 1e-9])
@pytest.mark.parametrize("window_mean", [False, True])
def test_singular_systems_have_no_negative_variances(strength: float, window_mean: bool) -> None:
    """Their digits cancel in the variances; numpy would warn of the root of a negative number."""
    time = np.arange(3000.0)
    for y in (np.sin(2 * np.pi * time / 24), 0.5 * time + 3.0, np.exp(time[:60])):
        for lags in (3, 12):
            model = ARNet(lags=lags, penalty="ridge", strength=strength, window_mean=window_mean)
            fitted = model.fit(y)
            errors = fitted.standard_errors
            assert errors is not None
            assert (errors[np.isfinite(errors)] >= 0.0).all()
            assert np.isfinite(fitted.coefficients).all()
            assert np.isfinite(fitted.sigma).all()


def test_without_an_intercept() -> None:
    y = simulate([0.5, 0.2], 500, seed=1, level=3.0)
    fitted = ARNet(lags=2, intercept=False).fit(y)
    x = np.column_stack([y[1:-1], y[:-2]])
    np.testing.assert_allclose(fitted.coefficients[0], np.linalg.lstsq(x, y[2:], rcond=None)[0])
    assert fitted.intercept.tolist() == [0.0]


def test_ridge_is_the_closed_form_in_units_of_the_standard_deviations() -> None:
    y = simulate([0.5, 0.2, 0.1], 300, seed=1, level=3.0)
    strength = 0.3
    fitted = ARNet(lags=3, penalty="ridge", strength=strength).fit(y)
    x = np.lib.stride_tricks.sliding_window_view(y, 3)[:-1, ::-1]
    target = y[3:] - y[3:].mean()
    scaled = (x - x.mean(axis=0)) / x.std(axis=0)
    rows = len(x)
    inverse = np.linalg.inv(scaled.T @ scaled / rows + strength * np.eye(3))
    weights = inverse @ scaled.T @ target / rows / x.std(axis=0)
    np.testing.assert_allclose(fitted.coefficients[0], weights, rtol=1e-9)
    hat = scaled @ inverse @ scaled.T / rows
    residual = target - scaled @ inverse @ scaled.T @ target / rows
    variance = residual @ residual / (rows - np.trace(hat) - 1)
    assert fitted.sigma[0] ** 2 == pytest.approx(variance, rel=1e-9)
    spread = inverse @ (scaled.T @ scaled / rows) @ inverse / rows
    errors = np.sqrt(np.diag(spread) * variance) / x.std(axis=0)
    np.testing.assert_allclose(fitted.standard_errors[0], errors, rtol=1e-9)


def test_standard_errors_cover_the_truth() -> None:
    truth = np.array([0.5, -0.3, 0.1])
    inside = []
    for seed in range(300):
        fitted = ARNet(lags=3).fit(simulate(truth, 400, seed=seed))
        inside.append(np.abs(fitted.coefficients[0] - truth) < 1.96 * fitted.standard_errors[0])
    assert 0.92 < np.mean(inside) < 0.98


def test_residuals_by_fft() -> None:
    rng = np.random.default_rng(5)
    layout = Layout((6, 2), 3)
    values_KN = rng.normal(size=(2, 80))
    weights_FH, intercept_H = rng.normal(size=(8, 3)), rng.normal(size=3)
    x, y = design(values_KN, layout)
    made = residuals(weights_FH, intercept_H, values_KN, layout)
    np.testing.assert_allclose(made.T, y - x @ weights_FH - intercept_H, atol=1e-12)


def test_a_window_mean_makes_the_level_irrelevant() -> None:
    y = simulate([0.6, -0.2], 2000, seed=1)
    plain = ARNet(lags=8, horizon=3, window_mean=True)
    one, other = plain.fit(y), plain.fit(y + 1e4)
    np.testing.assert_allclose(one.coefficients, other.coefficients, atol=1e-8)
    np.testing.assert_allclose(one.coefficients.sum(axis=1), 1.0, atol=1e-12)
    np.testing.assert_allclose(other.forecast(y + 1e4, 3), one.forecast(y, 3) + 1e4, atol=1e-6)
    assert one.warnings == ()
    # The regression of y_h - m on the lags minus m, m their mean.
    x, target = design(y[None], Layout((8,), 3))
    mean = x.mean(axis=1, keepdims=True)
    full = np.column_stack([np.ones(len(x)), x - mean])
    weights = np.linalg.lstsq(full, target - mean, rcond=None)[0][1:]
    effective = weights + (1 - weights.sum(axis=0)) / 8
    np.testing.assert_allclose(one.coefficients, effective.T, atol=1e-8)


def test_a_window_mean_with_ridge_and_regressors() -> None:
    rng = np.random.default_rng(6)
    y, a = simulate([0.6, -0.2], 500, seed=1, level=50.0), rng.normal(size=500)
    model = ARNet(lags=4, regressor_lags={"a": 2}, window_mean=True, penalty="ridge", strength=0.1)
    fitted = model.fit(y, {"a": a})
    x, target = design(np.stack([y, a]), Layout((4, 2), 1))
    mean = x[:, :4].mean(axis=1, keepdims=True)
    inputs = np.column_stack([x[:, :4] - mean, x[:, 4:]])
    inputs, aim = inputs - inputs.mean(axis=0), (target - mean) - (target - mean).mean(axis=0)
    # The missing direction is given back with the mean square of the centred lags.
    rows = len(x)
    gram_FF = inputs.T @ inputs
    own = np.r_[np.ones(4), np.zeros(2)]
    gram_FF += np.outer(own, own) * np.trace(gram_FF[:4, :4]) / 16
    scale = np.sqrt(np.diag(gram_FF) / rows)
    system = gram_FF / rows / np.outer(scale, scale) + 0.1 * np.eye(6)
    weights = np.linalg.solve(system, inputs.T @ aim / rows / scale[:, None]) / scale[:, None]
    weights[:4] += (1 - weights[:4].sum()) / 4
    assert fitted.errors_HF is not None
    assert np.isfinite(fitted.errors_HF).all()
    assert fitted.errors_HF.shape == (1, 6)
    made = np.concatenate([fitted.coefficients[0], fitted.regressor_coefficients["a"][0]])
    np.testing.assert_allclose(made, weights[:, 0], rtol=1e-9)


def test_memory_stays_far_below_the_matrix_of_lags() -> None:
    """n = 1e5, p = 1000: the matrix of lags alone would take 800 MB."""
    y = simulate([0.5, 0.2], 100_000, seed=1)
    ARNet(lags=2).fit(y[:100])
    tracemalloc.start()
    fitted = ARNet(lags=1000).fit(y)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert fitted.coefficients[0, 0] == pytest.approx(0.5, abs=0.02)
    assert peak < 100e6


def test_least_squares_of_moments_alone() -> None:
    """Without the series nothing is refined, and ordinary problems need no refinement."""
    y = simulate([0.5, 0.2], 500, seed=1)[None]
    layout = Layout((2,))
    with_series = least_squares(moments([y], layout), [y], layout)
    alone = least_squares(moments([y], layout), [], layout)
    np.testing.assert_array_equal(with_series.weights_FH, alone.weights_FH)
