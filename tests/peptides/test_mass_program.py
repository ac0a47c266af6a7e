"""The exact mass program against brute force over all paths, and its finalizer."""

from __future__ import annotations

import itertools
import math
import random
from functools import lru_cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_peptides import random_model
from torch import Tensor

from seqgen.canvas import Canvas
from seqgen.ctc import ctc_score
from seqgen.decoders.one_pass import OnePass
from seqgen.errors import ConfigError
from seqgen.finalizers import GreedyCTC, PrefixBeamCTC
from seqgen.logits import NEVER, Ban, Sampling
from seqgen_peptides.constraint import fits, mass_windows
from seqgen_peptides.mass_finalizer import MassConstrainedCTC
from seqgen_peptides.mass_program import ROUNDS, mass_program
from seqgen_peptides.mass_search import search
from seqgen_peptides.masses import PROTON, WATER, to_mz
from seqgen_peptides.residues import FIRST, PAD, STOP, Residues
from seqgen_peptides.spectra import SpectrumBatch
from seqgen_peptides.suffix_bounds import NominalMasses, SuffixBounds

RESIDUES = Residues()
SEEDS = st.integers(0, 10_000)
quick = settings(max_examples=25, deadline=None)

FEW = Residues(
    {
        "G": 57.021464,
        "N": 114.042927,  # two G
        "[Ammonia-loss]-": -17.026549,
        "K": 128.094963,
        "Q": 128.058578,  # the same nominal mass
    }
)
SLOTS = 5
ENDS, TABLE = FEW.n_terminal(), FEW.table()


@lru_cache(maxsize=1)
def every_path() -> tuple[Tensor, Tensor, list[tuple[int, ...]]]:
    """All paths of `FEW` over `SLOTS` slots [P, S], each one's sequence [P], all sequences."""
    said = [i for i in range(len(FEW)) if i != STOP]
    paths = list(itertools.product(said, repeat=SLOTS))
    merged = [tuple(v for v, _ in itertools.groupby(path) if v != PAD) for path in paths]
    places = {sequence: place for place, sequence in enumerate(dict.fromkeys(merged))}
    return torch.tensor(paths), torch.tensor([places[q] for q in merged]), list(places)


def is_peptide(sequence: tuple[int, ...], low: list[float], high: list[float], least: int) -> bool:
    ends, table = ENDS, TABLE
    if any(ends[i] for i in sequence[:-1]) or sum(not ends[i] for i in sequence) < least:
        return False
    mass = sum(table[i] for i in sequence)
    return any(a <= mass <= b for a, b in zip(low, high, strict=True))


def brute_force(
    log_p_SV: Tensor, low: list[float], high: list[float], least: int
) -> list[tuple[float, tuple[int, ...]]]:
    """Every peptide within a window with its best path's log-probability, best first."""
    path_PS, sequence_P, sequences = every_path()
    score_P = log_p_SV.double().T[path_PS, torch.arange(SLOTS)].sum(dim=1)
    best_Q = torch.full((len(sequences),), NEVER, dtype=torch.float64)
    best_Q = best_Q.scatter_reduce(0, sequence_P, score_P, "amax").tolist()
    pairs = zip(best_Q, sequences, strict=True)
    return sorted([p for p in pairs if is_peptide(p[1], low, high, least)], reverse=True)


def few_problems(seed: int, batch: int) -> tuple[Tensor, Tensor, Tensor]:
    """Random log-probabilities, and windows that lie at the mass of some short peptide."""
    rng, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    scale = rng.choice([0.3, 1.0, 4.0])
    log_p_BTV = (scale * torch.randn(batch, SLOTS, len(FEW), generator=generator)).log_softmax(-1)
    ends, table = FEW.n_terminal(), FEW.table()
    inner = [i for i in range(FIRST, len(FEW)) if not ends[i]]
    windows = []
    for _ in range(batch):
        mass = sum(table[rng.choice(inner)] for _ in range(rng.randint(1, 4)))
        mass += rng.choice([0, 0, table[ends.index(True)]])
        width = rng.choice([0.004, 0.02, 0.08])
        centre = mass + rng.uniform(-width, width) * 0.9
        windows.append([(centre - width, centre + width), (centre - 1.01, centre - 1.0)])
    low_high_BK2 = torch.tensor(windows, dtype=torch.float64)
    return log_p_BTV, low_high_BK2[..., 0], low_high_BK2[..., 1]


