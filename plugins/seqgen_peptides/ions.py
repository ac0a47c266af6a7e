"""The b and y ions that a peptide should leave, and the peaks of a spectrum that they explain.

A break behind residue n of L leaves b_n with the N-terminus and y_(L - n) with the C-terminus
(Roepstorff and Fohlman, Biomedical Mass Spectrometry 1984).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from seqgen_peptides.masses import WATER, to_mz

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from seqgen_peptides.residues import Residues

TOLERANCE_PPM = 20.0
"""A peak this near to an ion is explained by it; Orbitrap spectra are within a few ppm."""
MOST_CHARGE = 3
"""Highest charge of a fragment that is looked for."""


@dataclass(frozen=True)
class Ion:
    """A fragment.

    Attributes:
        series: `b` or `y`.
        number: how many residues it holds.
        charge: of the fragment.
        mz: where it should be.
    """

    series: str
    number: int
    charge: int
    mz: float

    @property
    def label(self) -> str:
        """`y7`, or `y7²⁺` (in matplotlib's notation) where it has more than one charge."""
        return f"{self.series}{self.number}" + (f"$^{{{self.charge}+}}$" if self.charge > 1 else "")


@dataclass(frozen=True)
class Match:
    """An ion and its peak: the peak's place among the spectrum's, and how far off it is in ppm."""

    ion: Ion
    peak: int
    error_ppm: float


@dataclass(frozen=True)
class Site:
    """A residue of a peptide: its letter, what modifications add to it, and its mass, in Da.

    A modification of the N-terminus counts with the first residue.
    """

    letter: str
    added: float
    mass: float


def sites(peptide: str, residues: Residues) -> list[Site]:
    """Residues of a ProForma peptide, from the N-terminus.

    Raises:
        InputError: it is no peptide, or a modification's mass is not known.
    """
    known = residues.covering([peptide])
    found: list[Site] = []
    waiting = 0.0
    for token in known.split(peptide):
        mass = known.masses[token]
        if token.endswith("-"):
            waiting += mass
            continue
        added = waiting + mass - known.masses.get(token[0], mass)
        found.append(Site(token[0], added, mass + waiting))
        waiting = 0.0
    return found


def ions(masses: Sequence[float], charge: int) -> list[Ion]:
    """b and y ions of a peptide, of charge 1 and up to one less than the precursor's.

    Args:
        masses: of the residues in Da, from the N-terminus.
        charge: of the precursor.
    """
    prefix = np.cumsum(masses)
    charges = range(1, min(max(1, charge - 1), MOST_CHARGE) + 1)
    found = []
    for cut in range(1, len(masses)):
        b, y = float(prefix[cut - 1]), float(prefix[-1] - prefix[cut - 1]) + WATER
        for z in charges:
            found.append(Ion("b", cut, z, to_mz(b, z)))
            found.append(Ion("y", len(masses) - cut, z, to_mz(y, z)))
    return found


def match(
    expected: Sequence[Ion],
    mz: NDArray[np.float64],
    intensity: NDArray[np.floating],
    *,
    tolerance_ppm: float = TOLERANCE_PPM,
) -> list[Match]:
    """The ions that a spectrum shows: each with the highest peak within the tolerance.

    Args:
        mz: [P], rising.
        intensity: [P].
    """
    found = []
    for ion in expected:
        width = ion.mz * tolerance_ppm * 1e-6
        first = int(np.searchsorted(mz, ion.mz - width, side="left"))
        last = int(np.searchsorted(mz, ion.mz + width, side="right"))
        if first < last:
            peak = first + int(np.argmax(intensity[first:last]))
            found.append(Match(ion, peak, float(mz[peak] / ion.mz - 1) * 1e6))
    return found
