"""AR-Net as a network: it reaches what the exact solver reaches, and runs the paper's recipe."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from seqgen.errors import ConfigError
from seqgen_time_series.linear.gram import Layout
from seqgen_time_series.linear.model import ARNet
from seqgen_time_series.linear.penalties import L1, ArNetPenalty, Mcp, Penalty, Ridge
from seqgen_time_series.linear.recipe import SgdConfig, SgdProgress, paper_recipe
from seqgen_time_series.linear.sgd import penalty_sum, train
from seqgen_time_series.linear.synthetic import simulate, sparse_coefficients, stpe

SHORT = SgdConfig(epochs=40)


def test_it_reaches_least_squares() -> None:
    y = simulate([0.5, -0.3, 0.1], 1500, seed=1, sigma=20.0, level=3000.0)
    exact, made = ARNet(lags=5).fit(y), ARNet(lags=5, solver="sgd", sgd=SgdConfig(epochs=50)).fit(y)
    np.testing.assert_allclose(made.coefficients, exact.coefficients, atol=5e-3)
    np.testing.assert_allclose(made.sigma, exact.sigma, rtol=0.01)
    np.testing.assert_allclose(made.forecast(y, 5), exact.forecast(y, 5), atol=1.0)
    assert made.losses[-1] < made.losses[0]


def test_direct_steps_and_regressors() -> None:
    rng = np.random.default_rng(2)
    a = 1e-3 * rng.normal(size=1500)
    y = np.zeros(1500)
    for t in range(3, 1500):
        y[t] = 0.5 * y[t - 1] + 900 * a[t - 2] + rng.normal()
    settings = {"lags": 3, "horizon": 2, "regressor_lags": {"a": 4}}
    exact = ARNet(**settings).fit(y, {"a": a})  # type: ignore[arg-type]
    config = SgdConfig(epochs=150)
    made = ARNet(**settings, solver="sgd", sgd=config).fit(y, {"a": a})  # type: ignore[arg-type]
    np.testing.assert_allclose(made.coefficients, exact.coefficients, atol=0.02)
    np.testing.assert_allclose(
        made.regressor_coefficients["a"], exact.regressor_coefficients["a"], atol=20.0
    )
    np.testing.assert_allclose(made.covariance_HH, exact.covariance_HH, atol=0.05)


def test_several_series_never_share_a_window() -> None:
    """The step between two levels is far larger than anything within a series."""
    parts = [simulate([0.5], 300, seed=s, sigma=1e-3) + 100.0 * s for s in range(3)]
    made = ARNet(lags=2, solver="sgd", sgd=SHORT).fit_many(parts)
    assert made.rows == 3 * 298
    assert made.losses[-1] < 1e-4


def test_same_seed_same_bytes() -> None:
    y = simulate([0.5], 300, seed=3)

    def weights(seed: int) -> bytes:
        config = SgdConfig(epochs=3, seed=seed)
        return ARNet(lags=4, solver="sgd", hidden=(3,), sgd=config).fit(y).to_json().encode()

    assert weights(1) == weights(1)
    assert weights(1) != weights(2)


def test_hidden_layers_learn_what_no_linear_model_can() -> None:
    """A tent map: the next value is a piecewise linear function of the last one."""
    y = np.empty(1200)
    y[0] = 0.3
    rng = np.random.default_rng(4)
    for t in range(1, 1200):
        y[t] = 1.9 * min(y[t - 1], 1 - y[t - 1]) + 1e-3 * rng.normal()
    linear = ARNet(lags=2).fit(y)
    network = ARNet(lags=2, solver="sgd", hidden=(16,), sgd=SgdConfig(epochs=100)).fit(y)
    assert network.sigma[0] < 0.2 * linear.sigma[0]
    torch_net = torch.nn.Sequential(
        torch.nn.Linear(2, 16), torch.nn.ReLU(), torch.nn.Linear(16, 1)
    ).double()
    for module, layer in zip((torch_net[0], torch_net[2]), network.layers, strict=True):
        module.weight.data = torch.from_numpy(layer.weight)
        module.bias.data = torch.from_numpy(layer.bias)
    last = torch.tensor([[y[-1], y[-2]]])
    assert network.forecast(y, 1)[0] == pytest.approx(torch_net(last).item(), rel=1e-12)


@pytest.mark.parametrize("penalty", [Ridge(0.3), L1(0.2), Mcp(0.2), ArNetPenalty(0.1)])
def test_penalties_are_those_of_the_exact_solver(penalty: Penalty) -> None:
    w = np.array([[0.3, -0.01, 0.9, 0.0]])
    made = float(penalty_sum(penalty, torch.from_numpy(w)))
    assert made == pytest.approx(float(penalty.value(w).sum()), rel=1e-2)
    weights = torch.from_numpy(w).requires_grad_()
    penalty_sum(penalty, weights).backward()
    assert torch.isfinite(weights.grad).all()  # AR-Net's root too, at zero


@pytest.mark.parametrize(("penalty", "horizon"), [("ridge", 3), ("l1", 1), ("mcp", 1)])
def test_a_penalty_leads_where_the_exact_solver_leads(penalty: str, horizon: int) -> None:
    y = simulate(sparse_coefficients(12), 1500, seed=5, level=3.0)
    strength = 0.5 if penalty == "ridge" else 0.08
    settings = {"lags": 12, "horizon": horizon, "penalty": penalty, "strength": strength}
    exact = ARNet(**settings).fit(y)  # type: ignore[arg-type]
    config = SgdConfig(epochs=60, learning_rate=4e-3)
    made = ARNet(**settings, solver="sgd", sgd=config).fit(y)  # type: ignore[arg-type]
    np.testing.assert_allclose(made.coefficients, exact.coefficients, atol=0.02)
    assert made.strength == exact.strength == strength


def test_arnets_penalty_prunes() -> None:
    truth = sparse_coefficients(20)
    y = simulate(truth, 1000, seed=6)
    config = SgdConfig(epochs=150, learning_rate=3e-3)
    plain = ARNet(lags=20, solver="sgd", sgd=config).fit(y)
    pruned = ARNet(lags=20, solver="sgd", penalty="arnet", sgd=config).fit(y)
    assert stpe(pruned.coefficients[0], truth) < 0.6 * stpe(plain.coefficients[0], truth)


def test_the_papers_recipe() -> None:
    recipe = paper_recipe(seed=3)
    assert [recipe.rate(epoch, 10, 0.5) for epoch in (0, 1, 9)] == pytest.approx(
        [2e-4, 2e-4 * 0.9, 2e-4 * 0.9**9]
    )
    assert [recipe.penalty_share(epoch, 10) for epoch in (0, 1, 9)] == pytest.approx([0, 0.1, 0.9])
    y = simulate(sparse_coefficients(20), 1000, seed=7)
    fitted = ARNet(lags=20, solver="sgd", penalty="arnet", sparsity=3 / 20, sgd=recipe).fit(y)
    assert len(fitted.losses) == 10
    assert fitted.strength == pytest.approx(0.01 * (20 / 3 - 1))  # noise of 1, data as it is


def test_the_default_recipe() -> None:
    config = SgdConfig()
    assert config.epochs_for(1000) == 375
    assert config.epochs_for(10_000_000) == 10
    assert config.epochs_for(50) == 500
    rates = [config.rate(epoch, 100, 0.0) for epoch in range(100)]
    assert max(rates) == pytest.approx(config.learning_rate)
    assert rates[0] < 0.1 * max(rates) > 50 * rates[-1]
    assert [config.penalty_share(epoch, 100) for epoch in (0, 25, 50, 99)] == [0.0, 0.5, 1.0, 1.0]


def test_progress_comes_early_and_ends_at_the_end() -> None:
    seen: list[SgdProgress] = []
    y = simulate([0.5], 2000, seed=8)
    config = SgdConfig(epochs=2, batch=10, report_every=50)
    ARNet(lags=3, solver="sgd", sgd=config).fit(y, on_progress=seen.append)
    assert seen[0].step == 50
    assert [p.step for p in seen] == sorted(p.step for p in seen)
    assert seen[-1].step == seen[-1].steps == 2 * 200
    assert seen[-1].epoch == seen[-1].epochs == 2
    assert all(np.isfinite(p.loss) for p in seen)


def test_divergence_is_an_error_that_says_what_to_change() -> None:
    y = 1e200 * simulate([0.5], 300, seed=9)
    config = SgdConfig(epochs=3, normalize=False)
    with pytest.raises(ConfigError, match="learning_rate="):
        ARNet(lags=2, solver="sgd", sgd=config).fit(y)


def test_a_constant_series() -> None:
    fitted = ARNet(lags=2, solver="sgd").fit(np.full(100, 7.0))
    np.testing.assert_allclose(fitted.forecast(np.full(5, 7.0), 3), 7.0, atol=1e-2)


@pytest.mark.parametrize(
    "options",
    [{"epochs": 0}, {"batch": 0}, {"learning_rate": 0.0}, {"schedule": "linear"}],
)
def test_bad_recipes(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        SgdConfig(**options)  # type: ignore[arg-type]


def test_what_gradient_descent_does_not_do_is_refused() -> None:
    with pytest.raises(ConfigError, match="hidden"):
        ARNet(lags=2, hidden=(4,))
    with pytest.raises(ConfigError, match="intercept"):
        ARNet(lags=2, solver="sgd", intercept=False)


@pytest.mark.gpu
def test_on_a_gpu() -> None:
    y = simulate([0.5, -0.3], 1500, seed=1, level=10.0)[None]
    here = train([y], Layout((4,)), None, SgdConfig(epochs=5))
    there = train([y], Layout((4,)), None, SgdConfig(epochs=5, device="cuda"))
    np.testing.assert_allclose(here.layers[0][0], there.layers[0][0], atol=1e-6)
