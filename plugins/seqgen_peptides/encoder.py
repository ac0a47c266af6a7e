"""The spectrum encoder: one state a peak, and one for the precursor.

A peak enters as sines of its m/z and of the m/z of its complement (what is left of the precursor:
a b ion's complement is the y ion of the same cleavage), and its intensity. Attention rotates
queries and keys by m/z, so that a head can look for peaks at a given mass distance (a residue).

Shapes: B spectra, P peaks, T = 1 + P states, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from seqgen.attention import MaskView
from seqgen.masks import Full, SlotInfo
from seqgen.transformer import Transformer, TransformerConfig
from seqgen_peptides.evidence import EVIDENCE_STD, LADDER, ladder_evidence
from seqgen_peptides.masses import PROTON
from seqgen_peptides.residues import Residues
from seqgen_peptides.sines import MassSines
from seqgen_peptides.spectra import SpectrumBatch

MAX_CHARGE = 10
INTENSITY_FEATURES = 2
RADIANS_PER_DALTON = 40.0
"""Finest rotation by m/z: a turn is 0.16 Da, so distances are told apart to about 0.02 Da."""


@dataclass(frozen=True)
class EncoderConfig:
    """Sizes and inputs of the encoder.

    Attributes:
        transformer: its sizes.
        sines: width of the sine features of a mass.
        complement: sines of the complement's m/z as further features of a peak.
        rotary: rotate attention by m/z; False gives no positions, as in the published models.
        ladder: for each peak, which residues lead to another peak (`evidence.ladder_evidence`).
    """

    transformer: TransformerConfig
    sines: int = 128
    complement: bool = True
    rotary: bool = True
    ladder: bool = True


class SpectrumEncoder(nn.Module):
    """Preprocessed spectra -> states [B, 1 + P, D]."""

    masses_V: Tensor

    def __init__(self, config: EncoderConfig, residues: Residues) -> None:
        super().__init__()
        self.config = config
        width = config.transformer.width
        self.sines = MassSines(config.sines)
        features = config.sines * (2 if config.complement else 1) + INTENSITY_FEATURES
        self.peak = nn.Linear(features, width)
        if config.ladder:
            self.steps = nn.Linear(len(residues) * LADDER, width, bias=False)
            nn.init.normal_(self.steps.weight, std=EVIDENCE_STD)
        table = torch.tensor(residues.table(), dtype=torch.float64)
        self.register_buffer("masses_V", table, persistent=False)
        self.precursor = nn.Linear(config.sines, width)
        self.charge = nn.Embedding(MAX_CHARGE + 1, width)
        nn.init.normal_(self.charge.weight, std=width**-0.5)
        self.transformer = Transformer(config.transformer)

    def forward(self, batch: SpectrumBatch) -> tuple[Tensor, Tensor]:
        """States [B, 1 + P, D] and which of them are in use, bool [B, 1 + P]."""
        dtype = self.peak.weight.dtype
        highest = batch.intensity_BP.amax(dim=1, keepdim=True).clamp(min=1e-12)
        relative = (batch.intensity_BP / highest)[..., None]
        parts = [self.sines(batch.mz_BP), relative, relative.clamp(min=1e-4).log()]
        if self.config.complement:
            # Of singly charged fragments: m/z and complement add up to M + 2 protons.
            parts.append(self.sines(batch.mass_B[:, None] + 2 * PROTON - batch.mz_BP))
        peaks = self.peak(torch.cat(parts, dim=-1).to(dtype))
        if self.config.ladder:
            mz_BP = torch.where(batch.valid_BP, batch.mz_BP, torch.inf)
            found = ladder_evidence(mz_BP, relative[..., 0], batch.mass_B, self.masses_V)
            peaks = peaks + self.steps(found.flatten(2).to(dtype))
        charge = self.charge(batch.charge_B.clamp(max=MAX_CHARGE))
        first = self.precursor(self.sines(batch.mass_B).to(dtype)) + charge
        x = torch.cat([first[:, None], peaks], dim=1)

        valid = torch.nn.functional.pad(batch.valid_BP, (1, 0), value=True)
        slots = torch.arange(valid.shape[1], device=valid.device)[None]
        info = SlotInfo(group=torch.zeros_like(slots), position=slots)
        coordinates = torch.zeros_like(valid, dtype=torch.float64)
        if self.config.rotary:
            coordinates[:, 1:] = batch.mz_BP * RADIANS_PER_DALTON
        view = MaskView(Full(), info, info, valid)
        return self.transformer(x, coordinates[..., None], view=view), valid

    def _apply(self, fn: object, recurse: bool = True) -> SpectrumEncoder:
        """Move to a device; the masses stay float64 whatever the type of the weights."""
        kept = self.masses_V
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.masses_V = kept.to(self.masses_V.device)
        return self
