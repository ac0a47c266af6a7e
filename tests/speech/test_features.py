"""The front end against torchaudio, FunASR's own features, and itself alone and in batches."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seqgen.errors import CheckpointError, ConfigError, PluginError
from seqgen_speech.features import FrontEnd, FrontEndConfig, estimate_cmvn, fbank, load_mvn
from seqgen_speech.torchaudio_import import load_torchaudio

GOLDEN = Path(__file__).parent / "golden"
sys.path.insert(0, str(GOLDEN))
from make_frontend import chirp  # noqa: E402


@pytest.fixture(scope="module")
def kaldi_fbank():
    pytest.importorskip("soundfile")
    try:
        return load_torchaudio("compliance.kaldi").fbank
    except PluginError as error:
        pytest.skip(str(error))


def test_golden_filter_bank() -> None:
    with np.load(GOLDEN / "frontend.npz") as golden:
        expected = torch.from_numpy(golden["fbank"])
    wave = torch.from_numpy(chirp())
    ours, frames = fbank(wave[None], torch.tensor([len(wave)]), FrontEndConfig())
    assert frames.tolist() == [len(expected)]
    torch.testing.assert_close(ours[0], expected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize(
    "config",
    [
        FrontEndConfig(),
        FrontEndConfig(snip_edges=False),
        FrontEndConfig(window="povey"),
        FrontEndConfig(window="hann", frame_shift=12.5, frame_length=32.0),
        FrontEndConfig(sample_rate=8000, n_mels=40),
    ],
    ids=["default", "whole", "povey", "hann", "8k"],
)
@pytest.mark.parametrize("samples", [512, 513, 16000, 50001])
def test_filter_bank_is_kaldis(kaldi_fbank, config: FrontEndConfig, samples: int) -> None:
    generator = torch.Generator().manual_seed(samples)
    for level in (0.0, 1e-4, 0.1, 1.0):
        wave = level * torch.randn(samples, generator=generator)
        expected = kaldi_fbank(
            wave[None] * 32768,
            num_mel_bins=config.n_mels,
            sample_frequency=config.sample_rate,
            frame_length=config.frame_length,
            frame_shift=config.frame_shift,
            window_type={"hann": "hanning"}.get(config.window, config.window),
            snip_edges=config.snip_edges,
            dither=0.0,
            energy_floor=0.0,
        )
        ours, frames = fbank(wave[None], torch.tensor([samples]), config)
        assert frames.tolist() == [len(expected)]
        torch.testing.assert_close(ours[0], expected, atol=1e-4, rtol=1e-5)


def test_features_are_funasrs(shared_data: Path) -> None:
    folder = shared_data / "speech/tiny-paraformer-oracle"
    with np.load(folder / "ref.npz") as reference:
        wave, expected = torch.from_numpy(reference["wav"]), torch.from_numpy(reference["feats"])
    shift, scale = load_mvn(folder / "am.mvn")
    feats, steps = FrontEnd(shift=shift, scale=scale).features([wave.float()])
    assert steps.tolist() == [82]
    torch.testing.assert_close(feats, expected.float(), atol=1e-5, rtol=1e-5)


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 9000), min_size=1, max_size=5),
    seed=st.integers(0, 2**31),
    snip_edges=st.booleans(),
    lfr=st.sampled_from([(7, 6), (1, 1), (4, 3), (5, 1)]),
)
def test_a_batch_row_equals_the_row_alone(
    lengths: list[int], seed: int, snip_edges: bool, lfr: tuple[int, int]
) -> None:
    generator = torch.Generator().manual_seed(seed)
    waves = [0.1 * torch.randn(n, generator=generator) for n in lengths]
    front = FrontEnd(FrontEndConfig(snip_edges=snip_edges, lfr_m=lfr[0], lfr_n=lfr[1]))
    feats, steps = front.features(waves)
    for row, wave in enumerate(waves):
        alone, count = front.features([wave])
        assert count[0] == steps[row] == alone.shape[1]
        torch.testing.assert_close(feats[row, : count[0]], alone[0], atol=1e-5, rtol=1e-5)
        assert not feats[row, count[0] :].any()


def test_padding_cannot_leak_into_a_row() -> None:
    wave = 0.1 * torch.randn(2, 8000, generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([8000, 3000])
    clean, _ = FrontEnd()(wave, lengths)
    wave[1, 3000:] = float("nan")
    dirty, _ = FrontEnd()(wave, lengths)
    assert torch.equal(clean, dirty)


def test_low_frame_rate_by_hand() -> None:
    # 14 frames of one mel bin each hold their own number.
    from seqgen_speech.features import low_frame_rate

    config = FrontEndConfig(n_mels=1)
    frames = torch.arange(14.0)[None, :, None]
    low, steps = low_frame_rate(frames, torch.tensor([14]), config)
    assert steps.tolist() == [3]
    assert low[0].tolist() == [
        [0, 0, 0, 0, 1, 2, 3],
        [3, 4, 5, 6, 7, 8, 9],
        [9, 10, 11, 12, 13, 13, 13],
    ]


def test_too_short_audio_has_no_frames() -> None:
    feats, steps = FrontEnd().features([torch.zeros(399), torch.zeros(400)])
    assert steps.tolist() == [0, 1]
    assert feats.shape == (2, 1, 560)


def test_dither_follows_its_generator() -> None:
    front = FrontEnd(FrontEndConfig(dither=1.0))
    wave = [torch.zeros(4000)]
    runs = [front.features(wave, generator=torch.Generator().manual_seed(s))[0] for s in (1, 1, 2)]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def test_cmvn_normalises_what_it_was_estimated_on() -> None:
    waves = [torch.from_numpy(chirp(n)) for n in (8000, 16000)]
    raw = FrontEnd()
    shift, scale = estimate_cmvn(raw.features([wave])[0][0] for wave in waves)
    feats = torch.cat([FrontEnd(shift=shift, scale=scale).features([wave])[0][0] for wave in waves])
    torch.testing.assert_close(feats.mean(0), torch.zeros(560), atol=1e-3, rtol=0)
    assert (feats.std(0, correction=0) - 1).abs().max() < 1e-2


def test_inference_mode_first_then_training() -> None:
    config = FrontEndConfig(n_mels=23)  # a size that no other test has cached
    wave = torch.from_numpy(chirp())[None]
    with torch.inference_mode():
        FrontEnd(config)(wave, torch.tensor([8000]))
    learned = wave.clone().requires_grad_()
    FrontEnd(config)(learned, torch.tensor([8000]))[0].sum().backward()
    assert learned.grad is not None
    assert learned.grad.isfinite().all()


@pytest.mark.parametrize(
    "text", ["", "hello\n", "<AddShift> 2 2\n<LearnRateCoef> 0 [ 1 x ]\n<Rescale> 2 2\n[ 1 ]\n"]
)
def test_a_damaged_mvn_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "am.mvn"
    path.write_text(text)
    with pytest.raises(CheckpointError, match="CMVN file"):
        load_mvn(path)


def test_configuration_errors_name_the_value(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="none"):
        load_mvn(tmp_path / "none")
    with pytest.raises(ConfigError, match="gauss"):
        FrontEndConfig(window="gauss")
    with pytest.raises(CheckpointError, match="80"):
        FrontEnd(shift=torch.zeros(80))


def test_torchaudio_loads_in_a_fresh_process(kaldi_fbank) -> None:
    code = (
        "from seqgen_speech.torchaudio_import import load_torchaudio as load\n"
        "import torch\n"
        "x = load('functional').resample(torch.ones(800), 8000, 16000)\n"
        "assert load('compliance.kaldi').fbank(x[None]).shape == (8, 23)\n"
        "assert load() is load()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_torchaudio_stand_in_and_absence() -> None:
    # A finder that breaks the extension as a missing CUDA library does, then hides torchaudio.
    code = """
