"""Training windows of many series: a history, cut somewhere, and the values that follow it.

Series are simulated (`simulate.py`) and, with `--data`, read from tables. Of a table's series the
last fifth is never trained on, so that a forecast of it can be judged.

Shapes: B windows, S slots, P patch length.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seqgen.errors import InputError
from seqgen.seeds import item_seed
from seqgen_time_series.model import ForecasterConfig
from seqgen_time_series.simulate import simulate_many
from seqgen_time_series.windows import Window, WindowBatch, window_of

Floats = NDArray[np.float64]

HELD_OUT = 0.2
"""Share of a table's series, its end, that is not trained on."""
SHORTEST = 12
"""Values of the shortest history."""
MISSING = {"", "na", "nan", "null", "."}


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
        moved = {name: getattr(self.windows, name).to(device) for name in vars(self.windows)}
        return TrainingBatch(
            WindowBatch(**moved),
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
        cuts = []
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
    window = window_of(
        past, series.season, patch=config.patch, context=config.context, slots=slots
    )
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
    z_BSP = z_BH.unflatten(1, (-1, config.patch))
    valid_BS = z_BSP.isfinite().all(dim=-1)
    return TrainingBatch(windows, z_BSP.nan_to_num(0.0).float(), valid_BS, y_BH)


def simulated_series(count: int, *, seed: int) -> list[TrainingSeries]:
    """Simulated series number 0..count-1 of a seed."""
    return [TrainingSeries(found.y, found.season) for found in simulate_many(count, seed=seed)]


def table_series(folder: Path) -> tuple[list[TrainingSeries], list[TrainingSeries]]:
    """The series of every CSV file: their first part to train on, and the whole of them.

    A table has a row a time, in order, and a series a column. Its season comes from its columns
    `year` and `quarter` or `month`, or from how far its dates lie apart.

    Raises:
        InputError: no file, or one that is no such table.
    """
    files = sorted(folder.glob("*.csv")) if folder.is_dir() else [folder]
    if not files:
        raise InputError(f"{folder} holds no CSV file", fix="--data FOLDER with *.csv")
    whole = [series for file in files for series in _columns(file)]
    return [
        TrainingSeries(series.y[: round(len(series.y) * (1 - HELD_OUT))], series.season)
        for series in whole
    ], whole


_TIMES = {"ds", "date", "time", "timestamp", "year", "quarter", "month", "day", "unique_id"}


def _columns(file: Path) -> Iterator[TrainingSeries]:
    with file.open(newline="", encoding="utf-8-sig") as stream:
        rows = [row for row in csv.reader(stream.read().splitlines()) if row]
    if len(rows) < 2 or any(len(row) != len(rows[0]) for row in rows):
        raise InputError(f"{file} is not a table", fix="a header and rows of as many fields")
    names = [name.strip().lower() for name in rows[0]]
    times = [place for place, name in enumerate(names) if name in _TIMES]
    season = _season(file, {names[place]: [row[place] for row in rows[1:]] for place in times})
    for place in range(len(names)):
        if place in times:
            continue
        try:
            y = [_number(row[place]) for row in rows[1:]]
        except ValueError as error:
            raise InputError(f"{file}, column {rows[0][place]!r}: {error}") from error
        yield TrainingSeries(np.array(y), season)


def _number(text: str) -> float:
    return float("nan") if text.strip().lower() in MISSING else float(text)


def _season(file: Path, times: dict[str, list[str]]) -> int:
    for name, season in (("quarter", 4), ("month", 12), ("year", 1)):
        if name in times:
            return season
    if not times:
        return 1
    found = next(iter(times.values()))
    try:
        days = [date.fromisoformat(text.strip()[:10]).toordinal() for text in found[:200]]
    except ValueError as error:
        raise InputError(f"{file}: {error}", fix="dates as YYYY-MM-DD or YYYYMMDD") from error
    apart = float(np.median(np.diff(days))) if len(days) > 1 else 1.0
    for longest, season in ((0.5, 24), (1.5, 7), (8.0, 52), (32.0, 12), (93.0, 4)):
        if apart <= longest:
            return season
    return 1
