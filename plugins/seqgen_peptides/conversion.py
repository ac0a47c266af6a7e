"""Conversion: the autoregressive decoder of a trained model becomes its block-diffusion decoder.

    seqgen train --plugin peptides --convert block-diffusion --from peptides-small \\
        --data peptides.txt -o runs/block

Only that decoder is trained; the encoder and the others stay as they are. (The shipped model's
block decoder was made in the second stage of its training, beside the others.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn

from seqgen.errors import ConfigError
from seqgen.inputs import RasterInputs
from seqgen.training.convert import BlockDiffusionOptions, to_masked
from seqgen.training.hybrid import freeze
from seqgen.training.task import FitConfig
from seqgen_peptides.data import PeptideBatch, PeptideBatches
from seqgen_peptides.inputs import MaskedResidueInputs, ResidueInputs
from seqgen_peptides.model import PeptideModel, load_model, save_model
from seqgen_peptides.training_data import SpectraOptions, training_data
from seqgen_peptides.validation import Validation


@dataclass(frozen=True)
class PeptideConversion(BlockDiffusionOptions, SpectraOptions):
    """Options of a conversion; `--set key=value`."""


CONVERSIONS: Mapping[str, tuple[Any, FitConfig]] = {
    "block-diffusion": (
        PeptideConversion(weighting="none"),
        FitConfig(
            steps=1600, lr=1e-3, warmup=100, final_lr=0.02, precision="bfloat16", compile=True,
            weight_decay=0.02, log_every=100, validate_every=800, save_every=200,
        ),
    ),
}  # fmt: skip


class ConversionRun:
    """Trains `model.block`, started from `model.ar`."""

    def __init__(
        self,
        model: PeptideModel,
        batches: PeptideBatches,
        validation: Validation,
        options: PeptideConversion,
    ) -> None:
        model.block = to_masked(model.ar, mask_id=model.vocabulary, inputs=_masked)
        self.model = model
        self.batches = batches
        self.validation = validation
        self.options = options
        self._freeze()

    def batch(self, step: int, rank: int, world: int) -> tuple[PeptideBatch, int, int]:
        device = next(self.model.parameters()).device
        return self.batches.batch(step, rank, world).to(device), step, rank

    def losses(self, batch: tuple[PeptideBatch, int, int], step: int) -> dict[str, Tensor]:
        spectra, number, rank = batch
        self._freeze()  # validation has put the whole model into training mode
        loss = self.options.loss(
            self.model.block,
            spectra.targets_BS,
            spectra.valid_BS,
            seed=self.batches.seed,
            step=number,
            rank=rank,
            context=self.model.listen(spectra.spectra),
        )
        return {"loss": loss}

    def validate(self) -> dict[str, float]:
        return self.validation(self.model)

    def export(self, folder: Path, notes: Mapping[str, Any]) -> Path:
        return save_model(self.model, folder / "model.safetensors", notes)

    def _freeze(self) -> None:
        model = self.model
        freeze(model.encoder, model.nar, model.ar, model.hybrid)


def start_conversion(
    checkpoint: Path,
    options: PeptideConversion,
    data: Path | None,
    *,
    seed: int,
    folder: Path,
) -> ConversionRun:
    """A run over simulated spectra of `data`.

    Raises:
        CheckpointError: the checkpoint is damaged, or no peptide model of ours.
        ConfigError: its autoregressive decoder is not of the kind that converts.
    """
    model = load_model(checkpoint)
    if not isinstance(model.ar.inputs, ResidueInputs):
        raise ConfigError(f"{checkpoint} has no autoregressive decoder of ours")
    batches, validation = training_data(options, model, data, seed=seed, folder=folder)
    return ConversionRun(model.train(), batches, validation, options)


def _masked(old: RasterInputs, table: nn.Embedding, mask_id: int) -> MaskedResidueInputs:
    return MaskedResidueInputs(table, mask_id, cast(ResidueInputs, old).features)
