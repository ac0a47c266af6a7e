"""Commands of the plugin: `seqgen time-series COMMAND`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from seqgen_time_series.arnet import Fit
    from seqgen_time_series.domain import TimeSeriesDomain
    from seqgen_time_series.options import ForecastOptions

EXPLAIN_EPILOG = """\b
Examples:
  seqgen time-series explain
  seqgen time-series explain sales.csv --plot lags/ --set penalty=mcp
"""

MESA_EPILOG = """\b
Examples:
  seqgen time-series mesa
  seqgen time-series mesa --plot mesa.png --json
"""


@click.command(name="explain", epilog=EXPLAIN_EPILOG)
@click.argument("inputs", nargs=-1, metavar="[INPUT]...")
@click.option("--set", "sets", multiple=True, metavar="K=V", help="As for `seqgen run`.")
@click.option(
    "--decoder",
    type=click.Choice(["ar", "nar"]),
    default="ar",
    show_default=True,
    help="Coefficients of one step, or of every step of the horizon.",
)
@click.option("--plot", metavar="DIR", help="Draw the coefficients with 95 % intervals.")
def explain(inputs: tuple[str, ...], sets: tuple[str, ...], decoder: str, plot: str | None) -> None:
    """What AR-Net fits to each series: coefficients by lag, with standard errors.

    Prints a JSON object a series; without INPUT, of the shipped example. Standard errors of
    selected coefficients (penalty=l1, mcp, arnet) take the selection as given, and are too small.
    """
    from seqgen import options
    from seqgen.batching import safe_stem
    from seqgen_time_series.domain import TimeSeriesDomain
    from seqgen_time_series.options import ForecastOptions
    from seqgen_time_series.plots import lag_plot

    settings = options.parse(ForecastOptions, sets)
    domain = TimeSeriesDomain()
    failures = 0
    for number, (name, found) in enumerate(_fits(domain, inputs, settings, decoder == "nar")):
        if isinstance(found, str):
            failures += 1
            click.echo(json.dumps({"unique_id": name, "reason": found}))
            click.echo(f"failed: {found}", err=True)
            continue
        click.echo(json.dumps({"unique_id": name, **_explained(found)}))
        if plot is not None:
            folder = Path(plot)
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{number:05d}-{safe_stem(name)}.png"
            path.write_bytes(lag_plot(found.fitted, title=name))
    if failures:
        raise SystemExit(1)


def _fits(
    domain: TimeSeriesDomain, inputs: tuple[str, ...], settings: ForecastOptions, direct: bool
) -> Iterator[tuple[str, Fit | str]]:
    """Every series (or table that cannot be read) by name, with its fit or why there is none."""
    from seqgen.batching import failure_reason
    from seqgen.errors import InputError
    from seqgen_time_series.arnet import fit_origin

    for source in inputs or domain.example():
        try:
            every = list(domain.load(source, settings))
        except InputError as error:
            yield source, failure_reason(source, error)
            continue
        for series in every:
            name = series.unique_id
            try:
                # The first piece is the forecast itself.
                origin = next(iter(domain.split(series, settings)))
                yield name, fit_origin(origin, settings.arnet(), direct=direct, seed=0)
            except InputError as error:
                yield name, failure_reason(name, error)


def _explained(found: Fit) -> dict[str, object]:
    fitted = found.fitted
    errors, own = fitted.standard_errors, fitted.regressor_standard_errors
    return {
        "lags": fitted.lags,
        "rows": fitted.rows,
        "solver": fitted.solver,
        "penalty": fitted.penalty,
        "sigma": fitted.sigma.tolist(),
        "intercept": fitted.intercept.tolist(),
        "coefficients": fitted.coefficients.tolist(),
        "standard_errors": None if errors is None else _plain(errors.tolist()),
        # The nearest first: of a past column the one before the forecast, of a future column the
        # one at the last time that is predicted at once.
        "regressors": {
            name: {
                "coefficients": values.tolist(),
                "standard_errors": _plain(own[name].tolist()) if name in own else None,
            }
            for name, values in fitted.regressor_coefficients.items()
        },
        "notes": list(found.warnings),
    }


def _plain(rows: list[list[float]]) -> list[list[float | None]]:
    """JSON has no NaN."""
    return [[value if value == value else None for value in row] for row in rows]


@click.command(name="mesa", epilog=MESA_EPILOG)
@click.option("--set", "sets", multiple=True, metavar="K=V", help="Change a setting; repeatable.")
@click.option("--plot", metavar="FILE", help="Draw it: png, svg or pdf.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a distribution.")
@click.option("-o", "--output", metavar="FILE", help="Write these objects there instead.")
def mesa(sets: tuple[str, ...], plot: str | None, as_json: bool, output: str | None) -> None:
    """The mesa-optimization experiment: does a trained layer do gradient descent?

    Trains one layer of linear causal attention on x[t+1] = W x[t] and compares what it learned with
    the theorem of arXiv 2405.16845: the product a b, the entries that should vanish, and its
    predictions with one gradient step of least squares. For data that meet the theorem's condition
    (one-hot, gaussian) and for data that do not (ones). `seqgen run --plugin time-series --model
    mesa` is the same, with --plot DIR.
    """
    from seqgen import options
    from seqgen_time_series.mesa import MesaConfig, run_mesa

    if plot is not None:
        from seqgen.plots import picture_format

        picture_format(Path(plot))  # before the work, not after it
    report = run_mesa(options.parse(MesaConfig, sets))
    lines = [json.dumps(row) for row in report.rows()]
    if output is not None:
        Path(output).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        click.echo(f"wrote {output}", err=True)
    elif as_json:
        click.echo("\n".join(lines))
    else:
        click.echo(_table(report.rows()))
    if plot is not None:
        from seqgen_time_series.mesa_plot import plot_mesa

        plot_mesa(report, Path(plot))
        click.echo(f"wrote {plot}", err=True)


def _table(rows: list[dict[str, float | str | bool | list[float]]]) -> str:
    columns = {
        "data": "data",
        "meets_condition": "condition",
        "ab": "a b learned",
        "ab_theory": "theory",
        "ab_error": "error",
        "other_entries": "other entries",
        "gradient_step_gap": "from a gradient step",
        "prediction_error": "prediction error",
        "seconds": "seconds",
    }
    table = [list(columns.values())]
    table += [[_cell(row[name]) for name in columns] for row in rows]
    widths = [max(len(line[place]) for line in table) for place in range(len(columns))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in table
    )


def _cell(value: float | str | bool | list[float]) -> str:
    if isinstance(value, bool):
        return "met" if value else "not met"
    if isinstance(value, list):
        return " ".join(f"{entry:.4f}" for entry in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
