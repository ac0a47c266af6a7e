"""Token times from CIF weights, by hand and on FunASR's arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqgen_speech.timestamps import firing_times, integration_times

GOLDEN = Path(__file__).parent / "golden" / "frontend.npz"


def trace(alphas: np.ndarray) -> np.ndarray:
    """The peak trace: fraction of the integral, plus one where it fires."""
    integral = np.cumsum(alphas)
    return integral - np.floor(integral) + np.diff(np.floor(integral), prepend=0.0)


def weights(fires: list[int], frames: int) -> np.ndarray:
    alphas = np.zeros(frames)
    alphas[fires] = 1.0
    return alphas


def test_fire_to_fire() -> None:
    alphas = weights([4, 6, 10], 13)
    # (4, 6, 10) - 1.5 frames of 60 ms; 4.5 frames follow the last fire: they belong to it.
    assert firing_times(alphas, trace(alphas), 2) == [[0.15, 0.27], [0.27, 0.78]]
    assert firing_times(alphas, trace(alphas), 2, upsample=3) == [[0.05, 0.09], [0.09, 0.26]]


def test_long_spans_end_in_silence() -> None:
    alphas = weights([2, 30, 33], 60)
    first, last = firing_times(alphas, trace(alphas), 2)
    assert first == [0.03, 0.75]  # 12 frames of 28
    # 28.5 frames follow the last fire: half of them is silence.
    assert last == [1.71, round((60 + 31.5) / 2 * 0.06, 3)]


def test_fires_that_do_not_fit_are_integrated_again() -> None:
    alphas = np.full(40, 0.1)  # fires 4 times
    times = firing_times(alphas, trace(alphas), 7)  # wants 8: every 5 frames
    assert len(times) == 7
    starts = [round(start / 0.06 + 1.5) for start, _ in times]
    assert starts == [4, 9, 14, 19, 24, 29, 34]
    assert firing_times(alphas, trace(alphas), 0) == []


def test_funasrs_arrays_in_the_right_order() -> None:
    with np.load(GOLDEN) as golden:
        alphas, peaks = golden["alphas"], golden["peaks"]
    assert len(alphas) == 83
    np.testing.assert_allclose(trace(alphas.astype("f8")), peaks, atol=1e-4)
    times = firing_times(alphas, peaks, 49)  # 50 fires; the last is that of </s>
    assert len(times) == 49
    fires = np.flatnonzero(peaks >= 1.0)
    assert len(fires) == 50
    assert times[:3] == [[0.0, 0.09], [0.09, 0.15], [0.15, 0.27]]
    for k, (start, stop) in enumerate(times[:-1]):
        assert start == pytest.approx(max(0.0, (fires[k] - 1.5) * 0.06))
        assert stop == pytest.approx((fires[k + 1] - 1.5) * 0.06)
    assert times[-1][1] == pytest.approx(83 * 0.06)
    # Swapped, as FunASR's base model calls it, the result is another one.
    assert firing_times(peaks, alphas, 49) != times


def test_integration_is_exact_within_frames() -> None:
    # The integral passes 1 in the middle of frame 2 and reaches 2 at the end of frame 5.
    alphas = np.array([0.25, 0.5, 0.5, 0.25, 0.25, 0.25])
    times = integration_times(alphas, 2, step_seconds=1.0, trim=0.0, margin=0.0)
    assert times == [[0.0, 2.5], [2.5, 6.0]]


def test_silence_around_a_token_is_left_out() -> None:
    alphas = np.concatenate([np.full(30, 1e-6), [0.5, 0.5], np.full(40, 1e-6), [0.5, 0.5]])
    (a, b), (c, d) = integration_times(alphas, 2)
    assert [a, b] == pytest.approx([28.6 * 0.06, 33.4 * 0.06], abs=0.03)
    assert [c, d] == pytest.approx([70.6 * 0.06, 74.0 * 0.06], abs=0.03)


@given(
    alphas=st.lists(st.floats(0.0, 0.99), min_size=1, max_size=80),
    count=st.integers(0, 30),
)
def test_times_are_ordered_and_inside_the_audio(alphas: list[float], count: int) -> None:
    array = np.array(alphas)
    for times in (firing_times(array, trace(array), count), integration_times(array, count)):
        assert len(times) == count
        flat = [edge for span in times for edge in span]
        assert all(0.0 <= edge <= len(alphas) * 0.06 + 1e-3 for edge in flat)
        assert flat == sorted(flat)
