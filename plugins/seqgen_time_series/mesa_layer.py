"""One layer of linear causal attention: its prediction, its gradient, and what it is compared with.

See `mesa.py` for the setting and the equations.

Shape suffixes: N sequences, T tokens, D coordinates, K = 2D entries of u_t = (x_t; x_{t-1}).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seqgen_time_series.mesa_moments import Data

Complexes = NDArray[np.complex128]


@dataclass(frozen=True)
class Layer:
    """The trained part of the layer.

    Attributes:
        values_DK: A = W^PV[0:D, D:3D]; its left half should become b I.
        keys_KK: B = W^KQ[D:3D, D:3D]; its lower left block should become a I.
    """

    values_DK: Complexes
    keys_KK: Complexes

    @property
    def a(self) -> Complexes:
        """Diagonal [D] of the block (3, 2) of W^KQ."""
        dimension = len(self.values_DK)
        return np.diagonal(self.keys_KK[dimension:, :dimension]).copy()

    @property
    def b(self) -> Complexes:
        """Diagonal [D] of the block (1, 2) of W^PV."""
        return np.diagonal(self.values_DK).copy()

    @property
    def rest(self) -> float:
        """Largest absolute value of all other entries."""
        dimension = len(self.values_DK)
        values, keys = np.abs(self.values_DK), np.abs(self.keys_KK)
        np.fill_diagonal(values, 0.0)
        np.fill_diagonal(keys[dimension:, :dimension], 0.0)
        return float(max(values.max(), keys.max()))

    def predict(self, x_NTD: Complexes) -> Complexes:
        """y_t [N, T-1, D] of every token from the second on, by attention."""
        return _forward(self, _tokens(x_NTD))[0]


def sample(
    data: Data, count: int, rng: np.random.Generator, *, dimension: int, length: int, size: float
) -> Complexes:
    """Sequences x_1 .. x_T [N, T, D]."""
    if data == "one-hot":
        first_ND = size * np.eye(dimension)[rng.integers(0, dimension, count)]
    elif data == "gaussian":
        first_ND = size * rng.standard_normal((count, dimension))
    else:
        first_ND = np.full((count, dimension), size)
    angles_ND = 2.0 * math.pi * rng.random((count, dimension))
    turns_NTD = np.exp(1j * np.arange(length)[None, :, None] * angles_ND[:, None, :])
    return np.asarray(first_ND[:, None, :] * turns_NTD)


def gradient_step(x_NTD: Complexes) -> Complexes:
    """What one gradient step of size 1/rho_t on the context's least squares predicts [N, T-1, D].

    From W = 0, sum_{i<t} |x_{i+1} - W x_i|^2 / 2 has the gradient -sum x_{i+1} x_i^*.
    """
    outer = np.einsum("ntd,nte->ntde", x_NTD[:, 1:], x_NTD[:, :-1].conj())
    rho_T = np.arange(1, x_NTD.shape[1])[:, None, None]
    learned = np.cumsum(outer, axis=1) / rho_T
    return np.asarray(np.einsum("ntde,nte->ntd", learned, x_NTD[:, 1:]))


def _tokens(x_NTD: Complexes) -> Complexes:
    """u_t = (x_t; x_{t-1}) [N, T, K], with x_0 = 0."""
    before_NTD = np.concatenate([np.zeros_like(x_NTD[:, :1]), x_NTD[:, :-1]], axis=1)
    return np.concatenate([x_NTD, before_NTD], axis=2)


def _forward(layer: Layer, u_NTK: Complexes) -> tuple[Complexes, Complexes]:
    """Predictions [N, T-1, D] of the tokens from the second on, and sum_i u_i s_ti [N, T-1, K]."""
    queries_NTK = u_NTK[:, 1:] @ layer.keys_KK.T
    scores_NTT = queries_NTK @ u_NTK.conj().transpose(0, 2, 1)  # s_ti = u_i^* B u_t
    mixed_NTK = _causal(scores_NTT) @ u_NTK
    return mixed_NTK @ layer.values_DK.T, mixed_NTK


def _causal(scores_NTT: Complexes) -> Complexes:
    """Scores of token t = 2, 3, ... with tokens i <= t, divided by rho_t."""
    rows, columns = scores_NTT.shape[1:]
    t, i = np.arange(2, rows + 2)[:, None], np.arange(1, columns + 1)[None, :]
    return np.asarray(scores_NTT * (np.where(i <= t, 1.0, 0.0) / (t - 1)))


def loss_gradient(layer: Layer, x_NTD: Complexes) -> tuple[Complexes, Complexes]:
    """Gradients of the mean loss of a batch with respect to conj(A) and conj(B).

    With r_t = y_t - x_{t+1} and h_t = G_t B u_t / rho_t: dA = sum r h^* and
    dB = sum G A^* r u^* / rho, where G q = sum_i u_i (u_i^* q).
    """
    u_NTK = _tokens(x_NTD[:, :-1])
    predicted, mixed_NTK = _forward(layer, u_NTK)
    residual_NTD = predicted - x_NTD[:, 2:]
    count = len(x_NTD)

    def total(left: Complexes, right: Complexes) -> Complexes:
        """sum over sequences and tokens of left right^*."""
        flat = right.reshape(-1, right.shape[-1]).conj()
        return np.asarray(left.reshape(-1, left.shape[-1]).T @ flat / count)

    back_NTK = residual_NTD @ layer.values_DK.conj()
    scores_NTT = _causal(back_NTK @ u_NTK.conj().transpose(0, 2, 1))
    return total(residual_NTD, mixed_NTK), total(scores_NTT @ u_NTK, u_NTK[:, 1:])
