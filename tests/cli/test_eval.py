"""`seqgen eval`: metrics under the field's names, in a table or as one JSON object."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from toys import Done

Seqgen = Callable[..., Done]


def _scored(folder: Path) -> Path:
    folder.mkdir()
    for number in range(6):
        (folder / f"t{number}.txt").write_text("BAD" if number == 4 else f"text {number}")
        (folder / f"t{number}.ref").write_text("other" if number == 0 else f"text {number}")
    return folder


def test_json_is_one_object_with_the_field_s_names(seqgen: Seqgen, tmp_path: Path) -> None:
    done = seqgen("eval", "--plugin", "toy", _scored(tmp_path / "in"), "--json")
    found = json.loads(done.out)
    assert done.code == 1
    assert found["accuracy"] == round(4 / 6, 4)
    assert (found["items"], found["failures"]) == (6, 1)
    assert (found["decoder"], found["model"]) == ("upper", "toy-seven")
    assert found["seconds"] > 0
    assert found["tokens"] == 5 * len("text 0")


def test_the_table_names_the_same_figures(seqgen: Seqgen, tmp_path: Path) -> None:
    done = seqgen("eval", "--plugin", "toy", _scored(tmp_path / "in"), "--decoder", "reverse")
    assert "accuracy" in done.out
    assert "reverse" in done.out
    assert "failed: " in done.err


def test_rows_and_picture_are_kept(seqgen: Seqgen, tmp_path: Path) -> None:
    folder = _scored(tmp_path / "in")
    command = ["eval", "--plugin", "toy", folder, "-o", "rows.jsonl", "--plot", "spread.png"]
    assert seqgen(*command).code == 1
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == [f"t{number}.txt" for number in range(6)]
    assert rows[1]["seconds"] > 0
    assert (tmp_path / "spread.png").read_bytes().startswith(b"\x89PNG")
    again = seqgen(*command)
    assert again.code == 2
    assert "--overwrite" in again.err


def test_without_references_it_says_so(seqgen: Seqgen, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    done = seqgen("eval", "--plugin", "toy", "a.txt")
    assert done.code == 1
    assert "cannot be scored" in done.err
    assert "a.txt has no reference" in done.err


def test_a_missing_source_is_a_failure_that_is_not_scored(seqgen: Seqgen, tmp_path: Path) -> None:
    folder = _scored(tmp_path / "in")
    found = json.loads(seqgen("eval", "--plugin", "toy", folder, "gone", "--json").out)
    assert (found["items"], found["failures"]) == (7, 2)
    assert found["accuracy"] == round(4 / 6, 4)
