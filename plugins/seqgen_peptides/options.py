"""Options of `--set key=value`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

from seqgen.decoders.block_diffusion import Remasking
from seqgen.errors import UsageError
from seqgen.options import option
from seqgen_peptides.preprocess import PreprocessConfig

MassProgram = Literal["auto", "true", "false"]

_SPECTRA = tuple(field.name for field in dataclasses.fields(PreprocessConfig))


@dataclass(frozen=True)
class PeptideOptions:
    """How spectra are prepared, which peptides are allowed, and how they are searched."""

    precursor_constraint: bool = option(
        True, help="only peptides that weigh what the precursor does (not for block-diffusion)"
    )
    precursor_tol_ppm: float = option(
        20.0, help="tolerance of the precursor mass in ppm", range=(0.001, 1e5)
    )
    isotope_low: int = option(
        0, help="first isotope of the precursor that is allowed", range=(-10, 10)
    )
    isotope_high: int = option(
        1,
        help="last one: 1 also takes precursors picked one carbon-13 too heavy",
        range=(-10, 10),
    )
    min_length: int = option(6, help="residues of the shortest peptide", range=(1, 200))
    max_length: int = option(
        40, help="residues of the longest peptide (nar: at most the model's slots)", range=(1, 200)
    )
    top: int = option(
        1, help="answers a spectrum; more than one gives `candidates`", range=(1, 100)
    )
    beams: int = option(5, help="hypotheses of beam, hybrid, verify and nar", range=(1, 1000))
    length_penalty: float = option(
        0.0, help="answers are ranked by log-probability / length ** this", range=(0.0, None)
    )
    casanovo_beam: bool = option(
        False, help="prune beams as Casanovo 5 does: by mean logit, ended ones not replaced"
    )
    mass_program: MassProgram = option(
        "auto",
        help="nar: the exact program over the precursor mass; auto: where CTC's best does not fit",
    )
    accept: float = option(
        0.9,
        help="verify: a draft stands if the mean probability of its residues is at least this",
        range=(0.0, None),
    )
    block_length: int = option(4, help="residues a block of block-diffusion", range=(1, 64))
    steps: int = option(0, help="passes a block; 0: as many as it has residues", range=(0, None))
    remasking: Remasking = option(
        "low_confidence_dynamic", help="which residues of a block are kept"
    )
    threshold: float = option(
        0.85, help="confidence that low_confidence_dynamic asks for", range=(0.0, 1.0)
    )
    unknown_charges: tuple[int, ...] = option(
        (2, 3), help="charges tried where the file states none; the best answer stands"
    )
    min_mz: float | None = option(
        None, help="lowest m/z of peaks kept; none: the model's (50)", range=(0.0, 1e5)
    )
    max_mz: float | None = option(
        None, help="highest m/z of peaks kept; none: the model's (2500)", range=(0.0, 1e5)
    )
    precursor_window: float | None = option(
        None, help="Da around the precursor without peaks; none: the model's (2)", range=(0.0, 1e3)
    )
    min_intensity: float | None = option(
        None,
        help="peaks above this share of the highest, as roots; none: the model's (0.01)",
        range=(0.0, 0.99),
    )
    n_peaks: int | None = option(
        None, help="most peaks kept; none: the model's (150)", range=(1, 10_000)
    )
    min_peaks: int | None = option(
        None, help="fewer peaks are an error; none: the model's (6)", range=(1, 10_000)
    )
    max_charge: int | None = option(
        None, help="highest charge, at most the model's; none: the model's (4)", range=(1, 100)
    )

    def __post_init__(self) -> None:
        if self.isotope_low > self.isotope_high:
            raise ValueError(
                f"isotope_low={self.isotope_low} is above isotope_high={self.isotope_high}"
            )
        if self.min_length > self.max_length:
            raise ValueError(f"min_length={self.min_length} is above max_length={self.max_length}")

    @property
    def isotopes(self) -> tuple[int, int]:
        """The first and the last isotope of the precursor."""
        return self.isotope_low, self.isotope_high

    def preprocess(self, base: PreprocessConfig) -> PreprocessConfig:
        """Thresholds for spectra: those that were set, else the model's."""
        given = {name: getattr(self, name) for name in _SPECTRA}
        if self.max_charge is not None and self.max_charge > base.max_charge:
            raise UsageError(
                f"max_charge={self.max_charge}: this model knows charges up to {base.max_charge}",
                fix="leave max_charge out, or train a model with such spectra",
            )
        return dataclasses.replace(base, **{k: v for k, v in given.items() if v is not None})
