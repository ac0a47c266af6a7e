"""k-means, and the training-free tokenizer on raw patches."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from tests.core.image_tokenizers.avatars import avatars
from torch import Tensor

from seqgen.errors import ConfigError, InputError
from seqgen.tokenizers import PatchKMeans
from seqgen.tokenizers import kmeans as kmeans_module
from seqgen.tokenizers.kmeans import kmeans, nearest, totals_by_code
from seqgen.tokenizers.measure import code_use, psnr
from seqgen.tokenizers.patches import patchify, unpatchify


def tiles(colours: int, images: int = 8) -> Tensor:
    """16x16 images of flat 2x2 patches in a few random colours."""
    palette = torch.rand(colours, 3) * 2 - 1
    ids = torch.randint(colours, (images, 64))
    return unpatchify(palette[ids].repeat_interleave(4, dim=2), 2, (8, 8))


# --- k-means ---


def test_well_separated_clusters_are_found() -> None:
    torch.manual_seed(0)
    centres = torch.randn(20, 5) * 10
    points = (centres[:, None] + 0.01 * torch.randn(20, 30, 5)).flatten(0, 1)
    found = kmeans(points[torch.randperm(600)], 20, seed=3)
    assert torch.cdist(centres, found).amin(1).max() < 0.01


def test_more_iterations_do_not_harm_and_the_seed_decides() -> None:
    torch.manual_seed(0)
    points = torch.randn(2000, 4)

    def error(iterations: int, seed: int = 0) -> float:
        centres = kmeans(points, 30, iterations=iterations, seed=seed)
        return float((points - centres[nearest(points, centres)]).square().sum())

    errors = [error(iterations) for iterations in (0, 1, 5, 20)]
    assert all(later < earlier for earlier, later in itertools.pairwise(errors))
    assert error(5) == errors[2]
    assert error(5, seed=1) != errors[2]


def test_empty_clusters_move_to_where_they_are_needed() -> None:
    # Half of the points in one place: centres drawn blindly would nearly all land there.
    points = torch.cat([torch.zeros(1000, 2), torch.arange(50.0)[:, None].expand(-1, 2) + 5])
    centres = kmeans(points, 51, iterations=30)
    assert torch.cdist(points, centres).amin(1).max() < 1e-6


def test_fewer_points_than_codes() -> None:
    points = torch.tensor([[0.0, 0.0], [1.0, 2.0], [3.0, 1.0]])
    centres = kmeans(points, 8)
    assert centres.shape == (8, 2)
    assert centres.isfinite().all()
    assert torch.equal(centres[nearest(points, centres)], points)


def test_nearest_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    points, codes = torch.randn(100, 3), torch.randn(7, 3)
    expected = torch.cdist(points, codes).argmin(1)
    assert torch.equal(nearest(points, codes), expected)
    monkeypatch.setattr(kmeans_module, "MOST_DISTANCES", 70)
    assert torch.equal(nearest(points, codes), expected)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(nearest(points, codes), expected)


def test_totals_by_code() -> None:
    points = torch.randn(50, 3)
    ids = torch.randint(4, (50,))
    counts, sums = totals_by_code(points, ids, 5)
    for code in range(5):
        assert counts[code] == (ids == code).sum()
        torch.testing.assert_close(sums[code], points[ids == code].sum(0))


# --- the tokenizer ---


def test_patches_there_and_back() -> None:
    images = torch.randn(2, 3, 4, 6)
    patches = patchify(images, 2)
    assert patches.shape == (2, 6, 12)
    assert torch.equal(patches[0, 1].view(3, 2, 2), images[0, :, 0:2, 2:4])  # raster order
    assert torch.equal(unpatchify(patches, 2, (2, 3)), images)


def test_images_of_few_patches_come_back_exactly() -> None:
    torch.manual_seed(0)
    images = tiles(30)
    tokenizer = PatchKMeans(patch=2, codes=32, height=16, width=16, channels=3)
    tokenizer.fit(images)
    ids = tokenizer.encode(images)
    assert ids.shape == (8, tokenizer.slots)
    assert ids.dtype == torch.int64
    torch.testing.assert_close(tokenizer.decode(ids), images)
    assert torch.equal(tokenizer.encode(tokenizer.decode(ids)), ids)
    assert torch.equal(tokenizer.encode(images[3:4])[0], ids[3])


def test_the_seed_decides() -> None:
    torch.manual_seed(0)
    images = torch.rand(20, 3, 16, 16) * 2 - 1
    made = [PatchKMeans(patch=2, codes=16, height=16, width=16) for _ in range(3)]
    for tokenizer, seed in zip(made, (1, 1, 2), strict=True):
        torch.manual_seed(seed * 100)  # the global state has no say
        tokenizer.fit(images, seed=seed)
    assert torch.equal(made[0].codebook_VD, made[1].codebook_VD)
    assert not torch.equal(made[0].codebook_VD, made[2].codebook_VD)


def test_previews() -> None:
    torch.manual_seed(0)
    images = tiles(30)
    tokenizer = PatchKMeans(patch=2, codes=32, height=16, width=16)
    tokenizer.fit(images)
    ids = tokenizer.encode(images)
    known = torch.rand(ids.shape) < 0.5
    preview = tokenizer.decode_partial(ids.masked_fill(~known, tokenizer.vocabulary), known)
    shown = known.view(8, 1, 8, 8).repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert torch.equal(torch.where(shown, preview, 0), torch.where(shown, tokenizer.decode(ids), 0))
    colour = images.mean(dim=(0, 2, 3)).view(1, 3, 1, 1).expand_as(images)
    torch.testing.assert_close(torch.where(shown, 0, preview), torch.where(shown, 0, colour))
    everything = torch.ones_like(known)
    assert torch.equal(tokenizer.decode_partial(ids, everything), tokenizer.decode(ids))


def test_rectangles_and_grey() -> None:
    tokenizer = PatchKMeans(patch=4, codes=8, height=8, width=12, channels=1)
    assert (tokenizer.grid, tokenizer.slots) == ((2, 3), 6)
    images = torch.rand(4, 1, 8, 12)
    tokenizer.fit(images)
    assert tokenizer.decode(tokenizer.encode(images)).shape == images.shape


def test_images_that_do_not_fit() -> None:
    tokenizer = PatchKMeans(patch=2, codes=8, height=16, width=16)
    with pytest.raises(InputError, match=r"\(1, 3, 8, 16\)"):
        tokenizer.encode(torch.zeros(1, 3, 8, 16))
    with pytest.raises(InputError, match="not floats"):
        tokenizer.encode(torch.zeros(1, 3, 16, 16, dtype=torch.uint8))
    with pytest.raises(InputError, match="64 tokens"):
        tokenizer.decode(torch.zeros(1, 63, dtype=torch.int64))
    with pytest.raises(ConfigError, match="15x16"):
        PatchKMeans(height=15, width=16)
    with pytest.raises(ConfigError, match="codes=0"):
        PatchKMeans(height=16, width=16, codes=0)


def test_avatars(shared_data: Path) -> None:
    """25.3 dB were measured with 512 codes; every code is used."""
    train, test = avatars(shared_data)
    tokenizer = PatchKMeans(patch=2, codes=512, height=16, width=16)
    tokenizer.fit(train[:2000], iterations=8)
    ids = tokenizer.encode(test)
    quality = float(psnr(tokenizer.decode(ids), test).mean())
    print(f"{quality:.2f} dB, code use {code_use(ids, 512):.3f}")
    assert quality >= 24.5
    assert code_use(ids, 512) > 0.95
