"""Listing what to transcribe: files, folders, globs, standard input, jsonl and Kaldi manifests.

Listing is cheap (headers only) and never decodes audio: a file that cannot be read is listed with
duration 0, and the error comes when it is read.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from seqgen.errors import InputError
from seqgen.sources import find_files
from seqgen_speech.audio import SUFFIXES, probe_seconds
from seqgen_speech.resample import Wave
from seqgen_speech.text import DIGITS

References = Literal["auto", "fsdd", "none"]
"""Where the true text of a lone audio file comes from: a file of the same name ending in `.txt`
(auto), the file name digit_speaker_take of the Free Spoken Digit Dataset (fsdd), or nowhere.
Manifests carry their own."""

_ID_KEYS = ("key", "id", "utt")
_AUDIO_KEYS = ("source", "audio", "path", "audio_filepath", "wav")
_TEXT_KEYS = ("target", "text", "reference")


@dataclass(frozen=True)
class SpeechItem:
    """One recording, or a part of one; light until `wave` is filled.

    Attributes:
        id: unique within its source and independent of everything else: the key in manifests,
            otherwise the path below the source without suffix.
        path: the audio file; `-` is standard input.
        start: where the part begins, in seconds.
        stop: where it ends; None is the end of the file.
        reference: the true text, if known.
        duration: seconds by the header; 0.0 if unknown.
        wave: samples [S] at 16 kHz, once read.
        problem: why a manifest's line names no item; reading it raises this, so that the other
            lines go on.
    """

    id: str
    path: str
    start: float = 0.0
    stop: float | None = None
    reference: str | None = None
    duration: float = 0.0
    wave: Wave | None = field(default=None, repr=False, compare=False)
    problem: InputError | None = field(default=None, compare=False)

    @property
    def size(self) -> float:
        """Relative cost: seconds."""
        return self.duration


def list_items(source: str, *, references: References = "auto") -> Iterator[SpeechItem]:
    """The items of one INPUT, in a stable order.

    - `-`: standard input, one file.
    - a folder: every audio file below it, sorted, hidden ones left out; a folder with a `wav.scp`
      is a Kaldi folder (`text` and `segments` beside it are read).
    - a pattern with `*`, `?`, `[...]` or `**`.
    - `*.jsonl`: an object a line, {key|id, source|audio|path, target|text}, and optionally `start`
      and `stop`, or `offset` and `duration`, in seconds; other fields are ignored.
    - `wav.scp` or `*.scp`: lines `key path`. Commands (ending in `|`) are refused, never executed.
    - any other file: that file.

    Paths in a manifest count from the manifest's folder or, if nothing is there, from the current
    one.

    Raises:
        InputError: nothing is found, or a manifest cannot be read. A malformed line is an item with
            a `problem`.
    """
    path = Path(source)
    if source == "-":
        yield SpeechItem("stdin", "-")
    elif path.is_dir():
        scp = path / "wav.scp"
        yield from _kaldi(scp) if scp.is_file() else _several(source, references)
    elif not path.exists():
        yield from _several(source, references)
    elif path.suffix == ".jsonl":
        yield from _jsonl(path)
    elif path.suffix == ".scp":
        yield from _kaldi(path)
    else:
        yield _file(path, _own_id(path), references)


def _file(path: Path, key: str, references: References) -> SpeechItem:
    return SpeechItem(
        key, str(path), reference=_reference(path, references), duration=probe_seconds(path)
    )


def _own_id(path: Path) -> str:
    """Path as written if it lies below the current folder, else the file's name; no suffix."""
    path = Path(os.path.normpath(path))
    if path.is_absolute() or ".." in path.parts:
        path = Path(path.name)
    return path.with_suffix("").as_posix()


def _several(source: str, references: References) -> Iterator[SpeechItem]:
    """The files of a folder or a pattern; where two differ in the suffix alone, it stays."""
    found = find_files(source, what="audio", suffixes=SUFFIXES)
    stems = Counter(Path(name).with_suffix("").as_posix() for name, _ in found)
    for name, path in found:
        stem = Path(name).with_suffix("").as_posix()
        yield _file(path, stem if stems[stem] == 1 else name, references)


def _reference(path: Path, references: References) -> str | None:
    if references == "fsdd":
        digit, *rest = path.stem.split("_")
        if len(digit) == 1 and digit.isascii() and digit.isdigit() and len(rest) == 2:
            return DIGITS[int(digit)]
    if references == "auto":
        beside = path.with_suffix(".txt")
        try:
            return beside.read_text("utf-8").strip() if beside.is_file() else None
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"cannot read the reference {beside}", why=str(error)) from error
    return None


