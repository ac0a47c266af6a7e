"""Token times from the CIF predictor's weights.

The predictor integrates a weight per frame (60 ms; 20 ms for the finer weights of V3) and fires a
token whenever the integral passes a whole number. Two rules turn this into times:

- `firing_times`: FunASR's, for its checkpoints, which fire once more than there are tokens;
- `integration_times`: for models that fire exactly once a token.

All arrays are one utterance: alphas [T], peaks [T], padding cut off, the tail frame included.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

STEP_SECONDS = 0.06
"""One low-rate frame."""
MAX_TOKEN_FRAMES = 12
"""A longer span is a token and a silence."""
FIRING_SHIFT = -1.5
EDGE_FRAMES = 5
"""Less than this after the last fire belongs to the last token."""
_FIRED = 1.0 - 1e-4

Times = list[list[float]]
"""[start, end] in seconds, one a token."""


def firing_times(alphas: ArrayLike, peaks: ArrayLike, count: int, *, upsample: int = 1) -> Times:
    """FunASR's rule: token k lasts from fire k to fire k + 1, all 1.5 frames earlier.

    In those models a token fires when it starts, and a fire more (for `</s>`) ends the last one. A
    span of more than 12 frames ends after 12; the rest is silence. Otherwise the last token takes
    what follows the last fire, or half of it if more than 5 frames follow.

    FunASR's base Paraformer hands peaks and alphas to this rule in swapped order; here they are
    in the right one.

    Args:
        alphas, peaks: [T] weights and peak trace.
        count: tokens, `</s>` not counted. If the trace does not fire count + 1 times, the weights
            are scaled to do so and integrated again.
        upsample: frames of these arrays per low-rate frame: 1, or 3 for V3.
    """
    if count == 0:
        return []
    fires = np.flatnonzero(np.asarray(peaks, dtype=np.float64) >= _FIRED)
    alphas_T = np.asarray(alphas, dtype=np.float64)
    if len(fires) != count + 1:
        fires = _fires_scaled(alphas_T, count + 1)
    place = fires.astype(np.float64) + FIRING_SHIFT
    start, end = place[:-1], np.minimum(place[1:], place[:-1] + MAX_TOKEN_FRAMES)
    frames = float(len(alphas_T))
    if place[-1] - place[-2] <= MAX_TOKEN_FRAMES:  # else a silence lies between
        rest = frames - place[-1]
        end[-1] = (frames + place[-1]) / 2 if rest > EDGE_FRAMES else frames
    return _seconds(start, end, STEP_SECONDS / upsample, frames)


def integration_times(
    alphas: ArrayLike,
    count: int,
    *,
    step_seconds: float = STEP_SECONDS,
    trim: float = 0.05,
    margin: float = 1.5,
) -> Times:
    """Token k lasts while the integral goes from k to k + 1, to a fraction of a frame.

    These are the frames its embedding is made of. A trained model's weights come in a burst in the
    middle of each token, with next to nothing between; so the first and last `trim` of a token's
    weight are left out, lest they reach into the silence, and the burst is widened again.

    Args:
        alphas: [T] weights without the tail frame; scaled here so that their sum is `count`.
        count: tokens.
        step_seconds: length of a frame.
        trim: share of a token's weight cut off at both ends.
        margin: frames that a token is wider than its burst on both sides, up to half the way to
            its neighbour.
    """
    if count == 0:
        return []
    alphas_T = np.asarray(alphas, dtype=np.float64)
    integral = np.concatenate([[0.0], np.cumsum(alphas_T)])
    integral *= count / max(integral[-1], 1e-9)
    places = np.arange(len(integral))
    start = np.interp(np.arange(count) + trim, integral, places)
    end = np.interp(np.arange(count) + 1 - trim, integral, places)
    halfway = (end[:-1] + start[1:]) / 2
    start = np.maximum(start - margin, np.concatenate([[0.0], halfway]))
    end = np.minimum(end + margin, np.concatenate([halfway, [float(len(alphas_T))]]))
    return _seconds(start, end, step_seconds, float(len(alphas_T)))


def fired_times(
    frames: Sequence[int],
    *,
    step_seconds: float = STEP_SECONDS,
    max_frames: float = MAX_TOKEN_FRAMES,
) -> Times:
    """Streaming: a token ends with the frame in which it fires and starts after the last fire."""
    end = np.asarray(frames, dtype=np.float64) + 1
    start = np.maximum(np.concatenate([[0.0], end[:-1]])[: len(end)], end - max_frames)
    return _seconds(start, end, step_seconds, np.inf)


def _fires_scaled(alphas_T: NDArray[np.float64], fires: int) -> NDArray[np.intp]:
    """Frames where the integral, scaled to `fires`, passes each multiple of the threshold."""
    integral = np.cumsum(alphas_T)
    integral *= fires / max(integral[-1], 1e-9)
    # The threshold is a little below 1, so that rounding cannot lose the last one.
    return np.searchsorted(integral, np.arange(1, fires + 1) * _FIRED)


def _seconds(
    start: NDArray[np.float64], end: NDArray[np.float64], step: float, frames: float
) -> Times:
    spans = np.stack([start, end], axis=1).clip(0.0, frames) * step
    return [[round(a, 3), round(b, 3)] for a, b in spans.tolist()]
