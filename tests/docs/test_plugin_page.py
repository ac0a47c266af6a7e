"""The walk-through of the plugin page, executed: shell blocks in one folder, the diff by `patch`.

pip works offline and without build isolation here, in a fresh environment that sees the packages of
the present one; everything else is as a reader would do it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from pages import DOCS, blocks

PAGE = DOCS / "plugin.md"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of an environment of its own, with seqgen in it."""
    folder = tmp_path_factory.mktemp("environment") / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    paths = {"base": str(folder), "platbase": str(folder)}
    site = Path(sysconfig.get_path("purelib", "venv", paths))
    parent = sysconfig.get_path("purelib")
    (site / "parent.pth").write_text(f"import site; site.addsitedir({parent!r})\n")
    bin_folder = Path(sysconfig.get_path("scripts", "venv", paths))
    for name in ("seqgen", "pip", "pytest"):
        script = bin_folder / name
        script.write_text(f'#!/bin/sh\nexec "{bin_folder}/python" -m {name} "$@"\n')
        script.chmod(0o755)
    return bin_folder


@pytest.fixture(scope="module")
def walk(environment: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Runs the page; returns what each command printed on stdout. Every command must succeed."""
    folder = tmp_path_factory.mktemp("walk")
    env = {
        **os.environ,
        "PATH": f"{environment}{os.pathsep}{os.environ['PATH']}",
        "PIP_NO_INDEX": "1",
        "PIP_NO_BUILD_ISOLATION": "false",  # pip's way of saying: without isolation
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PYTEST_ADDOPTS": "-p no:cacheprovider",
    }
    printed = {"folder": str(folder)}
    for block in blocks(PAGE):
        if block.language == "diff":
            (folder / "change.diff").write_text(block.text)
            tool = ["patch", "-p1", "-i"] if shutil.which("patch") else ["git", "apply"]
            done = subprocess.run(
                [*tool, "../change.diff"],
                cwd=folder / "seqgen-mine",
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, done.stdout + done.stderr
        if block.language != "sh":
            continue
        for line in block.text.splitlines():
            done = subprocess.run(
                ["sh", "-ec", line], cwd=folder, env=env, capture_output=True, text=True,
                timeout=300,
            )  # fmt: skip
            assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
            printed[line] = done.stdout
    return printed


def rows(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def test_the_new_plugin_is_listed_and_runs(walk: dict[str, str]) -> None:
    assert "seqgen-mine 0.1.0" in walk["seqgen plugins"]
    (claimed,) = [block for block in blocks(PAGE) if block.language == "json"]
    first = rows(walk["seqgen run --plugin mine"])[0]
    shown = json.loads(claimed.text)
    assert first.keys() == shown.keys()
    for name in ("id", "status", "decoder", "model", "text", "date"):
        assert first[name] == shown[name]


def test_own_input_and_outputs(walk: dict[str, str]) -> None:
    dates = [row["date"] for row in rows(walk["seqgen run --plugin mine dates.txt --decoder nar"])]
    assert dates == ["2021-03-03", "1999-11-12"]
    folder = Path(walk["folder"])
    assert (folder / "iso.txt").read_text() == "2021-03-03\n1999-11-12\n"
    assert len(rows((folder / "trace.jsonl").read_text())) == 10  # a line a forward pass
    assert (folder / "compare.png").stat().st_size > 1000


def test_the_change_works(walk: dict[str, str]) -> None:
    found = rows(walk["seqgen run --plugin mine dates.txt --set weekday=true"])
    assert [row["weekday"] for row in found] == ["Wednesday", "Friday"]


def test_tests_check_and_training_pass(walk: dict[str, str]) -> None:
    assert "5 passed" in walk["pytest -q seqgen-mine"]
    assert walk["seqgen plugins check mine --contract"] == "ok      mine (seqgen-mine 0.1.0)\n"
    trained = rows(walk["seqgen run --plugin mine dates.txt --model runs/quick"])
    assert all(row["status"] == "ok" for row in trained)


def test_the_page_quotes_what_is_written(walk: dict[str, str]) -> None:
    written = Path(walk["folder"]) / "seqgen-mine"
    source = _stripped("\n".join(file.read_text() for file in written.rglob("*.py")))
    quotes = [block for block in blocks(PAGE) if block.language == "python"]
    assert quotes
    for block in quotes:
        assert _stripped(block.text) in source, f"line {block.line} quotes what is not there"


def _stripped(text: str) -> str:
    """Lines without their indentation."""
    return "\n".join(line.strip() for line in text.strip().splitlines())


def test_nothing_of_it_stays_in_this_environment(walk: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import seqgen_mine"], capture_output=True, cwd=walk["folder"]
    )
    assert done.returncode != 0
