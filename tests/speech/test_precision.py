"""Other number types than float32: every decoder runs; front end and predictor stay as they are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

Seqgen = Callable[..., Any]

DECODERS = ("paraformer", "ar", "mask-predict", "block-diffusion")


@pytest.fixture
def recordings(tmp_path: Path) -> list[str]:
    """Two noises of different lengths."""
    generator = np.random.default_rng(0)
    for name, samples in (("short", 12000), ("long", 30000)):
        soundfile.write(tmp_path / f"{name}.wav", 0.1 * generator.standard_normal(samples), 16000)
    return ["short.wav", "long.wav"]


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_every_decoder_runs(
    seqgen: Seqgen, random_model: Path, recordings: list[str], dtype: str, decoder: str
) -> None:
    model = ["--model", random_model, "--decoder", decoder]
    done = seqgen("run", "--plugin", "speech", *model, "--dtype", dtype, *recordings)
    assert done.code == 0, done.err
    plain = seqgen("run", "--plugin", "speech", *model, *recordings)
    if dtype == "float64":
        found, expected = ([row["text"] for row in rows(o)] for o in (done.out, plain.out))
        assert found == expected


def test_streaming_wants_float32(seqgen: Seqgen, random_model: Path, recordings: list[str]) -> None:
    options = ["--set", "streaming=true", "--dtype", "bfloat16"]
    done = seqgen("run", "--plugin", "speech", "--model", random_model, *options, *recordings)
    assert done.code == 2
    assert "--dtype float32" in done.err


def rows(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]
