"""What a forecaster sees of a history: normalised patches, simple forecasts, and units of error.

Everything is in units of the history itself, z = (y - level) / scale, so a forecast of a y + b is a
times the forecast of y, plus b (a > 0). The level is the median of the context, the scale its mean
absolute deviation as a standard deviation: one outlier moves neither much.

Beside the patches a window holds, for every step of the horizon, J simple forecasts (seasonal
naive of the last seasons, with drift, level-corrected, the last value, autoregressions of this
history, ...), with the errors that they would have made shortly before; and for every slot the mean
error that seasonal naive had so far ahead in it, the unit in which a model's values are given. A
constant history has scale 0, and every forecast of it is that constant.

A missing value (NaN) enters a patch as 0 with its flag unset; only the simple forecasts look back
to the value before it.

Shape suffixes: N history, T patches, E numbers a patch, S slots, P patch length, J simple
forecasts, G facts a slot, B windows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seqgen.errors import InputError
from seqgen_time_series.linear.model import ARNet

Floats = NDArray[np.float64]

SEASONS = 8
"""Seasons that the simple forecasts look back."""
SIMPLE = SEASONS + 6
"""Simple forecasts J; the first is seasonal naive, the last an autoregression."""
FACTS = 7 + SIMPLE
"""Facts of a slot G."""
RECENT = 1500
"""Values to which the autoregressions are fitted."""
MOST_LAGS = 51
"""Two seasons of hours, and a little."""
FINEST = 1e-3
"""Smallest unit, as a share of the scale: of a history that repeats exactly."""
GAUSSIAN = 1.2533
"""Standard deviation of a Gaussian over its mean absolute deviation."""


@dataclass(frozen=True)
class Window:
    """One history as a model sees it.

    Attributes:
        patches_TE: [T, 3 P]: values, whether they are known, and seasonal differences.
        simple_SPJ: simple forecasts in units of the scale, from the level.
        unit_S: units of the slots, as a share of the scale.
        facts_SG: what is known of each slot.
        level, scale: y = level + scale z.
    """

    patches_TE: NDArray[np.float32]
    simple_SPJ: NDArray[np.float32]
    unit_S: NDArray[np.float32]
    facts_SG: NDArray[np.float32]
    level: float
    scale: float


@dataclass(frozen=True)
class WindowBatch:
    """Windows side by side; the last patches of all rows are aligned.

    Attributes:
        valid_BT: patches in use.
        slots: of each row; those behind are padding.
    """

    patches_BTE: Tensor
    valid_BT: Tensor
    simple_BSPJ: Tensor
    unit_BS: Tensor
    facts_BSG: Tensor
    level_B: Tensor
    scale_B: Tensor
    slots: tuple[int, ...]

    @classmethod
    def of(cls, windows: Sequence[Window], device: torch.device | str = "cpu") -> WindowBatch:
        """Stack windows."""
        longest = max(len(window.patches_TE) for window in windows)
        width = windows[0].patches_TE.shape[1]
        patches = np.zeros((len(windows), longest, width), np.float32)
        valid = np.zeros((len(windows), longest), bool)
        for row, window in enumerate(windows):
            patches[row, longest - len(window.patches_TE) :] = window.patches_TE
            valid[row, longest - len(window.patches_TE) :] = True

        slots = tuple(len(window.unit_S) for window in windows)

        def stacked(name: str, filling: float = 0.0) -> Tensor:
            parts = [getattr(window, name) for window in windows]
            padded = np.full((len(parts), max(slots), *parts[0].shape[1:]), filling, np.float32)
            for row, part in enumerate(parts):
                padded[row, : len(part)] = part
            return torch.from_numpy(padded).to(device)

        return cls(
            patches_BTE=torch.from_numpy(patches).to(device),
            valid_BT=torch.from_numpy(valid).to(device),
            simple_BSPJ=stacked("simple_SPJ"),
            unit_BS=stacked("unit_S", 1.0),
            facts_BSG=stacked("facts_SG"),
            level_B=torch.tensor([w.level for w in windows], dtype=torch.float64, device=device),
            scale_B=torch.tensor([w.scale for w in windows], dtype=torch.float64, device=device),
            slots=slots,
        )

    def to(self, device: torch.device) -> WindowBatch:
        """The same on another device."""
        return replace(
            self,
            patches_BTE=self.patches_BTE.to(device),
            valid_BT=self.valid_BT.to(device),
            simple_BSPJ=self.simple_BSPJ.to(device),
            unit_BS=self.unit_BS.to(device),
            facts_BSG=self.facts_BSG.to(device),
            level_B=self.level_B.to(device),
            scale_B=self.scale_B.to(device),
        )

    def __len__(self) -> int:
        return len(self.level_B)


def window_of(y: Floats, season: int, *, patch: int, context: int, slots: int) -> Window:
    """The window of a history.

    Args:
        y: values [N], the newest last; NaN where missing.
        season: steps of a season, 1 if there is none.
        patch: values a patch P.
        context: most patches.
        slots: of the horizon S.

    Raises:
        InputError: no value is known.
    """
    known = np.isfinite(y)
    if not known.any():
        raise InputError("the history has no value", fix="give at least one value a series")
    span = context * patch
    recent = y[-span:][known[-span:]]
    if len(recent) == 0:
        recent = y[known][-1:]
    level = float(np.median(recent))
    scale = GAUSSIAN * float(np.abs(recent - level).mean())
    z = (_filled(y, known) - level) / (scale if scale > 0.0 else 1.0)
    units = _units(z, known, season, patch, slots, span)
    return Window(
        patches_TE=_patches(z, known, season, patch, span, units[0]),
        simple_SPJ=_simple(z, season, slots * patch).reshape(slots, patch, SIMPLE),
        unit_S=units.astype(np.float32),
        facts_SG=_facts(z, known, season, patch, units),
        level=level,
        scale=scale,
    )


def _filled(y: Floats, known: NDArray[np.bool_]) -> Floats:
    """Missing values replaced by the last known one (the first one before that)."""
    if known.all():
        return y
    places = np.maximum.accumulate(np.where(known, np.arange(len(y)), -1))
    return np.asarray(y[np.where(places < 0, int(np.argmax(known)), places)])


def _units(
    z: Floats, known: NDArray[np.bool_], season: int, patch: int, slots: int, span: int
) -> Floats:
    """Mean absolute error of seasonal naive, [S], for the middle of every slot, in this history."""
    ahead = np.arange(slots) * patch + (patch + 1) // 2
    lags = season * -(-ahead // season)
    units, last, at = np.empty(slots), 1.0, 0
    for slot, lag in enumerate(lags.tolist()):
        if lag != at:
            apart, both = z[lag:] - z[:-lag], known[lag:] & known[:-lag]
            apart = np.abs(apart[-max(span, 2 * lag) :][both[-max(span, 2 * lag) :]])
            if len(apart) >= 4:
                last = float(apart.mean()) * GAUSSIAN
            elif at > 0:
                last *= (lag / at) ** 0.5  # as of a random walk
            at = lag
        units[slot] = max(last, FINEST)
    return units


def _patches(
    z: Floats, known: NDArray[np.bool_], season: int, patch: int, span: int, unit: float
) -> NDArray[np.float32]:
    """[T, 3 P]; arcsinh keeps outliers in reach."""
    differences = np.zeros_like(z)
    if len(z) > season:
        both = known[season:] & known[:-season]
        differences[season:] = np.where(both, (z[season:] - z[:-season]) / unit, 0.0)
    values = np.stack([np.arcsinh(np.where(known, z, 0.0)), known, np.arcsinh(differences)])
    values = values[:, -span:]
    lead = -values.shape[1] % patch
    values = np.pad(values, ((0, 0), (lead, 0)))
    return np.ascontiguousarray(
        values.reshape(3, -1, patch).transpose(1, 0, 2).reshape(-1, 3 * patch), dtype=np.float32
    )


def _simple(z: Floats, season: int, steps: int) -> NDArray[np.float32]:
    """Simple forecasts [H, J] of the steps 1..H."""
    count = len(z)
    ahead = np.arange(1, steps + 1)
    seasons_ahead = -(-ahead // season)
    index = count - season * (1 + np.arange(SEASONS)) + (ahead[:, None] - 1) % season
    # What lies before the history is taken from the first season that there is.
    index = np.where(index < 0, index + season * -(-np.minimum(index, 0) // -season), index)
    seasonal_HJ = z[np.clip(index, 0, count - 1)]
    naive_H = seasonal_HJ[:, 0]

    run = min(season * max(1, round(16 / season)), count - 1)
    width = min(season, max(count - run, 1))
    drift = 0.0
    if run >= season:
        earlier = z[count - run - width : count - run] if count >= run + width else z[:width]
        drift = float(z[-width:].mean() - earlier.mean()) * season / run
    corrected = 0.0
    if count > season:
        few = min(4, season, count - season)
        corrected = float((z[-few:] - z[count - season - few : count - season]).mean())
    rest = [
        np.full(steps, z[-1]),
        naive_H + drift * seasons_ahead,
        naive_H + corrected,
        np.full(steps, z[-max(season, 8) :].mean()),
        _autoregression(z[-RECENT:], min(max(2 * season + 3, 12), MOST_LAGS), steps, naive_H),
        _differenced(z[-RECENT - season :], season, steps, naive_H),
    ]
    return np.concatenate([seasonal_HJ, np.stack(rest, axis=1)], axis=1).astype(np.float32)


def _autoregression(x: Floats, lags: int, steps: int, otherwise: Floats) -> Floats:
    """The forecast [H] of a ridge autoregression; `otherwise` where there is too little to fit.

    It is held within three times the range of the values: an unstable fit must not run away.
    """
    from scipy.signal import lfilter, lfiltic

    lags = min(lags, (len(x) - 2) // 3)
    low, high = float(x.min()), float(x.max())
    if lags < 1 or not high > low:
        return otherwise
    fitted = ARNet(lags=lags, penalty="ridge").fit(x)
    polynomial = np.concatenate([[1.0], -fitted.coefficients[0]])
    state = lfiltic([1.0], polynomial, x[::-1][:lags])
    with np.errstate(over="ignore", invalid="ignore"):
        made, _ = lfilter([1.0], polynomial, np.full(steps, fitted.intercept[0]), zi=state)
    reach = 3.0 * (high - low)
    return np.asarray(np.clip(np.nan_to_num(made, nan=x[-1]), low - reach, high + reach))


def _differenced(x: Floats, season: int, steps: int, naive_H: Floats) -> Floats:
    """The forecast [H] of an autoregression of seasonal differences."""
    if len(x) <= season + 8:
        return naive_H
    apart = _autoregression(x[season:] - x[:-season], 12, steps, np.zeros(steps))
    # Every season adds its differences to the one before.
    padded = np.pad(apart, (0, -steps % season)).reshape(-1, season)
    return np.asarray(naive_H + np.cumsum(padded, axis=0).reshape(-1)[:steps])


def _facts(
    z: Floats, known: NDArray[np.bool_], season: int, patch: int, units: Floats
) -> NDArray[np.float32]:
    """[S, G]: how large errors are, how far ahead it is, how long the season and the history, and
    which of the simple forecasts did well so far."""
    slots = len(units)
    ahead = np.arange(1, slots + 1) * patch
    facts = np.empty((slots, FACTS))
    facts[:, 0] = np.log(units)
    facts[:, 1] = np.log(units / units[0])
    facts[:, 2] = np.log(ahead) / 4
    facts[:, 3] = np.log(ahead / season) / 4
    facts[:, 4] = np.log(season) / 4
    facts[:, 5] = np.log(len(z)) / 8
    facts[:, 6] = 1.0 - known.mean()
    facts[:, 7:] = _simple_errors(z, season, float(units[0]))
    return facts.astype(np.float32)


def _simple_errors(z: Floats, season: int, unit: float) -> Floats:
    """Log errors [J], in units, of the simple forecasts of the history's last values from those
    before; zeros where it is too short."""
    steps = min(max(season, 8), 24, len(z) // 3)
    if steps < 4:
        return np.zeros(SIMPLE)
    errors_HJ = np.abs(_simple(z[:-steps], season, steps) - z[-steps:, None])
    return np.asarray(np.log(0.05 + errors_HJ.mean(axis=0) / unit).clip(-3.0, 5.0))
