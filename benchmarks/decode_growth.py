"""How the time of a token grows with the length of the context, with the cache.

    python benchmarks/decode_growth.py [--json FILE] [--figure PNG] [--lengths 128 256 ...]

Greedy decoding of the models of `decode.py`, one row, one thread: processor milliseconds of a token
behind a context of so many; the median over the tokens of several decodes, without the prefill.
`attention_ms` is that of the attention calls of such a token alone: what must grow. A time that
grew with the square of the length in total would be a straight line through 0 here.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from decode import MODELS

from seqgen.attention import attend
from seqgen.benchmark import print_result, result, write_result
from seqgen.canvas import Canvas
from seqgen.decoders import Autoregressive
from seqgen.linear import pack
from seqgen.model import SequenceModel
from seqgen.models.qwen3 import Qwen3Config
from seqgen.models.qwen3_write import new_qwen3
from seqgen.plots import COLOURS, GRID

LENGTHS = (128, 256, 512, 1024, 2048, 4096)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--lengths", nargs="+", type=int, default=list(LENGTHS))
    parser.add_argument("--tokens", type=int, default=32, help="timed, of each decode")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write the result here")
    parser.add_argument("--figure", type=Path, help="draw the curves into this file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name, config in MODELS.items():
        torch.manual_seed(0)
        model = new_qwen3(config).eval()
        pack(model)
        times: dict[int, list[float]] = {length: [] for length in arguments.lengths}
        for _ in range(arguments.repeats):
            for length, found in times.items():
                found += token_times(model, config, length, arguments.tokens)
        for length, found in times.items():
            rows.append(
                {
                    "case": f"{name}, context {length}",
                    "model": name,
                    "context": length,
                    "token_ms": 1e3 * statistics.median(found),
                    "attention_ms": 1e3 * attention_time(config, length),
                }
            )
            print(f"measured: {rows[-1]['case']}", flush=True)
    outcome = result("decode_growth", rows)
    print_result(outcome)
    if arguments.json:
        write_result(outcome, arguments.json)
    if arguments.figure:
        draw(outcome, arguments.figure)


def token_times(model: SequenceModel, config: Qwen3Config, length: int, new: int) -> list[float]:
    """Seconds of each token behind a prompt of `length`, without the first pass, the prefill."""
    ids = torch.randint(1, config.vocabulary - 1, (1, length))
    canvas = Canvas(torch.cat([ids, ids.new_zeros(1, new + 1)], dim=1), prompt=length)
    found = []
    events = Autoregressive().stream(model, canvas)
    next(events)
    started = time.process_time()
    for _ in events:
        now = time.process_time()
        found.append(now - started)
        started = now
    return found


@torch.inference_mode()
def attention_time(config: Qwen3Config, length: int, repeats: int = 30) -> float:
    """Seconds of the attention of one token in all layers, over a cache with room to spare."""
    heads, kv, d = config.heads, config.kv_heads, config.head_width
    query = torch.randn(1, kv, heads // kv, d)  # as the transformer groups them
    cached = torch.randn(config.layers, 2, 1, kv, length + 64, d)[:, :, :, :, :length]
    found = []
    for _ in range(repeats):
        started = time.process_time()
        for key, value in cached:
            attend(query, key, value)
        found.append(time.process_time() - started)
    return statistics.median(found)


def draw(outcome: dict[str, Any], path: Path) -> None:
    """Time a token against the length of the context, a line a model."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5, 4.2), layout="constrained")
    axis = figure.subplots()
    for name, colour in zip(MODELS, COLOURS, strict=False):
        own = [row for row in outcome["rows"] if row["model"] == name]
        lengths = [row["context"] for row in own]
        axis.plot(lengths, [row["token_ms"] for row in own], "o-", color=colour, label=name)
        axis.plot(lengths, [row["attention_ms"] for row in own], ":", color=colour)
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    axis.set_xticks(lengths, [str(length) for length in lengths])
    axis.set_xlabel("tokens of context")
    axis.set_ylabel("processor ms a token (dotted: attention alone)")
    axis.grid(color=GRID)
    axis.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


if __name__ == "__main__":
    main()
