"""Training batches: what the spectra hold, and that they are functions of seed and step."""

from __future__ import annotations

import gzip
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.peptides.small_peptides import batches, simulated

from seqgen.errors import InputError, PluginError
from seqgen_peptides.augment import AugmentConfig
from seqgen_peptides.data import load_simulated
from seqgen_peptides.masses import PROTON, WATER
from seqgen_peptides.residues import PAD, STOP, Residues
from seqgen_peptides.simulate import (
    SimulateConfig,
    Simulated,
    _linear,
    peptidoforms,
    read_peptides,
)

RESIDUES = Residues()


def test_targets_run_from_the_c_terminus_and_end_with_a_stop() -> None:
    batch = batches().batch(0)
    for row in range(8):
        length = int(batch.lengths_B[row])
        ids = batch.targets_BS[row].tolist()
        assert ids[length] == STOP
        assert set(ids[length + 1 :]) <= {PAD}
        assert RESIDUES.tokens[ids[0] - 2] in ("K", "R")
        assert batch.valid_BS[row].sum() == length + 1


def test_precursor_is_the_peptides_mass() -> None:
    batch = batches().batch(0)
    for row in range(8):
        ids = batch.targets_BS[row, : int(batch.lengths_B[row])].tolist()
        assert float(batch.spectra.mass_B[row]) == pytest.approx(RESIDUES.mass(ids), abs=1e-6)


def test_clean_spectra_hold_the_b_and_y_ions() -> None:
    batch = batches().batch(0)
    table = RESIDUES.table()
    for row in range(8):
        length = int(batch.lengths_B[row])
        from_c = [table[i] for i in batch.targets_BS[row, :length].tolist()]
        lead = RESIDUES.n_terminal()[int(batch.targets_BS[row, length - 1])]
        y = np.cumsum(from_c)[: length - 1 - lead] + WATER + PROTON
        mz = batch.spectra.mz_BP[row][batch.spectra.valid_BP[row]].numpy()
        away = np.abs(y - float(batch.spectra.precursor_mz_B[row])) > 2.1
        nearest = np.abs(mz[:, None] - y[(y > 60) & away]).min(axis=0)
        assert nearest.max() < 1e-6
        assert (np.diff(mz) >= 0).all()
    norms = batch.spectra.intensity_BP.norm(dim=1)
    torch.testing.assert_close(norms, torch.ones(8))


def test_batches_are_functions_of_seed_step_and_rank() -> None:
    one, two = batches(augment=AugmentConfig()), batches(augment=AugmentConfig())
    two.batch(30)  # what was asked before does not matter
    a, b = one.batch(5), two.batch(5)
    assert torch.equal(a.targets_BS, b.targets_BS)
    assert torch.equal(a.spectra.mz_BP, b.spectra.mz_BP)
    other = batches(augment=AugmentConfig(), seed=1).batch(5)
    assert not torch.equal(a.spectra.precursor_mz_B, other.spectra.precursor_mz_B)
    ranks = [one.batch(0, rank, 2).spectra.precursor_mz_B for rank in (0, 1)]
    assert not torch.equal(*ranks)


def test_an_epoch_takes_every_training_peptide_once() -> None:
    found = simulated(600)
    set_ = batches(found, size=1)
    count = len(set_.rows)
    drawn = [set_._drawn(place, 1)[0] for place in range(count)]
    assert sorted(drawn) == sorted(set_.rows)


def test_held_out_peptides_are_never_trained_on() -> None:
    found = simulated(3000)
    set_ = batches(found)
    held = set(set_.held_out().tolist())
    assert held
    assert not held & set(set_.rows.tolist())

    def bare(row: int) -> str:
        begin = 0 if row == 0 else int(found.token_ends[row - 1])
        text = RESIDUES.decode(found.tokens[begin : found.token_ends[row]].tolist())
        return text.rpartition("-")[2]

    seen = {bare(row) for row in set_.rows.tolist()}
    assert not seen & {bare(row) for row in held}