import sys, importlib.abc
from seqgen.errors import PluginError
class Break(importlib.abc.MetaPathFinder):
    name, error = 'torchaudio._extension', OSError('libcudart.so.13: cannot open')
    def find_spec(self, name, path=None, target=None):
        if name == self.name:
            raise self.error
finder = Break()
sys.meta_path.insert(0, finder)
from seqgen_speech.torchaudio_import import load_torchaudio
import torch
functional = load_torchaudio('functional')
assert functional.resample(torch.ones(80), 8000, 16000).shape == (160,)
try:
    functional.forced_align(torch.zeros(1, 2, 2), torch.zeros(1, 1, dtype=torch.int32))
    raise SystemExit('forced_align ran without its extension')
except PluginError as error:
    assert 'extension' in str(error)
for name in [m for m in sys.modules if m.startswith('torchaudio')]:
    del sys.modules[name]
finder.name, finder.error = 'torchaudio', ModuleNotFoundError("No module named 'torchaudio'")
try:
    load_torchaudio()
    raise SystemExit('loaded')
except PluginError as error:
    assert 'seqgen-kit[speech]' in str(error)
"""
    pytest.importorskip("soundfile")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + done.stdout


def test_recognition_never_imports_torchaudio() -> None:
    modules = "audio,features,resample,segments,manifests,formats,timestamps,text,metrics"
    code = "import sys\n" + "".join(f"import seqgen_speech.{m}\n" for m in modules.split(","))
    code += "heavy = {'torchaudio', 'tokenizers', 'jiwer', 'soundfile'} & set(sys.modules)\n"
    code += "assert not heavy, heavy\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
