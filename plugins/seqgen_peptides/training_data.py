"""The spectra that a training or a conversion learns from, and those that validate it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from seqgen.errors import InputError
from seqgen_peptides.annotated import read_noise
from seqgen_peptides.augment import AugmentConfig
from seqgen_peptides.data import PeptideBatches, load_simulated
from seqgen_peptides.model import PeptideModel
from seqgen_peptides.validation import Validation


@dataclass(frozen=True)
class SpectraOptions:
    """Options of a training and of a conversion; `--set key=value`."""

    batch: int = field(default=64, metadata={"help": "spectra a batch"})
    real_noise: str = field(
        default="", metadata={"help": "mzML or MGF whose unannotated peaks serve as noise"}
    )
    simulated: str = field(
        default="", metadata={"help": "npz of simulated ions; else they are made from the peptides"}
    )
    count: int = field(default=600_000, metadata={"help": "spectra to simulate"})
    validation_spectra: int = field(
        default=256, metadata={"help": "simulated spectra of held-out peptides to validate on"}
    )


def training_data(
    options: SpectraOptions, model: PeptideModel, data: Path | None, *, seed: int, folder: Path
) -> tuple[PeptideBatches, Validation]:
    """Spectra simulated anew for every batch, and held-out and real ones.

    Args:
        data: `--data`; see `PeptideTask`.
        folder: keeps the ions that are simulated.
    """
    source, real = _sources(options, data)
    residues = model.residues
    found = load_simulated(source, residues, count=options.count, seed=seed, folder=folder)
    noise = read_noise(Path(options.real_noise), residues) if options.real_noise else None
    batches = PeptideBatches(
        found,
        residues,
        AugmentConfig(),
        model.config.preprocess,
        size=options.batch,
        seed=seed,
        noise=noise,
    )
    return batches, Validation.of(batches, real, simulated=options.validation_spectra)


def _sources(options: SpectraOptions, data: Path | None) -> tuple[Path, Path | None]:
    """The peptides or simulated ions, and the real spectra to validate on."""
    if data is None and not options.simulated:
        raise InputError(
            "training de novo sequencing needs peptides",
            fix="--data FOLDER with a list of peptides (one a line) and real_valid.mgf, or "
            "--set simulated=FILE.npz",
        )
    folder = data if data is not None and data.is_dir() else None
    real = folder / "real_valid.mgf" if folder is not None else None
    if real is not None and not real.is_file():
        real = None
    if options.simulated:
        return Path(options.simulated), real
    assert data is not None
    if folder is None:
        return data, None
    lists = [p for kind in ("*.npz", "*.txt.gz", "*.txt") for p in sorted(folder.glob(kind))]
    if not lists:
        raise InputError(
            f"{folder} holds no peptides", fix="give a list of peptides (*.txt, *.txt.gz) or *.npz"
        )
    return lists[0], real
