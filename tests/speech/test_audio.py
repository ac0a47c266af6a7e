"""Reading audio: formats, rates, channels, blocks, and every kind of bad file."""

from __future__ import annotations

import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seqgen.errors import InputError, PluginError
from seqgen_speech import audio
from seqgen_speech.audio import probe_seconds, read_audio, stream_audio
from seqgen_speech.resample import Resampler, resample
from seqgen_speech.torchaudio_import import load_torchaudio

sf = pytest.importorskip("soundfile")


def tone(seconds: float, rate: int, hertz: float = 440.0) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)).astype("f4")


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 32000, 44100, 48000, 96000])
def test_resampling_is_torchaudios(rate: int) -> None:
    try:
        functional = load_torchaudio("functional")
    except PluginError as error:
        pytest.skip(str(error))
    wave = np.random.default_rng(0).standard_normal(2 * rate + 37).astype("f4") * 0.2
    expected = functional.resample(torch.from_numpy(wave), rate, 16000).numpy()
    # torchaudio computes its kernel in float32: at 11025 Hz that shows in the fifth digit.
    np.testing.assert_allclose(resample(wave, rate, 16000), expected, atol=1e-4)


@pytest.mark.parametrize("rate", [8000, 7999, 16001, 44100])
def test_a_tone_stays_a_tone(rate: int) -> None:
    ours = resample(tone(1.0, rate), rate, 16000)
    middle = slice(1000, 15000)
    np.testing.assert_allclose(ours[middle], tone(1.0, 16000)[middle], atol=2e-3)


