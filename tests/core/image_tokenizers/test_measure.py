"""PSNR, SSIM and code use, against hand-computed cases and the definition written as loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from seqgen.tokenizers.measure import CodeUse, code_use, perplexity, psnr, ssim, use_by_scale


def test_psnr() -> None:
    images = torch.zeros(3, 1, 4, 4)
    images[1] += 0.2  # 10 log10(4 / .04) = 20
    images[2, 0, 0, 0] = 2.0  # 10 log10(4 / (4 / 16)) = 12.04
    found = psnr(images, torch.zeros_like(images))
    assert math.isinf(found[0])
    assert found[1:].tolist() == pytest.approx([20.0, 10 * math.log10(16)])


def ssim_by_loops(x: np.ndarray, y: np.ndarray, side: int) -> float:
    """One channel [H, W] in [-1, 1]: the definition, window by window."""
    at = np.arange(side) - side // 2
    line = np.exp(-(at**2) / (2 * 1.5**2))
    window = np.outer(line, line) / np.outer(line, line).sum()
    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
    found = []
    for i in range(x.shape[0] - side + 1):
        for j in range(x.shape[1] - side + 1):
            a, b = x[i : i + side, j : j + side], y[i : i + side, j : j + side]
            mean_a, mean_b = (window * a).sum(), (window * b).sum()
            var_a = (window * (a - mean_a) ** 2).sum()
            var_b = (window * (b - mean_b) ** 2).sum()
            both = (window * (a - mean_a) * (b - mean_b)).sum()
            top = (2 * mean_a * mean_b + c1) * (2 * both + c2)
            found.append(top / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)))
    return float(np.mean(found))


def noisy(height: int, width: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    images = torch.rand(3, 2, height, width) * 2 - 1
    return images, (images + 0.3 * torch.randn_like(images)).clamp(-1, 1)


@pytest.mark.parametrize(("height", "width", "side"), [(16, 16, 11), (12, 20, 11), (8, 10, 7)])
def test_ssim_by_its_definition(height: int, width: int, side: int) -> None:
    images, other = noisy(height, width)
    found = ssim(images, other)
    for row in range(3):
        expected = np.mean(
            [ssim_by_loops(images[row, c].numpy(), other[row, c].numpy(), side) for c in range(2)]
        )
        assert float(found[row]) == pytest.approx(expected, abs=1e-6)
    assert torch.equal(ssim(images[1:2], other[1:2])[0], found[1])


def test_ssim_by_hand() -> None:
    images, _ = noisy(16, 16)
    torch.testing.assert_close(ssim(images, images), torch.ones(3))
    # Flat images have no variance: (2 a b + c1) / (a a + b b + c1) is left.
    flat = ssim(torch.full((1, 1, 16, 16), 0.5), torch.full((1, 1, 16, 16), 0.1))
    assert float(flat) == pytest.approx((0.1 + 0.0004) / (0.26 + 0.0004))


def test_ssim_of_scikit_image() -> None:
    metrics = pytest.importorskip("skimage.metrics")
    images, other = noisy(16, 20)
    theirs = metrics.structural_similarity(
        images[0].numpy(),
        other[0].numpy(),
        data_range=2.0,
        gaussian_weights=True,
        use_sample_covariance=False,
        channel_axis=0,
    )
    assert float(ssim(images, other)[0]) == pytest.approx(theirs, abs=1e-5)


def test_code_use_and_perplexity() -> None:
    ids = torch.tensor([[0, 1, 1], [2, 2, 2]])
    assert code_use(ids, 8) == pytest.approx(3 / 8)
    entropy = math.log(6) / 6 + math.log(3) / 3 + math.log(2) / 2
    assert perplexity(ids, 8) == pytest.approx(math.exp(entropy))
    assert perplexity(torch.arange(8), 8) == pytest.approx(8)
    assert perplexity(torch.zeros(5, dtype=torch.int64), 8) == pytest.approx(1)
    coarse, fine = use_by_scale(ids, ((0, 1), (1, 3)), 8)
    assert coarse == CodeUse(tokens=2, codes=2, use=0.25, perplexity=pytest.approx(2))
    assert fine == CodeUse(tokens=4, codes=2, use=0.25, perplexity=pytest.approx(2))
