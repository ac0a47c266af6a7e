"""Candidate-ion evidence: how well each possible next residue is supported by the peaks.

With the residues decoded so far (from the C-terminus, together m Da), a next residue of mass a
would put fragment ions at known m/z. For each of eight ions the evidence is the intensity of the
nearest peak, weighed by its distance in ppm (the idea of DeepNovo, Tran et al. 2017, and PointNovo,
Qiao et al. 2021). A peptide can stop where the whole precursor is explained.

Shapes: B spectra, N rows (a multiple of B under beams), Q slots, V vocabulary, P peaks, I ions.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from seqgen_peptides.context import SpectrumContext
from seqgen_peptides.masses import AMMONIA, CARBON_MONOXIDE, PROTON, WATER
from seqgen_peptides.residues import FIRST, STOP

IONS = 8
"""y, b, y++, b++, y - NH3, y - H2O, b - H2O, a."""

LADDER = 6
"""Up, down, their complements, up and down at charge 2."""

WAYS = 4
"""Series y or b, the other peak itself or its complement."""

SIGMA_PPM = 10.0
STOP_DALTONS = (0.01, 0.02, 0.05, 0.2, 0.5, 1.1, 2.0, 20.0)
"""How near to 0 the remaining mass must come: widths, in the ions' places in a stop's evidence."""


EVIDENCE_STD = 0.3
"""Initial weights of layers that read evidence: few of its entries differ from 0."""


def ion_evidence(context: SpectrumContext, prefix_NQ: Tensor, masses_V: Tensor) -> Tensor:
    """Evidence float32 [N, Q, V, I], all in [0, 1].

    Args:
        prefix_NQ: float64, sum of the residue masses decoded so far, from the C-terminus.
        masses_V: float64, mass of each id; 0 for padding and stop.
    """
    total_N1 = repeat_rows(context.residue_mass_B, prefix_NQ.shape[0])[:, None]
    y_NQV = prefix_NQ[..., None] + masses_V + WATER
    b_NQV = total_N1[..., None] - prefix_NQ[..., None] - masses_V
    ions_NQVI = torch.stack(
        [
            y_NQV + PROTON,
            b_NQV + PROTON,
            y_NQV / 2 + PROTON,
            b_NQV / 2 + PROTON,
            y_NQV - AMMONIA + PROTON,
            y_NQV - WATER + PROTON,
            b_NQV - WATER + PROTON,
            b_NQV - CARBON_MONOXIDE + PROTON,
        ],
        dim=-1,
    )
    assert context.mz_BP is not None
    assert context.intensity_BP is not None
    found = matched_intensity(context.mz_BP, context.intensity_BP, ions_NQVI.flatten(1))
    found = found.view(ions_NQVI.shape)
    found[:, :, :FIRST] = 0
    widths_I = torch.tensor(STOP_DALTONS, device=found.device)
    left_NQ1 = (total_N1 - prefix_NQ).float()[..., None]
    found[:, :, STOP] = torch.exp(-0.5 * (left_NQ1 / widths_I) ** 2)
    return found


def ladder_evidence(
    mz_BP: Tensor, intensity_BP: Tensor, mass_B: Tensor, masses_V: Tensor
) -> Tensor:
    """For each peak and residue: is there a peak one residue on? float32 [B, P, V, L], in [0, 1].

    Steps of the ladder: up and down by the residue's mass, at charge 1; the complements of these
    two (the other series' ions of the same cleavage); up and down at charge 2. It tells an encoder
    what the edges of a spectrum graph tell (Dancik et al. 1999).

    Args:
        mz_BP: float64, infinite behind the last peak.
        mass_B: neutral masses of the precursors.
    """
    # Absent peaks ask for nothing.
    mz_BP1 = torch.where(mz_BP.isfinite(), mz_BP, -1e4).float()[..., None]
    mass_V = masses_V.float()
    other_BP1 = (mass_B + 2 * PROTON).float()[:, None, None] - mz_BP1
    other_BP1 = torch.where(mz_BP1 > 0, other_BP1, -1e4)
    wanted_BPVL = torch.stack(
        [
            mz_BP1 + mass_V,
            mz_BP1 - mass_V,
            other_BP1 - mass_V,
            other_BP1 + mass_V,
            mz_BP1 + mass_V / 2,
            mz_BP1 - mass_V / 2,
        ],
        dim=-1,
    )
    found = matched_intensity(mz_BP, intensity_BP, wanted_BPVL.flatten(1)).view(wanted_BPVL.shape)
    found[:, :, :FIRST] = 0
    return found


def slot_evidence(context: SpectrumContext, masses_V: Tensor, slots: int) -> Tensor:
    """For each slot of an even division of the mass and each residue: do two peaks enclose it?

    Two peaks of one series, a residue's mass apart, place the residue: its middle lies between
    them. A peak may belong to the y or to the b series, and the other peak may be seen itself or
    as its complement: four ways, float32 [B, S, V, W], the root of summed intensities. The ends of
    the peptide, where both series begin, count as peaks.
    """
    assert context.mz_BP is not None
    assert context.intensity_BP is not None
    assert context.mass_B is not None
    total_B11 = context.residue_mass_B[:, None, None]
    ends_B2 = total_B11.new_tensor([WATER + PROTON, PROTON]).expand(len(total_B11), -1)
    from_BP = torch.cat([ends_B2, context.mz_BP], dim=1)
    weight_BP = F.pad(context.intensity_BP, (2, 0), value=1.0)
    # A peak behind the last one leads nowhere.
    from_BP = torch.where(from_BP.isfinite(), from_BP, -1e4).float()
    mass_V, total_B11 = masses_V.float(), total_B11.float()
    to_BPV = from_BP[..., None] + mass_V
    other_BPV = (context.mass_B + 2 * PROTON).float()[:, None, None] - to_BPV
    other_BPV = torch.where(to_BPV > 0, other_BPV, -1e4)
    both_BPVX = torch.stack([to_BPV, other_BPV], dim=-1)
    found = matched_intensity(context.mz_BP, context.intensity_BP, both_BPVX.flatten(1))
    found = found.view(both_BPVX.shape) * weight_BP[..., None, None]
    found[:, :, :FIRST] = 0

    middle_BPV = to_BPV - mass_V / 2 - PROTON
    place = torch.stack([middle_BPV - WATER, total_B11 - middle_BPV], dim=-1) / total_B11[..., None]
    inside = (place > 0) & (place < 1)
    slot = (place.clamp(min=0) * slots).long().clamp(max=slots - 1)
    # The first end begins the y series only, the second the b series only.
    inside[:, 0, :, 1] = False
    inside[:, 1, :, 0] = False
    B, V, ways = len(from_BP), len(masses_V), WAYS
    series = torch.arange(2, device=slot.device)
    seen = torch.arange(2, device=slot.device)
    residue = torch.arange(V, device=slot.device)[:, None, None]
    index = (slot[..., None] * V + residue) * ways + 2 * series[:, None] + seen
    amount = found[..., None, :] * inside[..., None]
    summed = amount.new_zeros(B, slots * V * ways)
    summed.scatter_add_(1, index.flatten(1), amount.flatten(1))
    return summed.view(B, slots, V, ways).sqrt()


def matched_intensity(mz_BP: Tensor, intensity_BP: Tensor, wanted_NK: Tensor) -> Tensor:
    """Relative intensity at each m/z, float32 [N, K]: the better of the two neighbouring peaks.

    Args:
        mz_BP: by rising m/z, infinite behind the last peak.
        wanted_NK: hypotheses of a spectrum are consecutive rows.
    """
    batch, peaks = mz_BP.shape
    # They are more questions to the same peaks. A float32 is exact to 0.06 ppm.
    wanted_BK = wanted_NK.reshape(batch, -1).float().contiguous()
    mz_BP = mz_BP.float()
    right_BK = torch.searchsorted(mz_BP, wanted_BK)
    scale_BK = (1e6 / SIGMA_PPM * 0.5**0.5) / wanted_BK
    best = wanted_BK.new_zeros(())
    for index_BK in (right_BK.clamp(max=peaks - 1), (right_BK - 1).clamp(min=0)):
        off_BK = (mz_BP.gather(1, index_BK) - wanted_BK) * scale_BK
        near_BK = torch.exp(-off_BK * off_BK)
        best = torch.maximum(best, near_BK * intensity_BP.gather(1, index_BK))
    # A non-positive m/z is no ion.
    return torch.where(wanted_BK > 0, best, 0.0).view(wanted_NK.shape)


def repeat_rows(x_B: Tensor, rows: int) -> Tensor:
    """A value a spectrum for rows that are hypotheses of the spectra, in their order."""
    return x_B if x_B.shape[0] == rows else x_B.repeat_interleave(rows // x_B.shape[0], dim=0)
