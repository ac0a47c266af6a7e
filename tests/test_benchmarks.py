"""The benchmark scripts run and give results of the common form. Their figures are not judged."""

from __future__ import annotations

import importlib
import json
import os
import runpy
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    ("script", "arguments", "cases", "column"),
    [
        ("loop_overhead", ["--tokens", "3"], 3, "autoregressive_ms"),
        (
            "decode",
            ["--models", "1 layer, d64", "--batches", "1", "--tokens", "8", "--eager", "--weights"],
            1,
            "ar_int8_cpu_ms",
        ),
        ("decode_growth", ["--lengths", "16", "32", "--tokens", "2"], 6, "token_ms"),
        ("nar_vs_ar", ["--sizes", "shipped"], 3, "decode_ar_shifted_over_nar"),
    ],
)
def test_a_script(
    tmp_path: Path, script: str, arguments: list[str], cases: int, column: str
) -> None:
    outcome, printed = _run(tmp_path, script, arguments)
    assert outcome["machine"]["threads"] == 1
    assert len(outcome["rows"]) == cases
    assert all(row[column] > 0 and row["case"] in printed for row in outcome["rows"])
    made = _table(outcome)
    assert made.count("\n| ") == cases + 2
    assert f" {column} |" in made


def test_decoders_of_peptides(tmp_path: Path) -> None:
    """On a model of random weights, whose answers are wrong but weigh what they must."""
    model, spectra = _peptide_model(tmp_path / "random.safetensors"), tmp_path / "two.mgf"
    shipped = (ROOT / "plugins/seqgen_peptides/assets/example.mgf").read_text()
    spectra.write_text(shipped.replace("TITLE=", "TITLE=hela_", 1))
    figure = tmp_path / "figure.png"
    arguments = ["--data", spectra, "--model", model, "--limit", "2", "--figure", figure]
    outcome, printed = _run(tmp_path, "peptides_valid", arguments)

    rows = {row["case"]: row for row in outcome["rows"]}
    assert len(rows) == 14
    assert outcome["model"] == "random.safetensors"
    assert outcome["spectra"] == {"all": 2, "peptides": 2, "hela": 1, "other": 1}
    assert all(case in printed and row["cpu_ms"] > 0 for case, row in rows.items())
    assert all(row["low"] <= row["peptide_precision"] <= row["high"] for row in rows.values())
    for case in ("AR beam 5, constraint", "NAR mass program", "hybrid beam 5, constraint"):
        assert rows[case]["coverage"] == rows[case]["precursor_match"] == 1
    # The one-pass decoder is a pass, of the hybrid too; the hybrid's decoders are two.
    assert rows["NAR mass program"]["passes"] == 1
    assert rows["hybrid beam 5"]["passes"] > 2
    assert rows["hybrid beam 5"]["parameters"] > rows["AR beam 5"]["parameters"]
    assert {(row["case"], row["set"]) for row in outcome["by_set"]} == {
        (case, name) for case in rows for name in ("hela", "other")
    }
    assert all(row["low"] <= row["difference"] <= row["high"] for row in outcome["differences"])
    assert figure.read_bytes().startswith(b"\x89PNG")
    assert _table(outcome).count("\n| ") == 16


def test_intervals_draw_peptides(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten spectra of one peptide are no more than one."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    report = importlib.import_module("peptides_report")
    hits = np.array([1] * 10 + [0, 1, 0, 1, 0])
    whole = report.Measured(
        "", ["other"] * 15, list("ABCDEF"), np.array([0] * 10 + [*range(1, 6)]), {}
    )
    apart = report.Measured("", ["other"] * 15, [str(i) for i in range(15)], np.arange(15), {})
    widths = [high - low for low, high in (whole.interval(hits), apart.interval(hits))]
    assert widths[0] > 1.3 * widths[1]
    # Of independent spectra: the normal approximation.
    assert widths[1] == pytest.approx(2 * 1.96 * np.sqrt(0.8 * 0.2 / 15), rel=0.15)


def _run(folder: Path, script: str, arguments: Sequence[object]) -> tuple[dict[str, Any], str]:
    """The result of a script, and what it printed."""
    file = folder / "result.json"
    paths = os.pathsep.join(str(ROOT / part) for part in ("core", "plugins"))
    command = [sys.executable, ROOT / "benchmarks" / f"{script}.py", "--repeats", "1"]
    done = subprocess.run(
        [str(word) for word in (*command, *arguments, "--json", file)],
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    outcome: dict[str, Any] = json.loads(file.read_text())
    assert outcome["benchmark"] == script
    return outcome, done.stdout


def _table(outcome: dict[str, Any]) -> str:
    """The result as `make bench` writes it."""
    made: str = runpy.run_path(str(ROOT / "benchmarks" / "run_all.py"))["table"](outcome)
    return made


def _peptide_model(path: Path) -> Path:
    """A checkpoint of the smallest preset, untrained."""
    import torch

    from seqgen_peptides.model import PeptideModel, save_model
    from seqgen_peptides.residues import Residues
    from seqgen_peptides.training import PRESETS, configuration

    torch.manual_seed(0)
    options, _ = PRESETS["micro"]
    return save_model(PeptideModel(configuration(options), Residues()), path, {})
