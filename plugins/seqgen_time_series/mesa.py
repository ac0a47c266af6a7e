"""Mesa-optimization: a layer trained to predict learns to do gradient descent in its forward pass.

Zheng et al., "On Mesa-Optimization in Autoregressively Trained Transformers: Emergence and
Capability" (arXiv:2405.16845). Sequences x_{t+1} = W x_t with W = diag(lambda_j), lambda_j uniform
on the unit circle; tokens e_t = (0; x_t; x_{t-1}); one layer of linear causal attention

    f_t = e_t + W^PV E_t (E_t^* W^KQ e_t) / rho_t,     rho_t = t - 1,

whose first D entries predict x_{t+1}, trained on sum_{t=2}^{T-1} 1/2 E |y_t - x_{t+1}|^2 from
W^KQ = a0 I in its block (3, 2), W^PV = b0 I in its block (1, 2), and zeros. If the odd mixed
moments of x_1 vanish, only these two blocks remain, with

    a b = k1 / (k2 + k3 H / (T - 2)),   k1 = E x_j^4, k2 = E x_j^6, k3 = sum_{r != j} E x_j^2 x_r^4,
                                        H = sum_{t=2}^{T-1} 1 / (t - 1),

so y_t = (a b / rho_t) sum_i x_{i+1} x_i^* x_t: one gradient step from W = 0 on the least squares
problem of the context. a^2 - b^2 is conserved on the way.

The first block of a token is zero and only the first block of the output counts, so the gradient
of everything but W^PV[0:D, D:3D] =: A and W^KQ[D:3D, D:3D] =: B is zero; these are trained.

Shape suffixes: N sequences, T tokens, D coordinates, K = 2D entries of u_t = (x_t; x_{t-1}).
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from seqgen.errors import ConfigError, did_you_mean
from seqgen_time_series.mesa_layer import Complexes, Layer, gradient_step, loss_gradient, sample
from seqgen_time_series.mesa_moments import (
    DATA,
    Data,
    Expectations,
    Floats,
    expectations,
    mixed_moment,
)

METHODS = ("flow", "sgd")


@dataclass(frozen=True, kw_only=True)
class MesaConfig:
    """The experiment.

    Attributes:
        data: distributions of x_1: `one-hot` and `gaussian` meet the theorem's condition, `ones`
            (every entry the same number) does not.
        dimension: coordinates D.
        length: tokens T.
        size: standard deviation of Gaussian entries; the entry itself of the other data.
        a0: initial W^KQ block.
        b0: initial W^PV block.
        method: `flow` integrates the gradient flow of the exact expected loss; `sgd` descends on
            fresh sequences, complex128.
        duration: time of the flow, in units of 1 / ((T - 2) k2 a b): the curvature at the solution.
        steps: steps of sgd.
        batch: sequences of an sgd step.
        learning_rate: of sgd in the same unit, over the first tenth of the steps; then it falls.
        seed: of the sequences.
        probes: fresh sequences on which the trained layer is compared with a gradient step.
    """

    data: tuple[Data, ...] = DATA
    dimension: int = 3
    length: int = 12
    size: float = 1.0
    a0: float = 0.1
    b0: float = 0.1
    method: Literal["flow", "sgd"] = "flow"
    duration: float = 1000.0
    steps: int = 3000
    batch: int = 512
    learning_rate: float = 0.08
    seed: int = 0
    probes: int = 256

    def __post_init__(self) -> None:
        for data in self.data:
            if data not in DATA:
                raise ConfigError(f"there is no data {data!r}", fix=did_you_mean(data, DATA))
        if self.method not in METHODS:
            raise ConfigError(
                f"there is no method {self.method!r}", fix=did_you_mean(self.method, METHODS)
            )
        limits = {"dimension": (1, 6), "length": (4, 40), "steps": (1, 10**7), "batch": (1, 10**6)}
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigError(f"{name} is {value}", fix=f"between {low} and {high}")
        if self.a0 == 0.0 and self.b0 == 0.0:
            raise ConfigError("a0 and b0 are 0: a saddle point", fix="a0=0.1, b0=0.1")


@dataclass(frozen=True)
class Snapshot:
    """On the way: time of the flow or step of sgd, expected loss per token, and the entries."""

    at: float
    loss: float
    ab_D: Complexes
    rest: float


@dataclass(frozen=True)
class MesaCase:
    """What training on one distribution led to.

    Attributes:
        data: its name.
        meets_condition: whether the theorem speaks of it.
        layer: the trained layer.
        theory: a b of the theorem's formula.
        ab_D: the learned products, elementwise.
        ab_error: largest |a_j b_j - theory| / theory.
        rest: largest other entry.
        conserved: a^2 - b^2 of the start, and the mean of it at the end.
        loss: expected loss per predicted token.
        theory_loss: D/2 (k0 - a b k1) of the formula.
        step_size: the eta of the gradient step that is nearest to the layer's predictions.
        step_gap: root mean square distance of the two, relative to the predictions.
        prediction_error: |y_t - x_{t+1}|^2 relative to |x_{t+1}|^2 on fresh sequences.
        history: on the way.
        seconds: of the training.
        predicted: predictions of the layer on some fresh sequences, and those of the gradient step.
    """

    data: Data
    meets_condition: bool
    layer: Layer
    theory: float
    ab_D: Complexes
    ab_error: float
    rest: float
    conserved: tuple[float, float]
    loss: float
    theory_loss: float
    step_size: float
    step_gap: float
    prediction_error: float
    history: tuple[Snapshot, ...] = field(repr=False)
    seconds: float
    predicted: tuple[Complexes, Complexes] = field(repr=False)


@dataclass(frozen=True)
class MesaReport:
    """All cases of a configuration."""

    config: MesaConfig
    cases: tuple[MesaCase, ...]

    def rows(self) -> list[dict[str, float | str | bool | list[float]]]:
        """One JSON-able row a case: the figures without the matrices."""
        return [
            {
                "data": case.data,
                "meets_condition": case.meets_condition,
                "ab": [float(value.real) for value in case.ab_D],
                "ab_theory": case.theory,
                "ab_error": case.ab_error,
                "other_entries": case.rest,
                "a2_minus_b2_start": case.conserved[0],
                "a2_minus_b2_end": case.conserved[1],
                "loss": case.loss,
                "loss_theory": case.theory_loss,
                "gradient_step_size": case.step_size,
                "gradient_step_gap": case.step_gap,
                "prediction_error": case.prediction_error,
                "seconds": case.seconds,
            }
            for case in self.cases
        ]


def run_mesa(config: MesaConfig | None = None) -> MesaReport:
    """Train the layer on every distribution and compare it with the theorem."""
    config = config or MesaConfig()
    return MesaReport(config, tuple(_case(data, config) for data in config.data))


def theory_ab(data: Data, *, dimension: int, length: int, size: float) -> float:
    """a b of the theorem."""

    def moment(*powers: int) -> float:
        return mixed_moment(data, powers, dimension=dimension, size=size)

    harmonic = sum(1.0 / (t - 1) for t in range(2, length))
    cross = (dimension - 1) * moment(2, 4) if dimension > 1 else 0.0
    return moment(4) / (moment(6) + cross * harmonic / (length - 2))


def _unit(data: Data, config: MesaConfig) -> float:
    """The natural unit of time: the inverse of the curvature at the solution."""
    shape = {"dimension": config.dimension, "size": config.size}
    k2 = mixed_moment(data, [6], **shape)  # type: ignore[arg-type]
    ab = theory_ab(data, length=config.length, **shape)  # type: ignore[arg-type]
    return 1.0 / ((config.length - 2) * k2 * ab)


def _case(data: Data, config: MesaConfig) -> MesaCase:
    shape = {"dimension": config.dimension, "length": config.length}
    started = time.perf_counter()
    expected = expectations(data, **shape, size=config.size)
    first = _initial(config)
    train = _flow if config.method == "flow" else _descend
    layer, history = train(first, expected, data, config)
    seconds = time.perf_counter() - started

    theory = theory_ab(data, **shape, size=config.size)
    ab_D = layer.a * layer.b
    rng = np.random.default_rng([config.seed, 1])
    x_NTD = sample(data, config.probes, rng, **shape, size=config.size)
    made, step = layer.predict(x_NTD)[:, :-1], gradient_step(x_NTD)[:, :-1]
    eta = float((np.vdot(step, made) / np.vdot(step, step)).real)
    gap = np.linalg.norm(made - eta * step) / np.linalg.norm(made)
    target = x_NTD[:, 2:]
    missed = np.linalg.norm(made - target) / np.linalg.norm(target)
    powers = [mixed_moment(data, [n], dimension=config.dimension, size=config.size) for n in (2, 4)]
    return MesaCase(
        data=data,
        meets_condition=data != "ones",
        layer=layer,
        theory=theory,
        ab_D=ab_D,
        ab_error=float(np.abs(ab_D - theory).max() / theory),
        rest=layer.rest,
        conserved=(
            config.a0**2 - config.b0**2,
            float(np.mean(np.square(np.abs(layer.a)) - np.square(np.abs(layer.b)))),
        ),
        loss=_loss(layer, expected) / (config.length - 2),
        theory_loss=0.5 * config.dimension * (powers[0] - theory * powers[1]),
        step_size=eta,
        step_gap=float(gap),
        prediction_error=float(missed**2),
        history=history,
        seconds=seconds,
        predicted=(made[:16], eta * step[:16]),
    )


def _initial(config: MesaConfig) -> Layer:
    size = config.dimension
    values_DK = np.zeros((size, 2 * size), dtype=np.complex128)
    keys_KK = np.zeros((2 * size, 2 * size), dtype=np.complex128)
    values_DK[:, :size] = config.b0 * np.eye(size)
    keys_KK[size:, :size] = config.a0 * np.eye(size)
    return Layer(values_DK, keys_KK)


def _flow(
    first: Layer, expected: Expectations, data: Data, config: MesaConfig
) -> tuple[Layer, tuple[Snapshot, ...]]:
    """Integrate d(A, B)/dt = -gradient of the expected loss."""
    from scipy.integrate import solve_ivp

    shape_a, shape_b = first.values_DK.shape, first.keys_KK.shape

    def unpack(state: Floats) -> Layer:
        values = state.view(np.complex128)
        split = math.prod(shape_a)
        return Layer(values[:split].reshape(shape_a), values[split:].reshape(shape_b))

    def velocity(_: float, state: Floats) -> Floats:
        layer = unpack(state)
        residual_DP = _theta(layer) @ expected.quadratic_PP - expected.linear_DP
        residual = residual_DP.reshape(shape_a[0], shape_a[1], *shape_b)
        values = np.einsum("oklm,lm->ok", residual, layer.keys_KK.conj())
        keys = np.einsum("oklm,ok->lm", residual, layer.values_DK.conj())
        return -np.concatenate([values.ravel(), keys.ravel()]).view(np.float64)

    start = np.concatenate([first.values_DK.ravel(), first.keys_KK.ravel()]).view(np.float64)
    end = config.duration * _unit(data, config)
    grid = np.concatenate([[0.0], np.geomspace(1e-4 * end, end, 120)])
    solved = solve_ivp(
        velocity, (0.0, end), start, method="LSODA", t_eval=grid, rtol=1e-9, atol=1e-11
    )
    layers = [unpack(np.ascontiguousarray(state)) for state in solved.y.T]
    moments = zip(solved.t, layers, strict=True)
    return layers[-1], tuple(_snapshot(float(at), now, expected, config) for at, now in moments)


def _descend(
    first: Layer, expected: Expectations, data: Data, config: MesaConfig
) -> tuple[Layer, tuple[Snapshot, ...]]:
    """Stochastic gradient descent on fresh sequences; the expected loss is only recorded."""
    rng = np.random.default_rng([config.seed, 0])
    layer, history = first, [_snapshot(0.0, first, expected, config)]
    every, unit = max(config.steps // 120, 1), _unit(data, config)
    for step in range(1, config.steps + 1):
        x_NTD = sample(
            data,
            config.batch,
            rng,
            dimension=config.dimension,
            length=config.length,
            size=config.size,
        )
        values, keys = loss_gradient(layer, x_NTD)
        # Constant at first, then as 1/step: the noise of all later samples is averaged.
        later = max(step - 0.1 * config.steps, 0.0)
        rate = config.learning_rate * unit / (1.0 + 0.1 * later)
        layer = Layer(layer.values_DK - rate * values, layer.keys_KK - rate * keys)
        if step % every == 0 or step == config.steps:
            history.append(_snapshot(float(step), layer, expected, config))
            if not math.isfinite(history[-1].loss):
                raise ConfigError(
                    f"training on {data} data diverged by step {step}",
                    fix=f"learning_rate={config.learning_rate / 4:g}",
                )
    return layer, tuple(history)


def _snapshot(at: float, layer: Layer, expected: Expectations, config: MesaConfig) -> Snapshot:
    return Snapshot(at, _loss(layer, expected) / (config.length - 2), layer.a * layer.b, layer.rest)


def _theta(layer: Layer) -> Complexes:
    """A (x) B over the features of `mesa_moments`, [D, P]."""
    theta = np.einsum("ok,lm->oklm", layer.values_DK, layer.keys_KK)
    return np.asarray(theta.reshape(len(theta), -1))


def _loss(layer: Layer, expected: Expectations) -> float:
    """The expected loss, summed over t."""
    theta_DP = _theta(layer)
    squared = np.vdot(theta_DP, theta_DP @ expected.quadratic_PP).real
    mixed = np.vdot(expected.linear_DP, theta_DP).real
    return float(0.5 * (squared - 2.0 * mixed + expected.power))
