"""Orders of slots that lie on a grid: the ways in which images are generated.

Each gives every slot a group and its (row, column), for rotary positions on two axes. Slots are
numbered in raster order (`Scales`: scale by scale, raster within each), whatever the order.

    OnGrid(Raster(), 8, 8)        one by one, row by row                       64 groups
    OnGrid(Blocks(8), 8, 8)       row by row                                    8
    OnGrid(Whole(), 8, 8)         everything, refined by a commit rule          1
    Diagonals(8, 8)               anti-diagonals (NAR, neighbouring)           15
    Scales((1, 2, 4, 8))          coarse to fine (VAR)                          4
    Cells(8, 8, 4, 4)             square blocks (xAR)                           4
    Shuffled(8, 8, passes=12)     at random, few slots at first (MAR, MaskGIT)  12

Shapes: S slots.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from seqgen.orders import Order, OrderTable, table_from_groups

NOWHERE = -1
"""Coordinate of a slot that lies on no grid (a class before the image)."""


@dataclass(frozen=True)
class OnGrid:
    """An order by slot index, with the coordinates of a grid in raster order.

    Attributes:
        order: `Raster`, `Blocks`, `Whole` or another.
        height, width: rows and columns; slots beyond the grid are not allowed.
        shift: slots have the coordinates of the slot this far before them, the first `shift` ones
            none: for models that rotate by the position of the value fed (LlamaGen), not by that
            of the value predicted.
    """

    order: Order
    height: int
    width: int
    shift: int = 0

    def table(self, slots: int, device: torch.device) -> OrderTable:
        return _on_grid(self, slots, device)


@dataclass(frozen=True)
class Diagonals:
    """Anti-diagonals, from the top left corner (NAR, neighbouring autoregression).

    Attributes:
        height, width: rows and columns.
        prefix: slots before the image that come first and lie nowhere (a class).
    """

    height: int
    width: int
    prefix: int = 0

    def table(self, slots: int, device: torch.device) -> OrderTable:
        return _diagonals(self, slots, device)


@dataclass(frozen=True)
class Scales:
    """Coarse to fine (VAR, Tian et al. 2024, arXiv 2404.02905): a group a scale.

    Coordinates are centres of the tokens' areas in units of the finest token, doubled: whole
    numbers for all scales that divide the finest one.

    Attributes:
        sizes: rows (and columns) of each scale.
    """

    sizes: tuple[int, ...]

    def table(self, slots: int, device: torch.device) -> OrderTable:
        return _scales(self, slots, device)


@dataclass(frozen=True)
class Cells:
    """Square blocks in raster order, all slots of a block at once (xAR's cells).

    Attributes:
        height, width: rows and columns.
        cell_height, cell_width: of a cell; they divide the grid.
    """

    height: int
    width: int
    cell_height: int
    cell_width: int

    def __post_init__(self) -> None:
        if self.height % self.cell_height or self.width % self.cell_width:
            raise ValueError(
                f"cells of {self.cell_height} x {self.cell_width} do not divide a grid of "
                f"{self.height} x {self.width}"
            )

    def table(self, slots: int, device: torch.device) -> OrderTable:
        return _cells(self, slots, device)


@dataclass(frozen=True)
class Shuffled:
    """A random order, the same in all rows: few slots in the first groups, many in the last.

    After group r of R, floor(S cos(pi r / 2 R)) slots are left (MaskGIT's schedule; MAR), at least
    one a group. Where every row should have an order of its own, decode the one group of `Whole`
    with `ScheduledConfidence(rank="random")`.

    Attributes:
        height, width: rows and columns.
        passes: groups R, at most S.
        seed: of the order.
    """

    height: int
    width: int
    passes: int
    seed: int = 0

    def table(self, slots: int, device: torch.device) -> OrderTable:
        return _shuffled(self, slots, device)


def raster_coordinates(height: int, width: int, device: torch.device) -> Tensor:
    """(row, column) of every slot, int64 [S, 2]."""
    index = torch.arange(height * width, device=device)
    return torch.stack([index // width, index % width], dim=1)


@lru_cache(maxsize=64)
def _on_grid(order: OnGrid, slots: int, device: torch.device) -> OrderTable:
    _require(slots <= order.height * order.width, slots, order)
    with torch.inference_mode(False):  # what is kept may serve in training
        coordinates = raster_coordinates(order.height, order.width, device)[:slots]
        if order.shift:
            nowhere = torch.full_like(coordinates[: order.shift], NOWHERE)
            coordinates = torch.cat([nowhere, coordinates[: slots - order.shift]])
        return replace(order.order.table(slots, device), coordinates_SA=coordinates)


@lru_cache(maxsize=64)
def _diagonals(order: Diagonals, slots: int, device: torch.device) -> OrderTable:
    _require(slots == order.prefix + order.height * order.width, slots, order)
    with torch.inference_mode(False):
        grid = raster_coordinates(order.height, order.width, device)
        first = torch.zeros(order.prefix, dtype=torch.int64, device=device)
        group = torch.cat([first, grid.sum(dim=1) + bool(order.prefix)])
        nowhere = torch.full((order.prefix, 2), NOWHERE, device=device)
        return table_from_groups(group, torch.cat([nowhere, grid]))


@lru_cache(maxsize=64)
def _scales(order: Scales, slots: int, device: torch.device) -> OrderTable:
    _require(slots == sum(size * size for size in order.sizes), slots, order)
    with torch.inference_mode(False):
        group, coordinates, finest = [], [], max(order.sizes)
        for index, size in enumerate(order.sizes):
            group.append(torch.full((size * size,), index, device=device))
            centre = (2 * raster_coordinates(size, size, device) + 1) * finest // size - 1
            coordinates.append(centre)
        return table_from_groups(torch.cat(group), torch.cat(coordinates))


@lru_cache(maxsize=64)
def _cells(order: Cells, slots: int, device: torch.device) -> OrderTable:
    _require(slots == order.height * order.width, slots, order)
    with torch.inference_mode(False):
        grid = raster_coordinates(order.height, order.width, device)
        row, column = (grid // grid.new_tensor([order.cell_height, order.cell_width])).unbind(1)
        return table_from_groups(row * (order.width // order.cell_width) + column, grid)


@lru_cache(maxsize=64)
def _shuffled(order: Shuffled, slots: int, device: torch.device) -> OrderTable:
    _require(slots == order.height * order.width, slots, order)
    if not 1 <= order.passes <= slots:
        raise ValueError(f"passes must lie in 1..{slots}, not {order.passes}")
    with torch.inference_mode(False):
        sequence = torch.randperm(slots, generator=torch.Generator().manual_seed(order.seed))
        group = torch.empty(slots, dtype=torch.int64)
        decided = 0
        for index in range(order.passes):
            later = order.passes - index - 1
            left = math.floor(slots * math.cos(math.pi / 2 * (index + 1) / order.passes))
            end = min(max(slots - left, decided + 1), slots - later)
            group[sequence[decided : end if later else slots]] = index
            decided = end
        return table_from_groups(
            group.to(device), raster_coordinates(order.height, order.width, device)
        )


def _require(fits: bool, slots: int, order: Order) -> None:
    if not fits:
        raise ValueError(f"{slots} slots do not fit {order}")
