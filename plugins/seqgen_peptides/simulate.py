"""Simulated fragment intensities for training, by ms2pip's offline model (extra `peptides-sim`).

    python -m seqgen_peptides.simulate peptides.txt.gz -o simulated.npz --count 300000 --seed 0

draws peptides from a list, gives them modifications and a charge, and keeps what ms2pip's HCDch2
model predicts for the b, y, b++ and y++ ions of every cleavage. Peaks with noise and errors of
measurement are made from that anew for every training batch (`augment.py`). Parts of the file are
kept beside it while it grows, so an interrupted run goes on where it stopped.

ms2pip: Declercq et al., Nucleic Acids Research 2023 (models HCD2019 and HCDch2).
"""

from __future__ import annotations

import argparse
import gzip
import logging
import random
import re
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from seqgen_peptides.modifications import read_modifications
from seqgen_peptides.residues import Residues

if TYPE_CHECKING:
    from numpy.typing import NDArray

IONS = ("b", "y", "b2", "y2")
"""Ion series of `Simulated.intensities`, in this order."""

PART = 20_000
"""Peptides predicted between two saves."""


@dataclass(frozen=True)
class SimulateConfig:
    """How peptides are modified and charged: the probabilities of each.

    Carbamidomethyl, the mark of alkylation, sits on nearly every cysteine of such data.
    """

    carbamidomethyl: float = 0.97
    oxidation: float = 0.25
    deamidation: float = 0.02
    acetyl: float = 0.025
    carbamyl: float = 0.025
    ammonia_loss: float = 0.25
    both: float = 0.003
    charges: tuple[float, ...] = (0.01, 0.57, 0.32, 0.10)
    min_length_3: int = 8
    min_length_4: int = 13


@dataclass(frozen=True)
class Simulated:
    """Predicted spectra, concatenated.

    Attributes:
        tokens: uint8, ids of all peptides from the N-terminus.
        token_ends: int64, where each peptide's tokens end.
        charges: uint8, precursor charges.
        intensities: float16 [4, cleavages], of `IONS` at each cleavage from the N-terminus,
            relative to the sum of a spectrum.
        cleavage_ends: int64, where each peptide's cleavages end.
    """

    tokens: NDArray[np.uint8]
    token_ends: NDArray[np.int64]
    charges: NDArray[np.uint8]
    intensities: NDArray[np.float16]
    cleavage_ends: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.charges)

    def save(self, path: Path) -> None:
        """Write one npz file."""
        temporary = path.with_suffix(".part.npz")
        np.savez(temporary, **vars(self))
        temporary.replace(path)

    @classmethod
    def load(cls, path: Path) -> Simulated:
        """Read a file that `save` wrote."""
        with np.load(path, allow_pickle=False) as arrays:
            return cls(**{name: arrays[name] for name in arrays.files})

    @classmethod
    def join(cls, parts: Sequence[Simulated]) -> Simulated:
        """Several parts as one."""
        return cls(
            np.concatenate([p.tokens for p in parts]),
            _joined_ends([p.token_ends for p in parts]),
            np.concatenate([p.charges for p in parts]),
            np.concatenate([p.intensities for p in parts], axis=1),
            _joined_ends([p.cleavage_ends for p in parts]),
        )


def read_peptides(path: Path) -> list[str]:
    """Sequences, one a line, plain or in ProForma, from a text file (gzip too)."""
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
        return [line.strip() for line in lines if line.strip()]


