"""Options of `--set key=value`."""

from __future__ import annotations

from dataclasses import dataclass

from seqgen.options import option
from seqgen_time_series.arnet_config import ArnetConfig, Order, PenaltyName, Solver
from seqgen_time_series.columns import Layout
from seqgen_time_series.frequency import Frequency
from seqgen_time_series.table_config import Duplicates, Missing, TableConfig

DECILES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True)
class ForecastOptions:
    """What is read, how far it is forecast, by what, and how intervals are calibrated."""

    horizon: int = option(
        0,
        help="steps to forecast; 0: about a season, or as far as future columns go",
        range=(0, 100_000),
    )
    intervals: tuple[float, ...] = option(
        (80.0, 95.0), help="percent that each interval shall cover", range=(1.0, 99.9)
    )
    season: int = option(0, help="steps of a season; 0: the frequency's", range=(0, None))
    frequency: str = option("", help="pandas alias (h, D, MS, 15min); empty: inferred")
    id_column: str = option("", help="column of the series' names; empty: found")
    time_column: str = option("", help="column of the times; empty: found")
    value_column: str = option("", help="column of the values; empty: found")
    layout: Layout = option("auto", help="of the table")
    past: tuple[str, ...] = option((), help="exogenous columns known up to now (arnet)")
    future: tuple[str, ...] = option((), help="exogenous columns known beforehand too (arnet)")
    future_table: str = option("", help="file with the future columns; empty: in the table itself")
    missing: Missing = option(
        "error", help="missing values; keep: as they are, which the neural model understands"
    )
    duplicates: Duplicates = option("error", help="values with the same time")
    time_format: str = option("", help="of the times, for strptime; empty: ISO 8601")
    separator: str = option("", help="between columns of a CSV file; empty: found")
    decimal: str = option(".", help="decimal point of a CSV file")

    calibrate: bool = option(
        True, help="widen or narrow intervals by what they missed at earlier origins (conformal)"
    )
    calibration_windows: int = option(
        19,  # the fewest with which an interval of 95 % can be calibrated
        help="earlier origins that calibrate, as far as the history goes",
        range=(0, 1000),
    )
    windows: int = option(
        4, help="latest origins that are scored (seqgen eval, the rows' backtest)", range=(0, 1000)
    )
    step: int = option(
        0, help="steps between origins; 0: the horizon, fewer in short series", range=(0, None)
    )

    paths: int = option(
        100, help="sample paths of ar, hybrid and block-diffusion", range=(2, 100_000)
    )
    temperature: float = option(1.0, help="of the sample paths", range=(0.0, 100.0))
    block_length: int = option(
        0, help="patches a block of block-diffusion; 0: as trained", range=(0, None)
    )
    block_steps: int = option(2, help="passes a block of block-diffusion", range=(1, None))

    lags: int = option(0, help="arnet: lags; 0: two seasons and a little", range=(0, None))
    order: Order = option(
        "given", help="arnet: how many of the lags: all, or the best by AIC, BIC or the last fifth"
    )
    regressor_lags: int = option(
        1,
        help="arnet: lags of every exogenous column, besides a future one's present",
        range=(1, None),
    )
    solver: Solver = option("exact", help="arnet: how it is fitted")
    penalty: PenaltyName = option("ridge", help="arnet: penalty of the weights")
    strength: float | None = option(None, help="arnet: the penalty's lambda; none: chosen")
    hidden: tuple[int, ...] = option((), help="arnet: widths of hidden layers (solver=sgd)")
    window_mean: bool = option(False, help="arnet: subtract the mean of each window of lags")

    def __post_init__(self) -> None:
        self.table()
        if self.frequency:
            Frequency.parse(self.frequency)

    def table(self) -> TableConfig:
        """How tables are read."""
        return TableConfig(
            id_column=self.id_column,
            time_column=self.time_column,
            value_column=self.value_column,
            layout=self.layout,
            past=self.past,
            future=self.future,
            future_table=self.future_table,
            horizon=self.horizon,
            frequency=self.frequency,
            season=self.season,
            missing=self.missing,
            duplicates=self.duplicates,
            time_format=self.time_format,
            separator=self.separator,
            decimal=self.decimal,
        )

    def arnet(self) -> ArnetConfig:
        """How `--model arnet` fits."""
        return ArnetConfig(
            lags=self.lags,
            order=self.order,
            regressor_lags=self.regressor_lags,
            solver=self.solver,
            penalty=self.penalty,
            strength=self.strength,
            hidden=self.hidden,
            window_mean=self.window_mean,
        )

    @property
    def levels(self) -> tuple[float, ...]:
        """Quantile levels that are forecast: the intervals' ends and the deciles, rising."""
        ends = [percent / 100 for percent in self.intervals]
        found = {round((1 + sign * p) / 2, 6) for p in ends for sign in (-1, 1)}
        return tuple(sorted(found | set(DECILES)))


def default_horizon(season: int) -> int:
    """Steps to forecast where nobody says how many: one season, in reason."""
    if season < 2:
        return 10
    return season * -(-8 // season) if season < 8 else min(season, 60)
