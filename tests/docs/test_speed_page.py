"""The code of the speed page runs; compiled and packed models give the same tokens."""

from __future__ import annotations

import ast
import shutil

import pytest
from pages import DOCS, blocks, run_python


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_speed_page(capsys: pytest.CaptureFixture[str]) -> None:
    page = DOCS / "speed.md"
    run_python(page, [block for block in blocks(page) if block.language == "python"])
    packed, small, fused = map(ast.literal_eval, capsys.readouterr().out.splitlines())
    assert packed == fused
    assert len(small[0]) == 8
