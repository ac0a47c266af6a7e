"""AR-Net as a network: gradient descent on windows of the series, penalty and hidden layers.

The paper (arXiv:1911.12436) minimises MSE + lambda(s) R; `paper_recipe` is its schedule as its
first code had it. Rows of the regression are cut from the series batch by batch, so an n x p matrix
never exists. Same seed, same bytes, on one device.

    loss = MSE + 2/H sum_j P(w_j),   w the first layer's weights in normalised units

where MSE is the mean over the H steps: 2/H times the objective of `penalties.py`. There, AR-Net's R
has the strength lambda(s) / (2 p).

Shape suffixes: B rows of a batch, P lags of one variable, F features, H horizon.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from seqgen.errors import ConfigError
from seqgen_time_series.linear.gram import Floats, Layout
from seqgen_time_series.linear.penalties import L1, ArNetPenalty, Mcp, Penalty, Ridge
from seqgen_time_series.linear.recipe import SgdConfig, SgdProgress

ROOT_SHIFT = 1e-9
"""Keeps the slope of AR-Net's root finite at zero."""


@dataclass(frozen=True)
class Trained:
    """A trained network, in the units of the data.

    Attributes:
        layers: (weight [out, in], bias [out]) of every layer; the first one's columns are features,
            the nearest lag of every variable first.
        covariance_HH: covariance of the residuals.
        rows: rows of the regression.
        losses: mean squared error of every epoch, normalised.
    """

    layers: tuple[tuple[Floats, Floats], ...]
    covariance_HH: Floats
    rows: int
    losses: tuple[float, ...]


def train(
    series: Sequence[Floats],
    layout: Layout,
    penalty: Penalty | None,
    config: SgdConfig,
    *,
    hidden: Sequence[int] = (),
    on_progress: Callable[[SgdProgress], None] | None = None,
) -> Trained:
    """Fit the network.

    Args:
        series: arrays [K, N], the target first.
        layout: lags and horizon.
        penalty: of the first layer's weights in normalised units.
        config: the recipe.
        hidden: widths of the hidden ReLU layers.
        on_progress: called every `report_every` steps and after every epoch.

    Raises:
        ConfigError: training diverged.
    """
    generator = torch.Generator().manual_seed(config.seed)
    windows = _Windows(series, layout, config)
    sizes = (layout.features, *hidden, layout.horizon)
    layers = [_layer(a, b, generator, config.device) for a, b in pairwise(sizes)]
    network = nn.Sequential(layers[0])
    for layer in layers[1:]:
        network.extend([nn.ReLU(), layer])

    rows = windows.rows
    batches = math.ceil(rows / config.batch)
    epochs = config.epochs_for(rows)
    optimizer = torch.optim.Adam(network.parameters(), lr=config.learning_rate, fused=True)
    losses: list[float] = []
    for epoch in range(epochs):
        order = torch.randperm(rows, generator=generator).to(config.device)
        squares = torch.zeros((), dtype=torch.float64, device=config.device)
        share = config.penalty_share(epoch, epochs)
        for number, picked in enumerate(torch.split(order, config.batch), start=1):
            rate = config.rate(epoch, epochs, (number - 1) / batches)
            for group in optimizer.param_groups:
                group["lr"] = rate
            inputs_BF, targets_BH = windows.batch(picked)
            squared = (network(inputs_BF) - targets_BH).square().mean()
            loss = squared
            if penalty is not None and share > 0.0:
                whole = penalty_sum(penalty, layers[0].weight)
                loss = loss + share * 2.0 / layout.horizon * whole
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            squares += squared.detach() * len(picked)
            last = number == batches
            if last or number % config.report_every == 0:
                mean = float(squares) / min(number * config.batch, rows)
                _check(mean, epoch, config)
                if on_progress is not None:
                    done = epoch * batches + number
                    on_progress(SgdProgress(epoch + 1, epochs, done, epochs * batches, mean, rate))
                if last:
                    losses.append(mean)
    with torch.no_grad():
        covariance_HH = windows.covariance(network)
    return Trained(windows.unscale(layers), covariance_HH, rows, tuple(losses))


def penalty_sum(penalty: Penalty, weights: Tensor) -> Tensor:
    """sum P(w), differentiable almost everywhere."""
    size = weights.abs()
    if isinstance(penalty, L1):
        return penalty.strength * size.sum()
    if isinstance(penalty, Ridge):
        return 0.5 * penalty.strength * weights.square().sum()
    if isinstance(penalty, Mcp):
        knee = penalty.gamma * penalty.strength
        inside = penalty.strength * size - size.square() / (2.0 * penalty.gamma)
        return torch.where(size < knee, inside, knee * penalty.strength / 2.0).sum()
    if isinstance(penalty, ArNetPenalty):
        root = (size + ROOT_SHIFT).pow(1.0 / penalty.c2)
        return penalty.strength * torch.tanh(0.5 * penalty.c1 * root).sum()
    raise ConfigError(f"the network has no penalty {type(penalty).__name__}")


