"""Settings of AR-Net as a forecaster; light, for the options' help."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Solver = Literal["exact", "levinson", "sgd"]
PenaltyName = Literal["none", "ridge", "l1", "mcp", "arnet"]
Order = Literal["given", "aic", "bic", "validation"]


@dataclass(frozen=True, kw_only=True)
class ArnetConfig:
    """How a history is fitted.

    Attributes:
        lags: P; 0: two seasons and a little (`arnet.auto_lags`).
        order: `given` takes all lags P; a criterion of `linear.order` chooses 1 .. P of them.
        regressor_lags: of every past or future column; of a future one the values at the times that
            are predicted come on top.
        solver, penalty, strength, hidden: as of `linear.model.ARNet`.
        window_mean: subtract each window's mean, so that the level does not matter.
        paths: simulated paths, with hidden layers.
    """

    lags: int = 0
    order: Order = "given"
    regressor_lags: int = 1
    solver: Solver = "exact"
    penalty: PenaltyName = "ridge"
    strength: float | None = None
    hidden: tuple[int, ...] = ()
    window_mean: bool = False
    paths: int = 400
