"""The precursor mass as a constraint: only peptides that weigh what the spectrometer measured.

    constraint = PrecursorMass.for_batch(
        residues, context.mass_B, context.charge_B, context.precursor_mz_B, tol_ppm=20.0
    )
    Beam(beams=5, stop_ids=(STOP,), constraint=constraint)

Peptides are decoded from the C-terminus; an N-terminal modification is the last value before the
stop. A value is allowed if the peptide can still come to an end within the tolerance, in the slots
that are left (`reachability.py`), so hypotheses do not run into dead ends.

Shapes: B spectra, N hypotheses, K windows (isotopes) a spectrum, V vocabulary, R residues.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from seqgen.canvas import Canvas
from seqgen.constraints import State
from seqgen.errors import ConfigError
from seqgen_peptides.masses import WATER
from seqgen_peptides.reachability import Reachability
from seqgen_peptides.residues import FIRST, STOP, Residues

ISOTOPE_STEP = 1.00335
"""Da from one isotope peak to the next, to the digits that Casanovo takes."""


def mass_windows(
    mass_B: Tensor,
    charge_B: Tensor,
    precursor_mz_B: Tensor,
    *,
    tol_ppm: float,
    isotopes: tuple[int, int],
) -> tuple[Tensor, Tensor]:
    """Least and greatest sum of residue masses (without water) a spectrum and isotope, [B, K].

    Casanovo's tolerance: |e| <= tol_ppm for an isotope, with e = (m/z of the peptide - (observed
    m/z - isotope * 1.00335 / charge)) / observed m/z * 1e6. Times the charge, it is one of mass.

    Args:
        mass_B, precursor_mz_B: neutral mass and m/z of the precursor, float64.
        isotopes: the first and the last isotope; (0, 1) also takes spectra whose precursor was
            picked one carbon-13 too heavy.

    Raises:
        ConfigError: the tolerance or the isotopes make no window.
    """
    if not tol_ppm > 0:
        raise ConfigError(f"the precursor tolerance must be more than 0 ppm, not {tol_ppm}")
    if isotopes[0] > isotopes[1]:
        raise ConfigError(f"the isotopes {isotopes} must be given as first and last")
    isotope_K = torch.arange(isotopes[0], isotopes[1] + 1, device=mass_B.device).double()
    centre_BK = mass_B.double()[:, None] - WATER - isotope_K * ISOTOPE_STEP
    half_B1 = (tol_ppm * 1e-6 * precursor_mz_B.double() * charge_B)[:, None]
    return centre_BK - half_B1, centre_BK + half_B1


def fits(
    residues: Residues,
    values_BNS: Tensor,
    length_BN: Tensor,
    low_BK: Tensor,
    high_BK: Tensor,
    *,
    min_length: int = 1,
) -> Tensor:
    """Which sequences are peptides within a window: bool [B, N].

    A peptide has at least `min_length` residues, and at most one N-terminal modification, at its
    end. Padding and a stop weigh nothing; what lies behind `length_BN` is not looked at.
    """
    device = values_BNS.device
    mass_V = torch.tensor(residues.table(), dtype=torch.float64, device=device)
    ends_V = torch.tensor(residues.n_terminal(), device=device)
    used_BNS = torch.arange(values_BNS.shape[-1], device=device) < length_BN[..., None]
    used_BNS = used_BNS & (values_BNS >= FIRST)
    mass_BN1 = (mass_V[values_BNS] * used_BNS).sum(dim=-1, keepdim=True)
    inside_BN = ((mass_BN1 >= low_BK[:, None]) & (mass_BN1 <= high_BK[:, None])).any(dim=-1)
    end_BNS = ends_V[values_BNS] & used_BNS
    # Nothing lies behind a modification.
    closed_BNS = end_BNS.cumsum(dim=-1) - end_BNS.long() > 0
    residues_BN = (used_BNS & ~end_BNS).sum(dim=-1)
    return inside_BN & ~(closed_BNS & used_BNS).any(dim=-1) & (residues_BN >= min_length)


@dataclass(frozen=True, eq=False)
class PrecursorMass:
    """A `seqgen.constraints.Constraint`; made for a batch by `for_batch`.

    The state is what is left of the windows of mass [N, K] (low, high), the number of residues
    [N], and whether an N-terminal modification has been placed [N].

    Attributes:
        low_BK, high_BK: windows of the sum of residue masses, float64.
        mass_V: mass of each id, float64.
        is_residue_V, is_modification_V: bool, which ids are residues, and which N-terminal
            modifications.
        residue_R, modification_R: the same as ids.
        table: which masses can be reached.
        min_length, max_length: residues at least and at most; a modification does not count. The
            canvas should have `max_length` + 2 slots, for a modification and the stop.
    """

    low_BK: Tensor
    high_BK: Tensor
    mass_V: Tensor
    is_residue_V: Tensor
    is_modification_V: Tensor
    residue_R: Tensor
    modification_R: Tensor
    table: Reachability
    min_length: int
    max_length: int

    @classmethod
    def for_batch(
        cls,
        residues: Residues,
        mass_B: Tensor,
        charge_B: Tensor,
        precursor_mz_B: Tensor,
        *,
        tol_ppm: float = 20.0,
        isotopes: tuple[int, int] = (0, 1),
        min_length: int = 6,
        max_length: int = 100,
    ) -> PrecursorMass:
        """The constraint of a batch of spectra, on the device of `mass_B`.

        Raises:
            ConfigError: as `mass_windows`; the lengths contradict each other; a residue of the
                vocabulary has no mass.
        """
        if not 1 <= min_length <= max_length:
            raise ConfigError(
                f"a peptide cannot have at least {min_length} and at most {max_length} residues"
            )
        low_BK, high_BK = mass_windows(
            mass_B, charge_B, precursor_mz_B, tol_ppm=tol_ppm, isotopes=isotopes
        )
        device = mass_B.device
        is_modification_V = torch.tensor(residues.n_terminal())
        is_residue_V = ~is_modification_V & (torch.arange(len(residues)) >= FIRST)
        return cls(
            low_BK=low_BK,
            high_BK=high_BK,
            mass_V=torch.tensor(residues.table(), dtype=torch.float64, device=device),
            is_residue_V=is_residue_V.to(device),
            is_modification_V=is_modification_V.to(device),
            residue_R=is_residue_V.nonzero()[:, 0].to(device),
            modification_R=is_modification_V.nonzero()[:, 0].to(device),
            table=Reachability.of(residues, device),
            min_length=min_length,
            max_length=max_length,
        )

    def start(self, canvas: Canvas) -> State:
        """The state after each row's prompt (none, as a rule)."""
        places_S = torch.arange(canvas.slots, device=canvas.device)
        given_BS = places_S < canvas.prompt_B[:, None]
        weight_B1 = (self.mass_V[canvas.values] * given_BS).sum(dim=1, keepdim=True)
        return (
            self.low_BK - weight_B1,
            self.high_BK - weight_B1,
            (self.is_residue_V[canvas.values] & given_BS).sum(dim=1),
            (self.is_modification_V[canvas.values] & given_BS).any(dim=1),
        )

    def allowed(self, state: State, left_N: Tensor) -> Tensor:
        """Values from which an end within the tolerance can be reached, bool [N, V]."""
        low_NK, high_NK, count_N, closed_N = state
        allowed_NV = torch.zeros(
            low_NK.shape[0], self.mass_V.shape[0], dtype=torch.bool, device=low_NK.device
        )
        open_N = ~closed_N
        long_enough_N = count_N >= self.min_length
        fits_N = ((low_NK <= 0) & (high_NK >= 0)).any(dim=1)
        allowed_NV[:, STOP] = fits_N & long_enough_N & (left_N >= 1)

        mass_R1 = self.mass_V[self.modification_R][:, None]
        fits_NR = ((low_NK[:, None] <= mass_R1) & (high_NK[:, None] >= mass_R1)).any(dim=-1)
        ends_N = open_N & long_enough_N & (left_N >= 2)
        allowed_NV[:, self.modification_R] = fits_NR & ends_N[:, None]

        mass_R1 = self.mass_V[self.residue_R][:, None]
        # Behind the residue comes what is left, the stop excepted.
        most_N = torch.minimum(left_N - 2, self.max_length - 1 - count_N)
        reach_NR = self.table.reaches(
            low_NK[:, None] - mass_R1,
            high_NK[:, None] - mass_R1,
            least=(self.min_length - 1 - count_N)[:, None, None],
            most=most_N[:, None, None],
        ).any(dim=-1)
        allowed_NV[:, self.residue_R] = reach_NR & open_N[:, None]
        return allowed_NV

    def advance(self, state: State, values_N: Tensor) -> State:
        """The state after one more value a row."""
        low_NK, high_NK, count_N, closed_N = state
        mass_N1 = self.mass_V[values_N][:, None]
        # Neither padding nor the stop weighs anything.
        return (
            low_NK - mass_N1,
            high_NK - mass_N1,
            count_N + self.is_residue_V[values_N],
            closed_N | self.is_modification_V[values_N],
        )
