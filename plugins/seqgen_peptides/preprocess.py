"""Preprocessing of peaks as Casanovo 5 does it, every threshold an option.

In this order: keep an m/z range, drop the precursor's own peaks, take square roots relative to the
highest peak, drop what is below a share of it, keep the strongest, scale to unit norm.

Source: casanovo/denovo/dataloaders.py (5.2), which calls spectrum_utils 0.4 (Bittremieux et al.).

Shapes: P peaks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from seqgen.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

HYDROGEN = 1.007825
"""What spectrum_utils adds to a mass a charge; kept so that the windows have its very edges."""


@dataclass(frozen=True)
class PreprocessConfig:
    """Thresholds; the defaults are Casanovo's but for `min_peaks` (20 there).

    Attributes:
        min_mz, max_mz: range of m/z that is kept, both ends included.
        precursor_window: Da around the precursor, at its charge and every lower one, in which peaks
            are dropped; 0 keeps them.
        min_intensity: peaks stay if the root of their intensity is above this share of the highest.
        n_peaks: most peaks kept, the strongest.
        min_peaks: fewer are an error. The default asks for one a residue of the shortest peptide.
        max_charge: precursors with more charges are an error.
    """

    min_mz: float = 50.0
    max_mz: float = 2500.0
    precursor_window: float = 2.0
    min_intensity: float = 0.01
    n_peaks: int = 150
    min_peaks: int = 6
    max_charge: int = 4


def preprocess(
    mz: NDArray[np.float64],
    intensity: NDArray[np.float32],
    precursor_mz: float,
    charge: int,
    config: PreprocessConfig = PreprocessConfig(),
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """The peaks a model sees: m/z [P] rising, intensity [P] of unit norm.

    Args:
        mz, intensity: raw peaks in any order. Peaks of equal m/z stay apart.

    Raises:
        InputError: the peaks or the charge cannot be used, or too few peaks are left.
    """
    _check_charge(charge, config.max_charge)
    _check_peaks(mz, intensity)
    if (mz[1:] < mz[:-1]).any():
        order = np.argsort(mz, kind="stable")
        mz, intensity = mz[order], intensity[order]
    first, end = np.searchsorted(mz, config.min_mz), np.searchsorted(mz, config.max_mz, "right")
    mz, intensity = mz[first:end], intensity[first:end].astype(np.float32)
    if config.precursor_window > 0:
        away = _away_from_precursor(mz, precursor_mz, charge, config.precursor_window)
        mz, intensity = mz[away], intensity[away]
    if not intensity.any():
        raise InputError(
            "no peak is left",
            why=f"none with an intensity lies between m/z {config.min_mz:g} and "
            f"{config.max_mz:g} and away from the precursor",
        )
    root = np.sqrt(intensity)
    root /= root.max()
    keep = _strongest(root, config.min_intensity, config.n_peaks)
    mz, root = mz[keep], root[keep]
    if len(mz) < config.min_peaks:
        raise InputError(
            f"too few peaks: {len(mz)} after preprocessing, at least {config.min_peaks} are needed",
            fix=f"--set min_peaks={len(mz)} decodes it all the same",
        )
    return mz, root / np.linalg.norm(root)


def _check_charge(charge: int, most: int) -> None:
    if charge < 1:
        raise InputError(
            f"the precursor's charge is {charge}",
            fix="state a charge of 1 or more, or none: then the charges of "
            "--set unknown_charges are tried",
        )
    if charge > most:
        raise InputError(
            f"the precursor's charge {charge} is above {most}",
            why="models know the charges that they were trained on",
        )


def _check_peaks(mz: NDArray[np.float64], intensity: NDArray[np.float32]) -> None:
    if len(mz) != len(intensity):
        raise InputError(f"{len(mz)} m/z values but {len(intensity)} intensities")
    if len(mz) == 0:
        raise InputError("the spectrum has no peaks")
    for name, values in (("m/z", mz), ("intensity", intensity)):
        bad = ~(np.isfinite(values) & (values >= 0))
        if bad.any():
            place = int(bad.argmax())
            kind = "negative" if np.isfinite(values[place]) else "not a finite number"
            raise InputError(
                f"the {name} of peak {place + 1} is {values[place]:g}",
                why=f"{int(bad.sum())} of {len(values)} peaks: {kind}",
                fix="export the spectrum anew, or remove these peaks",
            )


def _away_from_precursor(
    mz: NDArray[np.float64], precursor_mz: float, charge: int, window: float
) -> NDArray[np.bool_]:
    mass = (precursor_mz - HYDROGEN) * charge
    centres = mass / np.arange(1, charge + 1) + HYDROGEN
    return np.asarray((np.abs(mz[:, None] - centres) > window).all(axis=1))


def _strongest(root: NDArray[np.float32], least: float, most: int) -> NDArray[np.bool_]:
    """The `most` strongest of those above `least`; of equal ones the later, as a stable sort."""
    keep = np.asarray(root > least)
    if np.count_nonzero(keep) > most:
        chosen = np.argsort(root, kind="stable")[-most:]
        keep = np.zeros(len(root), dtype=np.bool_)
        keep[chosen] = True
    return keep
