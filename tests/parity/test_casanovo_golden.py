"""A checkpoint that Casanovo 5.2.1 wrote, and what it computed with it: without casanovo.

tests/parity/golden/casanovo was made by casanovo_reference.py (`--kind golden --seed 7`): a random
model of width 24, and three spectra with 24 to 40 peaks.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from casanovo_compare import Recorded, check_greedy, check_search, check_tensors

from seqgen_peptides.casanovo import CasanovoModel, load_casanovo

GOLDEN = Path(__file__).parent / "golden" / "casanovo"


@pytest.fixture(scope="module")
def model() -> CasanovoModel:
    return load_casanovo(GOLDEN / "model.ckpt")


@pytest.fixture(scope="module")
def recorded() -> Recorded:
    return Recorded.of(GOLDEN)


def test_states_and_logits(model: CasanovoModel, recorded: Recorded) -> None:
    check_tensors(model, recorded, tolerance=1e-4)


def test_greedy(model: CasanovoModel, recorded: Recorded) -> None:
    assert check_greedy(model, recorded, tolerance=1e-5) == 2


def test_beam_search(model: CasanovoModel, recorded: Recorded) -> None:
    assert check_search(model, recorded, tolerance=1e-5) == 15
