"""What benchmarks/peptides_valid.py makes of its measurements: rows, intervals, a picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from seqgen_peptides.metrics import Judged

DRAWS = 10_000
"""Of the bootstrap."""

COMPARED = (
    ("hybrid beam 5", "AR beam 5"),
    ("AR beam 5", "NAR prefix beam 5"),
    ("hybrid beam 5, constraint", "AR beam 5, constraint"),
    ("AR beam 5, constraint", "NAR mass program where needed"),
    ("AR beam 5, constraint", "AR beam 5"),
)
"""Pairs whose difference is given, by their names."""

CURVES = (
    "AR greedy",
    "AR beam 5, constraint",
    "NAR mass program where needed",
    "hybrid beam 5, constraint",
    "block diffusion, one a pass",
)
"""Cases whose precision is drawn against coverage."""


@dataclass(frozen=True)
class Case:
    """A decoder with its settings.

    Attributes:
        name: in the table.
        decoder: as `--decoder`.
        sets: as `--set`, one setting a word.
    """

    name: str
    decoder: str
    sets: str


@dataclass(frozen=True)
class Outcome:
    """What a case gave.

    Attributes:
        case: which.
        parameters: used by its decoder, the encoder included.
        passes: forward passes of a batch, on average.
        cpu_ms: processor time a spectrum.
        accepted: share of drafts that stood, of a decoder that verifies them.
        metrics: of all spectra.
        metrics_of: of each set.
        judged: row by row.
    """

    case: Case
    parameters: int
    passes: float
    cpu_ms: float
    accepted: float
    metrics: dict[str, float]
    metrics_of: dict[str, dict[str, float]]
    judged: Judged


@dataclass(frozen=True)
class Measured:
    """All cases on the same spectra.

    Attributes:
        model: name of its card.
        sets: of each spectrum.
        names: the true peptides, modifications left out.
        peptides: which of them each spectrum is of.
        outcomes: by name of the case.
    """

    model: str
    sets: list[str]
    names: list[str]
    peptides: NDArray[np.int64]
    outcomes: dict[str, Outcome]

    def rows(self) -> list[dict[str, Any]]:
        """One a case."""
        rows = []
        for name, outcome in self.outcomes.items():
            low, high = self.interval(outcome.judged.hit)
            metrics = dict(outcome.metrics)
            rows.append(
                {
                    "case": name,
                    "parameters": outcome.parameters,
                    "passes": outcome.passes,
                    "cpu_ms": outcome.cpu_ms,
                    "peptide_precision": metrics.pop("peptide_precision"),
                    "low": low,
                    "high": high,
                    **metrics,
                    **{s: of["peptide_precision"] for s, of in outcome.metrics_of.items()},
                    **({"accepted": outcome.accepted} if outcome.case.decoder == "verify" else {}),
                }
            )
        return rows

    def by_set(self) -> list[dict[str, Any]]:
        """One a case and set."""
        return [
            {"case": name, "set": of, **metrics}
            for name, outcome in self.outcomes.items()
            for of, metrics in outcome.metrics_of.items()
        ]

    def differences(self) -> list[dict[str, Any]]:
        """Peptide precision of one case above another, for `COMPARED`."""
        rows = []
        for one, other in COMPARED:
            if one in self.outcomes and other in self.outcomes:
                hits = [self.outcomes[name].judged.hit.astype(float) for name in (one, other)]
                gain = hits[0] - hits[1]
                low, high = self.interval(gain)
                rows.append(
                    {
                        "case": f"{one} - {other}",
                        "difference": gain.mean(),
                        "low": low,
                        "high": high,
                    }
                )
        return rows

    def counts(self) -> dict[str, int]:
        """Spectra and peptides in all, and spectra of each set."""
        return {
            "all": len(self.sets),
            "peptides": len(self.names),
            **{name: self.sets.count(name) for name in dict.fromkeys(self.sets)},
        }

    def interval(self, values: NDArray[Any]) -> tuple[float, float]:
        """95 % interval of the mean, peptides drawn with replacement."""
        import numpy as np

        size = len(self.names)
        sums = np.bincount(self.peptides, weights=values.astype(float), minlength=size)
        counts = np.bincount(self.peptides, minlength=size)
        drawn = np.random.default_rng(0).integers(size, size=(DRAWS, size))
        means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
        low, high = np.percentile(means, [2.5, 97.5])
        return float(low), float(high)


def draw(measured: Measured, file: Path) -> None:
    """Left, peptide precision with its interval; right, precision against coverage."""
    import numpy as np
    from matplotlib.figure import Figure  # not pyplot: no global state, no display

    from seqgen.plots import COLOURS, GRID, INK
    from seqgen_peptides.metrics import precision_at

    outcomes = list(measured.outcomes.values())
    decoders = list(dict.fromkeys(outcome.case.decoder for outcome in outcomes))
    colour = dict(zip(decoders, COLOURS, strict=False))
    figure = Figure(figsize=(11, 0.3 * len(outcomes) + 1.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    for place, (row, outcome) in enumerate(zip(measured.rows(), outcomes, strict=True)):
        own = colour[outcome.case.decoder]
        left.plot([row["low"], row["high"]], [place, place], color=own, linewidth=2.5, alpha=0.5)
        left.plot(row["peptide_precision"], place, "o", color=own)
    left.set_yticks(range(len(outcomes)), [outcome.case.name for outcome in outcomes])
    left.invert_yaxis()
    left.set_xlim(left=0)
    left.set_xlabel("peptide precision (Casanovo's rule), 95 % interval", color=INK)
    for name in CURVES:
        if name in measured.outcomes:
            outcome = measured.outcomes[name]
            precision = precision_at(outcome.judged.score, outcome.judged.hit)
            coverage = np.arange(1, len(precision) + 1) / len(precision)
            label = f"{name} ({precision.mean():.2f})"
            right.plot(coverage, precision, color=colour[outcome.case.decoder], label=label)
    right.set_xlabel("coverage, best scores first", color=INK)
    right.set_ylabel("peptide precision", color=INK)
    right.set_ylim(0, 1.02)
    right.legend(frameon=False, fontsize=8, title="area in brackets", title_fontsize=8)
    for axes in (left, right):
        axes.grid(color=GRID, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    counts = measured.counts()
    figure.suptitle(
        f"{measured.model}: {counts['all']} annotated spectra of {counts['peptides']} peptides",
        color=INK,
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110)
