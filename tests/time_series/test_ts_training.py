"""Training the forecaster: windows without the future, exact resuming, and that it learns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from seqgen.errors import InputError
from seqgen.training.loop import fit
from seqgen_time_series.data import (
    HELD_OUT,
    TrainingBatch,
    TrainingSeries,
    WindowBatches,
    collate,
    simulated_series,
    table_series,
    window_and_future,
)
from seqgen_time_series.decoding import DecodingConfig
from seqgen_time_series.model import Forecaster, ForecasterConfig, load_model
from seqgen_time_series.simulate import SEASONS, simulate, simulate_many
from seqgen_time_series.training import PRESETS, ForecastRun, ForecastTask, configuration
from seqgen_time_series.validation import Validation

MICRO, FIT = PRESETS["micro"]
TINY = replace(MICRO, series=20, validation_series=4, batch=6)


def start(
    options: object = TINY, *, data: Path | None = None, seed: int = 0, folder: Path = Path()
) -> ForecastRun:
    run = ForecastTask().start(options, FIT, data=data, seed=seed, folder=folder)  # type: ignore[arg-type]
    assert isinstance(run, ForecastRun)
    return run


def same(one: TrainingBatch, other: TrainingBatch) -> bool:
    return torch.equal(one.z_BSP, other.z_BSP) and torch.equal(
        one.windows.patches_BTE, other.windows.patches_BTE
    )


# --- simulated series --------------------------------------------------------------------------


def test_a_simulated_series_is_a_function_of_its_seed() -> None:
    np.testing.assert_array_equal(simulate(5).y, simulate(5).y)
    assert len(simulate(5).y) != len(simulate(6).y) or (simulate(5).y != simulate(6).y).any()


def test_simulated_series_are_usable_and_differ() -> None:
    found = list(simulate_many(300, seed=0))
    assert {series.season for series in found} == set(SEASONS)
    for series in found:
        assert np.isfinite(series.y).all()
        assert len(series.y) >= max(60, 4 * series.season)
    sizes = np.array([np.abs(series.y).mean() for series in found])
    assert sizes.max() / sizes.min() > 1e3
    # Seasons are seen in the values: seasonal naive beats naive in most seasonal series.
    seasonal = [s for s in found if s.season > 1]
    better = [
        np.abs(s.y[s.season :] - s.y[: -s.season]).mean()
        < np.abs(s.y - np.roll(s.y, s.season // 2))[s.season :].mean()
        for s in seasonal
    ]
    assert np.mean(better) > 0.7


# --- batches -----------------------------------------------------------------------------------


def test_a_batch_is_a_function_of_seed_step_and_rank() -> None:
    run, again = start(), start()
    assert same(run.batch(7, 0, 1), again.batch(7, 0, 1))
    assert not same(run.batch(7, 0, 1), run.batch(8, 0, 1))
    assert not same(run.batch(7, 0, 1), start(seed=1).batch(7, 0, 1))
    # Ranks share out the very batches that one process would see.
    assert same(run.batch(3, 1, 2), run.batch(7, 0, 1))


def test_a_window_holds_nothing_of_the_future() -> None:
    config = configuration(MICRO)
    rng = np.random.default_rng(0)
    y = rng.normal(size=100).cumsum()
    other = y.copy()
    other[60:] = 1e6
    cuts = [window_and_future(TrainingSeries(x, 7), 60, config, 2) for x in (y, other)]
    assert cuts[0] is not None
    assert cuts[1] is not None
    for name in ("patches_TE", "simple_SPJ", "unit_S", "facts_SG"):
        np.testing.assert_array_equal(getattr(cuts[0][0], name), getattr(cuts[1][0], name))
    np.testing.assert_array_equal(cuts[0][1], y[60:76])


def test_targets_are_in_units_of_the_window() -> None:
    config = configuration(MICRO)
    y = np.random.default_rng(0).normal(size=100)
    cut = window_and_future(TrainingSeries(y, 1), 90, config, 2)
    assert cut is not None
    batch = collate([cut], config)
    assert batch.valid_BS.tolist() == [[True, False]]  # 8 of 16 values are known
    z = (y[90:98] - cut[0].level) / cut[0].scale
    np.testing.assert_allclose(batch.z_BSP[0, 0].numpy(), z, rtol=1e-5)
    assert bool(batch.z_BSP.isfinite().all())


def test_the_end_of_a_table_is_not_trained_on(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(
        "ds,one,two\n" + "".join(f"2000-01-{d:02d},{d},{-d}\n" for d in range(1, 31))
    )
    train, whole = table_series(tmp_path)
    assert [len(s.y) for s in whole] == [30, 30]
    assert [len(s.y) for s in train] == [round(30 * (1 - HELD_OUT))] * 2
    assert [s.season for s in train] == [7, 7]
    with pytest.raises(InputError):
        table_series(tmp_path / "nothing")
    with pytest.raises(InputError, match="no series"):
        WindowBatches([], [], configuration(MICRO), real_share=0.5, size=2, seed=0)


def test_losses_do_not_read_padding() -> None:
    """Slots behind the end of a series: whatever lies there, every loss is the same."""
    run = start()
    batch = next(b for b in (run.batch(step, 0, 1) for step in range(50)) if b.z_BSP.shape[1] > 2)
    valid = batch.valid_BS.clone()
    valid[:, 1:] = False
    found = []
    for filling in (0.0, 1e4):
        z = batch.z_BSP.clone()
        z[:, 1:] = filling
        torch.manual_seed(0)
        with torch.no_grad():
            losses = run.losses(replace(batch, z_BSP=z, valid_BS=valid), 0)
        found.append({name: float(loss) for name, loss in losses.items()})
    assert found[0] == pytest.approx(found[1], rel=1e-5)


def test_the_heads_do_not_move_the_base_and_hybrid_does_not_move_nar() -> None:
    run = start()
    batch = run.batch(0, 0, 1)
    run.losses(batch, 0)["ar"].backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is None or not p.grad.any() for p in run.model.skip.parameters())
    run.model.zero_grad()
    run.losses(batch, 0)["hybrid"].backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is None or not p.grad.any() for p in run.model.nar.parameters())
    assert any(p.grad is not None and p.grad.any() for p in run.model.hybrid.parameters())


# --- training ----------------------------------------------------------------------------------


def test_a_resumed_training_equals_an_unbroken_one(tmp_path: Path) -> None:
    short = replace(FIT, steps=6, warmup=2, save_every=3, validate_every=6, ema=0.9)
    whole = start()
    fit(whole, short, folder=tmp_path / "whole", seed=0)
    fit(start(), replace(short, stop=3), folder=tmp_path / "parts", seed=0)
    resumed = start()
    fit(resumed, short, folder=tmp_path / "parts", seed=0, resume=True)
    for one, other in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, other)
    assert load_model(tmp_path / "parts").config == whole.model.config


def test_it_learns_what_seasonal_naive_cannot_know(tmp_path: Path) -> None:
    """Noise around a constant: the best forecast is the mean, about sqrt(2) better than naive."""
    config = ForecasterConfig(
        patch=4, context=8, slots=2, width=16, heads=2, encoder_layers=1, decoder_layers=1,
        flow_hidden=16, flow_depth=1,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    series = [TrainingSeries(rng.normal(size=60), 1) for _ in range(80)]
    held_out = [one.y for one in series[40:]]
    torch.manual_seed(0)
    batches = WindowBatches(series[:40], [], config, real_share=0, size=16, seed=0)
    validation = Validation(series[40:], [], config, decoding=DecodingConfig(paths=20), seed=0)
    run = ForecastRun(Forecaster(config), batches, validation)
    before = run.validate()
    short = replace(FIT, steps=100, lr=5e-3, warmup=10, validate_every=100, log_every=100)
    after = fit(run, short, folder=tmp_path, seed=0)
    ratios = [np.abs(y[-8:]).mean() / np.abs(y[-8:] - y[-9]).mean() for y in held_out]
    best = float(np.exp(np.log(ratios).mean()))
    # Untrained it already goes on from a mean of simple forecasts, but does not know the spread.
    assert best < 0.8 < 0.84 < before["simulated_nar_mae"]
    assert after["simulated_nar_mae"] < min(1.1 * best, 0.98 * before["simulated_nar_mae"])
    assert after["simulated_nar_wql"] < 0.9 * before["simulated_nar_wql"]
    assert before["simulated_nar_coverage"] < 0.5
    assert 0.65 < after["simulated_nar_coverage"] < 0.92
    for decoder in ("ar", "hybrid", "block-diffusion"):
        assert after[f"simulated_{decoder}_mae"] < 1.12 * best


def test_series_of_another_seed_are_validated_on() -> None:
    run = start()
    trained = {series.y.tobytes() for series in run.batches.simulated}
    checked = {series.y.tobytes() for series, _ in run.validation.sets["simulated"]}
    assert not trained & checked
    assert [s.y.tobytes() for s in simulated_series(3, seed=1)] == [
        s.y.tobytes() for s in simulated_series(3, seed=1)
    ]