def _check(mean: float, epoch: int, config: SgdConfig) -> None:
    if not math.isfinite(mean):
        raise ConfigError(
            f"training diverged in epoch {epoch + 1}: the loss is {mean}",
            why=f"the learning rate {config.learning_rate:g} is too large for this series",
            fix=f"SgdConfig(learning_rate={config.learning_rate / 10:g}), or normalize=True",
        )


def _layer(inputs: int, outputs: int, generator: torch.Generator, device: str) -> nn.Linear:
    """A linear layer in float64, uniform in +-1/sqrt(inputs)."""
    layer = nn.Linear(inputs, outputs, dtype=torch.float64)
    bound = 1.0 / math.sqrt(inputs)
    with torch.no_grad():
        for values in (layer.weight, layer.bias):
            values.copy_((2.0 * torch.rand(values.shape, generator=generator) - 1.0) * bound)
    return layer.to(device)


class _Windows:
    """Rows of the regression, cut from the normalised series when they are asked for."""

    def __init__(self, series: Sequence[Floats], layout: Layout, config: SgdConfig) -> None:
        joined_KN = np.concatenate(list(series), axis=1)
        flat_K = np.zeros(len(joined_KN))
        self.mean_K = joined_KN.mean(axis=1) if config.normalize else flat_K
        deviation_K = joined_KN.std(axis=1) if config.normalize else flat_K + 1.0
        self.scale_K = np.where(deviation_K > 0.0, deviation_K, 1.0)
        normal_KN = (joined_KN - self.mean_K[:, None]) / self.scale_K[:, None]
        values_KN = torch.from_numpy(normal_KN).to(config.device)
        ends = np.cumsum([values.shape[1] for values in series])
        starts = ends - [values.shape[1] for values in series]
        past = max(layout.lags)
        anchors = [
            np.arange(a + past, b - layout.horizon + 1) for a, b in zip(starts, ends, strict=True)
        ]
        self.layout = layout
        self.anchors = torch.from_numpy(np.concatenate(anchors)).to(config.device)
        self.rows = len(self.anchors)
        # Views: window r of a variable is its samples r .. r+lags-1, the oldest first.
        self.inputs = [values_KN[k].unfold(0, lags, 1) for k, lags in enumerate(layout.lags)]
        self.targets = values_KN[0].unfold(0, layout.horizon, 1)

    def batch(self, picked: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs [B, F] with the oldest lag of every variable first, and targets [B, H]."""
        anchor_B = self.anchors[picked]
        parts = [
            windows[anchor_B - lags]
            for windows, lags in zip(self.inputs, self.layout.lags, strict=True)
        ]
        inputs_BF = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
        return inputs_BF, self.targets[anchor_B]

    def covariance(self, network: nn.Module) -> Floats:
        """Residual covariance [H, H] over all rows, in the target's units."""
        horizon = self.layout.horizon
        sums = torch.zeros(horizon, horizon, dtype=torch.float64, device=self.anchors.device)
        for picked in torch.split(torch.arange(self.rows, device=self.anchors.device), 4096):
            inputs_BF, targets_BH = self.batch(picked)
            errors_BH = targets_BH - network(inputs_BF)
            sums += errors_BH.T @ errors_BH
        return np.asarray(sums.cpu().numpy() / self.rows * self.scale_K[0] ** 2)

    def unscale(self, layers: Sequence[nn.Linear]) -> tuple[tuple[Floats, Floats], ...]:
        """The layers for data in their own units, the nearest lag first."""
        arrays = [
            (layer.weight.detach().cpu().numpy().copy(), layer.bias.detach().cpu().numpy().copy())
            for layer in layers
        ]
        weight, bias = arrays[0]
        for variable, part in self.layout.blocks():
            weight[:, part] = weight[:, part][:, ::-1] / self.scale_K[variable]
            bias = bias - weight[:, part].sum(axis=1) * self.mean_K[variable]
        arrays[0] = (weight, bias)
        weight, bias = arrays[-1]
        arrays[-1] = (weight * self.scale_K[0], bias * self.scale_K[0] + self.mean_K[0])
        return tuple(arrays)
