"""The diffusion head: samples of a whole vector at once, by removing noise in many small steps.

Diffusion loss for each token (MAR, Li et al. 2024, arXiv 2406.11838, section 3) by the process of
Nichol and Dhariwal 2021 (IDDPM, arXiv 2102.09672). With T = 1000 steps and a cosine schedule a_t,

    x_t = sqrt(a_t) y + sqrt(1 - a_t) e,    e ~ N(0, I),    t = 0 .. T - 1,                   (1)
    a_t = prod_{s <= t} (1 - b_s),    1 - b_t = f(t + 1) / f(t),  b_t <= .999,
    f(t) = cos^2((t / T + .008) / 1.008 * pi / 2),                       (IDDPM, eq. 17)      (2)

a network predicts the noise e and, as a number v a channel, the variance of the step back,

    log var_t = (v + 1) / 2 log b_t + (1 - v) / 2 log c_t,               (IDDPM, eq. 15)      (3)
    c_t = b_t (1 - a_{t-1}) / (1 - a_t);                                 c_0 is taken as c_1
    mean_t = (x_t - b_t / sqrt(1 - a_t) e') / sqrt(1 - b_t).             (DDPM, eq. 11)       (4)

The loss is |e' - e|^2 plus, for v alone, the variational bound in bits a number: the divergence of
the step back from the true one, at t = 0 the negative log density. (MAR has the probability of an
8-bit pixel there, which continuous values are not.)

To sample, a part of the T steps is taken, evenly spaced, under the schedule that leads through the
same a_t. Near t = T a step multiplies an error of e' by hundreds (sqrt(a_999) is 5e-5), so what e'
says of y is kept within a limit, as DDPM does with pixels; MAR trusts its long training and sets
none. The network works on each token alone, configured by its hidden state (`seqgen.adaln`);
the backbone runs once a token. `field` and `sample` are the seam of `FlowHead`, so guidance works
alike; it acts on the noise, and the variance stays that of the conditional branch, as in MAR.

Shapes: B rows, Q open slots, D width, C channels of a value, N draws a target, K sampling steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn

from seqgen import noise
from seqgen.adaln import AdaLNMLP
from seqgen.heads.base import Proposal, Request
from seqgen.heads.continuous import refuse_processors
from seqgen.heads.flow import Field


class DiffusionHead(nn.Module):
    """Samples vectors by a learned diffusion.

    The values should be scaled to about unit variance. The noise of a slot comes from its row's
    seed, so a sample does not depend on the batch. Temperature T multiplies the variance of the
    noise that each step adds (MAR's tau is sqrt(T)); the noise that a sample begins with stays as
    it is, as in MAR. There is no cheap density: the confidence is 1 everywhere.

    Args:
        width: hidden width D.
        channels: numbers a value C.
        hidden: width of the MLP.
        depth: its residual blocks.
        steps: steps of a sample K.
        train_steps: T.
        draws: pairs (t, e) a target in training; more cost only the MLP.
        limit: greatest magnitude of a value, in the units of the values; None for none.
    """

    def __init__(
        self,
        width: int,
        channels: int,
        *,
        hidden: int = 256,
        depth: int = 3,
        steps: int = 100,
        train_steps: int = 1000,
        draws: int = 4,
        limit: float | None = 5.0,
    ) -> None:
        super().__init__()
        if not 1 <= steps <= train_steps or train_steps < 2:
            raise ValueError(f"steps must lie in 1..{train_steps} of 2 or more, not {steps}")
        if draws < 1:
            raise ValueError(f"draws must be at least 1, not {draws}")
        if limit is not None and limit <= 0:
            raise ValueError(f"the limit of values must be positive, not {limit}")
        self.channels, self.limit = channels, limit
        self.steps, self.train_steps, self.draws = steps, train_steps, draws
        self.network = AdaLNMLP(
            channels,
            width,
            width=hidden,
            depth=depth,
            out_channels=2 * channels,
            time_scale=1.0,
        )

    def field(self, hidden_BQD: Tensor) -> Field:
        """[noise | v], [B, Q, 2 C], of noisy values at time t, a number of 0 .. T - 1."""
        embedded = self.network.embed_condition(hidden_BQD)

        def predicted(x_BQC: Tensor, t: Tensor) -> Tensor:
            out: Tensor = self.network(x_BQC, t, embedded)
            return out

        return predicted

    def sample(self, field: Field, request: Request) -> Proposal:
        """Values along a field, from the noise of the requested slots."""
        refuse_processors(self, request.sampling)
        canvas, count = request.canvas, self.steps * self.channels
        e = noise.normal(canvas.seeds_B, request.slots_BQ, request.draw, count)
        e_KBQC = e.view(*e.shape[:2], self.steps, self.channels).movedim(2, 0)
        added = math.sqrt(request.sampling.temperature)
        path = spaced(self.train_steps, self.steps)
        values = denoise(field, e_KBQC[0], path, lambda k: added * e_KBQC[k], limit=self.limit)
        return Proposal(values, values.new_ones(values.shape[:2]))

    def propose(self, hidden_BQD: Tensor, request: Request) -> Proposal:
        """A sample for each slot."""
        return self.sample(self.field(hidden_BQD), request)

    def loss(self, hidden_BQD: Tensor, targets: Tensor) -> Tensor:
        """Mean over channels and draws [B, Q]; targets [B, Q, C].

        Times and noise come from torch's global generator, as dropout does.
        """
        shape = (self.draws, *targets.shape)
        time = torch.randint(self.train_steps, shape[:-1], device=targets.device)
        return self.loss_at(hidden_BQD, targets, time, torch.randn(shape, device=targets.device))

    def loss_at(self, hidden_BQD: Tensor, targets: Tensor, time: Tensor, e: Tensor) -> Tensor:
        """The loss for given times int64 [N, B, Q] and noise [N, B, Q, C], [B, Q]."""
        table = _training_table(self.train_steps, targets.device)[time]
        signal, spread, slope, low, high = table[..., None].unbind(dim=-2)
        x = signal * targets.float() + spread * e  # equation 1
        embedded = self.network.embed_condition(hidden_BQD)
        predicted, v = self.network(x, time, embedded).chunk(2, dim=-1)
        error = predicted - e
        # The variance is learned by the bound alone, and the noise by the error alone.
        bound = _bound(slope * error.detach(), _mix(v, low, high), low, first=time[..., None] == 0)
        loss: Tensor = (error.square() + bound).mean(dim=(0, -1))
        return loss


@dataclass(frozen=True)
class Spaced:
    """A step back from one kept time to the one before it, as host numbers.

    Attributes:
        time: t, of 0 .. T - 1.
        signal, spread: sqrt(a_t), sqrt(1 - a_t).
        slope: b_t / sqrt(1 - a_t) / sqrt(1 - b_t), which multiplies the predicted noise.
        shrink: sqrt(1 - b_t).
        low, high: log c_t and log b_t.
    """

    time: int
    signal: float
    spread: float
    slope: float
    shrink: float
    low: float
    high: float


def denoise(
    field: Field,
    x: Tensor,
    path: tuple[Spaced, ...],
    added: Callable[[int], Tensor],
    *,
    limit: float | None = None,
) -> Tensor:
    """Carry x from noise to data.

    Args:
        field: [noise | v] at (x, t).
        path: steps, the last (t = 0) at its end.
        added: the noise to add behind step k - 1, k = 1 .. K - 1; none is added behind the last.
        limit: greatest magnitude of what the noise predicted says of the value.
    """
    for k, step in enumerate(path):
        out = field(x, torch.full((), step.time, dtype=torch.float32, device=x.device))
        predicted, v = out.chunk(2, dim=-1)
        if limit is not None:
            value = ((x - step.spread * predicted) / step.signal).clamp(-limit, limit)
            predicted = (x - step.signal * value) / step.spread
        x = x / step.shrink - step.slope * predicted  # equation 4
        if k + 1 < len(path):
            x = x + (0.5 * _mix(v, step.low, step.high)).exp() * added(k + 1)
    return x


def cosine_schedule(steps: int) -> list[float]:
    """a_t (equation 2), t = 0 .. steps - 1."""
    kept, product = [], 1.0
    for t in range(steps):
        b = min(1 - _f((t + 1) / steps) / _f(t / steps), 0.999)
        product *= 1 - b
        kept.append(product)
    return kept


@lru_cache(maxsize=16)
def spaced(train_steps: int, steps: int) -> tuple[Spaced, ...]:
    """The steps of a sample, from noise to data: every time's share of 0 .. T - 1, both ends."""
    schedule = cosine_schedule(train_steps)
    stride = (train_steps - 1) / max(steps - 1, 1)
    times = [round(index * stride) for index in range(steps)]
    back, before = [], 1.0
    for t in times:
        a, b = schedule[t], 1 - schedule[t] / before
        c = b * (1 - before) / (1 - a)
        back.append((t, a, b, c))
        before = a
    least = back[1][3] if steps > 1 else back[0][2]  # c_0 is 0: after the last step y is known
    return tuple(
        Spaced(
            time=t,
            signal=math.sqrt(a),
            spread=math.sqrt(1 - a),
            slope=b / math.sqrt(1 - a) / math.sqrt(1 - b),
            shrink=math.sqrt(1 - b),
            low=math.log(c or least),
            high=math.log(b),
        )
        for t, a, b, c in reversed(back)
    )


def _bound(difference: Tensor, log_var: Tensor, true_log_var: Tensor, *, first: Tensor) -> Tensor:
    """Bits a number: divergence of the step back from the true one; at t = 0, -log density.

    Args:
        difference: of the two means.
    """
    square = difference.square() * (-log_var).exp()
    ratio = true_log_var - log_var
    divergence = 0.5 * (ratio.exp() + square - 1 - ratio)
    surprise = 0.5 * (math.log(2 * math.pi) + log_var + square)
    return torch.where(first, surprise, divergence) / math.log(2)


def _mix(v: Tensor, low: float | Tensor, high: float | Tensor) -> Tensor:
    """Equation 3."""
    share = (v + 1) / 2
    return share * high + (1 - share) * low


def _f(x: float) -> float:
    return math.cos((x + 0.008) / 1.008 * math.pi / 2) ** 2


@lru_cache(maxsize=16)
def _training_table(steps: int, device: torch.device) -> Tensor:
    """sqrt(a_t), sqrt(1 - a_t), slope, log c_t and log b_t, float32 [T, 5].

    No buffer: `module.bfloat16()` would round it.
    """
    with torch.inference_mode(False):  # what is made in a decode may serve in training
        rows = [
            (step.signal, step.spread, step.slope, step.low, step.high)
            for step in reversed(spaced(steps, steps))
        ]
        return torch.tensor(rows, dtype=torch.float32, device=device)
