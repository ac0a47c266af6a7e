"""Sentences of the grammar, and flite's voices where flite is installed."""

from __future__ import annotations

import json
import shutil
import wave
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from seqgen.errors import CheckpointError, ConfigError, PluginError
from seqgen_speech.audio import SAMPLE_RATE
from seqgen_speech.grammar import Grammar
from seqgen_speech.synth import VOICES, SynthConfig, generate, open_cache, speak
from seqgen_speech.text import normalise

needs_flite = pytest.mark.skipif(
    shutil.which("flite") is None, reason="flite is not installed (apt-get install flite)"
)


def test_sentences_are_words_and_repeatable() -> None:
    grammar = Grammar.load()
    seen = set()
    for number in range(500):
        sentence = grammar.sentence(np.random.default_rng(number))
        assert sentence == grammar.sentence(np.random.default_rng(number))
        text = normalise(sentence.text)
        assert text
        assert set(text) <= set("abcdefghijklmnopqrstuvwxyz' ")
        assert not set("{}|~_=") & set(sentence.text + sentence.spoken)
        seen.update(text.split())
    assert len(seen) > 700


def test_every_symbol_can_be_said() -> None:
    grammar = Grammar.load()
    for symbol in grammar.rules:
        assert grammar.sentence(np.random.default_rng(0), symbol).text


def test_spoken_form_and_weights() -> None:
    grammar = Grammar.parse("sentence = 0* never | 1* w~double_u {word}", "# note\nzebra\n")
    for number in range(20):
        sentence = grammar.sentence(np.random.default_rng(number))
        assert sentence == ("w zebra", "double u zebra")


def test_bad_grammars_are_refused() -> None:
    with pytest.raises(ConfigError, match="unknown \\['colour'\\]"):
        Grammar.parse("sentence = a {colour}", "word")
    with pytest.raises(ConfigError, match="without '='"):
        Grammar.parse("sentence a", "word")
    with pytest.raises(ConfigError, match="nests deeper"):
        Grammar.parse("sentence = {sentence}", "word").sentence(np.random.default_rng(0))


def test_without_flite_the_error_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="apt-get install flite"):
        generate(tmp_path, SynthConfig(utterances=1), program="no-such-flite")


def test_without_a_cache_the_error_says_so(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no synthetic speech"):
        open_cache(tmp_path)


@pytest.fixture
def beeper(tmp_path: Path) -> str:
    """A program that takes flite's arguments and says a beep to everything."""
    with wave.open(str(tmp_path / "beep.wav"), "wb") as file:
        file.setparams((1, 2, SAMPLE_RATE, 0, "NONE", ""))
        file.writeframes(np.full(8000, 9000, dtype="<i2").tobytes())
    program = tmp_path / "beeper"
    program.write_text(
        f'#!/bin/sh\nsleep 0.02\nfor last; do :; done\ncp {tmp_path}/beep.wav "$last"\n'
    )
    program.chmod(0o755)
    return str(program)


def test_two_processes_fill_one_cache_once(tmp_path: Path, beeper: str) -> None:
    def fill(_: int) -> list[str]:
        return generate(tmp_path / "cache", SynthConfig(utterances=6), program=beeper).texts

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(fill, range(2))
    assert first == second
    assert len(first) == 6
    assert (tmp_path / "cache" / "voices.i16").stat().st_size == 6 * 2 * 8000


def test_a_larger_cache_gives_what_was_asked_for(tmp_path: Path, beeper: str) -> None:
    everything = generate(tmp_path / "cache", SynthConfig(utterances=4), program=beeper)
    some = generate(tmp_path / "cache", SynthConfig(utterances=3), program=beeper)
    assert some.texts == everything.texts[:3]


@needs_flite
@pytest.mark.parametrize("voice", list(VOICES))
def test_voices_speak_at_16_khz(voice: str) -> None:
    samples = speak("flite", "please enter your number", voice=voice)
    assert samples.dtype == np.int16
    assert 1.0 < len(samples) / SAMPLE_RATE < 4.0
    slow = speak("flite", "please enter your number", voice=voice, options={"duration_stretch": 2})
    assert len(slow) > 1.6 * len(samples)


@needs_flite
def test_texts_are_never_seen_by_a_shell(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    speak("flite", f"one; touch {marker} $(touch {marker})", voice="slt")
    assert not marker.exists()


@needs_flite
def test_an_interrupted_generation_continues_to_the_same_bytes(tmp_path: Path) -> None:
    whole = generate(tmp_path / "whole", SynthConfig(utterances=4))
    generate(tmp_path / "parts", SynthConfig(utterances=2))
    # As if the process had died in the middle of the third utterance.
    with (tmp_path / "parts" / "voices.i16").open("ab") as audio:
        audio.write(b"\1\2\3")
    with (tmp_path / "parts" / "voices.jsonl").open("a") as index:
        index.write('{"text": "unfin')
    generate(tmp_path / "parts", SynthConfig(utterances=4))
    for name in ("voices.i16", "voices.jsonl"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    rows = [json.loads(line) for line in (tmp_path / "whole" / "voices.jsonl").open()]
    assert [row["samples"] for row in rows] == [len(whole.wave(i)) for i in range(4)]


@needs_flite
def test_a_cache_of_another_seed_is_not_mixed_in(tmp_path: Path) -> None:
    generate(tmp_path, SynthConfig(utterances=1, seed=1))
    with pytest.raises(CheckpointError, match="another folder"):
        generate(tmp_path, SynthConfig(utterances=1, seed=2))
