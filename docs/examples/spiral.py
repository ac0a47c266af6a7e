"""A new order: the slots of a grid along a spiral, from the outside in (or from the inside out).

Ordered(order=Spiral(8, 8), sampling=Sampling(temperature=1.0)).generate(model, canvas)
noisy_clean(model, ids_BS, order=Spiral(8, 8), generator=generator)
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch

from seqgen.grid_orders import raster_coordinates
from seqgen.orders import OrderTable, table_from_groups


@dataclass(frozen=True)
class Spiral:
    """Slot after slot along a spiral that begins in the top left corner and turns right.

    Attributes:
        height, width: rows and columns of the grid.
        outwards: begin at the end of the spiral, in the middle.
    """

    height: int
    width: int
    outwards: bool = False

    def table(self, slots: int, device: torch.device) -> OrderTable:
        """The order of `height * width` slots, numbered in raster order."""
        if slots != self.height * self.width:
            raise ValueError(f"{slots} slots do not fit {self}")
        return _table(self, device)


@lru_cache(maxsize=16)
def _table(order: Spiral, device: torch.device) -> OrderTable:
    path = torch.tensor(_path(order.height, order.width))
    if order.outwards:
        path = path.flip(0)
    group = torch.empty_like(path)
    group[path] = torch.arange(len(path))  # the n-th slot of the path is the n-th group
    return table_from_groups(
        group.to(device), raster_coordinates(order.height, order.width, device)
    )


def _path(height: int, width: int) -> list[int]:
    """Slots along the spiral: the first row of what is left, which is then turned to the left."""
    left = torch.arange(height * width).view(height, width)
    path: list[int] = []
    while left.numel():
        path += left[0].tolist()
        left = left[1:].rot90()
    return path
