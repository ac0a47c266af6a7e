"""`seqgen run --plot DIR`: one picture an item, drawn by the domain."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seqgen.domain import Plottable
from seqgen.errors import UsageError
from seqgen_cli.console import note

if TYPE_CHECKING:
    from seqgen.batching import Entry
    from seqgen_cli.job import Job


class Pictures:
    """Draws finished rows into a folder; a picture that cannot be drawn stops nothing.

    Args:
        folder: made when the first picture comes.
        job: whose domain draws.

    Raises:
        UsageError: the domain draws no pictures, or there is a file in the folder's place.
    """

    def __init__(self, folder: Path, job: Job) -> None:
        if not isinstance(job.domain, Plottable):
            raise UsageError(f"the {job.plugin} plugin draws no pictures", fix="leave out --plot")
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"{folder} is a file", fix="name a folder: --plot pictures/")
        self.folder = folder
        self.written = 0
        self._domain = job.domain
        self._options = job.options

    def draw(self, entry: Entry[Any], row: Mapping[str, Any], *, anew: bool = True) -> None:
        """Draw a row, unless it failed; with `anew` false, unless its picture is there too."""
        from seqgen.batching import failure_reason, is_fatal
        from seqgen.journal import replacing

        path = self.folder / f"{entry.stem}.png"
        if row["status"] != "ok" or (not anew and path.exists()):
            return
        try:
            picture = self._domain.plot(row, entry.item, self._options)
        except Exception as error:
            if is_fatal(error):
                raise
            note(f"no picture: {failure_reason(entry.id, error)}")
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part:
            part.write_bytes(picture)
        self.written += 1

    def say_done(self) -> None:
        """How many were drawn, on stderr."""
        count = f"{self.written} picture{'' if self.written == 1 else 's'}"
        note(f"{count} in {self.folder}/" if self.written else "no new pictures")
