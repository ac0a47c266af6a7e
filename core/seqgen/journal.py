"""The journal beside an output file: what makes a long run safe to interrupt.

`OUT.manifest.jsonl` is append-only:

    {"kind": "header", ...}                     everything that determines the rows
    {"kind": "row", "index": 4, "row": {...}}   one line a finished item
    {"kind": "batch", "batch": 0, "items": 8, "forwards": 31, "seconds": 0.4}
    ...
    {"kind": "summary", ...}                    when the run is complete

A batch is appended with one write and synced; its last line is the mark that it is whole. After a
crash whatever follows the last mark is dropped, and `--resume` decodes those batches again, in the
same company. The output itself is written from the journal once everything is there.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from seqgen.errors import SeqgenError, UsageError

INFORMATIVE = frozenset({"kind", "started", "sources", "threads"})
"""Header keys that may differ between a run and its resumption."""


@dataclass(frozen=True)
class Totals:
    """Sums over the finished batches."""

    items: int = 0
    failures: int = 0
    forwards: int = 0
    seconds: float = 0.0


class Journal:
    """An open journal. Use `Journal.create` or `Journal.resume`; close it, or use `with`.

    Attributes:
        path: the file.
        done: indices of the batches that are finished.
        dropped: lines of an unfinished batch that were dropped on resuming.
        totals: sums over finished batches.
    """

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self.path = path
        self.done: set[int] = set()
        self.dropped = 0
        self.totals = Totals()
        self._file = file
        self._offsets: dict[int, int] = {}

    @classmethod
    def create(cls, path: Path, header: Mapping[str, Any]) -> Journal:
        """A new journal; an old one at `path` is replaced.

        Raises:
            UsageError: another process is writing it.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "a+b")  # noqa: SIM115  (kept open; closed by close())
        _lock(file, path)
        file.truncate(0)
        journal = cls(path, file)
        journal._append(to_line({"kind": "header", **header}))
        return journal

    @classmethod
    def resume(cls, path: Path, header: Mapping[str, Any]) -> Journal:
        """Open the journal of an interrupted run, if it was a run of the same configuration.

        Raises:
            UsageError: the configuration differs (the message says in what), the file is no
                journal, or another process is writing it.
        """
        file = open(path, "r+b")  # noqa: SIM115
        _lock(file, path)
        journal = cls(path, file)
        try:
            line = file.readline()
            first = _parse(line)
            if first is None and not line.endswith(b"\n"):  # killed before the header was whole
                file.truncate(0)
                journal._append(to_line({"kind": "header", **header}))
                return journal
            if first is None or first["kind"] != "header":
                raise UsageError(
                    f"{path} is not the manifest of a run that can be resumed",
                    fix="start anew with --overwrite",
                )
            _compare(first, header, path)
            journal._read()
        except BaseException:
            journal.close()
            raise
        return journal

    def append(
        self,
        batch: int,
        rows: Sequence[tuple[int, Mapping[str, Any]]],
        *,
        forwards: int,
        seconds: float,
    ) -> None:
        """Add a finished batch: (index in the input list, row) pairs, and the mark."""
        offset = self._file.seek(0, os.SEEK_END)
        lines: list[bytes] = []
        places: dict[int, int] = {}
        for index, row in rows:
            places[index] = offset
            lines.append(to_line({"kind": "row", "index": index, "row": row}))
            offset += len(lines[-1])
        mark = {
            "kind": "batch",
            "batch": batch,
            "items": len(rows),
            "failures": sum(row["status"] == "failed" for _, row in rows),
            "forwards": forwards,
            "seconds": round(seconds, 6),
        }
        lines.append(to_line(mark))
        self._append(b"".join(lines))
        self._offsets |= places
        self._count(mark)

    def finish(self) -> None:
        """Add the summary line: everything is done."""
        totals = self.totals
        self._append(
            to_line(
                {
                    "kind": "summary",
                    "items": totals.items,
                    "failures": totals.failures,
                    "forwards": totals.forwards,
                    "seconds": round(totals.seconds, 6),
                }
            )
        )

    def rows(self) -> Iterator[dict[str, Any]]:
        """Finished rows in input order, read from the file one by one."""
        with open(self.path, "rb") as file:
            for index in sorted(self._offsets):
                file.seek(self._offsets[index])
                yield json.loads(file.readline())["row"]

    def close(self) -> None:
        """Close the file and let go of its lock."""
        self._file.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if isinstance(error, SeqgenError) and not self.done:
            self.path.unlink(missing_ok=True)  # refused before anything was done: nothing to resume
        self.close()

    def _read(self) -> None:
        """Take in whole batches; cut the file after the last of them."""
        keep = offset = self._file.tell()
        pending: dict[int, int] = {}
        lines = 0
        for line in self._file:
            entry = _parse(line)
            if entry is None:
                lines += 1
                break
            if entry["kind"] == "row":
                pending[entry["index"]] = offset
                lines += 1
            elif entry["kind"] == "batch" and entry["items"] == len(pending):
                self._offsets |= pending
                self._count(entry)
                pending, lines, keep = {}, 0, offset + len(line)
            else:  # the summary of a complete run, or a damaged batch: written again
                break
            offset += len(line)
        self.dropped = lines
        self._file.truncate(keep)
        self._file.seek(keep)

    def _count(self, mark: Mapping[str, Any]) -> None:
        old = self.totals
        self.done.add(mark["batch"])
        self.totals = Totals(
            items=old.items + mark["items"],
            failures=old.failures + mark["failures"],
            forwards=old.forwards + mark["forwards"],
            seconds=old.seconds + mark["seconds"],
        )

    def _append(self, data: bytes) -> None:
        self._file.seek(0, os.SEEK_END)
        self._file.write(data)
        self._file.flush()
        os.fsync(self._file.fileno())


