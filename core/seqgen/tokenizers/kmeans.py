"""k-means: the codebook that a training-free tokenizer uses and a learned one starts from.

Lloyd's algorithm from k-means++ centres (Arthur and Vassilvitskii, 2007). All draws come from one
seed on the CPU, and no step waits for the device.

Shapes: N points, C channels, V codes.
"""

from __future__ import annotations

import torch
from torch import Tensor

MOST_DISTANCES = 1 << 24
"""Distances held at a time: 64 MB."""


@torch.no_grad()
def kmeans(
    points_NC: Tensor,
    codes: int,
    *,
    iterations: int = 10,
    seed: int = 0,
    most_points: int = 1 << 17,
    most_seeding: int = 1 << 15,
) -> Tensor:
    """Centres [V, C]. Where there are fewer different points than codes, centres repeat.

    Args:
        most_points: a random sample of so many points is used, if there are more.
        most_seeding: so many of them are looked at for the first centres.
    """
    generator = torch.Generator().manual_seed(seed)
    points_NC = _sample(points_NC.detach().float(), most_points, generator)
    centres_VC = _plus_plus(_sample(points_NC, most_seeding, generator), codes, generator)
    for _ in range(iterations):
        ids_N = nearest(points_NC, centres_VC)
        counts_V, sums_VC = totals_by_code(points_NC, ids_N, codes)
        means_VC = sums_VC / counts_V.clamp(min=1)[:, None]
        # An empty cluster moves to a point that is badly served: its chance is its squared error.
        errors_N = (points_NC - centres_VC[ids_N]).square().sum(1)
        draws_V = torch.rand(codes, generator=generator, dtype=torch.float64)
        far_VC = points_NC[_draw(errors_N, draws_V)]
        centres_VC = torch.where((counts_V > 0)[:, None], means_VC, far_VC)
    return centres_VC


def nearest(points_NC: Tensor, codebook_VC: Tensor) -> Tensor:
    """Ids [N] of the nearest codes (squared L2; the first one, if several are equally near)."""
    # Half precision would choose other codes in training than at use.
    with torch.no_grad(), torch.autocast(points_NC.device.type, enabled=False):
        points_NC, codebook_VC = points_NC.float(), codebook_VC.float()
        squares_V = codebook_VC.square().sum(1)
        rows = max(1, MOST_DISTANCES // len(codebook_VC))
        found = [
            torch.addmm(squares_V, part_NC, codebook_VC.T, alpha=-2).argmin(1)
            for part_NC in torch.split(points_NC, rows)
        ]
        return found[0] if len(found) == 1 else torch.cat(found)


def totals_by_code(points_NC: Tensor, ids_N: Tensor, codes: int) -> tuple[Tensor, Tensor]:
    """How many points each code has, float [V], and the sum of them, [V, C]."""
    sums_VC = points_NC.new_zeros(codes, points_NC.shape[1])
    if points_NC.is_cuda:  # there index_add_ adds in whatever order threads arrive
        sums_VC.index_put_((ids_N,), points_NC, accumulate=True)
    else:
        sums_VC.index_add_(0, ids_N, points_NC)
    return code_counts(ids_N, codes).to(points_NC.dtype), sums_VC


def code_counts(ids: Tensor, codes: int) -> Tensor:
    """How often each id occurs, int64 [V], in ids of any shape."""
    counts_V = torch.zeros(codes, dtype=torch.int64, device=ids.device)
    return counts_V.scatter_add_(0, ids.flatten(), torch.ones_like(ids.flatten()))


def _plus_plus(points_NC: Tensor, codes: int, generator: torch.Generator) -> Tensor:
    """First centres: each is a point, drawn in proportion to the squared distance to the others."""
    draws_V = torch.rand(codes, generator=generator, dtype=torch.float64)
    first = _draw(points_NC.new_ones(len(points_NC)), draws_V[:1])
    chosen = [first]
    errors_N = (points_NC - points_NC[first]).square().sum(1)
    for code in range(1, codes):
        index = _draw(errors_N, draws_V[code : code + 1])
        chosen.append(index)
        errors_N = torch.minimum(errors_N, (points_NC - points_NC[index]).square().sum(1))
    return points_NC[torch.cat(chosen)]


def _draw(weights_N: Tensor, draws_K: Tensor) -> Tensor:
    """Indices [K], each with a chance proportional to its weight (any, if all weights are 0)."""
    cumulative_N = weights_N.double().cumsum(0)
    wanted_K = draws_K.to(weights_N.device) * cumulative_N[-1]
    return torch.searchsorted(cumulative_N, wanted_K, right=True).clamp(max=len(weights_N) - 1)


def _sample(points_NC: Tensor, most: int, generator: torch.Generator) -> Tensor:
    if len(points_NC) <= most:
        return points_NC
    chosen = torch.randperm(len(points_NC), generator=generator)[:most]
    return points_NC[chosen.to(points_NC.device)]
