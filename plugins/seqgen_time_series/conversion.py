"""Conversion: the autoregressive decoder of a trained forecaster becomes its block-diffusion one.

    seqgen train --plugin time-series --convert block-diffusion --from ts-small \\
        --set block_length=6 -o runs/blocks-of-6

Only that decoder is trained; the encoder and the others stay as they are. (The shipped model's
block decoder was trained beside the others, for blocks of its own length.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seqgen.training.convert import BlockDiffusionOptions, to_masked
from seqgen.training.hybrid import freeze
from seqgen.training.task import FitConfig
from seqgen_time_series.data import TrainingBatch, WindowBatches
from seqgen_time_series.model import Forecaster, encode_values, load_model, save_model
from seqgen_time_series.training_data import SeriesOptions, training_data
from seqgen_time_series.validation import Validation


@dataclass(frozen=True)
class ForecastConversion(BlockDiffusionOptions, SeriesOptions):
    """Options of a conversion; `--set key=value`."""


CONVERSIONS: Mapping[str, tuple[Any, FitConfig]] = {
    "block-diffusion": (
        ForecastConversion(block_length=3, rate_low=0.3, weighting="none"),
        FitConfig(
            steps=1000, lr=2e-3, schedule="cosine", final_lr=0.02, warmup=50, weight_decay=0.02,
            ema=0.998, log_every=100, validate_every=500, save_every=250,
        ),
    ),
}  # fmt: skip


class ConversionRun:
    """Trains `model.block`, started from `model.ar`."""

    def __init__(
        self,
        model: Forecaster,
        batches: WindowBatches,
        validation: Validation,
        options: ForecastConversion,
    ) -> None:
        model.config = replace(model.config, block_length=options.block_length)
        model.block = to_masked(model.ar)
        self.model = model
        self.batches = batches
        self.validation = validation
        self.options = options
        self._freeze()

    def batch(self, step: int, rank: int, world: int) -> tuple[TrainingBatch, int, int]:
        device = next(self.model.parameters()).device
        return self.batches.batch(step, rank, world).to(device), step, rank

    def losses(self, batch: tuple[TrainingBatch, int, int], step: int) -> dict[str, Tensor]:
        windows, number, rank = batch
        self._freeze()  # validation has put the whole model into training mode
        with torch.no_grad():
            context = self.model.listen(windows.windows)
            v_BSP = encode_values(windows.z_BSP, context)
        loss = self.options.loss(
            self.model.block,
            v_BSP,
            windows.valid_BS,
            seed=self.batches.seed,
            step=number,
            rank=rank,
            context=context,
        )
        return {"loss": loss}

    def validate(self) -> dict[str, float]:
        return self.validation(self.model)

    def export(self, folder: Path, notes: Mapping[str, Any]) -> Path:
        return save_model(self.model, folder / "model.safetensors", notes)

    def _freeze(self) -> None:
        for name, part in self.model.named_children():
            if name != "block":
                freeze(part)


def start_conversion(
    checkpoint: Path, options: ForecastConversion, *, data: Path | None, seed: int
) -> ConversionRun:
    """A run over simulated series and those of `data`.

    Raises:
        CheckpointError: the checkpoint is damaged, or no forecaster of ours.
    """
    model = load_model(checkpoint)
    batches, validation = training_data(options, model.config, data, seed=seed)
    return ConversionRun(model.train(), batches, validation, options)