def to_line(value: Mapping[str, Any]) -> bytes:
    """One JSON line. Readable UTF-8, except where a file name is not valid text: then escapes."""
    try:
        return (json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n").encode()
    except UnicodeEncodeError:
        return (json.dumps(value, allow_nan=False) + "\n").encode()


def manifest_path(out: Path) -> Path:
    """Where the journal of an output lies: beside it."""
    return out.with_name(out.name + ".manifest.jsonl")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends well.

    It keeps the suffix, because writers choose their format by it. Where the block wrote nothing,
    nothing is at `path` afterwards.
    """
    part = path.with_name(f".{path.stem}.part{path.suffix}")
    part.unlink(missing_ok=True)
    try:
        yield part
        if not part.exists():
            path.unlink(missing_ok=True)
            return
        with open(part, "rb") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_jsonl(path: Path, rows: Iterator[Mapping[str, Any]]) -> None:
    """Rows as JSON lines; `path` appears whole or not at all."""
    with replacing(path) as part, open(part, "wb") as file:
        file.writelines(map(to_line, rows))


def _parse(line: bytes) -> dict[str, Any] | None:
    """A whole JSON line, or None if it is torn or damaged."""
    if not line.endswith(b"\n"):
        return None
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) and "kind" in value else None


def differences(
    old: Mapping[str, Any], new: Mapping[str, Any], *, ignore: Collection[str] = ()
) -> list[str]:
    """In what two configurations differ (`seed was 3, is 0`); mappings inside key by key."""
    new = json.loads(json.dumps(new))  # tuples become lists, as they did in the file
    found = []
    for key in sorted((old.keys() | new.keys()) - set(ignore)):
        before, now = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(now, dict):
            found += [f"{key}.{line}" for line in differences(before, now)]
        elif before != now:
            found.append(f"{key} was {_show(before)}, is {_show(now)}")
    return found


def _compare(old: Mapping[str, Any], new: Mapping[str, Any], path: Path) -> None:
    if found := differences(old, new, ignore=INFORMATIVE):
        raise UsageError(
            f"cannot resume {path}: this run is configured differently",
            why="; ".join(found),
            fix="repeat the settings of that run, or start anew with --overwrite",
        )


def _show(value: Any) -> str:
    return "not set" if value is None else json.dumps(value, ensure_ascii=False)


def _lock(file: IO[bytes], path: Path) -> None:
    """Two processes must not append to one journal. Gone when the process is."""
    try:
        import fcntl
    except ImportError:  # Windows has no advisory locks; there the user takes care
        return
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        if isinstance(error, BlockingIOError):
            raise UsageError(
                f"another process is writing {path}",
                fix="wait for it to end, or choose another output",
            ) from None
        raise
