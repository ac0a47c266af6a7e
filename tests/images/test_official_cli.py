"""Official checkpoints through the command line: found by their names, a family of one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.images.official_gpt import published_state, tiny_config, tiny_tokenizer

Seqgen = Callable[..., Any]


@pytest.mark.parametrize(
    ("name", "below", "engine", "passes"),
    [("c2i_tiny_016.pt", 0, "raster", 16), ("NAR_tiny.pt", 1, "diagonal", 7)],
)
def test_a_published_layout(
    seqgen: Seqgen, tmp_path: Path, name: str, below: int, engine: str, passes: int
) -> None:
    folder = tmp_path / "published"
    folder.mkdir()
    torch.save({"model": tiny_tokenizer().state_dict()}, folder / "vq_ds4.pt")
    torch.save({"model": published_state(tiny_config(below))}, folder / name)
    if below:  # NAR's files say no size; the published ones make images of 256 x 256
        passes = 2 * 64 - 1
    command = ("run", "--plugin", "images", "--model", folder, "--set", "count=2")
    done = seqgen(*command, "--set", "class=3", "--set", "preview=p.png")
    assert done.code == 0, done.err
    rows = [json.loads(line) for line in done.out.splitlines()]
    assert [row["decoder"] for row in rows] == [engine] * 2
    assert [row["passes"] for row in rows] == [passes] * 2
    assert rows[0]["labels"] == {"class": "3"}
    unknown = seqgen(*command, "--set", "class=5")
    assert unknown.code == 2
    assert "unknown name '5'" in unknown.err
