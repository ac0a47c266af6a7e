"""Candidate-ion evidence: the right residue is where the peaks are."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.peptides.small_peptides import batches

from seqgen_peptides.alignment import align_by_mass
from seqgen_peptides.context import SpectrumContext
from seqgen_peptides.evidence import (
    ion_evidence,
    ladder_evidence,
    matched_intensity,
    repeat_rows,
    slot_evidence,
)
from seqgen_peptides.masses import PROTON, WATER
from seqgen_peptides.residues import FIRST, PAD, STOP, Residues
from seqgen_peptides.spectra import SpectrumBatch

RESIDUES = Residues()
MASSES = torch.tensor(RESIDUES.table(), dtype=torch.float64)


def _context(mz: list[float], intensity: list[float], mass: float) -> SpectrumContext:
    import numpy as np

    batch = SpectrumBatch.of(
        [(np.array(mz), np.array(intensity, dtype=np.float32))], [mass / 2 + PROTON], [2]
    )
    return SpectrumContext.of(batch, torch.zeros(1, 1, 1), torch.ones(1, 1, dtype=torch.bool))


def test_the_true_next_residue_has_the_evidence() -> None:
    ids = RESIDUES.encode("GASPVTK")
    mass = RESIDUES.mass(ids)
    prefix = float(MASSES[ids[-1]] + MASSES[ids[-2]])  # T and K are known
    y3 = prefix + float(MASSES[ids[-3]]) + WATER + PROTON
    context = _context([y3], [2.0], mass)
    found = ion_evidence(context, torch.tensor([[prefix]], dtype=torch.float64), MASSES)
    assert found[0, 0, :, 0].argmax() == ids[-3]
    assert found[0, 0, ids[-3], 0] > 0.999
    others = found[0, 0, FIRST:, 0].sum() - found[0, 0, ids[-3], 0]
    assert others < 1e-6


def test_b_ions_are_the_complement_of_what_is_known() -> None:
    ids = RESIDUES.encode("GASPVTK")
    b5 = float(MASSES[ids[:5]].sum()) + PROTON
    context = _context([b5], [1.0], RESIDUES.mass(ids))
    prefix = torch.tensor([[float(MASSES[ids[-1]])]], dtype=torch.float64)
    found = ion_evidence(context, prefix, MASSES)
    assert found[0, 0, :, 1].argmax() == ids[-2]


def test_stop_has_evidence_where_nothing_is_left() -> None:
    ids = RESIDUES.encode("GASPVTK")
    context = _context([500.0], [1.0], RESIDUES.mass(ids))
    whole = float(MASSES[ids].sum())
    found = ion_evidence(context, torch.tensor([[whole, 100.0]], dtype=torch.float64), MASSES)
    assert found[0, 0, STOP].min() > 0.99
    assert found[0, 1, STOP].max() < 1e-6


def test_the_ladder_names_the_residue_between_two_peaks() -> None:
    ids = RESIDUES.encode("GASPVTK")
    y2 = float(MASSES[ids[-2:]].sum()) + WATER + PROTON
    y3, b4 = y2 + float(MASSES[ids[4]]), float(MASSES[ids[:4]].sum()) + PROTON
    mz = torch.tensor([sorted([y2, y3, b4])], dtype=torch.float64)
    mass = torch.tensor([RESIDUES.mass(ids)], dtype=torch.float64)
    found = ladder_evidence(mz, torch.ones(1, 3), mass, MASSES)[0]
    places = {
        name: sorted([y2, y3, b4]).index(x) for name, x in (("y2", y2), ("y3", y3), ("b4", b4))
    }
    assert found[places["y2"], :, 0].argmax() == ids[4], "up from y2 lies y3"
    assert found[places["y3"], :, 1].argmax() == ids[4], "down from y3 lies y2"
    # b4 is the complement of y3.
    assert found[places["y2"], ids[4], 2] > 0.999
    assert found[places["y2"], :FIRST].sum() == 0


@given(st.integers(0, 2**31 - 1))
def test_matching_finds_the_better_neighbour(seed: int) -> None:
    """Against a search over all peaks."""
    generator = torch.Generator().manual_seed(seed)
    near = (100 + 1900 * torch.rand(3, 60, generator=generator, dtype=torch.float64)).sort(1)[0]
    spectra = SpectrumBatch(
        mz_BP=near,
        intensity_BP=torch.rand(3, 60, generator=generator),
        valid_BP=torch.ones(3, 60, dtype=torch.bool),
        precursor_mz_B=torch.full((3,), 700.0, dtype=torch.float64),
        charge_B=torch.full((3,), 2),
    )
    context = SpectrumContext.of(spectra, torch.zeros(3, 1, 1), torch.ones(3, 1) > 0)
    assert context.mz_BP is not None
    assert context.intensity_BP is not None
    wanted = 2000 * torch.rand(3, 40, generator=generator, dtype=torch.float64)
    index = torch.randint(60, (3, 40), generator=generator)
    wanted[:, ::2] = near.gather(1, index)[:, ::2] * (1 + 5e-6)
    found = matched_intensity(context.mz_BP, context.intensity_BP, wanted)
    off = (context.mz_BP[:, None] / wanted[..., None] - 1).abs() * 1e6
    every = torch.exp(-0.5 * (off / 10) ** 2).float() * context.intensity_BP[:, None]
    # Two peaks apart by less than the tolerance may hide a third, stronger one behind them.
    rounding = 1e-2  # a float32 is exact to 0.06 ppm
    assert (found <= every.amax(dim=-1) + rounding).all()
    nearest = off.argmin(dim=-1, keepdim=True)
    assert (found >= every.gather(-1, nearest).squeeze(-1) - rounding).all()


def test_rows_of_hypotheses_read_their_own_spectrum() -> None:
    spectra = batches(size=4).batch(0).spectra
    context = SpectrumContext.of(spectra, torch.zeros(4, 1, 1), torch.ones(4, 1) > 0)
    prefix = torch.rand(4, 1, dtype=torch.float64) * 400
    single = ion_evidence(context, prefix, MASSES)
    beams = ion_evidence(context, repeat_rows(prefix, 12), MASSES)
    assert torch.equal(beams, single.repeat_interleave(3, dim=0))


def test_two_peaks_place_a_residue_in_its_slot() -> None:
    ids = RESIDUES.encode("GASPVTK")
    y2 = float(MASSES[ids[-2:]].sum()) + WATER + PROTON
    y3 = y2 + float(MASSES[ids[4]])
    context = _context([y2, y3], [1.0, 1.0], RESIDUES.mass(ids))
    found = slot_evidence(context, MASSES, 40)[0]
    total = float(MASSES[ids].sum())
    slot = int((y2 + y3 - 2 * (WATER + PROTON)) / 2 / total * 40)
    as_y, as_b = found[..., 0], found[..., 2]
    assert as_y.flatten().argmax() == slot * len(MASSES) + ids[4]
    # Were they b ions, the residue would lie that far from the N-terminus.
    slot = int((total - (y2 + y3 - 2 * PROTON) / 2) / total * 40)
    assert as_b.flatten().argmax() == slot * len(MASSES) + ids[4]


def test_the_ends_of_the_peptide_count_as_peaks() -> None:
    ids = RESIDUES.encode("GASPVTK")
    y1 = float(MASSES[ids[-1]]) + WATER + PROTON
    b1 = float(MASSES[ids[0]]) + PROTON
    context = _context(sorted([y1, b1]), [1.0, 1.0], RESIDUES.mass(ids))
    found = slot_evidence(context, MASSES, 40)[0]
    assert found[:6, ids[-1], 0].max() > 0.99, "K up from the C-terminus"
    assert found[-6:, ids[0], 2].max() > 0.99, "G up from the N-terminus"


@given(st.integers(0, 2**31 - 1))
def test_aligned_residues_keep_their_order(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 41, (5,), generator=generator)
    targets = torch.randint(FIRST, len(RESIDUES), (5, 41), generator=generator)
    wanted = align_by_mass(targets, lengths, MASSES, 40)
    for row, length in enumerate(lengths.tolist()):
        ids = [i for i in wanted[row].tolist() if i != PAD]
        assert ids == targets[row, :length].tolist()
