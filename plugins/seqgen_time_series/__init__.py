"""The time-series plugin's light module: what it registers. Nothing heavy is imported here.

The work sits in `seqgen_time_series.domain.TimeSeriesDomain`, imported when the domain is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from seqgen.domain import DomainInfo
from seqgen.hookspecs import hookimpl

if TYPE_CHECKING:
    import click


class TimeSeriesPlugin:
    """Forecasting: exact autoregressions, and one global model with four decoders."""

    api = 1

    @hookimpl
    def seqgen_domains(self) -> Sequence[DomainInfo]:
        return [
            DomainInfo(
                name="time-series",
                summary="Forecasts of time series, with calibrated intervals",
                factory="seqgen_time_series.domain:TimeSeriesDomain",
                inputs="CSV, TSV or parquet (long, ds and y, or wide): files, folders, globs, -",
                formats=("csv", "parquet", "jsonl"),
                decoders={
                    "nar": "the whole horizon in one pass, as quantiles",
                    "ar": "patch after patch, sampled values fed back, many paths",
                    "hybrid": "as ar, attending to the states of the direct pass too",
                    "block-diffusion": "blocks of patches, each filled in a few passes",
                },
                default_decoder="nar",
                extra="time-series",
                batch_size=64,
            )
        ]

    @hookimpl
    def seqgen_commands(self, cli: click.Group) -> None:
        from seqgen_time_series.commands import explain, mesa

        cli.add_command(explain)
        cli.add_command(mesa)


plugin = TimeSeriesPlugin()
