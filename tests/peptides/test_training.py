"""Training in two stages, through the library's own loop: it learns, resumes, and freezes."""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.peptides.small_peptides import simulated

from seqgen.errors import InputError
from seqgen.training.loop import fit
from seqgen_peptides.model import load_model
from seqgen_peptides.training import PRESETS, PeptideRun, PeptideTask

OPTIONS, FIT = PRESETS["micro"]
SHORT = replace(FIT, steps=12, restart=6, warmup=2, save_every=3, validate_every=12)


@pytest.fixture(scope="module")
def ions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Simulated ions in a file."""
    file = tmp_path_factory.mktemp("data") / "ions.npz"
    simulated(1500).save(file)
    return file


def _start(ions: Path, folder: Path, config: object = SHORT) -> PeptideRun:
    run = PeptideTask().start(OPTIONS, config, data=ions, seed=3, folder=folder)  # type: ignore[arg-type]
    assert isinstance(run, PeptideRun)
    return run


def test_both_stages_train_and_the_result_loads(ions: Path, tmp_path: Path) -> None:
    config = replace(FIT, steps=60, restart=40, validate_every=60)
    run = _start(ions, tmp_path / "run", config)
    lines: list[dict[str, float]] = []
    result = fit(run, config, folder=tmp_path / "run", seed=3, report=lines.append)
    losses = [line for line in lines if "loss" in line]
    first, joint = losses[0], max((x for x in losses if "nar" in x), key=lambda x: x["step"])
    assert joint["ar"] < 0.8 * first["ar"]
    assert {"ar", "hybrid", "block"} <= losses[-1].keys()
    assert {"sim_ar", "sim_nar", "sim_hybrid", "sim_block"} <= result.keys()
    model = load_model(Path(result["checkpoint"]))
    assert model.config == run.model.config


def test_a_resumed_run_is_an_unbroken_one(ions: Path, tmp_path: Path) -> None:
    """Across the beginning of the second stage, where weights are copied."""
    whole = _start(ions, tmp_path / "whole")
    fit(whole, SHORT, folder=tmp_path / "whole", seed=3)
    for stop in (6, 9, 0):
        part = _start(ions, tmp_path / "parts")
        fit(part, replace(SHORT, stop=stop), folder=tmp_path / "parts", seed=3, resume=stop != 6)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(part.model.state_dict()[name], value), name


def test_stage_2_leaves_encoder_and_nar_alone(ions: Path, tmp_path: Path) -> None:
    run = _start(ions, tmp_path)
    run.model.train()
    losses = run.losses(run.batch(6, 0, 1), 6)
    torch.autograd.backward(losses["loss"])
    for part in (run.model.encoder, run.model.nar):
        assert all(p.grad is None for p in part.parameters())
    for part in (run.model.ar, run.model.hybrid, run.model.block):
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in part.parameters())
    # The hybrid starts as the autoregressive decoder, but has more to attend to.
    assert losses["hybrid"] != losses["ar"]


def test_the_weight_passes_from_nar_to_ar(ions: Path, tmp_path: Path) -> None:
    run = _start(ions, tmp_path)
    batch = run.batch(0, 0, 1)
    first = run.losses(batch, 0)
    torch.testing.assert_close(first["loss"], first["nar"] + first["aligned"])
    later = run.losses(batch, 3)  # half-way: the warm start is over
    assert "aligned" not in later
    torch.testing.assert_close(later["loss"], (later["ar"] + later["nar"]) / 2)


def test_data_that_cannot_be_used(tmp_path: Path) -> None:
    start = PeptideTask().start
    with pytest.raises(InputError, match="needs peptides"):
        start(OPTIONS, FIT, data=None, seed=0, folder=tmp_path)
    with pytest.raises(InputError, match="holds no peptides"):
        start(OPTIONS, FIT, data=tmp_path, seed=0, folder=tmp_path)


def test_real_spectra_validate_where_there_are_any(
    ions: Path, tmp_path: Path, shared_data: Path
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    real = shared_data / "peptides" / "real_valid.mgf"
    (folder / "real_valid.mgf").write_bytes(real.read_bytes())
    with gzip.open(folder / "peptides.txt.gz", "wt") as file:
        file.write("PEPTIDEK\n")
    options = replace(OPTIONS, simulated=str(ions))
    run = PeptideTask().start(options, SHORT, data=folder, seed=0, folder=tmp_path)
    assert isinstance(run, PeptideRun)
    sets = run.validation.sets
    assert set(sets) == {"sim", "real"}
    assert len(sets["real"].lengths_B) == 189
    assert set(run.validate()) >= {"real_ar", "real_nar", "real_hybrid", "real_block"}
