"""Image tokens one by one, ours against the published LlamaGen code: same weights, one thread.

    LLAMAGEN_SRC=path/to/LlamaGen python benchmarks/llamagen_speed.py [--json FILE]

A case is classes -> 8 x 8 tokens with guidance 2, cached, in turns; figures are medians of CPU
time. `greedy` takes the most probable token, `sampled` draws at temperature 1 with top-k 100.
Weights are random: 4 layers of 256, 512 codes, 3.9 M parameters. Before anything is timed both must
have chosen the same greedy tokens. nar_speed.py does the same with the published NAR code.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "parity"))
import llamagen_reference
from llamagen_reference import Published

from seqgen.benchmark import interleaved, print_result, result, write_result
from seqgen.guidance import Guidance, guided_context
from seqgen.linear import pack
from seqgen_images.decoding import DecodingConfig
from seqgen_images.official import llamagen
from seqgen_images.official.llamagen import LlamaGen

CFG = 2.0
OPTIONS = {
    "greedy": (DecodingConfig(temperature=0), {"sample_logits": False}),
    "sampled": (DecodingConfig(top_k=100), {"top_k": 100}),
}


def main() -> None:
    compare("llamagen_speed", "llamagen", llamagen.from_state, __doc__ or "")


def compare(benchmark: str, kind: str, load: Callable[..., LlamaGen], about: str) -> None:
    """Run the cases of a published model and print the table."""
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("--batches", default="1,16")
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--json", type=Path, help="also write the result here")
    arguments = parser.parse_args()
    path = llamagen_reference.source(kind)
    if path is None:
        print(f"{benchmark}: skipped, {llamagen_reference.HOW[kind]}", file=sys.stderr)
        return
    torch.set_num_threads(1)
    theirs = llamagen_reference.build(
        path, seed=0, side=8, layers=4, width=256, heads=4, codes=512, classes=1000
    )
    model = load(theirs.gpt.state_dict(), side=8, heads=4)
    pack(model)
    rows = []
    for batch in map(int, arguments.batches.split(",")):
        labels = torch.arange(batch)
        for name, (options, published) in OPTIONS.items():
            calls: dict[str, Callable[[], torch.Tensor]] = {
                "ours_ms": partial(ours, model, labels, options),
                "peer_ms": partial(peer, theirs, labels, published),
            }
            if name == "greedy":
                check_equal(calls)
            times = interleaved(calls, repeats=arguments.repeats)
            rows.append(
                {
                    "case": f"batch {batch}, {name}",
                    **{key: time.cpu_ms for key, time in times.items()},
                    "ours_images_a_second": 1e3 * batch / times["ours_ms"].cpu_ms,
                    "ratio": times["peer_ms"].cpu_ms / times["ours_ms"].cpu_ms,
                }
            )
    outcome = result(benchmark, rows)
    print_result(outcome)
    if arguments.json:
        write_result(outcome, arguments.json)


@torch.inference_mode()
def ours(model: LlamaGen, labels_B: torch.Tensor, options: DecodingConfig) -> torch.Tensor:
    """Tokens [B, 64]."""
    labels_BA = labels_B[:, None]
    null_BA = torch.full_like(labels_BA, -1)
    context = guided_context(model.context(labels_BA), model.context(null_BA))
    canvas = model.canvas(torch.arange(len(labels_B)))
    done = model.decoder(options).generate(model.guided(Guidance(CFG)), canvas, context)
    return done.values[:, model.prefix :]


def peer(model: Published, labels_B: torch.Tensor, options: dict[str, Any]) -> torch.Tensor:
    """The same by the published loop."""
    return model.tokens(labels_B, cfg=CFG, **options)


def check_equal(calls: dict[str, Callable[[], torch.Tensor]]) -> None:
    got, want = (call() for call in calls.values())
    if different := int((got != want).sum()):
        raise SystemExit(f"{different} of {want.numel()} greedy tokens differ")
    print(f"the same {want.numel()} tokens of {len(want)} images")


if __name__ == "__main__":
    main()
