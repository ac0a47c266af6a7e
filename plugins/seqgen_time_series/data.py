"""Training windows of many series: a history, cut somewhere, and the values that follow it.

Series are simulated (`simulate.py`) and, with `--data`, read from tables. Of a table's series the
last fifth is never trained on, so that a forecast of it can be judged.

Shapes: B windows, S slots, P patch length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seqgen.errors import InputError
from seqgen.seeds import item_seed
from seqgen_time_series.model import ForecasterConfig
from seqgen_time_series.readers import TableConfig, list_series
from seqgen_time_series.simulate import simulate_many
from seqgen_time_series.windows import Window, WindowBatch, window_of

Floats = NDArray[np.float64]

HELD_OUT = 0.2
"""Share of a table's series, its end, that is not trained on."""
SHORTEST = 12
"""Values of the shortest history."""


@dataclass(frozen=True)
class TrainingSeries:
    """Values [N] of one series, NaN where missing, and the steps of its season."""

    y: Floats
    season: int


@dataclass(frozen=True)
class TrainingBatch:
    """Windows and what came after them.

    Attributes:
        z_BSP: future values in units of each window's scale.
        valid_BS: slots whose values are all known.
        y_BH: the same values as they are, float64; NaN where unknown.
    """

    windows: WindowBatch
    z_BSP: Tensor
    valid_BS: Tensor
    y_BH: Tensor

    def to(self, device: torch.device) -> TrainingBatch:
        """The same on another device."""
        return TrainingBatch(
            self.windows.to(device),
            self.z_BSP.to(device),
            self.valid_BS.to(device),
            self.y_BH.to(device),
        )


class WindowBatches:
    """Batches of windows, each a function of (seed, step, rank).

    Args:
        simulated, real: series to draw from; either may be empty.
        real_share: share of windows from `real`.
        size: windows a batch.
    """

    def __init__(
        self,
        simulated: Sequence[TrainingSeries],
        real: Sequence[TrainingSeries],
        config: ForecasterConfig,
        *,
        real_share: float,
        size: int,
        seed: int,
    ) -> None:
        if not simulated and not real:
            raise InputError(
                "there is no series to train on", fix="--set series=1000, or --data FOLDER"
            )
        self.simulated, self.real, self.config = simulated, real, config
        self.real_share = real_share if simulated and real else float(bool(real))
        self.size, self.seed = size, seed

    def batch(self, step: int, rank: int = 0, world: int = 1) -> TrainingBatch:
        """The batch of a step. All its windows have the same number of slots."""
        rng = np.random.default_rng(item_seed(self.seed, f"batch {step * world + rank}"))
        slots = int(np.exp(rng.uniform(0.0, np.log(self.config.slots + 1))))
        cuts: list[tuple[Window, Floats]] = []
        while len(cuts) < self.size:
            pool = self.real if rng.random() < self.real_share else self.simulated
            series = pool[int(rng.integers(len(pool)))]
            if (cut := _cut(series, rng, self.config, slots)) is not None:
                cuts.append(cut)
        return collate(cuts, self.config)


def _cut(
    series: TrainingSeries, rng: np.random.Generator, config: ForecasterConfig, slots: int
) -> tuple[Window, Floats] | None:
    """A window of a series and what follows it; None where it would teach nothing."""
    y, steps = series.y, slots * config.patch
    last = len(y) - config.patch
    if last < SHORTEST:
        return None
    # Not always room for the whole horizon: the slots behind the end carry no loss.
    origin = int(rng.integers(SHORTEST, max(SHORTEST, len(y) - steps) + 1))
    origin = min(origin, last)
    first = 0 if rng.random() < 0.5 else int(rng.integers(0, origin - SHORTEST + 1))
    sign = -1.0 if rng.random() < 0.15 else 1.0
    return window_and_future(
        TrainingSeries(sign * y[first:], series.season), origin - first, config, slots
    )


def window_and_future(
    series: TrainingSeries, origin: int, config: ForecasterConfig, slots: int
) -> tuple[Window, Floats] | None:
    """The window of the values before `origin` and the values [S P] from there; None if the
    history is constant, or nothing that follows is known."""
    past, steps = series.y[:origin], slots * config.patch
    if not np.isfinite(past).any():
        return None
    window = window_of(past, series.season, patch=config.patch, context=config.context, slots=slots)
    future = np.full(steps, np.nan)
    known = series.y[origin : origin + steps]
    future[: len(known)] = known
    if window.scale <= 0.0 or not np.isfinite(future[: config.patch]).all():
        return None
    return window, future


def collate(cuts: Sequence[tuple[Window, Floats]], config: ForecasterConfig) -> TrainingBatch:
    """Windows with the same number of slots as one batch."""
    windows = WindowBatch.of([window for window, _ in cuts])
    y_BH = torch.from_numpy(np.stack([future for _, future in cuts]))
    z_BH = (y_BH - windows.level_B[:, None]) / windows.scale_B[:, None]
    z_BSP = z_BH.view(len(cuts), -1, config.patch)
    valid_BS = z_BSP.isfinite().all(dim=-1)
    return TrainingBatch(windows, z_BSP.nan_to_num(0.0).float(), valid_BS, y_BH)


def simulated_series(count: int, *, seed: int) -> list[TrainingSeries]:
    """Simulated series number 0..count-1 of a seed."""
    return [TrainingSeries(found.y, found.season) for found in simulate_many(count, seed=seed)]


def table_series(source: Path) -> tuple[list[TrainingSeries], list[TrainingSeries]]:
    """The series of tables in any layout that `readers` knows: their first part to train on, and
    the whole of them. Missing values stay missing.

    Raises:
        InputError: no table, or a series that cannot be read.
    """
    whole = []
    for series in list_series(str(source), TableConfig(missing="keep")):
        if series.problem is not None:
            raise series.problem
        whole.append(TrainingSeries(series.y, series.season))
    return [
        TrainingSeries(series.y[: round(len(series.y) * (1 - HELD_OUT))], series.season)
        for series in whole
    ], whole
