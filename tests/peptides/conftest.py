"""Fixtures of the peptides tests that go through the command line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for `small_peptides`, beside this file


@dataclass(frozen=True)
class Done:
    """What a command left: its exit code and what it printed."""

    code: int
    out: str
    err: str


Seqgen = Callable[..., Done]


@pytest.fixture(scope="session")
def random_peptides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with random weights and every decoder."""
    from small_peptides import random_model

    from seqgen_peptides.model import save_model

    path = tmp_path_factory.mktemp("model") / "random.safetensors"
    return save_model(random_model(), path, {})


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
