"""Candidate-ion evidence: how well each possible next residue is supported by the peaks.

With the residues decoded so far (from the C-terminus, together m Da), a next residue of mass a
would put fragment ions at known m/z. For each of eight ions the evidence is the intensity of the
nearest peak, weighed by its distance in ppm (the idea of DeepNovo, Tran et al. 2017, and PointNovo,
Qiao et al. 2021). A peptide can stop where the whole precursor is explained.

Shapes: B spectra, N rows (a multiple of B under beams), Q slots, V vocabulary, P peaks, I ions.
"""

from __future__ import annotations

import torch
from torch import Tensor

from seqgen_peptides.context import SpectrumContext
from seqgen_peptides.masses import AMMONIA, CARBON_MONOXIDE, PROTON, WATER
from seqgen_peptides.residues import FIRST, STOP

IONS = 8
"""y, b, y++, b++, y - NH3, y - H2O, b - H2O, a."""

SIGMA_PPM = 10.0
STOP_DALTONS = (0.01, 0.02, 0.05, 0.2, 0.5, 1.1, 2.0, 20.0)
"""How near to 0 the remaining mass must come: widths, in the ions' places in a stop's evidence."""


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
    found = matched_intensity(context, ions_NQVI.flatten(1)).view(ions_NQVI.shape)
    found[:, :, :FIRST] = 0
    widths_I = torch.tensor(STOP_DALTONS, device=found.device)
    left_NQ1 = (total_N1 - prefix_NQ).float()[..., None]
    found[:, :, STOP] = torch.exp(-0.5 * (left_NQ1 / widths_I) ** 2)
    return found


def matched_intensity(context: SpectrumContext, mz_NK: Tensor) -> Tensor:
    """Relative intensity at each m/z, float32 [N, K]: the better of the two neighbouring peaks."""
    assert context.mz_BP is not None
    assert context.intensity_BP is not None
    batch, peaks = context.mz_BP.shape
    # Hypotheses of a spectrum are consecutive rows: more questions to the same peaks.
    wanted_BK = mz_NK.reshape(batch, -1).contiguous()
    right_BK = torch.searchsorted(context.mz_BP, wanted_BK)
    best = wanted_BK.new_zeros((), dtype=torch.float32)
    for index_BK in (right_BK.clamp(max=peaks - 1), (right_BK - 1).clamp(min=0)):
        off_BK = (context.mz_BP.gather(1, index_BK) / wanted_BK - 1).float()
        near_BK = torch.exp(-0.5 * (off_BK * (1e6 / SIGMA_PPM)) ** 2)
        # A non-positive m/z is no ion.
        near_BK = torch.where(wanted_BK > 0, near_BK, 0.0)
        best = torch.maximum(best, near_BK * context.intensity_BP.gather(1, index_BK))
    return best.view(mz_NK.shape)


def repeat_rows(x_B: Tensor, rows: int) -> Tensor:
    """A value a spectrum for rows that are hypotheses of the spectra, in their order."""
    return x_B if x_B.shape[0] == rows else x_B.repeat_interleave(rows // x_B.shape[0], dim=0)
