"""Autoregressive models converted to block diffusion: quality, and tokens a forward pass.

    python benchmarks/conversion.py [--text AR BLOCK...] [--images MODEL] [--json FILE]

Without arguments the shipped models are measured: characters, and avatars. `--text` takes
folders that `seqgen train --plugin text` wrote, the autoregressive one first; `--images` a card or
folder with a raster model and its conversion, measured with `seqgen eval`.

Text, all of it on tales held out from training (`seqgen_text.corpus`):

- `bits`: bits a character; for block diffusion an upper bound of them, averaged over orders.
- `finished`: of tales whose end follows from what is given, the share ended rightly, greedily.
- `true`: of tales sampled from nothing (temperature 1), the share that are whole and right.
- `..._per_pass`: tokens decided per forward pass, as if every tale had been decoded alone.

Shares of N tales have a standard error of sqrt(p (1 - p) / N).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

from seqgen.benchmark import print_result, result, write_result
from seqgen.decoders import BlockDiffusion
from seqgen.decoders.base import Decoder
from seqgen.models.qwen3 import load_qwen3
from seqgen.orders import Blocks, Raster
from seqgen_text.documents import Documents, read_documents
from seqgen_text.measures import bits_per_character, finished_tales, true_tales
from seqgen_text.training import TextTraining, decoder_of

THRESHOLDS = (0.5, 0.7, 0.8, 0.9, 0.95, 0.99)
IMAGE_THRESHOLDS = (0.3, 0.5, 0.7, 0.9)
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--text", nargs="+", type=Path, metavar="FOLDER", help="AR, then blocks")
    parser.add_argument(
        "--images", default="avatars", metavar="MODEL", help="card or folder; empty: none"
    )
    parser.add_argument("--tales", type=int, default=500, help="tales a figure")
    parser.add_argument("--pictures", type=int, default=512, help="images a figure")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--figure", type=Path, help="picture to draw (needs --json or a run)")
    given = parser.parse_args()
    torch.set_num_threads(1)
    assets = Path(str(files("seqgen_text") / "assets"))
    folders = given.text or [assets / "text-tiny", assets / "text-tiny-block"]
    documents = read_documents(None, count=TextTraining().count)
    # The images first: they are quick, and tell early if something is missing.
    pictures = list(image_rows(given.images, given.pictures)) if given.images else []
    rows = [row for folder in folders for row in text_rows(folder, documents, given.tales)]
    rows += pictures
    outcome = result("conversion", rows)
    print_result(outcome)
    if given.json:
        write_result(outcome, given.json)
    if given.figure:
        draw(outcome["rows"], given.figure)


def text_rows(folder: Path, documents: Documents, count: int) -> Iterable[Row]:
    """One model: a row for every way to decode it."""
    model, config, tokenizer = load_qwen3(folder)
    assert tokenizer is not None
    tales = [tale for tale in documents.tales if tale.given][:count]
    order = Raster() if config.mask_id is None else Blocks(config.block_length)
    bits = bits_per_character(
        model, tokenizer, documents.held_out[:count], order, end_id=config.stop_ids[0], seed=0
    )
    greedy, sampled = (decoder_of(config, tokenizer, temperature=t) for t in (0.0, 1.0))
    for (name, finish), (_, free) in zip(_variants(greedy), _variants(sampled), strict=True):
        done = finished_tales(model, tokenizer, finish, tales)
        drawn = true_tales(model, tokenizer, free, count=count, seed=0)
        yield {
            "case": "text",
            "block": config.block_length,
            "commit": name,
            "bits": bits,
            "finished": done.share,
            "finished_per_pass": done.tokens_per_forward,
            "true": drawn.share,
            "true_per_pass": drawn.tokens_per_forward,
        }


def _variants(decoder: Decoder) -> list[tuple[str, Decoder]]:
    """The commit rules that are compared; an autoregressive model has one."""
    if not isinstance(decoder, BlockDiffusion):
        return [("ar", decoder)]
    one = replace(decoder, remasking="low_confidence_static")
    return [
        *((f"above {x}", replace(decoder, threshold=x)) for x in THRESHOLDS),
        ("one a pass", one),
        ("two a pass", replace(one, steps=decoder.block_length // 2)),
    ]


def image_rows(model: str, count: int) -> Iterable[Row]:
    """Raster, then blocks, judged by the images' own judge."""
    yield _image_row(model, count, "raster", "ar", ())
    for threshold in IMAGE_THRESHOLDS:
        sets = (f"threshold={threshold}",)
        yield _image_row(model, count, "block-diffusion", f"above {threshold}", sets)
    yield _image_row(model, count, "block-diffusion", "two a pass", ("remasking=static", "steps=4"))


def _image_row(model: str, count: int, decoder: str, name: str, sets: Sequence[str]) -> Row:
    arguments = ["eval", "--plugin", "images", "--model", model, "--decoder", decoder, "--json"]
    for assignment in (f"count={count}", *sets):
        arguments += ["--set", assignment]
    command = [sys.executable, "-m", "seqgen", *arguments, "--threads", "1"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr[-2000:]}")
    score = json.loads(done.stdout)
    return {
        "case": "images",
        "commit": name,
        "accuracy": score["accuracy"],
        "frechet": score.get("frechet"),  # of few images there is none
        "per_pass": score["tokens"] / score["items"] / score["passes"],
    }


def draw(rows: Sequence[Row], path: Path) -> None:
    """Quality against tokens a pass: one line a block length, one point a commit rule."""
    from matplotlib.figure import Figure

    from seqgen.plots import COLOURS, SHAPES

    panels = [
        ("text: tales finished rightly", "share", "text", "finished", "finished_per_pass"),
        ("text: sampled tales that are true", "share", "text", "true", "true_per_pass"),
    ]
    if any(row["case"] == "images" for row in rows):
        title = "images: distance from real ones, lower is better"
        panels.append((title, "Frechet distance", "images", "frechet", "per_pass"))
    figure = Figure(figsize=(4.6 * len(panels), 3.8), layout="constrained")
    for axes, (title, label_y, case, quality, speed) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True
    ):
        chosen = [row for row in rows if row["case"] == case]
        ar = next(row for row in chosen if row["commit"] == "ar")
        axes.axhline(ar[quality], color="#999999", linewidth=0.8, linestyle="--")
        axes.scatter(ar[speed], ar[quality], color="#333333", zorder=3, label="autoregressive")
        lengths = sorted({row.get("block", 0) for row in chosen if row["commit"] != "ar"})
        for place, length in enumerate(lengths):
            line = [r for r in chosen if r["commit"] != "ar" and r.get("block", 0) == length]
            line = [row for row in line if row["commit"].startswith("above")]
            label = f"blocks of {length}" if length else "rows as blocks"
            axes.plot(
                [row[speed] for row in line], [row[quality] for row in line],
                color=COLOURS[place], marker=SHAPES[place], label=label,
            )  # fmt: skip
            for row in (line[0], line[-1]):
                axes.annotate(
                    row["commit"].removeprefix("above "), (row[speed], row[quality]),
                    textcoords="offset points", xytext=(4, 5), fontsize=7,
                )  # fmt: skip
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("tokens a forward pass (points: confidence threshold)")
        axes.set_ylabel(label_y)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#dddddd", linewidth=0.6)
        axes.legend(frameon=False, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
