"""Pictures: a spectrum with the ions of its peptide, and how precision falls with coverage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from seqgen.plots import COLOURS, INK, dress, picture_bytes
from seqgen_peptides.ions import TOLERANCE_PPM, Match, Site, ions, match, sites
from seqgen_peptides.metrics import Annotated, Judged, judge, precision_at
from seqgen_peptides.residues import Residues

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from seqgen_peptides.spectra import SpectrumItem

SERIES = {"b": COLOURS[0], "y": COLOURS[1]}
MODIFIED, OTHER = COLOURS[2], "#b8b8b8"
MOST_PEAKS = 3000
"""Peaks drawn that nothing explains, the highest ones."""


class Charged(Annotated, Protocol):
    """What the chart needs of an item."""

    @property
    def charge(self) -> int | None: ...


def annotated_spectrum(
    row: Mapping[str, Any],
    item: SpectrumItem,
    *,
    residues: Residues | None = None,
    tolerance_ppm: float = TOLERANCE_PPM,
) -> bytes:
    """A PNG: the peptide with its breaks, the peaks with b and y ions marked, their errors.

    Args:
        row: an output row with a `peptide`.
        item: its spectrum, peaks read.
        residues: the model's vocabulary, where it is not the standard one.
        tolerance_ppm: how far off a peak may be.

    Raises:
        InputError: the peptide cannot be read.
    """
    from matplotlib.figure import Figure  # not pyplot: no global state, no display

    own = sites(str(row["peptide"]), residues or Residues())
    mz, height = _peaks(item)
    expected = ions([site.mass for site in own], _charge(row, item) or 2)
    found = match(expected, mz, height, tolerance_ppm=tolerance_ppm)

    figure = Figure(figsize=(10, 6.2))
    # fixed margins: a layout that measures every text takes longer than the drawing
    margins = {"left": 0.062, "right": 0.99, "top": 0.92, "bottom": 0.075, "hspace": 0.09}
    strip, main, errors = figure.subplots(3, 1, height_ratios=(1.15, 4, 1), gridspec_kw=margins)
    main.sharex(errors)
    _draw_peptide(strip, own, found)
    _draw_peaks(main, mz, height, found)
    _draw_errors(errors, mz, found, tolerance_ppm)
    explained = height[sorted({m.peak for m in found})].sum() / max(float(height.sum()), 1e-30)
    figure.suptitle(_title(row, item, own, found, float(explained)), color=INK, fontsize=10)
    return picture_bytes(figure, "png")


def precision_chart(
    rows: Sequence[Mapping[str, Any]],
    items: Sequence[Charged],
    *,
    format: str = "png",
    residues: Residues | None = None,
) -> bytes:
    """Precision against coverage, and precision by the length and the charge of the truth.

    Args:
        rows, items: as for `metrics.score`.
        format: `png`, `svg` or `pdf`.

    Raises:
        InputError: as `metrics.score`.
    """
    from matplotlib.figure import Figure

    judged = judge(rows, items, residues=residues)
    figure = Figure(figsize=(11, 3.8), layout="constrained")
    curve, length, charge = figure.subplots(1, 3, width_ratios=(4, 4, 2.4))
    _draw_curve(curve, judged)
    _draw_groups(length, judged, _length_groups(judged.true), "residues of the reference")
    charges = np.array(
        [int(_charge(row, item) or 0) for row, item in zip(rows, items, strict=True)]
    )
    groups = {f"{z}+" if z else "?": charges == z for z in np.unique(charges).tolist()}
    _draw_groups(charge, judged, groups, "charge")
    length.legend(frameon=False, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
    first = rows[0]
    figure.suptitle(
        f"{first.get('model', '')}, {first.get('decoder', '')}: {len(rows)} spectra",
        color=INK, fontsize=11,
    )  # fmt: skip
    return picture_bytes(figure, format)


def _peaks(item: SpectrumItem) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """m/z by rising order, and heights in percent of the highest peak."""
    assert item.mz is not None, "split() reads the peaks"
    assert item.intensity is not None
    height = np.where(np.isfinite(item.intensity), item.intensity, 0).astype(np.float64)
    usable = np.isfinite(item.mz) & (height > 0)
    order = np.argsort(item.mz[usable], kind="stable")
    mz, height = item.mz[usable][order], height[usable][order]
    return mz, 100 * height / max(float(height.max(initial=0)), 1e-30)


def _title(
    row: Mapping[str, Any],
    item: SpectrumItem,
    own: Sequence[Site],
    found: Sequence[Match],
    explained: float,
) -> str:
    facts = []
    if item.precursor_mz is not None:
        facts.append(f"m/z {item.precursor_mz:.4f}")
    if charge := _charge(row, item):
        facts.append(f"{charge}+")
    if row.get("score") is not None:
        facts.append(f"score {float(row['score']):.3g}")
    if row.get("precursor_error_ppm") is not None:
        facts.append(f"precursor {float(row['precursor_error_ppm']):+.1f} ppm")
    breaks = {_cut(m, len(own)) for m in found}
    facts.append(f"{len(breaks)} of {len(own) - 1} breaks seen")
    facts.append(f"{explained:.0%} of the intensity explained")
    name = str(row.get("id", item.id))
    if item.title and len(name) + len(item.title) < 110:
        name += f"  ({item.title})"
    return f"{_plain(name)}\n{', '.join(facts)}"


def _charge(row: Mapping[str, Any], item: Charged) -> int | None:
    """What it was decoded with; a file may leave the choice."""
    charge: int | None = row.get("charge")
    return charge or item.charge


def _plain(text: str) -> str:
    # matplotlib would read what stands between two dollars as a formula
    return " ".join(text.split()).replace("$", r"\$")


def _cut(found: Match, length: int) -> int:
    """Behind which residue the peptide broke."""
    return found.ion.number if found.ion.series == "b" else length - found.ion.number


def _draw_peptide(axes: Any, own: Sequence[Site], found: Sequence[Match]) -> None:
    """Letters, and between them hooks: down to the left for b, up to the right for y."""
    length = len(own)
    size = min(18.0, 430 / max(length, 1))
    axes.set_xlim(-0.6, max(length, 12) - 0.4)
    axes.set_ylim(-1, 1.4)
    axes.axis("off")
    shift = (max(length, 12) - length) / 2
    for place, site in enumerate(own):
        modified = abs(site.added) > 0.001
        colour = MODIFIED if modified else INK
        axes.text(place + shift, 0, site.letter, ha="center", va="center_baseline", fontsize=size,
                  color=colour, family="monospace", weight="bold")  # fmt: skip
        if modified:
            added = f"{site.added:+.2f}" if length <= 20 else f"{site.added:+.0f}"
            axes.text(place + shift, 1, added, ha="center", va="bottom",
                      fontsize=max(5.5, 0.45 * size), color=colour)  # fmt: skip
    for series, towards in (("b", -1), ("y", 1)):
        for cut in sorted({_cut(m, length) for m in found if m.ion.series == series}):
            x, colour = cut - 0.5 + shift, SERIES[series]
            end = x + 0.32 * towards
            axes.plot([x, x, end], [0, 0.5 * towards, 0.5 * towards], color=colour, linewidth=1.4,
                      solid_joinstyle="miter")  # fmt: skip
            number = cut if series == "b" else length - cut
            axes.text((x + end) / 2, 0.56 * towards, f"{number}", color=colour, ha="center",
                      va="bottom" if series == "y" else "top",
                      fontsize=max(5.5, 0.42 * size))  # fmt: skip


def _draw_peaks(axes: Any, mz: Any, height: Any, found: Sequence[Match]) -> None:
    explained: dict[int, list[Match]] = {}
    for m in found:
        explained.setdefault(m.peak, []).append(m)
    rest = np.setdiff1d(np.arange(len(mz)), list(explained))
    rest = rest[np.argsort(-height[rest])[:MOST_PEAKS]]
    axes.vlines(mz[rest], 0, height[rest], color=OTHER, linewidth=0.9)
    for series, colour in SERIES.items():
        peaks = [peak for peak, own in explained.items() if own[0].ion.series == series]
        count = sum(m.ion.series == series for m in found)
        axes.vlines(mz[peaks], 0, height[peaks], color=colour, linewidth=1.4,
                    label=f"{series} ions ({count})")  # fmt: skip
    _label_peaks(axes, mz, height, explained)
    axes.set_ylim(0, 122)  # room for the labels
    axes.set_yticks(range(0, 101, 25))
    dress(axes, "", "intensity (% of the highest)", lines="y")
    axes.tick_params(labelbottom=False)
    axes.legend(frameon=False, loc="upper right", fontsize=8, ncols=2)


def _label_peaks(axes: Any, mz: Any, height: Any, explained: Mapping[int, list[Match]]) -> None:
    """Names over the peaks, the highest first; one that would lie over another is left out."""
    from matplotlib.patheffects import withStroke

    span = float(mz[-1] - mz[0]) if len(mz) > 1 else 1.0
    placed: list[tuple[float, float]] = []
    for peak, own in sorted(explained.items(), key=lambda pair: -height[pair[0]]):
        x, y = float(mz[peak]), float(height[peak])
        if any(abs(x - a) < 0.016 * span and abs(y - b) < 12 for a, b in placed):
            continue
        placed.append((x, y))
        axes.annotate("/".join(m.ion.label for m in own), (x, y), xytext=(0, 2),
                      textcoords="offset points", ha="center", va="bottom", rotation=90,
                      fontsize=8, color=SERIES[own[0].ion.series],
                      path_effects=[withStroke(linewidth=2, foreground="white")])  # fmt: skip


def _draw_errors(axes: Any, mz: Any, found: Sequence[Match], tolerance_ppm: float) -> None:
    axes.axhline(0, color=INK, linewidth=0.8)
    for series, colour in SERIES.items():
        own = [m for m in found if m.ion.series == series]
        axes.scatter([mz[m.peak] for m in own], [m.error_ppm for m in own], s=16, color=colour,
                     alpha=0.85, zorder=3)  # fmt: skip
    axes.set_ylim(-1.1 * tolerance_ppm, 1.1 * tolerance_ppm)
    axes.set_yticks([-tolerance_ppm, 0, tolerance_ppm])
    if len(mz):
        margin = max(0.03 * float(mz[-1] - mz[0]), 5.0)
        axes.set_xlim(float(mz[0]) - margin, float(mz[-1]) + margin)
    dress(axes, "m/z", "error (ppm)", lines="y")


def _draw_curve(axes: Any, judged: Judged) -> None:
    count = len(judged.hit)
    coverage = np.arange(1, count + 1) / count
    for hits, label, colour, style in (
        (judged.hit, "by mass", COLOURS[0], "-"),
        (judged.same, "same string", COLOURS[1], "--"),
    ):
        precision = precision_at(judged.score, hits)
        axes.plot(coverage, precision, style, color=colour, linewidth=1.6,
                  label=f"{label}, area {precision.mean():.3f}")  # fmt: skip
    answered = float(judged.answered.mean())
    if answered < 1:
        axes.axvline(answered, color=INK, linewidth=0.8, linestyle=":", label="spectra answered")
    axes.set_xlim(0, 1.01)
    axes.set_ylim(0, 1.03)
    dress(
        axes, "coverage (share of the spectra, best scores first)", "peptide precision", lines="y"
    )
    axes.legend(frameon=False, fontsize=8, loc="best")


def _length_groups(lengths: Any) -> dict[str, Any]:
    """About equally many spectra in each of up to six ranges of length."""
    edges = np.unique(np.quantile(lengths, np.linspace(0, 1, 7)[1:], method="higher"))
    groups, low = {}, int(lengths.min())
    for high in edges.tolist():
        name = f"{low}" if low == high else f"{low}-{high}"
        groups[name] = (lengths >= low) & (lengths <= high)
        low = high + 1
    return groups


def _draw_groups(axes: Any, judged: Judged, groups: Mapping[str, Any], label: str) -> None:
    names = [f"{name}\nn={int(rows.sum())}" for name, rows in groups.items()]
    residues = [
        judged.matched[rows].sum() / max(1, judged.true[rows].sum()) for rows in groups.values()
    ]
    peptides = [judged.hit[rows].mean() for rows in groups.values()]
    places = np.arange(len(names))
    for values, name, colour, shift in (
        (peptides, "peptide precision", COLOURS[0], -0.2),
        (residues, "amino-acid recall", COLOURS[4], 0.2),
    ):
        axes.bar(places + shift, values, width=0.38, color=colour, label=name, zorder=3)
    axes.set_xticks(places, names, fontsize=8)
    axes.set_ylim(0, 1.03)
    dress(axes, label, "", lines="y")
