"""Training batches: the same for the same step, and targets that belong to the sound."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from seqgen.errors import ConfigError
from seqgen_speech.augment import AugmentConfig, NoiseBank, augment_wave, mask_features
from seqgen_speech.corpus import DIGITS, Corpus, Utterance, load_corpus
from seqgen_speech.features import FrontEnd
from seqgen_speech.simulate import SimulateConfig, SpeechBatches, tokenizer_texts
from seqgen_speech.synth import SyntheticSpeech
from seqgen_speech.text import train_bpe

CLEAN = AugmentConfig(noise=0, telephone=0, room=0, tilt=0, mel_masks=0, time_masks=0)
CONFIG = SimulateConfig(batch_seconds=12.0, pool=4, pad_id=-1)


class Letters:
    """A tokenizer of one id a letter, so that targets can be read back."""

    def encode(self, text: str) -> list[int]:
        return [ord(letter) for letter in text]


def _tone(key: str, text: str, seconds: float, speaker: str) -> Utterance:
    time = np.arange(int(seconds * 16000)) / 16000
    wave = (8000 * np.sin(2 * np.pi * (200 + 40 * len(text)) * time)).astype(np.int16)
    return Utterance(key, text, wave, speaker)


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    texts = ["hello", "press one", "please enter your number", "goodbye and thank you for calling"]
    prompts = [_tone(f"p{i}", text, 0.1 * len(text), "prompts") for i, text in enumerate(texts)]
    digits = [_tone(f"{d}_{s}", d, 0.4, s) for d in DIGITS for s in ("ann", "bob")]
    return Corpus(prompts, digits, prompts, digits)


@pytest.fixture(scope="module")
def synthetic() -> SyntheticSpeech:
    waves = [np.full(16000 + 100 * i, i, dtype=np.int16) for i in range(5)]
    offsets = np.cumsum([0, *map(len, waves)])
    return SyntheticSpeech(["machine speech"] * 5, ["slt"] * 5, offsets, np.concatenate(waves))


def _batches(
    corpus: Corpus, synthetic: SyntheticSpeech | None, config: SimulateConfig = CONFIG
) -> SpeechBatches:
    return SpeechBatches(corpus, synthetic, Letters(), FrontEnd(), config)


def test_a_step_is_the_same_whatever_was_drawn_before(
    corpus: Corpus, synthetic: SyntheticSpeech
) -> None:
    ahead = _batches(corpus, synthetic)
    for step in range(7):
        ahead.batch(step)
    alone = _batches(corpus, synthetic)
    for step in (6, 2, 6):
        for left, right in zip(ahead.batch(step), alone.batch(step), strict=True):
            assert torch.equal(left, right)


def test_steps_and_seeds_differ(corpus: Corpus, synthetic: SyntheticSpeech) -> None:
    first = _batches(corpus, synthetic)
    other = _batches(corpus, synthetic, replace(CONFIG, seed=1))
    texts = [first.texts(step) for step in range(8)]
    assert all(texts[i] != texts[j] for i in range(8) for j in range(i))
    assert first.texts(0) != other.texts(0)


def test_shapes_padding_and_targets(corpus: Corpus, synthetic: SyntheticSpeech) -> None:
    batches = _batches(corpus, synthetic)
    for step in range(8):
        features_BLD, lengths_B, targets_BN, target_lengths_B = batches.batch(step)
        B, L, D = features_BLD.shape
        assert (D, len(lengths_B), len(targets_BN)) == (560, B, B)
        assert features_BLD.dtype == torch.float32
        assert features_BLD.isfinite().all()
        assert int(lengths_B.max()) == L
        assert int(target_lengths_B.max()) == targets_BN.shape[1]
        for row, text in enumerate(batches.texts(step)):
            assert not features_BLD[row, lengths_B[row] :].any()
            letters = targets_BN[row, : target_lengths_B[row]].tolist()
            assert "".join(map(chr, letters)) == text
            assert (targets_BN[row, target_lengths_B[row] :] == -1).all()


def test_no_batch_is_empty_where_utterances_are_longer_than_batches(corpus: Corpus) -> None:
    batches = _batches(corpus, None, replace(CONFIG, batch_seconds=1.0, pool=8))
    assert all(batches.texts(step) for step in range(80))


def test_sound_lasts_as_long_as_its_text(corpus: Corpus) -> None:
    """Every text is made of units of known length; speed changes them by a tenth at most."""
    batches = _batches(corpus, None)
    seconds = {one.text: one.seconds for one in [*corpus.prompts, *corpus.digits]}
    for step in range(12):
        lengths_B = batches.batch(step).feature_lengths_B.tolist()
        for text, steps in zip(batches.texts(step), lengths_B, strict=True):
            spoken, rest, parts = 0.0, text, 0
            while rest:
                unit = max((t for t in seconds if rest.startswith(t)), key=len)
                spoken, rest, parts = spoken + seconds[unit], rest[len(unit) :].strip(), parts + 1
            assert 0.9 * spoken - 0.1 <= steps * 0.06 <= spoken / 0.89 + parts + 1.1


def test_batches_have_like_lengths_and_bounded_size(
    corpus: Corpus, synthetic: SyntheticSpeech
) -> None:
    batches = _batches(corpus, synthetic)
    used, padded = 0, 0
    for step in range(24):
        features_BLD, lengths_B, _, _ = batches.batch(step)
        used += int(lengths_B.sum())
        padded += features_BLD.shape[0] * features_BLD.shape[1]
        assert len(lengths_B) > 0
        assert int(lengths_B.sum()) * 0.06 < CONFIG.batch_seconds + CONFIG.max_seconds
    assert used / padded > 0.7


def test_the_mixture_is_the_configured_one(corpus: Corpus, synthetic: SyntheticSpeech) -> None:
    def texts(config: SimulateConfig) -> list[str]:
        batches = _batches(corpus, synthetic, config)
        return [text for step in range(12) for text in batches.texts(step)]

    only_digits = texts(replace(CONFIG, prompts=0, synthetic=0))
    assert any(set(text.split()) <= set(DIGITS) for text in only_digits)
    assert not any("machine" in text for text in only_digits)
    only_synthetic = texts(replace(CONFIG, prompts=0, digits=0))
    assert all(set(text.split()) == {"machine", "speech"} for text in only_synthetic)


def test_level_and_noise_are_as_asked() -> None:
    rng = np.random.default_rng(0)
    wave = np.sin(np.arange(32000) * 0.1).astype(np.float32)
    noises = NoiseBank(0, [wave])
    level = replace(CLEAN, level=(-20.0, -20.0))
    quiet = augment_wave(wave, level, noises, rng)
    assert np.sqrt(np.mean(quiet**2)) == pytest.approx(0.1, rel=1e-3)
    noisy = augment_wave(wave, replace(level, noise=1.0, snr=(10.0, 10.0)), noises, rng)
    assert 10 * np.log10(np.mean(quiet**2) / np.mean((noisy - quiet) ** 2)) == pytest.approx(
        10, abs=3
    )
    # A telephone line has no tone of 6 kHz.
    high = np.sin(2 * np.pi * 6000 * np.arange(32000) / 16000).astype(np.float32)
    both = augment_wave(high + wave, replace(level, telephone=1.0), noises, rng)
    spectrum = np.abs(np.fft.rfft(both))
    assert spectrum[11900:12100].max() < 1e-3 * spectrum.max()


def test_masks_hide_little_time() -> None:
    config = replace(CLEAN, time_masks=2, time_share=0.05)
    hidden = 0
    for seed in range(50):
        fbank_TF = np.random.default_rng(1).normal(size=(200, 80)).astype(np.float32)
        before = fbank_TF.copy()
        mask_features(fbank_TF, config, np.random.default_rng(seed))
        changed = int((fbank_TF != before).any(axis=1).sum())
        assert changed <= 20
        hidden += changed
    assert hidden > 0


def test_cmvn_normalises(corpus: Corpus, synthetic: SyntheticSpeech) -> None:
    shift, scale = _batches(corpus, synthetic).cmvn(batches=4)
    front_end = FrontEnd(shift=shift, scale=scale)
    batches = SpeechBatches(corpus, synthetic, Letters(), front_end, CONFIG)
    rows = [
        features[:length]
        for step in range(4)
        for features, length in zip(*batches.batch(step)[:2], strict=True)
    ]
    values = torch.cat(rows)
    assert values.mean().abs() < 1e-3
    assert values.std() == pytest.approx(1.0, abs=0.05)
    with pytest.raises(ConfigError, match="normalises already"):
        batches.cmvn()


def test_plain_batches_give_every_recording_once(corpus: Corpus) -> None:
    batches = _batches(corpus, None)
    rows = list(batches.plain(corpus.dev_digits, batch_seconds=2.0))
    texts = [
        "".join(map(chr, targets[:length].tolist()))
        for batch in rows
        for targets, length in zip(batch.targets_BN, batch.target_lengths_B, strict=True)
    ]
    assert sorted(texts) == sorted(utterance.text for utterance in corpus.dev_digits)
    assert all(batch.features_BLD.shape[0] <= 5 for batch in rows)
    # Nothing is added to a plain recording: alone it has the same features.
    alone, _ = FrontEnd().features([torch.from_numpy(corpus.dev_digits[0].wave / 32768).float()])
    found = next(batch for batch in batches.plain(corpus.dev_digits[:1]))
    torch.testing.assert_close(found.features_BLD, alone)


def test_real_corpus_leaves_room_for_every_token(shared_data: Path) -> None:
    corpus = load_corpus(shared_data / "speech")
    tokens = train_bpe(tokenizer_texts(corpus, None), 300)
    assert all(len(tokens.encode(digit)) == 1 for digit in DIGITS)
    batches = SpeechBatches(corpus, None, tokens, FrontEnd())
    for step in range(3):
        batch = batches.batch(step)
        # CIF gives at most one token a low-rate frame.
        assert (batch.target_lengths_B < 0.8 * batch.feature_lengths_B).all()
        for text, ids in zip(batches.texts(step), batch.targets_BN, strict=True):
            assert tokens.decode(ids[ids >= 0].tolist()).text == text