@quick
@given(SEEDS, st.sampled_from([1, 2]), st.sampled_from([1, 4]))
def test_equals_brute_force(seed: int, least: int, answers: int) -> None:
    log_p_BTV, low_BK, high_BK = few_problems(seed, 8)
    found = mass_program(log_p_BTV, FEW, low_BK, high_BK, answers=answers, min_length=least)
    assert found.proven_BN.all()
    for row in range(8):
        wanted = brute_force(log_p_BTV[row], low_BK[row].tolist(), high_BK[row].tolist(), least)
        wanted = wanted[:answers]
        sequences = found.hypotheses.sequences(row)
        scores = found.hypotheses.score_BN[row, : len(sequences)].tolist()
        assert scores == pytest.approx([s for s, _ in wanted], abs=1e-4)
        assert [tuple(s) for s in sequences] == [q for _, q in wanted]


@quick
@given(SEEDS, st.integers(1, 3))
def test_what_a_narrow_search_proves_is_true(seed: int, beams: int) -> None:
    """With too few hypotheses it may miss the best, but then it does not claim to have it."""
    log_p_BTV, low_BK, high_BK = few_problems(seed, 8)
    masses = NominalMasses.of(FEW, float(high_BK.max()), log_p_BTV.device)
    log_p_BTE, blank_BT = log_p_BTV[..., masses.id_E], log_p_BTV[..., PAD]
    plain_B1 = torch.zeros(8, 1)
    bounds = SuffixBounds(masses, log_p_BTE, blank_BT, low_BK, high_BK, plain_B1)
    found = search(masses, log_p_BTE, blank_BT, bounds, beams=beams, answers=1, min_length=1)
    for row in range(8):
        wanted = brute_force(log_p_BTV[row], low_BK[row].tolist(), high_BK[row].tolist(), 1)
        best = wanted[0][0] if wanted else NEVER
        mine, dropped = float(found.log_p_BN[row, 0]), float(found.dropped_B[row])
        assert mine <= best + 1e-9
        # The best peptide is found, or its score lies under what was dropped.
        assert mine == pytest.approx(best, abs=1e-9) or best <= dropped + 1e-4


@quick
@given(SEEDS, st.sampled_from([0.0, -30.0, 8.0]))
def test_bounds_are_never_too_low(seed: int, multiplier: float) -> None:
    """Before the first slot: the best peptide; after the empty rest: whether the mass fits."""
    log_p_BTV, low_BK, high_BK = few_problems(seed, 8)
    masses = NominalMasses.of(FEW, float(high_BK.max()), log_p_BTV.device)
    log_p_BTE, blank_BT = log_p_BTV[..., masses.id_E], log_p_BTV[..., PAD]
    bounds = SuffixBounds(
        masses, log_p_BTE, blank_BT, low_BK, high_BK, torch.full((8, 1), multiplier)
    )
    rows, start = torch.arange(8), torch.zeros(8, dtype=torch.int64)
    bound_B = bounds.at(0, start, rows, torch.zeros(8, dtype=torch.float64))
    for row in range(8):
        for score, _ in brute_force(log_p_BTV[row], low_BK[row].tolist(), high_BK[row].tolist(), 1):
            assert bound_B[row] >= score - 1e-4
    inside_B = bounds.at(SLOTS, start, rows, (low_BK + high_BK)[:, 0] / 2)
    outside_B = bounds.at(SLOTS, start, rows, high_BK[:, 0] + 0.01)
    assert (inside_B >= -1e-4).all()
    assert (outside_B == NEVER).all()


def path_logits(said: list[int], *, vocabulary: int, strength: float = 6.0) -> Tensor:
    """Logits [1, S, V] of a model that is sure of one path."""
    logits = torch.zeros(1, len(said), vocabulary)
    logits[0, torch.arange(len(said)), torch.tensor(said)] = strength
    return logits


def window(mass: float, ppm: float = 20.0) -> tuple[Tensor, Tensor]:
    centre = torch.tensor([[mass - WATER]], dtype=torch.float64)
    return centre - mass * ppm * 1e-6, centre + mass * ppm * 1e-6


def test_exact_masses_tell_k_from_q() -> None:
    """Bins of 1 Da would keep the more probable K, and then miss the window by 0.036 Da."""
    ids = RESIDUES.encode("PEPTLDEK")[::-1]
    said = [i for pair in zip(ids, [PAD] * 8, strict=True) for i in pair]
    logits = path_logits(said, vocabulary=len(RESIDUES))
    q = RESIDUES.encode("Q")[0]
    logits[0, 0, q] = 2.0
    found = mass_program(logits.log_softmax(-1), RESIDUES, *window(RESIDUES.mass([q, *ids[1:]])))
    assert RESIDUES.decode(found.hypotheses.sequences(0)[0][::-1]) == "PEPTLDEQ"
    assert found.proven_BN.all()


