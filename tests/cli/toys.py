"""The command line with the toy plugin installed: in this process, or in one of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TOY = ROOT / "tests" / "toy_plugin"


@dataclass(frozen=True)
class Done:
    """What a command left: its exit code and what it printed."""

    code: int
    out: str
    err: str


def environment(**more: str) -> dict[str, str]:
    """The environment in which a new process finds seqgen and the toy plugin."""
    roots = [str(ROOT / name) for name in ("core", "cli", "plugins")]
    known = os.environ.get("PYTHONPATH", "")
    path = os.pathsep.join([*roots, str(TOY), *filter(None, [known])])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **more}


def start(
    *arguments: str, cwd: Path, env: Mapping[str, str] | None = None
) -> subprocess.Popen[str]:
    """`seqgen ARGUMENTS` in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "seqgen", *arguments],
        cwd=cwd,
        env={**environment(), **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def texts(folder: Path, count: int) -> Path:
    """A folder of `count` texts of mixed lengths, four of them unusable or long."""
    folder.mkdir()
    for number in range(count):
        text = f"text {number} " * (1 + number * 7 % 5)
        text = {3: "BAD one", 11: "a POISON here", 17: "", 29: text * 40}.get(number, text)
        (folder / f"t{number:03d}.txt").write_text(text)
    return folder