def test_noise_and_errors_stay_within_what_they_say() -> None:
    config = AugmentConfig(precursor_ppm=4.0)
    batch = batches(size=64, augment=config).batch(0)
    exact = torch.tensor(
        [
            RESIDUES.mass(batch.targets_BS[row, : int(batch.lengths_B[row])].tolist())
            for row in range(64)
        ],
        dtype=torch.float64,
    )
    mz = exact / batch.spectra.charge_B + PROTON
    ppm = (batch.spectra.precursor_mz_B / mz - 1) * 1e6
    assert 2 < float(ppm.std()) < 6
    fewer = batches(size=64, augment=replace(config, noise=(0, 1))).batch(0)
    assert batch.spectra.valid_BP.sum() > fewer.spectra.valid_BP.sum()


def test_real_noise_enters() -> None:
    noise = (torch.full((1, 5), 777.7777, dtype=torch.float64), torch.ones(1, 5))
    set_ = batches(augment=replace(AugmentConfig(), real_noise=1.0))
    set_.noise = noise
    mz = set_.batch(0).spectra.mz_BP
    assert ((mz - 777.7777).abs() < 0.05).any(dim=1).all()


def test_simulated_sets_survive_a_file_and_join(tmp_path: Path) -> None:
    one, two = simulated(10, seed=1), simulated(7, seed=2)
    one.save(tmp_path / "one.npz")
    joined = Simulated.join([Simulated.load(tmp_path / "one.npz"), two])
    assert len(joined) == 17
    assert joined.token_ends[-1] == len(joined.tokens)
    assert joined.cleavage_ends[-1] == joined.intensities.shape[1]
    first = joined.tokens[joined.token_ends[9] : joined.token_ends[10]]
    assert np.array_equal(first, two.tokens[: two.token_ends[0]])


def test_peptidoforms_are_in_the_vocabulary() -> None:
    config = SimulateConfig(oxidation=0.5, deamidation=0.5, ammonia_loss=0.5, acetyl=0.3)
    forms = list(peptidoforms(["QMNCQK", "MANCQK"] * 200, random.Random(0), config))
    seen = "".join(form for form, _ in forms)
    for token in ("[Ammonia-loss]-", "[Acetyl]-", "M[Oxidation]", "N[Deamidated]"):
        assert token in seen
    for form, charge in forms:
        RESIDUES.encode(form)
        assert 1 <= charge <= 2, "a short peptide has few protons"


def test_given_modifications_stay() -> None:
    given = "AS[Phospho]MK"
    assert [form for form, _ in peptidoforms([given], random.Random(0), SimulateConfig())] == [
        given
    ]


def test_ions_lie_at_their_cleavage() -> None:
    """ms2pip numbers y ions from the C-terminus: y1 belongs to the last cleavage."""
    predicted = {ion: np.log2(np.array([1.0, 2.0, 4.0]) + 0.001) for ion in ("b", "y", "b2", "y2")}
    b, y, b2, y2 = _linear(predicted)
    assert b[0] < b[1] < b[2]
    assert y[0] > y[1] > y[2]
    assert (b2 == b).all()
    assert (y2 == y).all()
    assert b.sum() * 4 == pytest.approx(1)


def test_sources_that_cannot_be_used(tmp_path: Path) -> None:
    where = {"count": 5, "seed": 0, "folder": tmp_path}
    with pytest.raises(InputError, match="does not exist"):
        load_simulated(tmp_path / "none.npz", RESIDUES, **where)
    (tmp_path / "bad.npz").write_bytes(b"nonsense")
    with pytest.raises(InputError, match="no simulated spectra"):
        load_simulated(tmp_path / "bad.npz", RESIDUES, **where)
    with gzip.open(tmp_path / "list.txt.gz", "wt") as file:
        file.write("PEPTIDEK\n\nANK\n")
    assert read_peptides(tmp_path / "list.txt.gz") == ["PEPTIDEK", "ANK"]
    try:
        import ms2pip  # noqa: F401
    except ImportError:
        with pytest.raises(PluginError, match="ms2pip"):
            load_simulated(tmp_path / "list.txt.gz", RESIDUES, **where)
