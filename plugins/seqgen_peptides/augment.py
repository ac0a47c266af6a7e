"""Spectra from predicted ion intensities, with what a real instrument adds and loses.

Peaks of the b and y series come from `simulate.Simulated`; added are a ions, losses of ammonia and
water, first isotopes, immonium ions and noise, and errors of intensity, of m/z and of the
precursor. A threshold drops what is weak. Everything is drawn anew for every batch.

Shapes: B spectra, C cleavages, L residues, N noise peaks, K candidates for a peak.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from seqgen_peptides.masses import AMMONIA, CARBON_MONOXIDE, ISOTOPE, PROTON, WATER
from seqgen_peptides.preprocess import PreprocessConfig
from seqgen_peptides.spectra import SpectrumBatch


@dataclass(frozen=True)
class AugmentConfig:
    """How far a simulated spectrum departs from the prediction.

    Attributes:
        intensity: standard deviation of the log of a peak's intensity.
        missing: share of ions lost altogether.
        threshold: peaks below a share of the highest one are lost; the share is drawn
            log-uniformly from this range.
        losses: greatest share of a peak that its neutral losses get.
        noise: fewest and most noise peaks.
        noise_level: their intensity, relative to the highest peak, log-uniformly from this range.
        real_noise: share of spectra whose noise comes from real unmatched peaks, where given.
        mz_ppm, offset_ppm: standard deviations of a peak's error and of a spectrum's common error.
        precursor_ppm: of the precursor's error.
    """

    intensity: float = 0.7
    missing: float = 0.12
    threshold: tuple[float, float] = (0.003, 0.05)
    losses: float = 0.3
    noise: tuple[int, int] = (3, 150)
    noise_level: tuple[float, float] = (0.004, 0.35)
    real_noise: float = 0.5
    mz_ppm: float = 3.0
    offset_ppm: float = 3.0
    precursor_ppm: float = 4.0


@dataclass(frozen=True)
class Fragments:
    """Predicted ions of a batch of peptides.

    Attributes:
        masses_BL: float64, residue masses from the N-terminus, 0 behind the last; a modification
            of the N-terminus is added to the first.
        length_B: residues.
        intensities_B4C: float32, of b, y, b++ and y++ at each cleavage from the N-terminus.
        charge_B: of the precursor.
    """

    masses_BL: Tensor
    length_B: Tensor
    intensities_B4C: Tensor
    charge_B: Tensor


def spectra(
    fragments: Fragments,
    config: AugmentConfig,
    preprocess: PreprocessConfig,
    generator: torch.Generator,
    *,
    noise_BN: tuple[Tensor, Tensor] | None = None,
) -> SpectrumBatch:
    """Draw a batch of spectra, preprocessed as real ones are.

    Args:
        noise_BN: m/z and relative intensity of real unmatched peaks for each row (0 for none).
    """
    peaks = _Peaks(generator)
    rand, randn = peaks.rand, peaks.randn
    B, C = fragments.intensities_B4C.shape[0], fragments.intensities_B4C.shape[2]
    place_C = torch.arange(C)
    valid_BC = place_C < fragments.length_B[:, None] - 1
    total_B1 = fragments.masses_BL.sum(dim=1, keepdim=True)
    b_BC = fragments.masses_BL.cumsum(dim=1)[:, :C]
    y_BC = total_B1 - b_BC + WATER

    ions_B4C = fragments.intensities_B4C * torch.exp(config.intensity * randn(B, 4, C))
    ions_B4C = ions_B4C * (rand(B, 4, C) > config.missing * 2 * rand(B, 1, 1)) * valid_BC[:, None]
    b, y, b2, y2 = ions_B4C.unbind(dim=1)
    share = config.losses * rand(B, 1)
    peaks.add(b_BC + PROTON, b)
    peaks.add(y_BC + PROTON, y)
    peaks.add(b_BC / 2 + PROTON, b2)
    peaks.add(y_BC / 2 + PROTON, y2)
    isotope_B1 = (rand(B, 1) < 0.7).float()
    for mass_BC, ion in ((b_BC, b), (y_BC, y)):
        peaks.add(mass_BC - AMMONIA + PROTON, ion * share * rand(B, C) ** 2)
        peaks.add(mass_BC - WATER + PROTON, ion * share * rand(B, C) ** 2)
        # About one carbon-13 in 1800 Da of averagine.
        peaks.add(mass_BC + ISOTOPE + PROTON, ion * isotope_B1 * (mass_BC / 1800).float())
    peaks.add((y_BC + ISOTOPE) / 2 + PROTON, y2 * isotope_B1 * (y_BC / 1800).float())
    a_BC = b * share * rand(B, C)
    a_BC[:, 1] = a_BC[:, 1] + b[:, 1] * rand(B)  # a2 stands out
    peaks.add(b_BC - CARBON_MONOXIDE + PROTON, a_BC)
    top_B1 = ions_B4C.flatten(1).amax(dim=1, keepdim=True).clamp(min=1e-9)
    immonium_BL = top_B1 * 0.3 * rand(B, fragments.masses_BL.shape[1]) ** 4
    heavy_BL = fragments.masses_BL > 110
    peaks.add(fragments.masses_BL - CARBON_MONOXIDE + PROTON, immonium_BL * heavy_BL)
    # Precursor without water or ammonia.
    charge_B1 = fragments.charge_B[:, None]
    for loss in (WATER, AMMONIA, 2 * WATER):
        left = (total_B1 + WATER - loss) / charge_B1 + PROTON
        peaks.add(left, top_B1 * 0.5 * rand(B, 1) ** 4)
    _add_noise(peaks, config, total_B1, top_B1, noise_BN)

    mz_BK, intensity_BK = peaks.joined()
    ppm = config.offset_ppm * randn(B, 1) + config.mz_ppm * randn(*mz_BK.shape)
    mz_BK = mz_BK * (1 + 1e-6 * ppm.double())
    precursor_mz_B = (total_B1 + WATER)[:, 0] / fragments.charge_B + PROTON
    precursor_mz_B = precursor_mz_B * (1 + 1e-6 * config.precursor_ppm * randn(B).double())
    low, high = config.threshold
    floor_B1 = low * (high / low) ** rand(B, 1)
    intensity_BK = intensity_BK * (intensity_BK >= floor_B1 * intensity_BK.amax(1, keepdim=True))
    return _preprocessed(mz_BK, intensity_BK, precursor_mz_B, fragments.charge_B, preprocess)


class _Peaks:
    """Peaks collected from several sources, and the random numbers of the batch."""

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator
        self.parts: list[tuple[Tensor, Tensor]] = []

    def rand(self, *shape: int) -> Tensor:
        return torch.rand(*shape, generator=self.generator)

    def randn(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator)

    def add(self, mz_BK: Tensor, intensity_BK: Tensor) -> None:
        self.parts.append((mz_BK, intensity_BK))

    def joined(self) -> tuple[Tensor, Tensor]:
        return tuple(torch.cat(parts, dim=1) for parts in zip(*self.parts, strict=True))  # type: ignore[return-value]


def _add_noise(
    peaks: _Peaks,
    config: AugmentConfig,
    total_B1: Tensor,
    top_B1: Tensor,
    real_BN: tuple[Tensor, Tensor] | None,
) -> None:
    rand, B = peaks.rand, len(total_B1)
    low, high = config.noise_level
    few, many = config.noise
    most = few + (many - few) * rand(B, 1) ** 2
    wanted = torch.arange(many) < most
    level = low * (high / low) ** (rand(B, 1) * rand(B, many))
    nominal = (100 + rand(B, many).double() * (total_B1 - 60)).round()
    # Masses of peptides lie near 1.0005 a unit, doubly charged ones at halves; some anywhere.
    mz = nominal * 1.00048 + 0.05 * peaks.randn(B, many).double()
    mz = torch.where(rand(B, many) < 0.2, mz / 2 + 0.25, mz)
    drawn = top_B1 * level * wanted
    if real_BN is not None:
        use_B1 = rand(B, 1) < config.real_noise
        drawn = drawn * torch.where(use_B1, 0.3, 1.0)
        mz_BN, intensity_BN = real_BN
        scale = top_B1 * use_B1 * (0.1 + 0.9 * rand(B, 1))
        peaks.add(mz_BN, intensity_BN * scale)
    peaks.add(mz, drawn)


def _preprocessed(
    mz_BK: Tensor,
    intensity_BK: Tensor,
    precursor_mz_B: Tensor,
    charge_B: Tensor,
    config: PreprocessConfig,
) -> SpectrumBatch:
    """The steps of `preprocess.preprocess` for a batch whose absent peaks have intensity 0."""
    inside = (mz_BK >= config.min_mz) & (mz_BK <= config.max_mz)
    away = (mz_BK - precursor_mz_B[:, None]).abs() > config.precursor_window
    intensity_BK = (intensity_BK * (inside & away)).clamp(min=0).sqrt()
    highest = intensity_BK.amax(dim=1, keepdim=True).clamp(min=1e-9)
    intensity_BK = torch.where(intensity_BK >= config.min_intensity * highest, intensity_BK, 0.0)
    kept = min(config.n_peaks, intensity_BK.shape[1])
    best_BP, index_BP = intensity_BK.topk(kept, dim=1)
    width = max(1, int((best_BP > 0).sum(dim=1).max()))
    best_BP, index_BP = best_BP[:, :width], index_BP[:, :width]
    valid_BP = best_BP > 0
    mz_BP = torch.where(valid_BP, mz_BK.gather(1, index_BP), torch.inf)
    mz_BP, order_BP = mz_BP.sort(dim=1)
    best_BP, valid_BP = best_BP.gather(1, order_BP), valid_BP.gather(1, order_BP)
    return SpectrumBatch(
        mz_BP=torch.where(valid_BP, mz_BP, 0.0),
        intensity_BP=F.normalize(best_BP, dim=1),
        valid_BP=valid_BP,
        precursor_mz_B=precursor_mz_B,
        charge_B=charge_B,
    )
