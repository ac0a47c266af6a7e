"""The quantizers that give every place one id: VQ, FSQ, LFQ and BSQ."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from seqgen.errors import ConfigError, InputError
from seqgen.tokenizers import FiniteScalarQuantizer, LookupFreeQuantizer, VectorQuantizer
from seqgen.tokenizers.pointwise import PointwiseQuantizer

QUICK = settings(max_examples=25, deadline=None)

MAKERS: dict[str, Callable[[], PointwiseQuantizer]] = {
    "vq": lambda: VectorQuantizer(20, 3),
    "vq, gradient": lambda: VectorQuantizer(20, 3, decay=0.0),
    "vq, l2": lambda: VectorQuantizer(20, 3, l2_normalised=True),
    "vq, l2, gradient": lambda: VectorQuantizer(20, 3, l2_normalised=True, decay=0.0),
    "fsq": lambda: FiniteScalarQuantizer((5, 4, 3)),
    "lfq": lambda: LookupFreeQuantizer(3, temperature=1.0),
    "bsq": lambda: LookupFreeQuantizer(3, temperature=1.0, spherical=True),
}


@pytest.fixture(params=list(MAKERS))
def quantizer(request: pytest.FixtureRequest) -> PointwiseQuantizer:
    torch.manual_seed(0)
    return MAKERS[request.param]().eval()


# --- what all of them promise ---


def test_ids_and_latents(quantizer: PointwiseQuantizer) -> None:
    f = torch.randn(4, 3, 5, 5)
    ids = quantizer.encode(f)
    assert ids.shape == (4, 25)
    assert ids.dtype == torch.int64
    assert ids.min() >= 0
    assert ids.max() < quantizer.vocabulary
    latent = quantizer.decode(ids)
    assert latent.shape == f.shape
    for row in range(4):
        assert torch.equal(quantizer.encode(f[row : row + 1])[0], ids[row])
    quantizer.train()
    quantizer(f)  # places the codes of those that have to be placed
    quantizer.eval()
    out = quantizer(f)
    assert torch.equal(out.ids_BS, quantizer.encode(f))
    torch.testing.assert_close(out.latent_BCHW, quantizer.decode(out.ids_BS))


@pytest.mark.parametrize("name", [name for name in MAKERS if name != "fsq"])
def test_the_codes_are_their_own_codes(name: str) -> None:
    # FSQ bounds its latents first: see the lattice test.
    torch.manual_seed(0)
    quantizer = MAKERS[name]().eval()
    ids = torch.randint(quantizer.vocabulary, (2, 16))
    assert torch.equal(quantizer.encode(quantizer.decode(ids)), ids)


def test_previews(quantizer: PointwiseQuantizer) -> None:
    ids = torch.randint(quantizer.vocabulary, (2, 16))
    known = torch.rand(2, 16) < 0.5
    found = quantizer.decode_partial(ids.masked_fill(~known, 10**6), known)
    whole = quantizer.decode(ids)
    shown = known.view(2, 1, 4, 4)
    assert torch.equal(torch.where(shown, found, 0), torch.where(shown, whole, 0))
    mean = quantizer.mean_vector().view(1, 3, 1, 1).expand_as(whole)
    assert torch.equal(torch.where(shown, 0, found), torch.where(shown, 0, mean))
    assert torch.equal(quantizer.decode_partial(ids, torch.ones_like(known)), whole)


def test_gradients_reach_the_latent(quantizer: PointwiseQuantizer) -> None:
    quantizer.train()
    f = torch.randn(4, 3, 5, 5, requires_grad=True)
    for _ in range(2):  # the first pass places the codes, the second may move dead ones
        out = quantizer(f)
        (out.latent_BCHW.square().sum() + out.loss).backward()
        assert f.grad is not None
        assert f.grad.abs().sum() > 0
    for parameter in quantizer.parameters():
        assert parameter.grad is not None
        assert parameter.grad.abs().sum() > 0


def test_half_precision_around_it_changes_nothing(quantizer: PointwiseQuantizer) -> None:
    f = torch.randn(4, 3, 5, 5)
    plain = quantizer(f)
    with torch.autocast("cpu", torch.bfloat16):
        inside = quantizer(f)
    assert torch.equal(inside.latent_BCHW, plain.latent_BCHW)
    assert torch.equal(inside.loss, plain.loss)


def test_layout() -> None:
    wide = VectorQuantizer(20, 3, grid=(2, 3))
    f = torch.randn(1, 3, 2, 3)
    assert wide.decode(wide.encode(f)).shape == f.shape
    with pytest.raises(InputError, match="4 ids"):
        wide.decode(torch.zeros(1, 4, dtype=torch.int64))
    with pytest.raises(InputError, match="square"):
        VectorQuantizer(20, 3).decode(torch.zeros(1, 6, dtype=torch.int64))


# --- VQ ---


def test_a_step_of_the_running_means_by_hand() -> None:
    quantizer = VectorQuantizer(2, 1, decay=0.9, revive_below=0.0, kmeans_init=False)
    quantizer.codebook_VC.copy_(torch.tensor([[0.0], [10.0]]))
    quantizer.sum_VC.copy_(quantizer.codebook_VC)
    out = quantizer(torch.tensor([1.0, 2.0, 3.0, 8.0]).view(1, 1, 2, 2))
    assert out.ids_BS.tolist() == [[0, 0, 0, 1]]
    # (1 + 4 + 9 + 4) / 4, times beta
    assert float(out.loss) == pytest.approx(0.25 * 4.5)
    counts, sums = torch.tensor([0.9 + 0.3, 0.9 + 0.1]), torch.tensor([0.6, 9.0 + 0.8])
    torch.testing.assert_close(quantizer.count_V, counts)
    torch.testing.assert_close(quantizer.sum_VC[:, 0], sums)
    torch.testing.assert_close(quantizer.codebook_VC[:, 0], sums / counts, atol=1e-4, rtol=0)
    mean = (counts * sums / counts).sum() / counts.sum()
    torch.testing.assert_close(quantizer.mean_vector(), mean[None], atol=1e-4, rtol=0)


def test_the_loss_of_a_gradient_codebook() -> None:
    quantizer = VectorQuantizer(20, 3, decay=0.0, beta=0.5).eval()
    f = torch.randn(2, 3, 4, 4, requires_grad=True)
    out = quantizer(f)
    error = F.mse_loss(quantizer.decode(out.ids_BS), f)
    torch.testing.assert_close(out.loss, 1.5 * error)
    out.loss.backward()
    pull = 0.5 * 2 * (f - quantizer.decode(out.ids_BS)) / f.numel()
    torch.testing.assert_close(f.grad, pull.detach())


@pytest.mark.parametrize("l2", [False, True])
def test_l2_normalised_codes_have_length_one(l2: bool) -> None:
    torch.manual_seed(0)
    quantizer = VectorQuantizer(8, 3, l2_normalised=l2, decay=0.9)
    for _ in range(3):
        out = quantizer(torch.randn(4, 3, 4, 4))
    lengths = out.latent_BCHW.norm(dim=1)
    assert torch.allclose(lengths, torch.ones(())) == l2


@pytest.mark.parametrize("decay", [0.9, 0.0])
def test_dead_codes_come_back(decay: float) -> None:
    def used(revive_below: float) -> int:
        torch.manual_seed(0)
        quantizer = VectorQuantizer(
            32, 3, decay=decay, revive_below=revive_below, kmeans_init=False
        )
        with torch.no_grad():
            quantizer.codebook_VC[1:] += 100
        if decay:
            quantizer.sum_VC.copy_(quantizer.codebook_VC)
        for _ in range(40 if decay else 400):
            quantizer(torch.randn(8, 3, 4, 4))
        return len(quantizer.encode(torch.randn(64, 3, 4, 4)).unique())

    assert used(0.0) == 1
    assert used(0.1) >= 30


def test_the_first_batch_places_the_codes_once() -> None:
    torch.manual_seed(0)
    quantizer = VectorQuantizer(8, 3, revive_below=0.0)
    f = torch.randn(4, 3, 4, 4)
    before = quantizer.codebook_VC.clone()
    quantizer.eval()(f)
    assert torch.equal(quantizer.codebook_VC, before)
    assert not quantizer.initialised
    error = F.mse_loss(quantizer.decode(quantizer.encode(f)), f)
    quantizer.train()(f)
    assert quantizer.initialised
    assert F.mse_loss(quantizer.decode(quantizer.encode(f)), f) < 0.7 * error
    placed = quantizer.codebook_VC.clone()
    quantizer(f)  # a running mean at the means already
    torch.testing.assert_close(quantizer.codebook_VC, placed, atol=0.1, rtol=0)


# --- FSQ ---


@QUICK
@given(levels=st.lists(st.integers(3, 9), min_size=1, max_size=3))
def test_the_lattice_is_numbered_without_gaps(levels: list[int]) -> None:
    quantizer = FiniteScalarQuantizer(tuple(levels))
    ids = torch.arange(quantizer.vocabulary)[None]
    points = quantizer.vectors(ids)
    assert len(points[0].unique(dim=0)) == quantizer.vocabulary
    assert points.abs().max() <= 1
    assert torch.equal(quantizer.lattice_ids(points), ids)
    # Every id is reached: bounding is undone, and the latent lies on its lattice point.
    half = (torch.tensor(levels) - 1) * 1.001 / 2
    offset = torch.where(torch.tensor(levels) % 2 == 0, 0.5, 0.0)
    bounded = points * (torch.tensor(levels) // 2)
    latent = torch.atanh((bounded + offset) / half) - torch.atanh(offset / half)
    assert torch.equal(quantizer.ids_of(latent), ids)
    torch.testing.assert_close(quantizer.quantize(latent)[0], points)


def test_the_first_channel_changes_fastest() -> None:
    quantizer = FiniteScalarQuantizer((5, 3))
    points = quantizer.vectors(torch.tensor([[0, 1, 5]]))
    assert points[0].tolist() == [[-1.0, -1.0], [-0.5, -1.0], [-1.0, 0.0]]


# --- LFQ and BSQ ---


@QUICK
@given(bits=st.integers(1, 6), spherical=st.booleans(), seed=st.integers(0, 99))
def test_entropies_are_those_of_the_whole_codebook(bits: int, spherical: bool, seed: int) -> None:
    torch.manual_seed(seed)
    quantizer = LookupFreeQuantizer(bits, spherical=spherical, temperature=0.7)
    x = torch.randn(30, bits)
    codes = quantizer.vectors(torch.arange(2**bits)[None])[0]
    chances = (2 * x @ codes.T / 0.7).softmax(1)
    each, mean = quantizer.entropies(x)
    torch.testing.assert_close(each, torch.special.entr(chances).sum(1).mean())
    torch.testing.assert_close(mean, torch.special.entr(chances.mean(0)).sum())
    # In groups: the sum of entropies of the parts is no smaller than that of the whole.
    grouped = LookupFreeQuantizer(bits, spherical=spherical, temperature=0.7, group=2)
    assert grouped.entropies(x)[1] >= mean - 1e-4
    assert grouped.entropies(x)[0] == each


def test_bits() -> None:
    quantizer = LookupFreeQuantizer(3)
    f = torch.tensor([[0.1, -0.2, 0.3], [-1.0, -1.0, 2.0]])[..., None]  # [B, C, 1 place]
    assert quantizer.encode(f[..., None]).tolist() == [[0b101], [0b001]]
    assert quantizer.decode(torch.tensor([[0b110]])).flatten().tolist() == [1.0, 1.0, -1.0]
    sphere = LookupFreeQuantizer(4, spherical=True)
    latent = sphere.decode(torch.randint(16, (2, 9)))
    torch.testing.assert_close(latent.norm(dim=1), torch.ones(2, 3, 3))


def test_many_bits_cost_little() -> None:
    quantizer = LookupFreeQuantizer(18)
    out = quantizer(torch.randn(2, 18, 4, 4))
    assert out.loss.isfinite()
    assert quantizer.vocabulary == 2**18
    assert torch.equal(quantizer.encode(quantizer.decode(out.ids_BS)), out.ids_BS)


def test_the_loss_is_its_parts() -> None:
    quantizer = LookupFreeQuantizer(3, temperature=1.0, beta=0.5, entropy_weight=0.2, diversity=3.0)
    out = quantizer(torch.randn(4, 3, 4, 4))
    parts = out.parts
    entropy = parts["entropy_each"] - 3.0 * parts["entropy_mean"]
    torch.testing.assert_close(out.loss, 0.5 * parts["commitment"] + 0.2 * entropy)


def test_impossible_settings() -> None:
    for make in (
        lambda: VectorQuantizer(0, 3),
        lambda: VectorQuantizer(8, 3, decay=1.0),
        lambda: FiniteScalarQuantizer(()),
        lambda: FiniteScalarQuantizer((2, 8)),
        lambda: LookupFreeQuantizer(0),
        lambda: LookupFreeQuantizer(31),
        lambda: LookupFreeQuantizer(8, temperature=0.0),
    ):
        with pytest.raises(ConfigError):
            make()
