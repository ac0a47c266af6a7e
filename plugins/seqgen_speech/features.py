"""The front end of Paraformer: waveform -> Kaldi filter bank -> low frame rate -> CMVN.

Everything is plain torch, because importing torchaudio takes seconds; the tests compare `fbank`
with `torchaudio.compliance.kaldi.fbank`.

Legend: B batch, S samples, T frames of 10 ms, L low-rate frames (60 ms), W samples of one window,
F mel bins (80), D = F * lfr_m (560).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn

from seqgen.errors import CheckpointError, ConfigError

PCM_SCALE = 32768.0
"""Kaldi works on 16-bit sample values; our waveforms lie in [-1, 1]."""
PREEMPHASIS = 0.97
LOW_HZ = 20.0
FRAMES_AT_ONCE = 2048
"""Frames go through the FFT in groups of this size: memory stays small for an hour of audio."""


@dataclass(frozen=True)
class FrontEndConfig:
    """What the features look like; the defaults are those of every published Paraformer.

    Attributes:
        sample_rate: Hz of the waveforms that come in.
        n_mels: mel bins, from 20 Hz to half the sample rate.
        frame_length: window in ms.
        frame_shift: hop in ms.
        window: `hamming`, `hann` or `povey`.
        dither: standard deviation of the Gaussian noise added to each 16-bit sample value. 0 is
            reproducible; FunASR's default of 1.0 is random even at inference.
        lfr_m: neighbouring frames joined into one.
        lfr_n: frames stepped over; one step lasts `lfr_n * frame_shift` ms.
        snip_edges: True gives only windows that lie inside the signal (Kaldi's default); False
            reflects the signal at both ends.
    """

    sample_rate: int = 16000
    n_mels: int = 80
    frame_length: float = 25.0
    frame_shift: float = 10.0
    window: str = "hamming"
    dither: float = 0.0
    lfr_m: int = 7
    lfr_n: int = 6
    snip_edges: bool = True

    def __post_init__(self) -> None:
        if self.window not in _WINDOWS:
            raise ConfigError(
                f"unknown window {self.window!r}", fix=f"choose one of {', '.join(_WINDOWS)}"
            )
        if min(self.lfr_m, self.lfr_n, self.n_mels, self.hop_samples) < 1:
            raise ConfigError(f"front end sizes must be positive: {self}")

    @property
    def window_samples(self) -> int:
        """W: samples of one window (400)."""
        return int(self.sample_rate * self.frame_length * 0.001)

    @property
    def hop_samples(self) -> int:
        """Samples from one frame to the next (160)."""
        return int(self.sample_rate * self.frame_shift * 0.001)

    @property
    def dim(self) -> int:
        """D: values of one low-rate frame (560)."""
        return self.n_mels * self.lfr_m

    @property
    def step_seconds(self) -> float:
        """Seconds from one low-rate frame to the next (0.06)."""
        return self.lfr_n * self.frame_shift * 0.001

    def frame_count(self, samples: Tensor) -> Tensor:
        """Number of 10 ms frames of waveforms of so many samples (any shape, integer)."""
        if self.snip_edges:
            count = (samples - self.window_samples) // self.hop_samples + 1
            return count.clamp(min=0)
        return (samples + self.hop_samples // 2) // self.hop_samples

    def low_rate_count(self, frames: Tensor) -> Tensor:
        """Number of low-rate frames: ceil(T / lfr_n)."""
        return (frames + self.lfr_n - 1) // self.lfr_n


class FrontEnd(nn.Module):
    """Waveforms -> normalised low-frame-rate features; a row of a batch equals the row alone.

    The CMVN vectors `shift` (minus the mean) and `scale` (1 / standard deviation), both [D], are
    buffers and thus part of a checkpoint; without them the features are not normalised. The
    filter bank is always computed in float32.
    """

    shift: Tensor
    scale: Tensor

    def __init__(
        self,
        config: FrontEndConfig | None = None,
        *,
        shift: Tensor | None = None,
        scale: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.config = config or FrontEndConfig()
        dim = self.config.dim
        for name, vector in (("shift", shift), ("scale", scale)):
            if vector is not None and vector.shape != (dim,):
                raise CheckpointError(
                    f"the CMVN {name} has shape {tuple(vector.shape)}, the features have {dim}",
                    fix="use the am.mvn that belongs to this model's front end",
                )
        self.register_buffer("shift", torch.zeros(dim) if shift is None else shift.float())
        self.register_buffer("scale", torch.ones(dim) if scale is None else scale.float())

    def forward(
        self, wave_BS: Tensor, lengths_B: Tensor, *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Features of padded waveforms.

        Args:
            wave_BS: samples in [-1, 1] at `config.sample_rate`; padding may hold anything.
            lengths_B: valid samples of each row.
            generator: source of the dither noise, if `config.dither` is above 0.

        Returns:
            feats_BLD, float32, zero beyond each row's end, and the low-rate frames of each row.
            A row shorter than one window has 0 frames.
        """
        fbank_BTF, frames_B = fbank(wave_BS, lengths_B, self.config, generator=generator)
        low_BLD, steps_B = low_frame_rate(fbank_BTF, frames_B, self.config)
        feats_BLD = (low_BLD + self.shift) * self.scale
        valid_BL = torch.arange(low_BLD.shape[1], device=low_BLD.device) < steps_B[:, None]
        return feats_BLD * valid_BL[..., None], steps_B

    def features(
        self, waves: Sequence[Tensor], *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """As `forward`, for a list of waveforms [S] of different lengths."""
        lengths_B = torch.tensor([len(wave) for wave in waves], device=self.shift.device)
        wave_BS = nn.utils.rnn.pad_sequence(list(waves), batch_first=True).to(self.shift.device)
        return self.forward(wave_BS, lengths_B, generator=generator)


def fbank(
    wave_BS: Tensor,
    lengths_B: Tensor,
    config: FrontEndConfig,
    *,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Log mel energies as Kaldi's `compute-fbank-feats` computes them (no energy column).

    Per window: remove the mean, pre-emphasis 0.97, window function, power spectrum of the next
    power of two, triangular mel filters, log with a floor of the float32 epsilon.

    Returns:
        fbank_BTF (zero beyond each row's end) and the number of frames of each row.
    """
    frames_B = config.frame_count(lengths_B)
    T = int(frames_B.max()) if len(frames_B) else 0
    out_BTF = wave_BS.new_zeros(len(wave_BS), T, config.n_mels, dtype=torch.float32)
    if T == 0:
        return out_BTF, frames_B
    windows_BTW = _windows(wave_BS.float() * PCM_SCALE, lengths_B, T, config)
    valid_BT = torch.arange(T, device=wave_BS.device) < frames_B[:, None]
    # Only frames that exist are computed: padding costs nothing and cannot leak into a row.
    row_N, frame_N = valid_BT.nonzero(as_tuple=True)
    for first in range(0, len(row_N), FRAMES_AT_ONCE):
        rows = row_N[first : first + FRAMES_AT_ONCE]
        frames = frame_N[first : first + FRAMES_AT_ONCE]
        out_BTF[rows, frames] = _log_mel(windows_BTW[rows, frames], config, generator)
    return out_BTF, frames_B


def low_frame_rate(
    fbank_BTF: Tensor, frames_B: Tensor, config: FrontEndConfig
) -> tuple[Tensor, Tensor]:
    """Join `lfr_m` neighbouring frames every `lfr_n` frames.

    Step l holds frames l * n - (m - 1) / 2 ... of its row; frames before the first and after the
    last are copies of these. Beyond a row's end the result is undefined.

    Returns:
        low_BLD and the number of steps of each row, ceil(T / n).
    """
    steps_B = config.low_rate_count(frames_B)
    L = int(steps_B.max()) if len(steps_B) else 0
    if L == 0:
        return fbank_BTF.new_zeros(len(fbank_BTF), 0, config.dim), steps_B
    device = fbank_BTF.device
    start_L = torch.arange(L, device=device) * config.lfr_n - (config.lfr_m - 1) // 2
    index_LM = start_L[:, None] + torch.arange(config.lfr_m, device=device)
    last_B = (frames_B - 1).clamp(min=0)
    index_BLM = torch.minimum(index_LM.clamp(min=0)[None], last_B[:, None, None])
    rows_B = torch.arange(len(fbank_BTF), device=device)[:, None, None]
    return fbank_BTF[rows_B, index_BLM].flatten(2), steps_B


def load_mvn(path: str | Path) -> tuple[Tensor, Tensor]:
    """The CMVN vectors (shift, scale) of an `am.mvn`, a Kaldi nnet in text form.

    The line after `<AddShift>` and the line after `<Rescale>` each read
    `<LearnRateCoef> 0 [ v v v ... ]`; the shift is minus the mean, the scale 1 / std.

    Raises:
        CheckpointError: the file is missing or has another layout.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(
            f"cannot read the CMVN file {path}", why=str(error), fix="copy am.mvn beside the model"
        ) from error
    vectors = []
    for name in ("<AddShift>", "<Rescale>"):
        values = [
            below.partition("[")[2].rpartition("]")[0].split()
            for above, below in itertools.pairwise(lines)
            if above.startswith(name)
        ]
        try:
            vectors.append(torch.tensor([float(value) for value in values[0]]))
        except (IndexError, ValueError) as error:
            raise CheckpointError(
                f"{path} is not a CMVN file: no vector of numbers after {name}",
                fix="use the am.mvn of the model's own folder",
            ) from error
    shift, scale = vectors
    if len(shift) != len(scale) or not len(shift):
        raise CheckpointError(f"{path} has {len(shift)} shifts but {len(scale)} scales")
    return shift, scale


def estimate_cmvn(features: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """CMVN vectors (shift, scale) from unnormalised features [L, D] of a training set."""
    count = 0
    total_D = square_D = torch.zeros((), dtype=torch.float64)
    for feats_LD in features:
        count += len(feats_LD)
        total_D = total_D + feats_LD.double().sum(0)
        square_D = square_D + feats_LD.double().square().sum(0)
    if count < 2:
        raise ConfigError("CMVN needs at least two frames of features")
    mean_D = total_D / count
    # A floor on the variance: a bin that never changes would be blown up without bound.
    std_D = (square_D / count - mean_D.square()).clamp(min=1e-6).sqrt()
    return -mean_D.float(), (1.0 / std_D).float()


def _windows(wave_BS: Tensor, lengths_B: Tensor, T: int, config: FrontEndConfig) -> Tensor:
    """Overlapping windows [B, T, W], a view where the edges are snipped."""
    W, hop = config.window_samples, config.hop_samples
    if config.snip_edges:
        return wave_BS.unfold(1, W, hop)[:, :T]
    # Kaldi: windows are centred on the middle of each hop and the signal is mirrored at its ends.
    first = hop // 2 - W // 2
    index_TW = first + hop * torch.arange(T, device=wave_BS.device)[:, None]
    index_TW = index_TW + torch.arange(W, device=wave_BS.device)
    index_BTW = torch.where(index_TW < 0, -1 - index_TW, index_TW)[None]
    end_B = lengths_B[:, None, None]
    index_BTW = torch.where(index_BTW >= end_B, 2 * end_B - 1 - index_BTW, index_BTW)
    # Frames that do not belong to a row point anywhere; they are not used.
    index_BTW = index_BTW.clamp(0, wave_BS.shape[1] - 1)
    rows_B = torch.arange(len(wave_BS), device=wave_BS.device)[:, None, None]
    return wave_BS[rows_B, index_BTW]


def _log_mel(
    windows_NW: Tensor, config: FrontEndConfig, generator: torch.Generator | None
) -> Tensor:
    """Log mel energies [N, F] of windows of 16-bit sample values."""
    if config.dither:
        noise_NW = torch.randn(windows_NW.shape, generator=generator, device=windows_NW.device)
        windows_NW = windows_NW + config.dither * noise_NW
    x_NW = windows_NW - windows_NW.mean(1, keepdim=True)
    # The first sample is its own predecessor.
    previous_NW = torch.cat([x_NW[:, :1], x_NW[:, :-1]], dim=1)
    x_NW = (x_NW - PREEMPHASIS * previous_NW) * _window(config, windows_NW.device)
    spectrum = torch.fft.rfft(x_NW, n=_fft_size(config))
    power_NK: Tensor = spectrum.real.square() + spectrum.imag.square()
    mel_NF: Tensor = power_NK @ _mel_bank(config, windows_NW.device)
    return mel_NF.clamp(min=torch.finfo(torch.float32).eps).log()


def _fft_size(config: FrontEndConfig) -> int:
    return 1 << (config.window_samples - 1).bit_length()


@lru_cache(maxsize=8)
@torch.inference_mode(False)  # what is cached must also serve training
def _window(config: FrontEndConfig, device: torch.device) -> Tensor:
    """The window function [W]; Kaldi's are symmetric (not periodic)."""
    function = _WINDOWS[config.window](config.window_samples)
    return function.to(device)


def _povey(samples: int) -> Tensor:
    return torch.hann_window(samples, periodic=False).pow(0.85)


_WINDOWS: dict[str, Callable[[int], Tensor]] = {
    "hamming": lambda n: torch.hamming_window(n, periodic=False),
    "hann": lambda n: torch.hann_window(n, periodic=False),
    "povey": _povey,
}


@lru_cache(maxsize=8)
@torch.inference_mode(False)
def _mel_bank(config: FrontEndConfig, device: torch.device) -> Tensor:
    """Triangular filters [K, F], equally spaced on the mel scale 1127 ln(1 + f / 700).

    The filters are triangles on the mel axis (not on the frequency axis), as in Kaldi; the bin at
    half the sample rate belongs to no filter. Kaldi computes them in float32, and the lowest
    filters are narrow enough for the rounding to show in the features: so do we.
    """
    size = _fft_size(config)
    low, high = _mel(LOW_HZ), _mel(config.sample_rate / 2)
    step = (high - low) / (config.n_mels + 1)
    left_F = low + torch.arange(config.n_mels) * step
    centre_F = low + (torch.arange(config.n_mels) + 1.0) * step
    right_F = low + (torch.arange(config.n_mels) + 2.0) * step
    hertz_K1 = (config.sample_rate / size) * torch.arange(size // 2 + 1)[:, None]
    mel_K1 = 1127.0 * (1.0 + hertz_K1 / 700.0).log()
    rising_KF = (mel_K1 - left_F) / (centre_F - left_F)
    falling_KF = (right_F - mel_K1) / (right_F - centre_F)
    bank_KF = torch.minimum(rising_KF, falling_KF).clamp(min=0.0)
    bank_KF[-1] = 0.0
    return bank_KF.to(device)


def _mel(hertz: float) -> float:
    return 1127.0 * math.log(1.0 + hertz / 700.0)
