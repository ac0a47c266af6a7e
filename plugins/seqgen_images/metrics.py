"""How good generated images are: attributes, distance of distributions, copies.

The distance is Frechet's, between Gaussians fitted to the features of a small classifier. It is not
FID: another network, other images, another scale. It depends on the number of images, so it is
given beside its floor: the same distance for as many real images that were not trained on.

Shapes: N images, F features, A attributes, S tokens.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from seqgen_images.data import chunks


def frechet_distance(first_NF: Tensor, second_NF: Tensor) -> float:
    """|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) of two sets of features.

    Dowson and Landau 1982; Heusel et al. 2017, arXiv 1706.08500, eq. 6.
    """
    first, second = first_NF.double(), second_NF.double()
    apart = (first.mean(0) - second.mean(0)).square().sum()
    one, two = _covariance(first), _covariance(second)
    root = _root(one)
    # tr (C1 C2)^(1/2) = tr (C1^(1/2) C2 C1^(1/2))^(1/2), of a symmetric matrix.
    cross = torch.linalg.eigvalsh(root @ two @ root).clamp(min=0).sqrt().sum()
    return float(apart + one.trace() + two.trace() - 2 * cross)


def precision_recall(
    made_NF: Tensor, real_NF: Tensor, *, neighbours: int = 3
) -> tuple[float, float]:
    """Improved precision and recall (Kynkaanniemi et al. 2019, arXiv 1904.06991, eq. 2).

    The part of the made images that lie within a real image's reach (the distance to its third
    neighbour among its like), and the other way round.
    """
    return _covered(made_NF, real_NF, neighbours), _covered(real_NF, made_NF, neighbours)


def attribute_accuracy(judged_NA: Tensor, asked_NA: Tensor, names: list[str]) -> dict[str, float]:
    """The part of the images that show what was asked for, by attribute and on average.

    Args:
        asked_NA: -1 where nothing was asked for.
    """
    figures: dict[str, float] = {}
    for place, name in enumerate(names):
        asked = asked_NA[:, place] >= 0
        if bool(asked.any()):
            right = judged_NA[asked, place] == asked_NA[asked, place]
            figures[f"accuracy_{name}"] = float(right.double().mean())
    if figures:
        figures = {"accuracy": sum(figures.values()) / len(figures), **figures}
    return figures


def nearest_tokens(ids_NS: Tensor, known_MS: Tensor) -> Tensor:
    """Tokens in which each image differs from the nearest of the known ones, int64 [N]."""
    nearest = [
        (ids_NS[rows, None, :] != known_MS[None]).sum(-1).amin(1)
        for rows in chunks(len(ids_NS), 16)
    ]
    return torch.cat(nearest)


def summary(figures: Mapping[str, float]) -> str:
    """Figures in one line."""
    return ", ".join(f"{name} {value:.3f}" for name, value in figures.items())


def _covariance(x_NF: Tensor) -> Tensor:
    centred = x_NF - x_NF.mean(0)
    return centred.T @ centred / max(len(x_NF) - 1, 1)


def _root(matrix_FF: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix_FF)
    root: Tensor = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    return root


def _covered(points_NF: Tensor, reference_MF: Tensor, neighbours: int) -> float:
    inside = torch.cdist(reference_MF.double(), reference_MF.double())
    k = min(neighbours, len(reference_MF) - 1) + 1  # the nearest is the image itself
    reach_M = inside.kthvalue(k, dim=1).values
    apart = torch.cdist(points_NF.double(), reference_MF.double())
    return float((apart <= reach_M).any(dim=1).double().mean())
