"""Tokens a second of SDAR-1.7B and SDAR-4B on a GPU, against what its bandwidth allows.

    python benchmarks/sdar_gpu.py [--json FILE] [--sizes 1.7B 4B] [--batches 1 16 128] [--graphs]

Random weights of the published shapes in bfloat16: what a pass costs does not depend on them. The
prompt has 128 tokens, 256 are generated, in two ways that bracket every real one:

- `one`: one token a row and pass (static remasking with K steps): the slowest decode there is;
- `block`: every slot of a block is sure at once (threshold 0), K tokens a row and pass.

A pass has to read all weights (the head is the embedding table) and the keys and values in use.
`limit` is how many tokens a second that allows, at the bandwidth measured with a large copy and the
mean cache length; `share` is what was reached of it.

--graphs adds the time of one pass in the middle of the decode, launched as usual and replayed as a
CUDA graph: the difference is what launching costs.

Without a CUDA device a smoke version runs on small shapes; its figures mean nothing.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from block_attention_gpu import CUDA, DEVICE, copy_bandwidth
from torch import nn

from seqgen.benchmark import interleaved, print_result, result, write_result
from seqgen.canvas import Canvas
from seqgen.decoders import BlockDiffusion
from seqgen.heads import CategoricalHead
from seqgen.inputs import MaskedInputs
from seqgen.model import SequenceModel, parameter_count
from seqgen.orders import Blocks
from seqgen.transformer import Transformer, TransformerConfig


@dataclass(frozen=True)
class Shape:
    """Sizes of a model and of what it generates."""

    transformer: TransformerConfig
    vocabulary: int
    prompt: int
    new: int


def qwen3(width: int, hidden: int, layers: int, heads: int) -> TransformerConfig:
    return TransformerConfig(
        width=width,
        hidden=hidden,
        layers=layers,
        heads=heads,
        kv_heads=8,
        head_width=128,
        rope_theta=1e6,
    )


SHAPES = {
    "1.7B": Shape(qwen3(2048, 6144, 28, 16), 151936, 128, 256),
    "4B": Shape(qwen3(2560, 9728, 36, 32), 151936, 128, 256),
}
SMOKE = {
    "smoke": Shape(
        TransformerConfig(width=32, hidden=64, layers=2, heads=4, kv_heads=2, head_width=8),
        64,
        8,
        8,
    )
}
K = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 16, 128])
    parser.add_argument("--graphs", action="store_true", help="time a pass as a CUDA graph too")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write the result here")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if CUDA:
        shapes, batches = {name: SHAPES[name] for name in arguments.sizes}, arguments.batches
    else:
        print("no CUDA device is at hand: a smoke run on small shapes, its figures mean nothing")
        shapes, batches = SMOKE, [1, 2]
    bandwidth = copy_bandwidth(1 << (30 if CUDA else 20))
    rows = []
    for name, shape in shapes.items():
        model = make_model(shape)
        for batch in batches:
            rows.append(measure(name, shape, model, batch, bandwidth, arguments))
        del model
    outcome = result("sdar_gpu", rows)
    outcome["machine"]["device"] = torch.cuda.get_device_name() if CUDA else "none (smoke run)"
    outcome["machine"]["copy_gigabytes_a_second"] = round(bandwidth / 1e9, 1)
    print_result(outcome)
    if arguments.json:
        write_result(outcome, arguments.json)


def make_model(shape: Shape) -> SequenceModel:
    """A random SDAR: masked inputs, a head that shares the embedding."""
    torch.manual_seed(0)
    with DEVICE:
        embedding = nn.Embedding(shape.vocabulary, shape.transformer.width)
        head = CategoricalHead(shape.transformer.width, shape.vocabulary, tied=embedding)
        backbone = Transformer(shape.transformer)
    inputs = MaskedInputs(embedding, mask_id=shape.vocabulary - 1)
    model = SequenceModel(inputs=inputs, backbone=backbone, head=head)
    return model.to(torch.bfloat16 if CUDA else torch.float32).eval()


def measure(
    name: str,
    shape: Shape,
    model: SequenceModel,
    batch: int,
    bandwidth: float,
    arguments: argparse.Namespace,
) -> dict[str, object]:
    """One row of the table."""
    decoders = {
        "one": BlockDiffusion(block_length=K, remasking="low_confidence_static"),
        "block": BlockDiffusion(block_length=K, threshold=0.0),
    }
    calls: dict[str, Callable[[], object]] = {
        way: partial(generate, model, shape, decoder, batch) for way, decoder in decoders.items()
    }
    times = interleaved(calls, repeats=arguments.repeats)
    limit = pass_bytes(model, shape, batch) / bandwidth  # seconds a pass
    row: dict[str, object] = {"case": f"SDAR-{name}, batch {batch}, K {K}"}
    for way, tokens in (("one", 1), ("block", K)):
        reached = batch * shape.new / (times[way].wall_ms / 1e3)
        row[f"{way}_tokens_a_second"] = reached
        row[f"{way}_limit"] = batch * tokens / limit
        row[f"{way}_share"] = reached / (batch * tokens / limit)
    row["limit_ms_a_pass"] = 1e3 * limit
    if arguments.graphs:
        row |= time_a_pass(model, shape, batch, arguments.repeats)
    return row


def generate(model: SequenceModel, shape: Shape, decoder: BlockDiffusion, batch: int) -> None:
    values = torch.ones(batch, shape.prompt + shape.new, dtype=torch.int64, device=DEVICE)
    canvas = Canvas(values, prompt=shape.prompt)
    decoder.generate(model, canvas)
    wait()
    if int(canvas.state_BS.sum()) != values.numel():
        raise SystemExit("a slot was left open")


def pass_bytes(model: SequenceModel, shape: Shape, batch: int) -> float:
    """What a pass must read: all weights (the head is the embedding table) and the cache used."""
    sizes = shape.transformer
    size = model.backbone.norm.weight.element_size()
    entries = batch * (shape.prompt + shape.new / 2)
    cached = 2 * sizes.layers * sizes.G * sizes.d * entries
    return size * (parameter_count(model) + cached)


def time_a_pass(model: SequenceModel, shape: Shape, batch: int, repeats: int) -> dict[str, object]:
    """Milliseconds of a refinement in the middle of the decode, launched and replayed."""
    slots = shape.prompt + shape.new
    canvas = Canvas(torch.ones(batch, slots, dtype=torch.int64, device=DEVICE), prompt=shape.prompt)
    table = Blocks(K).table(slots, DEVICE)
    cache = model.backbone.new_cache(batch, slots)
    assert cache is not None
    settled = (shape.prompt + shape.new // 2) // K * K
    cache.begin(torch.arange(settled, device=DEVICE)[None], None)
    cache.settle(settled)
    block = torch.arange(settled, settled + K, device=DEVICE)[None]

    def step() -> object:
        hidden = model.hidden(canvas, table, block, alone=True, cache=cache)
        return model.head.logits(hidden).argmax(dim=-1)

    calls: dict[str, Callable[[], object]] = {"pass": lambda: (step(), wait())}
    if CUDA:
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            for _ in range(3):  # compiles kernels and fills the allocator, outside the capture
                step()
        wait()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            step()
        calls["graph"] = lambda: (graph.replay(), wait())
    times = interleaved(calls, repeats=max(repeats, 5), warm_up=2)
    return {f"{name}_ms": time.wall_ms for name, time in times.items()}


def wait() -> None:
    if CUDA:
        torch.cuda.synchronize()


if __name__ == "__main__":
    with torch.inference_mode():
        main()
