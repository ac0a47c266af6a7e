"""Which tokens of an image are known where only some of its pixels are.

Shapes: B rows, N slots of one grid, S slots, H and W of an image.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def whole_cells(known_BHW: Tensor, rows: int, columns: int) -> Tensor:
    """Cells of a grid all of whose pixels are known, bool [B, rows * columns].

    Where cells do not divide the image, one that begins or ends within a pixel needs that pixel.
    """
    unknown_B1HW = (~known_BHW)[:, None].float()
    return F.adaptive_max_pool2d(unknown_B1HW, (rows, columns)).flatten(1) == 0


def over_scales(known_BHW: Tensor, sides: tuple[int, ...]) -> Tensor:
    """Known tokens of a coarse-to-fine model, bool [B, S].

    The finest tokens are known where all of their pixels are. A coarser one is known where more
    than half of its area is, and the single token of a whole image wherever anything is, as in the
    published zero-shot editing with VAR (Tian et al. 2024, arXiv 2404.02905): they
    carry the colours that the two parts share, and drawn anew they would leave a seam.

    Args:
        sides: of the scales' square grids, the finest last.
    """
    finest = whole_cells(known_BHW, sides[-1], sides[-1])
    parts = []
    for side in sides:
        if side == sides[-1]:
            parts.append(finest)
        elif side == 1:
            parts.append(finest.any(dim=1, keepdim=True))
        else:
            share = F.adaptive_avg_pool2d(known_BHW[:, None].float(), side).flatten(1)
            parts.append(share > 0.5)
    return torch.cat(parts, dim=1)
