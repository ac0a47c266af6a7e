"""Error rates: by hand, against a plain Levenshtein distance, and with failed rows."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqgen.errors import InputError, PluginError
from seqgen_speech.metrics import edits, score

pytest.importorskip("jiwer")


@dataclass(frozen=True)
class Item:
    id: str
    reference: str | None


def scored(pairs: list[tuple[str, str]]) -> dict[str, float]:
    items = [Item(str(i), truth) for i, (truth, _) in enumerate(pairs)]
    rows = [{"id": str(i), "status": "ok", "text": text} for i, (_, text) in enumerate(pairs)]
    return score(rows, items)


def test_by_hand() -> None:
    out = scored([("Press 1 now!", "press one"), ("hello world", "yellow world again")])
    assert out["wer"] == pytest.approx(3 / 5)
    assert (out["substitutions"], out["deletions"], out["insertions"]) == (1, 1, 1)
    assert out["words"] == 5
    assert out["sentence_error_rate"] == 1.0
    # " now" is 4 deletions; h -> y, +w and " again" 8 more, of 13 + 11 characters.
    assert out["characters"] == 24
    assert out["cer"] == pytest.approx(12 / 24)
    perfect = scored([("Re-record it.", "re record it")])
    assert perfect["wer"] == perfect["cer"] == perfect["sentence_error_rate"] == 0.0


def test_chinese_counts_characters() -> None:
    out = scored([("\u4f60\u597d\u4e16\u754c", "\u4f60\u574f\u4e16\u754c")])
    assert out["wer"] == out["cer"] == 0.25


def test_failed_rows_delete_their_reference() -> None:
    items = [Item("a", "one two"), Item("b", "three four five")]
    rows = [
        {"id": "a", "status": "ok", "text": "one two"},
        {"id": "b", "status": "failed", "reason": "empty", "text": "three four five"},
    ]
    out = score(rows, items)
    assert out["wer"] == pytest.approx(3 / 5)
    assert out["deletions"] == 3
    assert out["sentence_error_rate"] == 0.5


def test_rows_belong_to_items_by_place() -> None:
    """Two folders may hold the same name; the runner then gives the second row another id."""
    items = [Item("a", "one two"), Item("a", "three")]
    rows = [{"id": "a", "text": "one two"}, {"id": "a#2", "text": "three"}]
    assert score(rows, items)["wer"] == 0.0
    assert score(rows[::-1], items)["wer"] > 0


def test_empty_references_and_texts() -> None:
    out = scored([("...", "noise here"), ("one", "")])
    assert out["wer"] == 3.0
    assert (out["insertions"], out["deletions"]) == (2, 1)
    with pytest.raises(InputError, match="all references are empty"):
        scored([("", "a")])


def test_missing_references() -> None:
    with pytest.raises(InputError, match="1 of 2 items have no reference") as caught:
        score(
            [{"id": "a", "text": "x"}, {"id": "b", "text": "x"}], [Item("a", "x"), Item("b", None)]
        )
    assert "'b'" in caught.value.why
    with pytest.raises(InputError, match="nothing to score"):
        score([], [])


def test_missing_jiwer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "jiwer", None)
    with pytest.raises(PluginError, match="jiwer"):
        scored([("a", "a")])


def distance(a: list[str], b: list[str]) -> int:
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (x != y))
    return row[-1]


symbols = st.lists(st.sampled_from(["a", "b b", "\n", "", "\u4f60"]), max_size=7)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(symbols, symbols), min_size=1, max_size=4))
def test_edits_are_levenshtein(pairs: list[tuple[list[str], list[str]]]) -> None:
    out = edits([a for a, _ in pairs], [b for _, b in pairs])
    assert out.errors == sum(distance(a, b) for a, b in pairs)
    assert out.length == sum(len(a) for a, _ in pairs)
    assert out.insertions - out.deletions == sum(len(b) - len(a) for a, b in pairs)
