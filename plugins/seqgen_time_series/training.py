"""Training: one global model over many series, all decoders at once on one encoder.

Every step draws windows with the same number of slots. The linear skip has a loss of its own (how
far its base lies from the values), `nar` the pinball loss of all slots in one pass, `ar` and
`hybrid` teacher forcing, `block` the masked loss over [noisy | clean]. `hybrid` sees the last
states of `nar` but does not move them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seqgen.canvas import Canvas
from seqgen.orders import Blocks
from seqgen.seeds import item_seed
from seqgen.training.hybrid import hybrid_context
from seqgen.training.objectives import Noise, noisy_clean, teacher_forcing
from seqgen.training.task import FitConfig, TrainingRun
from seqgen_time_series.conversion import CONVERSIONS, ForecastConversion, start_conversion
from seqgen_time_series.data import TrainingBatch, WindowBatches
from seqgen_time_series.model import (
    Forecaster,
    ForecasterConfig,
    SampleHead,
    encode_values,
    save_model,
)
from seqgen_time_series.training_data import SeriesOptions, training_data
from seqgen_time_series.validation import Validation


@dataclass(frozen=True)
class ForecastTraining(SeriesOptions):
    """Options of training; `--set key=value`."""

    patch: int = field(default=8, metadata={"help": "values a slot"})
    context: int = field(default=48, metadata={"help": "most patches of history"})
    slots: int = field(default=24, metadata={"help": "most slots of a horizon"})
    width: int = field(default=64, metadata={"help": "model width"})
    heads: int = field(default=4, metadata={"help": "attention heads"})
    encoder_layers: int = field(default=3, metadata={"help": "layers of the encoder"})
    decoder_layers: int = field(default=2, metadata={"help": "layers of each decoder"})
    sample_head: SampleHead = field(
        default="flow", metadata={"help": "head of ar, hybrid and block-diffusion"}
    )
    flow_hidden: int = field(default=96, metadata={"help": "width of the flow head"})
    block_length: int = field(default=3, metadata={"help": "patches a block of block diffusion"})


PRESETS: dict[str, tuple[ForecastTraining, FitConfig]] = {
    "small": (
        ForecastTraining(),
        FitConfig(
            steps=4000,
            lr=3e-3,
            schedule="cosine",
            final_lr=0.02,
            warmup=100,
            weight_decay=0.02,
            ema=0.998,
            log_every=100,
            validate_every=1000,
            save_every=250,
        ),
    ),
    "micro": (
        ForecastTraining(
            context=12, slots=6, width=24, heads=2, encoder_layers=1, decoder_layers=1,
            flow_hidden=32, batch=16, series=60, validation_series=12,
        ),
        FitConfig(steps=60, lr=3e-3, warmup=10, log_every=20, validate_every=60, save_every=20),
    ),
}  # fmt: skip
"""`small` is the shipped model's, `micro` shows that everything works."""

WEIGHTS = {"nar": 4.0, "base": 2.0}
"""Of the losses that are numerically smaller, so that the encoder serves all alike."""


class ForecastTask:
    """What `seqgen train --plugin time-series` offers.

    Without `--data` only simulated series are trained on; `--data` is a table or a folder of them,
    as `seqgen run` reads them.
    """

    presets: Mapping[str, tuple[Any, FitConfig]] = PRESETS
    conversions: Mapping[str, tuple[Any, FitConfig]] = CONVERSIONS

    def convert(
        self,
        checkpoint: Path,
        options: ForecastConversion,
        fit: FitConfig,
        *,
        data: Path | None,
        seed: int,
        folder: Path,
    ) -> TrainingRun:
        return start_conversion(checkpoint, options, data=data, seed=seed)

    def start(
        self,
        options: ForecastTraining,
        fit: FitConfig,
        *,
        data: Path | None,
        seed: int,
        folder: Path,
    ) -> TrainingRun:
        config = configuration(options)
        batches, validation = training_data(options, config, data, seed=seed)
        torch.manual_seed(seed)
        return ForecastRun(Forecaster(config), batches, validation)


class ForecastRun:
    """The model, its batches and its losses."""

    def __init__(self, model: Forecaster, batches: WindowBatches, validation: Validation) -> None:
        self.model = model
        self.batches = batches
        self.validation = validation

    def batch(self, step: int, rank: int, world: int) -> TrainingBatch:
        device = next(self.model.parameters()).device
        return self.batches.batch(step, rank, world).to(device)

    def losses(self, batch: TrainingBatch, step: int) -> dict[str, Tensor]:
        model = self.model
        context = model.listen(batch.windows)
        valid_BS = batch.valid_BS
        apart_BSP = encode_values(batch.z_BSP, context)
        base = (apart_BSP.abs().mean(dim=-1) * valid_BS).sum() / valid_BS.sum()
        # What a head has to say is measured from the base; it does not move the base.
        v_BSP = apart_BSP.detach()
        nothing = torch.zeros_like(v_BSP)
        memory = hybrid_context(model.first_pass(), Canvas(nothing), context)
        generator = torch.Generator().manual_seed(item_seed(self.batches.seed, f"noise {step}"))
        whole = Noise(low=1.0, high=1.0, weighting="none")
        losses = {
            "nar": noisy_clean(
                model.nar, v_BSP, valid_BS, order=Blocks(v_BSP.shape[1]), generator=generator,
                noise=whole, context=context,
            ),
            "ar": teacher_forcing(model.ar, v_BSP, valid_BS, context=context),
            "hybrid": teacher_forcing(model.hybrid, v_BSP, valid_BS, context=memory),
            "block": noisy_clean(
                model.block, v_BSP, valid_BS, order=Blocks(model.config.block_length),
                generator=generator, noise=replace(whole, low=0.3, per="group"), context=context,
            ),
            "base": base,
        }  # fmt: skip
        weighted = [WEIGHTS.get(name, 1.0) * loss for name, loss in losses.items()]
        return {"loss": torch.stack(weighted).sum(), **losses}

    def validate(self) -> dict[str, float]:
        return self.validation(self.model)

    def export(self, folder: Path, notes: Mapping[str, Any]) -> Path:
        return save_model(self.model, folder / "model.safetensors", notes)


def configuration(options: ForecastTraining) -> ForecasterConfig:
    """The model of these options."""
    return ForecasterConfig(
        patch=options.patch,
        context=options.context,
        slots=options.slots,
        width=options.width,
        heads=options.heads,
        encoder_layers=options.encoder_layers,
        decoder_layers=options.decoder_layers,
        sample_head=options.sample_head,
        flow_hidden=options.flow_hidden,
        block_length=options.block_length,
    )
