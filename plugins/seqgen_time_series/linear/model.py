"""AR-Net: a linear autoregression, sparse if wanted, fitted exactly or by gradient descent.

    y_t = c + sum_{i=1..p} w_i y_{t-i} + sum_k sum_j v_kj x_k,{t-j} + e_t

Triebe, Laptev and Rajagopal, "AR-Net: A simple Auto-Regressive Neural Network for time-series"
(arXiv:1911.12436) train this model as a network so that it scales to many lags. The same minimum is
reached exactly in O(n log n + p^2) memory-light steps and one Cholesky factorization, which is the
default here; gradient descent is for hidden layers and for the paper's own recipe.

    fitted = ARNet(lags=24).fit(y)
    fitted.coefficients, fitted.standard_errors, fitted.forecast(y, 12)

| solver | estimator | time | memory |
|---|---|---|---|
| exact | conditional least squares (as AutoReg) | n log n + p^2 + p^3/3 | n + p^2 |
| levinson | Yule-Walker | n log n + p^2 | n + p |
| sgd | the same loss by Adam | epochs n p | n + batch p |

| penalty | objective (y and x in units of their standard deviations) |
|---|---|
| none | 1/2 MSE |
| ridge | + lambda/2 sum w^2 |
| l1 | + lambda sum abs(w) |
| mcp | + lambda sum (abs(w) - w^2 / (2 gamma lambda)), flat from gamma lambda on |
| arnet | MSE + lambda(s) R(w), R = mean (2 / (1 + exp(-c1 abs(w)^(1/c2))) - 1) |
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from seqgen.errors import ConfigError, did_you_mean
from seqgen_time_series.linear import penalties
from seqgen_time_series.linear.exact import Solution, least_squares
from seqgen_time_series.linear.fitted import FittedAR, Layer
from seqgen_time_series.linear.gram import Floats, Layout, moments
from seqgen_time_series.linear.inputs import arrange
from seqgen_time_series.linear.levinson import yule_walker
from seqgen_time_series.linear.recipe import SgdConfig, SgdProgress
from seqgen_time_series.linear.sparse import select
from seqgen_time_series.linear.window import window_moments, window_weights

Solver = Literal["exact", "levinson", "sgd"]
PenaltyName = Literal["none", "ridge", "l1", "mcp", "arnet"]
SOLVERS = ("exact", "levinson", "sgd")
PENALTIES = ("none", "ridge", "l1", "mcp", "arnet")


@dataclass(frozen=True, kw_only=True)
class ARNet:
    """An autoregression to be fitted.

    Attributes:
        lags: lags p of the series itself.
        horizon: steps H forecast directly, each with coefficients of its own; with 1 the forecast
            feeds itself.
        regressor_lags: lags of every lagged regressor, by name.
        solver: exact, levinson or sgd.
        penalty: none, ridge, l1, mcp or arnet.
        strength: the penalty's lambda (of arnet: lambda(s)); None chooses it: ridge 1e-3, l1 and
            mcp sigma sqrt(2 ln p / n), arnet see `sparsity`. sigma is estimated.
        sparsity: s = (lags that matter) / p for arnet: lambda(s) = sigma/100 (1/s - 1), the paper's
            rule. None sets R's threshold to that of the extended BIC instead.
        gamma: of mcp; towards 1 it becomes hard thresholding.
        c1: of arnet's R.
        c2: of arnet's R.
        intercept: fit c.
        window_mean: subtract the mean of each window of lags from inputs and targets, so that the
            level of a series does not matter; the coefficients of a target then sum to one.
        hidden: widths of hidden ReLU layers (sgd).
        sgd: how gradient descent is done.
    """

    lags: int
    horizon: int = 1
    regressor_lags: Mapping[str, int] = field(default_factory=dict)
    solver: Solver = "exact"
    penalty: PenaltyName = "none"
    strength: float | None = None
    sparsity: float | None = None
    gamma: float = 3.0
    c1: float = penalties.C1
    c2: float = penalties.C2
    intercept: bool = True
    window_mean: bool = False
    hidden: tuple[int, ...] = ()
    sgd: SgdConfig = field(default_factory=SgdConfig)

    def __post_init__(self) -> None:
        _one_of("solver", self.solver, SOLVERS)
        _one_of("penalty", self.penalty, PENALTIES)
        counts = {"lags": self.lags, "horizon": self.horizon}
        counts |= {f"regressor_lags[{name!r}]": lags for name, lags in self.regressor_lags.items()}
        counts |= {f"hidden[{i}]": width for i, width in enumerate(self.hidden)}
        for name, count in counts.items():
            if count < 1:
                raise ConfigError(f"{name} is {count}", fix="a whole number from 1 on")
        if self.strength is not None and not self.strength >= 0.0:
            raise ConfigError(f"strength is {self.strength}", fix="0 or more")
        if self.sparsity is not None and not 0.0 < self.sparsity <= 1.0:
            raise ConfigError(
                f"sparsity is {self.sparsity}", fix="the share of the lags that matter, in (0, 1]"
            )
        if not self.gamma > 1.0:
            raise ConfigError(f"gamma is {self.gamma}", fix="above 1, for example 3")
        if self.solver != "sgd" and self.hidden:
            raise ConfigError(
                f"hidden layers need gradient descent, not solver={self.solver!r}",
                fix="solver='sgd', or hidden=()",
            )
        if self.solver == "sgd" and (self.window_mean or not self.intercept):
            raise ConfigError(
                "solver='sgd' always fits an intercept and has no window mean",
                fix="solver='exact', or intercept=True and window_mean=False",
            )
        if self.window_mean and self.penalty not in ("none", "ridge"):
            raise ConfigError(
                f"window_mean and penalty={self.penalty!r} do not go together",
                why="the window's mean depends on every lag, so no coefficient is zero",
                fix="penalty='ridge', or window_mean=False",
            )
        if self.solver == "levinson":
            fits = self.penalty in ("none", "ridge") and not self.window_mean
            if self.regressor_lags or not fits:
                raise ConfigError(
                    "solver='levinson' fits one series without regressors, window mean or "
                    "sparse penalty",
                    why="these have no Toeplitz system",
                    fix="solver='exact'",
                )

    def fit(
        self,
        y: ArrayLike,
        regressors: Mapping[str, ArrayLike] | None = None,
        *,
        on_progress: Callable[[SgdProgress], None] | None = None,
    ) -> FittedAR:
        """Fit one series.

        Args:
            y: [N], evenly spaced, the oldest value first.
            regressors: [N] of every lagged regressor of `regressor_lags`.
            on_progress: called while gradient descent runs.

        Raises:
            InputError: not finite, not one-dimensional, too short, or a regressor is missing.
        """
        return self.fit_many([y], [regressors or {}], on_progress=on_progress)

    def fit_many(
        self,
        series: Sequence[ArrayLike],
        regressors: Sequence[Mapping[str, ArrayLike]] | None = None,
        *,
        on_progress: Callable[[SgdProgress], None] | None = None,
    ) -> FittedAR:
        """Fit one model to several series of any lengths together.

        Args:
            series: as `y` of `fit`.
            regressors: of every series.
            on_progress: as for `fit`.
        """
        names = tuple(self.regressor_lags)
        layout = Layout((self.lags, *self.regressor_lags.values()), self.horizon)
        given = [{}] * len(series) if regressors is None else regressors
        data = arrange(series, given, names, layout)
        if self.solver == "sgd":
            return self._train(data, layout, on_progress)
        if self.solver == "levinson":
            ridge = self._ridge() if self.penalty == "ridge" else 0.0
            solution = yule_walker(data, layout, ridge=ridge, intercept=self.intercept)
            return self._fitted(solution, ridge)
        return self._solve(data, layout)

    def _solve(self, data: Sequence[Floats], layout: Layout) -> FittedAR:
        sums = moments(data, layout, intercept=self.intercept)
        used = window_moments(sums, layout) if self.window_mean else sums
        rows = () if self.window_mean else data
        if self.penalty in ("none", "ridge"):
            strength = self._ridge() if self.penalty == "ridge" else 0.0
            solution = least_squares(used, rows, layout, ridge=strength)
        else:

            def penalty_of(sigma: float) -> penalties.Penalty:
                return self._penalty(sigma, layout.features, sums.rows)

            solution, penalty = select(used, rows, layout, penalty_of)
            strength = self._strength(penalty, layout)
        if self.window_mean:
            solution = window_weights(solution, sums, layout)
        return self._fitted(solution, strength)

    def _penalty(self, sigma: float, features: int, rows: int) -> penalties.Penalty:
        """The penalty where the noise has this standard deviation."""
        if self.penalty == "ridge":
            return penalties.Ridge(self._ridge())
        if self.penalty == "arnet":
            if self.strength is not None:
                whole = self.strength
            elif self.sparsity is not None:
                whole = penalties.arnet_strength(sigma, self.sparsity)
            else:
                single = penalties.arnet_calibrated(sigma, features, rows)
                return penalties.ArNetPenalty(single, self.c1, self.c2)
            # MSE + lambda mean(r) is twice 1/2 MSE + lambda/(2p) sum(r).
            return penalties.ArNetPenalty(whole / (2 * features), self.c1, self.c2)
        strength = self.strength
        if strength is None:
            strength = penalties.universal_strength(sigma, features, rows)
        if self.penalty == "l1":
            return penalties.L1(strength)
        return penalties.Mcp(strength, self.gamma)

    def _strength(self, penalty: penalties.Penalty, layout: Layout) -> float:
        """As the user knows it: of arnet lambda(s)."""
        return penalty.strength * (2 * layout.features if self.penalty == "arnet" else 1)

    def _ridge(self) -> float:
        return 1e-3 if self.strength is None else self.strength

    def _train(
        self,
        data: Sequence[Floats],
        layout: Layout,
        on_progress: Callable[[SgdProgress], None] | None,
    ) -> FittedAR:
        from seqgen_time_series.linear.sgd import train

        rows = sum(values_KN.shape[1] - layout.reach for values_KN in data)
        penalty, strength = None, 0.0
        if self.penalty != "none":
            penalty = self._penalty(self._noise_of(data), layout.features, rows)
            strength = self._strength(penalty, layout)
        trained = train(
            data, layout, penalty, self.sgd, hidden=self.hidden, on_progress=on_progress
        )
        return FittedAR(
            lags=self.lags,
            horizon=self.horizon,
            regressor_lags=dict(self.regressor_lags),
            layers=tuple(Layer(weight, bias) for weight, bias in trained.layers),
            covariance_HH=trained.covariance_HH,
            rows=trained.rows,
            solver="sgd",
            penalty=self.penalty,
            strength=strength,
            losses=trained.losses,
        )

    def _noise_of(self, data: Sequence[Floats]) -> float:
        """Standard deviation of the noise in the units in which the network is trained."""
        if self.sgd.noise is not None:
            return self.sgd.noise
        target = [values_KN[:1] for values_KN in data]
        found = yule_walker(target, Layout((self.lags,)))
        noise = math.sqrt(float(found.covariance_HH[0, 0]))
        spread = float(np.concatenate(target, axis=1).std()) or 1.0
        return noise / spread if self.sgd.normalize else noise

    def _fitted(self, solution: Solution, strength: float) -> FittedAR:
        return FittedAR(
            lags=self.lags,
            horizon=self.horizon,
            regressor_lags=dict(self.regressor_lags),
            layers=(Layer(np.ascontiguousarray(solution.weights_FH.T), solution.intercept_H),),
            covariance_HH=solution.covariance_HH,
            rows=solution.rows,
            solver=self.solver,
            penalty=self.penalty,
            strength=strength,
            errors_HF=solution.errors_FH.T,
            intercept_errors_H=solution.intercept_errors_H,
            warnings=solution.warnings,
        )


def _one_of(name: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise ConfigError(f"{name} is {value!r}", fix=did_you_mean(value, known))
