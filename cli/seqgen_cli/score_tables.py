"""Tables of scores for a person; `--json` has everything."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from seqgen.scoring import Score

COMPARED_METRICS = 3
"""Metrics in a comparison's columns: a domain lists its main ones first."""


def print_score(score: Score) -> None:
    """One decoder: a line a metric."""
    from rich.table import Table

    table = Table(title=f"{score.model}, {score.decoder}", title_justify="left")
    table.add_column("")
    table.add_column("", justify="right")
    table.show_header = False
    for name, value in score.metrics.items():
        table.add_row(f"[bold]{name}[/bold]", number(value))
    table.add_section()
    for name, text in _effort(score).items():
        table.add_row(name, text)
    _print(table)


def print_comparison(scores: Sequence[Score], columns: Sequence[str] = ()) -> None:
    """Several decoders: a line each.

    Args:
        columns: the metrics to show, those of them that there are; the first few without any.
    """
    from rich.table import Table

    metrics = list(dict.fromkeys(name for score in scores for name in score.metrics))
    shown = [name for name in columns if name in metrics] or metrics[:COMPARED_METRICS]
    table = Table()
    table.add_column("decoder", no_wrap=True)
    for column in [*shown, *_effort(scores[0])]:
        table.add_column(column, justify="right")
    for score in scores:
        quality = [number(score.metrics.get(name)) for name in shown]
        table.add_row(score.decoder, *quality, *_effort(score).values())
    if others := [name for name in metrics if name not in shown]:
        table.caption = f"--json also has {', '.join(others)}"
    _print(table)


def number(value: float | None) -> str:
    """A metric for reading: four digits, counts whole."""
    return "-" if value is None else f"{value:.4g}"


def _effort(score: Score) -> dict[str, str]:
    return {
        "items": str(score.items),
        "failures": str(score.failures),
        "forwards": str(score.forwards),
        "seconds": f"{score.seconds:.3g}",
        "items/s": f"{score.items_per_second:.3g}",
        "tokens/s": f"{score.tokens_per_second:.0f}",
    }


def _print(table: Table) -> None:
    from rich.console import Console

    # A pipe has no width of its own; a table cut to the 80 columns of a default would be no use.
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(table)
