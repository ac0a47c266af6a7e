"""What the general loop costs: `Autoregressive` against loops written by hand for one model.

    python benchmarks/loop_overhead.py [--json FILE] [--tokens 128] [--repeats 5]

Greedy decoding of one row, cached, one thread; processor milliseconds a token, medians, in turns:

- `plain`: a loop as one writes it for a single model: tensors and functions, no classes, no masks;
- `core_model`: a loop by hand over the core's `Transformer` and `Cache`;
- `autoregressive`: the core's decoder, over the same weights;
- `transformers`: `generate` of that package on a Llama of the same sizes, where it is installed.

The first three must give the same tokens before anything is timed.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqgen.benchmark import interleaved, print_result, result, write_result
from seqgen.canvas import Canvas
from seqgen.decoders import Autoregressive
from seqgen.heads import CategoricalHead
from seqgen.inputs import ShiftedInputs
from seqgen.model import SequenceModel
from seqgen.transformer import Transformer, TransformerConfig

VOCABULARY = 1000
SIZES = ((1, 64, 4), (4, 128, 4), (6, 384, 6))
"""(layers, width, heads)"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="also write the result here")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    peer = find_spec("transformers") is not None
    if not peer:
        print("transformers is not installed: its column is left out")
    rows = []
    for layers, width, heads in SIZES:
        model = make_model(layers, width, heads)
        calls: dict[str, Callable[[], object]] = {
            "plain": partial(plain_loop, model, arguments.tokens),
            "core_model": partial(core_model_loop, model, arguments.tokens),
            "autoregressive": partial(autoregressive, model, arguments.tokens),
        }
        texts = {name: call() for name, call in calls.items()}
        if len({tuple(text) for text in texts.values()}) > 1:
            raise SystemExit(f"{layers} layers, width {width}: the tokens differ: {texts}")
        if peer:
            calls["transformers"] = transformers_call(layers, width, heads, arguments.tokens)
        times = interleaved(calls, repeats=arguments.repeats)
        a_token = {name: time.cpu_ms / arguments.tokens for name, time in times.items()}
        rows.append(
            {
                "case": f"{layers} layers, width {width}",
                **{f"{name}_ms": value for name, value in a_token.items()},
                "loop_over_plain": a_token["autoregressive"] / a_token["plain"],
            }
        )
    outcome = result("loop_overhead", rows)
    if peer:
        outcome["machine"]["transformers"] = version("transformers")
    print_result(outcome)
    if arguments.json:
        write_result(outcome, arguments.json)


def make_model(layers: int, width: int, heads: int) -> SequenceModel:
    """A random causal model with shifted inputs, as small language models are."""
    torch.manual_seed(0)
    embedding = nn.Embedding(VOCABULARY + 1, width)
    config = TransformerConfig(width=width, layers=layers, heads=heads)
    return SequenceModel(
        inputs=ShiftedInputs(embedding, start_id=VOCABULARY),
        backbone=Transformer(config),
        head=CategoricalHead(width, VOCABULARY),
    ).eval()


def autoregressive(model: SequenceModel, tokens: int) -> list[int]:
    """The core's decoder."""
    canvas = Canvas(torch.zeros(1, tokens, dtype=torch.int64))
    return Autoregressive().generate(model, canvas).sequences()[0]


@torch.inference_mode()
def core_model_loop(model: SequenceModel, tokens: int) -> list[int]:
    """The core's transformer and cache, without canvas, orders, masks and rules."""
    backbone, inputs, head = model.backbone, model.inputs, model.head
    assert isinstance(inputs, ShiftedInputs)
    assert isinstance(head, CategoricalHead)
    cache = backbone.new_cache(1, tokens)
    assert cache is not None
    token = torch.tensor([[inputs.start_id]])
    slots = torch.arange(tokens)
    out = []
    for place in range(tokens):
        slot = slots[None, place : place + 1]
        cache.begin(slot, None)
        hidden = backbone(
            inputs.embed(token), slot[..., None], view=None, cache=cache, context=None
        )
        cache.settle(1)
        token = head.logits(hidden).argmax(-1)
        out.append(int(token))
    return out


@torch.inference_mode()
def plain_loop(model: SequenceModel, tokens: int) -> list[int]:
    """The same computation with nothing general in it."""
    c = model.backbone.config
    H, d, half = c.heads, c.d, c.d // 2
    w = dict(model.backbone.named_parameters())
    table = model.inputs.embedding.weight
    out_weight = model.head.weight
    angles = torch.arange(tokens)[:, None] * model.backbone.frequencies
    cosine, sine = angles.cos(), angles.sin()
    keys = [torch.zeros(1, H, tokens, d) for _ in range(c.layers)]
    values = [torch.zeros(1, H, tokens, d) for _ in range(c.layers)]

    def norm(x: Tensor, name: str) -> Tensor:
        weight = w[f"{name}.weight"]
        return F.rms_norm(x, weight.shape, weight, c.norm_eps)

    def rotate(x: Tensor, place: int) -> Tensor:
        a, b = x[..., :half], x[..., half:]
        cos, sin = cosine[place], sine[place]
        return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)

    token = model.inputs.start_id
    out = []
    for place in range(tokens):
        x = table[token].view(1, 1, -1)
        for layer in range(c.layers):
            at = f"blocks.{layer}"
            qkv = F.linear(norm(x, f"{at}.attention_norm"), w[f"{at}.attention.qkv.weight"])
            q, k, v = qkv.view(1, 1, 3 * H, d).transpose(1, 2).chunk(3, 1)
            q = rotate(norm(q, f"{at}.attention.q_norm"), place)
            keys[layer][:, :, place : place + 1] = rotate(norm(k, f"{at}.attention.k_norm"), place)
            values[layer][:, :, place : place + 1] = v
            mixed = F.scaled_dot_product_attention(
                q, keys[layer][:, :, : place + 1], values[layer][:, :, : place + 1]
            )
            x = x + F.linear(mixed.view(1, 1, -1), w[f"{at}.attention.out.weight"])
            fed = F.linear(norm(x, f"{at}.feed_norm"), w[f"{at}.feed_in.weight"])
            gate, up = fed.chunk(2, -1)
            x = x + F.linear(F.silu(gate) * up, w[f"{at}.feed_out.weight"])
        token = int(F.linear(norm(x, "norm"), out_weight).argmax())
        out.append(token)
    return out


def transformers_call(layers: int, width: int, heads: int, tokens: int) -> Callable[[], object]:
    """`generate` of the package transformers on a random Llama of the same sizes."""
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=TransformerConfig(width=width, layers=1, heads=heads).feed_forward,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=4096,
        bos_token_id=1,
        eos_token_id=None,
        pad_token_id=0,
    )
    peer = LlamaForCausalLM(config).eval()
    settings = GenerationConfig(
        max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False, pad_token_id=0
    )
    start = torch.ones(1, 1, dtype=torch.int64)

    @torch.inference_mode()
    def call() -> object:
        made = peer.generate(
            start, attention_mask=torch.ones_like(start), generation_config=settings
        )
        assert made.shape[1] == tokens + 1
        return made

    return call


if __name__ == "__main__":
    main()
