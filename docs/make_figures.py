"""Draws the figures of the documentation from the events of real decodes.

    python docs/make_figures.py

The model is the one that `seqgen plugins new` ships: a small transformer that reads written dates.
One set of weights, four recipes; each panel is what `Decoder.stream` said, pass after pass.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FIGURES = ROOT / "docs" / "figures"
WRITTEN = "21st of October, 2015"

OPEN, EARLIER, NOW = "#f2f2f2", "#c6dbef", "#2171b5"


@dataclass(frozen=True)
class Panel:
    """One decode: after each pass, which characters stand, and which of them are new.

    Attributes:
        title: name of the decoder.
        passes: for every forward pass, one (character, state) a slot; state is one of the colours.
        blocks: slots at which a group begins.
    """

    title: str
    passes: list[list[tuple[str, str]]]
    blocks: tuple[int, ...]


def decode(written: str) -> list[Panel]:
    """Decode one date with four decoders."""
    import torch

    from seqgen.decoders import Autoregressive, BlockDiffusion, NonAutoregressive

    sys.path.insert(0, str(ROOT / "cli" / "seqgen_cli" / "template"))
    try:
        from seqgen_myplugin.model import LENGTH, WRITES, empty_canvas, load_model
    finally:
        sys.path.pop(0)

    torch.set_num_threads(1)
    weights = ROOT / "cli/seqgen_cli/template/seqgen_myplugin/assets/model.safetensors"
    model = load_model(weights, torch.device("cpu"), torch.float32)
    recipes = [
        ("autoregressive", Autoregressive(), tuple(range(LENGTH + 1))),
        ("one-pass non-autoregressive", NonAutoregressive(), (0,)),
        ("mask-predict, 4 steps", NonAutoregressive(steps=4), (0,)),
        (
            "block diffusion, blocks of 4",
            BlockDiffusion(block_length=4, remasking="low_confidence_static", steps=2),
            (0, 4, 8),
        ),
    ]
    panels = []
    with torch.inference_mode():
        context = model.read([written])
    for title, recipe, blocks in recipes:
        canvas = empty_canvas(1, None, torch.device("cpu"))
        row = [("^", EARLIER)] + [("", OPEN)] * LENGTH
        passes = []
        for event in recipe.stream(model.decoder, canvas, context):
            row = [(text, EARLIER if colour == NOW else colour) for text, colour in row]
            kept = event.kept_BQ[0].tolist()
            for slot, value, keep in zip(
                event.slots_BQ[0].tolist(), event.values[0].tolist(), kept, strict=True
            ):
                if keep:
                    row[slot] = (WRITES[value], NOW)
            passes.append(list(row))
        panels.append(Panel(title, passes, blocks))
    return panels


def draw(panels: list[Panel], file: Path) -> None:
    """Panels side by side; slots from left to right, forward passes from top to bottom."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.patches import Rectangle

    deepest = max(len(panel.passes) for panel in panels)
    figure, axes = plt.subplots(
        1, len(panels), figsize=(3.1 * len(panels), 0.28 * deepest + 0.9), constrained_layout=True
    )
    for axis, panel in zip(axes, panels, strict=True):
        for y, row in enumerate(panel.passes):
            for x, (text, colour) in enumerate(row):
                axis.add_patch(
                    Rectangle((x, y), 1, 1, facecolor=colour, edgecolor="white", linewidth=1)
                )
                ink = "white" if colour == NOW else "black"
                axis.text(x + 0.5, y + 0.52, text, ha="center", va="center", size=8, color=ink)
        for x in panel.blocks[1:]:
            axis.plot([x, x], [0, len(panel.passes)], color="black", linewidth=0.8)
        slots = len(panel.passes[0])
        axis.set(xlim=(-0.1, slots + 0.1), ylim=(deepest + 0.1, -0.1))
        count = len(panel.passes)
        axis.set_title(f"{panel.title}: {count} {'pass' if count == 1 else 'passes'}", size=9)
        axis.set_xticks([])
        axis.set_yticks([y + 0.5 for y in range(count)], [str(y) for y in range(count)], size=7)
        axis.tick_params(length=0)
        for side in axis.spines.values():
            side.set_visible(False)
    axes[0].set_ylabel("forward pass", size=8)
    figure.suptitle(
        f"One model, four decoders: {WRITTEN!r}. Dark: committed in this pass; light blue: "
        "committed before; grey: open; lines: borders of groups.",
        size=9,
    )
    figure.savefig(file, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    FIGURES.mkdir(exist_ok=True)
    draw(decode(WRITTEN), FIGURES / "decoders.png")
