"""Training on simulated spectra: one encoder, and every decoder that the model has.

Stage 1 (CrossNovo, joint training): the autoregressive and the non-autoregressive decoder together,
the weight of the first rising from 0 to `lambda_max`. Stage 2: the encoder and the
non-autoregressive decoder are frozen; the autoregressive decoder goes on alone, and from a copy of
it start the hybrid decoder, which also attends to the frozen decoder's last states, and the
block-diffusion decoder. So the three that are compared have had the same number of updates.

Shapes: B spectra, S slots.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seqgen.canvas import Canvas
from seqgen.ctc import ctc_loss
from seqgen.decoders.one_pass import whole_pass
from seqgen.orders import Blocks
from seqgen.seeds import item_seed
from seqgen.training.hybrid import annealed, freeze, hybrid_context, joint_loss
from seqgen.training.objectives import Noise, noisy_clean, teacher_forcing
from seqgen.training.task import FitConfig, TrainingRun
from seqgen.transformer import TransformerConfig
from seqgen_peptides.alignment import aligned_loss
from seqgen_peptides.conversion import CONVERSIONS, PeptideConversion, start_conversion
from seqgen_peptides.data import PeptideBatch, PeptideBatches
from seqgen_peptides.encoder import EncoderConfig
from seqgen_peptides.growth import grow
from seqgen_peptides.model import PeptideConfig, PeptideModel, load_model, save_model
from seqgen_peptides.modifications import read_modifications
from seqgen_peptides.preprocess import PreprocessConfig
from seqgen_peptides.residues import PAD, Residues
from seqgen_peptides.training_data import SpectraOptions, training_data
from seqgen_peptides.validation import Validation

ENCODER_THETA = 30_000.0
"""Rotation by m/z goes from one turn in 0.16 Da to one in about 4000 Da."""


@dataclass(frozen=True)
class PeptideTraining(SpectraOptions):
    """Options of training; `--set key=value`."""

    width: int = field(default=128, metadata={"help": "model width"})
    heads: int = field(default=4, metadata={"help": "attention heads"})
    encoder_layers: int = field(default=3, metadata={"help": "layers of the spectrum encoder"})
    decoder_layers: int = field(default=3, metadata={"help": "layers of each decoder"})
    sines: int = field(default=128, metadata={"help": "width of the sine features of a mass"})
    dropout: float = field(default=0.0, metadata={"help": "dropout of the layers' outputs"})
    label_smoothing: float = field(default=0.01, metadata={"help": "of the cross-entropy"})
    peaks: int = field(default=150, metadata={"help": "most peaks of a spectrum"})
    lambda_max: float = field(
        default=1.0, metadata={"help": "greatest weight of the AR loss in stage 1 (CrossNovo: 1)"}
    )
    aligned: float = field(
        default=1.0,
        metadata={"help": "weight of a warm start for CTC: residues asked for where they weigh in"},
    )
    block_length: int = field(default=4, metadata={"help": "residues a block of block diffusion"})
    complement: bool = field(default=True, metadata={"help": "m/z of a peak's complement enters"})
    rotary: bool = field(default=True, metadata={"help": "attention over peaks rotated by m/z"})
    ladder: bool = field(
        default=True, metadata={"help": "which residues lead from peak to peak enters the encoder"}
    )
    running_masses: bool = field(
        default=True, metadata={"help": "masses before and behind a slot enter"}
    )
    slot_masses: bool = field(
        default=True, metadata={"help": "masses of an even division enter the one-pass decoder"}
    )
    ion_evidence: bool = field(default=True, metadata={"help": "candidate-ion evidence enters"})
    modifications: str = field(
        default="", metadata={"help": "YAML of further residues (`residues: [S[Phospho]]`)"}
    )
    start: str = field(
        default="", metadata={"help": "model to go on from; its sizes count, not those set here"}
    )


PRESETS: dict[str, tuple[PeptideTraining, FitConfig]] = {
    "small": (
        PeptideTraining(lambda_max=0.9),
        FitConfig(
            steps=4_800,
            restart=3_200,
            lr=1.5e-3,
            schedule="linear",
            final_lr=0.02,
            warmup=300,
            precision="bfloat16",
            compile=True,
            weight_decay=0.02,
            log_every=100,
            validate_every=1000,
            save_every=250,
        ),
    ),
    "micro": (
        PeptideTraining(
            width=32, heads=2, encoder_layers=1, decoder_layers=1, sines=32, batch=16, count=2000,
            peaks=60, validation_spectra=32,
        ),
        FitConfig(
            steps=60, restart=36, lr=2e-3, warmup=10, log_every=10, validate_every=60, save_every=20
        ),
    ),
}  # fmt: skip

PRESETS["crossnovo"] = (
    PeptideTraining(
        complement=False,
        rotary=False,
        ladder=False,
        slot_masses=False,
        ion_evidence=False,
        aligned=0.0,
    ),
    PRESETS["small"][1],
)
"""`small` is the shipped model's, `micro` shows that everything works, `crossnovo` does without
what the published models do not have."""


class PeptideTask:
    """What `seqgen train --plugin peptides` offers.

    `--data` is a list of peptides (`*.txt`, `*.txt.gz`), simulated ions (`*.npz`), or a folder with
    one of them; `real_valid.mgf` in that folder serves to validate on real spectra.
    """

    presets: Mapping[str, tuple[Any, FitConfig]] = PRESETS
    conversions: Mapping[str, tuple[Any, FitConfig]] = CONVERSIONS

    def convert(
        self,
        checkpoint: Path,
        options: PeptideConversion,
        fit: FitConfig,
        *,
        data: Path | None,
        seed: int,
        folder: Path,
    ) -> TrainingRun:
        return start_conversion(checkpoint, options, data, seed=seed, folder=folder)

    def start(
        self,
        options: PeptideTraining,
        fit: FitConfig,
        *,
        data: Path | None,
        seed: int,
        folder: Path,
    ) -> TrainingRun:
        torch.manual_seed(seed)
        model = _model(options)
        batches, validation = training_data(options, model, data, seed=seed, folder=folder)
        return PeptideRun(
            model,
            batches,
            validation,
            stage_1=fit.restart or fit.steps,
            lambda_max=options.lambda_max,
            aligned=options.aligned,
            block_length=options.block_length,
        )


class PeptideRun:
    """The model, its batches and its losses.

    Args:
        stage_1: steps of the first stage.
        lambda_max: greatest weight of the autoregressive loss in it.
        aligned: weight of the loss of residues at the slots where their masses put them; it falls
            to 0 in the first half of the stage.
        block_length: of block diffusion.
    """

    def __init__(
        self,
        model: PeptideModel,
        batches: PeptideBatches,
        validation: Validation,
        *,
        stage_1: int,
        lambda_max: float,
        aligned: float,
        block_length: int,
    ) -> None:
        self.model = model
        self.batches = batches
        self.validation = validation
        self.stage_1 = stage_1
        self.lambda_max = lambda_max
        self.aligned = aligned
        self.block_length = block_length

    def batch(self, step: int, rank: int, world: int) -> PeptideBatch:
        device = next(self.model.parameters()).device
        return self.batches.batch(step, rank, world).to(device)

    def losses(self, batch: PeptideBatch, step: int) -> dict[str, Tensor]:
        if step < self.stage_1:
            return self._joint(batch, step)
        if step == self.stage_1:
            self.model.copy_autoregressive()
        return self._apart(batch, step)

    def validate(self) -> dict[str, float]:
        return self.validation(self.model)

    def export(self, folder: Path, notes: Mapping[str, Any]) -> Path:
        return save_model(self.model, folder / "model.safetensors", notes)

    def _joint(self, batch: PeptideBatch, step: int) -> dict[str, Tensor]:
        """Stage 1: encoder and both decoders."""
        model = self.model
        context = model.listen(batch.spectra)
        nar_hidden = whole_pass(model.nar, _slots(model, batch), context)
        nar_logits = model.nar_logits(nar_hidden)
        nar = ctc_loss(nar_logits, batch.targets_BS, batch.lengths_B, blank=PAD)
        ar = teacher_forcing(model.ar, batch.targets_BS, batch.valid_BS, context=context)
        weight = annealed(step, self.stage_1, ceiling=self.lambda_max)
        losses = {"loss": joint_loss(ar, nar, weight), "ar": ar, "nar": nar}
        if guidance := self.aligned * max(0.0, 1 - 2 * step / self.stage_1):
            masses_V = model.encoder.masses_V
            aligned = aligned_loss(nar_logits, batch.targets_BS, batch.lengths_B, masses_V)
            losses |= {"loss": losses["loss"] + guidance * aligned, "aligned": aligned}
        return losses

    def _apart(self, batch: PeptideBatch, step: int) -> dict[str, Tensor]:
        """Stage 2: the decoders that are compared, on frozen states."""
        model = self.model
        freeze(model.encoder, model.nar)
        context = model.listen(batch.spectra)
        targets, valid = batch.targets_BS, batch.valid_BS
        first = model.first_pass()
        memory = hybrid_context(first, _slots(model, batch), context)
        generator = torch.Generator().manual_seed(item_seed(self.batches.seed, f"noise {step}"))
        losses = {
            "ar": teacher_forcing(model.ar, targets, valid, context=context),
            "hybrid": teacher_forcing(model.hybrid, targets, valid, context=memory),
            "block": noisy_clean(
                model.block,
                targets,
                valid,
                order=Blocks(self.block_length),
                generator=generator,
                noise=Noise(low=0.1, per="group", weighting="none"),
                context=context,
            ),
        }
        return {"loss": torch.stack(list(losses.values())).sum(), **losses}


def _slots(model: PeptideModel, batch: PeptideBatch) -> Canvas:
    """A canvas of the non-autoregressive decoder."""
    shape = (len(batch.lengths_B), model.config.slots)
    return Canvas(torch.zeros(shape, dtype=torch.int64, device=batch.lengths_B.device))


def _model(options: PeptideTraining) -> PeptideModel:
    """A new model, or one that is trained further; with the modifications asked for."""
    more = read_modifications(Path(options.modifications)) if options.modifications else {}
    if not options.start:
        return PeptideModel(configuration(options), Residues().extended(more))
    model = load_model(Path(options.start))
    return grow(model, model.residues.extended(more))


def configuration(options: PeptideTraining) -> PeptideConfig:
    sizes = TransformerConfig(
        width=options.width,
        layers=options.decoder_layers,
        heads=options.heads,
        context_width=options.width,
        dropout=options.dropout,
    )
    encoder = replace(
        sizes, layers=options.encoder_layers, context_width=0, rope_theta=ENCODER_THETA
    )
    return PeptideConfig(
        encoder=EncoderConfig(
            transformer=encoder,
            sines=options.sines,
            complement=options.complement,
            rotary=options.rotary,
            ladder=options.ladder,
        ),
        decoder=sizes,
        sines=options.sines,
        running_masses=options.running_masses,
        slot_masses=options.slot_masses,
        ion_evidence=options.ion_evidence,
        preprocess=PreprocessConfig(n_peaks=options.peaks),
        label_smoothing=options.label_smoothing,
    )
