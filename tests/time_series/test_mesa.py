"""Mesa-optimization: exact expectations, the layer, and what it learns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from seqgen.errors import ConfigError
from seqgen_time_series.mesa import MesaConfig, MesaReport, run_mesa, theory_ab
from seqgen_time_series.mesa_layer import Layer, gradient_step, loss_gradient, sample
from seqgen_time_series.mesa_moments import DATA, Data, expectations, mixed_moment
from seqgen_time_series.mesa_plot import draw_mesa, plot_mesa

SHAPE: dict[str, Any] = {"dimension": 2, "length": 6, "size": 1.3}


@pytest.fixture(scope="module")
def report() -> MesaReport:
    return run_mesa()


def random_layer(dimension: int, seed: int) -> Layer:
    rng = np.random.default_rng(seed)

    def draw(*shape: int) -> np.ndarray:
        return 0.3 * (rng.normal(size=shape) + 1j * rng.normal(size=shape))

    return Layer(draw(dimension, 2 * dimension), draw(2 * dimension, 2 * dimension))


def literal_predictions(layer: Layer, x_td: np.ndarray) -> np.ndarray:
    """The layer as its definition says, with tokens (0; x_t; x_{t-1}) and 3D x 3D matrices."""
    length, d = x_td.shape
    values = np.zeros((3 * d, 3 * d), dtype=complex)
    keys = np.zeros((3 * d, 3 * d), dtype=complex)
    values[:d, d:], keys[d:, d:] = layer.values_DK, layer.keys_KK
    before = np.concatenate([np.zeros((1, d)), x_td[:-1]])
    tokens = np.concatenate([np.zeros((length, d)), x_td, before], axis=1).T  # columns e_t
    made = []
    for t in range(2, length + 1):
        e = tokens[:, :t]
        f = e[:, -1] + values @ e @ (e.conj().T @ keys @ e[:, -1]) / (t - 1)
        made.append(f[:d])
    return np.array(made)


def test_predictions_are_those_of_the_definition() -> None:
    layer = random_layer(2, 0)
    x_ntd = sample("gaussian", 3, np.random.default_rng(1), **SHAPE)
    for made, x_td in zip(layer.predict(x_ntd), x_ntd, strict=True):
        np.testing.assert_allclose(made, literal_predictions(layer, x_td), atol=1e-13)


def test_a_gradient_step_is_that_of_least_squares() -> None:
    x_ntd = sample("gaussian", 1, np.random.default_rng(2), **SHAPE)
    x = torch.from_numpy(x_ntd[0])
    for t in range(2, 7):
        w = torch.zeros(2, 2, dtype=torch.complex128, requires_grad=True)
        (0.5 * (x[1:t] - x[: t - 1] @ w.T).abs().square().sum()).backward()
        step = -w.grad / (t - 1)
        np.testing.assert_allclose(gradient_step(x_ntd)[0, t - 2], step @ x[t - 1], atol=1e-12)


def test_the_gradient_is_that_of_autograd() -> None:
    layer = random_layer(2, 3)
    x_ntd = sample("gaussian", 5, np.random.default_rng(4), **SHAPE)
    x = torch.from_numpy(x_ntd)
    a = torch.from_numpy(layer.values_DK).requires_grad_()
    b = torch.from_numpy(layer.keys_KK).requires_grad_()
    u = torch.cat([x, torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], dim=1)], dim=2)
    loss = 0.0
    for t in range(2, 6):
        seen = u[:, :t]
        scores = torch.einsum("nik,kl,nl->ni", seen.conj(), b, u[:, t - 1])
        predicted = torch.einsum("ok,nik,ni->no", a, seen, scores) / (t - 1)
        loss = loss + 0.5 * (predicted - x[:, t]).abs().square().sum() / 5
    loss.backward()
    values, keys = loss_gradient(layer, x_ntd)
    np.testing.assert_allclose(values, a.grad.numpy(), atol=1e-12)
    np.testing.assert_allclose(keys, b.grad.numpy(), atol=1e-12)


@pytest.mark.parametrize("data", DATA)
def test_expectations_are_means_over_samples(data: Data) -> None:
    made = expectations(data, **SHAPE)
    count, length = 30_000, SHAPE["length"]
    x = sample(data, count, np.random.default_rng(5), **SHAPE)
    before = np.concatenate([np.zeros_like(x[:, :1]), x[:, :-1]], axis=1)
    u = np.concatenate([x, before], axis=2)
    quadratic, linear = np.zeros_like(made.quadratic_PP), np.zeros_like(made.linear_DP)
    for t in range(2, int(length)):
        gram = np.einsum("nik,nil->nkl", u[:, :t], u[:, :t].conj()) / (t - 1)
        features = np.einsum("nkl,nm->nklm", gram, u[:, t - 1]).reshape(count, -1)
        quadratic = quadratic + features.T @ features.conj() / count
        linear = linear + x[:, t].T @ features.conj() / count
    spread = 0.15 if data == "gaussian" else 0.03  # sixth moments of normal data are noisy
    scale = np.abs(made.quadratic_PP).max()
    np.testing.assert_allclose(quadratic, made.quadratic_PP, atol=spread * scale)
    np.testing.assert_allclose(linear, made.linear_DP, atol=spread * np.abs(made.linear_DP).max())


def test_moments() -> None:
    gaussian = [
        mixed_moment("gaussian", powers, dimension=3, size=2.0)
        for powers in ([4], [6], [2, 4], [1, 2], [])
    ]
    assert gaussian == [3 * 2**4, 15 * 2**6, 3 * 2**6, 0.0, 1.0]
    assert mixed_moment("one-hot", [4], dimension=3, size=2.0) == pytest.approx(16 / 3)
    assert mixed_moment("one-hot", [2, 4], dimension=3, size=2.0) == 0.0
    assert mixed_moment("ones", [1, 2], dimension=3, size=2.0) == 8.0


def test_the_theorems_value() -> None:
    assert theory_ab("one-hot", dimension=3, length=12, size=2.0) == pytest.approx(1 / 4)
    assert theory_ab("gaussian", dimension=3, length=12, size=1.0) == pytest.approx(
        0.1790, abs=1e-4
    )
    assert theory_ab("gaussian", dimension=3, length=10**5, size=2.0) == pytest.approx(
        1 / 20, rel=1e-3
    )


def test_the_flow_ends_where_the_theorem_says(report: MesaReport) -> None:
    cases = {case.data: case for case in report.cases}
    assert cases["one-hot"].ab_error < 0.01
    assert cases["gaussian"].ab_error < 0.01
    for name in ("one-hot", "gaussian"):
        case = cases[name]
        np.testing.assert_allclose(case.ab_D, case.theory, rtol=0.01)
        assert case.rest < 1e-6
        assert case.step_gap < 1e-6
        assert case.step_size == pytest.approx(case.theory, rel=1e-4)
        assert case.loss == pytest.approx(case.theory_loss, abs=1e-6)
    assert cases["one-hot"].prediction_error < 1e-6
    assert cases["gaussian"].prediction_error > 0.3  # one step of its size cannot recover x


def test_data_outside_the_condition_teach_something_else(report: MesaReport) -> None:
    (case,) = [case for case in report.cases if not case.meets_condition]
    assert case.data == "ones"
    assert case.ab_error > 0.1
    assert case.rest > 0.05
    assert case.step_gap > 0.1


def test_what_the_flow_conserves() -> None:
    config = MesaConfig(data=("gaussian",), a0=0.1, b0=0.6)
    (case,) = run_mesa(config).cases
    assert case.conserved[0] == pytest.approx(-0.35)
    assert case.conserved[1] == pytest.approx(-0.35, abs=1e-6)
    assert case.ab_error < 1e-4
    losses = np.array([snapshot.loss for snapshot in case.history])
    assert np.all(np.diff(losses) < 1e-9)


def test_the_other_blocks_of_the_matrices_have_no_gradient() -> None:
    """So only A and B are trained, though W^PV and W^KQ are 3D x 3D."""
    x_td = torch.from_numpy(sample("ones", 1, np.random.default_rng(6), **SHAPE)[0])
    length, d = x_td.shape
    layer = random_layer(2, 7)
    values, keys = (torch.zeros(3 * d, 3 * d, dtype=torch.complex128) for _ in range(2))
    values[:d, d:] = torch.from_numpy(layer.values_DK)
    keys[d:, d:] = torch.from_numpy(layer.keys_KK)
    values.requires_grad_()
    keys.requires_grad_()
    zeros = torch.zeros_like(x_td)
    before = torch.cat([zeros[:1], x_td[:-1]])
    tokens = torch.cat([zeros, x_td, before], dim=1).T
    loss = 0.0
    for t in range(2, length):
        e = tokens[:, :t]
        f = e[:, -1] + values @ e @ (e.conj().T @ keys @ e[:, -1]) / (t - 1)
        loss = loss + 0.5 * (f[:d] - x_td[t]).abs().square().sum()
    loss.backward()
    for matrix, rows in ((values.grad, slice(0, d)), (keys.grad, slice(d, None))):
        trained = torch.zeros_like(matrix, dtype=torch.bool)
        trained[rows, d:] = True
        assert matrix[~trained].abs().max() == 0.0
        assert matrix[trained].abs().min() > 0.0


def test_gradient_descent_on_samples_agrees_with_the_flow() -> None:
    config = MesaConfig(data=("one-hot",), method="sgd", steps=300, batch=64, dimension=2, length=6)
    (case,) = run_mesa(config).cases
    assert case.ab_error < 0.01
    assert case.step_gap < 0.01
    assert case.history[-1].at == 300


@pytest.mark.slow
def test_gradient_descent_on_gaussian_samples() -> None:
    (case,) = run_mesa(MesaConfig(data=("gaussian",), method="sgd", seed=1)).cases
    assert case.ab_error < 0.02
    assert case.rest < 0.02


def test_a_report_is_json_and_a_picture(report: MesaReport, tmp_path: Path) -> None:
    rows = json.loads(json.dumps(report.rows(), allow_nan=False))
    assert [row["data"] for row in rows] == list(DATA)
    assert len(rows[0]["ab"]) == 3
    plot_mesa(report, tmp_path / "mesa.png")
    assert (tmp_path / "mesa.png").read_bytes()[:4] == b"\x89PNG"


def test_the_picture_says_which_data_meet_the_condition(report: MesaReport) -> None:
    titles = [axes.get_title() for axes in draw_mesa(report).axes]
    assert "gaussian data (meets the condition)" in titles
    assert "ones data (does not meet it)" in titles


@pytest.mark.parametrize(
    "options",
    [
        {"data": ("gauss",)},
        {"method": "adam"},
        {"dimension": 0},
        {"length": 3},
        {"a0": 0.0, "b0": 0.0},
    ],
)
def test_bad_settings(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        MesaConfig(**options)  # type: ignore[arg-type]


def test_a_learning_rate_that_is_too_large_is_named() -> None:
    config = MesaConfig(data=("gaussian",), method="sgd", steps=200, batch=16, learning_rate=50.0)
    with pytest.raises(ConfigError, match="learning_rate="), np.errstate(all="ignore"):
        run_mesa(config)
