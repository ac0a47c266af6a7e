"""Time a token: our decoders against transformers' `generate` and SDAR's own loop, same weights.

    PYTHONPATH=core .peers/transformers/bin/python benchmarks/decode.py [--json FILE]
    SDAR_SRC=path/to/SDAR PYTHONPATH=core .peers/transformers/bin/python benchmarks/decode.py

Random Qwen3 models, written by us and read by each; a prompt of 32 tokens, 128 new ones, prefill
included; one thread; calls in turns, medians; processor and wall milliseconds a token and row-step
(a batch of 8 decodes 8 tokens in one). Columns:

- `transformers`: greedy `generate`, SDPA attention, its default cache;
- `ar`: `Autoregressive`; the same tokens, or nothing is timed;
- `ar_compiled`, `block_K_compiled`: after `seqgen.compiled.compiled(model)`, compiled before;
- `ar_bf16`, `ar_int8` (`--weights`): with weights in bfloat16 and in 8 bits (`seqgen.linear`);
- `block_K`: `BlockDiffusion` of an SDAR model of these sizes, a token a pass (static, K steps): the
  least it can win. `sure_K`: every token is sure at once (threshold 0): the most;
- `speculative`: n-gram drafts. How many tokens a pass it wins depends on the text: on what random
  weights repeat it is `tokens_a_pass`, and ordinary text gives less;
- `sdar_K`, and `ours_as_sdar_K`: the published loop and ours with its settings (top-k 1 of a
  softmax, topk ties), the same tokens, at batch 1, which is all that it can do.

Without transformers or SDAR_SRC those columns are left out, and the reason is printed.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import decode_peers as peers
import torch
from torch import Tensor

from seqgen.benchmark import Timing, interleaved, print_result, result, write_result
from seqgen.canvas import Canvas
from seqgen.compiled import compiled
from seqgen.decoders import Autoregressive, BlockDiffusion, Speculative
from seqgen.decoders.base import Decoder, Generated
from seqgen.linear import pack
from seqgen.logits import Sampling, TopK
from seqgen.model import SequenceModel
from seqgen.models.qwen3 import Qwen3Config, load_qwen3
from seqgen.models.qwen3_write import new_qwen3, write_qwen3

PROMPT, NEW = 32, 128
BLOCKS = (4, 8, 16)
COMPILED = ("ar", "block", "ours")
"""Ways of decoding that are also timed compiled."""
AS_SDAR = Sampling(filters=(TopK(1),), confidence="filtered")


def qwen3(layers: int, width: int, heads: int, head_width: int, vocabulary: int) -> Qwen3Config:
    return Qwen3Config(
        vocabulary=vocabulary,
        width=width,
        hidden=3 * width,
        layers=layers,
        heads=heads,
        kv_heads=2,
        head_width=head_width,
        rope_theta=1e6,
        norm_eps=1e-6,
        tied=False,
        max_positions=8192,
    )


MODELS = {
    "1 layer, d64": qwen3(1, 64, 4, 16, 512),
    "4 layers, d128": qwen3(4, 128, 4, 32, 512),
    "6 layers, d384": qwen3(6, 384, 6, 64, 4096),
}


@dataclass(frozen=True)
class Folders:
    """The same weights as a Qwen3 and as an SDAR model."""

    ar: Path
    sdar: Path
    config: Qwen3Config

    @property
    def mask_id(self) -> int:
        return self.config.vocabulary - 1


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--tokens", type=int, default=NEW)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--eager", action="store_true", help="do not compile anything")
    parser.add_argument("--weights", action="store_true", help="time bfloat16 and int8 weights too")
    parser.add_argument("--json", type=Path, help="also write the result here")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    sdar = peers.sdar_source()
    if not peers.has_transformers():
        print(f"no column transformers: {peers.HOW_TRANSFORMERS}")
    if sdar is None:
        print(f"no columns sdar: {peers.HOW_SDAR}, and transformers and einops must be installed")
    rows = []
    for name in arguments.models:
        with tempfile.TemporaryDirectory() as folder:
            folders = write_models(MODELS[name], Path(folder))
            for batch in arguments.batches:
                rows.append(measure(f"{name}, batch {batch}", folders, batch, sdar, arguments))
                print(f"measured: {rows[-1]['case']}", flush=True)
    outcome = result("decode", rows)
    if peers.has_transformers():
        import transformers

        outcome["machine"]["transformers"] = transformers.__version__
    print_columns(outcome)
    if arguments.json:
        write_result(outcome, arguments.json)


def write_models(config: Qwen3Config, folder: Path) -> Folders:
    torch.manual_seed(0)
    model = new_qwen3(config)
    ar = write_qwen3(folder / "ar", model, config, dtype=torch.float32)
    masked = replace(config, mask_id=config.vocabulary - 1, block_length=4)
    sdar = write_qwen3(folder / "sdar", model, masked, dtype=torch.float32)
    return Folders(ar, sdar, config)


def measure(
    case: str, folders: Folders, batch: int, sdar: Path | None, arguments: argparse.Namespace
) -> dict[str, object]:
    """One row of the table."""
    new = arguments.tokens
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(1, folders.config.vocabulary - 1, (batch, PROMPT), generator=generator)
    model, block_model = load(folders.ar), load(folders.sdar)
    run = partial(decode, ids=ids, new=new)
    calls: dict[str, Callable[[], object]] = {
        "ar": partial(run, Autoregressive(), model),
    }
    if peers.has_transformers():
        calls["transformers"] = peers.transformers_call(folders.ar, ids, new)
    for block in BLOCKS:
        slow = BlockDiffusion(block_length=block, remasking="low_confidence_static")
        calls[f"block_{block}"] = partial(run, slow, block_model)
        calls[f"sure_{block}"] = partial(
            run, BlockDiffusion(block_length=block, threshold=0.0), block_model
        )
    calls["speculative"] = partial(run, Speculative(), model)
    pairs = [("transformers", "ar"), ("speculative", "ar")]
    if sdar is not None and batch == 1:
        for block in BLOCKS:
            theirs, ours = f"sdar_{block}", f"ours_as_sdar_{block}"
            calls[theirs] = peers.sdar_call(
                sdar, folders.sdar, ids, new, mask_id=folders.mask_id, block=block
            )
            calls[ours] = partial(run, as_sdar(block), block_model)
            pairs.append((theirs, ours))
    if not arguments.eager:
        for name, call in list(calls.items()):
            if isinstance(call, partial) and name.startswith(COMPILED):
                decoder, _ = call.args
                # One each: a model's compiled passes are numbered.
                other = compiled(load(folders.ar if name == "ar" else folders.sdar))
                calls[f"{name}_compiled"] = partial(run, decoder, other)
                pairs.append((f"{name}_compiled", name))
    if arguments.weights:
        calls |= other_weights(folders.ar, run)
    for one, other in pairs:
        if one in calls:
            check_equal(case, one, calls[one], other, calls[other])
    times = interleaved(calls, repeats=arguments.repeats)
    row: dict[str, object] = {"case": case}
    for name, time in times.items():
        row[f"{name}_cpu_ms"], row[f"{name}_wall_ms"] = time.cpu_ms / new, time.wall_ms / new
    passes = decode(Speculative(), model, ids=ids, new=new).forwards
    return row | {"tokens_a_pass": new / passes} | ratios(times)


def ratios(times: dict[str, Timing]) -> dict[str, object]:
    """How many times as fast as the peer, in processor time: `NAME_gain`."""
    found: dict[str, object] = {}
    for name, time in times.items():
        if name.startswith("ours_as_"):
            peer = times[name.removeprefix("ours_as_").removesuffix("_compiled")]
        elif "transformers" in times and name != "transformers" and not name.startswith("sdar"):
            peer = times["transformers"]
        else:
            continue
        found[f"{name}_gain"] = peer.cpu_ms / time.cpu_ms
    return found


def as_sdar(block: int) -> BlockDiffusion:
    return BlockDiffusion(
        block_length=block, remasking="low_confidence_static", ties="topk", sampling=AS_SDAR
    )


def load(folder: Path) -> SequenceModel:
    model, _, _ = load_qwen3(folder)
    pack(model)
    return model


def decode(decoder: Decoder, model: SequenceModel, *, ids: Tensor, new: int) -> Generated:
    canvas = Canvas(torch.cat([ids, ids.new_zeros(len(ids), new)], dim=1), prompt=ids.shape[1])
    return decoder.generate(model, canvas)


def other_weights(folder: Path, run: Callable[..., object]) -> dict[str, Callable[[], object]]:
    """The autoregressive decode with smaller weights; its tokens may differ."""
    from seqgen.linear import quantize

    half, _, _ = load_qwen3(folder, dtype=torch.bfloat16)
    small, _, _ = load_qwen3(folder)
    quantize(small)
    return {
        "ar_bf16": partial(run, Autoregressive(), half),
        "ar_int8": partial(run, Autoregressive(), small),
    }


def check_equal(
    case: str, one: str, call: Callable[[], object], other: str, own: Callable[[], object]
) -> None:
    """The tokens of two ways must be the same before they are timed."""
    found, want = tokens(call()), tokens(own())
    if not torch.equal(found, want):
        rows = (found != want).any(dim=1).sum()
        raise SystemExit(f"{case}: {one} and {other} differ in {rows} of {len(found)} rows")


def tokens(made: object) -> Tensor:
    if isinstance(made, Generated):
        return made.values
    assert isinstance(made, Tensor)
    return made


def print_columns(outcome: dict[str, Any]) -> None:
    """The table for a person: a line a way of decoding, a column a case."""
    rows = outcome["rows"]
    names = dict.fromkeys(n.removesuffix("_cpu_ms") for row in rows for n in row)
    table = []
    for name in names:
        if not any(f"{name}_cpu_ms" in row for row in rows):
            continue
        line: dict[str, object] = {"ms a token: cpu, wall (cpu gain)": name}
        for row in rows:
            time, wall = row.get(f"{name}_cpu_ms"), row.get(f"{name}_wall_ms")
            gain = row.get(f"{name}_gain")
            shown = None if time is None or wall is None else f"{time:.3g}, {wall:.3g}"
            line[row["case"]] = shown if gain is None else f"{shown} ({gain:.2f}x)"
        table.append(line)
    print_result({**outcome, "rows": table})


if __name__ == "__main__":
    main()
