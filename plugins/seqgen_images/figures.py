"""Figures of `seqgen compare` and `seqgen eval --plot`: images beside what they are called.

Rows are output rows whose `file` is still an `Artifact`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from seqgen.plots import COLOURS, INK, picture_bytes
from seqgen_images.grids import Bytes, enlargement, grid, read_png

Row = Mapping[str, Any]

MOST = 12
"""Images an engine in a comparison."""

MOST_IN_CHART = 36


def side_by_side(rows: Mapping[str, Sequence[Row]], format: str) -> bytes:
    """A row of images a decoder: the first items that all of them could decode."""
    each = list(rows.values())
    places = [n for n, same in enumerate(zip(*each, strict=True)) if all(map(_done, same))][:MOST]
    labelled: dict[str, Bytes | None] = {}
    for name, own in rows.items():
        shown = [own[place] for place in places]
        if not shown:
            labelled[name] = None
            continue
        passes = sum(row["passes"] for row in shown) / len(shown)
        labelled[f"{name}\n{passes:.3g} passes"] = _sheet(shown, columns=len(shown))
    return labelled_rows(labelled, format, columns=len(places), margin=1.5)


def labelled_rows(
    sheets: Mapping[str, Bytes | None], format: str, *, columns: int, margin: float
) -> bytes:
    """Sheets below each other, each with its label to the left.

    Args:
        sheets: a row of images by its label, or None.
        columns: images a sheet.
        margin: room for the labels in inches.
    """
    from matplotlib.figure import Figure  # not pyplot: no global state, no display

    figure = Figure(figsize=(margin + 0.1 + 0.8 * max(columns, 1), 0.9 * len(sheets)))
    panels = figure.subplots(len(sheets), 1, squeeze=False)[:, 0]
    for panel, (label, sheet) in zip(panels, sheets.items(), strict=True):
        if sheet is not None:
            _show(panel, sheet)
        panel.axis("off")
        panel.text(-0.01, 0.5, label, transform=panel.transAxes, ha="right", va="center", color=INK)
    figure.subplots_adjust(left=margin / figure.get_figwidth(), right=0.99, top=0.99, bottom=0.01)
    return picture_bytes(figure, format)


def chart(rows: Sequence[Row], metrics: Mapping[str, float], format: str) -> bytes:
    """Some of the images, and the part of all that show what was asked for, by attribute."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    shown = [row for row in rows if _done(row)][:MOST_IN_CHART]
    left.axis("off")
    if shown:
        _show(left, _sheet(shown))
    bars = {n.removeprefix("accuracy_"): v for n, v in metrics.items() if n.startswith("accuracy_")}
    drawn = right.barh(list(bars), list(bars.values()), color=COLOURS[0])
    right.bar_label(drawn, fmt="%.3f", padding=3, color=INK)
    right.set_xlim(0, 1.15)
    right.set_xlabel("images that show what was asked for", color=INK)
    right.spines[["top", "right"]].set_visible(False)
    right.invert_yaxis()
    return picture_bytes(figure, format)


def _done(row: Row) -> bool:
    return bool(row["status"] == "ok")


def _sheet(rows: Sequence[Row], *, columns: int = 0) -> Bytes:
    images = [read_png(row["file"].data) for row in rows]
    scale = enlargement(*images[0].shape[:2])
    return grid(images, scale=scale, columns=columns)


def _show(panel: Any, sheet: Bytes) -> None:
    colour = np.broadcast_to(sheet, (*sheet.shape[:2], 3))
    panel.imshow(colour, interpolation="nearest")
