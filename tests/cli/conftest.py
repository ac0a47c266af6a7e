"""Fixtures of the command line's tests."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for `toys`, the helpers beside this file

from toys import TOY, Done


@pytest.fixture
def seqgen(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., Done]]:
    """Runs `seqgen ARGUMENTS` in this process, in an empty folder, with the toy plugin."""
    from seqgen_cli.main import run

    monkeypatch.syspath_prepend(str(TOY))
    monkeypatch.chdir(tmp_path)
    capfd.readouterr()

    def call(*arguments: object) -> Done:
        code = run([str(argument) for argument in arguments])
        sys.stdout.flush()
        captured = capfd.readouterr()
        return Done(code, captured.out, captured.err)

    yield call
    for name in [name for name in sys.modules if name.startswith("seqgen_toy")]:
        del sys.modules[name]
