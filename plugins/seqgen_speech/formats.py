"""Transcripts as txt, srt, vtt and TextGrid files.

Rows are output rows: `id`, `status`, `text`, `tokens` (words), `times` ([start, end] in seconds),
`confidences`, `audio_seconds`. Failed rows have no transcript: they keep their line in txt (with
an empty text) and get no file in the other formats.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from seqgen.errors import UsageError, did_you_mean
from seqgen_speech.text import join_words

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Cue:
    """One subtitle: `text` is shown from `start` to `stop` seconds."""

    start: float
    stop: float
    text: str


def write_rows(rows: Iterable[Row], destination: Path, format: str) -> None:
    """Write rows in one of `FORMATS`.

    txt: one file; a single item is its plain text, several are lines `id<TAB>text`. The others
    hold one item a file: `destination` is that file or, for several items, a folder in which each
    gets `ID.FORMAT`.

    Raises:
        UsageError: the format is unknown, or several items shall go into one file that holds one.
    """
    if format not in FORMATS:
        raise UsageError(f"unknown format {format!r}", fix=did_you_mean(format, FORMATS))
    rows = list(rows)
    if format == "txt":
        path = destination / "transcripts.txt" if destination.is_dir() else destination
        _write(path, to_txt(rows))
        return
    done = [row for row in rows if row.get("status", "ok") == "ok"]
    if not destination.is_dir() and len(rows) > 1:
        raise UsageError(
            f"{len(rows)} transcripts do not fit into one {format} file",
            fix=f"name a folder with -o, or use --format txt or jsonl instead of {format}",
        )
    taken: set[PurePosixPath] = set()
    for row in done:
        path = destination
        if destination.is_dir():
            path = destination / _file_name(str(row["id"]), _SUFFIXES[format], taken)
        _write(path, _WRITERS[format](row))


def to_txt(rows: Sequence[Row]) -> str:
    """One row: its text. Several: lines `id<TAB>text`, as in Kaldi's `text`."""
    if len(rows) == 1:
        return f"{_text(rows[0])}\n"
    return "".join(f"{' '.join(str(row['id']).splitlines())}\t{_text(row)}\n" for row in rows)


def to_srt(row: Row) -> str:
    """SubRip."""
    return "\n".join(
        f"{number}\n{_clock(cue.start, ',')} --> {_clock(cue.stop, ',')}\n{cue.text}\n"
        for number, cue in enumerate(cues(row), 1)
    )


def to_vtt(row: Row) -> str:
    """WebVTT."""
    blocks = ["WEBVTT\n"]
    for cue in cues(row):
        text = cue.text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        blocks.append(f"{_clock(cue.start, '.')} --> {_clock(cue.stop, '.')}\n{text}\n")
    return "\n".join(blocks)


def to_textgrid(row: Row) -> str:
    """Praat's TextGrid (long form): a tier of words, or of the whole text if there are no times."""
    tokens, times = _timed(row)
    last = max([float(row.get("audio_seconds") or 0.0), *(stop for _, stop in times)])
    intervals: list[Cue] = []
    now = 0.0
    for token, (start, stop) in zip(tokens, times, strict=True):
        # A tier has no holes and no overlaps: silences are empty intervals.
        start = max(start, now)
        if start > now:
            intervals.append(Cue(now, start, ""))
        if stop > start:
            intervals.append(Cue(start, stop, token))
            now = stop
    if now < last or not intervals:
        intervals.append(Cue(now, last, ""))
    lines = [
        'File type = "ooTextFile"',
        'Object class = "TextGrid"',
        "",
        "xmin = 0",
        f"xmax = {last:.3f}",
        "tiers? <exists>",
        "size = 1",
        "item []:",
        "    item [1]:",
        '        class = "IntervalTier"',
        '        name = "words"',
        "        xmin = 0",
        f"        xmax = {last:.3f}",
        f"        intervals: size = {len(intervals)}",
    ]
    for number, part in enumerate(intervals, 1):
        quoted = part.text.replace('"', '""')
        lines += [
            f"        intervals [{number}]:",
            f"            xmin = {part.start:.3f}",
            f"            xmax = {part.stop:.3f}",
            f'            text = "{quoted}"',
        ]
    return "\n".join(lines) + "\n"


def cues(
    row: Row, *, max_gap: float = 0.8, max_seconds: float = 6.0, max_characters: int = 84
) -> list[Cue]:
    """Words gathered into subtitles of two lines' length at most.

    A new one begins after a silence of `max_gap` seconds, and where `max_seconds` or
    `max_characters` would be passed. Without times the whole text is one.
    """
    tokens, times = _timed(row)
    groups: list[list[int]] = []
    for index, (start, stop) in enumerate(times):
        group = groups[-1] if groups else []
        if (
            group
            and start - times[group[-1]][1] < max_gap
            and stop - times[group[0]][0] <= max_seconds
            and len(join_words([tokens[i] for i in [*group, index]])) <= max_characters
        ):
            group.append(index)
        else:
            groups.append([index])
    return [
        Cue(times[g[0]][0], max(times[i][1] for i in g), join_words([tokens[i] for i in g]))
        for g in groups
    ]


def _timed(row: Row) -> tuple[list[str], list[tuple[float, float]]]:
    """Words and their times; the whole text over the whole audio if there are none."""
    tokens = [str(token) for token in row.get("tokens") or []]
    times = [(float(start), float(stop)) for start, stop in row.get("times") or []]
    if tokens and len(tokens) == len(times):
        return tokens, times
    text = _text(row)
    return ([text], [(0.0, float(row.get("audio_seconds") or 0.0))]) if text else ([], [])


def _text(row: Row) -> str:
    # A line break inside a text would look like another row.
    return " ".join(str(row.get("text") or "").split())


def _clock(seconds: float, point: str) -> str:
    milliseconds = round(max(0.0, seconds) * 1000)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{milliseconds // 1000:02}{point}{milliseconds % 1000:03}"


def _file_name(key: str, suffix: str, taken: set[PurePosixPath]) -> PurePosixPath:
    """A path below the destination, whatever the id holds; different from those `taken`."""
    parts = PurePosixPath(key.replace("\0", "")).parts
    parts = tuple(part for part in parts if part.strip("/.")) or ("transcript",)
    count, name = 1, PurePosixPath(*parts[:-1], parts[-1] + suffix)
    while name in taken:  # `../a` and `a`
        count += 1
        name = PurePosixPath(*parts[:-1], f"{parts[-1]}-{count}{suffix}")
    taken.add(name)
    return name


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


_WRITERS: dict[str, Callable[[Row], str]] = {
    "srt": to_srt,
    "vtt": to_vtt,
    "textgrid": to_textgrid,
}
_SUFFIXES = {"srt": ".srt", "vtt": ".vtt", "textgrid": ".TextGrid"}
FORMATS = ("txt", *_WRITERS)
