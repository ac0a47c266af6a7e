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
from seqgen_time_series.simple import SIMPLE, simple_errors, simple_forecasts

Floats = NDArray[np.float64]

FACTS = 7 + SIMPLE
"""Facts of a slot G."""
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
    return windows_of([y], [season], patch=patch, context=context, slots=[slots])[0]


def windows_of(
    histories: Sequence[Floats],
    seasons: Sequence[int],
    *,
    patch: int,
    context: int,
    slots: Sequence[int],
) -> list[Window]:
    """The windows of histories, as by `window_of`; those of one shape are computed together.

    Raises:
        InputError: no value of a history is known.
    """
    shapes: dict[tuple[int, int, int], list[int]] = {}
    for row, (y, season, count) in enumerate(zip(histories, seasons, slots, strict=True)):
        shapes.setdefault((len(y), season, count), []).append(row)
    found: dict[int, Window] = {}
    for (_, season, count), rows in shapes.items():
        scaled = [_scaled(histories[row], season, patch, context, count) for row in rows]
        z_BN, unit_B = np.stack([s.z for s in scaled]), np.array([s.units[0] for s in scaled])
        simple_BHJ = simple_forecasts(z_BN, season, count * patch)
        errors_BJ = simple_errors(z_BN, season, unit_B)
        for row, own, simple_HJ, errors_J in zip(rows, scaled, simple_BHJ, errors_BJ, strict=True):
            found[row] = Window(
                patches_TE=_patches(own, season, patch, context * patch),
                simple_SPJ=simple_HJ.reshape(count, patch, SIMPLE),
                unit_S=own.units.astype(np.float32),
                facts_SG=_facts(own, season, patch, errors_J),
                level=own.level,
                scale=own.scale,
            )
    return [found[row] for row in range(len(histories))]


@dataclass(frozen=True)
class _Scaled:
    """A history in its own units: y = level + scale z; see `Window`."""

    z: Floats
    known: NDArray[np.bool_]
    level: float
    scale: float
    units: Floats


def _scaled(y: Floats, season: int, patch: int, context: int, slots: int) -> _Scaled:
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
    return _Scaled(z, known, level, scale, _units(z, known, season, patch, slots, span))


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


def _patches(own: _Scaled, season: int, patch: int, span: int) -> NDArray[np.float32]:
    """[T, 3 P]; arcsinh keeps outliers in reach."""
    z, known, unit = own.z, own.known, own.units[0]
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


def _facts(own: _Scaled, season: int, patch: int, errors_J: Floats) -> NDArray[np.float32]:
    """[S, G]: how large errors are, how far ahead it is, how long the season and the history, and
    which of the simple forecasts did well so far."""
    units, slots = own.units, len(own.units)
    ahead = np.arange(1, slots + 1) * patch
    facts = np.empty((slots, FACTS))
    facts[:, 0] = np.log(units)
    facts[:, 1] = np.log(units / units[0])
    facts[:, 2] = np.log(ahead) / 4
    facts[:, 3] = np.log(ahead / season) / 4
    facts[:, 4] = np.log(season) / 4
    facts[:, 5] = np.log(len(own.z)) / 8
    facts[:, 6] = 1.0 - own.known.mean()
    facts[:, 7:] = errors_J
    return facts.astype(np.float32)
