"""Pictures that the domain draws: one an item, one a comparison, and those its options ask for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seqgen.domain import Illustrated, Pictured, Plottable
from seqgen.errors import UsageError
from seqgen_cli.console import note

if TYPE_CHECKING:
    from seqgen.batching import Entry
    from seqgen.scoring import Evaluated
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


class Illustrations:
    """Files beside OUT that the domain's options ask for.

    Args:
        output: OUT, or None.
        replace: whether files that are there may be replaced.

    Raises:
        UsageError: one is there already and may not be replaced, is OUT itself, or would lie in a
            file.
    """

    def __init__(self, job: Job, *, output: Path | None, replace: bool) -> None:
        self._job = job
        self.paths = _illustrations(job)
        for path in self.paths:
            if path.is_dir() or (path.exists() and not replace):
                raise UsageError(
                    f"{path} exists already",
                    fix="add --overwrite to replace it, or choose another name",
                )
            if output is not None and path.resolve() == output.resolve():
                raise UsageError(
                    f"{path} would be written twice",
                    why="it is the output too",
                    fix="choose another name for one of the two",
                )
            if file := next((folder for folder in path.parents if folder.is_file()), None):
                raise UsageError(
                    f"cannot write {path}", why=f"{file} is a file", fix="choose another folder"
                )

    def write(self) -> None:
        """Have them drawn, and say so."""
        if not self.paths or not isinstance(self._job.domain, Illustrated):
            return
        try:
            note(self._job.domain.illustrate(self._job.options))
        except OSError as error:
            raise UsageError(
                f"cannot write {self.paths[0]}",
                why=str(error),
                fix="check the path and who may write there",
            ) from error


def refuse_illustrations(job: Job) -> None:
    """Raise `UsageError` where options ask for files that only `seqgen run` writes."""
    if paths := _illustrations(job):
        raise UsageError(f"only `seqgen run` writes {paths[0]}", fix="leave that option out")


def draw_comparison(compared: Sequence[Evaluated], job: Job, path: Path, *, title: str) -> None:
    """The domain's own picture where it has one, else quality against speed."""
    from seqgen.plots import picture_format, plot_comparison

    if not isinstance(job.domain, Pictured):
        plot_comparison([done.score for done in compared], path, title=title)
        return
    rows = {done.score.decoder: done.rows for done in compared}
    picture = job.domain.side_by_side(rows, compared[0].items, picture_format(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(picture)


def _illustrations(job: Job) -> Sequence[Path]:
    domain = job.domain
    return domain.illustrations(job.options) if isinstance(domain, Illustrated) else ()
