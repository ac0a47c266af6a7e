"""Making clean recordings sound like many: level, noise, room, telephone band, SpecAugment.

Every function takes the random generator it draws from, so that a training step can be repeated.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .audio import SAMPLE_RATE
from .resample import Wave


@dataclass(frozen=True)
class AugmentConfig:
    """How often and how strongly; probabilities are per utterance.

    Attributes:
        noise: probability of background noise.
        snr: least and most signal-to-noise ratio in dB.
        telephone: probability of a 300-3400 Hz band.
        room: probability of a short reverberation.
        tilt: probability of a random spectral tilt and resonance (another microphone).
        level: least and most level of the speech, RMS in dB of full scale.
        mel_masks, mel_width: SpecAugment's frequency masks (number, greatest width in bins).
        time_masks, time_share: its time masks (number, greatest share of the frames each).
    """

    noise: float = 0.35
    snr: tuple[float, float] = (8.0, 40.0)
    telephone: float = 0.1
    room: float = 0.15
    tilt: float = 0.3
    level: tuple[float, float] = (-48.0, -13.0)
    mel_masks: int = 2
    mel_width: int = 12
    time_masks: int = 2
    time_share: float = 0.04


class NoiseBank:
    """Background noise drawn once from a seed: white, pink, brown, hum, and babble of voices."""

    SECONDS = 30

    def __init__(self, seed: int, voices: list[Wave]) -> None:
        rng = np.random.default_rng((seed, 1))
        size = self.SECONDS * SAMPLE_RATE
        coloured = [_coloured(rng, size, slope) for slope in (0.0, 0.5, 1.0)]
        babble = []
        for _ in range(3 if voices else 0):
            mixed = np.zeros(size, dtype=np.float32)
            for _ in range(8):
                mixed += _loop(rng, voices, size)
            babble.append(mixed)
        self._noises = [_unit(noise) for noise in (*coloured, _hum(rng, size), *babble)]

    def draw(self, rng: np.random.Generator, samples: int) -> Wave:
        """A stretch of one kind of noise, RMS about 1."""
        return _stretch(self._noises[int(rng.integers(len(self._noises)))], rng, samples)

    def white(self, rng: np.random.Generator, samples: int) -> Wave:
        """A stretch of white noise, RMS about 1."""
        return _stretch(self._noises[0], rng, samples)


def augment_wave(
    wave: Wave, config: AugmentConfig, noises: NoiseBank, rng: np.random.Generator
) -> Wave:
    """One utterance as another microphone, line and room would give it."""
    wave = _channel(wave, config, rng)
    power = float(np.sqrt(np.mean(np.square(wave))) + 1e-6)
    if rng.random() < config.noise:
        ratio = 10 ** (-rng.uniform(*config.snr) / 20)
        wave = wave + noises.draw(rng, len(wave)) * np.float32(power * ratio)
    wave = wave * np.float32(10 ** (rng.uniform(*config.level) / 20) / power)
    return np.clip(wave, -1.0, 1.0)


def mask_features(
    fbank_TF: NDArray[np.float32], config: AugmentConfig, rng: np.random.Generator
) -> None:
    """SpecAugment in place: bands and stretches become the utterance's mean per bin.

    Park et al. 2019, without warping; time masks are short because each hides whole tokens.
    """
    T, F = fbank_TF.shape
    mean_F = fbank_TF.mean(axis=0)
    for _ in range(int(rng.integers(config.mel_masks + 1))):
        width = int(rng.integers(config.mel_width + 1))
        low = int(rng.integers(F - width + 1))
        fbank_TF[:, low : low + width] = mean_F[low : low + width]
    for _ in range(int(rng.integers(config.time_masks + 1))):
        width = int(rng.integers(int(T * config.time_share) + 1))
        start = int(rng.integers(T - width + 1))
        fbank_TF[start : start + width] = mean_F


def _channel(wave: Wave, config: AugmentConfig, rng: np.random.Generator) -> Wave:
    """All linear effects in one pass through the frequency domain."""
    telephone, room, tilt = rng.random(3) < (config.telephone, config.room, config.tilt)
    if not (telephone or room or tilt):
        return wave
    tail = SAMPLE_RATE // 4
    size = _fast_size(len(wave) + tail)
    spectrum = np.fft.rfft(wave, n=size)
    hertz = np.fft.rfftfreq(size, 1 / SAMPLE_RATE)
    if telephone:
        spectrum *= 1 / (1 + (300 / np.maximum(hertz, 1.0)) ** 8) / (1 + (hertz / 3400) ** 24)
    if tilt:
        octaves = np.log2(np.maximum(hertz, 60.0) / 1000.0)
        peak = np.exp(-0.5 * ((octaves - rng.uniform(-2.0, 2.5)) / rng.uniform(0.3, 1.0)) ** 2)
        spectrum *= 10 ** ((rng.uniform(-2.5, 2.5) * octaves + rng.uniform(-8.0, 6.0) * peak) / 20)
    if room:
        decay = rng.uniform(0.05, 0.3)  # seconds until -60 dB
        echo = rng.normal(size=tail) * 10 ** (-3 * np.arange(tail) / (decay * SAMPLE_RATE))
        echo *= rng.uniform(0.1, 0.5) / np.linalg.norm(echo)
        echo[0] = 1.0
        spectrum *= np.fft.rfft(echo, n=size)
    return np.fft.irfft(spectrum, n=size)[: len(wave)].astype(np.float32)


def _fast_size(samples: int) -> int:
    """The next size 2^k or 3 * 2^k, for which the FFT is fast."""
    power = 1 << (samples - 1).bit_length()
    return power * 3 // 4 if power * 3 // 4 >= samples else power


def _stretch(noise: Wave, rng: np.random.Generator, samples: int) -> Wave:
    start = int(rng.integers(max(1, len(noise) - samples)))
    return np.resize(noise[start : start + samples], samples)


def _coloured(rng: np.random.Generator, size: int, slope: float) -> Wave:
    """Noise whose amplitude falls as frequency ** -slope (0.5 is pink, 1 brown)."""
    spectrum = np.fft.rfft(rng.normal(size=size))
    hertz = np.maximum(np.fft.rfftfreq(size, 1 / SAMPLE_RATE), 40.0)
    return np.fft.irfft(spectrum * hertz**-slope, n=size).astype(np.float32)


def _hum(rng: np.random.Generator, size: int) -> Wave:
    """Mains hum with harmonics over a little white noise."""
    time = np.arange(size) / SAMPLE_RATE
    hum = 0.05 * rng.normal(size=size)
    for harmonic in range(1, 8):
        hum += np.sin(2 * np.pi * 60.0 * harmonic * time + rng.uniform(0, 6.28)) / harmonic
    return hum.astype(np.float32)


def _loop(rng: np.random.Generator, voices: list[Wave], size: int) -> Wave:
    parts, total = [], 0
    while total < size:
        part = _unit(voices[int(rng.integers(len(voices)))])
        parts.append(part)
        total += len(part)
    return np.concatenate(parts)[:size]


def _unit(wave: Wave) -> Wave:
    level = np.float32(np.sqrt(np.mean(np.square(wave))) + 1e-6)
    return np.divide(wave, level, dtype=np.float32)
