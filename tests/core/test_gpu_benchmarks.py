"""The benchmarks for a GPU run without one: a smoke version, whose results are checked here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from seqgen import kernels

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="on a GPU they run at full size")


def run(folder: Path, script: str, *arguments: str) -> tuple[dict[str, Any], str]:
    """The result of a script, and what it printed."""
    file = folder / "result.json"
    command = [sys.executable, str(ROOT / "benchmarks" / f"{script}.py"), "--repeats", "1"]
    done = subprocess.run(
        [*command, *arguments, "--json", str(file)],
        env={**os.environ, "PYTHONPATH": str(ROOT / "core"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    outcome: dict[str, Any] = json.loads(file.read_text())
    assert outcome["benchmark"] == script
    assert outcome["machine"]["device"] == "none (smoke run)"
    assert "no CUDA device is at hand" in done.stdout
    return outcome, done.stdout


def test_the_backends_agree_before_they_are_timed(tmp_path: Path) -> None:
    outcome, printed = run(tmp_path, "block_attention_gpu")
    backends = ["sdpa", "flex"]
    if kernels.installed():
        backends = ["triton", *backends]
    assert len(outcome["rows"]) == 4
    for row in outcome["rows"]:
        assert row["case"] in printed
        for backend in backends:
            assert row[f"{backend}_error"] < 1e-5
            assert row[f"{backend}_ms"] > 0
    assert {row["case"].rpartition(" ")[2] for row in outcome["rows"]} == {"alone", "fused"}


def test_tokens_a_second_and_their_limit(tmp_path: Path) -> None:
    outcome, _ = run(tmp_path, "sdar_gpu", "--graphs")
    assert [row["case"] for row in outcome["rows"]] == [
        "SDAR-smoke, batch 1, K 4",
        "SDAR-smoke, batch 2, K 4",
    ]
    for row in outcome["rows"]:
        assert row["pass_ms"] > 0
        assert row["block_limit"] == pytest.approx(4 * row["one_limit"], rel=1e-3)
        for way in ("one", "block"):
            share = row[f"{way}_tokens_a_second"] / row[f"{way}_limit"]
            assert row[f"{way}_share"] == pytest.approx(share, rel=1e-2)
    # Two rows share the weights: the limit is less than doubled, by their caches alone.
    limits = [row["one_limit"] for row in outcome["rows"]]
    assert 1.5 < limits[1] / limits[0] < 2
