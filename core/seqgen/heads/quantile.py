"""The quantile head: quantiles at fixed levels, trained with the pinball loss.

Shapes: [...] places, K levels; B rows, Q open slots, D width, C channels of a value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from seqgen.heads.continuous import DistributionHead, level_tensor

DECILES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


class QuantileHead(DistributionHead):
    """Quantiles of every number; parameters [q_1 <= ... <= q_K].

    Minimising the pinball loss (Koenker and Bassett 1978) makes each output the quantile at its
    level, without an assumption on the distribution. The outputs are sorted, in the loss as well:
    sorted quantiles never cross and never have a greater pinball loss (Chernozhukov et al. 2010).

    Args:
        width: hidden width D.
        channels: numbers a value C.
        levels: rising, in (0, 1), at least two.
    """

    def __init__(self, width: int, channels: int, *, levels: Sequence[float] = DECILES) -> None:
        if len(levels) < 2 or sorted(set(levels)) != list(levels):
            raise ValueError(f"a quantile head needs two or more rising levels, not {levels}")
        if not 0 < levels[0] < levels[-1] < 1:
            raise ValueError(f"quantile levels must lie in (0, 1), not {levels}")
        super().__init__(width, channels, len(levels))
        self.levels = tuple(levels)

    def constrain(self, raw_BQCP: Tensor) -> Tensor:
        return raw_BQCP.sort(dim=-1).values

    def distribution(self, parameters_BQCP: Tensor) -> QuantileFunction:
        return QuantileFunction(level_tensor(self.levels, parameters_BQCP), parameters_BQCP)

    def loss(self, hidden_BQD: Tensor, targets: Tensor) -> Tensor:
        """Pinball loss, mean over the levels and channels [B, Q]; targets [B, Q, C]."""
        quantiles_BQCK = self.parameters_of(hidden_BQD)
        levels_K = level_tensor(self.levels, quantiles_BQCK)
        return pinball(quantiles_BQCK, targets.float(), levels_K).mean(dim=(-2, -1))


def pinball(quantiles: Tensor, targets: Tensor, levels_K: Tensor) -> Tensor:
    """max(tau (y - q), (tau - 1) (y - q)) for quantiles [..., K] and targets [...]: [..., K]."""
    over = targets[..., None] - quantiles
    return torch.maximum(levels_K * over, (levels_K - 1) * over)


@dataclass(frozen=True, eq=False)
class QuantileFunction:
    """Distributions given by quantiles, linear in between.

    Beyond the outermost quantiles the tails are exponential, with the density of the outermost
    segment at their beginning (as in incremental quantile functions, Park et al. 2022): a straight
    line would end the distribution there.

    Attributes:
        levels_K: rising, in (0, 1).
        quantiles: [..., K], not falling.
    """

    levels_K: Tensor
    quantiles: Tensor

    @property
    def mean(self) -> Tensor:
        t, q = self.levels_K, self.quantiles
        slopes = q.diff(dim=-1) / t.diff()
        inside = ((q[..., 1:] + q[..., :-1]) / 2 * t.diff()).sum(dim=-1)
        below = t[0] * (q[..., 0] - slopes[..., 0] * t[0])
        above = (1 - t[-1]) * (q[..., -1] + slopes[..., -1] * (1 - t[-1]))
        return below + inside + above

    @property
    def centre(self) -> Tensor:
        """The median."""
        return self.quantile((0.5,)).squeeze(-1)

    def quantile(self, levels: Sequence[float]) -> Tensor:
        u_N = level_tensor(levels, self.quantiles)
        return self._invert(u_N.expand(*self.quantiles.shape[:-1], -1))

    def sample(self, u: Tensor, v: Tensor) -> Tensor:
        """The quantile at level u."""
        return self._invert(u[..., None]).squeeze(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        """-log of the quantile function's slope at the value; of both sides' mean at a quantile."""
        t, q = self.levels_K, self.quantiles.expand(*value.shape, -1).contiguous()
        # The median is a quantile: rounding must not decide which side it lies on.
        near = 1e-5 * (q[..., -1:] - q[..., :1])
        sides = torch.cat([value[..., None] - near, value[..., None] + near], dim=-1)
        right = torch.searchsorted(q, sides).clamp(1, len(t) - 1)
        slope = (q.diff(dim=-1) / t.diff()).gather(-1, right - 1).mean(dim=-1).clamp(min=_STEEP)
        below = (q[..., 0] - value).clamp(min=0) / t[0]
        above = (value - q[..., -1]).clamp(min=0) / (1 - t[-1])
        return -slope.log() - (below + above) / slope

    def spread(self, factor: float) -> QuantileFunction:
        centre = self.centre[..., None]
        return replace(self, quantiles=centre + factor * (self.quantiles - centre))

    def _invert(self, u: Tensor) -> Tensor:
        """The quantile function at levels [..., N]."""
        t, q = self.levels_K, self.quantiles
        right = torch.searchsorted(t, u.contiguous()).clamp(1, len(t) - 1)
        slope = (q.diff(dim=-1) / t.diff()).gather(-1, right - 1)
        inner = u.clamp(t[0], t[-1])
        line = q.gather(-1, right - 1) + slope * (inner - t[right - 1])
        # The tails: slope * t_1 log(u / t_1), and the same from above; 0 between the quantiles.
        low = t[0] * (u / t[0]).clamp(max=1).log()
        high = (1 - t[-1]) * ((1 - u) / (1 - t[-1])).clamp(max=1).log()
        return line + slope * (low - high)


_STEEP = 1e-6
"""Least slope that a density is taken of: equal quantiles would have an infinite one."""
