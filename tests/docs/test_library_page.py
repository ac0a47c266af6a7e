"""The library page is one program: it runs as it stands, and what it claims holds."""

from __future__ import annotations

import pytest
from pages import DOCS, blocks, run_python

PAGE = DOCS / "library.md"


@pytest.fixture(scope="module")
def namespace() -> dict[str, object]:
    found = [block for block in blocks(PAGE) if block.language == "python"]
    assert [block.name for block in found] == [
        "train", "sampling", "processor", "beam", "constraint", "stream", "context", "ctc",
        "hybrid", "verify", "rule", "head", "runner",
    ]  # fmt: skip
    return run_python(PAGE, found)


def test_three_decoders_are_right_on_one_model(namespace: dict[str, object]) -> None:
    accuracy, forwards = namespace["accuracy"], namespace["forwards"]
    assert isinstance(accuracy, dict)
    assert isinstance(forwards, dict)
    for name in ("Autoregressive", "BlockDiffusion", "NonAutoregressive"):
        assert accuracy[name] >= 0.95, accuracy
    assert forwards["Autoregressive"] == 8
    assert forwards["NonAutoregressive"] == 4
    assert 2 <= forwards["BlockDiffusion"] <= 8


def test_the_rule_and_the_head_of_the_page_work(namespace: dict[str, object]) -> None:
    accuracy = namespace["accuracy"]
    assert isinstance(accuracy, dict)
    assert accuracy["OutsideIn"] >= 0.9
    assert accuracy["NumberHead"] >= 0.9


def test_one_pass_hybrid_and_verified_drafts_are_right(namespace: dict[str, object]) -> None:
    accuracy = namespace["accuracy"]
    assert isinstance(accuracy, dict)
    for name in ("GreedyCTC", "PrefixBeamCTC", "Hybrid", "DraftAndVerify"):
        assert accuracy[name] >= 0.95, accuracy
    accepted = namespace["accepted"]
    assert isinstance(accepted, float)
    assert 0.3 < accepted <= 1


def test_the_hot_samples_are_sorted_but_not_all_the_same(namespace: dict[str, object]) -> None:
    sampled, test = namespace["sampled"], namespace["test"]
    assert bool((sampled.values[:, 8:] != test[:, 8:]).any())  # type: ignore[attr-defined]
