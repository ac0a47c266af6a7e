"""Normalisation, joining pieces into words, byte-pair training and its round trip."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqgen.errors import CheckpointError, ConfigError
from seqgen_speech.text import SPECIALS, Tokens, join_words, normalise, train_bpe, words


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("That agent is  already logged on.", "that agent is already logged on"),
        ("Press 1, or 23!", "press one or two three"),
        ("3D audio at 0.5", "three d audio at zero point five"),
        ("H.323", "h three two three"),
        ("re-enter; De-activated", "re enter de activated"),
        ("your party's 'first' name; don't", "your party's first name don't"),
        ("don\u2019t \u2018quote\u2019", "don't quote"),
        ("after the tone. (simple tone sound plays)", "after the tone"),
        ("[beep] <noise> hello", "hello"),
        ("press # or *", "press pound or star"),
        ("\u4f60\u597d\uff0c \u4e16\u754c 2 ok", "\u4f60\u597d\u4e16\u754c two ok"),
        ("Stra\u00dfe na\u00efve", "stra\u00dfe na\u00efve"),
        ("...", ""),
        ("", ""),
    ],
)
def test_normalise(raw: str, expected: str) -> None:
    assert normalise(raw) == expected


@given(st.text(max_size=60))
def test_normalising_twice_changes_nothing(text: str) -> None:
    once = normalise(text)
    assert normalise(once) == once
    assert join_words(words(once)) == once


def test_pieces_of_three_conventions() -> None:
    bpe = Tokens(
        ("<blank>", "<s>", "</s>", "lo@@", "w@@", "er", "new", "\u4f60", "\u597d", "<unk>")
    )
    assert bpe.decode([1, 3, 4, 5, 6, 9, 2]).tokens == ["lower", "new"]
    assert bpe.decode([7, 8, 6, 7]).text == "\u4f60\u597d new \u4f60"
    assert bpe.decode([3]).text == "lo"  # a trailing mark joins with nothing
    assert bpe.decode([0, 1, 2]).text == ""
    marked = Tokens(("<s>", "\u2581he", "llo", "\u2581", "w", "\u4f60", "\u597d"))
    assert marked.decode([1, 2, 3, 4, 2]).tokens == ["hello", "wllo"]
    assert marked.decode([2, 1, 5, 6]).tokens == ["llo", "he", "\u4f60", "\u597d"]


def test_times_and_confidences_are_joined() -> None:
    vocabulary = Tokens(("</s>", "lo@@", "w", "new"))
    out = vocabulary.decode(
        [1, 2, 3, 0],
        times=[[0.1, 0.2], [0.2, 0.4], [0.5, 0.75]],
        confidences=[0.9, 0.5, 0.8, 1.0],
    )
    assert out.tokens == ["low", "new"]
    assert out.times == [[0.1, 0.4], [0.5, 0.75]]
    assert out.confidences == [0.5, 0.8]
    assert vocabulary.decode([1, 2]).times == []


def test_bpe_round_trip(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    texts = ["press one to hear the message", "press two to erase the message"] * 3
    vocabulary = train_bpe(texts, 40)
    assert vocabulary.pieces[: len(SPECIALS)] == SPECIALS
    assert len(vocabulary) <= 40
    assert vocabulary.merges
    for text in (*texts, "the press erases"):
        ids = vocabulary.encode(text)
        assert vocabulary.decode(ids).text == text
        assert not vocabulary.special_ids & set(ids)
    assert len(vocabulary.encode("message")) < len("message")
    assert vocabulary.id("<unk>") in vocabulary.encode("message\u00e9")
    vocabulary.save(tmp_path / "tokens.json")
    again = Tokens.load(tmp_path / "tokens.json")
    assert again == vocabulary
    assert again.encode("erase") == vocabulary.encode("erase")
    assert train_bpe(texts, 40) == vocabulary
    with pytest.raises(ConfigError, match="too small"):
        train_bpe(texts, 10)


def test_words_and_characters_need_no_merges(tmp_path: Path) -> None:
    vocabulary = Tokens(("<blank>", "<unk>", "one", "two", "\u4f60", "\u597d"))
    assert vocabulary.encode("two one \u4f60\u597d three") == [3, 2, 4, 5, 1]
    with pytest.raises(CheckpointError, match="<unk>"):
        Tokens(("one",)).encode("two")
    (tmp_path / "tokens.txt").write_text("<blank> 0\none 1\ntwo\n")
    assert Tokens.load(tmp_path / "tokens.txt").pieces == ("<blank>", "one", "two")


@pytest.mark.parametrize("data", [{}, [], [1, 2], "abc", {"pieces": "abc"}, ["a", "a"], 3])
def test_damaged_vocabularies(tmp_path: Path, data: object) -> None:
    (tmp_path / "tokens.json").write_text(json.dumps(data))
    with pytest.raises(CheckpointError, match="vocabulary"):
        Tokens.load(tmp_path / "tokens.json")
    (tmp_path / "tokens.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"tokens\.json"):
        Tokens.load(tmp_path / "tokens.json")


def test_the_official_layout(shared_data: Path) -> None:
    vocabulary = Tokens.load(shared_data / "speech/tiny-paraformer-oracle/tokens.json")
    assert len(vocabulary) == 41
    assert vocabulary.id("</s>") == 2
    ids = [vocabulary.id(piece) for piece in ("w0@@", "a", "b", "</s>")]
    assert vocabulary.decode(ids).text == "w0a b"


def test_every_prompt_becomes_plain_words(shared_data: Path) -> None:
    lines = (shared_data / "speech/prompts.jsonl").read_text("utf-8").splitlines()
    texts = [normalise(json.loads(line)["text"]) for line in lines]
    assert set("".join(texts)) <= set("abcdefghijklmnopqrstuvwxyz' ")
    # Two prompts are only tones.
    assert sum(not text for text in texts) == 2
