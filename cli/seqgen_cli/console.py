"""What a command says on stderr: notes, failures, and a bar where a person is watching.

stdout belongs to the results.
"""

from __future__ import annotations

import sys
import traceback
from types import TracebackType
from typing import Any

import click


def note(message: str) -> None:
    """One line for the person, on stderr."""
    click.echo(message, err=True)


class Failures:
    """Reports each failed item once; with `debug` its traceback too."""

    def __init__(self, *, debug: bool) -> None:
        self.debug = debug
        self.count = 0

    def __call__(self, entry: Any, error: BaseException) -> None:
        from seqgen.batching import failure_reason

        self.count += 1
        note(f"failed: {failure_reason(entry.id, error)}")
        if self.debug:
            note("".join(traceback.format_exception(error)).rstrip())


class Bar:
    """A progress bar over items on a terminal; nothing anywhere else."""

    def __init__(self, total: int, label: str, *, done: int = 0) -> None:
        self._progress: Any = None
        if not sys.stderr.isatty() or total < 2:
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

        self._progress = Progress(
            "{task.description}",
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._task = self._progress.add_task(label, total=total, completed=done)

    def advance(self, items: int) -> None:
        if self._progress is not None:
            self._progress.advance(self._task, items)

    def __enter__(self) -> Bar:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._progress is not None:
            self._progress.stop()
