"""AR-Net as a forecaster of the plugin: fitted to each history at the moment of its forecast.

`ar` fits one step and feeds the forecast back; `nar` fits every step of the horizon directly (as
NeuralProphet does). The forecast is the conditional mean. Its distribution is Gaussian, in closed
form where the model is linear: with psi the impulse response of the autoregression,

    var e_h = sigma^2 sum_{i < h} psi_i^2   (fed back),      var e_h = sigma_h^2   (direct);

with hidden layers it comes from simulated paths. A fit that explodes within the horizon is replaced
by that of Yule and Walker, which is always stationary, and the row says so.

Shapes: B windows, H steps, P lags, L levels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import NormalDist

import numpy as np
import torch
from torch import nn

from seqgen.canvas import Canvas
from seqgen.decoders.base import StreamDecoder
from seqgen.errors import InputError
from seqgen.events import Event
from seqgen.model import Context, SequenceModel
from seqgen_time_series.arnet_config import ArnetConfig
from seqgen_time_series.frequency import time_texts
from seqgen_time_series.linear.fitted import FittedAR
from seqgen_time_series.linear.gram import Floats
from seqgen_time_series.linear.model import ARNet
from seqgen_time_series.linear.order import select_order
from seqgen_time_series.origins import FORECAST, Origin

EXPLOSIVE = 50.0
"""An impulse response, or a forecast's distance in standard deviations, that no series means."""


@dataclass(frozen=True)
class Fit:
    """A forecast by AR-Net.

    Attributes:
        mean_H, sd_H: of every step.
        fitted: the model.
        warnings: what its user should know.
    """

    mean_H: Floats
    sd_H: Floats
    fitted: FittedAR = field(repr=False)
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class ArnetContext(Context):
    """Histories to be fitted, and the fits, which the decoder puts there.

    At an earlier origin that cannot be fitted (a short or broken history) stands the reason.
    """

    origins: tuple[Origin, ...] = ()
    fits: list[Fit | InputError] = field(default_factory=list)


class ArnetModel(nn.Module):
    """Nothing learned beforehand: the weights of every series are its own."""


@dataclass(frozen=True, kw_only=True)
class FitAndForecast(StreamDecoder):
    """Fits every history of the context and writes the means into the canvas [B, H, 1].

    Attributes:
        config: of the fits.
        direct: fit every step of the horizon, instead of feeding back one step.
    """

    config: ArnetConfig
    direct: bool

    def stream(
        self, model: SequenceModel, canvas: Canvas, context: Context | None = None
    ) -> Iterator[Event]:
        """One event: everything is decided at once."""
        assert isinstance(context, ArnetContext)
        seeds = canvas.seeds_B.tolist()
        context.fits[:] = [
            self._fit(origin, seed) for origin, seed in zip(context.origins, seeds, strict=True)
        ]
        slots_1S = torch.arange(canvas.slots, device=canvas.device)[None]
        values = canvas.values.clone()
        for row, fit in enumerate(context.fits):
            if isinstance(fit, Fit):
                values[row, : len(fit.mean_H), 0] = torch.from_numpy(fit.mean_H)
        certain = torch.ones_like(canvas.confidence_BS)
        kept = canvas.open_at(slots_1S, slots_1S < canvas.limit_B[:, None])
        canvas.commit(slots_1S, values, certain, kept)
        yield Event(
            forward=0,
            step=0,
            refinement=0,
            slots_BQ=slots_1S,
            values=canvas.values,
            confidence_BQ=certain,
            kept_BQ=kept,
        )

    def _fit(self, origin: Origin, seed: int) -> Fit | InputError:
        try:
            with torch.inference_mode(False), torch.enable_grad():  # solver=sgd trains
                return fit_origin(origin, self.config, direct=self.direct, seed=seed)
        except InputError as error:
            if origin.number == FORECAST:
                raise
            return error


