"""Time series: the autoregressive decoder becomes the block decoder; nothing else changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from seqgen.training.loop import fit
from seqgen_time_series.conversion import CONVERSIONS
from seqgen_time_series.model import load_model
from seqgen_time_series.training import PRESETS, ForecastTask


def test_only_the_block_decoder_is_trained_and_it_starts_from_ar(tmp_path: Path) -> None:
    options, config = PRESETS["micro"]
    options = replace(options, series=20, validation_series=4, batch=6)
    config = replace(config, steps=4, warmup=2, validate_every=4)
    task = ForecastTask()
    run = task.start(options, config, data=None, seed=0, folder=tmp_path / "first")
    fit(run, config, folder=tmp_path / "first")
    before = load_model(tmp_path / "first").state_dict()

    wanted, _ = CONVERSIONS["block-diffusion"]
    wanted = replace(wanted, block_length=2, series=20, validation_series=4, batch=6)
    config = replace(config, validate_every=2)  # frozen after validating too
    source = tmp_path / "first"
    run = task.convert(source, wanted, config, data=None, seed=1, folder=tmp_path / "second")
    started = run.model.state_dict()
    assert torch.equal(started["block.inputs.mask_D"], before["ar.inputs.start_D"])
    for name, value in before.items():
        if name.startswith("ar.") and "start_D" not in name:
            assert torch.equal(value, started[name.replace("ar.", "block.", 1)]), name
    fit(run, config, folder=tmp_path / "second")
    made = load_model(tmp_path / "second")
    assert made.config.block_length == 2
    after = made.state_dict()
    for name, value in before.items():
        if not name.startswith("block."):
            assert torch.equal(value, after[name]), name
    assert not torch.equal(before["block.inputs.mask_D"], after["block.inputs.mask_D"])
