"""Multi-scale residual quantization: VAR's numbers, its identities, and codes that stay alive."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.core.image_tokenizers.var_golden import var_quantizer
from torch import Tensor
from torch.nn import functional as F

from seqgen.errors import ConfigError, InputError
from seqgen.tokenizers import MultiScaleRVQ
from seqgen.tokenizers.measure import use_by_scale
from seqgen.tokenizers.multi_scale import phi_of

SCALES = st.sampled_from([(1,), (1, 2), (1, 2, 4), (1, 3, 4), (2, 5), (1, 2, 3, 4), (3, 3)])
QUICK = settings(max_examples=25, deadline=None)


def random_quantizer(scales: tuple[int, ...], seed: int, *, phis: int = 4) -> MultiScaleRVQ:
    torch.manual_seed(seed)
    made = MultiScaleRVQ(scales, 16, 3, phis=phis).eval()
    for conv in made.phi:  # away from the identity that they begin as
        torch.nn.init.normal_(conv.weight, std=0.2)
        torch.nn.init.normal_(conv.bias, std=0.2)
    return made


def random_ids(quantizer: MultiScaleRVQ, batch: int) -> Tensor:
    return torch.randint(quantizer.vocabulary, (batch, quantizer.slots))


# --- VAR's numbers ---


def test_golden_indices_and_latent() -> None:
    quantizer, golden = var_quantizer()
    ids = quantizer.encode(golden["fq"])
    assert torch.equal(ids, golden["fq_idx"])
    assert len(ids.unique()) > 10
    torch.testing.assert_close(quantizer.decode(ids), golden["fq_fhat"], atol=1e-4, rtol=0)
    assert torch.equal(quantizer.encode(golden["encoded"]), golden["idx"])


def test_golden_inputs_of_the_transformer() -> None:
    quantizer, golden = var_quantizer()
    fed = quantizer.inputs(golden["idx"])
    torch.testing.assert_close(fed, golden["var_input"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("phis", [1, 2, 3, 4, 5, 7])
@pytest.mark.parametrize("scales", [1, 4, 10, 14])
def test_shared_convolutions(phis: int, scales: int) -> None:
    edge = 1 / 3 / phis if phis == 4 else 1 / 2 / phis
    ticks = [edge + (1 - 2 * edge) * i / max(1, phis - 1) for i in range(phis)]
    for k in range(scales):
        at = k / (scales - 1) if scales > 1 else 0
        chosen = abs(ticks[phi_of(k, scales, phis)] - at)
        assert chosen == pytest.approx(min(abs(tick - at) for tick in ticks), abs=1e-12)


def test_the_ties_of_vars_ten_scales() -> None:
    # As the official code's argmin over float64 ticks decides them (k = 2 and k = 7 are ties).
    assert [phi_of(k, 10, 4) for k in range(10)] == [0, 0, 1, 1, 1, 2, 2, 3, 3, 3]


# --- identities ---


@QUICK
@given(scales=SCALES, seed=st.integers(0, 999), phis=st.sampled_from([0, 1, 2, 4]))
def test_decode_is_the_sum_of_the_scales(scales: tuple[int, ...], seed: int, phis: int) -> None:
    quantizer = random_quantizer(scales, seed, phis=phis)
    ids = random_ids(quantizer, 2)
    f, fed = quantizer.empty(2), []
    for k, (start, stop) in enumerate(quantizer.bounds):
        if k:
            fed.append(quantizer.resize(f, k))
        f = quantizer.accumulate(f, ids[:, start:stop], k)
        assert torch.equal(f, quantizer.decode(ids, k + 1))
        assert torch.equal(f, quantizer.decode(ids[:, :stop], k + 1))
        assert quantizer.slots_of(k + 1) == stop
        known = (torch.arange(quantizer.slots) < stop).expand(2, -1)
        torch.testing.assert_close(quantizer.decode_partial(ids, known), f, atol=1e-6, rtol=1e-6)
    assert torch.equal(f, quantizer.decode(ids))
    inputs = quantizer.inputs(ids)
    assert inputs.shape == (2, quantizer.slots - scales[0] ** 2, 3)
    if fed:
        assert torch.equal(inputs, torch.cat(fed, dim=1))


@QUICK
@given(scales=SCALES, seed=st.integers(0, 999))
def test_a_row_is_encoded_as_alone(scales: tuple[int, ...], seed: int) -> None:
    quantizer = random_quantizer(scales, seed)
    f = torch.randn(3, 3, scales[-1], scales[-1])
    ids = quantizer.encode(f)
    assert ids.shape == (3, sum(side * side for side in scales))
    assert ids.dtype == torch.int64
    for row in range(3):
        assert torch.equal(quantizer.encode(f[row : row + 1])[0], ids[row])


def test_one_scale_without_phi_is_nearest_neighbours() -> None:
    quantizer = random_quantizer((4,), 0, phis=0)
    f = torch.randn(2, 3, 4, 4)
    points = f.flatten(2).transpose(1, 2).reshape(-1, 3)
    nearest = torch.cdist(points, quantizer.codebook_VC).argmin(1).view(2, 16)
    assert torch.equal(quantizer.encode(f), nearest)
    # A latent made of codes is what it is decoded to, and its ids come back.
    ids = random_ids(quantizer, 2)
    assert torch.equal(quantizer.encode(quantizer.decode(ids)), ids)


def test_unknown_ids_may_hold_anything() -> None:
    quantizer = random_quantizer((1, 2, 4), 0)
    ids = random_ids(quantizer, 2)
    known = torch.rand(ids.shape) < 0.5
    known[1, 5:] = False
    masked = torch.where(known, ids, 10**6)
    found = quantizer.decode_partial(masked, known)
    assert torch.equal(found, quantizer.decode_partial(ids, known))
    torch.testing.assert_close(found[1:], quantizer.decode_partial(ids[1:], known[1:]))
    nothing = torch.zeros_like(known)
    assert torch.equal(quantizer.decode_partial(masked, nothing), quantizer.empty(2))


# --- training ---


def test_loss_and_gradients() -> None:
    quantizer = random_quantizer((1, 2, 4), 3)
    f = torch.randn(2, 3, 4, 4, requires_grad=True)
    out = quantizer(f)
    assert torch.equal(out.ids_BS, quantizer.encode(f))
    decoded = quantizer.decode(out.ids_BS)
    torch.testing.assert_close(out.latent_BCHW, decoded)
    steps = [quantizer.decode(out.ids_BS, k + 1) for k in range(3)]
    expected = sum((1 + quantizer.beta) * F.mse_loss(step, f) for step in steps) / 3
    torch.testing.assert_close(out.loss, expected)
    (straight,) = torch.autograd.grad(out.latent_BCHW.sum(), f, retain_graph=True)
    assert torch.equal(straight, torch.ones_like(f))
    out.loss.backward()
    # The latent is drawn to the codes by beta, the codes to the latent by 1.
    pull = sum(quantizer.beta * 2 * (f - step) / f.numel() for step in steps) / 3
    torch.testing.assert_close(f.grad, pull.detach())
    assert quantizer.codebook_VC.grad is not None
    assert quantizer.codebook_VC.grad.abs().sum() > 0


def test_eval_changes_nothing_and_training_counts_use() -> None:
    quantizer = random_quantizer((1, 2, 4), 4)
    before = {k: v.clone() for k, v in quantizer.state_dict().items()}
    f = torch.randn(4, 3, 4, 4)
    quantizer(f)
    assert all(torch.equal(v, before[k]) for k, v in quantizer.state_dict().items())
    quantizer.initialised.fill_(True)
    quantizer.revive_below = 0.0
    quantizer.train()
    ids = quantizer(f).ids_BS
    for k, (start, stop) in enumerate(quantizer.bounds):
        part = torch.bincount(ids[:, start:stop].flatten(), minlength=16) / (4 * (stop - start))
        expected = quantizer.use_decay / 16 + (1 - quantizer.use_decay) * part
        torch.testing.assert_close(quantizer.use_KV[k], expected.float())
    assert torch.equal(quantizer.codebook_VC, before["codebook_VC"])


def test_dead_codes_come_back_and_without_revival_they_stay_dead() -> None:
    def codes_used(revive_below: float) -> int:
        torch.manual_seed(0)
        quantizer = MultiScaleRVQ((1, 2, 4), 32, 3, revive_below=revive_below, use_decay=0.9)
        quantizer.initialised.fill_(True)
        with torch.no_grad():
            quantizer.codebook_VC[1:] = 100 + torch.randn(31, 3)  # out of reach of any latent
        for _ in range(60):
            quantizer(torch.randn(16, 3, 4, 4))
        quantizer.eval()
        return len(quantizer.encode(torch.randn(64, 3, 4, 4)).unique())

    assert codes_used(0.0) == 1
    assert codes_used(0.1) >= 30


def test_the_initialiser_gives_every_scale_codes() -> None:
    torch.manual_seed(0)
    # Small coarse structure under large fine structure: the case in which coarse codes collapse.
    coarse = F.interpolate(torch.randn(256, 4, 1, 1) * 0.3, size=(8, 8))
    f = coarse + torch.randn(256, 4, 8, 8)
    plain = MultiScaleRVQ((1, 2, 4, 8), 128, 4, revive_below=0).eval()
    with torch.no_grad():  # a codebook from random vectors of the latent, as is common
        places = f.permute(0, 2, 3, 1).reshape(-1, 4)
        plain.codebook_VC.copy_(places[torch.randperm(len(places))[:128]])
    ours = MultiScaleRVQ((1, 2, 4, 8), 128, 4).eval()
    ours.initialise(f)
    uses = [use_by_scale(q.encode(f), q.bounds, 128) for q in (plain, ours)]
    for k in range(3):
        assert uses[1][k].perplexity > 2 * uses[0][k].perplexity
    errors = [F.mse_loss(ours.decode(ours.encode(f), k), f) for k in range(5)]
    assert all(later < earlier for earlier, later in itertools.pairwise(errors))


def test_the_first_batch_initialises_once() -> None:
    torch.manual_seed(0)
    quantizer = MultiScaleRVQ((1, 2), 8, 3, revive_below=0)
    fresh = quantizer.codebook_VC.clone()
    quantizer(torch.randn(16, 3, 2, 2))
    placed = quantizer.codebook_VC.clone()
    assert bool(quantizer.initialised)
    assert not torch.equal(placed, fresh)
    quantizer(torch.randn(16, 3, 2, 2))
    assert torch.equal(quantizer.codebook_VC, placed)


@pytest.mark.parametrize("scales", [(), (0, 1), (2, 1)])
def test_impossible_scales(scales: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="must not shrink"):
        MultiScaleRVQ(scales, 8, 3)


def test_a_wrong_number_of_ids() -> None:
    quantizer = MultiScaleRVQ((1, 2), 8, 3)
    with pytest.raises(InputError, match="5 tokens"):
        quantizer.decode(torch.zeros(1, 4, dtype=torch.int64))
    with pytest.raises(InputError, match="1 tokens"):
        quantizer.decode(torch.zeros(1, 0, dtype=torch.int64), 1)
    with pytest.raises(ValueError, match="between 0 and 2"):
        quantizer.decode(torch.zeros(1, 5, dtype=torch.int64), 3)
