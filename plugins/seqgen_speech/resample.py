"""Sample-rate conversion by a windowed sinc, whole or block by block with the same result.

The filter is the one of `torchaudio.functional.resample` (Hann-windowed sinc, 6 zero crossings,
roll-off 0.99) and the tests compare the two; having it in NumPy saves the seconds that importing
torchaudio takes, and lets an hour of audio pass through in bounded memory.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

ZERO_CROSSINGS = 6
ROLL_OFF = 0.99
"""Cut-off as a fraction of half the lower of the two rates."""
PRODUCTS_AT_ONCE = 1 << 20

Wave = NDArray[np.float32]
"""Samples [S] in [-1, 1]."""


def resample(wave: Wave, rate: int, new_rate: int) -> Wave:
    """`wave` at `new_rate` Hz: ceil(S * new_rate / rate) samples."""
    resampler = Resampler(rate, new_rate)
    return np.concatenate([resampler.push(wave), resampler.flush()])


class Resampler:
    """Converts a stream: `push` each block, then `flush` once.

    The concatenated output does not depend, to the bit, on how the input is cut into blocks.
    """

    def __init__(self, rate: int, new_rate: int) -> None:
        divisor = math.gcd(rate, new_rate)
        self._in, self._out = rate // divisor, new_rate // divisor
        # The output repeats its phase every `_out` samples, for which the input moves by `_in`.
        self._width, self._first_P, self._kernel_PK = _kernel(self._in, self._out)
        self._pending: Wave = np.zeros(self._width, dtype=np.float32)
        self._received = 0
        self._sent = 0

    def push(self, block: Wave) -> Wave:
        """The output samples that `block` completes (perhaps none)."""
        block = block.astype(np.float32, copy=False)
        self._received += len(block)
        if self._in == self._out:
            self._sent += len(block)
            return block
        self._pending = np.concatenate([self._pending, block])
        # A group of outputs needs the inputs up to `width` beyond its last phase.
        reach = int(self._first_P[-1]) + self._kernel_PK.shape[1]
        groups = max(0, (len(self._pending) - reach) // self._in + 1)
        out = self._convert(groups)
        self._pending = self._pending[groups * self._in :]
        self._sent += len(out)
        return out

    def flush(self) -> Wave:
        """The rest of the output, as if zeros followed the input."""
        missing = -(-self._received * self._out // self._in) - self._sent
        if missing <= 0:
            return np.zeros(0, dtype=np.float32)
        tail = np.zeros((missing // self._out + 1) * self._in + 2 * self._width, dtype=np.float32)
        received = self._received
        out = self.push(tail)[:missing]
        self._received = received
        return out

    def _convert(self, groups: int) -> Wave:
        """Outputs of the first `groups` periods of the pending input."""
        taps = self._kernel_PK.shape[1]
        if groups == 0:
            return np.zeros(0, dtype=np.float32)
        views = sliding_window_view(self._pending, taps)
        at_once = max(1, PRODUCTS_AT_ONCE // (self._out * taps))
        parts = []
        for first in range(0, groups, at_once):
            start_G = np.arange(first, min(first + at_once, groups)) * self._in
            windows_GPK = views[start_G[:, None] + self._first_P]
            parts.append(np.einsum("gpk,pk->gp", windows_GPK, self._kernel_PK).ravel())
        return np.concatenate(parts)


def _kernel(rate: int, new_rate: int) -> tuple[int, NDArray[np.int64], NDArray[np.float32]]:
    """Half width, first tap of each phase (from `width` before the period), and taps [P, K]."""
    cutoff = min(rate, new_rate) * ROLL_OFF
    width = math.ceil(ZERO_CROSSINGS * rate / cutoff)
    phase_P = np.arange(new_rate, dtype=np.int64)
    centre_P = phase_P * rate // new_rate
    tap_PK = centre_P[:, None] + np.arange(-width, width + 1)
    # Distance from the output's instant in zero crossings of the sinc.
    t_PK = (tap_PK / rate - phase_P[:, None] / new_rate) * cutoff
    t_PK = np.clip(t_PK, -ZERO_CROSSINGS, ZERO_CROSSINGS)
    hann_PK = np.cos(t_PK * np.pi / (2 * ZERO_CROSSINGS)) ** 2
    kernel_PK = np.sinc(t_PK) * hann_PK * (cutoff / rate)
    return width, centre_P, kernel_PK.astype(np.float32)
