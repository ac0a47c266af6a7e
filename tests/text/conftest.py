"""Tiny models, made once for all tests of the plugin; and the command line in this process."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.text.tiny_models import SDAR, make_model


@dataclass(frozen=True)
class Folders:
    """Model folders."""

    qwen3: Path
    sdar: Path
    draft: Path


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    root = tmp_path_factory.mktemp("models")
    smaller = {"num_hidden_layers": 1}
    return Folders(
        make_model(root / "qwen3", shards=3),
        make_model(root / "sdar", config=SDAR, shards=2),
        make_model(root / "draft", config=smaller),
    )


@dataclass(frozen=True)
class Done:
    """What a command left."""

    code: int
    out: str
    err: str


Seqgen = Callable[..., Done]


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
