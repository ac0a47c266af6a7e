"""CIF against the plain sequential loop, and the guarantee of N embeddings in training."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seqgen_speech.cif import CifConfig, CifPredictor, fire_shares, peaks, scaled_integral


def make_predictor(version: str = "v2", width: int = 12, seed: int = 0) -> CifPredictor:
    torch.manual_seed(seed)
    return CifPredictor(CifConfig(width=width, version=version)).eval()  # type: ignore[arg-type]


def integrate_and_fire(
    h_TD: torch.Tensor, alphas_T: torch.Tensor
) -> tuple[torch.Tensor, list[float]]:
    """The definition: one frame after the other, at most one token a frame (alpha < 1)."""
    tokens, trace = [], []
    integral, frame = 0.0, torch.zeros(h_TD.shape[1], dtype=torch.float64)
    for h_D, alpha in zip(h_TD.double(), alphas_T.double().tolist(), strict=True):
        if integral + alpha >= 1:
            trace.append(integral + alpha)
            tokens.append(frame + (1 - integral) * h_D)
            integral = integral + alpha - 1
            frame = integral * h_D
        else:
            integral += alpha
            frame = frame + alpha * h_D
            trace.append(integral)
    empty = torch.zeros(0, h_TD.shape[1], dtype=torch.float64)
    return (torch.stack(tokens) if tokens else empty), trace


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 120), st.integers(0, 10_000), st.sampled_from([0.1, 0.4, 0.9]))
def test_parallel_firing_equals_the_sequential_loop(size: int, seed: int, top: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    alphas_T = torch.rand(size, generator=generator) * top
    h_TD = torch.randn(size, 6, generator=generator)
    tokens_ND, trace = integrate_and_fire(h_TD, alphas_T)
    integral_BT = alphas_T[None].double().cumsum(1)
    counts_B = integral_BT[:, -1].floor().long()
    assert counts_B.item() == len(tokens_ND)
    got_ND = (fire_shares(integral_BT, counts_B) @ h_TD[None].double())[0]
    torch.testing.assert_close(got_ND, tokens_ND, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(
        peaks(integral_BT)[0], torch.tensor(trace, dtype=torch.float64), atol=1e-6, rtol=0
    )


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 60), st.integers(1, 30)), min_size=1, max_size=8),
    st.integers(0, 10_000),
)
@torch.no_grad()
def test_training_always_yields_n_whole_embeddings(rows: list[tuple[int, int]], seed: int) -> None:
    predictor = make_predictor(seed=seed)
    lengths = torch.tensor([frames for frames, _ in rows])
    targets = torch.tensor([tokens for _, tokens in rows])
    h_BTD = torch.ones(len(rows), int(lengths.max()), 12)
    out = predictor(h_BTD, lengths, targets)
    assert out.embeddings_BND.shape[:2] == (len(rows), int(targets.max()))
    for row, count in enumerate(targets.tolist()):
        # The frames are all ones, so a token that has fired fully is all ones, too.
        torch.testing.assert_close(
            out.embeddings_BND[row, :count], torch.ones(count, 12), atol=1e-5, rtol=0
        )
        assert out.embeddings_BND[row, count:].abs().sum() == 0


def test_the_float_defect_of_scaling_is_avoided() -> None:
    """Scaling in float32 loses the last token of many rows; the scaled integral loses none."""
    torch.manual_seed(0)
    targets = torch.randint(1, 12, (3200,))
    alphas = torch.rand(3200, 60)
    naive = (alphas * (targets / alphas.sum(1))[:, None]).cumsum(1)[:, -1]
    assert (naive.floor() < targets).sum() > 100
    assert torch.equal(scaled_integral(alphas, targets)[:, -1], targets.double())


@pytest.mark.parametrize("version", ["v1", "v2", "v3"])
@settings(max_examples=15, deadline=None)
@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=5), seed=st.integers(0, 99))
@torch.no_grad()
def test_inference_counts_tail_and_batch(version: str, lengths: list[int], seed: int) -> None:
    predictor = make_predictor(version, seed=seed)
    rows = [torch.randn(n, 12) * 2 for n in lengths]
    batch = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=3.0)
    out = predictor(batch, torch.tensor(lengths))
    for i, row in enumerate(rows):
        alone = predictor(row[None], torch.tensor([len(row)]))
        n = len(row) + 1
        torch.testing.assert_close(out.alphas_BT[i, :n], alone.alphas_BT[0])
        torch.testing.assert_close(out.peaks_BT[i, :n], alone.peaks_BT[0], atol=1e-4, rtol=0)
        count = int(alone.counts_B[0])
        assert int(out.counts_B[i]) == count
        torch.testing.assert_close(
            out.embeddings_BND[i, :count], alone.embeddings_BND[0], atol=5e-5, rtol=1e-5
        )
        tail = predictor.config.tail_threshold
        assert count == int(alone.alphas_BT[0].double().sum().float())
        torch.testing.assert_close(alone.alphas_BT[0, -1], torch.tensor(tail))
        torch.testing.assert_close(alone.mass_B[0] + tail, alone.alphas_BT[0].sum())
        assert int((alone.peaks_BT[0] >= 1).sum()) == count


def test_loss_of_the_count_and_the_embeddings_reach_the_weights() -> None:
    predictor = make_predictor()
    h_BTD = torch.randn(2, 20, 12, requires_grad=True)
    out = predictor(h_BTD, torch.tensor([20, 13]), torch.tensor([4, 3]))
    (out.embeddings_BND.square().sum() + (out.mass_B - 4).abs().sum()).backward()
    assert h_BTD.grad is not None
    assert h_BTD.grad[1, 13:].abs().sum() == 0
    gradient = predictor.cif_output.weight.grad
    assert gradient is not None
    assert bool(gradient.isfinite().all())
    assert gradient.abs().sum() > 0


@torch.no_grad()
def test_gradient_of_the_shares_equals_that_of_the_loop() -> None:
    alphas = torch.tensor([0.3, 0.5, 0.6, 0.2, 0.7, 0.4], dtype=torch.float64)
    h_TD = torch.randn(6, 3, dtype=torch.float64)
    weight = torch.randn(2, 3, dtype=torch.float64)

    def by_shares(a: torch.Tensor) -> torch.Tensor:
        return ((fire_shares(a[None].cumsum(1), torch.tensor([2])) @ h_TD)[0] * weight).sum()

    step = 1e-6
    want = []
    for t in range(6):
        bump = torch.zeros(6, dtype=torch.float64)
        bump[t] = step
        up, _ = integrate_and_fire(h_TD, alphas + bump)
        down, _ = integrate_and_fire(h_TD, alphas - bump)
        want.append(((up - down) * weight).sum() / (2 * step))
    with torch.enable_grad():
        leaf = alphas.clone().requires_grad_()
        (got,) = torch.autograd.grad(by_shares(leaf), leaf)
    torch.testing.assert_close(got, torch.stack(want), atol=1e-6, rtol=1e-6)


@torch.no_grad()
def test_fine_peaks_fire_once_a_token_and_rows_are_independent() -> None:
    predictor = make_predictor("v3")
    rows = [torch.randn(n, 12) for n in (30, 11)]
    batch = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=5.0)
    counts = torch.tensor([7, 3])
    alphas, trace = predictor.fine_peaks(batch, torch.tensor([30, 11]), counts)
    assert alphas.shape == trace.shape == (2, 90)
    torch.testing.assert_close(alphas.sum(1), counts.float())
    assert (trace >= 1 - 1e-4).sum(1).tolist() == [7, 3]
    alone, _ = predictor.fine_peaks(rows[1][None], torch.tensor([11]), counts[1:])
    torch.testing.assert_close(alphas[1, :33], alone[0], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_silence_gives_no_token() -> None:
    predictor = make_predictor()
    predictor.cif_output.bias.fill_(-30.0)
    out = predictor(torch.randn(2, 9, 12), torch.tensor([9, 4]))
    assert out.embeddings_BND.shape == (2, 0, 12)
    assert out.counts_B.tolist() == [0, 0]
