"""The domain: tables in, rows out, for AR-Net and for a neural model."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from tests.time_series.small_forecasters import history, random_forecaster

from seqgen.batching import list_entries, plan_batches
from seqgen.errors import ConfigError, UsageError
from seqgen.options import parse
from seqgen.plugins import Plugins
from seqgen.registry import Card, Registry, card_from_path
from seqgen.runner import Runner
from seqgen.testing import check_domain
from seqgen_time_series import plugin
from seqgen_time_series.arnet import auto_lags, fit_origin, impulse_response
from seqgen_time_series.arnet_config import ArnetConfig
from seqgen_time_series.backtest import Rolling
from seqgen_time_series.domain import TimeSeriesDomain
from seqgen_time_series.linear.synthetic import simulate
from seqgen_time_series.model import save_model
from seqgen_time_series.options import ForecastOptions, default_horizon
from seqgen_time_series.origins import FORECAST, Origin, fewest_values, origins_of
from seqgen_time_series.series import Series

ARNET = Registry.load().card("arnet")
INFO = plugin.seqgen_domains()[0]
Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def neural(tmp_path_factory: pytest.TempPathFactory) -> Card:
    """A card of a random micro model."""
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    save_model(random_forecaster(), path, {})
    return card_from_path(path, plugin="time-series")


def table(folder: Path, columns: dict[str, Sequence[float]], name: str = "t.csv") -> str:
    """A long table with daily times."""
    lines = ["unique_id,ds,y"]
    for column, values in columns.items():
        days = np.datetime64("2020-01-01") + np.arange(len(values))
        lines += [f"{column},{d},{float(y)!r}" for d, y in zip(days, values, strict=True)]
    path = folder / name
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def rows_of(
    source: str,
    card: Card = ARNET,
    *,
    decoder: str = "ar",
    seed: int = 0,
    batch_size: int = 16,
    sets: Sequence[str] = (),
) -> Rows:
    domain = TimeSeriesDomain()
    options = parse(ForecastOptions, sets)
    model = domain.build(card, torch.device("cpu"), torch.float32)
    runner = Runner(
        domain, model, decoder=decoder, model_name=card.name, options=options, seed=seed,
        batch_size=batch_size,
    )  # fmt: skip
    entries = list_entries(domain, [source], options)
    rows = {
        row["id"]: row
        for result in runner.run(plan_batches(entries, batch_size))
        for row in result.rows
    }
    return [rows[entry.id] for entry in entries]


def series(y: np.ndarray, *, season: int = 1, **changes: Any) -> Series:
    ds = np.arange(len(y), dtype=np.int64)
    return replace(Series("s", "", ds, np.asarray(y, np.float64), season=season), **changes)


# --- the contract ------------------------------------------------------------------------------


def test_contract_with_arnet() -> None:
    report = check_domain(TimeSeriesDomain(), info=INFO, card=ARNET, decoders=["ar", "nar"])
    assert report.metrics is not None
    assert report.metrics["relative_mase"] < 1.0


def test_contract_with_a_neural_model(neural: Card) -> None:
    report = check_domain(TimeSeriesDomain(), info=INFO, card=neural)
    assert report.decoders == ("nar", "ar", "hybrid", "block-diffusion")


def test_the_plugin_is_known_and_light() -> None:
    assert "time-series" in {ref.name for ref in Plugins().installed()}
    assert Registry.load().default_card("time-series").plugin == "time-series"


# --- rows --------------------------------------------------------------------------------------


def test_a_row_holds_the_forecast_beside_seasonal_naive(tmp_path: Path) -> None:
    y = history(0, 140)
    source = table(tmp_path, {"a": y})
    (row,) = rows_of(source, sets=["horizon=9"])
    assert row["status"] == "ok"
    assert row["unique_id"] == "a"
    assert row["cutoff"] == "2020-05-19"
    assert row["ds"][0] == "2020-05-20"
    assert len(row["ds"]) == len(row["forecast"]) == len(row["naive"]) == 9
    np.testing.assert_array_equal(row["naive"], [y[133 + h % 7] for h in range(9)])
    quantiles = np.array([row["quantiles"][key] for key in row["quantiles"]])
    assert [float(key) for key in row["quantiles"]] == sorted(float(k) for k in row["quantiles"])
    assert (np.diff(quantiles, axis=0) >= 0).all()
    assert row["quantiles"]["0.5"] == row["forecast"]
    assert row["backtest"]["windows"] >= 1
    json.dumps(row, allow_nan=False)


def test_the_forecast_is_that_of_the_exact_autoregression(tmp_path: Path) -> None:
    from seqgen_time_series.linear.model import ARNet

    y = simulate([0.5, -0.3, 0.4], 300, seed=0, level=50.0)
    (row,) = rows_of(
        table(tmp_path, {"a": y}), sets=["lags=3", "penalty=none", "horizon=12", "calibrate=false"]
    )
    fitted = ARNet(lags=3).fit(y)
    np.testing.assert_allclose(row["forecast"], fitted.forecast(y, 12), rtol=1e-9)
    paths = fitted.simulate(y, 12, samples=20_000, seed=1)
    high = np.array(row["quantiles"]["0.9"])
    np.testing.assert_allclose(high, np.quantile(paths, 0.9, axis=0), atol=0.06)


def test_every_solver_and_hidden_layers_forecast(tmp_path: Path) -> None:
    source = table(tmp_path, {"a": simulate([0.9], 200, seed=0, level=10.0)})
    common = ["horizon=4", "lags=2", "windows=0", "calibrate=false"]
    found = {
        name: rows_of(source, sets=[*common, *name.split()])[0]
        for name in ("solver=exact", "solver=levinson penalty=none", "solver=sgd hidden=4")
    }
    exact = np.array(found["solver=exact"]["forecast"])
    for row in found.values():
        assert row["status"] == "ok"
        np.testing.assert_allclose(row["forecast"], exact, atol=0.6)
        assert row["quantiles"]["0.9"][3] > row["quantiles"]["0.9"][0]


def test_rows_do_not_depend_on_batches_or_company(tmp_path: Path, neural: Card) -> None:
    both = table(tmp_path, {"a": history(0, 90), "b": history(1, 40)})
    alone = table(tmp_path, {"b": history(1, 40)}, "alone.csv")
    sets = ["paths=4", "calibration_windows=4", "windows=1"]
    for decoder in INFO.decoders:
        (_, b) = rows_of(both, neural, decoder=decoder, sets=sets)
        (one,) = rows_of(alone, neural, decoder=decoder, sets=sets, batch_size=1)
        np.testing.assert_allclose(b["forecast"], one["forecast"], rtol=1e-3, atol=1e-3)


def test_columns_that_a_model_does_not_use_are_named(tmp_path: Path, neural: Card) -> None:
    rng = np.random.default_rng(0)
    lines = ["ds,y,price"] + [f"{t},{rng.normal()},{rng.normal()}" for t in range(60)]
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    sets = ["past=price", "horizon=4"]
    (row,) = rows_of(str(tmp_path / "t.csv"), neural, decoder="nar", sets=sets)
    assert "price" in row["notes"][0]
    (row,) = rows_of(str(tmp_path / "t.csv"), decoder="nar", sets=sets)
    assert "notes" not in row


def test_the_seed_decides_the_paths(tmp_path: Path, neural: Card) -> None:
    source = table(tmp_path, {"a": history(0, 60)})
    sets = ["paths=4", "windows=0", "calibrate=false"]
    found = [rows_of(source, neural, seed=seed, sets=sets)[0]["forecast"] for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize("decoder", ["ar", "nar"])
def test_forecasts_of_earlier_origins_know_nothing_of_later_values(
    tmp_path: Path, decoder: str, neural: Card
) -> None:
    domain, options = TimeSeriesDomain(), ForecastOptions(horizon=5, paths=4)
    y = history(0, 120)
    later = y.copy()
    later[90:] += 1000.0
    for card in (ARNET, neural):
        model = domain.build(card, torch.device("cpu"), torch.float32)
        found = []
        for values in (y, later):
            origin = [o for o in domain.split(series(values, season=7), options) if _end(o) <= 90]
            seeds = torch.arange(len(origin))
            with torch.inference_mode():
                context = domain.condition(model, origin, options)
                plan = domain.plan(model, context, decoder, options, seeds)
                found.append(domain.finish(plan.run(), origin, context, options))
        assert len(found[0]) > 3
        for one, other in zip(*found, strict=True):
            np.testing.assert_array_equal(one["quantiles"], other["quantiles"])


def _end(origin: Origin) -> int:
    return len(origin.history.y)


def test_calibration_repairs_intervals_that_are_too_narrow(tmp_path: Path) -> None:
    """A fit that follows its own noise promises too much; its earlier errors say so."""
    rng = np.random.default_rng(0)
    columns = {f"s{i}": rng.normal(size=260) for i in range(12)}
    source = table(tmp_path, columns)
    sets = ["lags=40", "penalty=none", "horizon=4", "windows=15"]
    coverage = {}
    for calibrate in ("true", "false"):
        rows = rows_of(source, sets=[*sets, f"calibrate={calibrate}"])
        coverage[calibrate] = TimeSeriesDomain().score(rows, [])["coverage_80"]
    assert coverage["false"] < 0.74
    assert 0.75 < coverage["true"] < 0.85


def test_a_short_series_is_forecast_and_says_that_it_is_not_calibrated(tmp_path: Path) -> None:
    (row,) = rows_of(table(tmp_path, {"a": history(0, 14)}), sets=["horizon=3", "lags=2"])
    assert row["status"] == "ok"
    assert row["calibrated"] == {"windows": 0, "percent": []}
    assert row["backtest"] == {}


def test_intervals_without_width_are_noted(tmp_path: Path, neural: Card) -> None:
    flat, other = rows_of(table(tmp_path, {"flat": [5.0] * 30, "other": range(30)}), neural,
                          decoder="nar")  # fmt: skip
    assert flat["quantiles"]["0.1"] == flat["quantiles"]["0.9"]
    assert "constant" in flat["notes"][0]
    assert "notes" not in other


def test_few_windows_calibrate_the_narrow_intervals_only(tmp_path: Path) -> None:
    source = table(tmp_path, {"a": history(0, 200)})
    (row,) = rows_of(source, sets=["calibration_windows=9", "windows=0"])
    assert row["calibrated"]["windows"] == 9
    assert max(row["calibrated"]["percent"]) == 80.0


def test_values_filled_in_are_neither_scored_nor_calibrated_with(tmp_path: Path) -> None:
    """A shop that is closed on Sundays: the other days are calibrated all the same."""
    y = history(0, 300)
    path = Path(table(tmp_path, {"a": y}))
    header, *lines = path.read_text().splitlines()
    path.write_text("\n".join([header, *(line for i, line in enumerate(lines) if i % 7 != 3)]))
    sets = ["missing=interpolate", "horizon=7", "lags=9", "windows=2"]
    (row,) = rows_of(str(path), sets=sets)
    assert row["calibrated"] == {"windows": 19, "percent": [20.0, 40.0, 60.0, 80.0, 95.0]}
    (raw,) = rows_of(str(path), sets=[*sets, "calibrate=false"])
    closed = [step for step in range(7) if (300 + step) % 7 == 3]
    moved = np.array(row["quantiles"]["0.9"]) != np.array(raw["quantiles"]["0.9"])
    assert np.flatnonzero(~moved).tolist() == closed
    assert raw["backtest"]["coverage_80"] * 12 == pytest.approx(  # 2 windows of 6 known days
        round(raw["backtest"]["coverage_80"] * 12)
    )


# --- origins -----------------------------------------------------------------------------------


def test_origins_end_with_the_series() -> None:
    y = np.arange(50.0)
    found = origins_of(series(y), Rolling(horizon=5, windows=4, shortest=10))
    assert [o.number for o in found] == [FORECAST, 0, 1, 2, 3]
    assert [_end(o) for o in found] == [50, 30, 35, 40, 45]
    np.testing.assert_array_equal(found[-1].actual, y[45:])
    assert found[0].actual.size == 0
    assert len({o.id for o in found}) == 5
    assert [o.number for o in origins_of(series(y[:12]), Rolling(horizon=5, windows=4))] != []


def test_default_horizons_are_a_season_in_reason() -> None:
    assert {m: default_horizon(m) for m in (1, 4, 7, 12, 24, 288)} == {
        1: 10, 4: 8, 7: 14, 12: 12, 24: 24, 288: 60,
    }  # fmt: skip
    assert fewest_values(12, 12) >= 25


# --- AR-Net ------------------------------------------------------------------------------------


def test_impulse_response() -> None:
    weights = np.array([0.5, 0.2])
    psi = [1.0, 0.5, 0.45, 0.325]
    np.testing.assert_allclose(impulse_response(weights, 4), psi)


def test_a_stretch_with_missing_values_is_not_fitted_across() -> None:
    y = simulate([0.9], 400, seed=0, level=10.0)
    y[200] = np.nan
    found = fit_origin(Origin(series(y), 3), ArnetConfig(lags=2), direct=False, seed=0)
    assert found.fitted.rows == 400 - 1 - 2 * 2
    y[-1] = np.nan
    from seqgen.errors import InputError

    with pytest.raises(InputError, match="no value at 399"):
        fit_origin(Origin(series(y), 3), ArnetConfig(lags=2), direct=False, seed=0)


def test_future_columns_are_used_and_past_columns_are_noted(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=210)
    y = np.concatenate([[0.0], 5.0 * x[:-1]]) + 0.01 * rng.normal(size=210)
    whole = series(y[:200], future={"x": x})
    found = fit_origin(Origin(whole, 10), ArnetConfig(lags=1), direct=False, seed=0)
    np.testing.assert_allclose(found.mean_H, y[200:], atol=0.1)
    assert found.warnings == ()
    held = fit_origin(
        Origin(series(y[:200], past={"x": x[:200]}), 10), ArnetConfig(lags=1), direct=False, seed=0
    )
    assert "x taken to stay" in held.warnings[0]
    direct = fit_origin(
        Origin(series(y[:200], past={"x": x[:200]}), 3), ArnetConfig(lags=1), direct=True, seed=0
    )
    assert direct.warnings == ()


@pytest.mark.parametrize("direct", [False, True])
def test_a_future_column_tells_of_its_own_time(direct: bool) -> None:
    """A promotion raises the sales of its day, not those of the next one."""
    rng = np.random.default_rng(0)
    promotion = (rng.random(314) < 0.3).astype(float)
    y = 50.0 + 20.0 * promotion + rng.normal(size=314)
    whole = series(y[:300], future={"promotion": promotion})
    found = fit_origin(Origin(whole, 14), ArnetConfig(lags=5), direct=direct, seed=0)
    np.testing.assert_allclose(found.mean_H, 50.0 + 20.0 * promotion[300:], atol=2.0)
    assert found.sd_H.max() < 2.0


@pytest.mark.parametrize("order", ["aic", "bic", "validation"])
def test_the_number_of_lags_is_chosen(tmp_path: Path, order: str) -> None:
    y = simulate([0.4, -0.3, 0.3], 800, seed=4)
    config = parse(ForecastOptions, ["lags=20", f"order={order}"]).arnet()
    assert fit_origin(Origin(series(y), 4), config, direct=False, seed=0).fitted.lags == 3
    (row,) = rows_of(table(tmp_path, {"a": y}), sets=["lags=20", f"order={order}"])
    assert row["calibrated"]["windows"] == 19


def test_a_fit_that_explodes_is_replaced() -> None:
    y = 1.6 ** np.arange(30.0) * (-1.0) ** np.arange(30)
    found = fit_origin(
        Origin(series(y), 60), ArnetConfig(lags=1, penalty="none"), direct=False, seed=0
    )
    assert np.abs(found.mean_H).max() <= 10 * np.abs(y).max()
    assert any("exploded" in text for text in found.warnings)


@pytest.mark.parametrize(
    "y", [np.full(60, 5.0), np.arange(60.0), np.sin(np.arange(60.0)), 1e6 + np.arange(60.0) % 7]
)
def test_series_without_noise_are_continued(y: np.ndarray) -> None:
    season = 7 if y[0] == 1e6 else 1
    found = fit_origin(Origin(series(y, season=season), 6), ArnetConfig(), direct=False, seed=0)
    truth = {5.0: np.full(6, 5.0), 0.0: np.arange(60.0, 66.0), 1e6: 1e6 + np.arange(60, 66) % 7}
    if y[1] == np.sin(1.0):
        truth[0.0] = np.sin(np.arange(60.0, 66.0))
    np.testing.assert_allclose(found.mean_H, truth[float(y[0])], atol=0.1 * max(y.std(), 0.1))
    assert np.isfinite(found.sd_H).all()


def test_auto_lags_leave_rows_to_fit_with() -> None:
    assert auto_lags(12, 1000) == 27
    assert auto_lags(1, 1000) == 12
    assert auto_lags(24, 40) == 10
    assert auto_lags(1, 2) == 1


# --- bad input ---------------------------------------------------------------------------------


def test_a_bad_series_does_not_stop_the_others(tmp_path: Path) -> None:
    y = history(0, 60)
    text = Path(table(tmp_path, {"bad": y, "good": y})).read_text().splitlines()
    text[31] = "bad,2020-01-31,oops"
    (tmp_path / "t.csv").write_text("\n".join(text) + "\n")
    failed, ok = rows_of(str(tmp_path / "t.csv"))
    assert (failed["status"], ok["status"]) == ("failed", "ok")
    assert "'bad'" in failed["reason"]
    assert "2020-01-31" in failed["reason"]
    assert failed["unique_id"] == "bad"


def test_lags_that_a_series_cannot_have_are_named(tmp_path: Path) -> None:
    long, short = rows_of(
        table(tmp_path, {"long": history(0, 300), "short": history(1, 40)}),
        sets=["lags=50"],
    )
    assert long["status"] == "ok"
    assert short["status"] == "failed"
    assert "'short'" in short["reason"]
    assert "lags=" in short["reason"]


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda d, m, o: d.build(Registry.load().card("mesa"), torch.device("cpu"), m), UsageError),
        (lambda d, m, o: d.build(ARNET, torch.device("cpu"), torch.float16), UsageError),
    ],
)
def test_what_cannot_be_built_says_why(
    change: Callable[[TimeSeriesDomain, torch.dtype, ForecastOptions], object],
    error: type[Exception],
) -> None:
    with pytest.raises(error):
        change(TimeSeriesDomain(), torch.float32, ForecastOptions())


def test_what_a_model_cannot_do_says_what_can(tmp_path: Path, neural: Card) -> None:
    source = table(tmp_path, {"a": history(0, 60)})
    with pytest.raises(UsageError, match="forecasts 48 steps"):
        rows_of(source, neural, sets=["horizon=49"])
    with pytest.raises(UsageError, match="no decoder 'hybrid'"):
        rows_of(source, decoder="hybrid")
    with pytest.raises(ConfigError):
        parse(ForecastOptions, ["frequency=fortnightly"])
    with pytest.raises(ConfigError):
        parse(ForecastOptions, ["intervals=120"])


def test_many_short_series(tmp_path: Path) -> None:
    lines = ["unique_id,ds,y"]
    for number in range(300):
        lines += [f"s{number},{step},{number + step % 3}" for step in range(1 + number % 5)]
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    rows = rows_of(str(tmp_path / "t.csv"), sets=["horizon=2"])
    assert len(rows) == 300
    assert all(row["status"] == "ok" or "'s" in row["reason"] for row in rows)


# --- pictures, files and commands --------------------------------------------------------------


def test_pictures(tmp_path: Path) -> None:
    domain, options = TimeSeriesDomain(), ForecastOptions(horizon=6)
    source = table(tmp_path, {"a": history(0, 150)})
    model = domain.build(ARNET, torch.device("cpu"), torch.float32)
    runner = Runner(domain, model, decoder="ar", model_name="arnet", options=options)
    entries = list_entries(domain, [source], options)
    (result,) = runner.run(plan_batches(entries, 4))
    items = [entry.item for entry in entries if entry.item is not None]
    assert domain.plot(result.rows[0], items[0], options).startswith(b"\x89PNG")
    assert domain.chart(result.rows, items, "png").startswith(b"\x89PNG")


def test_written_tables_hold_interval_columns(tmp_path: Path) -> None:
    rows = rows_of(table(tmp_path, {"a": history(0, 60)}), sets=["horizon=3"])
    target = tmp_path / "out.csv"
    TimeSeriesDomain().write(rows, target, "csv")
    lines = target.read_text().splitlines()
    assert len(lines) == 4
    assert {"unique_id", "ds", "cutoff", "y", "y-lo-80", "y-hi-95"} <= set(lines[0].split(","))


def test_the_mesa_command() -> None:
    from seqgen_time_series.commands import mesa

    done = CliRunner().invoke(mesa, ["--set", "data=one-hot", "--set", "dimension=2", "--json"])
    assert done.exit_code == 0, done.output
    row = json.loads(done.output)
    assert row["ab_error"] < 0.01
    shown = CliRunner().invoke(mesa, ["--set", "data=one-hot", "--set", "dimension=2"])
    assert "met" in shown.output


def test_the_mesa_experiment_as_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from seqgen_cli.main import run

    rows = tmp_path / "mesa.jsonl"
    words = ["run", "--plugin", "time-series", "--model", "mesa", "--set", "dimension=2"]
    words += ["--set", "data=one-hot"]
    assert run([*words, "-o", str(rows), "--plot", str(tmp_path / "pictures")]) == 0
    assert json.loads(rows.read_text())["ab"] == pytest.approx([1.0, 1.0])
    assert (tmp_path / "pictures" / "mesa.png").read_bytes().startswith(b"\x89PNG")
    capsys.readouterr()
    assert run([*words, "--seed", "3"]) == 0
    assert json.loads(capsys.readouterr().out)["data"] == "one-hot"
    assert run([*words, "-o", str(rows)]) == 2
    assert run([*words, "series.csv"]) == 2
    assert "data of its own" in capsys.readouterr().err


def test_the_explain_command(tmp_path: Path) -> None:
    from seqgen_time_series.commands import explain

    y = simulate([0.5, -0.3], 400, seed=0)
    source = table(tmp_path, {"a": y, "short": y[:3]})
    (tmp_path / "empty.csv").touch()
    empty = str(tmp_path / "empty.csv")
    arguments = [source, empty, "--set", "lags=2", "--plot", str(tmp_path / "lags")]
    done = CliRunner().invoke(explain, arguments)
    assert done.exit_code == 1  # a series is too short, and a table is empty
    first, second, third = (json.loads(line) for line in done.stdout.splitlines())
    assert third["unique_id"] == empty
    assert "is empty" in third["reason"]
    assert done.stderr.count("failed: ") == 2
    np.testing.assert_allclose(first["coefficients"], [[0.5, -0.3]], atol=0.1)
    np.testing.assert_allclose(first["standard_errors"], [[0.048, 0.048]], atol=0.005)
    assert "'short'" in second["reason"]
    assert first["regressors"] == {}
    assert [path.name for path in (tmp_path / "lags").iterdir()] == ["00000-a.png"]
