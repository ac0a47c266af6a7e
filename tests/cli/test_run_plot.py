"""`seqgen run --plot DIR` and `seqgen eval --plot FILE` with a domain that can draw."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from toys import Done, texts

Seqgen = Callable[..., Done]


@pytest.fixture
def drawn(seqgen: Seqgen, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The toy learns to draw: what it was asked to, and a picture that says which."""
    from seqgen_toy.domain import ToyDomain

    asked: list[str] = []

    def plot(self: ToyDomain, row: Mapping[str, Any], item: Any, options: Any) -> bytes:
        asked.append(row["id"])
        text = "".join(part.text for part in self.split(item, options))
        if "text 6" in text:
            raise ValueError("no ink")
        return f"{row['text']} of {text} {options.piece}".encode()

    monkeypatch.setattr(ToyDomain, "plot", plot, raising=False)
    return asked


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_picture_for_every_row_that_is_ok(
    seqgen: Seqgen, drawn: list[str], tmp_path: Path
) -> None:
    folder = texts(tmp_path / "in", 8)
    done = seqgen("run", "--plugin", "toy", folder, "gone", "--plot", "a/b", "--batch-size", 3)
    assert done.code == 1
    assert names(tmp_path / "a" / "b") == [f"t{n:03d}.png" for n in (0, 1, 2, 4, 5, 7)]
    assert (tmp_path / "a/b/t001.png").read_text().startswith("TEXT 1 TEXT 1")
    assert len(done.out.splitlines()) == 9
    assert "no picture: t006.txt: ValueError: no ink" in done.err
    assert "6 pictures in a/b/" in done.err
    assert json.loads(done.out.splitlines()[6])["status"] == "ok"


def test_a_resumed_run_has_all_its_pictures(
    seqgen: Seqgen, drawn: list[str], tmp_path: Path
) -> None:
    folder = texts(tmp_path / "in", 3)
    command = ["run", "--plugin", "toy", folder, "-o", "out.jsonl"]
    assert seqgen(*command).code == 0
    assert not drawn
    assert seqgen(*command, "--resume", "--plot", "pics").code == 0
    assert names(tmp_path / "pics") == ["t000.png", "t001.png", "t002.png"]
    again = seqgen(*command, "--resume", "--plot", "pics")
    assert "no new pictures" in again.err
    assert len(drawn) == 3
    assert seqgen(*command, "--overwrite", "--plot", "pics").code == 0
    assert len(drawn) == 6


def test_what_cannot_be(seqgen: Seqgen, tmp_path: Path) -> None:
    done = seqgen("run", "--plugin", "toy", "--plot", "pics")
    assert (done.code, done.out) == (2, "")
    assert "the toy plugin draws no pictures" in done.err


def test_a_file_in_the_folder_s_place(seqgen: Seqgen, drawn: list[str], tmp_path: Path) -> None:
    (tmp_path / "pics").write_text("mine")
    done = seqgen("run", "--plugin", "toy", "--plot", "pics")
    assert done.code == 2
    assert "pics is a file" in done.err
    assert (tmp_path / "pics").read_text() == "mine"


def test_the_domain_s_own_chart(
    seqgen: Seqgen, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from seqgen_toy.domain import ToyDomain

    def chart(self: ToyDomain, rows: Sequence[Any], items: Sequence[Any], format: str) -> bytes:
        assert [row["id"] for row in rows] == [item.id for item in items]
        return f"{format} of {len(rows)}".encode()

    monkeypatch.setattr(ToyDomain, "chart", chart, raising=False)
    folder = texts(tmp_path / "in", 5)
    for number in range(5):
        (folder / f"t{number:03d}.ref").write_text("x")
    done = seqgen("eval", "--plugin", "toy", folder, "gone", "--plot", "a/chart.svg")
    assert done.code == 1
    assert (tmp_path / "a/chart.svg").read_text() == "svg of 5"
    assert "wrote a/chart.svg" in done.err
    bad = seqgen("eval", "--plugin", "toy", folder, "--plot", "chart.xyz")
    assert bad.code == 2
    assert "must be one of .png, .svg, .pdf" in bad.err


def test_formats_may_name_the_settings(
    seqgen: Seqgen, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from seqgen_toy.domain import ToyDomain

    def with_settings(self: ToyDomain, settings: Mapping[str, Any]) -> ToyDomain:
        told = copy.copy(self)

        def write(rows: Any, destination: Path, format: str) -> None:
            lines = [row["text"] for row in rows]
            destination.write_text(json.dumps({"settings": settings, "lines": lines}))

        told.write = write
        return told

    monkeypatch.setattr(ToyDomain, "with_settings", with_settings, raising=False)
    done = seqgen("run", "--plugin", "toy", "-o", "o.txt", "--set", "style=loud", "--seed", 4)
    assert done.code == 0
    found = json.loads((tmp_path / "o.txt").read_text())
    assert found["lines"] == ["HELLO TOY!"]
    assert found["settings"]["options"]["style"] == "loud"
    assert (found["settings"]["seed"], found["settings"]["decoder"]) == (4, "upper")
