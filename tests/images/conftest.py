"""Fixtures of the images tests: models of random weights, and the command line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.images.small_images import save_random, save_random_judge

from seqgen_images.model import ENGINES


@dataclass(frozen=True)
class Done:
    """What a command left: its exit code and what it printed."""

    code: int
    out: str
    err: str


Seqgen = Callable[..., Done]


@pytest.fixture(scope="session")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model of random weights for every engine, and a judge."""
    folder = tmp_path_factory.mktemp("family")
    for engine in ENGINES:
        save_random(engine, folder / f"{engine}.safetensors")
    save_random_judge(folder / "judge.safetensors")
    return folder


@pytest.fixture
def seqgen(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> Seqgen:
    """Runs `seqgen ARGUMENTS` in this process, in an empty folder."""
    from seqgen_cli.main import run

    monkeypatch.chdir(tmp_path)
    capfd.readouterr()

    def call(*arguments: object) -> Done:
        code = run([str(argument) for argument in arguments])
        sys.stdout.flush()
        captured = capfd.readouterr()
        assert "Traceback" not in captured.err
        return Done(code, captured.out, captured.err)

    return call


@pytest.fixture
def images(seqgen: Seqgen, family: Path) -> Seqgen:
    """Runs `seqgen run --plugin images` with the models of random weights."""

    def call(*arguments: object) -> Done:
        return seqgen("run", "--plugin", "images", "--model", family, *arguments)

    return call
