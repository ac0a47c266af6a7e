"""A fitted autoregression: its coefficients, forecasts, sample paths, and its form as JSON.

Shape suffixes: `...` any leading dimensions (one history, or a batch of them), P lags of the
target, Q lags of a regressor, F features, H horizon.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike

from seqgen.errors import InputError, UsageError
from seqgen_time_series.linear import storage
from seqgen_time_series.linear.exact import FitWarning
from seqgen_time_series.linear.gram import Floats

CHUNK = 4096
"""Rows that are predicted at once."""


@dataclass(frozen=True)
class Layer:
    """One layer of the network, in the units of the data.

    Attributes:
        weight: [out, in]; the first layer's columns are the lags of the target, the nearest first,
            then those of each regressor.
        bias: [out].
    """

    weight: Floats
    bias: Floats


@dataclass(frozen=True, kw_only=True)
class FittedAR:
    """What `ARNet.fit` found.

    Attributes:
        lags: lags P of the target.
        horizon: steps H of one prediction.
        regressor_lags: lags of every lagged regressor.
        layers: one layer (a linear model), or more with ReLU between them.
        covariance_HH: covariance of the residuals.
        rows: rows of the regression.
        solver: exact, levinson or sgd.
        penalty: its name.
        strength: its lambda, as used.
        errors_HF: standard errors of the coefficients; NaN where the solver gives none. Those of
            selected coefficients (l1, mcp, arnet) take the selection as given and so are too small;
            those of steps beyond the first ignore that the residuals of such steps overlap.
        intercept_errors_H: those of the intercepts.
        warnings: what the user should know of the fit.
        losses: mean squared error of every epoch of gradient descent, normalised.
    """

    lags: int
    horizon: int
    regressor_lags: Mapping[str, int]
    layers: tuple[Layer, ...]
    covariance_HH: Floats
    rows: int
    solver: str
    penalty: str
    strength: float = 0.0
    errors_HF: Floats | None = None
    intercept_errors_H: Floats | None = None
    warnings: tuple[FitWarning, ...] = ()
    losses: tuple[float, ...] = field(default=(), repr=False)

    @property
    def linear(self) -> bool:
        """Whether there are no hidden layers."""
        return len(self.layers) == 1

    @property
    def coefficients(self) -> Floats:
        """Coefficients [H, P] of the target's lags; column i belongs to lag i + 1."""
        return self._linear_layer().weight[:, : self.lags]

    @property
    def regressor_coefficients(self) -> dict[str, Floats]:
        """Coefficients [H, Q] of every regressor's lags."""
        return self._by_regressor(self._linear_layer().weight)

    @property
    def intercept(self) -> Floats:
        """Intercepts [H]."""
        return self._linear_layer().bias

    @property
    def standard_errors(self) -> Floats | None:
        """Standard errors [H, P] of `coefficients`."""
        return None if self.errors_HF is None else self.errors_HF[:, : self.lags]

    @property
    def regressor_standard_errors(self) -> dict[str, Floats]:
        """Standard errors [H, Q] of `regressor_coefficients`; empty where there are none."""
        return {} if self.errors_HF is None else self._by_regressor(self.errors_HF)

    @property
    def sigma(self) -> Floats:
        """Standard deviation [H] of the residuals of every step."""
        return np.asarray(np.sqrt(np.maximum(np.diag(self.covariance_HH), 0.0)))

    def forecast(
        self,
        history: ArrayLike,
        steps: int,
        *,
        regressors: Mapping[str, ArrayLike] | None = None,
    ) -> Floats:
        """The conditional mean of the next steps.

        Predictions of H steps are fed back until there are enough.

        Args:
            history: [..., L], the newest value last; L >= P.
            steps: how many.
            regressors: [..., L + future] of every lagged regressor, beginning with the history's
                first value. Steps beyond the horizon need later values: `steps - H` or fewer.

        Returns:
            [..., steps].

        Raises:
            InputError: too short, not finite, or a regressor is missing.
        """
        past, others = self._inputs(history, steps, regressors)
        return self._roll(past, others, steps, None)

    def simulate(
        self,
        history: ArrayLike,
        steps: int,
        *,
        samples: int,
        seed: int,
        regressors: Mapping[str, ArrayLike] | None = None,
    ) -> Floats:
        """Sample paths of the next steps with Gaussian noise of the residuals' covariance.

        Args:
            history: as for `forecast`.
            steps: how many.
            samples: paths of every history.
            seed: of the noise.
            regressors: as for `forecast`.

        Returns:
            [samples, ..., steps].
        """
        past, others = self._inputs(history, steps, regressors)
        blocks = math.ceil(steps / self.horizon)
        shape = (samples, *past.shape[:-1])
        # A covariance that is only semidefinite has a square root, but no Cholesky factor.
        values, vectors = np.linalg.eigh(np.nan_to_num(self.covariance_HH))
        root_HH = vectors * np.sqrt(np.maximum(values, 0.0))
        normal = np.random.default_rng(seed).standard_normal((blocks, *shape, self.horizon))
        past = np.broadcast_to(past, (*shape, past.shape[-1]))
        spread = {
            name: np.broadcast_to(values, (*shape, values.shape[-1]))
            for name, values in others.items()
        }
        return self._roll(past, spread, steps, normal @ root_HH.T)

    def predict(self, y: ArrayLike, *, regressors: Mapping[str, ArrayLike] | None = None) -> Floats:
        """Predictions [rows, H] of y_t .. y_{t+H-1} from the values before, for t = first..N.

        The first is after max(lags) values; the last one lies entirely behind the series.
        """
        past, others = self._inputs(y, self.horizon, regressors)
        if past.ndim != 1:
            raise UsageError(f"predict takes one series, not an array of shape {past.shape}")
        first = max(self.lags, *self.regressor_lags.values(), 0)
        windows = [(past, self.lags)]
        windows += [(others[name], count) for name, count in self.regressor_lags.items()]
        rows = len(past) - first + 1
        views = [
            sliding_window_view(values, count)[first - count :][:rows, ::-1]
            for values, count in windows
        ]
        return np.concatenate(
            [
                self._apply(np.concatenate([view[at : at + CHUNK] for view in views], axis=1))
                for at in range(0, rows, CHUNK)
            ]
        )

    def to_json(self) -> str:
        """The model as one JSON object; `from_json` gives back the very same numbers."""
        return storage.dump(
            {
                "lags": self.lags,
                "horizon": self.horizon,
                "regressor_lags": dict(self.regressor_lags),
                "layers": [(layer.weight, layer.bias) for layer in self.layers],
                "covariance": self.covariance_HH,
                "rows": self.rows,
                "solver": self.solver,
                "penalty": self.penalty,
                "strength": self.strength,
                "errors": self.errors_HF,
                "intercept_errors": self.intercept_errors_H,
                "warnings": [(warning.code, warning.message) for warning in self.warnings],
                "losses": self.losses,
            }
        )

    @classmethod
    def from_json(cls, text: str) -> FittedAR:
        """A model from `to_json`.

        Raises:
            InputError: it is none.
        """
        found = storage.parse(text)
        return cls(
            lags=int(found["lags"]),
            horizon=int(found["horizon"]),
            regressor_lags=dict(found["regressor_lags"]),
            layers=tuple(Layer(weight, bias) for weight, bias in found["layers"]),
            covariance_HH=found["covariance"],
            rows=int(found["rows"]),
            solver=str(found["solver"]),
            penalty=str(found["penalty"]),
            strength=float(found["strength"]),
            errors_HF=found["errors"],
            intercept_errors_H=found["intercept_errors"],
            warnings=tuple(FitWarning(*pair) for pair in found["warnings"]),
            losses=tuple(found["losses"]),
        )

    def _linear_layer(self) -> Layer:
        if not self.linear:
            raise UsageError(
                f"a network with {len(self.layers) - 1} hidden layers has no coefficients",
                fix="read FittedAR.layers, or fit with hidden=()",
            )
        return self.layers[0]

    def _by_regressor(self, values_HF: Floats) -> dict[str, Floats]:
        parts, first = {}, self.lags
        for name, count in self.regressor_lags.items():
            parts[name] = values_HF[:, first : first + count]
            first += count
        return parts

    def _apply(self, inputs_F: Floats) -> Floats:
        """[..., F] -> [..., H]."""
        hidden = inputs_F
        for layer in self.layers[:-1]:
            hidden = np.maximum(hidden @ layer.weight.T + layer.bias, 0.0)
        return np.asarray(hidden @ self.layers[-1].weight.T + self.layers[-1].bias)

    def _inputs(
        self, history: ArrayLike, steps: int, regressors: Mapping[str, ArrayLike] | None
    ) -> tuple[Floats, dict[str, Floats]]:
        past = np.asarray(history, dtype=np.float64)
        given = dict(regressors or {})
        if steps < 1:
            raise UsageError(f"{steps} steps cannot be forecast", fix="steps from 1 on")
        length = past.shape[-1] if past.ndim else 0
        need = max(self.lags, *self.regressor_lags.values(), 0)
        if length < need:
            raise InputError(
                f"the history has {length} values, the model needs {need}",
                fix=f"at least {need} values",
            )
        _finite(past, "the history")
        last = length + (math.ceil(steps / self.horizon) - 1) * self.horizon
        others = {}
        for name in self.regressor_lags:
            if name not in given:
                raise InputError(f"the lagged regressor {name!r} is missing")
            values = np.asarray(given[name], dtype=np.float64)
            if values.shape[-1] < last:
                raise InputError(
                    f"the regressor {name!r} has {values.shape[-1]} values; {last} are needed",
                    why=f"{length} beside the history and the others for {steps} steps with a "
                    f"horizon of {self.horizon}",
                    fix="give its future values, or fit with a horizon of as many steps",
                )
            _finite(values, f"the regressor {name!r}")
            others[name] = values
        return past, others

    def _roll(
        self, past: Floats, others: Mapping[str, Floats], steps: int, noise: Floats | None
    ) -> Floats:
        """Predict H steps after H steps, feeding them back; noise [blocks, ..., H]."""
        horizon, length = self.horizon, past.shape[-1]
        blocks = math.ceil(steps / horizon)
        values = np.empty((*past.shape[:-1], self.lags + blocks * horizon))
        values[..., : self.lags] = past[..., length - self.lags :]
        for block in range(blocks):
            at = self.lags + block * horizon
            # Position `at` is sample `length + block * horizon` of the regressors.
            parts = [values[..., at - self.lags : at][..., ::-1]]
            now = length + block * horizon
            for name, count in self.regressor_lags.items():
                parts.append(others[name][..., now - count : now][..., ::-1])
            made = self._apply(np.concatenate(parts, axis=-1))
            values[..., at : at + horizon] = made if noise is None else made + noise[block]
        return values[..., self.lags : self.lags + steps]


def _finite(values: Floats, what: str) -> None:
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        where = tuple(int(i) for i in bad[0])
        raise InputError(
            f"{what} is {values[where]} at position {where[-1]}",
            fix="fill or cut missing values first; nothing is filled silently",
        )
