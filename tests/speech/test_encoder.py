"""The SANM encoder against plain formulas, and its independence of padding."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seqgen_speech.encoder import FsmnMemory, SanmEncoder, SanmEncoderConfig, sinusoids

CONFIG = SanmEncoderConfig(input_width=20, width=16, heads=4, ffn_width=32, layers=3, kernel=5)


def make_encoder(config: SanmEncoderConfig = CONFIG, seed: int = 0) -> SanmEncoder:
    torch.manual_seed(seed)
    return SanmEncoder(config).eval()


def plain_layer(layer: torch.nn.Module, x_TD: torch.Tensor, heads: int) -> torch.Tensor:
    """One layer written out for one unpadded row."""

    def norm(n: torch.nn.LayerNorm, x: torch.Tensor) -> torch.Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scale = (centred.square().mean(-1, keepdim=True) + 1e-12).sqrt()
        return centred / scale * n.weight + n.bias

    attn, ffn = layer.self_attn, layer.feed_forward
    q, k, v = attn.linear_q_k_v(norm(layer.norm1, x_TD)).chunk(3, -1)
    size = q.shape[1] // heads
    mixed = []
    for head in range(heads):
        at = slice(head * size, (head + 1) * size)
        mixed.append((q[:, at] @ k[:, at].T / math.sqrt(size)).softmax(-1) @ v[:, at])
    weight = attn.fsmn_block.weight[:, 0]  # [D, kernel]
    memory = v.clone()
    for t in range(len(v)):
        for j in range(weight.shape[1]):
            source = t + j - attn.fsmn_block.left
            if 0 <= source < len(v):
                memory[t] = memory[t] + weight[:, j] * v[source]
    h = attn.linear_out(torch.cat(mixed, -1)) + memory
    x = x_TD + h if x_TD.shape[1] == h.shape[1] else h
    return x + ffn.w_2(ffn.w_1(norm(layer.norm2, x)).relu())


@pytest.mark.parametrize("shift", [0, 2])
@torch.no_grad()
def test_matches_the_written_out_formulas(shift: int) -> None:
    config = SanmEncoderConfig(
        input_width=20, width=16, heads=4, ffn_width=32, layers=3, kernel=5, shift=shift
    )
    encoder = make_encoder(config)
    x_BTF = torch.randn(1, 9, 20)
    position = torch.arange(1, 10).float()[:, None]
    rates = torch.exp(-torch.arange(10) * math.log(10000) / 9)
    table = torch.cat([(position * rates).sin(), (position * rates).cos()], 1)
    want = x_BTF[0] * 4 + table  # sqrt(16) = 4
    for layer in encoder.layers():
        want = plain_layer(layer, want, config.heads)
    want = encoder.after_norm(want)
    torch.testing.assert_close(encoder(x_BTF, torch.tensor([9]))[0], want, atol=2e-5, rtol=1e-4)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 24), min_size=1, max_size=5), st.integers(0, 99))
@torch.no_grad()
def test_a_batch_row_equals_the_row_alone(lengths: list[int], seed: int) -> None:
    encoder = make_encoder(seed=seed)
    rows = [torch.randn(n, 20) for n in lengths]
    batch = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=7.0)
    got = encoder(batch, torch.tensor(lengths))
    for row, h_TD in zip(rows, got, strict=True):
        alone = encoder(row[None], torch.tensor([len(row)]))[0]
        torch.testing.assert_close(h_TD[: len(row)], alone, atol=1e-5, rtol=1e-5)


def test_parameters_have_the_official_names_and_shapes() -> None:
    with torch.device("meta"):
        state = SanmEncoder(SanmEncoderConfig()).state_dict()
    assert state["encoders0.0.self_attn.linear_q_k_v.weight"].shape == (1536, 560)
    assert state["encoders.48.self_attn.fsmn_block.weight"].shape == (512, 1, 11)
    assert state["encoders.0.feed_forward.w_1.bias"].shape == (2048,)
    assert state["encoders0.0.norm1.weight"].shape == (560,)
    assert state["after_norm.bias"].shape == (512,)
    assert len(state) == 50 * 13 + 2


def test_positions_start_at_one_and_go_on_from_an_offset() -> None:
    encoder = make_encoder()
    x_BTF = torch.zeros(1, 700, 20)
    torch.testing.assert_close(encoder.embed(x_BTF)[0], sinusoids(torch.arange(1, 701), 20))
    torch.testing.assert_close(
        encoder.embed(x_BTF[:, :5], start=11)[0], sinusoids(torch.arange(11, 16), 20)
    )


def test_dropout_acts_in_training_only() -> None:
    encoder = make_encoder()
    x_BTF, lengths = torch.randn(2, 8, 20), torch.tensor([8, 5])
    assert torch.equal(encoder(x_BTF, lengths), encoder(x_BTF, lengths))
    encoder.train()
    assert not torch.equal(encoder(x_BTF, lengths), encoder(x_BTF, lengths))


def test_memory_is_zero_beyond_the_row() -> None:
    memory = FsmnMemory(4, 5)
    mask = torch.tensor([[True, True, False]])
    assert torch.equal(memory(torch.randn(1, 3, 4), mask)[0, 2], torch.zeros(4))


def test_training_works_after_inference_has_filled_the_position_table() -> None:
    encoder = make_encoder()
    x_BTF, lengths = torch.randn(1, 6, 20), torch.tensor([6])
    with torch.inference_mode():
        encoder(x_BTF, lengths)
    encoder.train()(x_BTF, lengths).sum().backward()
    assert encoder.encoders0[0].self_attn.linear_q_k_v.weight.grad is not None
