"""The Paraformer decoder against plain formulas, and its independence of padding."""

from __future__ import annotations

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seqgen_speech.decoder import ParaformerDecoderConfig, ParaformerSanmDecoder

CONFIG = ParaformerDecoderConfig(
    vocabulary=11, width=16, heads=4, ffn_width=32, layers=2, memory_layers=1, kernel=5
)


def make_decoder(seed: int = 0) -> ParaformerSanmDecoder:
    torch.manual_seed(seed)
    return ParaformerSanmDecoder(CONFIG).eval()


def plain_decoder(
    decoder: ParaformerSanmDecoder, x_ND: torch.Tensor, memory_TD: torch.Tensor
) -> torch.Tensor:
    """The whole decoder written out for one row."""

    def ffn(block: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
        return block.norm(block.w_1(x).relu()) @ block.w_2.weight.T

    for layer in decoder.layers():
        t = layer.norm2(ffn(layer.feed_forward, layer.norm1(x_ND)))
        weight = layer.self_attn.fsmn_block.weight[:, 0]
        memory = t.clone()
        for n in range(len(t)):
            for j in range(5):
                if 0 <= n + j - 2 < len(t):
                    memory[n] = memory[n] + weight[:, j] * t[n + j - 2]
        x_ND = x_ND + memory
        if layer.src_attn is not None:
            q = layer.src_attn.linear_q(layer.norm3(x_ND))
            k, v = layer.src_attn.linear_k_v(memory_TD).chunk(2, -1)
            heads = [slice(4 * h, 4 * h + 4) for h in range(4)]
            mixed = [(q[:, h] @ k[:, h].T / math.sqrt(4)).softmax(-1) @ v[:, h] for h in heads]
            x_ND = x_ND + layer.src_attn.linear_out(torch.cat(mixed, -1))
    final = decoder.decoders3[0]
    return decoder.after_norm(ffn(final.feed_forward, final.norm1(x_ND)))


@torch.no_grad()
def test_matches_the_written_out_formulas() -> None:
    decoder = make_decoder()
    x_BND, memory_BTD = torch.randn(1, 7, 16), torch.randn(1, 12, 16)
    got = decoder(x_BND, torch.tensor([7]), memory_BTD, torch.tensor([12]))
    want = plain_decoder(decoder, x_BND[0], memory_BTD[0])
    torch.testing.assert_close(got[0], want, atol=2e-5, rtol=1e-4)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 12), st.integers(1, 20)), min_size=1, max_size=5),
    st.integers(0, 99),
)
@torch.no_grad()
def test_a_batch_row_equals_the_row_alone(sizes: list[tuple[int, int]], seed: int) -> None:
    decoder = make_decoder(seed)
    pad = torch.nn.utils.rnn.pad_sequence
    xs = [torch.randn(n, 16) for n, _ in sizes]
    memories = [torch.randn(t, 16) for _, t in sizes]
    n_B, t_B = (torch.tensor(column) for column in zip(*sizes, strict=True))
    got = decoder(
        pad(xs, batch_first=True, padding_value=9.0),
        n_B,
        pad(memories, batch_first=True, padding_value=9.0),
        t_B,
    )
    for row, (x, memory) in enumerate(zip(xs, memories, strict=True)):
        alone = decoder(x[None], n_B[row : row + 1], memory[None], t_B[row : row + 1])
        torch.testing.assert_close(got[row, : len(x)], alone[0], atol=1e-5, rtol=1e-5)


def test_parameters_have_the_official_names_and_shapes() -> None:
    with torch.device("meta"):
        state = ParaformerSanmDecoder(ParaformerDecoderConfig()).state_dict()
    assert state["decoders.15.src_attn.linear_k_v.weight"].shape == (1024, 512)
    assert state["decoders.0.self_attn.fsmn_block.weight"].shape == (512, 1, 11)
    assert state["decoders.0.feed_forward.norm.weight"].shape == (2048,)
    assert state["decoders3.0.feed_forward.w_2.weight"].shape == (512, 2048)
    assert "decoders.0.feed_forward.w_2.bias" not in state
    assert not any(name.startswith("decoders2") for name in state)
    assert state["embed.0.weight"].shape == state["output_layer.weight"].shape == (8404, 512)
