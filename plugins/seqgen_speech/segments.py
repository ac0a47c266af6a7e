"""Long audio in pieces, cut at silences found by their energy.

This is not a voice activity detector: it knows loud from quiet and nothing of speech. Music counts
as speech, and speech far below the loudest in its neighbourhood (40 dB) as silence. The stream is
looked at through a window of twice the longest segment, so memory is bounded whatever its length,
and the result does not depend on how the stream comes in blocks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from seqgen.errors import ConfigError
from seqgen_speech.audio import SAMPLE_RATE
from seqgen_speech.resample import Wave

HOP = SAMPLE_RATE // 100
"""Energies are taken every 10 ms."""
FLOOR_DB = -70.0
"""RMS re full scale; anything quieter is silence however quiet the rest is."""
LOUD_FRAMES = 20
"""The level of speech is that of the loudest 0.2 s, so that a click does not set it."""
MIN_SPEECH_FRAMES = 5


@dataclass(frozen=True)
class SegmentConfig:
    """How long audio is cut.

    Attributes:
        max_seconds: longest segment; audio that is not longer stays whole.
        min_silence: silences of at least this many seconds separate segments and are dropped.
        margin: seconds of silence kept on both sides of a segment.
    """

    max_seconds: float = 20.0
    min_silence: float = 0.6
    margin: float = 0.2

    def __post_init__(self) -> None:
        if self.max_seconds < 2.0:
            raise ConfigError(
                f"max_seconds={self.max_seconds:g} is too short to hold a phrase",
                fix="use 2 or more; 20 is the default",
            )
        if not 0.0 <= 2 * self.margin <= self.min_silence:
            raise ConfigError(
                f"margin={self.margin:g} must be at most half of min_silence={self.min_silence:g}"
            )


@dataclass(frozen=True)
class Segment:
    """A stretch of audio: `wave` [S] at 16 kHz, from sample `first` of the stream on."""

    first: int
    wave: Wave = field(repr=False)

    @property
    def start(self) -> float:
        """Beginning in seconds."""
        return self.first / SAMPLE_RATE

    @property
    def stop(self) -> float:
        """End in seconds."""
        return (self.first + len(self.wave)) / SAMPLE_RATE


def segments(blocks: Iterable[Wave], config: SegmentConfig | None = None) -> Iterator[Segment]:
    """Cut a stream of 16 kHz blocks into segments that do not overlap, in order.

    Audio of at most `max_seconds` comes back whole. Silence throughout (every 10 ms below -70 dB
    of full scale) yields nothing. Where speech goes on for longer than `max_seconds`, it is cut at
    the quietest 0.2 s of the second half.
    """
    config = config or SegmentConfig()
    longest = int(config.max_seconds * 100)
    gap, margin = int(config.min_silence * 100), int(config.margin * 100)
    window = _Window(iter(blocks), 2 * longest)
    window.fill()
    if window.ended and window.samples <= config.max_seconds * SAMPLE_RATE:
        if (window.levels() > FLOOR_DB).any():
            yield window.take(window.frames)
        return
    while window.frames:
        levels = window.levels()
        run = _first_run(levels > window.threshold(), gap, margin, window.ended)
        if run is None:
            window.drop(len(levels) if window.ended else max(1, len(levels) - gap))
            window.fill()
            continue
        start, stop = run
        open_ended = not window.ended and stop + gap >= len(levels)
        if open_ended and len(levels) - start <= longest:
            window.drop(start)  # see more of it first
            window.fill()
            continue
        window.drop(start)
        if stop - start > longest:
            stop = start + _quietest(levels[start:stop], longest)
        yield window.take(stop - start)
        window.fill()


class _Window:
    """The next frames of the stream: samples and levels, at most `capacity` frames in view."""

    def __init__(self, blocks: Iterator[Wave], capacity: int) -> None:
        self._blocks = blocks
        self._capacity = capacity
        self._wave: Wave = np.zeros(0, dtype=np.float32)
        self._levels: NDArray[np.float32] = np.zeros(0, dtype=np.float32)
        self._past: NDArray[np.float32] = np.zeros(0, dtype=np.float32)
        self._exhausted = False
        self._first = 0  # sample of the stream at which the window begins

    def fill(self) -> None:
        """Read until more than the capacity is held, or the stream ends."""
        new = []
        held = len(self._wave)
        while not self._exhausted and held <= self._capacity * HOP:
            block = next(self._blocks, None)
            self._exhausted = block is None
            if block is not None:
                new.append(block)
                held += len(block)
        if new or self._exhausted:
            self._wave = np.concatenate([self._wave, *new])
            self._measure()

    def _measure(self) -> None:
        """Levels of the frames that are complete by now (of the last, shorter one at the end)."""
        done = len(self._levels)
        fresh = self._wave[done * HOP :]
        if self._exhausted:
            fresh = np.pad(fresh, (0, -len(fresh) % HOP))
        frames_TH = fresh[: len(fresh) // HOP * HOP].reshape(-1, HOP)
        power_T = np.einsum("th,th->t", frames_TH, frames_TH) / HOP
        levels_T = 10.0 * np.log10(np.maximum(power_T, 1e-10))
        self._levels = np.concatenate([self._levels, levels_T.astype(np.float32)])

    @property
    def frames(self) -> int:
        return min(len(self._levels), self._capacity)

    @property
    def samples(self) -> int:
        return len(self._wave)

    @property
    def ended(self) -> bool:
        """Whether the view reaches the end of the stream."""
        return self._exhausted and len(self._levels) <= self._capacity

    def levels(self) -> NDArray[np.float32]:
        """RMS of each 10 ms in view, in dB re full scale."""
        return self._levels[: self._capacity]

    def threshold(self) -> float:
        """Level above which a frame is speech, from the neighbourhood: what is in view and, so
        that the noise after the last word is not taken for speech, as much before it.

        6 dB above the noise (the quietest tenth), but at least 15 dB below the loudest, lest
        continuous speech be taken for noise, and at most 40 dB below it.
        """
        near = np.concatenate([self._past, self.levels()])
        count = min(LOUD_FRAMES, len(near))
        loud = float(np.partition(near, -count)[-count])
        noise = float(np.percentile(near, 10))
        return max(FLOOR_DB, loud - 40.0, min(noise + 6.0, loud - 15.0))

    def drop(self, frames: int) -> None:
        samples = min(frames * HOP, len(self._wave))
        self._first += samples
        self._wave = self._wave[samples:]
        self._past = np.concatenate([self._past, self._levels[:frames]])[-self._capacity :]
        self._levels = self._levels[frames:]

    def take(self, frames: int) -> Segment:
        segment = Segment(self._first, self._wave[: frames * HOP].copy())
        self.drop(frames)
        return segment


def _first_run(
    loud: NDArray[np.bool_], gap: int, margin: int, ended: bool
) -> tuple[int, int] | None:
    """The first stretch of speech, with margins; stretches closer than `gap` are one."""
    speech = np.flatnonzero(loud)
    if not len(speech):
        return None
    # Neighbouring frames are 1 apart: with a gap of 0 each would be a run of its own.
    for run in np.split(speech, np.flatnonzero(np.diff(speech) > max(gap, 1)) + 1):
        # Less is a click, unless it may go on behind the window.
        goes_on = not ended and run[-1] + gap >= len(loud)
        if len(run) >= MIN_SPEECH_FRAMES or goes_on:
            return max(0, int(run[0]) - margin), min(len(loud), int(run[-1]) + 1 + margin)
    return None


def _quietest(levels: NDArray[np.float32], longest: int) -> int:
    """Where to cut a run that is too long: the quietest 0.2 s between half and all of `longest`."""
    last = min(longest, len(levels) - 100)  # leave a second for the next segment
    first = min(longest // 2, last - 1)
    power = 10.0 ** (levels / 10.0)
    smooth = np.convolve(power, np.ones(20), mode="same")[first:last]
    return first + int(len(smooth) - 1 - smooth[::-1].argmin())