def auto_lags(season: int, count: int) -> int:
    """Two seasons and a little, as far as the history can tell that many weights."""
    return max(1, min(2 * season + max(2, season // 4) if season > 1 else 12, count // 4))


def fit_origin(origin: Origin, config: ArnetConfig, *, direct: bool, seed: int) -> Fit:
    """Fit a history and forecast what follows.

    Raises:
        InputError: it is too short, or its last values are missing; names series and time.
    """
    y, horizon = origin.history.y, origin.horizon
    reach = horizon if direct else 1
    columns = _columns(origin, reach)
    parts = _known_parts(origin, columns)
    longest = max(len(values) for values, _ in parts)
    lags = config.lags or auto_lags(origin.history.season, longest - reach)
    ahead = origin.history.future
    regressor_lags = {
        name: config.regressor_lags + (reach if name in ahead else 0) for name in columns
    }
    model = ARNet(
        lags=lags,
        horizon=reach,
        regressor_lags=regressor_lags,
        solver=config.solver,
        penalty=config.penalty,
        strength=config.strength,
        hidden=config.hidden,
        window_mean=config.window_mean,
    )
    tail = max(lags, *regressor_lags.values(), 0)
    needed = tail + reach + 1
    kept = [part for part in parts if len(part[0]) >= needed]
    if not kept:
        raise InputError(
            f"series {origin.history.unique_id!r} has {longest} values in a row up to "
            f"{_time(origin, -1)}; {lags} lags and {reach} steps need {needed}",
            fix=("" if lags == 1 else f"--set lags={max(1, (longest - reach) // 4)}, ")
            + "a longer history, a shorter horizon, or the neural model (without --model)",
        )
    if config.order != "given":
        best = select_order(max((v for v, _ in kept), key=len), lags, criterion=config.order).best
        model = replace(model, lags=max(1, best))
        tail = max(model.lags, *regressor_lags.values(), 0)
    _check_tail(y, tail, origin)
    fitted = model.fit_many([v for v, _ in kept], [x for _, x in kept])
    made = _forecast(fitted, origin, columns, config, seed)
    if not _explodes(made, y):
        return made
    stable = replace(model, solver="levinson", penalty="none", regressor_lags={}, horizon=1,
                     hidden=(), window_mean=False)  # fmt: skip
    longest_part = max((v for v, _ in kept), key=len)
    again = _forecast(stable.fit(longest_part), origin, {}, config, seed)
    return replace(
        again, warnings=(*again.warnings, "the fit exploded: refitted by Yule-Walker (stationary)")
    )


def _columns(origin: Origin, reach: int) -> dict[str, Floats]:
    """Exogenous columns as lagged regressors of a model that predicts `reach` steps at once.

    A future column is known beforehand: it is moved up by as many steps, so that its first lag is
    its value at the last time that is predicted.
    """
    history = origin.history
    return {**history.past, **{name: x[reach:] for name, x in history.future.items()}}


def _known_parts(
    origin: Origin, columns: Mapping[str, Floats]
) -> list[tuple[Floats, dict[str, Floats]]]:
    """The stretches of a history without missing values, with their regressors."""
    y = origin.history.y
    columns = {name: x[: len(y)] for name, x in columns.items()}
    known = np.isfinite(y)
    for x in columns.values():
        known &= np.isfinite(x)
    if known.all():
        return [(y, dict(columns))]
    edges = np.flatnonzero(np.diff(np.concatenate([[False], known, [False]]).astype(np.int8)))
    spans = edges.reshape(-1, 2).tolist()
    if not spans:
        raise InputError(f"series {origin.history.unique_id!r} has no value before its forecast")
    return [(y[a:b], {name: x[a:b] for name, x in columns.items()}) for a, b in spans]


def _check_tail(y: Floats, lags: int, origin: Origin) -> None:
    missing = np.flatnonzero(~np.isfinite(y[-lags:]))
    if len(missing):
        place = len(y) - lags + int(missing[-1])
        raise InputError(
            f"series {origin.history.unique_id!r} has no value at {_time(origin, place)}",
            why=f"its forecast is made of the last {lags} values",
            fix="--set missing=interpolate, or fewer lags: --set lags=N",
        )


def _time(origin: Origin, place: int) -> str:
    return str(time_texts(origin.history.ds[place:][:1])[0])


def _forecast(
    fitted: FittedAR,
    origin: Origin,
    columns: Mapping[str, Floats],
    config: ArnetConfig,
    seed: int,
) -> Fit:
    horizon = origin.horizon
    # The lags alone: values may be missing further back.
    tail = max(fitted.lags, *fitted.regressor_lags.values(), 0)
    history = origin.history.y[-tail:]
    regressors = _continued(origin, fitted.regressor_lags, columns, tail)
    mean_H = fitted.forecast(history, horizon, regressors=regressors)
    if not fitted.linear:
        paths = fitted.simulate(
            origin.history.y,
            horizon,
            samples=config.paths,
            seed=seed % 2**32,
            regressors=regressors,
        )
        sd_H = np.asarray(paths.std(axis=0))
    elif fitted.horizon >= horizon:
        sd_H = fitted.sigma[:horizon]
    else:
        psi_H = impulse_response(fitted.coefficients[0], horizon)
        sd_H = np.asarray(float(fitted.sigma[0]) * np.sqrt(np.cumsum(np.square(psi_H))))
    warnings = [warning.message for warning in fitted.warnings]
    past = set(fitted.regressor_lags) - set(origin.history.future)
    if held := sorted(past) if fitted.horizon < horizon else []:
        warnings.append(
            f"{', '.join(held)} taken to stay as they were last: past columns end where the "
            "forecast begins (--decoder nar needs no later values)"
        )
    return Fit(mean_H, sd_H, fitted, tuple(warnings))


def _continued(
    origin: Origin, wanted: Mapping[str, int], columns: Mapping[str, Floats], tail: int
) -> dict[str, Floats] | None:
    """Regressors over the last `tail` values of the history and the horizon; a past column keeps
    its last value beyond the origin."""
    if not wanted:
        return None
    found = {}
    for name in wanted:
        x = columns[name]
        if name not in origin.history.future:
            x = np.concatenate([x, np.full(origin.horizon, x[-1])])
        found[name] = x[len(origin.history.y) - tail :]
    return found


def impulse_response(coefficients_P: Floats, count: int) -> Floats:
    """psi_0 .. psi_{count-1} of an autoregression: psi_0 = 1, psi_j = sum_i w_i psi_{j-i}."""
    from scipy.signal import lfilter

    impulse = np.zeros(count)
    impulse[0] = 1.0
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(lfilter([1.0], np.concatenate([[1.0], -coefficients_P]), impulse))


def _explodes(made: Fit, y: Floats) -> bool:
    if not (np.isfinite(made.mean_H).all() and np.isfinite(made.sd_H).all()):
        return True
    spread = float(np.nanmax(y) - np.nanmin(y))
    reach = np.abs(made.mean_H - np.nanmedian(y)).max()
    return bool(reach > EXPLOSIVE * spread + 1e-9 * np.abs(np.nanmedian(y)) > 0.0)


def gaussian_quantiles(fit: Fit, levels: Sequence[float]) -> Floats:
    """Quantiles [H, L] of a forecast."""
    z_L = np.array([NormalDist().inv_cdf(level) for level in levels])
    return np.asarray(fit.mean_H[:, None] + fit.sd_H[:, None] * z_L)
