"""Long audio: cuts fall into silences, nothing overlaps, memory and time stay small."""

from __future__ import annotations

import itertools
import time
import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqgen.errors import ConfigError
from seqgen_speech.segments import SegmentConfig, segments

RATE = 16000


def speech_like(
    layout: list[tuple[float, float]], noise: float = 1e-4, seed: int = 0
) -> np.ndarray:
    """(seconds, level) stretches of modulated noise over a noise floor."""
    rng = np.random.default_rng(seed)
    parts = []
    for seconds, level in layout:
        t = np.arange(int(seconds * RATE)) / RATE
        syllables = 0.6 + 0.4 * np.sin(2 * np.pi * 4 * t)
        parts.append(level * syllables * rng.standard_normal(len(t)))
    wave = np.concatenate(parts)
    return (wave + noise * rng.standard_normal(len(wave))).astype("f4")


def blocks(wave: np.ndarray, sizes: list[int]) -> Iterator[np.ndarray]:
    first, turn = 0, 0
    while first < len(wave):
        size = sizes[turn % len(sizes)]
        yield wave[first : first + size]
        first, turn = first + size, turn + 1


@pytest.mark.parametrize("noise", [0.0, 1e-4, 5e-3])
def test_cuts_fall_into_the_silences(noise: float) -> None:
    layout = [(1, 0), (8, 0.1), (2, 0), (12, 0.1), (1.5, 0), (6, 0.05), (3, 0)]
    wave = speech_like(layout, noise)
    found = list(segments([wave]))
    edges = [(1, 9), (11, 23), (24.5, 30.5)]
    assert len(found) == len(edges)
    for segment, (start, stop) in zip(found, edges, strict=True):
        assert start - 0.3 <= segment.start <= start
        assert stop <= segment.stop <= stop + 0.3
        at = round(segment.start * RATE)
        assert np.array_equal(segment.wave, wave[at : at + len(segment.wave)])


def test_short_audio_stays_whole() -> None:
    wave = speech_like([(5, 0), (3, 0.1), (5, 0), (2, 0.1)])
    (only,) = segments(blocks(wave, [7777]))
    assert only.start == 0.0
    assert np.array_equal(only.wave, wave)


def test_continuous_speech_is_cut_where_it_is_quietest() -> None:
    # A dip of 15 dB at 15 s, far too short and too loud for a silence.
    wave = speech_like([(15, 0.1), (0.3, 0.018), (14.7, 0.1), (25, 0.1)])
    found = list(segments([wave]))
    assert all(len(segment.wave) <= 20 * RATE for segment in found)
    assert 15.0 <= found[0].stop <= 15.3
    # Speech is not lost: the segments touch.
    for left, right in itertools.pairwise(found):
        assert left.stop == right.start
    assert found[0].start == 0.0
    assert found[-1].stop == len(wave) / RATE


def test_a_click_is_not_speech() -> None:
    wave = speech_like([(30, 0), (5, 0.05), (30, 0)])
    wave[10 * RATE : 10 * RATE + 40] = wave[-40:] = 0.9
    (only,) = segments([wave])
    assert 29.5 < only.start < 30.0
    assert 35.0 < only.stop < 35.5


@settings(max_examples=12, deadline=None)
@given(
    layout=st.lists(
        st.tuples(st.floats(0.1, 6.0), st.sampled_from([0.0, 0.0, 0.02, 0.1])),
        min_size=1,
        max_size=10,
    ),
    sizes=st.lists(st.integers(1000, 400_000), min_size=1, max_size=3),
    seed=st.integers(0, 100),
)
def test_whatever_the_blocks(
    layout: list[tuple[float, float]], sizes: list[int], seed: int
) -> None:
    wave = speech_like(layout, seed=seed)
    config = SegmentConfig(max_seconds=8.0)
    found = list(segments(blocks(wave, sizes), config))
    whole = list(segments([wave], config))
    assert [(s.start, s.stop) for s in found] == [(s.start, s.stop) for s in whole]
    stop = 0.0
    for segment in found:
        assert segment.start >= stop
        stop = segment.stop
        assert 0 < len(segment.wave) <= 8 * RATE
        at = segment.first
        assert np.array_equal(segment.wave, wave[at : at + len(segment.wave)])
    # Loud speech of a second and more is inside some segment.
    begin = 0.0
    for seconds, level in layout:
        middle = begin + seconds / 2
        if level == 0.1 and seconds > 1:
            assert any(s.start <= middle <= s.stop for s in found)
        begin += int(seconds * RATE) / RATE


def test_an_hour_of_silence_is_quick_and_empty() -> None:
    block = np.zeros(10 * RATE, dtype="f4")
    start = time.process_time()
    tracemalloc.start()
    assert list(segments(block for _ in range(360))) == []
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 24e6  # an hour is 230 MB
    assert time.process_time() - start < 5.0
    assert list(segments([block])) == []
    assert list(segments([])) == []


def test_an_hour_of_noise_is_cut_in_bounded_memory() -> None:
    block = speech_like([(10, 0.01)])
    tracemalloc.start()
    total = longest = 0
    for segment in segments(block for _ in range(60)):
        total += len(segment.wave)
        longest = max(longest, len(segment.wave))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == 60 * len(block)
    assert longest <= 20 * RATE
    assert peak < 24e6


def test_without_a_least_silence_speech_is_still_found() -> None:
    """A gap of no frames must not make every frame a run of its own, too short to be speech."""
    wave = speech_like([(1.0, 0.0), (3.0, 0.1)] * 6)
    found = list(segments([wave], SegmentConfig(min_silence=0.0, margin=0.0)))
    assert sum(s.stop - s.start for s in found) == pytest.approx(18.0, abs=0.5)


def test_impossible_settings() -> None:
    with pytest.raises(ConfigError, match="max_seconds=1"):
        SegmentConfig(max_seconds=1)
    with pytest.raises(ConfigError, match="margin"):
        SegmentConfig(margin=0.5, min_silence=0.6)
