"""How an AR-Net is trained by gradient descent: learning rate, epochs, the penalty's ramp.

Without torch, so that a configuration can be made, shown and stored where no network is trained.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from seqgen.errors import ConfigError

STEPS = 3000
"""Optimizer steps that `epochs=None` aims at, between 10 and 500 epochs."""


@dataclass(frozen=True, kw_only=True)
class SgdConfig:
    """The recipe of gradient descent (Adam).

    Attributes:
        epochs: passes over the rows; None chooses as many as make about 3000 steps.
        batch: rows of a step.
        learning_rate: the highest one.
        schedule: `cosine` (up over the first tenth, then down to zero) or `step` (times `decay`
            after every epoch: the paper's).
        decay: factor of `step`.
        ramp: share of the epochs over which the penalty grows linearly from zero.
        normalize: subtract each variable's mean and divide by its standard deviation, so that
            learning rate and penalty do not depend on the data's unit.
        noise: standard deviation of the noise in normalised units, from which strengths are taken;
            None estimates it by Yule-Walker.
        seed: of the first weights and of the order of the rows.
        device: where to train.
        report_every: steps between two progress reports.
    """

    epochs: int | None = None
    batch: int = 128
    learning_rate: float = 1e-2
    schedule: Literal["cosine", "step"] = "cosine"
    decay: float = 0.9
    ramp: float = 0.5
    normalize: bool = True
    noise: float | None = None
    seed: int = 0
    device: str = "cpu"
    report_every: int = 200

    def __post_init__(self) -> None:
        for name in ("epochs", "batch", "report_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"SgdConfig.{name} is {value}", fix="a whole number from 1 on")
        if not self.learning_rate > 0.0:
            raise ConfigError(f"SgdConfig.learning_rate is {self.learning_rate}", fix="above 0")
        if self.schedule not in ("cosine", "step"):
            raise ConfigError(f"SgdConfig.schedule is {self.schedule!r}", fix="cosine or step")

    def epochs_for(self, rows: int) -> int:
        """Passes over this many rows."""
        if self.epochs is not None:
            return self.epochs
        return min(max(math.ceil(STEPS / math.ceil(rows / self.batch)), 10), 500)

    def rate(self, epoch: int, epochs: int, within: float) -> float:
        """Learning rate at a share `within` of an epoch."""
        if self.schedule == "step":
            return float(self.learning_rate * self.decay**epoch)
        done = (epoch + within) / epochs
        if done < 0.1:
            return float(self.learning_rate * (0.05 + 0.95 * done / 0.1))
        return float(self.learning_rate * 0.5 * (1.0 + math.cos(math.pi * (done - 0.1) / 0.9)))

    def penalty_share(self, epoch: int, epochs: int) -> float:
        """Share of the penalty in this epoch: epoch / delay, then 1 (the paper's ramp)."""
        delay = self.ramp * epochs
        return min(epoch / delay, 1.0) if delay > 0.0 else 1.0


def paper_recipe(*, seed: int = 0) -> SgdConfig:
    """The training of AR-Net's first code (v0_1): 10 epochs, Adam at 2e-4 falling by 0.9 an epoch,
    batches of 128, the penalty growing over all 10 epochs, data as it is, noise of 1."""
    return SgdConfig(
        epochs=10,
        batch=128,
        learning_rate=2e-4,
        schedule="step",
        decay=0.9,
        ramp=1.0,
        normalize=False,
        noise=1.0,
        seed=seed,
    )


@dataclass(frozen=True)
class SgdProgress:
    """How far training is.

    Attributes:
        epoch: the present one, from 1.
        epochs: of all.
        step: optimizer steps done.
        steps: of all.
        loss: mean squared error of this epoch so far, in normalised units.
        learning_rate: the present one.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    learning_rate: float
