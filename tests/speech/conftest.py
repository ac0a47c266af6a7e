"""Fixtures of the speech tests that go through the command line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for `speech_models`, beside this file

from speech_models import random_checkpoint, shipped_model


@dataclass(frozen=True)
class Done:
    """What a command left: its exit code and what it printed."""

    code: int
    out: str
    err: str


Seqgen = Callable[..., Done]


@pytest.fixture(scope="session")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with random weights."""
    return random_checkpoint(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def model_arguments(random_model: Path) -> list[str]:
    """What names a model: nothing where the shipped one is there, else `--model` a random one."""
    return [] if shipped_model() else ["--model", str(random_model)]


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
        return Done(code, captured.out, captured.err)

    return call
