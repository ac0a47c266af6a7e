"""Rolling-origin backtests: pairs of a history and what came after it, without leakage.

    series  ........................
    window  hhhhhhhhhhhhhhhh tttt            h history, t target (horizon 4)
            hhhhhhhhhhhhhhhhhh tttt          step 2
            hhhhhhhhhhhhhhhhhhhh tttt        the last one ends with the series

A history holds nothing behind its cutoff, except the `future` columns, which are known beforehand:
where values were interpolated across the cutoff, the last one before them stays. In a target they
are NaN: a forecast is not judged by them. Every window counts: none is dropped because it does not
fill a batch.

Shapes: T times of a series, L of a context, H steps, W windows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from seqgen.errors import ConfigError, InputError
from seqgen_time_series.series import Series

Floats = NDArray[np.float64]
Kind = TypeVar("Kind", bound=np.generic)


@dataclass(frozen=True, kw_only=True)
class Rolling:
    """The windows of a backtest.

    Attributes:
        horizon: steps of a target.
        windows: how many; 0 takes all that leave `shortest` values of history.
        step: from one cutoff to the next; 0 is the horizon, so that targets do not overlap.
        shortest: values in the first history.
        refit: the model is fitted anew every so many windows; 0 fits it at the first one only.
    """

    horizon: int
    windows: int = 1
    step: int = 0
    shortest: int = 1
    refit: int = 1

    def __post_init__(self) -> None:
        for name, least in (
            ("horizon", 1), ("windows", 0), ("step", 0), ("shortest", 1), ("refit", 0)
        ):  # fmt: skip
            if getattr(self, name) < least:
                raise ConfigError(
                    f"{name} is {getattr(self, name)}", fix=f"a whole number of {least} or more"
                )

    @property
    def stride(self) -> int:
        """Steps from one cutoff to the next."""
        return self.step or self.horizon

    def count(self, length: int) -> int:
        """Windows of a series of so many values; fewer than none are none."""
        room = length - self.shortest - self.horizon
        most = room // self.stride + 1 if room >= 0 else 0
        return most if self.windows == 0 else min(self.windows, most)

    @property
    def needed(self) -> int:
        """Values that a series must have for all windows (for one, if `windows` is 0)."""
        return self.shortest + self.horizon + (max(self.windows, 1) - 1) * self.stride


@dataclass(frozen=True)
class Window:
    """One cutoff of one series.

    Attributes:
        history: the series up to the cutoff; `future` columns go on for the horizon.
        y: what came then [H]; NaN where it is not known.
        ds: its times [H].
        number: from 0, the earliest.
        fit: whether a model shall be fitted to this history, or the last one be used again.
    """

    history: Series
    y: Floats = field(repr=False)
    ds: NDArray[np.generic] = field(repr=False)
    number: int
    fit: bool

    @property
    def cutoff(self) -> np.generic:
        """The last time of the history."""
        last: np.generic = self.history.ds[-1]
        return last


def windows(series: Series, config: Rolling) -> Iterator[Window]:
    """The windows of a series, the earliest first; the last ends with the series.

    Raises:
        InputError: the series has a problem, or is too short for all the windows asked for.
    """
    if series.problem is not None:
        raise series.problem
    length = len(series.y)
    if length < config.needed:
        raise InputError(
            f"series {series.unique_id!r} has {length} values, and the backtest needs "
            f"{config.needed}",
            why=f"{config.shortest} of history, {config.horizon} of horizon, and "
            f"{config.stride} for each further window of {config.windows}",
            fix="ask for fewer windows, a shorter horizon or step, or leave the series out",
        )
    count = config.count(length)
    filled = series.interpolated.get("y")
    actual = series.y if filled is None else np.where(filled, np.nan, series.y)
    for number in range(count):
        cut = length - config.horizon - (count - 1 - number) * config.stride
        fit = number == 0 or (config.refit > 0 and number % config.refit == 0)
        until = cut + config.horizon
        yield Window(
            cut_at(series, cut, config.horizon), actual[cut:until], series.ds[cut:until],
            number, fit,
        )  # fmt: skip


def cut_at(series: Series, length: int, horizon: int) -> Series:
    """A series as it was known when it had `length` values.

    `future` columns are kept for `horizon` steps more, as far as they are known.
    """
    filled = _first(series.interpolated, length)
    return replace(
        series,
        ds=series.ds[:length],
        y=_held(series.y[:length], filled.get("y")),
        past={name: _held(x[:length], filled.get(name)) for name, x in series.past.items()},
        future=_first(series.future, length + horizon),
        interpolated=filled,
    )


def pairs(y: Floats, context: int, horizon: int, *, step: int = 1) -> tuple[Floats, Floats]:
    """All windows as arrays, without a copy: contexts [W, L] and targets [W, H].

    The first begins with the series; with step 1 there are T - L - H + 1.

    Raises:
        InputError: there is no room for one.
    """
    if len(y) < context + horizon:
        raise InputError(
            f"{len(y)} values hold no window of {context} + {horizon}",
            fix="give a longer series, or a shorter context or horizon",
        )
    both = sliding_window_view(y, context + horizon)[::step]
    return both[:, :context], both[:, context:]


def observed(number: int, config: Rolling) -> range:
    """Earlier windows whose targets lie wholly before the cutoff of window `number`.

    What a forecast at that cutoff may be calibrated with.
    """
    overlap = -(-config.horizon // config.stride)
    return range(max(0, number - overlap + 1))


def _first(columns: Mapping[str, NDArray[Kind]], length: int) -> dict[str, NDArray[Kind]]:
    return {name: values[:length] for name, values in columns.items()}


def _held(values_T: Floats, filled_T: NDArray[np.bool_] | None) -> Floats:
    """The last known value in place of those at the end that were interpolated: towards a value
    that was not there yet."""
    if filled_T is None or not filled_T[-1]:
        return values_T
    last = int(np.flatnonzero(~filled_T)[-1])
    held_T = values_T.copy()
    held_T[last + 1 :] = values_T[last]
    return held_T
