"""Conformal calibration: the rank, the promise it keeps, and what others got wrong."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqgen.errors import InputError, UsageError
from seqgen_time_series.conformal import (
    Calibration,
    calibrate_point,
    calibrate_quantiles,
    conformal_quantile,
    conformal_rank,
    needed_errors,
)

LEVELS = (0.1, 0.5, 0.9)


@given(st.integers(1, 2000), st.integers(1, 999))
def test_the_rank_is_the_smallest_that_keeps_the_promise(count: int, thousandths: int) -> None:
    """Of n + 1 exchangeable errors, the last is at most the k-th of the others: k / (n + 1)."""
    level = Fraction(thousandths, 1000)
    fewest = math.ceil(level / (1 - level))
    assert needed_errors(thousandths / 1000) == fewest
    if count < fewest:
        with pytest.raises(InputError, match=f"at least {fewest} windows"):
            conformal_rank(count, thousandths / 1000)
        return
    rank = conformal_rank(count, thousandths / 1000)
    assert 1 <= rank <= count
    assert Fraction(rank, count + 1) >= level > Fraction(rank - 1, count + 1)


def test_ranks_by_hand() -> None:
    # ceil(10 x 0.9) = 9; in floats 10 x (1 - 0.1) and 0.7 x 10 are not always whole
    assert conformal_rank(9, 0.9) == 9
    assert conformal_rank(10, 0.9) == 10
    assert conformal_rank(99, 0.95) == 95
    assert conformal_rank(9, 1 - 0.1) == 9
    assert conformal_rank(9, 0.1 + 0.2 + 0.4) == 7  # 0.7000000000000001
    assert conformal_quantile(np.arange(20)[::-1], 0.9) == 18  # the 19th: ceil(21 x 0.9)


def test_too_few_errors_are_refused_where_others_return_the_smallest() -> None:
    scores = [5.0, 1.0, 3.0, 2.0, 4.0]
    # sorted[-int(5 x 0.1)] is sorted[0], the smallest of all
    assert sorted(scores)[-int(5 * 0.1)] == 1.0
    with pytest.raises(InputError, match="90 % cannot be calibrated with 5 errors") as caught:
        conformal_quantile(scores, 0.9)
    assert "at least 9 windows" in caught.value.fix
    assert conformal_quantile([*scores, 6, 7, 8, 9], 0.9) == 9


def test_the_count_is_corrected_by_one() -> None:
    """The plain empirical quantile covers too little; the rank of n + 1 does not."""
    count, trials = 10, 40_000
    rng = np.random.default_rng(0)
    scores, new = rng.exponential(size=(count, trials)), rng.exponential(size=trials)
    plain = np.quantile(scores, 0.8, axis=0, method="inverted_cdf")  # the 8th
    corrected = conformal_quantile(scores, 0.8)  # the 9th
    assert (new <= plain).mean() == pytest.approx(8 / 11, abs=0.01)
    assert (new <= corrected).mean() == pytest.approx(9 / 11, abs=0.01)


def test_each_side_of_the_asymmetric_method_gets_its_own_errors() -> None:
    """Values lie above the median only: the high quantile moves up, the low one not down."""
    count = 39
    quantiles = np.tile([-1.0, 0.0, 1.0], (count, 1, 1))
    y = np.linspace(0.0, 10.0, count)[:, None]
    found = calibrate_quantiles(y, quantiles, LEVELS, asymmetric=True)
    low, middle, high = found.offsets_HK[0]
    assert high > 5
    assert middle == 0
    assert low > 0  # values never come near -1: the low quantile moves up, too
    mirrored = calibrate_quantiles(-y, quantiles, LEVELS, asymmetric=True)
    assert mirrored.offsets_HK[0].tolist() == pytest.approx([-high, 0, -low])


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.sampled_from(["absolute", "cqr", "asymmetric"]))
def test_intervals_hold_what_they_promise(seed: int, method: str) -> None:
    """1000 calibrations of 39 errors at once (steps of the horizon), from badly wrong forecasts."""
    rng = np.random.default_rng(seed)
    count, trials = 39, 1000
    wrong = rng.uniform(-2, 2, 4)
    y = rng.gamma(1.0 + abs(wrong[0]), size=(2 * count, trials))
    point = np.full_like(y, wrong[1])
    quantiles = point[..., None] + wrong[2] * np.array([-1, 0, 1]) + np.array([-0.1, 0, 0.1])
    quantiles = np.sort(quantiles, axis=-1)
    if method == "absolute":
        found = calibrate_point(y[:count], point[:count], LEVELS)
        made = found.apply(point[count:])
    else:
        found = calibrate_quantiles(
            y[:count], quantiles[:count], LEVELS, asymmetric=method == "asymmetric"
        )
        made = found.apply(quantiles[count:])
    inside = (made[..., 0] <= y[count:]) & (y[count:] <= made[..., 2])
    assert found.method == method
    assert inside.mean() > 0.8 - 0.02
    if method == "absolute":  # exactly 32 / 40 for continuous errors
        assert inside.mean() < 0.8 + 0.02


def test_steps_and_scales_have_their_own_errors() -> None:
    rng = np.random.default_rng(0)
    scale_N = np.array([1.0] * 500 + [100.0] * 500)
    growth_H = np.array([1.0, 2.0, 3.0])
    y = rng.normal(size=(1000, 3)) * growth_H * scale_N[:, None]
    point = np.zeros_like(y)
    found = calibrate_point(y, point, (0.1, 0.9), scale_N)
    reach = found.offsets_HK[:, 1]
    assert (reach / growth_H).tolist() == pytest.approx([1.28] * 3, abs=0.15)
    made = found.apply([[0.0, 0.0, 0.0], [5.0, 5.0, 5.0]], scale=[1.0, 100.0])
    assert made.shape == (2, 3, 2)
    assert made[1, :, 1].tolist() == pytest.approx((5 + 100 * reach).tolist())
    assert found.apply([0.0]).shape == (1, 2)  # fewer steps than were calibrated


@given(
    st.lists(st.floats(-5, 5), min_size=5, max_size=5),
    st.lists(st.floats(-3, 3), min_size=5, max_size=5),
)
def test_quantiles_moved_past_each_other_come_back_in_order(
    quantiles: list[float], moves: list[float]
) -> None:
    levels = (0.05, 0.2, 0.5, 0.8, 0.95)
    calibration = Calibration("cqr", levels, np.array([moves]), 99)
    made = calibration.apply([sorted(quantiles)])[0]
    assert (np.diff(made) >= 0).all()
    assert made[2] == sorted(quantiles)[2] + moves[2]
    moved = np.array(sorted(quantiles)) + moves
    if (np.diff(moved) >= 0).all():
        assert made.tolist() == moved.tolist()


def test_a_calibration_survives_json() -> None:
    rng = np.random.default_rng(0)
    found = calibrate_point(rng.normal(size=(99, 4)), np.zeros((99, 4)), LEVELS)
    again = Calibration.from_json(found.to_json())
    assert (again.method, again.levels, again.count) == ("absolute", LEVELS, 99)
    assert (again.offsets_HK == found.offsets_HK).all()


def test_misuse_is_told() -> None:
    y = np.zeros((20, 2))
    for levels in ((0.1, 0.8), (0.9, 0.1), (), (0.1, 0.1, 0.9)):
        with pytest.raises(UsageError, match="do not pair up"):
            calibrate_point(y, y, levels)
    with pytest.raises(InputError, match="not finite"):
        calibrate_point(y * np.nan, y, LEVELS)
    with pytest.raises(InputError, match="3 steps are forecast, and 2 were calibrated"):
        calibrate_point(y, y, LEVELS).apply([0.0, 0.0, 0.0])
    with pytest.raises(UsageError, match=r"1\.5 is no level"):
        conformal_rank(10, 1.5)
