"""The series that a training or a conversion learns from, and those that validate it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from seqgen.seeds import item_seed
from seqgen_time_series.data import WindowBatches, simulated_series, table_series
from seqgen_time_series.decoding import DecodingConfig
from seqgen_time_series.model import ForecasterConfig
from seqgen_time_series.validation import Validation


@dataclass(frozen=True)
class SeriesOptions:
    """Options of a training and of a conversion; `--set key=value`."""

    batch: int = field(default=48, metadata={"help": "windows a batch"})
    series: int = field(default=4000, metadata={"help": "series to simulate"})
    real_share: float = field(default=0.2, metadata={"help": "share of windows from --data"})
    validation_series: int = field(
        default=96, metadata={"help": "simulated series of another seed to validate on"}
    )


def training_data(
    options: SeriesOptions, config: ForecasterConfig, data: Path | None, *, seed: int
) -> tuple[WindowBatches, Validation]:
    """Windows of simulated series and those of `data`, and of series that are held out."""
    train, whole = ([], []) if data is None else table_series(data)
    batches = WindowBatches(
        simulated_series(options.series, seed=item_seed(seed, "training series")),
        train,
        config,
        real_share=options.real_share,
        size=options.batch,
        seed=seed,
    )
    held_out = simulated_series(
        options.validation_series, seed=item_seed(seed, "validation series")
    )
    decoding = DecodingConfig(paths=20)
    return batches, Validation(held_out, whole, config, decoding=decoding, seed=seed)
