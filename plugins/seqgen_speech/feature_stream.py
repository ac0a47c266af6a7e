"""The front end on live audio: exactly the features of the whole recording, chunk by chunk.

A chunk is computed when all of its samples are there and never in smaller parts, so the features
are the same, bit for bit, however the samples are cut into calls.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from seqgen.errors import ConfigError
from seqgen_speech.features import FrontEnd, fbank


class FeatureStream:
    """Samples in, chunks of `chunk` low-rate frames out (one frame is 60 ms).

    Raises:
        ConfigError: the front end looks beyond the ends of the recording (`snip_edges` False).
    """

    def __init__(self, front_end: FrontEnd, chunk: int) -> None:
        if not front_end.config.snip_edges:
            raise ConfigError(
                "streaming needs a front end with snip_edges=True",
                why="otherwise the first and last windows mirror samples that have not arrived",
            )
        self._front_end = front_end
        self._chunk = chunk
        self._steps = 0
        device = front_end.shift.device
        self._samples_S = torch.zeros(0, device=device)
        # Filter bank frames still needed, the first of which has the index `_base`.
        self._fbank_TM = torch.zeros(0, front_end.config.n_mels, device=device)
        self._base = 0

    def push(self, samples_S: Tensor) -> Iterator[Tensor]:
        """Take samples; yields every chunk [chunk, F] that they complete."""
        config = self._front_end.config
        new_S = samples_S.to(self._samples_S)
        self._samples_S = torch.cat([self._samples_S, new_S])
        while True:
            # The last frame of the chunk reaches (lfr_m - 1) - (lfr_m - 1) // 2 frames ahead.
            last_step = self._steps + self._chunk - 1
            frames = last_step * config.lfr_n + config.lfr_m - (config.lfr_m - 1) // 2
            missing = frames - (self._base + len(self._fbank_TM))
            if len(self._samples_S) < (missing - 1) * config.hop_samples + config.window_samples:
                return
            self._take_frames(missing)
            yield self._low_rate(self._chunk, last_frame=frames - 1)

    def finish(self) -> Tensor:
        """The features [T, F] behind the last whole chunk; T may be 0."""
        config = self._front_end.config
        samples = torch.tensor(len(self._samples_S))
        self._take_frames(int(config.frame_count(samples)))
        frames = self._base + len(self._fbank_TM)
        steps = int(config.low_rate_count(torch.tensor(frames))) - self._steps
        return self._low_rate(steps, last_frame=frames - 1)

    def _take_frames(self, count: int) -> None:
        """Turn the samples of the next `count` filter bank frames into frames."""
        if count <= 0:
            return
        config = self._front_end.config
        size = (count - 1) * config.hop_samples + config.window_samples
        length_1 = torch.tensor([size], device=self._samples_S.device)
        frames_1TM, _ = fbank(self._samples_S[None, :size], length_1, config)
        self._samples_S = self._samples_S[count * config.hop_samples :]
        self._fbank_TM = torch.cat([self._fbank_TM, frames_1TM[0]])

    def _low_rate(self, steps: int, *, last_frame: int) -> Tensor:
        config, front_end = self._front_end.config, self._front_end
        if steps <= 0:
            return self._fbank_TM.new_zeros(0, config.dim)
        reach = (config.lfr_m - 1) // 2
        start_T = (self._steps + torch.arange(steps)) * config.lfr_n - reach
        index_TM = (start_T[:, None] + torch.arange(config.lfr_m)).clamp(0, last_frame)
        low_TF = self._fbank_TM[(index_TM - self._base).to(self._fbank_TM.device)].flatten(1)
        self._steps += steps
        needed = max(self._steps * config.lfr_n - reach, 0)
        self._fbank_TM = self._fbank_TM[needed - self._base :]
        self._base = needed
        return (low_TF + front_end.shift) * front_end.scale
