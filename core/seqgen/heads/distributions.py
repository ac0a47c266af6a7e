"""Parametric heads: Gaussian and Student-t.

Shapes: [...] places, K quantile levels; B rows, Q open slots, D width, C channels of a value.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from seqgen.heads.continuous import DistributionHead, level_tensor

Floats = npt.NDArray[np.float64]


class GaussianHead(DistributionHead):
    """Mean and standard deviation of every number; parameters [mean, std].

    Args:
        width: hidden width D.
        channels: numbers a value C.
        floor: least standard deviation, in units of the values. Without one the likelihood of a
            constant series is unbounded.
    """

    def __init__(self, width: int, channels: int, *, floor: float = 1e-3) -> None:
        super().__init__(width, channels, 2)
        self.floor = floor

    def constrain(self, raw_BQCP: Tensor) -> Tensor:
        mean, std = raw_BQCP.unbind(dim=-1)
        return torch.stack([mean, self.floor + F.softplus(std)], dim=-1)

    def distribution(self, parameters_BQCP: Tensor) -> Gaussian:
        mean, std = parameters_BQCP.unbind(dim=-1)
        return Gaussian(mean, std)


class StudentTHead(DistributionHead):
    """Student's t of every number, for heavy tails; parameters [df, loc, scale].

    The degrees of freedom stay above 2, so that the variance exists (DeepAR, Salinas et al. 2020).

    Args:
        width: hidden width D.
        channels: numbers a value C.
        floor: least scale, in units of the values.
    """

    def __init__(self, width: int, channels: int, *, floor: float = 1e-3) -> None:
        super().__init__(width, channels, 3)
        self.floor = floor

    def constrain(self, raw_BQCP: Tensor) -> Tensor:
        df, loc, scale = raw_BQCP.unbind(dim=-1)
        return torch.stack([2 + F.softplus(df), loc, self.floor + F.softplus(scale)], dim=-1)

    def distribution(self, parameters_BQCP: Tensor) -> StudentT:
        df, loc, scale = parameters_BQCP.unbind(dim=-1)
        return StudentT(df, loc, scale)


@dataclass(frozen=True, eq=False)
class Gaussian:
    """Normal distributions, fields [...]."""

    mean: Tensor
    std: Tensor

    @property
    def centre(self) -> Tensor:
        return self.mean

    def log_prob(self, value: Tensor) -> Tensor:
        """-z^2 / 2 - log std - log(2 pi) / 2, z = (value - mean) / std."""
        z = (value - self.mean) / self.std
        return -0.5 * z.square() - self.std.log() - 0.5 * math.log(2 * math.pi)

    def quantile(self, levels: Sequence[float]) -> Tensor:
        z_K: Tensor = torch.special.ndtri(level_tensor(levels, self.mean))
        return self.mean[..., None] + self.std[..., None] * z_K

    def sample(self, u: Tensor, v: Tensor) -> Tensor:
        """Box and Muller 1958: sqrt(-2 log u) cos(2 pi v)."""
        return self.mean + self.std * (-2 * u.log()).sqrt() * (2 * math.pi * v).cos()

    def spread(self, factor: float) -> Gaussian:
        return replace(self, std=self.std * factor)


@dataclass(frozen=True, eq=False)
class StudentT:
    """Student's t distributions with location and scale, fields [...]; df >= 2 (for quantiles)."""

    df: Tensor
    loc: Tensor
    scale: Tensor

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def centre(self) -> Tensor:
        return self.loc

    def log_prob(self, value: Tensor) -> Tensor:
        """log G((n+1)/2) - log G(n/2) - log(pi n)/2 - log scale - (n+1)/2 log(1 + z^2 / n)."""
        n, z = self.df, (value - self.loc) / self.scale
        constant = torch.lgamma((n + 1) / 2) - torch.lgamma(n / 2) - 0.5 * (math.pi * n).log()
        return constant - self.scale.log() - (n + 1) / 2 * torch.log1p(z.square() / n)

    def quantile(self, levels: Sequence[float]) -> Tensor:
        level_tensor(levels, self.loc)  # they must lie in (0, 1)
        series = torch.from_numpy(_quantile_series(tuple(levels))).to(self.loc)
        x = 4 / self.df[..., None] - 1
        ahead = behind = torch.zeros_like(x)
        for coefficients_K in series[1:].flip(0):  # Clenshaw's recurrence
            ahead, behind = coefficients_K + 2 * x * ahead - behind, ahead
        z = series[0] + x * ahead - behind
        return self.loc[..., None] + self.scale[..., None] * z

    def sample(self, u: Tensor, v: Tensor) -> Tensor:
        """Bailey 1994, eq. 6: sqrt(n (u^(-2/n) - 1)) cos(2 pi v); Box-Muller as n grows."""
        square = self.df * torch.expm1(-2 / self.df * u.log())
        return self.loc + self.scale * square.sqrt() * (2 * math.pi * v).cos()

    def spread(self, factor: float) -> StudentT:
        return replace(self, scale=self.scale * factor)


_TERMS = 16
"""Of the series below: the error is then less than 1e-10 between the levels 0.0005 and 0.9995."""


@lru_cache(maxsize=64)
def _quantile_series(levels: tuple[float, ...]) -> Floats:
    """Quantiles of the standard t as Chebyshev series in x = 4 / n - 1, float64 [terms, K].

    Quantiles are smooth in 1/n, so few terms do for all n >= 2; each node is solved for exactly.
    """
    x = np.cos(np.pi * (np.arange(_TERMS) + 0.5) / _TERMS)
    exact = _solve_quantiles(4 / (1 + x), np.array(levels))
    return np.polynomial.chebyshev.chebfit(x, exact, _TERMS - 1).astype(np.float64)


def _solve_quantiles(df_N: Floats, levels_K: Floats) -> Floats:
    """Quantiles of the standard t, float64 [N, K], for n degrees of freedom.

    With t = sqrt(n) tan(a) the distribution function is 1/2 + G(a) / (2 G(pi/2)), G(a) being the
    integral of cos(x)^(n-1) from 0 to a (Abramowitz and Stegun 26.7). G is concave, so Newton's
    steps from a = 0 rise to the root and never pass it.
    """
    nodes, weights = np.polynomial.legendre.leggauss(32)
    n = df_N[:, None]
    whole = [math.exp(math.lgamma(m / 2) - math.lgamma((m + 1) / 2)) for m in df_N.tolist()]
    target = abs(2 * levels_K - 1) * (math.sqrt(math.pi) / 2) * np.array(whole)[:, None]
    a = np.zeros_like(target)
    for _ in range(16):
        part = np.cos(a[..., None] * (nodes + 1) / 2) ** (n[..., None] - 1)
        a += (target - a * (part @ weights) / 2) / np.cos(a) ** (n - 1)
    quantiles: Floats = np.sign(levels_K - 0.5) * np.sqrt(n) * np.tan(a)
    return quantiles
