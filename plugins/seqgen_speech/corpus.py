"""The speech data that the shipped recogniser is trained and measured on.

Layout of the data folder: `prompts.jsonl` with `prompts/*.flac` (recorded telephone prompts, one
voice) and `fsdd/{digit}_{speaker}_{take}.flac` (the free spoken digit dataset).

Development set (never trained on, its texts never read when word lists were written):

- prompts: all prompts with the same words form a group; the group is held out if
  SHA-256(its alphabetically first key), read as a fraction of 1, lies below 0.1. So no held-out
  prompt has the exact text of a training recording.
- digits: takes whose number divides by 5 (two takes in ten), of every speaker and digit.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from seqgen.errors import InputError

from .audio import SAMPLE_RATE, read_audio
from .text import DIGITS, normalise

DEV_FRACTION = 0.1
DEV_TAKE_STEP = 5
MAX_SECONDS = 20.0
"""Longer recordings are trained on only in the parts that `assets/cuts.jsonl` lists."""


@dataclass(frozen=True)
class Utterance:
    """A recording in memory.

    Attributes:
        key: unique name.
        text: normalised transcript.
        wave: int16 samples at 16 kHz.
        speaker: who speaks.
    """

    key: str
    text: str
    wave: np.ndarray = field(repr=False)
    speaker: str

    @property
    def seconds(self) -> float:
        """Duration."""
        return len(self.wave) / SAMPLE_RATE


@dataclass(frozen=True)
class Corpus:
    """Recordings, split. Synthetic speech is separate (`synth.py`)."""

    prompts: list[Utterance]
    digits: list[Utterance]
    dev_prompts: list[Utterance]
    dev_digits: list[Utterance]


@dataclass(frozen=True)
class Prompt:
    """A line of `prompts.jsonl`."""

    key: str
    audio: str
    text: str


def load_corpus(data: str | Path) -> Corpus:
    """Read all recordings of a data folder (about 60 MB in memory) and split them.

    Raises:
        InputError: the folder lacks the files described above.
    """
    data = Path(data)
    training, development = split_prompts(read_prompts(data))
    dev_prompts = [_read_prompt(data, prompt) for prompt in development if words_of(prompt)]
    dev_texts = {prompt.text for prompt in dev_prompts}
    prompts = _training_prompts(data, training)
    dev_digits: list[Utterance] = []
    digits: list[Utterance] = []
    for utterance, take in _read_digits(data / "fsdd"):
        (dev_digits if is_dev_take(take) else digits).append(utterance)
    return Corpus(
        # A part of a long recording may say just what a held-out prompt says: not trained on.
        prompts=[prompt for prompt in prompts if prompt.text not in dev_texts],
        digits=digits,
        dev_prompts=dev_prompts,
        dev_digits=dev_digits,
    )


def read_prompts(data: Path) -> list[Prompt]:
    """The lines of `prompts.jsonl`.

    Raises:
        InputError: the file is missing or not as described.
    """
    path = data / "prompts.jsonl"
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return [Prompt(row["key"], row["audio"], row["text"]) for row in rows]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"cannot read the prompts' list {path}",
            why=str(error),
            fix="give the folder that holds prompts.jsonl, prompts/ and fsdd/ with --data",
        ) from error


def split_prompts(prompts: Iterable[Prompt]) -> tuple[list[Prompt], list[Prompt]]:
    """(training, development); see the module's docstring for the rule."""
    groups: dict[str, list[Prompt]] = {}
    for prompt in prompts:
        groups.setdefault(_same_words(prompt.text), []).append(prompt)
    training: list[Prompt] = []
    development: list[Prompt] = []
    for group in groups.values():
        first = min(prompt.key for prompt in group)
        held_out = _fraction(first) < DEV_FRACTION
        (development if held_out else training).extend(group)
    return sorted(training, key=_key), sorted(development, key=_key)


def is_dev_take(take: int) -> bool:
    """Whether a take of the spoken digits is held out."""
    return take % DEV_TAKE_STEP == 0


def words_of(prompt: Prompt) -> str:
    """What is said in a prompt; empty for a prompt that is only a tone."""
    return normalise(prompt.text)


def write_development_set(
    data: str | Path, folder: str | Path, *, seed: int = 0, strings: int = 200
) -> tuple[Path, Path]:
    """Write the development set as manifests for `seqgen eval`.

    `dev-prompts.jsonl` lists the held-out prompts. `dev-digits.jsonl` lists `strings` strings of 1
    to 7 held-out digits of one speaker with random pauses. Each line: key, source (a flac file,
    relative to the manifest), target (normalised text).

    Returns:
        the two manifests' paths.
    """
    corpus, folder = load_corpus(data), Path(folder)
    digits = digit_strings(corpus.dev_digits, seed=seed, count=strings)
    prompts_path = _write_manifest(folder, "dev-prompts", corpus.dev_prompts)
    return prompts_path, _write_manifest(folder, "dev-digits", digits)


