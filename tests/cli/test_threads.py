"""How many threads a command takes by itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from toys import environment, texts

from seqgen_cli.threads import default_threads, usable_cores


@pytest.mark.parametrize(("cores", "expected"), [(1, 1), (2, 1), (3, 1), (8, 4), (64, 32)])
def test_half_of_the_cores(monkeypatch: pytest.MonkeyPatch, cores: int, expected: int) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("seqgen_cli.threads.usable_cores", lambda: cores)
    assert default_threads() == expected


@pytest.mark.parametrize(("value", "expected"), [("3", 3), ("5,2", 5), ("0", 4), ("many", 4)])
def test_the_usual_variable_wins(
    monkeypatch: pytest.MonkeyPatch, value: str, expected: int
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    monkeypatch.setattr("seqgen_cli.threads.usable_cores", lambda: 8)
    assert default_threads() == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("max 100000\n", 6), ("200000 100000\n", 2), ("50000 100000\n", 1), ("", 6)],
)
def test_a_container_s_quota_bounds_the_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, expected: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)), raising=False)
    (tmp_path / "cpu.max").write_text(text)
    assert usable_cores(tmp_path / "cpu.max") == expected
    assert usable_cores(tmp_path / "none") == 6


def test_a_run_uses_and_records_them(tmp_path: Path) -> None:
    texts(tmp_path / "in", 3)
    code = (
        "import sys, torch\n"
        "from seqgen_cli.main import run\n"
        "run(sys.argv[1:])\n"
        "print(torch.get_num_threads())\n"
    )
    for more, expected in (([], "3"), (["--threads", "2"], "2")):
        out = tmp_path / f"{expected}.txt"
        arguments = ["run", "--plugin", "toy", str(tmp_path / "in"), "-o", str(out), *more]
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            env=environment(OMP_NUM_THREADS="3"), capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert done.stdout.strip() == expected
        manifest = (tmp_path / f"{expected}.txt.manifest.jsonl").read_text().splitlines()
        assert json.loads(manifest[0])["threads"] == int(expected)
