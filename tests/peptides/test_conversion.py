"""Peptides: the autoregressive decoder becomes the block decoder; nothing else changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from tests.peptides.small_peptides import simulated

from seqgen.training.loop import fit
from seqgen_peptides.conversion import CONVERSIONS
from seqgen_peptides.model import load_model
from seqgen_peptides.training import PRESETS, PeptideTask


def test_only_the_block_decoder_is_trained_and_it_starts_from_ar(tmp_path: Path) -> None:
    ions = tmp_path / "ions.npz"
    simulated(600).save(ions)
    options, config = PRESETS["micro"]
    config = replace(config, steps=8, restart=4, warmup=2, validate_every=8)
    task = PeptideTask()
    run = task.start(options, config, data=ions, seed=0, folder=tmp_path / "first")
    fit(run, config, folder=tmp_path / "first")
    before = load_model(tmp_path / "first").state_dict()

    wanted, _ = CONVERSIONS["block-diffusion"]
    wanted = replace(wanted, block_length=3, batch=8, count=600, validation_spectra=8)
    config = replace(config, steps=6, restart=0, validate_every=3)  # frozen after validating too
    source = tmp_path / "first"
    run = task.convert(source, wanted, config, data=ions, seed=1, folder=tmp_path / "second")
    table = "block.inputs.embedding.weight"
    for name, value in run.model.state_dict().items():
        if name.startswith("block.") and name.replace("block.", "ar.") in before and name != table:
            assert torch.equal(value, before[name.replace("block.", "ar.")]), name
    fit(run, config, folder=tmp_path / "second")
    after = load_model(tmp_path / "second").state_dict()
    for name, value in before.items():
        if not name.startswith("block."):
            assert torch.equal(value, after[name]), name
    assert not torch.equal(before[table], after[table])
