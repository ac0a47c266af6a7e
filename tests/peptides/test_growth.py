"""New modifications on a trained model: what it knew stays, what is new starts from its residue."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from tests.peptides.small_peptides import batches, random_model, simulated

from seqgen.canvas import Canvas
from seqgen.decoders import Autoregressive
from seqgen_peptides.growth import grow
from seqgen_peptides.model import load_model, save_model
from seqgen_peptides.residues import Residues
from seqgen_peptides.training import PRESETS, PeptideRun, PeptideTask

NEW = ("S[Phospho]", "[TMT6plex]-")


def test_known_residues_keep_their_weights() -> None:
    model = random_model()
    residues = model.residues.extended(NEW)
    grown = grow(model, residues)
    assert len(grown.residues) == len(model.residues) + 2
    old, phospho = model.residues.encode("S")[0], residues.encode("S[Phospho]")[0]
    for name in ("ar", "nar", "hybrid", "block"):
        before, after = getattr(model, name), getattr(grown, name)
        assert torch.equal(after.head.weight[: len(model.residues)], before.head.weight)
        assert torch.equal(after.head.weight[phospho], before.head.weight[old])
    mask = grown.block.inputs.embedding.weight[-1]
    assert torch.equal(mask, model.block.inputs.embedding.weight[-1])
    table = grown.ar.inputs.features.masses_V
    assert abs(float(table[phospho] - table[old]) - 79.96633) < 1e-4


def test_a_model_that_never_chooses_the_new_decodes_as_before() -> None:
    """The weights of known residues lead to the same logits, where the new ones are forbidden."""
    model = random_model(ion_evidence=False, ladder=False)
    grown = grow(model, model.residues.extended(NEW))
    context = model.listen(batches().batch(0).spectra)
    canvas = Canvas(torch.zeros(8, 6, dtype=torch.int64))
    expected = Autoregressive().generate(model.ar, canvas, context).values
    with torch.no_grad():
        grown.ar.head.bias[-2:] = -1e9
    again = grown.listen(batches().batch(0).spectra)
    canvas = Canvas(torch.zeros(8, 6, dtype=torch.int64))
    assert torch.equal(Autoregressive().generate(grown.ar, canvas, again).values, expected)


def test_training_goes_on_from_a_model_with_more_modifications(tmp_path: Path) -> None:
    start = save_model(random_model(), tmp_path / "start.safetensors", {})
    (tmp_path / "more.yaml").write_text("residues:\n  S[Phospho]:\n  K[Mine]: 150.5\n")
    simulated(300).save(tmp_path / "ions.npz")
    options, fit = PRESETS["micro"]
    options = replace(options, start=str(start), modifications=str(tmp_path / "more.yaml"))
    run = PeptideTask().start(options, fit, data=tmp_path / "ions.npz", seed=0, folder=tmp_path)
    assert isinstance(run, PeptideRun)
    assert run.model.residues.tokens[-2:] == ("S[Phospho]", "K[Mine]")
    assert torch.isfinite(run.losses(run.batch(0, 0, 1), 0)["loss"])
    loaded = load_model(run.export(tmp_path, {}))
    assert loaded.residues == run.model.residues
    assert loaded.residues != Residues()
