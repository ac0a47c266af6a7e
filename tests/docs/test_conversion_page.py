"""The page about conversion: its example runs and does what the page says."""

from __future__ import annotations

import pytest
from pages import DOCS, blocks, run_python


def test_the_example_decodes_the_same_in_fewer_passes(capsys: pytest.CaptureFixture[str]) -> None:
    page = DOCS / "conversion.md"
    run_python(page, [block for block in blocks(page) if block.language == "python"])
    autoregressive, converted, equal = capsys.readouterr().out.split()
    assert equal == "True"
    assert int(autoregressive) == 12
    assert int(converted) < 8
