"""The flow head: samples of a whole vector at once, by a learned flow from noise to data.

Rectified flow (Lipman et al. 2023, arXiv 2210.02747, with straight paths; Liu et al. 2023, arXiv
2209.03003): on the line from noise to data,

    x_t = (1 - t) e + t y,    e ~ N(0, I),    t from 0 (noise) to 1 (data),                   (1)

the velocity is y - e. A network v(x, t | h) that regresses it,

    min E |v(x_t, t | h) - (y - e)|^2,                                                        (2)

is the conditional mean velocity, and dx/dt = v carries noise at t = 0 to samples of p(y | h) at
t = 1. Unlike independent numbers, the channels of a sample belong together. The network is a small
MLP that works on each token alone, configured by its hidden state (`seqgen.adaln`); the backbone
runs once a token, only the MLP runs in every step.

What drives the integration is a `Field`. `FlowHead.field(hidden)` gives one and `FlowHead.sample`
integrates any; guidance (`seqgen.guidance`) puts a combination of two fields in between. A head
that denoises by another rule (diffusion) fits the same seam.

Shapes: B rows, Q open slots, D width, C channels of a value.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from seqgen import noise
from seqgen.adaln import AdaLNMLP
from seqgen.heads.base import Proposal, Request
from seqgen.heads.continuous import refuse_processors

Field = Callable[[Tensor, Tensor], Tensor]
"""(x [B, Q, C], t []) -> what the network predicts there, [B, Q, C]."""

Solver = Literal["euler", "midpoint"]
"""Euler: one call of the network a step, error O(1 / steps). Midpoint: two, O(1 / steps^2)."""

TimeDensity = Literal["uniform", "logit-normal"]
"""Where training looks: everywhere alike, or mostly halfway (Esser et al. 2024, section 3.1)."""


class FlowHead(nn.Module):
    """Samples vectors by a rectified flow.

    The values should be scaled to about unit variance: the noise has it. The noise of a slot comes
    from its row's seed, so a sample does not depend on the batch. Temperature T scales the noise by
    sqrt(T); at 0 the path begins in the middle of the noise, and the result is typical, but
    neither mean nor mode in general. There is no cheap density: the confidence is 1 everywhere.

    Args:
        width: hidden width D.
        channels: numbers a value C.
        hidden: width of the MLP.
        depth: its residual blocks.
        steps: integration steps of a sample.
        solver: how to integrate.
        times: density of t in training.
        draws: pairs (t, e) a target in training; more cost only the MLP (MAR takes 4).
    """

    def __init__(
        self,
        width: int,
        channels: int,
        *,
        hidden: int = 256,
        depth: int = 3,
        steps: int = 16,
        solver: Solver = "midpoint",
        times: TimeDensity = "uniform",
        draws: int = 1,
    ) -> None:
        super().__init__()
        if solver not in ("euler", "midpoint"):
            raise ValueError(f"unknown solver {solver!r}: euler, midpoint")
        if times not in ("uniform", "logit-normal"):
            raise ValueError(f"unknown density of times {times!r}: uniform, logit-normal")
        if steps < 1 or draws < 1:
            raise ValueError(f"steps and draws must be at least 1, not {steps} and {draws}")
        self.channels = channels
        self.steps, self.times, self.draws = steps, times, draws
        self.solver: Solver = solver
        self.network = AdaLNMLP(channels, width, width=hidden, depth=depth)

    def field(self, hidden_BQD: Tensor) -> Field:
        """The velocity field of these hidden states."""
        embedded = self.network.embed_condition(hidden_BQD)

        def velocity(x_BQC: Tensor, t: Tensor) -> Tensor:
            out: Tensor = self.network(x_BQC, t, embedded)
            return out

        return velocity

    def sample(self, field: Field, request: Request) -> Proposal:
        """Values by integrating a field from the noise of the requested slots."""
        refuse_processors(self, request.sampling)
        canvas = request.canvas
        e_BQC = noise.normal(canvas.seeds_B, request.slots_BQ, request.draw, self.channels)
        start = e_BQC * math.sqrt(request.sampling.temperature)
        values = integrate(field, start, steps=self.steps, solver=self.solver)
        return Proposal(values, values.new_ones(values.shape[:2]))

    def propose(self, hidden_BQD: Tensor, request: Request) -> Proposal:
        """A sample for each slot."""
        return self.sample(self.field(hidden_BQD), request)

    def loss(self, hidden_BQD: Tensor, targets: Tensor) -> Tensor:
        """Equation 2, mean over channels and draws [B, Q]; targets [B, Q, C].

        Times and noise come from torch's global generator, as dropout does.
        """
        shape = (self.draws, *targets.shape)
        if self.times == "logit-normal":
            time = torch.randn(shape[:-1], device=targets.device).sigmoid()
        else:
            time = torch.rand(shape[:-1], device=targets.device)
        return self.loss_at(hidden_BQD, targets, time, torch.randn(shape, device=targets.device))

    def loss_at(self, hidden_BQD: Tensor, targets: Tensor, time: Tensor, e: Tensor) -> Tensor:
        """The loss for given times [N, B, Q] and noise [N, B, Q, C]: mean over N and C, [B, Q]."""
        targets = targets.float()
        x = torch.lerp(e, targets, time[..., None])  # equation 1
        embedded = self.network.embed_condition(hidden_BQD)
        velocity: Tensor = self.network(x, time, embedded)
        return (velocity - (targets - e)).square().mean(dim=(0, -1))


def integrate(field: Field, x: Tensor, *, steps: int, solver: Solver) -> Tensor:
    """Carry x from t = 0 to t = 1 along a field, in equal steps."""
    size = 1 / steps
    for step in range(steps):
        t = torch.full((), step * size, device=x.device)
        if solver == "midpoint":
            half = x + size / 2 * field(x, t)
            x = x + size * field(half, t + size / 2)
        else:
            x = x + size * field(x, t)
    return x
