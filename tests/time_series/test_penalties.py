"""Penalties: their proximal maps against brute force, their minima, and what they select."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqgen.errors import ConfigError
from seqgen_time_series.linear.model import ARNet
from seqgen_time_series.linear.penalties import (
    L1,
    ArNetPenalty,
    Mcp,
    Penalty,
    Ridge,
    arnet_calibrated,
    arnet_strength,
    descend,
    descend_path,
    threshold,
    universal_strength,
)
from seqgen_time_series.linear.synthetic import simulate, sparse_coefficients, stpe

PENALTIES = [Ridge(0.3), L1(0.1), Mcp(0.1), Mcp(0.2, 1.5), ArNetPenalty(0.02), ArNetPenalty(0.2)]


@settings(max_examples=60, deadline=None)
@given(penalty=st.sampled_from(PENALTIES), z=st.floats(-1.5, 1.5))
def test_the_proximal_map_is_the_global_minimum(penalty: Penalty, z: float) -> None:
    def objective(w: np.ndarray) -> np.ndarray:
        return 0.5 * np.square(w - z) + penalty.value(w)

    grid = np.linspace(-2.0, 2.0, 40_001)
    found = penalty.prox(np.array([z]))
    assert objective(found)[0] <= objective(grid).min() + 1e-12


def test_values_by_their_formulas() -> None:
    w = np.array([-0.7, 0.0, 0.05, 2.0])
    np.testing.assert_allclose(L1(0.1).value(w), 0.1 * np.abs(w))
    sigmoid = 2 / (1 + np.exp(-3 * np.abs(w) ** (1 / 3))) - 1  # the paper's form
    np.testing.assert_allclose(ArNetPenalty(0.4).value(w), 0.4 * sigmoid, rtol=1e-12)
    mcp = Mcp(0.1, 3.0).value(w)
    assert mcp[0] == mcp[3] == pytest.approx(0.1**2 * 3 / 2)
    assert mcp[2] == pytest.approx(0.1 * 0.05 - 0.05**2 / 6)


@pytest.mark.parametrize("penalty", [L1(0.1), Mcp(0.1), ArNetPenalty(0.02)])
def test_the_threshold_is_where_the_proximal_map_leaves_zero(penalty: Penalty) -> None:
    edge = threshold(penalty)
    assert penalty.prox(np.array([0.99 * edge]))[0] == 0.0
    assert penalty.prox(np.array([1.01 * edge]))[0] > 0.0


def test_strengths() -> None:
    assert universal_strength(2.0, 20, 1000) == pytest.approx(2 * np.sqrt(2 * np.log(20) / 1000))
    assert arnet_strength(1.0, 3 / 20) == pytest.approx(0.01 * (20 / 3 - 1))
    wanted = 0.7 * np.sqrt((np.log(1000) + 2 * np.log(20)) / 1000)
    made = ArNetPenalty(arnet_calibrated(0.7, 20, 1000))
    assert threshold(made) == pytest.approx(wanted, rel=1e-3)


def problem(seed: int, features: int = 8, targets: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """A correlation matrix [F, F] and cross products [F, H] of random data."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(60, features)) @ rng.normal(size=(features, features))
    x /= np.sqrt(np.mean(x**2, axis=0))
    y = x[:, :2] @ rng.normal(size=(2, targets)) + 0.3 * rng.normal(size=(60, targets))
    return x.T @ x / 60, x.T @ y / 60


@pytest.mark.parametrize("seed", range(3))
def test_the_lasso_meets_its_optimality_conditions(seed: int) -> None:
    correlation_FF, cross_FH = problem(seed)
    for found in (
        descend(correlation_FF, cross_FH, L1(0.05)),
        descend_path(correlation_FF, cross_FH, L1(0.05)),
    ):
        w = found.weights_FH
        slope = cross_FH - correlation_FF @ w
        assert found.converged
        assert 0 < np.count_nonzero(w) < w.size
        np.testing.assert_allclose(slope[w != 0], 0.05 * np.sign(w[w != 0]), atol=1e-7)
        assert np.abs(slope[w == 0]).max() <= 0.05 + 1e-7


@pytest.mark.parametrize("penalty", [Ridge(0.1), L1(0.05), Mcp(0.05), ArNetPenalty(0.005)])
def test_no_single_weight_can_improve_a_solution(penalty: Penalty) -> None:
    correlation_FF, cross_FH = problem(1, targets=1)
    w = descend(correlation_FF, cross_FH, penalty).weights_FH

    def objective(w: np.ndarray) -> float:
        quadratic = 0.5 * float(w[:, 0] @ correlation_FF @ w[:, 0]) - float(
            cross_FH[:, 0] @ w[:, 0]
        )
        return quadratic + float(penalty.value(w).sum())

    best = objective(w)
    for j in range(len(w)):
        for value in np.linspace(-2, 2, 801):
            other = w.copy()
            other[j] = value
            assert objective(other) >= best - 1e-9


def test_ridge_by_descent_is_its_closed_form() -> None:
    correlation_FF, cross_FH = problem(2)
    found = descend(correlation_FF, cross_FH, Ridge(0.5), tolerance=1e-13, max_sweeps=5000)
    exact = np.linalg.solve(correlation_FF + 0.5 * np.eye(8), cross_FH)
    np.testing.assert_allclose(found.weights_FH, exact, atol=1e-9)


def test_a_descent_that_is_cut_short_says_so() -> None:
    correlation_FF, cross_FH = problem(3)
    assert not descend(correlation_FF, cross_FH, Ridge(1e-6), max_sweeps=1).converged


