"""Annotated spectra of an MGF file for validation and for noise: few enough to keep in memory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from seqgen.errors import InputError
from seqgen_peptides.data import PeptideBatch, reversed_targets
from seqgen_peptides.masses import AMMONIA, CARBON_MONOXIDE, ISOTOPE, PROTON, WATER
from seqgen_peptides.preprocess import PreprocessConfig, preprocess
from seqgen_peptides.residues import Residues
from seqgen_peptides.spectra import SpectrumBatch

if TYPE_CHECKING:
    from numpy.typing import NDArray

NOISE_PEAKS = 100
"""Unmatched peaks kept of a spectrum, drawn evenly over the ranks of intensity."""

Peaks = tuple["NDArray[np.float64]", "NDArray[np.float32]"]


def read_annotated(path: Path, residues: Residues, config: PreprocessConfig) -> PeptideBatch:
    """All spectra with a `SEQ` in the vocabulary, as one batch.

    Raises:
        InputError: there is none.
    """
    from pyteomics import mgf

    peaks: list[Peaks] = []
    precursors, charges, peptides = [], [], []
    with mgf.read(str(path), use_index=False) as spectra:
        for spectrum in spectra:
            params = spectrum["params"]
            if "seq" not in params:
                continue
            mz, charge = float(params["pepmass"][0]), int(params["charge"][0])
            try:
                ids = residues.encode(params["seq"])
                found = preprocess(
                    spectrum["m/z array"], spectrum["intensity array"], mz, charge, config
                )
            except InputError:
                continue  # a validation set may hold what the model cannot say
            peaks.append(found)
            precursors.append(mz)
            charges.append(charge)
            peptides.append(ids)
    if not peaks:
        raise InputError(f"{path} holds no annotated spectra", fix="give an MGF with SEQ= lines")
    lengths = torch.tensor([len(ids) for ids in peptides])
    ids_BL = torch.zeros(len(peptides), int(lengths.max()), dtype=torch.int64)
    for row, ids in enumerate(peptides):
        ids_BL[row, : len(ids)] = torch.tensor(ids)
    return PeptideBatch(
        SpectrumBatch.of(peaks, precursors, charges), reversed_targets(ids_BL, lengths), lengths
    )


def read_noise(path: Path, residues: Residues) -> tuple[Tensor, Tensor]:
    """m/z and relative intensity [spectra, N] of real peaks that no fragment ion explains.

    Of an annotated spectrum the peaks that match its b, y and a ions, their losses and isotopes are
    left out; of one without annotation the strongest tenth, and what is above a quarter of the
    highest peak.
    """
    from pyteomics import mgf, mzml

    rows_mz, rows_intensity = [], []
    if path.suffix.lower() == ".mzml":
        with mzml.MzML(str(path)) as spectra:
            raw = [
                (s["m/z array"], s["intensity array"], None) for s in spectra if s["ms level"] == 2
            ]
    else:
        with mgf.read(str(path), use_index=False) as spectra:
            raw = [(s["m/z array"], s["intensity array"], s["params"].get("seq")) for s in spectra]
    rng = np.random.default_rng(0)
    for mz, intensity, peptide in raw:
        if len(mz) < 20:
            continue
        relative = intensity / intensity.max()
        keep = (relative < 0.25) & (relative < np.quantile(relative, 0.9))
        if peptide is not None:
            keep = ~_explained(mz, residues.encode(peptide), residues)
        chosen = rng.permutation(np.flatnonzero(keep))[:NOISE_PEAKS]
        padding = NOISE_PEAKS - len(chosen)
        rows_mz.append(np.pad(mz[chosen], (0, padding), constant_values=1.0))
        rows_intensity.append(np.pad(relative[chosen], (0, padding)))
    if not rows_mz:
        raise InputError(f"{path} holds no spectra with 20 peaks or more to take noise from")
    return (
        torch.from_numpy(np.stack(rows_mz)).double(),
        torch.from_numpy(np.stack(rows_intensity)).float(),
    )


def _explained(mz: NDArray[np.float64], ids: list[int], residues: Residues) -> NDArray[np.bool_]:
    """Peaks within 30 ppm of a b or y ion, at charge 1 or 2, with usual losses and isotopes."""
    masses = np.array([residues.table()[i] for i in ids])
    b = masses.cumsum()
    y = masses[::-1].cumsum() + WATER
    neutral = np.concatenate([b, y])
    shifts = np.array([0.0, -AMMONIA, -WATER, -CARBON_MONOXIDE, ISOTOPE, 2 * ISOTOPE])
    shifted = (neutral[:, None] + shifts).ravel()
    ions = np.sort(np.concatenate([shifted + PROTON, shifted / 2 + PROTON]))
    place = np.searchsorted(ions, mz).clip(1, len(ions) - 1)
    nearest = np.minimum(np.abs(ions[place] - mz), np.abs(ions[place - 1] - mz))
    explained: NDArray[np.bool_] = nearest < 30e-6 * mz
    return explained