def test_repeats_need_a_blank() -> None:
    """GG from the slots G G blank: the run must be broken, here by moving the blank between."""
    g, n = FEW.encode("G")[0], FEW.encode("N")[0]
    logits = path_logits([g, g, g], vocabulary=len(FEW))
    logits[0, 1, PAD] = 1.0
    logits[:, :, n] = -4.0
    low, high = window(2 * FEW.masses["G"] + WATER)
    found = mass_program(logits.log_softmax(-1), FEW, low, high, min_length=1, answers=2)
    assert found.hypotheses.sequences(0) == [[g, g], [n]]


def test_modification_only_at_the_end() -> None:
    """[Ammonia-loss]- takes mass away, is the last value, and comes once."""
    peptide = RESIDUES.encode("[Ammonia-loss]-QPEPTLK")
    mod = peptide[0]
    said = peptide[::-1]
    logits = path_logits([*said[:3], PAD, *said[3:], PAD, mod], vocabulary=len(RESIDUES))
    found = mass_program(
        logits.log_softmax(-1), RESIDUES, *window(RESIDUES.mass(peptide)), answers=3
    )
    for sequence in found.hypotheses.sequences(0):
        assert mod not in sequence[:-1]
    assert RESIDUES.decode(found.hypotheses.sequences(0)[0][::-1]) == "[Ammonia-loss]-QPEPTLK"


def random_peptide(rng: random.Random, shortest: int, longest: int) -> list[int]:
    ends = RESIDUES.n_terminal()
    inner = [i for i in range(FIRST, len(RESIDUES)) if not ends[i]]
    body = [rng.choice(inner) for _ in range(rng.randint(shortest, longest))]
    return (
        [rng.choice([i for i in range(len(ends)) if ends[i]]), *body]
        if rng.random() < 0.2
        else body
    )


def standard_problem(seed: int, batch: int, slots: int) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Random logits, and the mass, charge and m/z of random precursors."""
    rng, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(batch, slots, len(RESIDUES), generator=generator)
    logits[..., STOP] = NEVER
    mass_B = torch.tensor(
        [RESIDUES.mass(random_peptide(rng, 6, 12)) for _ in range(batch)], dtype=torch.float64
    )
    charge_B = torch.full((batch,), 2)
    return logits, (mass_B, charge_B, mass_B / 2 + PROTON)


@settings(max_examples=8, deadline=None)
@given(SEEDS, st.booleans(), st.sampled_from([1, 3]))
def test_every_answer_has_the_mass(seed: int, drafted: bool, answers: int) -> None:
    logits, precursors = standard_problem(seed, 4, 24)
    draft = PrefixBeamCTC(blank=PAD, beams=4) if drafted else None
    finalizer = MassConstrainedCTC.for_batch(
        RESIDUES, *precursors, answers=answers, draft=draft, rounds=ROUNDS[:2]
    )
    found = finalizer(logits, None)
    assert found.values_BNS.shape == (4, answers, 24)
    answered_BN = found.score_BN > NEVER
    assert answered_BN[:, 0].all()
    assert torch.equal(found.finished_BN, answered_BN)
    good_BN = fits(
        RESIDUES,
        found.values_BNS,
        found.length_BN,
        finalizer.low_BK,
        finalizer.high_BK,
        min_length=6,
    )
    assert (good_BN | ~answered_BN).all()
    # Ranked by the log-probability of the sequence, which is not below that of its best path.
    assert (found.score_BN[:, :-1] >= found.score_BN[:, 1:]).all()
    exact_BN = ctc_score(logits, found, blank=PAD)
    assert torch.allclose(exact_BN[answered_BN], found.score_BN[answered_BN], atol=1e-3)
    for row in range(4):
        assert len({tuple(s) for s in found.sequences(row)}) == int(answered_BN[row].sum())
    confidence_BNS = found.confidence_BNS
    used_BNS = torch.arange(24) < (found.length_BN * answered_BN)[..., None]
    assert ((confidence_BNS > 0) & (confidence_BNS <= 1))[used_BNS].all()


def test_rows_do_not_know_of_each_other() -> None:
    logits, (mass_B, charge_B, mz_B) = standard_problem(3, 5, 20)
    low_BK, high_BK = mass_windows(mass_B, charge_B, mz_B, tol_ppm=20.0, isotopes=(0, 1))
    log_p = logits.log_softmax(-1)
    together = mass_program(log_p, RESIDUES, low_BK, high_BK, answers=2)
    for row in range(5):
        one = slice(row, row + 1)
        alone = mass_program(log_p[one], RESIDUES, low_BK[one], high_BK[one], answers=2)
        assert alone.hypotheses.sequences(0) == together.hypotheses.sequences(row)
        assert torch.equal(alone.hypotheses.score_BN[0], together.hypotheses.score_BN[row])


def test_a_draft_of_the_right_mass_stands() -> None:
    """PrimeNovo's rule; the draft's best is the most probable sequence, not the best path's."""
    peptide = RESIDUES.encode("PEPTLDEK")
    logits = path_logits([*peptide[::-1], PAD, PAD], vocabulary=len(RESIDUES))
    mass_B = torch.tensor([RESIDUES.mass(peptide)], dtype=torch.float64)
    precursors = (mass_B, torch.tensor([2]), mass_B / 2 + PROTON)
    for draft in (GreedyCTC(blank=PAD), PrefixBeamCTC(blank=PAD, beams=3), None):
        finalizer = MassConstrainedCTC.for_batch(RESIDUES, *precursors, draft=draft)
        found = finalizer(logits, None)
        assert RESIDUES.decode(found.sequences(0)[0][::-1]) == "PEPTLDEK"
        assert found.score_BN[0, 0] == pytest.approx(
            float(ctc_score(logits, found, blank=PAD)[0, 0]), abs=1e-5
        )


