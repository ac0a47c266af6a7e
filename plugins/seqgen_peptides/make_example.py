"""Makes the example that the plugin ships: simulated spectra of tryptic E. coli peptides.

    python -m seqgen_peptides.make_example ecoli.fasta.gz -o example.mgf --count 8 --seed 0

Peptides are drawn at random from the digested proteins; fragment intensities are ms2pip's
(`simulate.py`, so ms2pip must be installed), with noise, neutral losses, isotopes, errors of
measurement and missing peaks put on top. No peptide is chosen by whether a model gets it right.
"""

from __future__ import annotations

import argparse
import gzip
import random
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from seqgen_peptides.masses import AMMONIA, ISOTOPE, PROTON, WATER, to_mz
from seqgen_peptides.residues import Residues
from seqgen_peptides.simulate import Simulated, simulate

if TYPE_CHECKING:
    from numpy.typing import NDArray

SHORTEST, LONGEST = 8, 16
FRAGMENT_PPM, PRECURSOR_PPM = 4.0, 3.0
FAINTEST = 0.003
"""Peaks below this share of the highest are not seen."""


def make_example(proteins: Path, count: int, seed: int) -> str:
    """An MGF file of `count` spectra."""
    rng = random.Random(seed)
    peptides = rng.sample(sorted(_digested(proteins)), count)
    with tempfile.TemporaryDirectory() as folder:
        found = simulate(peptides, count, seed=seed, folder=Path(folder))
    residues, numbers = Residues(), np.random.default_rng(seed)
    return "\n".join(_spectrum(found, i, residues, numbers) for i in range(len(found)))


def _digested(proteins: Path) -> set[str]:
    """Tryptic peptides without missed cleavages, of useful length."""
    with gzip.open(proteins, "rt") if proteins.suffix == ".gz" else proteins.open() as file:
        entries = re.split(r"^>.*$", file.read(), flags=re.MULTILINE)
    pieces = (p for e in entries for p in re.split(r"(?<=[KR])(?!P)", re.sub(r"\s", "", e)))
    return {p for p in pieces if SHORTEST <= len(p) <= LONGEST and set(p) <= set(_LETTERS)}


_LETTERS = "ACDEFGHIKLMNPQRSTVWY"


def _spectrum(found: Simulated, place: int, residues: Residues, rng: np.random.Generator) -> str:
    tokens = np.split(found.tokens, found.token_ends)[place].tolist()
    ions = np.split(found.intensities, found.cleavage_ends, axis=1)[place].astype(np.float64)
    charge = int(found.charges[place])
    mz, intensity = map(np.concatenate, zip(*_peaks(tokens, ions, residues, rng), strict=True))
    precursor = to_mz(residues.mass(tokens), charge)
    count = int(rng.integers(20, 60))
    mz = np.append(mz * (1 + FRAGMENT_PPM * 1e-6 * rng.standard_normal(len(mz))),
                   rng.uniform(110, min(1.8 * precursor, 1900), count))  # fmt: skip
    intensity = np.append(intensity, rng.exponential(0.02, count) * intensity.max())
    seen = intensity > FAINTEST * intensity.max()
    order = np.argsort(mz[seen])
    lines = (
        f"{x:.5f} {y:.1f}"
        for x, y in zip(
            mz[seen][order], 1e5 * (intensity / intensity.max())[seen][order], strict=True
        )
    )
    measured = precursor * (1 + PRECURSOR_PPM * 1e-6 * rng.standard_normal())
    return (
        f"BEGIN IONS\nTITLE=simulated E. coli peptide {place + 1}\nPEPMASS={measured:.5f}\n"
        f"CHARGE={charge}+\nSEQ={residues.decode(tokens)}\n" + "\n".join(lines) + "\nEND IONS\n"
    )


def _peaks(
    tokens: list[int], ions: NDArray[np.float64], residues: Residues, rng: np.random.Generator
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """m/z and intensities of the b, y, b++ and y++ ions, then of losses and isotopes."""
    ends = residues.n_terminal()
    masses = np.array([residues.table()[i] for i in tokens])
    if ends[tokens[0]]:  # a modification of the N-terminus is no cleavage of its own
        masses = np.append(masses[0] + masses[1], masses[2:])
    b = np.cumsum(masses)[:-1]
    y = masses.sum() - b + WATER
    neutral = np.stack([b, y, b, y])
    z = np.array([[1.0], [1.0], [2.0], [2.0]])
    intensity = ions * rng.lognormal(0.0, 0.4, ions.shape)
    yield (neutral / z + PROTON).ravel(), intensity.ravel()
    isotopes = 0.0005 * neutral * rng.lognormal(0.0, 0.2, ions.shape)
    yield ((neutral + ISOTOPE) / z + PROTON).ravel(), (intensity * isotopes).ravel()
    for loss in (WATER, AMMONIA):
        share = rng.uniform(0.0, 0.25, ions.shape) * (rng.random(ions.shape) < 0.4)
        yield ((neutral - loss) / z + PROTON).ravel(), (intensity * share).ravel()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("proteins", type=Path, help="FASTA file, gzip too")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--count", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    chosen.output.write_text(make_example(chosen.proteins, chosen.count, chosen.seed))


if __name__ == "__main__":
    main()
