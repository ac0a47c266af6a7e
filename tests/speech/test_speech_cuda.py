"""Recognition on a CUDA device: the same texts as on the CPU. `make gpu-test` runs these."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

DEVICE = "cuda"

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine"),
]


@pytest.mark.parametrize("decoder", ["paraformer", "ar", "mask-predict", "block-diffusion"])
@pytest.mark.parametrize("options", [[], ["--set", "streaming=true"]])
def test_texts_are_those_of_the_cpu(
    seqgen: Callable[..., Any], random_model: Path, decoder: str, options: list[str]
) -> None:
    if options and decoder != "paraformer":
        pytest.skip("streaming is for the paraformer decoder")
    generator = np.random.default_rng(0)
    for number, samples in enumerate((9000, 30000, 52000)):
        wave = 0.1 * generator.standard_normal(samples)
        soundfile.write(f"{number}.wav", wave, 16000)
    texts = []
    for device in ("cpu", DEVICE):
        command = ["run", "--plugin", "speech", "--model", random_model, "--decoder", decoder]
        done = seqgen(*command, "--device", device, *options, "0.wav", "1.wav", "2.wav")
        assert done.code == 0, done.err
        texts.append([json.loads(line)["text"] for line in done.out.splitlines()])
    assert texts[0] == texts[1]
    assert any(texts[0])
