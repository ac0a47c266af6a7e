"""Order selection from one factorization against fitting every order by itself."""

from __future__ import annotations

import numpy as np
import pytest

from seqgen.errors import ConfigError, InputError
from seqgen_time_series.linear.order import select_order
from seqgen_time_series.linear.synthetic import simulate

LARGEST = 9


def every_order(y: np.ndarray, rows: slice) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(X with an intercept, y, weights) of the orders 0 .. LARGEST, all on the same rows."""
    windows = np.lib.stride_tricks.sliding_window_view(y, LARGEST)[:-1, ::-1]
    fits = []
    for order in range(LARGEST + 1):
        x = np.column_stack([np.ones(len(windows)), windows[:, :order]])
        weights = np.linalg.lstsq(x[rows], y[LARGEST:][rows], rcond=None)[0]
        fits.append((x, y[LARGEST:], weights))
    return fits


@pytest.mark.parametrize("criterion", ["aic", "bic"])
def test_information_criteria(criterion: str) -> None:
    y = simulate([0.5, -0.2, 0.0, 0.3], 600, seed=1, level=100.0)
    made = select_order(y, LARGEST, criterion=criterion)  # type: ignore[arg-type]
    rows = len(y) - LARGEST
    price = 2.0 if criterion == "aic" else np.log(rows)
    expected = []
    for order, (x, target, weights) in enumerate(every_order(y, slice(None))):
        variance = np.mean(np.square(target - x @ weights))
        likelihood = -0.5 * rows * (np.log(2 * np.pi * variance) + 1)
        expected.append(-2 * likelihood + price * (order + 2))
    np.testing.assert_allclose(made.scores, expected, rtol=1e-9)
    assert made.rows == rows
    assert made.best == int(np.argmin(expected)) == 4


def test_validation() -> None:
    y = simulate([0.5, -0.2, 0.0, 0.3], 1000, seed=2, level=100.0)
    made = select_order(y, LARGEST, criterion="validation", validation=0.3)
    split = 700 - LARGEST
    expected = [
        np.mean(np.square(target[split:] - x[split:] @ weights))
        for x, target, weights in every_order(y, slice(0, split))
    ]
    np.testing.assert_allclose(made.scores, expected, rtol=1e-9)
    assert made.best == int(np.argmin(expected))
    assert made.rows == split


def test_orders_are_found() -> None:
    """BIC is consistent: white noise has none, and an AR(2) has two lags, nearly always."""
    rng = np.random.default_rng(3)
    white = [select_order(rng.normal(size=2000), 10).best for _ in range(20)]
    second = [select_order(simulate([0.4, 0.3], 2000, seed=s), 10).best for s in range(20)]
    assert white.count(0) >= 18
    assert second.count(2) >= 18


@pytest.mark.parametrize("criterion", ["aic", "bic", "validation"])
def test_a_series_without_noise_has_a_small_order(criterion: str) -> None:
    sine = 5.0 + np.sin(2 * np.pi * np.arange(500) / 24)
    made = select_order(sine, 30, criterion=criterion)  # type: ignore[arg-type]
    assert np.isfinite(made.scores).all()
    assert made.best >= 2
    constant = select_order(np.full(100, 3.0), 5, criterion=criterion)  # type: ignore[arg-type]
    assert constant.best == 0


def test_bad_input() -> None:
    y = np.arange(20.0)
    with pytest.raises(ConfigError, match="did you mean 'aic'"):
        select_order(y, 3, criterion="aicc")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="max_lags"):
        select_order(y, 0)
    with pytest.raises(ConfigError, match="validation"):
        select_order(y, 3, criterion="validation", validation=1.0)
    with pytest.raises(InputError, match="too few"):
        select_order(y, 20)
    with pytest.raises(InputError, match="too few"):
        select_order(y, 10, criterion="validation", validation=0.6)