def _jsonl(manifest: Path) -> Iterator[SpeechItem]:
    seen: set[str] = set()
    for number, line in _lines(manifest):
        try:
            yield _jsonl_item(manifest, line, seen, f"{manifest}, line {number}")
        except InputError as error:
            yield SpeechItem(f"{manifest.name}:{number}", str(manifest), problem=error)


def _jsonl_item(manifest: Path, line: str, seen: set[str], where: str) -> SpeechItem:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError(f"{where} is not JSON", why=str(error)) from error
    audio = _pick(row, _AUDIO_KEYS) if isinstance(row, dict) else None
    if not isinstance(audio, str) or not audio:
        raise InputError(
            f"{where} names no audio file",
            fix='each line is an object such as {"key": "a1", "source": "a1.wav"}',
        )
    path = _resolve(manifest, audio, where)
    key = _pick(row, _ID_KEYS)
    key = Path(audio).with_suffix("").as_posix() if key is None else str(key)
    start, stop = _range(row, where)
    text = _pick(row, _TEXT_KEYS)
    return _entry(key, path, start, stop, None if text is None else str(text), seen, where)


def _kaldi(scp: Path) -> Iterator[SpeechItem]:
    """`wav.scp` with the `text` and `segments` beside it, if they are there."""
    audio = _table(scp)
    texts = _table(scp.with_name("text"), missing_ok=True)
    parts = _table(scp.with_name("segments"), missing_ok=True)
    seen: set[str] = set()
    for key, rest in (parts or audio).items():
        try:
            if not parts:
                path = _resolve(scp, rest, f"{scp}, key {key}")
                yield _entry(key, path, 0.0, None, texts.get(key), seen, str(scp))
                continue
            recording, start, stop = _segment(rest, audio, scp, key)
            path = _resolve(scp, audio[recording], f"{scp}, key {recording}")
            yield _entry(key, path, start, stop, texts.get(key), seen, str(scp))
        except InputError as error:
            yield SpeechItem(key, str(scp), problem=error)


def _segment(
    rest: str, audio: Mapping[str, str], scp: Path, key: str
) -> tuple[str, float, float | None]:
    """`recording start stop` of a line of `segments`; a negative stop is the end."""
    try:
        recording, start, stop = rest.split()
        begin, end = float(start), float(stop)
        audio[recording]
    except (ValueError, KeyError) as error:
        raise InputError(
            f"{scp.with_name('segments')}, key {key} is malformed",
            why=f"{rest!r} is not `recording start stop` with a recording of {scp}",
        ) from error
    return recording, begin, None if end < 0 else end


def _entry(
    key: str,
    path: str,
    start: float,
    stop: float | None,
    text: str | None,
    seen: set[str],
    where: str,
) -> SpeechItem:
    if key in seen:
        raise InputError(f"{where}: the key {key!r} appears twice", fix="give each line its own")
    seen.add(key)
    end = probe_seconds(path) if stop is None else stop
    return SpeechItem(key, path, start, stop, text, max(0.0, end - start))


def _table(path: Path, *, missing_ok: bool = False) -> dict[str, str]:
    """A Kaldi table, `key rest-of-line`."""
    if missing_ok and not path.is_file():
        return {}
    table: dict[str, str] = {}
    for number, line in _lines(path):
        key, _, rest = line.strip().partition(" ")
        if key in table:
            raise InputError(f"{path}, line {number}: the key {key!r} appears twice")
        table[key] = rest.strip()
    return table


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines that are not blank."""
    try:
        text = path.read_text("utf-8-sig").replace("\t", " ")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the manifest {path}", why=str(error)) from error
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not lines:
        raise InputError(f"the manifest {path} is empty")
    yield from lines


def _resolve(manifest: Path, name: str, where: str) -> str:
    if name.endswith("|") or name.startswith("|"):
        raise InputError(
            f"{where} is a command, not a file",
            why="manifests are data: nothing in them is executed",
            fix="run it yourself and list the files that it writes",
        )
    if "://" in name:
        raise InputError(f"{where} is a web address: {name}", fix="download it and list the file")
    beside = manifest.parent / name
    return name if not name or (Path(name).exists() and not beside.exists()) else str(beside)


def _range(row: Mapping[str, Any], where: str) -> tuple[float, float | None]:
    try:
        start = float(row.get("start", row.get("offset", 0.0)))
        if row.get("stop") is not None:
            return start, float(row["stop"])
        # `duration` alone describes the file; together with `offset` it is a part of it.
        if "offset" in row and "duration" in row:
            return start, start + float(row["duration"])
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: start and stop must be seconds", why=str(error)) from error
    return start, None


def _pick(row: Mapping[str, Any], keys: Iterable[str]) -> Any:
    return next((row[key] for key in keys if row.get(key) is not None), None)