def test_unused_slots_say_nothing() -> None:
    logits, precursors = standard_problem(5, 3, 26)
    finalizer = MassConstrainedCTC.for_batch(RESIDUES, *precursors)
    short = finalizer(logits[:, :20], None)
    long = finalizer(logits, torch.tensor([20, 20, 20]))
    assert [short.sequences(row) for row in range(3)] == [long.sequences(row) for row in range(3)]


@pytest.mark.parametrize("mass", [700.6, 30.0, 6000.0, 1e8])
def test_no_peptide_no_answer(mass: float) -> None:
    """Between nominal masses, too light, and too heavy for the slots."""
    logits, _ = standard_problem(0, 1, 20)
    low, high = window(mass)
    found = mass_program(logits.log_softmax(-1), RESIDUES, low, high)
    assert found.hypotheses.sequences(0) == []
    assert found.proven_BN.all()
    finalizer = MassConstrainedCTC(
        residues=RESIDUES, low_BK=low, high_BK=high, draft=GreedyCTC(blank=PAD)
    )
    answer = finalizer(logits, None)
    assert answer.score_BN[0, 0] == NEVER
    assert not answer.finished_BN.any()


def test_equal_log_probabilities() -> None:
    """When everything is equally probable, any answer is a best one."""
    log_p = torch.full((1, 12, len(RESIDUES)), -math.log(28.0))
    found = mass_program(log_p, RESIDUES, *window(RESIDUES.mass(RESIDUES.encode("PEPTLDE"))))
    assert found.hypotheses.score_BN[0, 0] == pytest.approx(-12 * math.log(28.0), abs=1e-4)
    assert found.proven_BN.all()


def test_through_the_one_pass_decoder() -> None:
    model = random_model()
    rng = random.Random(0)
    masses = [RESIDUES.mass(random_peptide(rng, 7, 12)) for _ in range(4)]
    generator = torch.Generator().manual_seed(0)
    peaks = []
    for _ in masses:
        mz = 100 + 900 * torch.rand(30, generator=generator).double().sort().values
        peaks.append((mz.numpy(), torch.rand(30, generator=generator).numpy()))
    batch = SpectrumBatch.of(peaks, [to_mz(m, 2) for m in masses], [2] * 4)
    finalizer = MassConstrainedCTC.for_batch(
        RESIDUES,
        batch.mass_B,
        batch.charge_B,
        batch.precursor_mz_B,
        draft=PrefixBeamCTC(blank=PAD, beams=3),
    )
    decoder = OnePass(finalizer=finalizer, sampling=Sampling(constraints=(Ban((STOP,)),)))
    canvas = Canvas(torch.zeros(4, model.config.slots, dtype=torch.int64))
    with torch.inference_mode():
        decoder.generate(model.nar, canvas, model.listen(batch))
    good_B1 = fits(
        RESIDUES,
        canvas.values[:, None],
        canvas.length_B[:, None],
        finalizer.low_BK,
        finalizer.high_BK,
        min_length=6,
    )
    assert good_B1.all()
    assert canvas.finished_B.all()


@pytest.mark.parametrize("options", [{"answers": 0}, {"rounds": ()}, {"rounds": (0,)}])
def test_senseless_options_are_refused(options: dict[str, object]) -> None:
    log_p_BTV, low_BK, high_BK = few_problems(0, 1)
    with pytest.raises(ConfigError):
        mass_program(log_p_BTV, FEW, low_BK, high_BK, **options)


@pytest.mark.gpu
def test_on_a_gpu() -> None:
    logits, precursors = standard_problem(0, 8, 30)
    found = []
    for device in ("cpu", "cuda"):
        moved = [x.to(device) for x in precursors]
        finalizer = MassConstrainedCTC.for_batch(RESIDUES, *moved, answers=2)
        found.append(finalizer(logits.to(device), None))
    for row in range(8):
        assert found[0].sequences(row) == found[1].sequences(row)
