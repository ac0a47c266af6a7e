"""Images scale by scale, ours against the published VAR code: same weights, one thread.

    VAR_SRC=path/to/VAR python benchmarks/var_speed.py [--json FILE]

A case is labels -> images in [0, 1] with guidance (cfg 1.5): the transformer's six passes at the
scales 1, 2, 3, 4, 6, 8 and the tokenizer's decoder to 128 x 128 pixels, in turns; figures are
medians of CPU time. `greedy` takes the most probable token (their top_k=1), `sampled` draws as
published, top-k 900 and top-p 0.96. Weights are random: a transformer of 4 layers of 256, a
tokenizer of 4096 codes. Before anything is timed both must have made the same greedy images.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "parity"))
import var_reference

from seqgen.benchmark import interleaved, print_result, result, write_result
from seqgen.guidance import guided_context
from seqgen.linear import pack
from seqgen_images.decoding import DecodingConfig
from seqgen_images.official.var import VarModel, from_states, ramp

SCALES = (1, 2, 3, 4, 6, 8)
CFG = 1.5
OPTIONS = {
    "greedy": (DecodingConfig(temperature=0), {"top_k": 1}),
    "sampled": (DecodingConfig(top_k=900, top_p=0.96), {"top_k": 900, "top_p": 0.96}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batches", default="1,8")
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--json", type=Path, help="also write the result here")
    arguments = parser.parse_args()
    path = var_reference.source()
    if path is None:
        print(f"var_speed: skipped, {var_reference.HOW}", file=sys.stderr)
        return
    torch.set_num_threads(1)
    theirs = var_reference.build(
        path, seed=0, scales=SCALES, codes=4096, latent=32, depth=4, width=256, heads=4,
        classes=1000,
    )  # fmt: skip
    model = from_states(*theirs.states())
    pack(model)
    rows = []
    for batch in map(int, arguments.batches.split(",")):
        labels = torch.arange(batch)
        for name, (options, published) in OPTIONS.items():
            calls: dict[str, Callable[[], torch.Tensor]] = {
                "ours_ms": partial(ours, model, labels, options),
                "peer_ms": partial(peer, theirs.var, labels, published),
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
    outcome = result("var_speed", rows)
    print_result(outcome)
    if arguments.json:
        write_result(outcome, arguments.json)


@torch.inference_mode()
def ours(model: VarModel, labels_B: torch.Tensor, options: DecodingConfig) -> torch.Tensor:
    """Images [B, 3, H, W] in [0, 1]."""
    labels_BA = labels_B[:, None]
    null_BA = torch.full_like(labels_BA, -1)
    context = guided_context(model.context(labels_BA), model.context(null_BA))
    canvas = model.canvas(torch.arange(len(labels_B)))
    done = model.decoder(options).generate(model.guided(ramp(CFG)), canvas, context)
    return model.tokenizer.decode(done.values).add_(1).mul_(0.5)


@torch.inference_mode()
def peer(var: torch.nn.Module, labels_B: torch.Tensor, options: dict[str, float]) -> torch.Tensor:
    """The same; the published function is one call."""
    images: torch.Tensor = var.autoregressive_infer_cfg(
        len(labels_B), labels_B, g_seed=0, cfg=CFG, **options
    )
    return images


def check_equal(calls: dict[str, Callable[[], torch.Tensor]]) -> None:
    got, want = (call() for call in calls.values())
    furthest = (got - want).abs().max().item()
    if furthest > 1e-4:
        raise SystemExit(f"the greedy images differ by {furthest:.2g}")
    print(f"the same {len(got)} images, to {furthest:.1g}")


if __name__ == "__main__":
    main()
