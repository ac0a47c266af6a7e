"""The corpus: a fair, stable split, clean texts, and a development set that can be evaluated."""

from __future__ import annotations

import json
from importlib import resources
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile

from seqgen.errors import InputError
from seqgen_speech.corpus import (
    DIGITS,
    MAX_SECONDS,
    Corpus,
    Prompt,
    is_dev_take,
    load_corpus,
    read_prompts,
    split_prompts,
    words_of,
    write_development_set,
)
from seqgen_speech.manifests import list_items
from seqgen_speech.text import normalise

KNOWN_CHARACTERS = set("abcdefghijklmnopqrstuvwxyz' ")


@pytest.fixture(scope="module")
def data(shared_data: Path) -> Path:
    return shared_data / "speech"


@pytest.fixture(scope="module")
def corpus(data: Path) -> Corpus:
    return load_corpus(data)


def _prompts(texts: list[str]) -> list[Prompt]:
    return [Prompt(f"key-{i}", f"{i}.flac", text) for i, text in enumerate(texts)]


def test_split_holds_out_a_tenth_and_ignores_order_and_company() -> None:
    prompts = _prompts([f"text number {i}" for i in range(2000)])
    training, development = split_prompts(prompts)
    assert len(training) + len(development) == 2000
    assert 150 < len(development) < 250
    assert split_prompts(reversed(prompts)) == (training, development)
    alone = [prompt for prompt in prompts[:100] if split_prompts([prompt])[1]]
    assert alone == [prompt for prompt in prompts[:100] if prompt in development]


def test_split_keeps_the_same_words_on_one_side() -> None:
    prompts = _prompts([f"Say {i % 50}!" if i % 2 else f"say  {i % 50}." for i in range(400)])
    training, development = split_prompts(prompts)
    assert development
    spoken = {normalise(prompt.text) for prompt in development}
    assert spoken.isdisjoint(normalise(prompt.text) for prompt in training)


def test_two_takes_in_ten_are_held_out() -> None:
    assert sum(is_dev_take(take) for take in range(5, 25)) == 4


def test_missing_data_says_what_is_needed(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"prompts\.jsonl"):
        load_corpus(tmp_path)


def test_real_split_is_the_published_one(data: Path) -> None:
    training, development = split_prompts(read_prompts(data))
    assert (len(training), len(development)) == (431, 53)
    assert sum(not words_of(prompt) for prompt in development) == 1


def test_no_development_text_is_a_training_text(corpus: Corpus) -> None:
    held_out = {utterance.text for utterance in corpus.dev_prompts}
    assert len(corpus.dev_prompts) == 52
    assert held_out.isdisjoint(utterance.text for utterance in corpus.prompts)
    keys = {utterance.key for utterance in corpus.dev_prompts}
    assert keys.isdisjoint(utterance.key.partition("#")[0] for utterance in corpus.prompts)
    assert (len(corpus.digits), len(corpus.dev_digits)) == (960, 240)
    for utterance in corpus.dev_digits:
        assert int(utterance.key.rpartition("_")[2]) % 5 == 0


def test_assets_name_training_prompts_only(data: Path) -> None:
    training = {prompt.key for prompt in split_prompts(read_prompts(data))[0]}
    assets = resources.files("seqgen_speech") / "assets"
    cuts = [json.loads(line) for line in (assets / "cuts.jsonl").read_text("utf-8").splitlines()]
    assert {row["key"] for row in cuts} <= training
    assert set(json.loads((assets / "corrections.json").read_text("utf-8"))) <= training


def test_texts_hold_known_characters_and_fit_their_audio(corpus: Corpus) -> None:
    for utterance in [*corpus.prompts, *corpus.digits, *corpus.dev_prompts, *corpus.dev_digits]:
        assert utterance.text, utterance.key
        assert set(utterance.text) <= KNOWN_CHARACTERS, utterance
        assert utterance.wave.dtype == np.int16
        assert utterance.seconds < 22, utterance
    assert max(utterance.seconds for utterance in corpus.prompts) <= MAX_SECONDS
    # The fastest prompt has 21 characters a second; a wrong cut would stand out.
    assert all(len(utterance.text) / utterance.seconds < 24 for utterance in corpus.prompts)


def test_cuts_of_a_prompt_cover_its_text(data: Path) -> None:
    texts = {prompt.key: prompt.text for prompt in split_prompts(read_prompts(data))[0]}
    assets = resources.files("seqgen_speech") / "assets"
    corrections = json.loads((assets / "corrections.json").read_text("utf-8"))
    parts: dict[str, list[dict[str, object]]] = {}
    for line in (assets / "cuts.jsonl").read_text("utf-8").splitlines():
        row = json.loads(line)
        parts.setdefault(row["key"], []).append(row)
    for key, rows in parts.items():
        joined = normalise(" ".join(str(row["text"]) for row in rows))
        whole = normalise(corrections.get(key, texts[key]))
        if key == "demo-instruct":  # says "twenty eight point eight"
            whole = whole.replace("two eight point eight", "twenty eight point eight")
        assert joined == whole
        assert all(a["stop"] == b["start"] for a, b in pairwise(rows))


def test_development_set_is_a_pair_of_manifests(data: Path, corpus: Corpus, tmp_path: Path) -> None:
    prompts, digits = write_development_set(data, tmp_path, seed=1, strings=12)
    items = list(list_items(str(prompts)))
    assert [item.reference for item in items] == [one.text for one in corpus.dev_prompts]
    strings = list(list_items(str(digits)))
    assert len(strings) == 12
    for item in strings:
        assert item.reference is not None
        assert 1 <= len(item.reference.split()) <= 7
        assert set(item.reference.split()) <= set(DIGITS)
        wave, rate = soundfile.read(item.path)
        assert rate == 16000
        assert 0.25 * len(item.reference.split()) < len(wave) / rate < 10
    again = write_development_set(data, tmp_path / "again", seed=1, strings=12)[1]
    assert again.read_bytes() == digits.read_bytes()
    other = write_development_set(data, tmp_path / "other", seed=2, strings=12)[1]
    assert other.read_bytes() != digits.read_bytes()