def simulate(
    peptides: Sequence[str],
    count: int,
    *,
    seed: int,
    folder: Path,
    config: SimulateConfig = SimulateConfig(),
    residues: Residues | None = None,
) -> Simulated:
    """Predict `count` peptidoforms drawn from `peptides`, each once before any comes again.

    Args:
        folder: where finished parts are kept; a run with the same arguments goes on with them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    residues = residues or Residues()
    order = list(range(len(peptides)))
    random.Random(seed).shuffle(order)
    parts, started = [], time.monotonic()
    for first in range(0, count, PART):
        file = folder / f"{seed}-{first}-{min(PART, count - first)}.npz"
        if not file.exists():
            rng = random.Random(f"{seed} {first}")
            chosen = [
                peptides[order[i % len(order)]] for i in range(first, min(first + PART, count))
            ]
            _predict(list(peptidoforms(chosen, rng, config)), residues).save(file)
            rate = (first + PART) / (time.monotonic() - started)
            print(f"{first + len(chosen)} of {count} peptides, {rate:.0f}/s", file=sys.stderr)
        parts.append(Simulated.load(file))
    return Simulated.join(parts)


def peptidoforms(
    peptides: Sequence[str], rng: random.Random, config: SimulateConfig
) -> Iterator[tuple[str, int]]:
    """(ProForma, charge) of each peptide, its modifications and charge drawn.

    A peptide that is given with modifications keeps those.
    """
    for peptide in peptides:
        if "[" in peptide:
            length = sum(c.isupper() for c in re.sub(r"\[[^]]*\]", "", peptide))
            yield peptide, _charge(length, rng, config)
            continue
        body = "".join(_modified(residue, rng, config) for residue in peptide)
        yield _n_terminal(peptide, rng, config) + body, _charge(len(peptide), rng, config)


def _modified(residue: str, rng: random.Random, config: SimulateConfig) -> str:
    if residue == "C" and rng.random() < config.carbamidomethyl:
        return "C[Carbamidomethyl]"
    if residue == "M" and rng.random() < config.oxidation:
        return "M[Oxidation]"
    if residue in "NQ" and rng.random() < config.deamidation:
        return f"{residue}[Deamidated]"
    return residue


def _n_terminal(peptide: str, rng: random.Random, config: SimulateConfig) -> str:
    draw = rng.random()
    if peptide[0] in "QC":  # pyro-glutamate
        return "[Ammonia-loss]-" if draw < config.ammonia_loss else ""
    for name, share in (
        ("[Acetyl]-", config.acetyl),
        ("[Carbamyl]-", config.carbamyl),
        ("[+25.980265]-", config.both),
    ):
        if draw < share:
            return name
        draw -= share
    return ""


def _charge(length: int, rng: random.Random, config: SimulateConfig) -> int:
    charge: int = rng.choices(range(1, len(config.charges) + 1), config.charges)[0]
    too_short = (charge >= 3 and length < config.min_length_3) or (
        charge >= 4 and length < config.min_length_4
    )
    return 2 if too_short else charge


def _predict(forms: Sequence[tuple[str, int]], residues: Residues) -> Simulated:
    try:
        from ms2pip.core import predict_batch
        from psm_utils import PSM, PSMList
    except ImportError as error:
        from seqgen.errors import PluginError

        raise PluginError(
            "simulating spectra needs ms2pip",
            why=str(error),
            fix="pip install 'ms2pip==4.1.2' (later versions hold no models), or give an npz file "
            "that was simulated before",
        ) from error
    logging.getLogger("ms2pip").setLevel(logging.WARNING)
    listed = PSMList(
        psm_list=[
            PSM(peptidoform=f"{form}/{charge}", spectrum_id=str(place))
            for place, (form, charge) in enumerate(forms)
        ]
    )
    tokens, charges, intensities = [], [], []
    for result in predict_batch(listed, model="HCDch2", processes=1):
        form, charge = forms[int(result.psm.spectrum_id)]
        if result.predicted_intensity is None:
            continue
        tokens.append(np.array(residues.encode(form), dtype=np.uint8))
        charges.append(charge)
        intensities.append(_linear(result.predicted_intensity))
    return Simulated(
        np.concatenate(tokens),
        np.cumsum([len(t) for t in tokens]),
        np.array(charges, dtype=np.uint8),
        np.concatenate(intensities, axis=1).astype(np.float16),
        np.cumsum([x.shape[1] for x in intensities]),
    )


def _linear(predicted: Any) -> NDArray[np.float64]:
    """Intensities [4, cleavages] that sum to 1, from ms2pip's log2(intensity + 0.001).

    ms2pip numbers ions from the end that they hold: y1 is the first of the y ions, but belongs to
    the last cleavage from the N-terminus.
    """
    log2 = np.stack([predicted[ion][:: -1 if ion.startswith("y") else 1] for ion in IONS])
    linear: NDArray[np.float64] = np.clip(2.0**log2 - 0.001, 0, None)
    total = linear.sum()
    return linear / total if total > 0 else linear


def _joined_ends(ends: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    offsets = np.cumsum([0, *[e[-1] for e in ends[:-1]]])
    return np.concatenate([e + offset for e, offset in zip(ends, offsets, strict=True)])


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("peptides", type=Path, help="sequences, one a line")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the npz file to write")
    parser.add_argument("--modifications", type=Path, help="YAML of further residues")
    parser.add_argument("--count", type=int, default=300_000)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    more = read_modifications(chosen.modifications) if chosen.modifications else {}
    folder = chosen.output.with_suffix(".parts")
    found = simulate(
        read_peptides(chosen.peptides),
        chosen.count,
        seed=chosen.seed,
        folder=folder,
        residues=Residues().extended(more),
    )
    found.save(chosen.output)
    print(f"{len(found)} spectra in {chosen.output}", file=sys.stderr)


if __name__ == "__main__":
    main()