@settings(max_examples=40, deadline=None)
@given(
    rate=st.sampled_from([8000, 11025, 16000, 44100, 48000, 12345]),
    cuts=st.lists(st.integers(0, 3000), min_size=1, max_size=8),
    seed=st.integers(0, 1000),
)
def test_blocks_resample_as_the_whole(rate: int, cuts: list[int], seed: int) -> None:
    wave = np.random.default_rng(seed).standard_normal(sum(cuts)).astype("f4")
    resampler = Resampler(rate, 16000)
    ends = np.cumsum(cuts)
    parts = [resampler.push(wave[end - cut : end]) for end, cut in zip(ends, cuts, strict=True)]
    streamed = np.concatenate([*parts, resampler.flush()])
    whole = resample(wave, rate, 16000)
    assert len(whole) == -(-len(wave) * 16000 // rate)
    assert np.array_equal(streamed, whole)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3", "aiff"])
def test_every_format_at_44100_hz_in_stereo(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"tone.{suffix}"
    left = tone(1.0, 44100)
    sf.write(path, np.stack([left, 0.5 * left], axis=1), 44100)
    expected = 0.75 * tone(1.0, 16000)
    for source in (path, str(path), path.read_bytes()):
        wave = read_audio(source)
        assert wave.dtype == np.float32
        assert wave.shape == (16000,)
        limit = {"mp3": 3e-2, "ogg": 3e-2}.get(suffix, 2e-3)
        assert np.abs(wave - expected)[500:-500].max() < limit
    assert probe_seconds(path) == pytest.approx(1.0, abs=0.06)


def test_a_part_of_a_file(tmp_path: Path) -> None:
    wave = np.random.default_rng(0).standard_normal(48000).astype("f4") * 0.1
    sf.write(tmp_path / "a.wav", wave, 16000, subtype="FLOAT")
    part = read_audio(tmp_path / "a.wav", start=1.0, stop=2.5)
    assert np.array_equal(part, wave[16000:40000])
    assert len(read_audio(tmp_path / "a.wav", start=2.0, stop=3.2)) == 16000
    for start, stop in ((3.0, None), (2.0, 9.0), (2.0, 1.0), (-1.0, None)):
        with pytest.raises(InputError, match=r"lasts 3\.00 s"):
            read_audio(tmp_path / "a.wav", start=start, stop=stop)


def test_long_files_stream_in_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / "long.flac"
    with sf.SoundFile(path, "w", 8000, 1) as out:
        for _ in range(30):
            out.write(np.random.default_rng(0).integers(-3000, 3000, 160000, dtype=np.int16))
    tracemalloc.start()
    samples = sum(len(block) for block in stream_audio(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert samples == 30 * 20 * 16000  # ten minutes: 38 MB of float32
    assert peak < 16e6


def test_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sf.write(tmp_path / "a.wav", tone(0.5, 16000), 16000)
    with (tmp_path / "a.wav").open() as stream:
        monkeypatch.setattr("sys.stdin", stream)
        assert read_audio("-").shape == (8000,)


def _bad(folder: Path, kind: str) -> Path:
    path = folder / f"{kind}.wav"
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("This is not audio.\n" * 20)
    elif kind == "binary":
        path.write_bytes(bytes(range(256)) * 20)
    elif kind == "folder":
        path.mkdir()
    elif kind == "header":
        sf.write(path, tone(1.0, 16000), 16000)
        path.write_bytes(path.read_bytes()[:30])
    elif kind == "none":
        sf.write(path, np.zeros(0), 16000)
    elif kind in ("nan", "inf"):
        wave = tone(25.0, 16000)
        wave[-5] = np.nan if kind == "nan" else np.inf
        sf.write(path, wave, 16000, subtype="FLOAT")
    elif kind == "short":
        sf.write(path, np.zeros(399), 16000)
    elif kind == "rate":
        sf.write(path, np.zeros(9999), 1)
    elif kind == "truncated":
        sf.write(path, tone(2.0, 16000), 16000)
        path.write_bytes(path.read_bytes()[: 44 + 32000])
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "does not exist"),
        ("empty", "is empty"),
        ("text", "looks like text"),
        ("binary", "not audio that can be read"),
        ("folder", "is a folder"),
        ("header", "not audio that can be read"),
        ("none", "holds no samples"),
        ("nan", "a sample that is not a finite number"),
        ("inf", "a sample that is not a finite number"),
        ("short", "too short: 24.9 ms"),
        ("rate", "sample rate of 1 Hz"),
        ("truncated", "promises 2.00 s, the file holds 1.00 s"),
    ],
)
def test_bad_files_say_what_is_wrong(tmp_path: Path, kind: str, message: str) -> None:
    path = _bad(tmp_path, kind)
    with pytest.raises(InputError, match=message) as caught:
        read_audio(path)
    assert str(path) in caught.value.what
    assert caught.value.fix
    assert probe_seconds(path) >= 0.0  # and listing goes on


@pytest.mark.parametrize("suffix", ["wav", "flac", "mp3"])
def test_truncated_files_are_decoded_on_demand(tmp_path: Path, suffix: str) -> None:
    whole, cut = tmp_path / f"whole.{suffix}", tmp_path / f"cut.{suffix}"
    sf.write(whole, np.random.default_rng(0).standard_normal(48000) * 0.1, 16000)
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(InputError, match="allow_truncated=true"):
        read_audio(cut)
    rest = read_audio(cut, allow_truncated=True)
    assert 1.1 * 16000 < len(rest) <= 1.5 * 16000
    if suffix != "mp3":
        assert np.array_equal(rest, read_audio(whole)[: len(rest)])


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFFFFF])
def test_a_wav_written_to_a_pipe_has_no_length_and_is_whole(tmp_path: Path, size: int) -> None:
    sf.write(tmp_path / "a.wav", tone(1.0, 16000), 16000)
    data = bytearray((tmp_path / "a.wav").read_bytes())
    at = data.find(b"data") + 4
    data[at : at + 4] = data[4:8] = struct.pack("<I", size)
    assert read_audio(bytes(data)).shape == (16000,)


def test_missing_soundfile_is_a_plugin_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sf.write(tmp_path / "a.wav", tone(1.0, 16000), 16000)
    monkeypatch.setitem(__import__("sys").modules, "soundfile", None)
    with pytest.raises(PluginError, match="soundfile") as caught:
        audio.read_audio(tmp_path / "a.wav")
    assert "pip install" in caught.value.fix
