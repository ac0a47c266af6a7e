"""Where a series is forecast from: behind its last value, and at earlier times to learn from.

The forecasts from earlier times are compared with what came then: that calibrates the intervals of
the last one, and gives the figures of `seqgen eval`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from seqgen_time_series.backtest import Floats, Rolling, windows
from seqgen_time_series.series import Series

FORECAST = -1
"""Number of the origin behind the last value."""


@dataclass(frozen=True)
class Origin:
    """A history, from whose end it goes on.

    Attributes:
        history: the series up to the origin; future columns go on for the horizon.
        horizon: steps H.
        number: of the backtest's window, the earliest 0; `FORECAST` behind the last value.
        actual: what came then [H]; empty behind the last value.
    """

    history: Series
    horizon: int
    number: int = FORECAST
    actual: Floats = field(default_factory=lambda: np.empty(0), repr=False)

    @property
    def id(self) -> str:
        return f"{self.history.id}@{len(self.history.y)}"

    @property
    def size(self) -> float:
        return self.history.size

    @property
    def regressors(self) -> Mapping[str, Floats]:
        """Past columns up to the origin, future columns up to the end of the horizon."""
        return {**self.history.past, **self.history.future}


def origins_of(series: Series, config: Rolling) -> list[Origin]:
    """The origin behind the last value, then the backtest's windows, the earliest first.

    There are fewer windows than asked for where the series does not hold them.
    """
    found = [Origin(series, config.horizon)]
    if config.windows < 1 or not (count := config.count(len(series.y))):
        return found
    fitting = Rolling(
        horizon=config.horizon, windows=count, step=config.step, shortest=config.shortest
    )
    return [
        *found,
        *(Origin(w.history, config.horizon, w.number, w.y) for w in windows(series, fitting)),
    ]


def fewest_values(season: int, horizon: int) -> int:
    """Values of a history whose forecast says something about later ones of the series."""
    return max(2 * season + 1, min(2 * horizon, 32), 12)
