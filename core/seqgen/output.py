"""Where a run's rows go: one file, or a folder, in JSON lines or in one of the domain's formats."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seqgen.artifacts import ArtifactFolder
from seqgen.domain import Domain, DomainInfo
from seqgen.errors import SeqgenError, UsageError, did_you_mean
from seqgen.journal import manifest_path, replacing, write_jsonl

JSONL = "jsonl"
_JSONL_SUFFIXES = (".jsonl", ".ndjson", ".json")


@dataclass(frozen=True)
class Output:
    """A resolved `-o`.

    Attributes:
        path: the file or folder.
        format: `jsonl` or one of the domain's formats.
        is_folder: whether `path` is a folder.
    """

    path: Path
    format: str
    is_folder: bool

    @classmethod
    def resolve(cls, out: str, format: str | None, info: DomainInfo) -> Output:
        """What `-o OUT --format F` mean for a domain.

        OUT is a folder if it is one already, ends in a slash or has no suffix. Without a format
        the suffix decides; in a folder the domain's default format.

        Raises:
            UsageError: an unknown format, or a suffix that says nothing.
        """
        path = Path(out).expanduser()
        if path.name in ("", ".."):  # `.` has no name for the manifest beside it
            path = path.resolve()
        is_folder = path.is_dir() or out.endswith(("/", os.sep)) or not path.suffix
        known = known_formats(info)
        if format is not None:
            return cls(path, check_format(format, info), is_folder)
        if is_folder:
            return cls(path, info.formats[0] if info.formats else JSONL, True)
        suffix = path.suffix.lower()
        by_suffix = {f".{name.lower()}": name for name in known}
        by_suffix |= {name: JSONL for name in _JSONL_SUFFIXES if name not in by_suffix}
        if suffix not in by_suffix:
            raise UsageError(
                f"cannot tell the format of {out} from its suffix {path.suffix!r}",
                fix=f"add --format F. {did_you_mean(suffix.lstrip('.'), known)}",
            )
        return cls(path, by_suffix[suffix], False)

    @property
    def manifest(self) -> Path:
        return manifest_path(self.path)

    def check_free(self, *, resume: bool, overwrite: bool) -> None:
        """Refuse to write over results.

        Raises:
            UsageError: there is an output or an unfinished run, and no word what to do with it.
        """
        if resume or overwrite:
            return
        filled = self.path.is_dir() and any(self.path.iterdir())
        if self.manifest.exists() and not (self.path.is_file() or filled):
            raise UsageError(
                f"an unfinished run to {self.path} lies in {self.manifest}",
                fix="add --resume to go on with it, or --overwrite to start anew",
            )
        if self.path.is_file() or filled:
            raise UsageError(
                f"{self.path} exists already",
                fix="add --overwrite to replace it, --resume to go on with an interrupted run, "
                "or choose another output",
            )

    def artifacts(self) -> ArtifactFolder:
        """Where binary outputs go: the folder itself, or `OUT_files` beside the file."""
        if self.is_folder:
            return ArtifactFolder(self.path, self.path)
        folder = self.path.with_name(f"{self.path.stem}_files")
        return ArtifactFolder(folder, self.path.parent)

    def rehearse(self, items: int, domain: Domain[Any]) -> None:
        """Let the domain write a failed row or two to nowhere, before hours of work are done.

        Raises:
            SeqgenError: the domain refuses (a format that holds one item, and several to write).
        """
        if self.format == JSONL:
            return
        row = {"status": "failed", "reason": "", "decoder": "", "model": "", "seconds": None}
        rows = [{"id": f"rehearsal-{number}", **row} for number in range(min(items, 2))]
        with tempfile.TemporaryDirectory() as folder:
            nowhere = Path(folder) if self.is_folder else Path(folder) / self.path.name
            try:
                domain.write(rows, nowhere, self.format)
            except SeqgenError:
                raise
            except Exception:  # rows without content are unusual; the real ones may do better
                return

    def write(self, rows: Iterator[Mapping[str, Any]], domain: Domain[Any]) -> None:
        """Write finished rows. Files appear whole or not at all.

        Raises:
            UsageError: the domain cannot write these rows in this way (many items in one file of
                a format that holds one, say).
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if not self.is_folder:
            if self.format == JSONL:
                write_jsonl(self.path, rows)
                return
            with replacing(self.path) as part:
                domain.write(rows, part, self.format)
            return
        self.path.mkdir(exist_ok=True)
        if self.format == JSONL:
            write_jsonl(self.path / "rows.jsonl", rows)
        else:
            self._write_folder(rows, domain)

    def _write_folder(self, rows: Iterable[Mapping[str, Any]], domain: Domain[Any]) -> None:
        part = self.path / ".part"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        try:
            domain.write(rows, part, self.format)
            for file in sorted(path for path in part.rglob("*") if path.is_file()):
                target = self.path / file.relative_to(part)
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(file, target)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def known_formats(info: DomainInfo) -> tuple[str, ...]:
    """The domain's formats and `jsonl`."""
    return info.formats if JSONL in info.formats else (*info.formats, JSONL)


def check_format(format: str, info: DomainInfo) -> str:
    """The format itself.

    Raises:
        UsageError: the domain has no such format.
    """
    known = known_formats(info)
    if format not in known:
        raise UsageError(
            f"{info.name} has no output format {format!r}", fix=did_you_mean(format, known)
        )
    return format
