"""The commands of docs/images.md, run with models of random weights."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.images.pictures import gradient, half_mask, save

Seqgen = Callable[..., Any]

PAGE = Path(__file__).resolve().parents[2] / "docs" / "images.md"


def commands() -> list[str]:
    """The lines of the blocks that are marked to be run."""
    blocks = PAGE.read_text(encoding="utf-8").split("<!-- test: images -->\n```sh\n")[1:]
    return [line for block in blocks for line in block.split("```")[0].splitlines()]


@pytest.mark.parametrize("line", commands())
def test_a_command_of_the_page(seqgen: Seqgen, family: Path, tmp_path: Path, line: str) -> None:
    save(tmp_path / "photo.png")
    half_mask(tmp_path / "mask.png")
    save(tmp_path / "small.png", gradient(6, 6))
    (tmp_path / "wanted.jsonl").write_text('hat\n{"class": "glasses", "count": 2, "seed": 7}\n')
    words = shlex.split(line)
    assert words[:4] == ["seqgen", "run", "--plugin", "images"]
    done = seqgen(*words[1:], "--model", family)
    assert done.code == 0, done.err
    outputs = [word.partition("preview=")[2] for word in words if word.startswith("preview=")]
    for name in [words[words.index("-o") + 1], *outputs]:
        assert (tmp_path / name).exists()


def test_there_are_commands() -> None:
    assert len(commands()) == 11
