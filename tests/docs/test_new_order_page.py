"""The worked example of a new order: the page is a program, and its order is what it says."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

import pytest
import torch
from pages import DOCS, blocks, run_python

PAGE = DOCS / "new-order.md"
FILE = DOCS / "examples" / "spiral.py"


@pytest.fixture
def spiral(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("spiral", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "spiral", module)
    spec.loader.exec_module(module)
    return module


def test_the_file_is_short() -> None:
    assert len(FILE.read_text(encoding="utf-8").splitlines()) < 60


def test_a_spiral(spiral: ModuleType) -> None:
    table = spiral.Spiral(3, 4).table(12, torch.device("cpu"))
    assert table.group_S.view(3, 4).tolist() == [[0, 1, 2, 3], [9, 10, 11, 4], [8, 7, 6, 5]]
    assert table.coordinates_SA[5].tolist() == [1, 1]
    outwards = spiral.Spiral(3, 4, outwards=True).table(12, torch.device("cpu"))
    assert (outwards.group_S == 11 - table.group_S).all()
    with pytest.raises(ValueError, match="do not fit"):
        spiral.Spiral(3, 4).table(11, torch.device("cpu"))


def test_the_page_trains_and_samples_along_it(spiral: ModuleType) -> None:
    found = [block for block in blocks(PAGE) if block.language == "python"]
    assert [block.name for block in found] == ["spiral"]
    namespace = run_python(PAGE, found)
    assert float(namespace["right"]) > 0.95  # type: ignore[arg-type]
    made = namespace["made"]
    assert made.forwards == 36  # type: ignore[attr-defined]
    first = made.values[:, 0]  # type: ignore[attr-defined]
    assert len(set(first.tolist())) >= 4  # the first slot is random, not the same in all pictures