def _training_prompts(data: Path, prompts: Sequence[Prompt]) -> list[Utterance]:
    """Recordings whole and, where they pause, in parts; corrected where they say another text.

    `assets/cuts.jsonl` (key, start and stop in seconds, text) was made once: the words of the
    training prompts were aligned by pocketsphinx and cut at pauses of 0.15 s or more.
    """
    assets = resources.files("seqgen_speech") / "assets"
    corrections = json.loads((assets / "corrections.json").read_text(encoding="utf-8"))
    cuts: dict[str, list[dict[str, Any]]] = {}
    for line in (assets / "cuts.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        cuts.setdefault(row["key"], []).append(row)
    utterances = []
    for prompt in prompts:
        prompt = replace(prompt, text=corrections.get(prompt.key, prompt.text))
        if not words_of(prompt):
            continue
        whole = _read_prompt(data, prompt)
        if whole.seconds <= MAX_SECONDS:
            utterances.append(whole)
        for number, row in enumerate(cuts.get(prompt.key, [])):
            start, stop = (round(row[end] * SAMPLE_RATE) for end in ("start", "stop"))
            key, text = f"{prompt.key}#{number}", normalise(row["text"])
            utterances.append(Utterance(key, text, whole.wave[start:stop], whole.speaker))
    return utterances


def _read_prompt(data: Path, prompt: Prompt) -> Utterance:
    return Utterance(prompt.key, words_of(prompt), _pcm(data / prompt.audio), "prompts")


def _read_digits(folder: Path) -> list[tuple[Utterance, int]]:
    found = []
    for path in sorted(folder.glob("*.flac")):
        match = re.fullmatch(r"(\d)_([a-z]+)_(\d+)", path.stem)
        if match is None:
            raise InputError(f"{path} is not named digit_speaker_take.flac")
        digit, speaker, take = int(match[1]), match[2], int(match[3])
        found.append((Utterance(path.stem, DIGITS[digit], _pcm(path), speaker), take))
    if not found:
        raise InputError(
            f"no spoken digits in {folder}",
            fix="give the folder that holds prompts.jsonl, prompts/ and fsdd/ with --data",
        )
    return found


def _pcm(path: Path) -> np.ndarray:
    return to_pcm(read_audio(path))


def to_pcm(wave: np.ndarray) -> np.ndarray:
    """Float samples in [-1, 1] as int16."""
    samples: np.ndarray = np.round(np.clip(wave, -1.0, 32767 / 32768) * 32768)
    return samples.astype(np.int16)


def digit_strings(digits: Sequence[Utterance], *, seed: int, count: int) -> list[Utterance]:
    """Strings of 1-7 digits of one speaker; speakers in turn, lengths and digits at random."""
    rng = np.random.default_rng(seed)
    speakers = sorted({digit.speaker for digit in digits})
    strings = []
    for number in range(count):
        speaker = speakers[number % len(speakers)]
        own = [digit for digit in digits if digit.speaker == speaker]
        chosen = [own[i] for i in rng.integers(len(own), size=rng.integers(1, 8))]
        parts = [_room(rng, 0.1, 0.4)]
        for digit in chosen:
            parts += [digit.wave, _room(rng, 0.05, 0.4)]
        text = " ".join(digit.text for digit in chosen)
        key = f"digits-{number:03d}-{speaker}"
        strings.append(Utterance(key, text, np.concatenate(parts), speaker))
    return strings


def _room(rng: np.random.Generator, least: float, most: float) -> np.ndarray:
    """A pause of room noise (about -70 dB of full scale; digital zero occurs in no recording)."""
    samples = int(rng.uniform(least, most) * SAMPLE_RATE)
    return np.round(rng.normal(0.0, 10.0, samples)).astype(np.int16)


def _write_manifest(folder: Path, name: str, utterances: Iterable[Utterance]) -> Path:
    import soundfile

    (folder / name).mkdir(parents=True, exist_ok=True)
    manifest = folder / f"{name}.jsonl"
    with manifest.open("w", encoding="utf-8") as lines:
        for utterance in utterances:
            source = f"{name}/{utterance.key.replace('/', '__')}.flac"
            soundfile.write(folder / source, utterance.wave, SAMPLE_RATE, subtype="PCM_16")
            row = {"key": utterance.key, "source": source, "target": utterance.text}
            lines.write(json.dumps(row) + "\n")
    return manifest


def _same_words(text: str) -> str:
    """Words alone, for finding duplicates; apart from `normalise` so that the split is fixed."""
    return " ".join(re.findall(r"[a-z0-9'#*]+", re.sub(r"\[[^\]]*\]", " ", text.lower())))


def _fraction(key: str) -> float:
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64


def _key(prompt: Prompt) -> str:
    return prompt.key
