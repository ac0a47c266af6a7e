"""Yule-Walker by Levinson against the dense system, and against the exact solver."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from scipy.linalg import toeplitz

from seqgen.errors import ConfigError
from seqgen_time_series.linear.levinson import autocovariances, inverse_diagonal
from seqgen_time_series.linear.model import ARNet
from seqgen_time_series.linear.synthetic import random_coefficients, simulate


def test_autocovariances() -> None:
    rng = np.random.default_rng(0)
    parts = [rng.normal(size=50), rng.normal(size=7)]
    direct = [
        sum(float(x[k:] @ x[: len(x) - k]) for x in parts if k < len(x)) / 57 for k in range(10)
    ]
    np.testing.assert_allclose(autocovariances(parts, 10), direct, atol=1e-14)


@pytest.mark.parametrize("horizon", [1, 3])
def test_it_solves_the_yule_walker_equations(horizon: int) -> None:
    y = simulate([0.5, -0.3, 0.2], 600, seed=1, level=20.0)
    fitted = ARNet(lags=6, horizon=horizon, solver="levinson").fit(y)
    r = autocovariances([y - y.mean()], 6 + horizon)
    matrix = toeplitz(r[:6])
    for h in range(horizon):
        right = r[h + 1 : h + 7]
        weights = np.linalg.solve(matrix, right)
        np.testing.assert_allclose(fitted.coefficients[h], weights, atol=1e-10)
        assert fitted.sigma[h] ** 2 == pytest.approx(r[0] - weights @ right, rel=1e-9)
        assert fitted.intercept[h] == pytest.approx(y.mean() * (1 - weights.sum()), rel=1e-9)
    variance = fitted.sigma[0] ** 2
    bse = np.sqrt(np.diag(np.linalg.inv(matrix)) * variance / len(y))
    np.testing.assert_allclose(fitted.standard_errors[0], bse, rtol=1e-9)


def test_the_diagonal_of_the_inverse_in_linear_time() -> None:
    y = simulate(random_coefficients(8, seed=2), 500, seed=3)
    r = autocovariances([y - y.mean()], 9)
    weights = np.linalg.solve(toeplitz(r[:8]), r[1:])
    variance = r[0] - weights @ r[1:]
    direct = variance * np.diag(np.linalg.inv(toeplitz(r[:8])))
    np.testing.assert_allclose(inverse_diagonal(weights), direct, rtol=1e-9)


def test_it_nears_least_squares_as_the_series_grows() -> None:
    truth = random_coefficients(5, seed=4)
    gaps = []
    for length in (500, 5000, 50_000):
        y = simulate(truth, length, seed=5, level=10.0)
        one, other = ARNet(lags=20).fit(y), ARNet(lags=20, solver="levinson").fit(y)
        gaps.append(float(np.abs(one.coefficients - other.coefficients).max()))
        np.testing.assert_allclose(
            one.intercept_errors_H, other.intercept_errors_H, rtol=40 / length + 0.02
        )
    assert gaps[0] > 3 * gaps[1] > 9 * gaps[2]
    assert gaps[2] < 1e-3


def test_several_series_share_their_autocovariances() -> None:
    y = simulate([0.7], 4000, seed=6)
    whole = ARNet(lags=3, solver="levinson").fit(y)
    parts = ARNet(lags=3, solver="levinson").fit_many([y[:1000], y[1000:]])
    np.testing.assert_allclose(whole.coefficients, parts.coefficients, atol=0.01)


def test_many_lags_take_little_memory() -> None:
    """p = 4000: the Gram matrix alone would take 128 MB."""
    y = simulate([0.5, 0.2], 20_000, seed=7)
    tracemalloc.start()
    fitted = ARNet(lags=4000, solver="levinson").fit(y)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert fitted.coefficients[0, :2] == pytest.approx([0.5, 0.2], abs=0.03)
    assert peak < 10e6


def test_singular_series() -> None:
    constant = ARNet(lags=5, solver="levinson").fit(np.full(100, 3.0))
    assert [w.code for w in constant.warnings] == ["constant"]
    assert constant.forecast(np.full(10, 3.0), 3).tolist() == [3.0] * 3
    # Autocovariances of a series with two values are of rank two.
    spike = ARNet(lags=5, solver="levinson", intercept=False).fit(np.eye(1, 10)[0])
    assert np.isfinite(spike.coefficients).all()
    walk = 1e6 + np.random.default_rng(0).normal(size=3000).cumsum()
    fitted = ARNet(lags=50, solver="levinson").fit(walk)
    errors = walk[50:] - fitted.predict(walk)[:-1, 0]
    assert np.sqrt(np.mean(errors**2)) < 1.1


@pytest.mark.parametrize(
    "options",
    [{"penalty": "mcp"}, {"regressor_lags": {"a": 1}}, {"window_mean": True}, {"hidden": (4,)}],
)
def test_what_has_no_toeplitz_system_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="levinson"):
        ARNet(lags=3, solver="levinson", **options)  # type: ignore[arg-type]
