"""How good a tokenizer is: PSNR, SSIM, and how its codes are used.

Shapes: B rows, C channels, H and W; images are floats in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from seqgen.tokenizers.kmeans import code_counts

RANGE = 2.0
"""Of a pixel, from -1 to 1."""

SSIM_WINDOW, SSIM_SIGMA = 11, 1.5


@torch.no_grad()
def psnr(images_BCHW: Tensor, reference_BCHW: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each image in dB, [B]; infinite where they are equal."""
    error_B = (images_BCHW - reference_BCHW).square().flatten(1).mean(1)
    return 10 * torch.log10(RANGE**2 / error_B)


@torch.no_grad()
def ssim(images_BCHW: Tensor, reference_BCHW: Tensor) -> Tensor:
    """Structural similarity of each image, [B], the mean over channels and places.

    As defined by Wang et al., "Image Quality Assessment" (2004): a Gaussian window of 11x11 with
    sigma 1.5, population variances, K1 = .01, K2 = .03, and only places where the window lies
    within the image. An image with a side below 11 gets a window of the largest odd side that fits
    (figures of other windows must not be compared).
    """
    side = min(SSIM_WINDOW, *images_BCHW.shape[-2:])
    side -= 1 - side % 2
    at = torch.arange(side, device=images_BCHW.device, dtype=torch.float64) - side // 2
    window = torch.exp(-at.square() / (2 * SSIM_SIGMA**2))
    window = window / window.sum()

    def blur(x_BCHW: Tensor) -> Tensor:
        x = F.conv2d(x_BCHW.flatten(0, 1)[:, None], window.view(1, 1, -1, 1))
        x = F.conv2d(x, window.view(1, 1, 1, -1))
        return x.view(*x_BCHW.shape[:2], *x.shape[-2:])

    x, y = images_BCHW.double(), reference_BCHW.double()
    mean_x, mean_y = blur(x), blur(y)
    var_x, var_y = blur(x * x) - mean_x.square(), blur(y * y) - mean_y.square()
    covariance = blur(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * RANGE) ** 2, (0.03 * RANGE) ** 2
    top = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    bottom = (mean_x.square() + mean_y.square() + c1) * (var_x + var_y + c2)
    return (top / bottom).flatten(1).mean(1).to(images_BCHW.dtype)


def code_use(ids: Tensor, vocabulary: int) -> float:
    """The part of the vocabulary that occurs in ids of any shape."""
    return float((code_counts(ids, vocabulary) > 0).double().mean())


def perplexity(ids: Tensor, vocabulary: int) -> float:
    """exp of the entropy of the codes: as many codes, evenly used, would carry the same."""
    share_V = code_counts(ids, vocabulary).double() / max(1, ids.numel())
    return float(torch.special.entr(share_V).sum().exp())


@dataclass(frozen=True)
class CodeUse:
    """How the codes are used by one scale of a tokenizer.

    Attributes:
        tokens: tokens of this scale in all the images; no more codes than that can occur.
        codes: different codes that occur.
        use: the same as a part of the vocabulary.
        perplexity: of the codes.
    """

    tokens: int
    codes: int
    use: float
    perplexity: float


def use_by_scale(
    ids_BS: Tensor, bounds: Iterable[tuple[int, int]], vocabulary: int
) -> list[CodeUse]:
    """Code use of every scale: where coarse codes have collapsed, it shows here.

    Args:
        bounds: first slot and end of each scale (`MultiScaleRVQ.bounds`).
    """
    found = []
    for start, stop in bounds:
        ids_BN = ids_BS[:, start:stop]
        codes = int((code_counts(ids_BN, vocabulary) > 0).sum())
        found.append(
            CodeUse(ids_BN.numel(), codes, codes / vocabulary, perplexity(ids_BN, vocabulary))
        )
    return found
