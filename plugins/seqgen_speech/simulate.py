"""Training examples for recognition, made from a few recordings; the same for the same step.

An example is one of

- a recorded prompt, two or three prompts in a row, or several short ones (words of the voice);
- a string of spoken digits of one speaker or of several, sometimes beside a prompt;
- a synthetic sentence (`synth.py`), sometimes two.

Each is put together with random pauses and speeds, then augmented (`augment.py`). Batch `step`
depends on (seed, step) and on nothing drawn before it, so training resumes exactly. Examples are
drawn in pools, sorted by length and cut into batches of about the same number of seconds.

Legend: B batch, S samples, T frames of 10 ms, L low-rate frames, F mel bins, D features, N tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from seqgen.errors import ConfigError

from .audio import SAMPLE_RATE
from .augment import AugmentConfig, NoiseBank, augment_wave, mask_features
from .corpus import MAX_SECONDS, Corpus, Utterance, to_pcm
from .features import FrontEnd, estimate_cmvn, fbank, low_frame_rate
from .resample import Wave, resample
from .synth import SyntheticSpeech

SPEEDS = ((9, 10), (19, 20), (1, 1), (21, 20), (11, 10))
"""Tempo and pitch together, as fractions: 0.9, 0.95, 1, 1.05, 1.1."""
PROMPT_WEIGHT = 5
_SHORT_WORDS = 3


class TextEncoder(Protocol):
    """What is needed of a tokenizer."""

    def encode(self, text: str) -> list[int]:
        """Token ids of a normalised text."""
        ...


class Batch(NamedTuple):
    """One training batch; padding of features is 0, of targets `pad_id`."""

    features_BLD: Tensor
    feature_lengths_B: Tensor
    targets_BN: Tensor
    target_lengths_B: Tensor


@dataclass(frozen=True)
class SimulateConfig:
    """The mixture.

    Attributes:
        seed: of everything.
        batch_seconds: audio of a batch, before padding.
        prompts, digits, synthetic: how often each kind is drawn (any scale).
        max_seconds: longest example.
        pool: batches drawn together and sorted by length.
        pad_id: fills targets.
        augment: what happens to the sound.
    """

    seed: int = 0
    batch_seconds: float = 80.0
    prompts: float = 0.45
    digits: float = 0.25
    synthetic: float = 0.30
    max_seconds: float = MAX_SECONDS
    pool: int = 8
    pad_id: int = -1
    augment: AugmentConfig = field(default_factory=AugmentConfig)


def tokenizer_texts(corpus: Corpus, synthetic: SyntheticSpeech | None) -> list[str]:
    """Texts to train a vocabulary on: prompts and digits count more than generated sentences."""
    generated = [] if synthetic is None else synthetic.texts
    prompts = [utterance.text for utterance in corpus.prompts]
    digits = [utterance.text for utterance in corpus.digits]
    return prompts * PROMPT_WEIGHT + digits * PROMPT_WEIGHT + generated


class _Unit(NamedTuple):
    """A recording that examples are made of: its wave at each speed."""

    text: str
    speaker: str
    waves: tuple[np.ndarray, ...]


class _Recipe(NamedTuple):
    """What an example consists of, before any sound is touched."""

    waves: list[np.ndarray]
    pauses: list[int]
    text: str
    samples: int


class SpeechBatches:
    """Draws batches; holds all recordings in memory and synthetic speech on disk.

    Args:
        corpus: recordings.
        synthetic: synthetic speech, or None for none (its share goes to the others).
        tokens: turns text into ids.
        front_end: gives the features, normalised by its CMVN vectors.
        config: the mixture.
    """

    def __init__(
        self,
        corpus: Corpus,
        synthetic: SyntheticSpeech | None,
        tokens: TextEncoder,
        front_end: FrontEnd,
        config: SimulateConfig | None = None,
    ) -> None:
        self.config = config or SimulateConfig()
        if synthetic is None or len(synthetic) == 0:
            self.config = replace(self.config, synthetic=0.0)
        if not corpus.prompts or not corpus.digits:
            raise ConfigError("training needs prompts and digits")
        self._front_end = front_end
        self._tokens = tokens
        self._synthetic = synthetic
        self._prompts = [_with_speeds(utterance) for utterance in corpus.prompts]
        self._short = [unit for unit in self._prompts if len(unit.text.split()) <= _SHORT_WORDS]
        self._digits = [_with_speeds(utterance) for utterance in corpus.digits]
        self._speakers: dict[str, list[_Unit]] = {}
        for unit in self._digits:
            self._speakers.setdefault(unit.speaker, []).append(unit)
        voices = [_float(unit.waves[SPEEDS.index((1, 1))]) for unit in self._prompts[::5]]
        self._noises = NoiseBank(self.config.seed, voices)
        self._ids: dict[str, list[int]] = {}
        self._pool: tuple[int, list[list[_Recipe]]] = (-1, [])

    def batch(self, step: int) -> Batch:
        """The batch of a training step, the same whenever it is asked for."""
        recipes = self._recipes(step)
        rng = np.random.default_rng((self.config.seed, 3, step))
        waves = [
            augment_wave(_render(recipe, self._noises, rng), self.config.augment, self._noises, rng)
            for recipe in recipes
        ]
        features_BLD, lengths_B = self._features(waves, rng)
        return Batch(features_BLD, lengths_B, *self._targets([recipe.text for recipe in recipes]))

    def cmvn(self, *, batches: int = 40) -> tuple[Tensor, Tensor]:
        """CMVN vectors (shift, scale) [D] of the first batches' features, for the front end.

        Only right while the front end does not normalise yet.
        """
        if bool(self._front_end.shift.any()):
            raise ConfigError("the front end normalises already: measure CMVN with a new FrontEnd")
        rows = (self.batch(step) for step in range(batches))
        return estimate_cmvn(
            features_LD[:length]
            for batch in rows
            for features_LD, length in zip(batch.features_BLD, batch.feature_lengths_B, strict=True)
        )

    def texts(self, step: int) -> list[str]:
        """What is said in the batch of a step."""
        return [recipe.text for recipe in self._recipes(step)]

    def plain(
        self, utterances: Sequence[Utterance], *, batch_seconds: float = 160.0
    ) -> Iterator[Batch]:
        """Recordings as they are (a development set), sorted by length, in batches."""
        chosen: list[Utterance] = []
        for utterance in sorted(utterances, key=lambda one: one.seconds):
            if chosen and utterance.seconds * (len(chosen) + 1) > batch_seconds:
                yield self._plain_batch(chosen)
                chosen = []
            chosen.append(utterance)
        if chosen:
            yield self._plain_batch(chosen)

    def _plain_batch(self, utterances: Sequence[Utterance]) -> Batch:
        waves = [torch.from_numpy(_float(utterance.wave)) for utterance in utterances]
        features_BLD, lengths_B = self._front_end.features(waves)
        texts = [utterance.text for utterance in utterances]
        return Batch(features_BLD, lengths_B, *self._targets(texts))

    def _recipes(self, step: int) -> list[_Recipe]:
        number, index = divmod(step, self.config.pool)
        if self._pool[0] != number:
            self._pool = (number, self._draw_pool(number))
        return self._pool[1][index]

    def _draw_pool(self, number: int) -> list[list[_Recipe]]:
        """`config.pool` batches of recipes, each of similar lengths, in random order."""
        config = self.config
        rng = np.random.default_rng((config.seed, 2, number))
        wanted = config.pool * config.batch_seconds * SAMPLE_RATE
        recipes: list[_Recipe] = []
        total = 0
        while total < wanted:
            recipes.append(self._draw(rng))
            total += recipes[-1].samples
        recipes.sort(key=lambda recipe: recipe.samples)
        ends = np.cumsum([recipe.samples for recipe in recipes])
        owner = np.minimum((ends - 1) * config.pool // ends[-1], config.pool - 1)
        # A part shorter than an utterance may own none: it gets the longest.
        batches = [
            [recipes[i] for i in np.flatnonzero(owner == part)] or recipes[-1:]
            for part in range(config.pool)
        ]
        return [batches[part] for part in rng.permutation(config.pool)]

    def _draw(self, rng: np.random.Generator) -> _Recipe:
        config = self.config
        shares = np.array([config.prompts, config.digits, config.synthetic])
        kind = int(rng.choice(3, p=shares / shares.sum()))
        while True:
            parts = (self._draw_prompts, self._draw_digits, self._draw_synthetic)[kind](rng)
            recipe = _recipe(parts, rng)
            if recipe.samples <= config.max_seconds * SAMPLE_RATE:
                return recipe

    def _draw_prompts(self, rng: np.random.Generator) -> list[tuple[str, np.ndarray]]:
        speed = int(rng.integers(len(SPEEDS)))
        form = rng.random()
        if form < 0.5:
            units = _some(self._prompts, 1, rng)
        elif form < 0.75:
            units = _some(self._prompts, int(rng.integers(2, 4)), rng)
        else:
            units = _some(self._short, int(rng.integers(2, 7)), rng)
        return [(unit.text, unit.waves[speed]) for unit in units]

    def _draw_digits(self, rng: np.random.Generator) -> list[tuple[str, np.ndarray]]:
        form, count = rng.random(), int(rng.integers(1, 9))
        if form < 0.75:
            names = sorted(self._speakers)
            units = _some(self._speakers[names[int(rng.integers(len(names)))]], count, rng)
        else:
            units = _some(self._digits, count, rng)
        if form > 0.9:  # beside a prompt, before or after it
            place = len(units) * int(rng.integers(2))
            units[place:place] = _some(self._prompts, 1, rng)
        speed = int(rng.integers(len(SPEEDS)))
        return [(unit.text, unit.waves[speed]) for unit in units]

    def _draw_synthetic(self, rng: np.random.Generator) -> list[tuple[str, np.ndarray]]:
        assert self._synthetic is not None
        count = 1 if rng.random() < 0.85 else 2
        chosen = rng.integers(len(self._synthetic), size=count)
        return [(self._synthetic.texts[i], self._synthetic.wave(i)) for i in chosen]

    def _features(self, waves: Sequence[Wave], rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Front end with SpecAugment between the filter bank and the low frame rate."""
        config, lengths = self._front_end.config, [len(wave) for wave in waves]
        wave_BS = np.zeros((len(waves), max(lengths)), dtype=np.float32)
        for row, wave in zip(wave_BS, waves, strict=True):
            row[: len(wave)] = wave
        fbank_BTF, frames_B = fbank(torch.from_numpy(wave_BS), torch.tensor(lengths), config)
        for row, frames in zip(fbank_BTF.numpy(), frames_B.tolist(), strict=True):
            mask_features(row[:frames], self.config.augment, rng)
        low_BLD, steps_B = low_frame_rate(fbank_BTF, frames_B, config)
        features_BLD = (low_BLD + self._front_end.shift) * self._front_end.scale
        valid_BL = torch.arange(low_BLD.shape[1]) < steps_B[:, None]
        return features_BLD * valid_BL[..., None], steps_B

    def _targets(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        rows = [self._encode(text) for text in texts]
        lengths_B = torch.tensor([len(row) for row in rows])
        targets_BN = torch.full((len(rows), int(lengths_B.max())), self.config.pad_id)
        for row, ids in enumerate(rows):
            targets_BN[row, : len(ids)] = torch.tensor(ids)
        return targets_BN, lengths_B

    def _encode(self, text: str) -> list[int]:
        if len(self._ids) > 100_000:
            self._ids.clear()
        if text not in self._ids:
            self._ids[text] = self._tokens.encode(text)
        return self._ids[text]


def _with_speeds(utterance: Utterance) -> _Unit:
    original = _float(utterance.wave)
    waves = []
    for fast, slow in SPEEDS:
        same = fast == slow
        waves.append(utterance.wave if same else to_pcm(resample(original, fast, slow)))
    return _Unit(utterance.text, utterance.speaker, tuple(waves))


def _recipe(parts: Sequence[tuple[str, np.ndarray]], rng: np.random.Generator) -> _Recipe:
    """Pauses before, between and after the parts; most are short."""
    inner = rng.gamma(1.5, 0.12, size=len(parts) - 1).clip(0.02, 1.0)
    outer = rng.gamma(1.2, 0.12, size=2).clip(0.0, 1.0)
    pauses = (np.array([outer[0], *inner, outer[1]]) * SAMPLE_RATE).astype(int).tolist()
    waves = [wave for _, wave in parts]
    samples = sum(pauses) + sum(len(wave) for wave in waves)
    return _Recipe(waves, pauses, " ".join(text for text, _ in parts), samples)


def _render(recipe: _Recipe, noises: NoiseBank, rng: np.random.Generator) -> Wave:
    """The parts in one wave over faint room noise, each a little louder or softer."""
    wave = noises.white(rng, recipe.samples) * np.float32(10 ** rng.uniform(-5.0, -3.3))
    position = recipe.pauses[0]
    for part, pause in zip(recipe.waves, recipe.pauses[1:], strict=True):
        gain = np.float32(10 ** (rng.uniform(-4.0, 4.0) / 20) / 32768)
        wave[position : position + len(part)] += part * gain
        position += len(part) + pause
    return wave


def _some(units: Sequence[_Unit], count: int, rng: np.random.Generator) -> list[_Unit]:
    return [units[i] for i in rng.integers(len(units), size=count)]


def _float(wave: np.ndarray) -> Wave:
    return wave.astype(np.float32) / np.float32(32768)
