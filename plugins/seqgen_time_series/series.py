"""One time series: the item of a run.

Shapes: T times, X exogenous columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from seqgen.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Series:
    """One series of a table, in order of time.

    Attributes:
        unique_id: its name in the table.
        source: the file, as the user gave it.
        ds: times [T], datetime64[ns]; int64 where the table counts steps.
        y: values [T], float64; NaN where missing (a policy of `readers` says what happens then).
        frequency: pandas' alias of the distance of two times ("h", "MS", "5min"), "" for steps.
        season: steps of one season (24 for hours, 12 for months), 1 if there is none.
        past: exogenous columns known up to the last time, float64 [T].
        future: exogenous columns known beyond it too, float64 [T + horizon].
        interpolated: which values [T] of `y` (by the name "y") and of past columns were filled in
            (missing=interpolate); columns without one are left out.
        problem: why it cannot be forecast, found while reading; names series and time.
    """

    unique_id: str
    source: str
    ds: NDArray[np.generic] = field(repr=False)
    y: NDArray[np.float64] = field(repr=False)
    frequency: str = ""
    season: int = 1
    past: Mapping[str, NDArray[np.float64]] = field(default_factory=dict, repr=False)
    future: Mapping[str, NDArray[np.float64]] = field(default_factory=dict, repr=False)
    interpolated: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict, repr=False)
    problem: InputError | None = None

    @property
    def id(self) -> str:
        """Unique within a run."""
        return self.unique_id

    @property
    def size(self) -> float:
        """Relative cost: its length."""
        return float(len(self.y))
