"""The forecaster's invariants: windows, scale, batches, seeds, and training against decoding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.time_series.small_forecasters import history, random_forecaster
from torch import Tensor

from seqgen.canvas import Canvas
from seqgen.decoders import Autoregressive
from seqgen.decoders.base import Generated
from seqgen.errors import CheckpointError, InputError
from seqgen.heads import QuantileHead
from seqgen.orders import Blocks, Raster
from seqgen.training.hybrid import hybrid_context
from seqgen_time_series.decoding import (
    SAMPLED,
    DecodingConfig,
    path_seeds,
    plan_windows,
    quantiles_of,
)
from seqgen_time_series.model import (
    Forecaster,
    WindowContext,
    decode_values,
    encode_values,
    load_model,
    save_model,
)
from seqgen_time_series.simple import SIMPLE
from seqgen_time_series.training import PRESETS, configuration
from seqgen_time_series.windows import WindowBatch, window_of

DECODERS = ("ar", "nar", "hybrid", "block-diffusion")
LEVELS = (0.1, 0.5, 0.9)
SEEDS = st.integers(0, 10_000)
SLOTS = 4
FEW = DecodingConfig(paths=3)
quick = settings(max_examples=10, deadline=None)


def batch_of(
    model: Forecaster, series: list[np.ndarray], season: int = 7, slots: list[int] | None = None
) -> WindowBatch:
    c = model.config
    return WindowBatch.of(
        [
            window_of(y, season, patch=c.patch, context=c.context, slots=slots)
            for y, slots in zip(series, cycle(slots or [SLOTS]), strict=False)
        ]
    )


def run(
    model: Forecaster,
    decoder: str,
    series: list[np.ndarray],
    seeds: list[int],
    slots: list[int] | None = None,
) -> tuple[Generated, WindowContext]:
    context = model.listen(batch_of(model, series, slots=slots))
    plan = plan_windows(model, context, decoder, FEW, torch.tensor(seeds))
    return plan.run(), context


@torch.no_grad()
def forecast(
    model: Forecaster,
    decoder: str,
    series: list[np.ndarray],
    seeds: list[int] | None = None,
    slots: list[int] | None = None,
) -> np.ndarray:
    """Quantiles [B, H, L]."""
    generated, context = run(model, decoder, series, seeds or list(range(len(series))), slots)
    return quantiles_of(generated, context, LEVELS).numpy()


# --- windows -----------------------------------------------------------------------------------


def test_simple_forecasts_are_those_that_they_are_said_to_be() -> None:
    y = np.arange(30.0) % 7 + 0.1 * np.arange(30)
    window = window_of(y, 7, patch=5, context=8, slots=2)
    simple = window.level + window.scale * window.simple_SPJ.reshape(10, -1).astype(float)
    naive = [y[23 + h % 7] for h in range(10)]
    np.testing.assert_allclose(simple[:, 0], naive, atol=1e-5)
    np.testing.assert_allclose(simple[:7, 1], y[16:23], atol=1e-5)
    np.testing.assert_allclose(simple[:, 8], y[-1], atol=1e-5)
    truth = (np.arange(30, 40) % 7) + 0.1 * np.arange(30, 40)
    np.testing.assert_allclose(simple[:, 9], truth, atol=1e-4)  # with drift: exact here
    np.testing.assert_allclose(simple[:, 11], y[-8:].mean(), atol=1e-5)
    np.testing.assert_allclose(simple[:, 13], truth, atol=1e-3)


def test_units_are_the_errors_of_seasonal_naive_so_far_ahead() -> None:
    y = np.random.default_rng(0).normal(size=400).cumsum()
    window = window_of(y, 1, patch=4, context=200, slots=3)
    for slot, lag in enumerate((2, 6, 10)):
        error = 1.2533 * np.abs(y[lag:] - y[:-lag]).mean() / window.scale
        np.testing.assert_allclose(window.unit_S[slot], error, rtol=1e-5)


def test_missing_values_are_marked_and_not_invented() -> None:
    y = history(0, 40)
    y[10] = np.nan
    patches = window_of(y, 7, patch=8, context=5, slots=1).patches_TE
    values, known = patches[:, :8].reshape(-1), patches[:, 8:16].reshape(-1)
    assert (known == 1).sum() == 39
    assert known[10] == values[10] == 0
    assert window_of(y, 7, patch=8, context=5, slots=1).level == np.nanmedian(y)
    with pytest.raises(InputError, match="no value"):
        window_of(np.full(5, np.nan), 1, patch=8, context=5, slots=1)


@quick
@given(seed=SEEDS, length=st.integers(1, 80), season=st.sampled_from([1, 4, 7, 24, 200]))
def test_windows_of_any_history_are_finite(seed: int, length: int, season: int) -> None:
    rng = np.random.default_rng(seed)
    y = rng.normal(size=length).cumsum()
    y[rng.random(length) < 0.2] = np.nan
    y[-1] = 1.0
    window = window_of(y, season, patch=8, context=6, slots=3)
    for name in ("patches_TE", "simple_SPJ", "unit_S", "facts_SG"):
        assert np.isfinite(getattr(window, name)).all(), name
    assert (window.unit_S > 0).all()


# --- decoding ----------------------------------------------------------------------------------


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_row_of_a_batch_equals_the_row_alone(decoder: str) -> None:
    """Histories and horizons of different lengths; also: the same seed, the same sample."""
    model = random_forecaster()
    series, slots = [history(1, 70), history(2, 20), history(3, 5)], [4, 2, 1]
    batch = forecast(model, decoder, series, [5, 6, 7], slots)
    for row, y in enumerate(series):
        alone = forecast(model, decoder, [y], [5 + row], slots[row : row + 1])[0]
        np.testing.assert_allclose(batch[row, : len(alone)], alone, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("decoder", SAMPLED)
def test_same_seed_same_samples_and_another_seed_another(decoder: str) -> None:
    model = random_forecaster()
    y = history(1, 50)
    found = [forecast(model, decoder, [y], [seed]) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(found[0], found[1])
    assert np.abs(found[0] - found[2]).max() > 1e-3
    assert len(set(path_seeds(torch.tensor([1, 2]), 50).tolist())) == 100


@quick
@given(
    decoder=st.sampled_from(DECODERS),
    scale=st.sampled_from([1e-6, 0.3, 7.0, 1e5]),
    shift=st.sampled_from([0.0, -3.0, 1e6]),
    seed=SEEDS,
)
def test_forecasts_follow_the_units_of_the_data(
    decoder: str, scale: float, shift: float, seed: int
) -> None:
    """y -> a y + b gives a times the forecast plus b, also for noise far below the level."""
    model, y = random_forecaster(), history(seed, 60)
    shift *= scale
    plain, moved = forecast(model, decoder, [y]), forecast(model, decoder, [scale * y + shift])
    np.testing.assert_allclose((moved - shift) / scale, plain, rtol=5e-3, atol=5e-3)


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_constant_is_forecast_as_it_is(decoder: str) -> None:
    found = forecast(random_forecaster(), decoder, [np.full(40, 7.25)])
    np.testing.assert_array_equal(found, 7.25)


@pytest.mark.parametrize("decoder", DECODERS)
def test_quantiles_rise_and_are_finite(decoder: str) -> None:
    model = random_forecaster()
    wild = history(0, 60)
    wild[-3] = 1e9
    found = forecast(model, decoder, [history(1, 60), wild, history(2, 1)])
    assert found.shape == (3, SLOTS * model.config.patch, 3)
    assert np.isfinite(found).all()
    assert (np.diff(found, axis=-1) >= 0).all()


def test_an_untrained_model_goes_on_from_the_simple_forecasts_that_did_well() -> None:
    torch.manual_seed(0)
    model = Forecaster(configuration(PRESETS["micro"][0]))
    y = np.arange(60.0) % 7 + 0.1 * np.arange(60)
    windows = batch_of(model, [y])
    context = model.listen(windows)
    assert context.base_BSP is not None
    base_H = decode_values(torch.zeros_like(context.base_BSP), context).flatten(1)[0].detach()
    # Seasonal naive knows no trend; autoregressions are exact, and were so at an earlier origin.
    ahead = np.arange(60, 60 + base_H.numel())
    truth = ahead % 7 + 0.1 * ahead
    simple_HJ = (windows.level_B + windows.scale_B * windows.simple_BSPJ[0].flatten(0, 1)).numpy()
    errors_J = np.abs(simple_HJ - truth[:, None]).mean(axis=0)
    assert errors_J[-2:].max() < 0.01 < 0.5 < errors_J[0]
    assert np.abs(base_H.numpy() - truth).mean() < 0.05 * errors_J[0]

    log_errors_SJ = windows.facts_BSG[0, :, -SIMPLE:].double().numpy()
    weights_SJ = np.exp(-2.0 * log_errors_SJ)
    weights_SJ[:, -2:] *= np.exp(1.5)
    weights_SJ /= weights_SJ.sum(axis=1, keepdims=True)
    patches = simple_HJ.reshape(len(weights_SJ), -1, SIMPLE)
    expected = np.einsum("spj,sj->sp", patches, weights_SJ).ravel()
    np.testing.assert_allclose(base_H.numpy(), expected, rtol=1e-5)


@torch.no_grad()
def test_what_a_window_holds_reaches_every_decoder() -> None:
    """Nothing drowns: two histories with the same level and scale give other forecasts."""
    model = random_forecaster()
    one = history(1, 56)
    other = one[::-1].copy()
    for decoder in DECODERS:
        contexts = [model.listen(batch_of(model, [y])) for y in (one, other)]
        # The same base and the same given embedding: only attention can tell them apart.
        same = replace(
            contexts[1], given_BSD=contexts[0].given_BSD, base_BSP=contexts[0].base_BSP,
            windows=contexts[0].windows,
        )  # fmt: skip
        found = []
        for context in (contexts[0], same):
            plan = plan_windows(model, context, decoder, FEW, torch.tensor([3]))
            found.append(quantiles_of(plan.run(), context, LEVELS))
        assert float((found[0] - found[1]).abs().max()) > 1e-3, decoder


def test_sampled_values_are_fed_back() -> None:
    model = random_forecaster(sample_head="student-t")
    generated, _ = run(model, "ar", [history(1, 50)], [1])
    assert generated.parameters is not None
    first, second = generated.parameters[:, 0], generated.parameters[:, 1]
    torch.testing.assert_close(first[0], first[1])  # before any sample all paths are one
    assert float((second[0] - second[1]).abs().max()) > 1e-4


# --- training ----------------------------------------------------------------------------------


@quick
@given(seed=SEEDS)
def test_values_there_and_back(seed: int) -> None:
    model = random_forecaster()
    with torch.no_grad():
        context = model.listen(batch_of(model, [history(seed, 50), history(seed + 1, 20)]))
    assert context.windows is not None
    windows = context.windows
    y = torch.randn(2, SLOTS, model.config.patch, dtype=torch.float64)
    z = (y - windows.level_B[:, None, None]) / windows.scale_B[:, None, None]
    back = decode_values(encode_values(z.float(), context), context)
    torch.testing.assert_close(back, y, atol=1e-4, rtol=1e-4)


def _hidden(model: Forecaster, name: str, v: Tensor, context: WindowContext) -> Tensor:
    """States that a head sees in training, one pass over all slots."""
    from seqgen.attention import MaskView

    table = Raster().table(v.shape[1], v.device)
    slots = torch.arange(v.shape[1])[None]
    decoder = model.decoder(name)  # type: ignore[arg-type]
    x = decoder.inputs.embed_before(v, context)
    info = table.info(slots)
    view = MaskView(decoder.mask, info, info, None)
    return decoder.backbone(x, table.coordinates_SA[slots], view=view, cache=None, context=context)


@pytest.mark.parametrize("name", ["ar", "hybrid"])
@torch.no_grad()
def test_one_pass_training_equals_decoding(name: str) -> None:
    model = random_forecaster(sample_head="student-t")
    series = [history(1, 60), history(2, 30)]
    context = model.listen(batch_of(model, series))
    one = DecodingConfig(paths=1)
    decoder = "ar" if name == "ar" else "hybrid"
    generated = plan_windows(model, context, decoder, one, torch.tensor([1, 2])).run()
    memory = context
    if name == "hybrid":
        blank = Canvas(torch.zeros_like(generated.values))
        memory = hybrid_context(model.first_pass(), blank, context)  # type: ignore[assignment]
    hidden = _hidden(model, name, generated.values, memory)
    head = model.decoder(name).head  # type: ignore[arg-type]
    assert generated.parameters is not None
    torch.testing.assert_close(
        head.parameters_of(hidden),
        generated.parameters,
        atol=1e-4,
        rtol=1e-3,  # type: ignore[attr-defined]
    )


@torch.no_grad()
def test_direct_decoding_equals_training_with_everything_masked() -> None:
    model = random_forecaster()
    context = model.listen(batch_of(model, [history(1, 60)]))
    generated = plan_windows(model, context, "nar", FEW, torch.tensor([1])).run()
    v = torch.randn_like(generated.values)
    slots = torch.arange(SLOTS)[None]
    x = model.nar.inputs.embed(v, torch.zeros(1, SLOTS, dtype=torch.bool), slots, context)  # type: ignore[operator]
    table = Blocks(SLOTS).table(SLOTS, v.device)
    hidden = model.nar.backbone(
        x, table.coordinates_SA[slots], view=None, cache=None, context=context
    )
    assert isinstance(model.nar.head, QuantileHead)
    torch.testing.assert_close(
        model.nar.head.parameters_of(hidden), generated.parameters, atol=1e-4, rtol=1e-3
    )


@torch.no_grad()
def test_cached_decoding_equals_uncached() -> None:
    model = random_forecaster()
    context = model.listen(batch_of(model, [history(1, 60)]))
    plan = plan_windows(model, context, "ar", FEW, torch.tensor([1]))
    assert isinstance(plan.decoder, Autoregressive)
    cached = plan.run().values.clone()
    again = plan_windows(model, context, "ar", FEW, torch.tensor([1]))
    uncached = replace(plan.decoder, cached=False).generate(
        again.model, again.canvas, again.context
    )
    torch.testing.assert_close(cached, uncached.values, atol=1e-4, rtol=1e-3)


# --- checkpoints -------------------------------------------------------------------------------


def test_a_saved_model_forecasts_the_same(tmp_path: Path) -> None:
    model = random_forecaster()
    save_model(model, tmp_path / "model.safetensors", {"seed": 0})
    model.half().float()  # as it is kept
    again = load_model(tmp_path)
    series = [history(1, 60)]
    for decoder in DECODERS:
        np.testing.assert_array_equal(
            forecast(model, decoder, series), forecast(again, decoder, series)
        )


@pytest.mark.parametrize("break_it", [lambda c: c.pop("model"), lambda c: c.update(kind="x")])
def test_a_foreign_checkpoint_is_refused(
    tmp_path: Path, break_it: Callable[[dict[str, object]], object]
) -> None:
    from seqgen import checkpoints

    save_model(random_forecaster(), tmp_path / "m.safetensors", {})
    state, config = checkpoints.load(tmp_path / "m.safetensors")
    config = dict(config)
    break_it(config)
    checkpoints.save(tmp_path / "other.safetensors", state, config)
    with pytest.raises(CheckpointError):
        load_model(tmp_path / "other.safetensors")


@pytest.mark.gpu
@pytest.mark.parametrize("decoder", DECODERS)
@torch.no_grad()
def test_a_cuda_device_forecasts_the_same(decoder: str) -> None:
    model, series = random_forecaster(), [history(1, 60), history(2, 20)]
    expected = forecast(model, decoder, series)
    windows = batch_of(model, series).to(torch.device("cuda"))
    model = model.cuda()
    context = model.listen(windows)
    plan = plan_windows(model, context, decoder, FEW, torch.tensor([0, 1]))
    found = quantiles_of(plan.run(), context, LEVELS).cpu().numpy()
    np.testing.assert_allclose(found, expected, rtol=5e-3, atol=5e-3)
