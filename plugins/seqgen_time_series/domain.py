"""The time-series domain: tables of series in, calibrated forecasts out."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from seqgen.canvas import Canvas
from seqgen.decoders.base import Generated
from seqgen.domain import Fields, Plan
from seqgen.errors import InputError, UsageError
from seqgen.model import Context, SequenceModel
from seqgen.registry import Card
from seqgen.training.task import TrainingTask
from seqgen.weights import local_files
from seqgen_time_series.answers import Answer, backtest_cases, row_of, total_scores
from seqgen_time_series.arnet import (
    ArnetContext,
    ArnetModel,
    Fit,
    FitAndForecast,
    gaussian_quantiles,
)
from seqgen_time_series.backtest import Rolling
from seqgen_time_series.decoding import DecodingConfig, plan_windows, quantiles_of
from seqgen_time_series.formats import write_rows
from seqgen_time_series.model import Forecaster, WindowContext, load_model
from seqgen_time_series.options import ForecastOptions, default_horizon
from seqgen_time_series.origins import Origin, fewest_values, origins_of
from seqgen_time_series.readers import list_series
from seqgen_time_series.scoring import Case
from seqgen_time_series.series import Series
from seqgen_time_series.windows import WindowBatch, windows_of

_LOG = logging.getLogger("seqgen")

_FLAT = (
    "the history is constant, which tells nothing of errors: intervals have no width of their own"
)


class TimeSeriesDomain:
    """Forecasting."""

    options = ForecastOptions

    def __init__(self) -> None:
        self._longest: int | None = None
        """Steps that the model in use can forecast; None: any number."""
        self._cases: dict[tuple[str, str], list[Case]] = {}
        """The latest backtest of every series; rows hold its figures only."""
        self._told: set[str] = set()
        """Exogenous columns that the model in use passes over, as far as the user was told."""

    def load(self, source: str, options: ForecastOptions) -> Iterator[Series]:
        yield from list_series(source, options.table())

    def example(self) -> list[str]:
        return [str(files("seqgen_time_series") / "assets" / "example.csv")]

    def build(self, card: Card, device: torch.device, dtype: torch.dtype) -> nn.Module:
        if dtype != torch.float32:
            raise UsageError(
                f"the time-series plugin computes in float32, not {dtype}", fix="--dtype float32"
            )
        kind = card.config.get("kind", "")
        if kind == "mesa":
            raise UsageError(
                "mesa is an experiment on data of its own, no forecaster",
                fix="seqgen time-series mesa (--help shows its settings)",
            )
        if kind == "arnet":
            self._longest = None
            return ArnetModel().eval()
        model = load_model(local_files(card)[0]).to(device)
        self._longest = model.config.horizon
        return model

    def split(self, item: Series, options: ForecastOptions) -> Iterator[Origin]:
        """The origin behind the last value, and earlier ones to calibrate with and to score."""
        if item.problem is not None:
            raise item.problem
        yield from origins_of(item, self._rolling(item, options))

    def condition(
        self, model: nn.Module, pieces: Sequence[Origin], options: ForecastOptions
    ) -> Context:
        if not isinstance(model, Forecaster):
            return ArnetContext(origins=tuple(pieces))
        unused = sorted({name for piece in pieces for name in piece.regressors} - self._told)
        if unused:
            self._told.update(unused)
            _LOG.warning(
                "this model does not use the exogenous columns %s; --model arnet does",
                ", ".join(unused),
            )
        c = model.config
        windows = windows_of(
            [piece.history.y for piece in pieces],
            [piece.history.season for piece in pieces],
            patch=c.patch,
            context=c.context,
            slots=[-(-piece.horizon // c.patch) for piece in pieces],
        )
        device = next(model.parameters()).device
        return model.listen(WindowBatch.of(windows, device))

    def plan(
        self,
        model: nn.Module,
        context: Context | None,
        decoder: str,
        options: ForecastOptions,
        seeds: Tensor,
    ) -> Plan:
        if isinstance(context, ArnetContext):
            return _plan_arnet(model, context, decoder, options, seeds)
        assert isinstance(model, Forecaster)
        assert isinstance(context, WindowContext)
        decoding = DecodingConfig(
            paths=options.paths,
            temperature=options.temperature,
            block_length=options.block_length,
            block_steps=options.block_steps,
        )
        return plan_windows(model, context, decoder, decoding, seeds)

    def finish(
        self,
        generated: Generated,
        pieces: Sequence[Origin],
        context: Context | None,
        options: ForecastOptions,
    ) -> list[Fields]:
        """Raw quantiles of every origin; `join` calibrates them."""
        if isinstance(context, ArnetContext):
            return [
                _fitted_fields(piece, fit, options)
                for piece, fit in zip(pieces, context.fits, strict=True)
            ]
        assert isinstance(context, WindowContext)
        assert context.windows is not None
        flat = (context.windows.scale_B == 0.0).tolist()
        quantiles = quantiles_of(generated, context, options.levels).cpu().numpy()
        return [
            {
                "number": piece.number,
                "quantiles": own_HK[: piece.horizon].tolist(),
                "notes": [*_unused(piece), *([_FLAT] if constant else [])],
            }
            for piece, own_HK, constant in zip(pieces, quantiles, flat, strict=True)
        ]

    def join(self, item: Series, parts: Sequence[Fields], options: ForecastOptions) -> Fields:
        rolling = self._rolling(item, options)
        origins = {origin.number: origin for origin in origins_of(item, rolling)}
        answers = [
            Answer(origins[part["number"]], np.array(part["quantiles"]), tuple(part["notes"]))
            for part in parts
            if part["quantiles"]
        ]
        cases = backtest_cases(answers, rolling, options)
        self._cases[item.source, item.unique_id] = cases
        return row_of(answers, cases, options)

    def describe(self, item: Series) -> Fields:
        """What a row says of a series that failed."""
        return {"unique_id": item.unique_id}

    def write(self, rows: Iterable[Mapping[str, Any]], destination: Path, format: str) -> None:
        write_rows(rows, destination, format)

    def score(self, rows: Sequence[Mapping[str, Any]], items: Sequence[Series]) -> dict[str, float]:
        """Metrics of the rows' backtests."""
        found = total_scores([row for row in rows if row["status"] == "ok"])
        if not found:
            raise InputError(
                "no series has values behind an earlier origin",
                why="none holds a history and a horizon after it, or windows is 0",
                fix="a shorter horizon (--set horizon=N), longer series, or --set windows=4",
            )
        return found

    def plot(self, row: Mapping[str, Any], item: Series, options: ForecastOptions) -> bytes:
        """History, forecast with intervals, seasonal naive."""
        from seqgen_time_series.plots import forecast_plot

        return forecast_plot(row, item)

    def chart(
        self, rows: Sequence[Mapping[str, Any]], items: Sequence[Series], format: str
    ) -> bytes:
        """Metrics over seasonal naive's, how they spread, and reliability."""
        from seqgen_time_series.plots import metrics_chart

        return metrics_chart(
            [case for item in items for case in self._cases.get((item.source, item.unique_id), ())],
            format=format,
        )

    def training(self) -> TrainingTask:
        from seqgen_time_series.training import ForecastTask

        return ForecastTask()

    def _rolling(self, item: Series, options: ForecastOptions) -> Rolling:
        """The windows of a series: as many as asked for and as there is room for."""
        horizon = self._horizon(item, options)
        wanted = options.windows + (options.calibration_windows if options.calibrate else 0)
        shortest = fewest_values(item.season, horizon)
        if options.lags:  # as many rows as weights, and a horizon
            shortest = max(shortest, 2 * options.lags + horizon + 1)
        room = len(item.y) - horizon - shortest
        # In short series the origins lie closer together, rather than being few.
        apart = options.step or max(1, min(horizon, room // max(wanted - 1, 1)))
        plain = Rolling(horizon=horizon, step=apart, shortest=shortest)
        return replace(plain, windows=min(wanted, replace(plain, windows=0).count(len(item.y))))

    def _horizon(self, item: Series, options: ForecastOptions) -> int:
        """Steps to forecast.

        Raises:
            UsageError: more than the model can.
            InputError: future columns end before the horizon does.
        """
        known = min((len(x) - len(item.y) for x in item.future.values()), default=None)
        horizon = options.horizon or known or default_horizon(item.season)
        if self._longest is not None:
            if options.horizon > self._longest:
                raise UsageError(
                    f"this model forecasts {self._longest} steps, not {options.horizon}",
                    fix=f"--set horizon={self._longest}, or --model arnet, which goes on as far as "
                    "you like",
                )
            horizon = min(horizon, self._longest)
        if known is not None and known < horizon:
            raise InputError(
                f"series {item.unique_id!r} has {known} future values, and {horizon} steps are "
                "to be forecast",
                fix=f"--set horizon={known}, or more rows of future columns",
            )
        return horizon


def _fitted_fields(piece: Origin, fit: Fit | InputError, options: ForecastOptions) -> Fields:
    if isinstance(fit, InputError):
        return {"number": piece.number, "quantiles": [], "notes": [fit.what]}
    return {
        "number": piece.number,
        "quantiles": gaussian_quantiles(fit, options.levels).tolist(),
        "notes": list(fit.warnings),
    }


def _unused(piece: Origin) -> list[str]:
    """Said rather than passed over: the neural model has not learned a user's columns."""
    if not piece.regressors:
        return []
    return [f"not used by this model: {', '.join(piece.regressors)} (--model arnet uses them)"]


def _plan_arnet(
    model: nn.Module,
    context: ArnetContext,
    decoder: str,
    options: ForecastOptions,
    seeds: Tensor,
) -> Plan:
    if decoder not in ("ar", "nar"):
        raise UsageError(
            f"arnet has no decoder {decoder!r}",
            why="it is one linear model a series: fed back (ar), or direct (nar)",
            fix="--decoder ar or nar, or a neural model",
        )
    horizons = [origin.horizon for origin in context.origins]
    canvas = Canvas(
        torch.zeros(len(horizons), max(horizons), 1, dtype=torch.float64),
        length=horizons,
        seeds=seeds,
    )
    chosen = FitAndForecast(config=options.arnet(), direct=decoder == "nar")
    # The decoder fits the histories of the context; there is no network that it would ask.
    return Plan(chosen, cast(SequenceModel, model), canvas, context)
