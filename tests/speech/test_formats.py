"""Transcript files: their exact text, times, odd rows, and where they are put."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest

from seqgen.errors import UsageError
from seqgen_speech.formats import FORMATS, cues, to_srt, to_textgrid, to_txt, to_vtt, write_rows

ROW = {
    "id": "a/b",
    "status": "ok",
    "text": "press <one> & wait now",
    "tokens": ["press", "<one>", "&", "wait", "now"],
    "times": [[0.3, 0.6], [0.6, 0.9], [0.9, 1.0], [1.1, 1.5], [3661.0, 3661.5]],
    "audio_seconds": 3662.0,
}
BARE = {"id": "c", "status": "ok", "text": 'say "hi"', "audio_seconds": 2.0}
FAILED = {"id": "d", "status": "failed", "reason": "empty"}


def test_txt() -> None:
    assert to_txt([BARE]) == 'say "hi"\n'
    assert to_txt([ROW, FAILED]) == "a/b\tpress <one> & wait now\nd\t\n"
    assert to_txt([{**BARE, "id": "two\nlines"}, FAILED]) == 'two lines\tsay "hi"\nd\t\n'


def test_srt() -> None:
    assert to_srt(ROW) == (
        "1\n00:00:00,300 --> 00:00:01,500\npress <one> & wait\n\n"
        "2\n01:01:01,000 --> 01:01:01,500\nnow\n"
    )
    assert to_srt(BARE) == '1\n00:00:00,000 --> 00:00:02,000\nsay "hi"\n'
    assert to_srt({"text": "", "tokens": [], "times": [], "audio_seconds": 9}) == ""


def test_vtt() -> None:
    assert to_vtt(ROW).startswith(
        "WEBVTT\n\n00:00:00.300 --> 00:00:01.500\npress &lt;one&gt; &amp; wait\n\n01:01:01.000"
    )
    assert to_vtt({"text": "", "tokens": [], "times": []}) == "WEBVTT\n"


def test_cues_break_by_gap_length_and_width() -> None:
    tokens = ["word"] * 100
    times = [[0.5 * i, 0.5 * i + 0.4] for i in range(100)]
    row = {"tokens": tokens, "times": times}
    found = cues(row)
    assert " ".join(cue.text for cue in found) == " ".join(tokens)
    assert all(cue.stop - cue.start <= 6.0 for cue in found)
    assert all(len(cue.text) <= 20 for cue in cues(row, max_characters=20))
    assert len(cues(row, max_gap=0.05)) == 100
    # Chinese words join without spaces.
    chinese = {"tokens": ["\u4f60", "\u597d"], "times": [[0, 1], [1, 2]]}
    assert cues(chinese)[0].text == "\u4f60\u597d"


@pytest.mark.parametrize("row", [ROW, BARE, {"text": "", "audio_seconds": 1.0}])
def test_textgrid_tiers_have_no_holes(row: dict) -> None:
    text = to_textgrid(row)
    assert text.startswith('File type = "ooTextFile"\nObject class = "TextGrid"\n\nxmin = 0\n')
    parts = re.findall(
        r'intervals \[\d+\]:\n\s+xmin = (.*)\n\s+xmax = (.*)\n\s+text = "(.*)"', text
    )
    assert int(re.search(r"intervals: size = (\d+)", text)[1]) == len(parts)
    edges = [(float(start), float(stop)) for start, stop, _ in parts]
    assert edges[0][0] == 0.0
    assert edges[-1][1] == row["audio_seconds"]
    assert all(left[1] == right[0] for left, right in itertools.pairwise(edges))
    said = " ".join(word for _, _, word in parts if word)
    assert said.replace('""', '"') == row["text"]


def test_overlapping_times_stay_a_valid_tier() -> None:
    text = to_textgrid({"tokens": ["a", "b", "c"], "times": [[0, 1], [0.5, 1.5], [0.2, 1.2]]})
    assert re.findall(r'text = "(.+)"', text) == ["a", "b"]


@pytest.mark.parametrize("format", FORMATS)
def test_where_files_go(tmp_path: Path, format: str) -> None:
    write_rows([BARE], tmp_path / f"deep/one.{format}", format)
    assert "say" in (tmp_path / f"deep/one.{format}").read_text("utf-8")
    folder = tmp_path / "many"
    folder.mkdir()
    write_rows(iter([ROW, BARE, FAILED, {**BARE, "id": "/../x"}]), folder, format)
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    suffix = {"textgrid": "TextGrid"}.get(format, format)
    if format == "txt":
        assert names == ["transcripts.txt"]
    else:
        assert names == [f"a/b.{suffix}", f"c.{suffix}", f"x.{suffix}"]
        with pytest.raises(UsageError, match="do not fit"):
            write_rows([ROW, BARE], tmp_path / "one.out", format)


def test_no_two_items_share_a_file(tmp_path: Path) -> None:
    ids = ["x", "../x", "./x", "/", "..", "a/../x", "x\0"]
    write_rows([{**BARE, "id": name, "text": name} for name in ids], tmp_path, "vtt")
    found = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert len(found) == len(ids)
    assert {"x.vtt", "x-2.vtt", "x-3.vtt", "transcript.vtt"} <= {p.name for p in found}


def test_unknown_format(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        write_rows([BARE], tmp_path / "x", "str")
    assert "srt" in caught.value.fix
