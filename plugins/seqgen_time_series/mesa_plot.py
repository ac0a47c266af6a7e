"""A picture of the mesa-optimization experiment: one row a distribution of the data.

From the left: the trained entries, the products a_j b_j on their way to the theorem's value, and
the layer's predictions against those of the nearest gradient step.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from seqgen_time_series.mesa import MesaCase, MesaReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREY = "#2171b5", "#d94801", "#969696"


def plot_mesa(report: MesaReport, path: Path) -> None:
    """Write the picture; its format is that of the path's suffix."""
    figure = draw_mesa(report)
    figure.savefig(path, dpi=150)


def draw_mesa(report: MesaReport) -> Figure:
    """The picture as a matplotlib figure."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = len(report.cases)
    figure = Figure(figsize=(12, 0.9 + 3.2 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, 3, squeeze=False, gridspec_kw={"width_ratios": [1.0, 1.35, 1.0]})
    time = "time of the flow" if report.config.method == "flow" else "step of gradient descent"
    for row, case in zip(axes, report.cases, strict=True):
        _entries(row[0], case)
        _products(row[1], case, time)
        _predictions(row[2], case)
    figure.suptitle("Linear attention trained on x[t+1] = W x[t]: does it do gradient descent?")
    return figure


def _entries(axes: Axes, case: MesaCase) -> None:
    """A above B: the theorem leaves two diagonals."""
    layer = case.layer
    dimension = len(layer.values_DK)
    entries = np.concatenate([layer.values_DK, layer.keys_KK])
    matrix = np.abs(entries) * np.where(entries.real < 0.0, -1.0, 1.0)
    reach = float(np.abs(matrix).max())
    image = axes.imshow(matrix, cmap="RdBu_r", vmin=-reach, vmax=reach, aspect="auto")
    axes.figure.colorbar(image, ax=axes, shrink=0.85)
    axes.axhline(dimension - 0.5, color="black", linewidth=1.0)
    axes.axhline(2 * dimension - 0.5, color=GREY, linewidth=0.6, linestyle=":")
    axes.axvline(dimension - 0.5, color=GREY, linewidth=0.6, linestyle=":")
    middle = (dimension - 1) / 2
    axes.set_yticks(
        [middle, dimension + middle, 2 * dimension + middle],
        ["W$^{PV}$", "W$^{KQ}$\n(2,·)", "W$^{KQ}$\n(3,·)"],
    )
    axes.set_xticks([middle, dimension + middle], ["x[t]", "x[t-1]"])
    axes.tick_params(length=0)
    condition = "meets the condition" if case.meets_condition else "does not meet it"
    axes.set_title(f"{case.data} data ({condition})", fontsize=10)


def _products(axes: Axes, case: MesaCase, time: str) -> None:
    shown = case.history[1:]
    at = [snapshot.at for snapshot in shown]
    products = np.array([snapshot.ab_D.real for snapshot in shown])
    axes.plot(at, products, color=BLUE, linewidth=1.4)
    axes.plot(at, [snapshot.rest for snapshot in shown], color=ORANGE, linewidth=1.2)
    axes.axhline(case.theory, color="black", linestyle="--", linewidth=1.0)
    axes.set_xscale("log")
    axes.set_xlabel(time)
    axes.plot([], [], color=BLUE, label=f"a b, learned: {float(np.mean(case.ab_D).real):.4f}")
    axes.plot([], [], color="black", linestyle="--", label=f"a b, theory: {case.theory:.4f}")
    axes.plot([], [], color=ORANGE, label=f"largest other entry: {case.rest:.2g}")
    axes.legend(fontsize=8, loc="upper left", frameon=False)
    axes.set_ylim(top=1.5 * max(float(products.max()), case.theory))
    axes.spines[["top", "right"]].set_visible(False)


def _predictions(axes: Axes, case: MesaCase) -> None:
    made, step = (values.ravel() for values in case.predicted)
    reach = 1.05 * float(np.abs(np.concatenate([made.real, step.real])).max())
    axes.plot([-reach, reach], [-reach, reach], color=GREY, linewidth=0.8)
    axes.scatter(step.real, made.real, s=6, color=BLUE, alpha=0.5, linewidths=0)
    axes.set_xlim(-reach, reach)
    axes.set_ylim(-reach, reach)
    axes.set_aspect("equal")
    axes.set_xlabel("one gradient step")
    axes.set_ylabel("the layer")
    percent = 100 * case.step_gap
    axes.set_title(f"apart by {percent:.2g} %" if percent > 1e-3 else "the same", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
