"""A fitted AR-Net: forecasts, sample paths, storage, and errors that name what is wrong."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from seqgen.errors import ConfigError, InputError, UsageError
from seqgen_time_series.linear.fitted import FittedAR
from seqgen_time_series.linear.model import ARNet
from seqgen_time_series.linear.recipe import SgdConfig
from seqgen_time_series.linear.synthetic import random_coefficients, simulate

Y = simulate([0.5, -0.3, 0.2], 400, seed=1, level=10.0)
A = np.random.default_rng(2).normal(size=400)


def test_a_forecast_feeds_itself() -> None:
    fitted = ARNet(lags=3).fit(Y)
    values = list(Y)
    for _ in range(7):
        recent = np.array(values[-1:-4:-1])
        values.append(float(fitted.intercept[0] + fitted.coefficients[0] @ recent))
    np.testing.assert_allclose(fitted.forecast(Y, 7), values[-7:], rtol=1e-12)
    assert fitted.forecast(Y, 500)[-1] == pytest.approx(Y.mean(), abs=0.3)  # back to the mean


def test_direct_steps_are_one_prediction_and_then_fed_back() -> None:
    fitted = ARNet(lags=5, horizon=4).fit(Y)
    recent = Y[-1:-6:-1]
    direct = fitted.intercept + fitted.coefficients @ recent
    np.testing.assert_allclose(fitted.forecast(Y, 4), direct)
    np.testing.assert_allclose(fitted.forecast(Y, 2), direct[:2])
    longer = fitted.forecast(np.concatenate([Y, direct]), 4)
    np.testing.assert_allclose(fitted.forecast(Y, 7)[4:], longer[:3])


def test_a_row_of_a_batch_is_the_row_alone() -> None:
    fitted = ARNet(lags=5, horizon=2).fit(Y)
    batch = np.stack([Y[:50], Y[50:100], Y[100:150]])
    made = fitted.forecast(batch, 5)
    assert made.shape == (3, 5)
    for row, history in zip(made, batch, strict=True):
        np.testing.assert_allclose(row, fitted.forecast(history, 5), rtol=1e-12)


def test_lagged_regressors_need_their_values_only_as_far_as_they_reach() -> None:
    one = ARNet(lags=2, regressor_lags={"a": 3}).fit(Y, {"a": A})
    future = np.concatenate([A, [1.0, 2.0]])
    made = one.forecast(Y, 3, regressors={"a": future})
    step = one.intercept[0] + one.coefficients[0] @ Y[-1:-3:-1]
    step += one.regressor_coefficients["a"][0] @ A[-1:-4:-1]
    assert made[0] == pytest.approx(step)
    second = one.intercept[0] + one.coefficients[0] @ [step, Y[-1]]
    second += one.regressor_coefficients["a"][0] @ [1.0, A[-1], A[-2]]
    assert made[1] == pytest.approx(second)
    with pytest.raises(InputError, match="402 are needed"):
        one.forecast(Y, 3, regressors={"a": A})
    direct = ARNet(lags=2, horizon=3, regressor_lags={"a": 3}).fit(Y, {"a": A})
    assert direct.forecast(Y, 3, regressors={"a": A}).shape == (3,)


def test_predictions_of_a_whole_series() -> None:
    fitted = ARNet(lags=2, horizon=2, regressor_lags={"a": 4}).fit(Y, {"a": A})
    made = fitted.predict(Y, regressors={"a": A})
    assert made.shape == (len(Y) - 4 + 1, 2)
    for row in (0, 100, len(made) - 1):
        history = slice(0, row + 4)
        alone = fitted.forecast(Y[history], 2, regressors={"a": A[history]})
        np.testing.assert_allclose(made[row], alone, rtol=1e-10)
    errors = np.stack([Y[4 + h : len(Y) - 1 + h] - made[: len(Y) - 5, h] for h in range(2)])
    degrees = errors.shape[1] - 7
    np.testing.assert_allclose(errors @ errors.T / degrees, fitted.covariance_HH, rtol=1e-6)


@pytest.mark.parametrize("horizon", [1, 3])
def test_sample_paths_have_the_process_mean_and_spread(horizon: int) -> None:
    fitted = ARNet(lags=3, horizon=horizon).fit(Y)
    paths = fitted.simulate(Y, 3, samples=40_000, seed=0)
    assert paths.shape == (40_000, 3)
    np.testing.assert_allclose(paths.mean(axis=0), fitted.forecast(Y, 3), atol=0.03)
    if horizon == 3:
        covariance_HH = fitted.covariance_HH
    else:  # the noise's response: psi_0 = 1, psi_1 = w_1, psi_2 = w_1^2 + w_2
        w = fitted.coefficients[0]
        psi = np.array([1.0, w[0], w[0] ** 2 + w[1]])
        response = np.array([[psi[i - j] if i >= j else 0.0 for j in range(3)] for i in range(3)])
        covariance_HH = response @ response.T * fitted.sigma[0] ** 2
    np.testing.assert_allclose(np.cov(paths.T), covariance_HH, atol=0.04)
    again = fitted.simulate(Y, 3, samples=40_000, seed=0)
    np.testing.assert_array_equal(paths, again)
    batch = fitted.simulate(np.stack([Y, Y + 1]), 3, samples=5, seed=1)
    assert batch.shape == (5, 2, 3)


@pytest.mark.parametrize(
    "model",
    [
        ARNet(lags=3),
        ARNet(lags=3, horizon=2, regressor_lags={"a": 2}, penalty="mcp"),
        ARNet(lags=3, solver="levinson"),
        ARNet(lags=3, solver="sgd", hidden=(4, 3), sgd=SgdConfig(epochs=2)),
        ARNet(lags=390),
    ],
)
def test_json_gives_back_the_same_numbers(model: ARNet) -> None:
    others = {"a": A} if model.regressor_lags else {}
    fitted = model.fit(Y, others)
    text = fitted.to_json()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no strict JSON"))
    again = FittedAR.from_json(text)
    assert again.to_json() == text
    np.testing.assert_array_equal(
        fitted.forecast(Y, 2, regressors={"a": np.r_[A, A]}),
        again.forecast(Y, 2, regressors={"a": np.r_[A, A]}),
    )
    assert again.warnings == fitted.warnings


@pytest.mark.parametrize(
    "change",
    [
        lambda fields: fields.pop("layers"),
        lambda fields: fields.update(format="other"),
        lambda fields: fields.update(lags=4),
        lambda fields: fields.update(horizon=2),
        lambda fields: fields["layers"][0][0][0].__setitem__(0, None),
        lambda fields: fields.update(covariance=[1.0]),
    ],
)
def test_damaged_json_is_refused(change: object) -> None:
    fields = json.loads(ARNet(lags=3).fit(Y).to_json())
    change(fields)  # type: ignore[operator]
    with pytest.raises(InputError, match="no autoregression"):
        FittedAR.from_json(json.dumps(fields))
    with pytest.raises(InputError, match="no autoregression"):
        FittedAR.from_json("{")


def test_a_network_has_no_coefficients() -> None:
    fitted = ARNet(lags=2, solver="sgd", hidden=(3,), sgd=SgdConfig(epochs=1)).fit(Y)
    with pytest.raises(UsageError, match="hidden"):
        _ = fitted.coefficients


@pytest.mark.parametrize(
    ("y", "words"),
    [
        ([1.0, 2.0, float("nan"), 4.0, 5.0, 6.0], "nan at position 2"),
        ([1.0, float("inf"), 3.0, 4.0, 5.0, 6.0], "inf at position 1"),
        (["a", "b", "c", "d", "e"], "not numeric"),
        ([1.0, 2.0], "2 values, too few"),
        ([], "0 values, too few"),
        ([[1.0, 2.0, 3.0, 4.0]], "not one dimension"),
    ],
)
def test_bad_series(y: object, words: str) -> None:
    for solver in ("exact", "levinson", "sgd"):
        with pytest.raises(InputError, match=words):
            ARNet(lags=2, solver=solver).fit(y)  # type: ignore[arg-type]


def test_bad_series_among_many_are_named() -> None:
    with pytest.raises(InputError, match="series 1"):
        ARNet(lags=5).fit_many([Y, Y[:4]])
    with pytest.raises(InputError, match="no series"):
        ARNet(lags=5).fit_many([])


def test_bad_regressors() -> None:
    model = ARNet(lags=2, regressor_lags={"a": 2})
    with pytest.raises(InputError, match="'a' is missing"):
        model.fit(Y)
    with pytest.raises(InputError, match="no lags of 'b'"):
        model.fit(Y, {"a": A, "b": A})
    with pytest.raises(InputError, match="399 values, y has 400"):
        model.fit(Y, {"a": A[1:]})
    fitted = model.fit(Y, {"a": A})
    with pytest.raises(InputError, match="'a' is missing"):
        fitted.forecast(Y, 1)
    with pytest.raises(InputError, match="nan at position 399"):
        fitted.forecast(Y, 1, regressors={"a": np.r_[A[:-1], np.nan]})


def test_bad_forecasts() -> None:
    fitted = ARNet(lags=5).fit(Y)
    with pytest.raises(InputError, match="the history has 4 values"):
        fitted.forecast(Y[:4], 1)
    with pytest.raises(InputError, match="position 9"):
        fitted.forecast(np.r_[Y[:9], np.nan], 1)
    with pytest.raises(UsageError, match="0 steps"):
        fitted.forecast(Y, 0)
    with pytest.raises(UsageError, match="one series"):
        fitted.predict(np.stack([Y, Y]))


@pytest.mark.parametrize(
    "options",
    [{"lags": 0}, {"horizon": 0}, {"regressor_lags": {"a": 0}}, {"solver": "exct"}],
)
def test_bad_models(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        ARNet(**{"lags": 2, **options})  # type: ignore[arg-type]


def test_a_misspelt_solver_gets_a_suggestion() -> None:
    with pytest.raises(ConfigError, match="did you mean 'levinson'"):
        ARNet(lags=2, solver="levinsen")  # type: ignore[arg-type]


def test_simulated_series_have_their_coefficients_and_are_stationary() -> None:
    truth = random_coefficients(6, seed=0)
    assert np.abs(truth).sum() == pytest.approx(0.9)
    fitted = ARNet(lags=6).fit(simulate(truth, 50_000, seed=1, sigma=2.0, level=-4.0))
    np.testing.assert_allclose(fitted.coefficients[0], truth, atol=0.02)
    assert fitted.sigma[0] == pytest.approx(2.0, rel=0.02)


def test_torch_is_only_imported_for_gradient_descent() -> None:
    code = (
        "import sys, numpy as np\n"
        "from seqgen_time_series.linear.model import ARNet\n"
        "ARNet(lags=2, penalty='mcp').fit(np.random.default_rng(0).normal(size=50))\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
