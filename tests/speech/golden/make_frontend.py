"""Writes frontend.npz: torchaudio's filter bank of a chirp, for tests without torchaudio or data.

    SEQGEN_DATA=../shared/data python tests/speech/golden/make_frontend.py

The CIF weights and peaks that FunASR 1.4.16 computed on the data folder's random-weight Paraformer
are copied into it too.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch

from seqgen_speech.torchaudio_import import load_torchaudio

FILE = Path(__file__).with_name("frontend.npz")


def chirp(samples: int = 8000, rate: int = 16000) -> np.ndarray:
    """A rising tone with a hum, quantised to 16 bits."""
    t = np.arange(samples) / rate
    wave = 0.4 * np.sin(2 * np.pi * (100 * t + 3000 * t * t)) + 0.02 * np.sin(2 * np.pi * 50 * t)
    return (np.round(wave * 32767) / 32768).astype(np.float32)


def main() -> None:
    kaldi = load_torchaudio("compliance.kaldi")
    wave = torch.from_numpy(chirp())[None] * 32768
    fbank = kaldi.fbank(wave, num_mel_bins=80, window_type="hamming", dither=0.0, energy_floor=0.0)
    arrays = {"fbank": fbank.numpy().astype(np.float32)}
    oracle = Path(os.environ["SEQGEN_DATA"], "speech/tiny-paraformer-oracle/ref.npz")
    with np.load(oracle) as reference:
        arrays |= {"alphas": reference["alphas"][0], "peaks": reference["peaks"][0]}
    np.savez_compressed(FILE, **arrays)


if __name__ == "__main__":
    main()
