"""Two hundred recordings, interrupted, resumed and sharded: the very same bytes each time."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

Seqgen = Callable[..., Any]

RATE = 16000
COUNT = 200


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Short noises of many lengths; two of the files are unusable."""
    folder = tmp_path_factory.mktemp("recordings")
    for number in range(COUNT):
        generator = np.random.default_rng(number)
        samples = 0.1 * generator.standard_normal(int(RATE * generator.uniform(0.2, 1.5)))
        soundfile.write(folder / f"r{number:03d}.wav", samples.astype(np.float32), RATE)
    (folder / "r050.wav").write_bytes(b"")
    (folder / "r120.wav").write_bytes((folder / "r121.wav").read_bytes()[:5000])
    return folder


@pytest.fixture
def command(recordings: Path, random_model: Path) -> list[str]:
    sampled = ["--set", "temperature=1", "--seed", "3", "--decoder", "ar"]
    return [
        "run", "--plugin", "speech", str(recordings), "--model", str(random_model), *sampled,
    ]  # fmt: skip


@pytest.mark.parametrize("form", ["jsonl", "txt"])
def test_interrupted_runs_end_in_the_same_bytes(
    seqgen: Seqgen, tmp_path: Path, command: list[str], form: str
) -> None:
    """Stopped by the user, then killed, then resumed to the end."""
    out = f"out.{form}"
    manifest = tmp_path / f"{out}.manifest.jsonl"
    stopped, message = interrupt(tmp_path, [*command, "-o", out], manifest, 3, signal.SIGINT)
    assert stopped == 130
    assert "--resume" in message
    assert "Traceback" not in message
    first = finished(manifest)
    again = [*command, "-o", out, "--resume"]
    killed, _ = interrupt(tmp_path, again, manifest, first + 3, signal.SIGKILL)
    assert killed == -signal.SIGKILL
    assert not (tmp_path / out).exists()
    assert first < finished(manifest) < COUNT / 8

    resumed = seqgen(*again)
    assert resumed.code == 1  # two of the files are unusable
    assert "resuming: " in resumed.err
    assert "2 failed" in resumed.err
    assert seqgen(*command, "-o", f"whole.{form}").code == 1
    assert subprocess.run(["cmp", out, f"whole.{form}"], cwd=tmp_path).returncode == 0


def test_three_shards_are_the_whole(seqgen: Seqgen, tmp_path: Path, command: list[str]) -> None:
    for form in ("jsonl", "txt"):
        parts = b""
        for index in range(3):
            part = f"part{index}.{form}"
            seqgen(*command, "--shard", f"{index}/3", "-o", part)
            parts += (tmp_path / part).read_bytes()
        seqgen(*command, "-o", f"whole.{form}")
        assert parts == (tmp_path / f"whole.{form}").read_bytes()
        assert parts.count(b"\n") >= COUNT - 2


def interrupt(
    folder: Path, arguments: list[str], manifest: Path, batches: int, how: signal.Signals
) -> tuple[int, str]:
    """Start `seqgen ARGUMENTS`; signal it once so many batches are done. (exit code, stderr)"""
    process = subprocess.Popen(
        [sys.executable, "-c", SLOWED, *arguments],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while finished(manifest) < batches:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(how)
    _, message = process.communicate(timeout=30)
    return process.returncode, message


def finished(manifest: Path) -> int:
    """Batches that the manifest calls done."""
    return manifest.read_bytes().count(b'"kind": "batch"') if manifest.exists() else 0


SLOWED = """
import sys, time
from seqgen.journal import Journal
from seqgen_cli.main import main

append = Journal.append
def slowly(*args, **kwargs):  # so small a model would be done before a signal arrives
    append(*args, **kwargs)
    time.sleep(0.1)
Journal.append = slowly
main(sys.argv[1:])
"""
