"""Pictures of scores: quality against speed of several decoders, and how metrics come about."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seqgen.domain import Chartable, Domain
from seqgen.errors import UsageError
from seqgen.scoring import Evaluated, Score, score_rows

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PICTURES = (".png", ".svg", ".pdf")
SHAPES = "osD^vPX*"
INK, GRID = "#333333", "#dddddd"
COLOURS = ("#2a6fbb", "#d1603d", "#3f8f5f", "#8a5fb0", "#c29a2b", "#4aa3a8", "#b0486f", "#777777")


def picture_format(path: Path) -> str:
    """`png`, `svg` or `pdf`, by the suffix.

    Raises:
        UsageError: it is another.
    """
    suffix = path.suffix.lower()
    if suffix not in PICTURES:
        raise UsageError(
            f"cannot draw into {path}: the suffix must be one of {', '.join(PICTURES)}",
            fix=f"name it {path.with_suffix('.png')}",
        )
    return suffix[1:]


def picture_bytes(figure: Figure, format: str) -> bytes:
    """The figure as a file of a `picture_format`."""
    buffer = BytesIO()
    figure.savefig(buffer, format=format, dpi=150)
    return buffer.getvalue()


def dress(axes: Any, x_label: str, y_label: str, *, lines: str = "both") -> None:
    """Labels, and fine lines behind what is drawn: across one axis ("x", "y") or both."""
    axes.set_xlabel(x_label, color=INK, fontsize=9)
    axes.set_ylabel(y_label, color=INK, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=lines, color=GRID, linewidth=0.6, zorder=0)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, labelsize=8)


def plot_comparison(scores: Sequence[Score], path: Path, *, title: str) -> None:
    """Two panels: the first metric against speed, and what each decoder spent.

    Left, a decoder is a point: how fast it is (items a second, everything included) and how good.
    Right, bars of forward passes an item, since those, unlike seconds, hold on any machine.
    Without metrics the left panel shows bars of speed.
    """
    from matplotlib.figure import Figure  # not pyplot: no global state, no display

    figure = Figure(figsize=(9.5, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    speeds = [score.items_per_second for score in scores]
    metric = next(iter(scores[0].metrics), None)
    if metric is None:
        _bars(left, scores, speeds, "items a second")
    else:
        _points(left, scores, speeds, [score.metrics[metric] for score in scores], metric)
    passes = [score.forwards / max(1, score.items) for score in scores]
    _bars(right, scores, passes, "forward passes an item")
    figure.suptitle(title, color=INK)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def plot_metrics(evaluated: Evaluated, domain: Domain[Any], path: Path) -> None:
    """The domain's own chart where it has one, else how each metric spreads over the items."""
    if not isinstance(domain, Chartable):
        plot_spread(evaluated, domain, path)
        return
    pairs = zip(evaluated.rows, evaluated.items, strict=True)
    listed = [(row, item) for row, item in pairs if item is not None]
    rows, items = [row for row, _ in listed], [item for _, item in listed]
    picture = domain.chart(rows, items, picture_format(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(picture)


def plot_spread(evaluated: Evaluated, domain: Domain[Any], path: Path) -> None:
    """A histogram of each metric, computed item by item."""
    from matplotlib.figure import Figure

    each: dict[str, list[float]] = {}
    for row, item in zip(evaluated.rows, evaluated.items, strict=True):
        if item is not None:
            for name, value in score_rows(domain, [row], [item])[0].items():
                each.setdefault(name, []).append(value)
    figure = Figure(figsize=(4.2 * max(1, len(each)), 3.4), layout="constrained")
    panels = figure.subplots(1, max(1, len(each)), squeeze=False)[0]
    for panel, (name, values) in zip(panels, each.items(), strict=False):
        panel.hist(values, bins=min(20, max(5, len(values) // 4)), color=COLOURS[0])
        panel.axvline(
            evaluated.score.metrics[name], color=COLOURS[1], label="over all items", linewidth=1.5
        )
        dress(panel, name, "items")
        panel.legend(frameon=False)
    figure.suptitle(f"{evaluated.score.model}, {evaluated.score.decoder}", color=INK)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def _points(
    axes: Any, scores: Sequence[Score], speeds: Sequence[float], quality: Sequence[float], name: str
) -> None:
    top = max(quality)
    for place, (score, x, y) in enumerate(zip(scores, speeds, quality, strict=True)):
        colour, shape = COLOURS[place % len(COLOURS)], SHAPES[place % len(SHAPES)]
        axes.scatter(
            x, y, s=90, color=colour, marker=shape, alpha=0.85, zorder=3, label=score.decoder
        )
    # a legend, not labels at the points: decoders of equal quality and speed are common
    axes.legend(frameon=False, loc="best")
    axes.margins(x=0.2, y=0.25)
    if top == min(quality):
        axes.set_ylim(top - 0.5 * max(abs(top), 0.1), top + 0.5 * max(abs(top), 0.1))
    if min(speeds) > 0 and max(speeds) / min(speeds) > 5:
        from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    dress(axes, "items a second (this machine)", name)


def _bars(axes: Any, scores: Sequence[Score], values: Sequence[float], label: str) -> None:
    places = range(len(scores))
    colours = [COLOURS[place % len(COLOURS)] for place in places]
    bars = axes.barh(places, values, color=colours, height=0.6, zorder=3)
    axes.bar_label(bars, labels=[_short(value) for value in values], padding=3, color=INK)
    axes.set_yticks(places, [score.decoder for score in scores])
    axes.invert_yaxis()
    axes.margins(x=0.25)  # room for the numbers beside the bars
    dress(axes, label, "")


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
