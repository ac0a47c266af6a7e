"""What a peptide decoder is conditioned on: encoder states, peaks and the precursor.

Shapes: B spectra, P peaks, T encoder states.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from seqgen.model import Context
from seqgen_peptides.masses import WATER
from seqgen_peptides.spectra import SpectrumBatch


@dataclass(frozen=True)
class SpectrumContext(Context):
    """A batch of encoded spectra. Every field's first axis is the batch.

    Attributes:
        mz_BP: float64, m/z of the preprocessed peaks by rising m/z, infinite behind the last.
        intensity_BP: float32, relative to the highest peak of the spectrum.
        precursor_mz_B: float64.
        charge_B: int64.
        mass_B: neutral mass of the precursor, float64.
    """

    mz_BP: Tensor | None = None
    intensity_BP: Tensor | None = None
    precursor_mz_B: Tensor | None = None
    charge_B: Tensor | None = None
    mass_B: Tensor | None = None

    @property
    def residue_mass_B(self) -> Tensor:
        """Sum of all residue masses: the precursor without water, float64."""
        assert self.mass_B is not None
        return self.mass_B - WATER

    @classmethod
    def of(cls, batch: SpectrumBatch, states_BTD: Tensor, valid_BT: Tensor) -> SpectrumContext:
        """The context of a batch, given the encoder's states."""
        highest = batch.intensity_BP.amax(dim=1, keepdim=True).clamp(min=1e-12)
        return cls(
            states_BTD=states_BTD,
            valid_BT=valid_BT,
            mz_BP=torch.where(batch.valid_BP, batch.mz_BP, torch.inf),
            intensity_BP=batch.intensity_BP / highest,
            precursor_mz_B=batch.precursor_mz_B,
            charge_B=batch.charge_B,
            mass_B=batch.mass_B,
        )
