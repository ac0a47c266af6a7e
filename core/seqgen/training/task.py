"""The seam between the training loop and what is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from torch import Tensor, nn


@dataclass(frozen=True)
class FitConfig:
    """How to train. Options of `seqgen train --set key=value`.

    Attributes are described by their `help` metadata.
    """

    steps: int = field(default=1000, metadata={"help": "optimiser steps"})
    stop: int = field(
        default=0, metadata={"help": "stop after this many steps of the schedule; 0 for all"}
    )
    lr: float = field(default=1e-3, metadata={"help": "peak learning rate"})
    schedule: Literal["linear", "cosine", "constant"] = field(
        default="linear", metadata={"help": "decay of the learning rate after the warm-up"}
    )
    warmup: int = field(default=100, metadata={"help": "steps of linear warm-up"})
    restart: int = field(
        default=0,
        metadata={"help": "step at which warm-up and decay begin again (a second stage); 0: never"},
    )
    final_lr: float = field(
        default=0.0, metadata={"help": "learning rate at the end, as a part of the peak"}
    )
    weight_decay: float = field(
        default=0.01, metadata={"help": "AdamW weight decay of matrices (not of norms and biases)"}
    )
    beta2: float = field(default=0.98, metadata={"help": "AdamW beta2"})
    clip: float = field(default=1.0, metadata={"help": "greatest gradient norm; 0 for no clipping"})
    ema: float = field(default=0.0, metadata={"help": "decay of the averaged weights; 0 for none"})
    precision: Literal["float32", "bfloat16"] = field(
        default="float32", metadata={"help": "of the forward pass; weights stay float32"}
    )
    compile: bool = field(
        default=False, metadata={"help": "fuse the transformers' passes with torch.compile"}
    )
    accumulate: int = field(default=1, metadata={"help": "batches an optimiser step"})
    log_every: int = field(default=50, metadata={"help": "steps between lines of the log"})
    validate_every: int = field(default=1000, metadata={"help": "steps between validations"})
    save_every: int = field(default=200, metadata={"help": "steps between resumable checkpoints"})

    def __post_init__(self) -> None:
        if self.restart and not 0 < self.restart < self.steps:
            raise ValueError(f"restart={self.restart} must lie between 0 and steps={self.steps}")


class TrainingRun(Protocol):
    """One training, made by a task: a model, its batches and its losses."""

    @property
    def model(self) -> nn.Module:
        """The module whose parameters are trained."""
        ...

    def batch(self, step: int, rank: int, world: int) -> Any:
        """The batch of a step: a function of (seed, step, rank) alone, so resuming is exact."""
        ...

    def losses(self, batch: Any, step: int) -> dict[str, Tensor]:
        """Named scalars; `loss` is the one that is minimised."""
        ...

    def validate(self) -> dict[str, float]:
        """Quality of the model as it is now (weights averaged, if an EMA is kept)."""
        ...

    def export(self, folder: Path, notes: Mapping[str, Any]) -> Path:
        """Write the model as it is now in the form that `seqgen run --model` loads."""
        ...


class TrainingTask(Protocol):
    """What a trainable domain offers.

    Attributes:
        presets: name -> (plugin options, fit options): frozen dataclasses, whose fields `--set`
            overrides (a field of `FitConfig` first).
    """

    presets: Mapping[str, tuple[Any, FitConfig]]

    def start(
        self, options: Any, fit: FitConfig, *, data: Path | None, seed: int, folder: Path
    ) -> TrainingRun:
        """Read the data and make the model.

        Args:
            fit: how long and how it will be trained, for runs whose losses follow a schedule.

        Raises:
            InputError: the data are missing or unusable.
        """
        ...


@runtime_checkable
class Convertible(Protocol):
    """A training task that can also start from a model trained for something else.

    Attributes:
        conversions: what `seqgen train --convert` takes -> (plugin options, fit options), whose
            fields `--set` overrides. `block-diffusion` makes an autoregressive model one with
            masked inputs; its options derive from `seqgen.training.convert`'s.
    """

    conversions: Mapping[str, tuple[Any, FitConfig]]

    def convert(
        self,
        checkpoint: Path,
        options: Any,
        fit: FitConfig,
        *,
        data: Path | None,
        seed: int,
        folder: Path,
    ) -> TrainingRun:
        """Read the model and the data; the run trains it on in its new form.

        Args:
            checkpoint: file or folder of the model to start from.

        Raises:
            CheckpointError: it is damaged, or not a model that this conversion starts from.
            InputError: the data are missing or unusable.
        """
        ...
