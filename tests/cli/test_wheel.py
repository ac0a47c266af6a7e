"""A wheel of this tree, and one of the generated plugin, in an environment of their own.

    make slow

pip must be able to fetch the packages; constraints/tested.txt binds torch.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fake_distributions import ROOT

pytestmark = pytest.mark.slow


def run(*command: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run outside the checkout, without its paths."""
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(
        list(map(str, command)), capture_output=True, text=True, env=env, cwd=cwd, timeout=1200
    )


def ok(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, f"{done.args}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def wheel_of(source: Path, target: Path) -> Path:
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", target]
    ok(run(*build, source))
    (wheel,) = target.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of a clean environment with our wheel and the generated plugin's."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    ignored = shutil.ignore_patterns(".*", "__pycache__", "runs", "dist", "build")
    shutil.copytree(ROOT, source, ignore=ignored)
    wheel = wheel_of(source, folder / "ours")
    ok(run(sys.executable, "-m", "venv", folder / "env"))
    bin_folder = folder / "env" / "bin"
    pip = [bin_folder / "python", "-m", "pip", "install", "--quiet"]
    constraint = ROOT / "constraints" / "tested.txt"
    ok(run(*pip, "-c", constraint, f"seqgen-kit[all] @ {wheel.as_uri()}", cwd=folder))
    ok(run(bin_folder / "seqgen", "plugins", "new", "mine", "--directory", folder / "mine"))
    ok(run(*pip, "--no-deps", wheel_of(folder / "mine", folder / "theirs"), cwd=folder))
    return bin_folder


def test_the_wheel_is_complete(site: Path, tmp_path: Path) -> None:
    rows = json.loads(ok(run(site / "seqgen", "plugins", "--json", cwd=tmp_path)))
    states = {row["name"]: row["state"] for row in rows}
    assert states["speech"] == "installed"
    assert states["mine"] == "installed"
    models = json.loads(ok(run(site / "seqgen", "models", "--json", cwd=tmp_path)))
    assert {"mine-tiny", "paraformer-zh"} <= {model["name"] for model in models}
    ok(run(site / "python", "-m", "seqgen", "--help", cwd=tmp_path))
    where = ok(run(site / "python", "-c", "import seqgen; print(seqgen.__file__)", cwd=tmp_path))
    assert "site-packages" in where


def test_the_generated_plugin_runs(site: Path, tmp_path: Path) -> None:
    out = ok(run(site / "seqgen", "run", "--plugin", "mine", cwd=tmp_path))
    rows = [json.loads(line) for line in out.splitlines()]
    assert rows[0]["date"] == "2021-03-03"
    assert {row["status"] for row in rows} == {"ok"}


def test_doctor_and_check_are_content(site: Path, tmp_path: Path) -> None:
    ok(run(site / "seqgen", "plugins", "check", cwd=tmp_path))
    ok(run(site / "seqgen", "doctor", cwd=tmp_path))


@pytest.mark.parametrize("plugin", ["speech", "peptides", "time-series", "text", "images"])
def test_every_plugin_runs_its_example(site: Path, tmp_path: Path, plugin: str) -> None:
    out = tmp_path / "out.jsonl"
    ok(run(site / "seqgen", "run", "--plugin", plugin, "-o", out, cwd=tmp_path))
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert rows
    assert {row["status"] for row in rows} == {"ok"}
