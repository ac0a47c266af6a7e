"""The properties of `test_invariants*.py` over ten times as many examples, new in every run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.slow
@pytest.mark.parametrize("name", ["test_invariants", "test_invariants_search"])
def test_more_examples(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", HERE / f"{name}.py"],
        env={**os.environ, "SEQGEN_PROPERTIES": "deep"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
