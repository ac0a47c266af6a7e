"""The precursor-mass constraint: what can be reached is allowed, what is given has the mass."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_peptides import random_model
from torch import Tensor

from seqgen.canvas import Canvas
from seqgen.decoders import Autoregressive, Beam
from seqgen.errors import ConfigError
from seqgen.logits import NEVER
from seqgen_peptides.constraint import ISOTOPE_STEP, PrecursorMass, fits, mass_windows
from seqgen_peptides.masses import PROTON, WATER, to_mz
from seqgen_peptides.reachability import TOP, Reachability
from seqgen_peptides.residues import FIRST, STOP, Residues
from seqgen_peptides.spectra import SpectrumBatch

RESIDUES = Residues()
ENDS = RESIDUES.n_terminal()
INNER = [i for i in range(FIRST, len(RESIDUES)) if not ENDS[i]]
OUTER = [i for i in range(FIRST, len(RESIDUES)) if ENDS[i]]
SEEDS = st.integers(0, 10_000)
quick = settings(max_examples=25, deadline=None)

FEW = Residues(
    {
        "G": 57.021464,
        "N": 114.042927,
        "K": 128.094963,
        "Q": 128.058578,
        "[Acetyl]-": 42.010565,
        "[Ammonia-loss]-": -17.026549,
    }
)


def random_peptide(rng: random.Random, shortest: int, longest: int) -> list[int]:
    """Ids from the N-terminus; three of ten have a modification there."""
    body = [rng.choice(INNER) for _ in range(rng.randint(shortest, longest))]
    return [rng.choice(OUTER), *body] if rng.random() < 0.3 else body


def constraint_for(
    masses: list[float], charges: list[int], residues: Residues = RESIDUES, **options: object
) -> PrecursorMass:
    mass_B, charge_B = torch.tensor(masses, dtype=torch.float64), torch.tensor(charges)
    return PrecursorMass.for_batch(
        residues, mass_B, charge_B, mass_B / charge_B + PROTON, **options
    )


def test_windows_are_casanovos_tolerance() -> None:
    mz, charge, tol = 651.3177, 3, 12.0
    mass = (mz - PROTON) * charge
    low_BK, high_BK = mass_windows(
        torch.tensor([mass], dtype=torch.float64),
        torch.tensor([charge]),
        torch.tensor([mz], dtype=torch.float64),
        tol_ppm=tol,
        isotopes=(-1, 2),
    )
    assert low_BK.shape == (1, 4)
    for edge_1K, sign in ((low_BK, -1), (high_BK, 1)):
        for isotope, residue_mass in zip(range(-1, 3), edge_1K[0].tolist(), strict=True):
            calculated = to_mz(residue_mass + WATER, charge)
            error = (calculated - (mz - isotope * ISOTOPE_STEP / charge)) / mz * 1e6
            assert error == pytest.approx(sign * tol, abs=1e-6)


def sums(residues: Residues, top: float) -> dict[tuple[int, ...], float]:
    """Every multiset of residues with at most one modification, and its mass."""
    ends, table = residues.n_terminal(), residues.table()
    found: dict[tuple[int, ...], float] = {}
    inner = [i for i in range(FIRST, len(residues)) if not ends[i]]
    for count in range(int(top / 57) + 1):
        for chosen in itertools.combinations_with_replacement(inner, count):
            mass = sum(table[i] for i in chosen)
            for end in [None, *(i for i in range(FIRST, len(residues)) if ends[i])]:
                whole = mass + (table[end] if end else 0)
                if whole <= top:
                    found[chosen if end is None else (*chosen, end)] = whole
    return found


@quick
@given(SEEDS, st.sampled_from([0.002, 0.02, 0.2]))
def test_table_against_enumeration(seed: int, width: float) -> None:
    """It never denies what is there, and hardly ever promises what is not."""
    rng = random.Random(seed)
    every = sums(FEW, 640.0)
    ends = FEW.n_terminal()
    mass_M = torch.tensor(list(every.values()), dtype=torch.float64)
    count_M = torch.tensor([sum(not ends[i] for i in chosen) for chosen in every])
    table = Reachability.of(FEW)
    # Half of the windows lie at a sum, half anywhere.
    near = [rng.choice(list(every.values())) + rng.uniform(-width, width) for _ in range(100)]
    centre_Q = torch.tensor(near + [rng.uniform(-20, 600) for _ in range(100)]).double()
    low_Q, high_Q = centre_Q - width / 2, centre_Q + width / 2
    least = rng.randint(0, 3)
    most = least + rng.randint(0, 8)
    inside_QM = (mass_M >= low_Q[:, None]) & (mass_M <= high_Q[:, None])
    there_Q = (inside_QM & (count_M >= least) & (count_M <= most)).any(dim=1)
    found_Q = table.reaches(low_Q, high_Q, least=torch.tensor(least), most=torch.tensor(most))
    assert not (there_Q & ~found_Q).any()
    assert (found_Q & ~there_Q).sum() <= 4


def test_beyond_the_table_numbers_decide() -> None:
    table = Reachability.of(RESIDUES)
    low = torch.tensor([TOP + 500], dtype=torch.float64)
    heaviest = RESIDUES.masses["W"]
    for most, there in ((int(low / heaviest) - 1, False), (int(low / heaviest) + 2, True)):
        found = table.reaches(low, low + 0.1, least=torch.tensor(0), most=torch.tensor(most))
        assert bool(found) is there


def test_residues_without_mass_are_refused() -> None:
    with pytest.raises(ConfigError, match="constrained"):
        Reachability.of(Residues({"A": 71.0, "X": 0.0}))


@quick
@given(SEEDS, st.integers(0, 3))
def test_true_peptides_are_allowed(seed: int, spare: int) -> None:
    """Every prefix of a peptide of the mass is allowed, even when no slot is to spare."""
    rng = random.Random(seed)
    peptides = [random_peptide(rng, 6, 40) for _ in range(16)]
    slots = max(map(len, peptides)) + 1 + spare
    charges = [rng.randint(1, 4) for _ in peptides]
    masses = []
    for ids, charge in zip(peptides, charges, strict=True):
        # Casanovo's error is one of m/z.
        error = rng.uniform(-9.99, 9.99) * 1e-6 * to_mz(RESIDUES.mass(ids), charge) * charge
        masses.append(RESIDUES.mass(ids) + error + rng.choice([0, ISOTOPE_STEP]))
    constraint = constraint_for(masses, charges, tol_ppm=10.0)
    values_BS = torch.zeros(len(peptides), slots, dtype=torch.int64)
    for row, ids in enumerate(peptides):
        values_BS[row, : len(ids) + 1] = torch.tensor([*ids[::-1], STOP])
    state = constraint.start(Canvas(torch.zeros_like(values_BS)))
    for slot in range(slots):
        left_B = torch.full((len(peptides),), slots - slot)
        allowed_BV = constraint.allowed(state, left_B)
        wanted_B = values_BS[:, slot]
        assert (allowed_BV.gather(1, wanted_B[:, None])[:, 0] | (wanted_B == 0)).all()
        assert not allowed_BV[:, 0].any()
        state = constraint.advance(state, wanted_B)


@quick
@given(SEEDS)
def test_allowed_against_enumeration(seed: int) -> None:
    """With few residues: a value is allowed if some peptide goes on with it."""
    rng = random.Random(seed)
    ends, table = FEW.n_terminal(), FEW.table()
    inner = [i for i in range(FIRST, len(FEW)) if not ends[i]]
    target = [rng.choice(inner) for _ in range(4)] + rng.choice([[], [FEW.encode("[Acetyl]-G")[0]]])
    mass = sum(table[i] for i in target) + WATER
    slots, shortest, longest = 7, 2, 5
    constraint = constraint_for(
        [mass], [2], FEW, tol_ppm=30.0, min_length=shortest, max_length=longest
    )
    low_1K, high_1K = constraint.low_BK, constraint.high_BK
    good = set()
    for count in range(shortest, longest + 1):
        for body in itertools.product(inner, repeat=count):
            for end in [(), *((i,) for i in range(FIRST, len(FEW)) if ends[i])]:
                weight = sum(table[i] for i in (*body, *end))
                if ((low_1K <= weight) & (weight <= high_1K)).any():
                    good.add((*body, *end, STOP))
    prefix: tuple[int, ...] = ()
    state = constraint.start(Canvas(torch.zeros(1, slots, dtype=torch.int64)))
    while not prefix or prefix[-1] != STOP:
        allowed_V = constraint.allowed(state, torch.tensor([slots - len(prefix)]))[0]
        wanted = {p[len(prefix)] for p in good if p[: len(prefix)] == prefix}
        assert wanted == set(allowed_V.nonzero()[:, 0].tolist())
        value = rng.choice(sorted(wanted))
        state = constraint.advance(state, torch.tensor([value]))
        prefix = (*prefix, value)


def walk(constraint: PrecursorMass, batch: int, slots: int, seed: int) -> tuple[Tensor, Tensor]:
    """Random values that are allowed; what was said [B, S], and how many rows met a dead end."""
    generator = torch.Generator().manual_seed(seed)
    values_BS = torch.zeros(batch, slots, dtype=torch.int64)
    state = constraint.start(Canvas(values_BS))
    open_B = constraint.allowed(state, torch.full((batch,), slots)).any(dim=1)
    dead_B = torch.zeros(batch, dtype=torch.bool)
    for slot in range(slots):
        allowed_BV = constraint.allowed(state, torch.full((batch,), slots - slot))
        dead_B |= open_B & ~allowed_BV.any(dim=1)
        open_B &= ~dead_B
        chosen_B = torch.multinomial(allowed_BV + 1e-30, 1, generator=generator)[:, 0]
        values_BS[:, slot] = torch.where(open_B, chosen_B, 0)
        open_B &= chosen_B != STOP
        state = constraint.advance(state, values_BS[:, slot])
    return values_BS, dead_B


@pytest.mark.parametrize(
    ("shortest", "longest", "tol"), [(6, 12, 20.0), (10, 30, 20.0), (8, 30, 5)]
)
def test_walks_end_on_the_mass(shortest: int, longest: int, tol: float) -> None:
    """Random legal peptides: dead ends are rarer than one in a thousand."""
    rng = random.Random(longest)
    masses = [RESIDUES.mass(random_peptide(rng, shortest, longest)) for _ in range(2000)]
    charges = [rng.randint(2, 3) for _ in masses]
    constraint = constraint_for(masses, charges, tol_ppm=tol, max_length=40)
    values_BS, dead_B = walk(constraint, len(masses), 42, seed=0)
    ended_B = (values_BS == STOP).any(dim=1)
    assert int(dead_B.sum()) <= 2
    assert torch.equal(ended_B, ~dead_B)
    length_B1 = (values_BS != 0).sum(dim=1, keepdim=True)
    good_B = fits(
        RESIDUES, values_BS[:, None], length_B1, constraint.low_BK, constraint.high_BK, min_length=6
    )[:, 0]
    assert torch.equal(good_B, ended_B)


def test_impossible_masses_are_dead_from_the_start() -> None:
    """No peptide is so light, none lies between two nominal masses; the third is one."""
    masses = [90.5, 700.6, RESIDUES.mass(RESIDUES.encode("PEPTLDE"))]
    constraint = constraint_for(masses, [1, 2, 2])
    state = constraint.start(Canvas(torch.zeros(3, 20, dtype=torch.int64)))
    allowed_BV = constraint.allowed(state, torch.full((3,), 20))
    assert allowed_BV.any(dim=1).tolist() == [False, False, True]


def test_prompts_count() -> None:
    peptide = RESIDUES.encode("PEPTLDEK")
    constraint = constraint_for([RESIDUES.mass(peptide)] * 2, [2, 2], tol_ppm=5.0)
    values_BS = torch.zeros(2, 12, dtype=torch.int64)
    values_BS[1, :7] = torch.tensor(peptide[:0:-1])
    state = constraint.start(Canvas(values_BS, prompt=[0, 7]))
    allowed_BV = constraint.allowed(state, torch.tensor([12, 5]))
    assert allowed_BV[0].sum() > 10
    assert RESIDUES.encode("P")[0] in allowed_BV[1].nonzero()[:, 0].tolist()
    assert allowed_BV[1].sum() < 3


def test_too_short_peptides_do_not_stop() -> None:
    """The mass fits behind the prompt, but there are only four residues."""
    peptide = RESIDUES.encode("WWWK")
    values_BS = torch.zeros(2, 12, dtype=torch.int64)
    values_BS[:, :4] = torch.tensor(peptide[::-1])
    for shortest, wanted in ((4, True), (5, False)):
        constraint = constraint_for([RESIDUES.mass(peptide)] * 2, [2, 2], min_length=shortest)
        state = constraint.start(Canvas(values_BS, prompt=4))
        allowed_BV = constraint.allowed(state, torch.tensor([8, 8]))
        assert allowed_BV[:, STOP].tolist() == [wanted] * 2
        assert not allowed_BV[:, FIRST:].any()


def test_only_the_stop_follows_a_modification() -> None:
    """Also where a residue and the modification once more would bring the mass back."""
    residues = Residues({"G": 57.021464, "A": 71.037114, "[-57.021464]-": -57.021464})
    peptide = residues.encode("[-57.021464]-AGAGAGA")
    constraint = constraint_for([residues.mass(peptide)], [1], residues)
    state = constraint.start(Canvas(torch.zeros(1, 12, dtype=torch.int64)))
    for value in reversed(peptide):
        assert constraint.allowed(state, torch.tensor([12]))[0, value]
        state = constraint.advance(state, torch.tensor([value]))
    assert constraint.allowed(state, torch.tensor([4])).nonzero().tolist() == [[0, STOP]]


@pytest.mark.parametrize(
    "options",
    [
        {"tol_ppm": 0.0},
        {"tol_ppm": float("nan")},
        {"isotopes": (1, 0)},
        {"min_length": 0},
        {"min_length": 9, "max_length": 8},
    ],
)
def test_senseless_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        constraint_for([800.0], [2], **options)


def random_spectra(seed: int, count: int) -> SpectrumBatch:
    rng, noise = random.Random(seed), np.random.default_rng(seed)
    peaks = []
    for _ in range(count):
        mz = np.sort(noise.uniform(100, 1400, 40))
        peaks.append((mz, noise.random(40).astype(np.float32)))
    charges = [rng.randint(2, 3) for _ in range(count)]
    masses = [RESIDUES.mass(random_peptide(rng, 6, 14)) for _ in range(count)]
    precursors = [to_mz(m, z) for m, z in zip(masses, charges, strict=True)]
    return SpectrumBatch.of(peaks, precursors, charges)


@settings(max_examples=6, deadline=None)
@given(SEEDS, st.sampled_from([1, 3, 5]))
def test_beams_end_on_the_mass(seed: int, beams: int) -> None:
    """Whatever a random model says, every answer of a beam weighs what the precursor does."""
    model, batch = random_model(seed=seed % 3), random_spectra(seed, 5)
    constraint = PrecursorMass.for_batch(
        RESIDUES, batch.mass_B, batch.charge_B, batch.precursor_mz_B, max_length=24
    )
    with torch.inference_mode():
        context = model.listen(batch)
        canvas = Canvas(torch.zeros(5, 26, dtype=torch.int64))
        decoder = Beam(beams=beams, stop_ids=(STOP,), constraint=constraint)
        found = decoder.generate(model.ar, canvas, context).hypotheses
    assert found is not None
    answered_BN = found.score_BN > NEVER
    assert answered_BN[:, 0].all()
    good_BN = fits(
        RESIDUES,
        found.values_BNS,
        found.length_BN,
        constraint.low_BK,
        constraint.high_BK,
        min_length=6,
    )
    assert (good_BN | ~answered_BN).all()
    assert (found.finished_BN | ~answered_BN).all()


def test_greedy_decoding_ends_on_the_mass() -> None:
    model, batch = random_model(), random_spectra(1, 8)
    constraint = PrecursorMass.for_batch(
        RESIDUES, batch.mass_B, batch.charge_B, batch.precursor_mz_B, max_length=24
    )
    canvas = Canvas(torch.zeros(8, 26, dtype=torch.int64))
    with torch.inference_mode():
        decoder = Autoregressive(stop_ids=(STOP,), constraint=constraint)
        done = decoder.generate(model.ar, canvas, model.listen(batch))
    good_B1 = fits(
        RESIDUES,
        done.values[:, None],
        done.length_B[:, None],
        constraint.low_BK,
        constraint.high_BK,
        min_length=6,
    )
    assert good_B1.all()
    assert done.finished_B.all()


@pytest.mark.gpu
def test_on_a_gpu() -> None:
    rng = random.Random(0)
    masses = [RESIDUES.mass(random_peptide(rng, 6, 30)) for _ in range(64)]
    mass_B = torch.tensor(masses, dtype=torch.float64)
    charge_B = torch.full((64,), 2)
    found = []
    for device in ("cpu", "cuda"):
        constraint = PrecursorMass.for_batch(
            RESIDUES, mass_B.to(device), charge_B.to(device), (mass_B / 2 + PROTON).to(device)
        )
        state = constraint.start(Canvas(torch.zeros(64, 40, dtype=torch.int64, device=device)))
        state = constraint.advance(state, torch.full((64,), INNER[3], device=device))
        found.append(constraint.allowed(state, torch.full((64,), 39, device=device)).cpu())
    assert torch.equal(*found)
