"""Orders: which slots belong to which group, and in which sequence the groups open.

An order is data: a table that gives each slot an integer group and its coordinates. Raster order
has groups of one, a one-pass decoder one group for everything, block diffusion groups of K. The
same table drives decoding (`steps`), the mask (`SlotInfo.group`) and training.

Shapes: B rows, S slots, Q slots of a step, A coordinate axes.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate, pairwise
from typing import Protocol

import torch
from torch import Tensor

from seqgen.canvas import Canvas
from seqgen.masks import SlotInfo


@dataclass(frozen=True)
class OrderTable:
    """An order worked out for S slots.

    Attributes:
        group_S: int64, the group of each slot, counted from 0 without gaps.
        coordinates_SA: int64, coordinates for rotary positions.
        sequence_S: the slots sorted by group.
        starts: host list; group g holds `sequence_S[starts[g]:starts[g + 1]]`.
        contiguous: whether `sequence_S` is 0, 1, 2, ...
    """

    group_S: Tensor
    coordinates_SA: Tensor
    sequence_S: Tensor
    starts: tuple[int, ...]
    contiguous: bool

    @property
    def groups(self) -> int:
        return len(self.starts) - 1

    @cached_property
    def rank_S(self) -> Tensor:
        """Place of each slot in `sequence_S`."""
        with torch.inference_mode(False):  # kept with the table, which may serve in training
            return self.sequence_S.argsort()

    @cached_property
    def prompts(self) -> tuple[int, ...]:
        """Slots a prompt must have to fill the first g groups, for g = 0, 1, ..."""
        if self.contiguous:
            return self.starts
        sequence = self.sequence_S.tolist()
        ends = [max(sequence[a:b]) + 1 for a, b in pairwise(self.starts)]
        return (0, *accumulate(ends, max))

    @property
    def widest(self) -> int:
        """Slots of the largest group."""
        return max((b - a for a, b in pairwise(self.starts)), default=0)

    def info(self, slots_BN: Tensor) -> SlotInfo:
        """Metadata of slots, for masks."""
        return SlotInfo(group=self.group_S[slots_BN], position=slots_BN)

    def slots_of(self, first: int, last: int) -> Tensor:
        """Slots of groups first..last-1 in decoding sequence, [1, N]."""
        return self.sequence_S[None, self.starts[first] : self.starts[last]]

    def parts_of(self, run: slice, most: int) -> tuple[tuple[int, int], ...] | None:
        """The groups that a run of slots is made of: (its end within the run, slots behind it).

        None where there are more than `most`, or where the run cuts a group.
        """
        first = bisect.bisect_left(self.starts, run.start)
        ends = self.starts[first + 1 : first + most + 1]
        ends = ends[: bisect.bisect_left(ends, run.stop) + 1]
        if not ends or ends[-1] != run.stop or self.starts[first] != run.start:
            return None
        return tuple((end - run.start, run.stop - end) for end in ends)

    def run_of(self, first: int, last: int) -> slice | None:
        """The same as a slice, where the order is that of the slots."""
        return slice(self.starts[first], self.starts[last]) if self.contiguous else None


@dataclass(slots=True)  # not frozen: one is made in every pass, in a third of the time
class Step:
    """One group to decide, in every row.

    Attributes:
        index: number of the step.
        slots_BQ: its slots, int64 [B, Q]; [1, Q] when all rows work on the same group.
        valid_BQ: bool [B, Q], slots in use; None if all are.
        group: the group, a host number; None where rows work on different groups.
        run: the slots as a slice, where they are consecutive and the same in all rows.
        total: how many steps the decode takes at most.
    """

    index: int
    slots_BQ: Tensor
    valid_BQ: Tensor | None
    group: int | None = None
    total: int = 1
    run: slice | None = None


class Order(Protocol):
    """How a sequence of S slots is divided into groups."""

    def table(self, slots: int, device: torch.device) -> OrderTable:
        """The order of S slots."""
        ...


@dataclass(frozen=True)
class Raster:
    """One slot after the other: autoregressive order."""

    def table(self, slots: int, device: torch.device) -> OrderTable:
        return _line(slots, 1, device)


@dataclass(frozen=True)
class Whole:
    """All slots in one group: one pass, or mask-predict."""

    def table(self, slots: int, device: torch.device) -> OrderTable:
        return _line(slots, max(slots, 1), device)


@dataclass(frozen=True)
class Blocks:
    """Blocks of `length` slots aligned to slot 0 (SDAR, BD3-LM)."""

    length: int

    def __post_init__(self) -> None:
        if self.length < 1:
            raise ValueError(f"block length must be at least 1, not {self.length}")

    def table(self, slots: int, device: torch.device) -> OrderTable:
        return _line(slots, self.length, device)


def table_from_groups(group_S: Tensor, coordinates_SA: Tensor | None = None) -> OrderTable:
    """An order from any assignment of groups (0, 1, ... without gaps) to slots."""
    groups = int(group_S.max()) + 1 if group_S.numel() else 0
    sizes = torch.bincount(group_S, minlength=groups)
    if groups and int(sizes.min()) == 0:
        raise ValueError(f"group {int(sizes.argmin())} has no slot")
    sequence = torch.argsort(group_S, stable=True)
    starts = [0, *torch.cumsum(sizes, 0).tolist()]
    index = torch.arange(group_S.numel(), device=group_S.device)
    return OrderTable(
        group_S=group_S,
        coordinates_SA=index[:, None] if coordinates_SA is None else coordinates_SA,
        sequence_S=sequence,
        starts=tuple(starts),
        contiguous=bool((sequence == index).all()),
    )


def steps(table: OrderTable, canvas: Canvas) -> Iterator[Step]:
    """The groups that hold open slots, in order.

    Rows with prompts of different lengths start at different groups: in step t a row works on its
    own first open group plus t, so no row waits for another's prompt.
    """
    device = canvas.device
    last = _group_at(table, canvas.max_length)
    if canvas.uniform_prompt is not None:
        first = _first_open(table, canvas, canvas.uniform_prompt)
        for index, group in enumerate(range(first, last)):
            slots = table.slots_of(group, group + 1)
            valid = None
            if not canvas.uniform_length:
                valid = slots < canvas.limit_B[:, None]
            yield Step(index, slots, valid, group, last - first, table.run_of(group, group + 1))
        return

    _require_contiguous(table, "prompts of different lengths")
    starts = torch.tensor(table.starts, device=device)
    total = table.group_S.numel()
    first_B = table.group_S[canvas.prompt_B.clamp(max=total - 1)]
    first_B = torch.where(canvas.prompt_B < total, first_B, table.groups)
    offset_Q = torch.arange(table.widest, device=device)
    last_B = table.group_S[(canvas.limit_B - 1).clamp(min=0)] + 1
    total_steps = int((last_B - first_B).max())
    for index in range(total_steps):
        group_B = first_B + index
        begin_B = starts[group_B.clamp(max=table.groups)]
        end_B = starts[(group_B + 1).clamp(max=table.groups)]
        slots = begin_B[:, None] + offset_Q
        valid = (slots < end_B[:, None]) & (slots < canvas.limit_B[:, None])
        # Unused slots wrap around, so that no slot of a row is named twice.
        yield Step(index, slots % total, valid, total=total_steps)


def closed_prompt(table: OrderTable, canvas: Canvas) -> tuple[Tensor, Tensor | None]:
    """Slots of groups that the prompt fills whole: ([B or 1, P], valid or None).

    What is left of the prompt lies as known slots in the first group to be decoded.
    """
    if canvas.uniform_prompt is not None:
        first = _first_open(table, canvas, canvas.uniform_prompt)
        return table.slots_of(0, first), None
    starts = torch.tensor(table.starts, device=canvas.device)
    group_B = table.group_S[canvas.prompt_B.clamp(max=table.group_S.numel() - 1)]
    filled_B = torch.where(canvas.prompt_B >= table.group_S.numel(), starts[-1], starts[group_B])
    width = int(filled_B.max())
    slots = torch.arange(width, device=canvas.device)[None]
    return slots, slots < filled_B[:, None]


def _first_open(table: OrderTable, canvas: Canvas, prompt: int) -> int:
    """The first group with a slot that is not part of the prompt."""
    return bisect.bisect_right(table.prompts, prompt) - 1


def _group_at(table: OrderTable, length: int) -> int:
    """How many groups are needed to reach `length` slots."""
    if length >= table.group_S.numel():
        return table.groups
    if not table.contiguous:
        return table.groups
    return bisect.bisect_left(table.starts, length)


def _require_contiguous(table: OrderTable, what: str) -> None:
    if not table.contiguous:
        raise ValueError(f"{what} needs an order whose groups are contiguous runs of slots")


@lru_cache(maxsize=64)
def _line(slots: int, size: int, device: torch.device) -> OrderTable:
    """Consecutive groups of `size` slots."""
    with torch.inference_mode(False):  # what is kept may serve in training
        index = torch.arange(slots, device=device)
        group_S = index // size
    count = -(-slots // size)
    return OrderTable(
        group_S=group_S,
        coordinates_SA=index[:, None],
        sequence_S=index,
        starts=tuple(min(g * size, slots) for g in range(count + 1)),
        contiguous=True,
    )
