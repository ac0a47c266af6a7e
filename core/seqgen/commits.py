"""Commit rules: which proposals of a pass stand.

A rule marks a subset of the open slots; committed values never change. The number of open slots
always bounds what a rule marks, in every row (a quota larger than what is left must not reach into
decided slots).

Shapes: B rows, Q slots of the group.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from seqgen import noise
from seqgen.heads.base import Proposal, Request

Ties = Literal["earliest", "topk"]
"""Which of equally confident slots go first.

`earliest`: the slots in their sequence. `topk`: whatever `torch.topk` returns, as in SDAR's
generate.py and JetEngine. That order is unspecified: it depends on the device and on the width of
the group, so that a row whose last block is not full may come out differently in a batch. It
matters where ties are common: `top_k=1` makes every confidence 1 there.
"""


class CommitRule(Protocol):
    """(proposal, open slots, size of the group, request) -> slots to keep."""

    def __call__(
        self, proposal: Proposal, open_BQ: Tensor, size_B: Tensor, request: Request
    ) -> Tensor:
        """Slots to commit, bool [B, Q], a subset of `open_BQ`.

        Args:
            open_BQ: slots still to be decided.
            size_B: slots of the group in use, decided or not.
            request: what was asked of the head; its `draw` is the number of the pass within the
                group, from 0.
        """
        ...

    def passes(self, size: int, opened: int) -> tuple[int, int]:
        """(fewest, most) passes that close a group of `size` slots of which `opened` are open.

        Host numbers: where they agree the loop need not ask the device whether a group is closed.
        """
        ...


@dataclass(frozen=True)
class All:
    """Everything at once."""

    def __call__(
        self, proposal: Proposal, open_BQ: Tensor, size_B: Tensor, request: Request
    ) -> Tensor:
        return open_BQ

    def passes(self, size: int, opened: int) -> tuple[int, int]:
        return 1, 1


@dataclass(frozen=True)
class Sequential:
    """The first open slots, spread evenly over `steps` passes."""

    steps: int

    def __call__(
        self, proposal: Proposal, open_BQ: Tensor, size_B: Tensor, request: Request
    ) -> Tensor:
        count = _due(size_B, self.steps, request)
        rank = open_BQ.cumsum(dim=1) - 1
        return open_BQ & (rank < (count if isinstance(count, int) else count[:, None]))

    def passes(self, size: int, opened: int) -> tuple[int, int]:
        return _quota_passes(size, opened, self.steps)


@dataclass(frozen=True)
class ConfidenceQuota:
    """The most confident open slots, spread evenly over `steps` passes (SDAR's static remasking).

    Over a single group this is mask-predict (Ghazvininejad et al. 2019) without re-masking.
    """

    steps: int
    ties: Ties = "earliest"

    def __call__(
        self, proposal: Proposal, open_BQ: Tensor, size_B: Tensor, request: Request
    ) -> Tensor:
        count = _due(size_B, self.steps, request)
        return _best(proposal.confidence_BQ, open_BQ, count, self.ties)

    def passes(self, size: int, opened: int) -> tuple[int, int]:
        return _quota_passes(size, opened, self.steps)


@dataclass(frozen=True)
class ScheduledConfidence:
    """The most confident open slots, few in the first passes and many in the last (MaskGIT).

    After pass r = 1..R of a group of n open slots, floor(n f(r / R)) are still open, with f(x) =
    cos(pi x / 2) or 1 - x (Chang et al. 2022, arXiv 2202.04200, section 3.2), but at least one slot
    a pass is decided. Slots are ranked by log confidence + annealing * (1 - r / R) * g with Gumbel
    noise g, which keeps early passes from filling the most common values everywhere.

    Attributes:
        steps: passes R.
        schedule: f.
        annealing: temperature of the noise.
        rank: `confidence`, or `random` for a random order (MAR, Li et al. 2024, arXiv 2406.11838).
        ties: which of equally confident slots go first.
    """

    steps: int
    schedule: Literal["cosine", "linear"] = "cosine"
    annealing: float = 0.0
    rank: Literal["confidence", "random"] = "confidence"
    ties: Ties = "earliest"

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, not {self.steps}")
        if self.schedule not in ("cosine", "linear"):
            raise ValueError(f"unknown schedule {self.schedule!r}: cosine, linear")
        if self.annealing < 0:
            raise ValueError(f"annealing must be 0 or more, not {self.annealing}")

    def __call__(
        self, proposal: Proposal | None, open_BQ: Tensor, size_B: Tensor, request: Request
    ) -> Tensor:
        """As of any rule; with `rank="random"` the proposal is not looked at and may be None."""
        left = self._left(request.draw)
        # float64: a rounding below a whole number would leave one slot less open than on the host.
        target_B = (size_B.double() * left + 1e-9).floor().long()
        count_B = (open_BQ.sum(dim=1) - target_B).clamp(min=1)
        return _best(self._score(proposal, request), open_BQ, count_B, self.ties)

    def passes(self, size: int, opened: int) -> tuple[int, int]:
        count = 0
        while opened > 0:
            opened -= max(opened - math.floor(size * self._left(count) + 1e-9), 1)
            count += 1
        return count, count

    def _left(self, refinement: int) -> float:
        """The part of the slots that is still open after a pass."""
        done = min((refinement + 1) / self.steps, 1.0)
        if done == 1.0:
            return 0.0
        return math.cos(math.pi / 2 * done) if self.schedule == "cosine" else 1 - done

    def _score(self, proposal: Proposal | None, request: Request) -> Tensor:
        seeds, slots = request.canvas.seeds_B, request.slots_BQ
        if self.rank == "random":
            return noise.uniform(seeds, slots, _RANK_DRAW)
        assert proposal is not None
        if self.annealing == 0:
            return proposal.confidence_BQ
        u_BQ = noise.uniform(seeds, slots, _RANK_DRAW + request.draw)
        amount = self.annealing * (1 - min((request.draw + 1) / self.steps, 1.0))
        return proposal.confidence_BQ.clamp(min=1e-20).log() - amount * (-u_BQ.log()).log()


_RANK_DRAW = 1 << 20
"""Draws of the noise that ranks slots, far from those that choose values."""


@dataclass(frozen=True)
class Threshold:
    """All open slots with confidence above `threshold`, at least the quota (SDAR's dynamic)."""

    steps: int
    threshold: float
    ties: Ties = "earliest"

    def __call__(
        self, proposal: Proposal, open_BQ: Tensor, size_B: Tensor, request: Request
    ) -> Tensor:
        sure_BQ = open_BQ & (proposal.confidence_BQ > self.threshold)
        count = _due(size_B, self.steps, request)
        enough_B = sure_BQ.sum(dim=1) >= count
        # On a CPU asking costs less than ranking.
        if enough_B.device.type == "cpu" and bool(enough_B.all()):
            return sure_BQ
        best_BQ = _best(proposal.confidence_BQ, open_BQ, count, self.ties)
        return torch.where(enough_B[:, None], sure_BQ, best_BQ)

    def passes(self, size: int, opened: int) -> tuple[int, int]:
        return 1, _quota_passes(size, opened, self.steps)[1]


@dataclass(frozen=True)
class EntropyBound:
    """Slots in order of rising entropy while the summed entropy stays within `bound`, at least one.

    `strict` counts a slot's own entropy (SDAR: searchsorted of the cumulative sum); otherwise the
    sum before it (DiffusionGemma), which accepts one slot more.
    """

    bound: float
    strict: bool = True

    def __call__(
        self, proposal: Proposal, open_BQ: Tensor, size_B: Tensor, request: Request
    ) -> Tensor:
        if proposal.logits_BQV is None:
            raise ValueError("EntropyBound needs a head with logits")
        log_p = proposal.logits_BQV.log_softmax(dim=-1)
        entropy_BQ = -(log_p.exp() * log_p.clamp(min=-1e4)).sum(dim=-1)
        rank_BQ = _rank(torch.where(open_BQ, -entropy_BQ, -torch.inf))
        ordered = torch.where(open_BQ, entropy_BQ, torch.inf).sort(dim=1, stable=True).values
        total = ordered.cumsum(dim=1)
        # searchsorted(total, bound) on the left: entries strictly below the bound are accepted.
        within = total < self.bound if self.strict else total - ordered <= self.bound
        count_B = within.sum(dim=1).clamp(min=1)
        return open_BQ & (rank_BQ < count_B[:, None])

    def passes(self, size: int, opened: int) -> tuple[int, int]:
        return 1, opened


def quota(size_B: Tensor, steps: int, refinement: int) -> Tensor:
    """Slots due in a pass: size // steps, and one more in the first size % steps passes."""
    return size_B // steps + (refinement < size_B % steps).long()


def _due(size_B: Tensor, steps: int, request: Request) -> Tensor | int:
    """The quota of a pass: a host number where that is known."""
    if request.size is None:
        return quota(size_B, steps, request.draw)
    share, more = divmod(request.size, steps)
    return share + (request.draw < more)


def _quota_passes(size: int, opened: int, steps: int) -> tuple[int, int]:
    """Passes until the quotas of a group reach the number of its open slots."""
    share, more = divmod(size, steps)
    total = count = 0
    while total < opened:
        total += share + (count < more)
        count += 1
    return count, count


def _best(score_BQ: Tensor, open_BQ: Tensor, count: Tensor | int, ties: Ties) -> Tensor:
    """The `count` ([B], or the same in all rows) open slots of highest score, or all there are."""
    masked = torch.where(open_BQ, score_BQ, -torch.inf)
    width = masked.shape[1]
    if isinstance(count, int):
        if ties == "topk":
            best = masked.topk(min(count, width), dim=1).indices
            return open_BQ & torch.zeros_like(open_BQ).scatter_(1, best, True)
        if count == 1:  # of equal ones argmax takes the first
            best = masked.argmax(dim=1, keepdim=True)
            return open_BQ & torch.zeros_like(open_BQ).scatter_(1, best, True)
        return open_BQ & (_rank(masked) < count)
    if ties == "earliest":
        return open_BQ & (_rank(masked) < count[:, None])
    # topk is not a prefix of a larger topk where scores tie, so k is what the fullest row needs.
    most = min(int(count.max()), width)
    best = masked.topk(most, dim=1).indices
    wanted = torch.arange(most, device=best.device) < count[:, None]
    return open_BQ & torch.zeros_like(open_BQ).scatter(1, best, wanted)


def _rank(masked_BQ: Tensor) -> Tensor:
    """Rank of each slot by falling score; of equal ones the earlier slot goes first."""
    order = masked_BQ.argsort(dim=1, descending=True, stable=True)
    ranks = torch.arange(order.shape[1], device=order.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, ranks)