def test_sparse_processes_are_found() -> None:
    """AR-Net's experiment: AR(3) hidden among 20 lags, n = 1000; the paper says 3.2 and 18.3."""
    truth = sparse_coefficients(20)
    errors: dict[str, list[float]] = {}
    for seed in range(10):
        y = simulate(truth, 1000, seed=seed, level=5.0)
        for penalty in ("none", "l1", "mcp", "arnet"):
            fitted = ARNet(lags=20, penalty=penalty).fit(y)  # type: ignore[arg-type]
            errors.setdefault(penalty, []).append(stpe(fitted.coefficients[0], truth))
    mean = {name: float(np.mean(values)) for name, values in errors.items()}
    assert 15.0 < mean["none"] < 25.0
    assert mean["mcp"] < 4.0
    assert mean["arnet"] < 4.0
    assert mean["mcp"] < mean["l1"] < mean["none"]


def test_selected_coefficients_are_least_squares_on_their_lags() -> None:
    """MCP does not shrink what lies beyond its knee, and its standard errors say so."""
    y = simulate(sparse_coefficients(20), 4000, seed=1, level=5.0)
    fitted = ARNet(lags=20, penalty="mcp").fit(y)
    chosen = np.flatnonzero(fitted.coefficients[0])
    assert chosen.tolist() == [0, 2, 9]
    x = np.lib.stride_tricks.sliding_window_view(y, 20)[:-1, ::-1][:, chosen]
    full = np.column_stack([np.ones(len(x)), x])
    weights = np.linalg.lstsq(full, y[20:], rcond=None)[0]
    np.testing.assert_allclose(fitted.coefficients[0, chosen], weights[1:], atol=1e-6)
    errors = y[20:] - full @ weights
    variance = errors @ errors / (len(x) - 4)
    bse = np.sqrt(np.diag(np.linalg.inv(full.T @ full)) * variance)
    np.testing.assert_allclose(fitted.standard_errors[0, chosen], bse[1:], rtol=1e-4)
    assert fitted.intercept_errors_H[0] == pytest.approx(bse[0], rel=1e-4)
    assert np.isnan(np.delete(fitted.standard_errors[0], chosen)).all()


@pytest.mark.parametrize("penalty", ["l1", "mcp", "arnet"])
def test_series_without_noise(penalty: str) -> None:
    t = np.arange(500)
    for y in (np.full(500, 7.0), 0.5 * t, np.sin(2 * np.pi * t / 24)):
        fitted = ARNet(lags=30, penalty=penalty).fit(y)  # type: ignore[arg-type]
        errors = y[30:] - fitted.predict(y)[:-1, 0]
        assert np.sqrt(np.mean(errors**2)) <= 0.02 * max(y.std(), 1e-12)
        assert np.isfinite(fitted.forecast(y, 5)).all()


@pytest.mark.parametrize("penalty", ["l1", "mcp", "arnet"])
def test_the_unit_of_a_series_does_not_matter(penalty: str) -> None:
    y = simulate(sparse_coefficients(12), 600, seed=2)
    one = ARNet(lags=12, penalty=penalty).fit(y)  # type: ignore[arg-type]
    other = ARNet(lags=12, penalty=penalty).fit(1e6 * y + 1e8)  # type: ignore[arg-type]
    np.testing.assert_allclose(one.coefficients, other.coefficients, atol=1e-6)
    assert one.strength == pytest.approx(other.strength, rel=1e-6)


def test_the_papers_strength_is_used_when_a_sparsity_is_given() -> None:
    y = simulate(sparse_coefficients(20), 1000, seed=3)
    fitted = ARNet(lags=20, penalty="arnet", sparsity=3 / 20).fit(y)
    sigma = ARNet(lags=20).fit(y).sigma[0] / y.std()
    assert fitted.strength == pytest.approx(0.01 * sigma * (20 / 3 - 1), rel=0.01)
    same = ARNet(lags=20, penalty="arnet", strength=fitted.strength).fit(y)
    np.testing.assert_allclose(same.coefficients, fitted.coefficients, atol=1e-12)


def test_more_lags_than_rows() -> None:
    """Least squares knows nothing of the noise there; the selection does."""
    y = simulate(sparse_coefficients(20), 400, seed=4)
    fitted = ARNet(lags=300, penalty="mcp").fit(y)
    chosen = set(np.flatnonzero(fitted.coefficients[0]).tolist())
    assert {2, 9} <= chosen
    assert len(chosen) < 12
    assert fitted.sigma[0] == pytest.approx(1.0, abs=0.3)


def test_lagged_regressors_are_selected_too() -> None:
    rng = np.random.default_rng(5)
    a, b = 100 * rng.normal(size=800), rng.normal(size=800)
    y = np.zeros(800)
    for t in range(4, 800):
        y[t] = 0.6 * y[t - 1] + 0.02 * a[t - 4] + rng.normal()
    model = ARNet(lags=6, regressor_lags={"a": 6, "b": 6}, penalty="mcp")
    fitted = model.fit(y, {"a": a, "b": b})
    assert np.flatnonzero(fitted.regressor_coefficients["a"]).tolist() == [3]
    assert fitted.regressor_coefficients["a"][0, 3] == pytest.approx(0.02, abs=0.003)
    assert not fitted.regressor_coefficients["b"].any()


@pytest.mark.parametrize(
    "options",
    [
        {"strength": -1.0},
        {"sparsity": 0.0},
        {"sparsity": 1.5},
        {"gamma": 1.0},
        {"penalty": "mpc"},
        {"penalty": "mcp", "window_mean": True},
    ],
)
def test_bad_settings(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        ARNet(lags=3, **options)  # type: ignore[arg-type]
