"""The benchmark scripts run and give results of the common form. Their figures are not judged."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    ("script", "arguments", "cases", "column"),
    [
        ("loop_overhead", ["--tokens", "3"], 3, "autoregressive_ms"),
        ("nar_vs_ar", ["--sizes", "shipped"], 3, "decode_ar_shifted_over_nar"),
    ],
)
def test_a_script(
    tmp_path: Path, script: str, arguments: list[str], cases: int, column: str
) -> None:
    file = tmp_path / "result.json"
    paths = os.pathsep.join(str(ROOT / part) for part in ("core", "plugins"))
    command = [sys.executable, ROOT / "benchmarks" / f"{script}.py", "--repeats", "1"]
    done = subprocess.run(
        [*command, *arguments, "--json", file],
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    outcome = json.loads(file.read_text())
    assert outcome["benchmark"] == script
    assert outcome["machine"]["threads"] == 1
    assert len(outcome["rows"]) == cases
    assert all(row[column] > 0 and row["case"] in done.stdout for row in outcome["rows"])
    made = runpy.run_path(str(ROOT / "benchmarks" / "run_all.py"))["table"](outcome)
    assert made.count("\n| ") == cases + 2
    assert f" {column} |" in made
