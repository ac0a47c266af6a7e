"""Spectra: an item of a run, and a batch of preprocessed ones.

Shapes: B batch, P peaks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from seqgen.errors import InputError
from seqgen_peptides.masses import neutral_mass

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class SpectrumItem:
    """One spectrum of a file; light until its peaks are read (a run may list millions).

    Attributes:
        id: `file.mgf:index=7` (mzML and mzXML: `file.mzML:scan=19`).
        path: the file; `-` is standard input.
        name: the file's part of the id: its path below the folder that was given.
        offset: where it begins in the (uncompressed) file, in bytes; None if it has no peaks.
        title: what the file calls it; empty until its peaks are read.
        precursor_mz: of the precursor; None where the file does not say.
        charges: of the precursor: one, or every possible one the file names, or none.
        peptide: annotated sequence as the file spells it (ProForma), or None.
        mz, intensity: raw peaks as the file orders them, float64 and float32 [P]; None until read.
        problem: why it cannot be decoded, found while listing.
    """

    id: str
    path: Path
    name: str
    offset: int | None = None
    title: str = ""
    precursor_mz: float | None = None
    charges: tuple[int, ...] = ()
    peptide: str | None = None
    mz: NDArray[np.float64] | None = field(default=None, repr=False, compare=False)
    intensity: NDArray[np.float32] | None = field(default=None, repr=False, compare=False)
    problem: InputError | None = None

    @property
    def reference(self) -> str:
        """mzTab's name of the spectrum within the file: `index=7`, `scan=19`."""
        return self.id[len(self.name) + 1 :]

    @property
    def charge(self) -> int | None:
        """The precursor's charge, if there is no doubt about it."""
        return self.charges[0] if len(self.charges) == 1 else None

    @property
    def size(self) -> float:
        """Neutral mass of the precursor: longer peptides take longer."""
        if self.precursor_mz is None or not self.charges:
            return 0.0
        return max(0.0, round(neutral_mass(self.precursor_mz, self.charges[0]), 3))


@dataclass(frozen=True)
class SpectrumBatch:
    """Preprocessed spectra, ready for a model.

    Attributes:
        mz_BP: float64, by rising m/z; 0 where `valid_BP` is False (behind the last peak).
        intensity_BP: float32.
        valid_BP: bool, peaks in use.
        precursor_mz_B: float64.
        charge_B: int64.
    """

    mz_BP: Tensor
    intensity_BP: Tensor
    valid_BP: Tensor
    precursor_mz_B: Tensor
    charge_B: Tensor

    @property
    def mass_B(self) -> Tensor:
        """Neutral masses of the precursors in Da, float64."""
        from seqgen_peptides.masses import PROTON

        return (self.precursor_mz_B - PROTON) * self.charge_B

    def to(self, device: torch.device) -> SpectrumBatch:
        """The same on another device."""
        return SpectrumBatch(**{name: value.to(device) for name, value in vars(self).items()})

    @classmethod
    def of(
        cls,
        peaks: Sequence[tuple[NDArray[np.float64], NDArray[np.float32]]],
        precursor_mz: Sequence[float],
        charge: Sequence[int],
    ) -> SpectrumBatch:
        """A batch of preprocessed peaks (m/z and intensity of each spectrum)."""
        import numpy as np
        import torch

        width = max(1, max(len(mz) for mz, _ in peaks))
        mz_BP = np.zeros((len(peaks), width))
        intensity_BP = np.zeros((len(peaks), width), dtype=np.float32)
        valid_BP = np.zeros((len(peaks), width), dtype=bool)
        for row, (mz, intensity) in enumerate(peaks):
            mz_BP[row, : len(mz)] = mz
            intensity_BP[row, : len(mz)] = intensity
            valid_BP[row, : len(mz)] = True
        return cls(
            torch.from_numpy(mz_BP),
            torch.from_numpy(intensity_BP),
            torch.from_numpy(valid_BP),
            torch.tensor(precursor_mz, dtype=torch.float64),
            torch.tensor(charge, dtype=torch.int64),
        )
