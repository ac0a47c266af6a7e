"""Mistakes that concern no plugin in particular: one message, the right exit code, no traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from toys import Done, environment, texts

Seqgen = Callable[..., Done]

full_device = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full (Linux)")


@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        (["run", "hello.txt"], ["--plugin", "seqgen plugins"]),
        (["run", "--plugin", ""], ["unknown plugin ''", "toy"]),
        (["rum", "--plugin", "toy"], ["unknown command 'rum'", "did you mean 'run'"]),
        (["run", "--plugin", "toy", "--set", "style"], ["'style' is not", "--set style=VALUE"]),
        (["run", "--plugin", "toy", "--config", "folder"], ["configuration folder", "directory"]),
        (["run", "--plugin", "toy", "-o", "hello.txt/a.txt"], ["cannot use", "why: ", "fix: "]),
        (["run", "--plugin", "toy", "-o", "folder"], ["folder exists already", "--overwrite"]),
        (["run", "--plugin", "toy", "--trace", "none/a.jsonl"], ["the trace none/a.jsonl"]),
        (["run", "--plugin", "toy", "--limit", "0"], ["--limit"]),
        (["run", "--plugin", "toy", "--threads", "0"], ["--threads"]),
        (["run", "--plugin", "toy", "--model", "seven"], ["unknown model", "neither", "toy-seven"]),
        (["bench", "--plugin", "toy", "-o", "hello.txt/a.json"], ["cannot use hello.txt"]),
        (["models", "show", "toy-sevn"], ["unknown model 'toy-sevn'"]),
        (["plugins", "check", "tyo"], ["unknown plugin 'tyo'", "did you mean 'toy'"]),
    ],
)
def test_usage(seqgen: Seqgen, arguments: list[str], messages: list[str]) -> None:
    Path("folder").mkdir()
    Path("folder/kept.txt").write_text("kept")
    Path("hello.txt").write_text("hello")
    done = seqgen(*arguments)
    assert done.code == 2, done.err
    for message in messages:
        assert message in done.err
    assert "Traceback" not in done.err
    assert Path("folder/kept.txt").read_text() == "kept"


@full_device
def test_a_full_disk_is_not_the_user_s_mistake(tmp_path: Path) -> None:
    texts(tmp_path / "in", 3)
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "seqgen", "run", "--plugin", "toy", "in"],
            cwd=tmp_path, env=environment(), stdout=full, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    assert done.returncode == 1
    assert os.strerror(28) in done.stderr
    assert "fix: free some space" in done.stderr
    assert "Traceback" not in done.stderr


def test_names_no_terminal_can_show(seqgen: Seqgen) -> None:
    """A line break and a byte that is no UTF-8 in a file's name."""
    name = os.fsdecode(b"odd\nname \xff.txt")
    Path(name).write_text("fine")
    assert seqgen("run", "--plugin", "toy", name, "-o", "out.jsonl").code == 0
    assert seqgen("run", "--plugin", "toy", name).out.count("\n") == 1
    assert len(Path("out.jsonl").read_text().splitlines()) == 1


def test_a_resumed_run_must_be_the_same_run(seqgen: Seqgen, tmp_path: Path) -> None:
    folder = texts(tmp_path / "in", 3)
    assert seqgen("run", "--plugin", "toy", folder, "-o", "out.jsonl").code == 0
    before = Path("out.jsonl").read_bytes()
    for change, message in (
        (["--seed", "4"], "seed was 0, is 4"),
        (["--decoder", "dice"], 'decoder was "upper", is "dice"'),
        (["--set", "piece=9"], "piece"),
        (["--limit", "2"], "items was 3, is 2"),
    ):
        done = seqgen("run", "--plugin", "toy", folder, "-o", "out.jsonl", "--resume", *change)
        assert (done.code, message in done.err) == (2, True), done.err
        assert "--overwrite" in done.err
    assert Path("out.jsonl").read_bytes() == before
