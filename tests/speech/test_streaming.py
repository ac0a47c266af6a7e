"""Streaming equals the offline chunked reference, however the samples arrive."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seqgen.errors import ConfigError
from seqgen_speech.feature_stream import FeatureStream
from seqgen_speech.features import FrontEnd, FrontEndConfig
from seqgen_speech.paraformer import Paraformer, ParaformerConfig
from seqgen_speech.streaming import (
    ParaformerStream,
    StreamedTokens,
    StreamingConfig,
    chunked_reference,
)

FRONT_END = FrontEnd(
    FrontEndConfig(n_mels=8), shift=torch.full((56,), -8.0), scale=torch.full((56,), 0.3)
)


def make_model(seed: int = 0) -> Paraformer:
    torch.manual_seed(seed)
    config = ParaformerConfig.small(
        vocabulary=13,
        width=16,
        heads=2,
        ffn_width=24,
        encoder_layers=3,
        decoder_layers=2,
        input_width=56,
    )
    return Paraformer(config).eval()


def make_wave(samples: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(samples, generator=generator) * 0.1


def run_stream(
    model: Paraformer, wave: torch.Tensor, cuts: list[int], config: StreamingConfig | None = None
) -> StreamedTokens:
    stream = ParaformerStream(model, FRONT_END, config)
    parts = [stream.push(piece) for piece in wave.tensor_split(sorted(cuts))]
    parts.append(stream.finish())
    return StreamedTokens(*(torch.cat(column) for column in zip(*parts, strict=True)))


@pytest.mark.parametrize(
    "samples", [0, 399, 400, 5000, 9519, 9520, 9600, 19_119, 19_200, 47_123, 96_000, 131_071]
)
def test_stream_equals_the_chunked_reference(samples: int) -> None:
    model, wave = make_model(), make_wave(samples)
    features = FRONT_END.features([wave])[0][0] if samples >= 400 else torch.zeros(0, 56)
    want = chunked_reference(model, features)
    got = run_stream(model, wave, list(range(0, samples, 3200)))
    assert got.ids_N.tolist() == want.ids_N.tolist()
    assert got.frames_N.tolist() == want.frames_N.tolist()
    torch.testing.assert_close(got.confidences_N, want.confidences_N, atol=1e-5, rtol=1e-4)
    assert len(got.ids_N) > 0 or samples < 5000


@pytest.mark.parametrize(
    "config",
    [
        StreamingConfig(chunk=5, look_ahead=2, encoder_look_back=1, decoder_look_back=3),
        StreamingConfig(chunk=8, look_ahead=7, encoder_look_back=0, decoder_look_back=0),
        StreamingConfig(chunk=20, look_ahead=1, encoder_look_back=9, decoder_look_back=2),
    ],
)
def test_other_chunk_sizes(config: StreamingConfig) -> None:
    model, wave = make_model(1), make_wave(70_000, 1)
    want = chunked_reference(model, FRONT_END.features([wave])[0][0], config)
    got = run_stream(model, wave, [10, 20_000, 20_001, 55_555], config)
    assert got.ids_N.tolist() == want.ids_N.tolist()
    assert got.frames_N.tolist() == want.frames_N.tolist()


@settings(max_examples=12, deadline=None)
@given(st.lists(st.integers(0, 40_000), max_size=12), st.integers(0, 99))
def test_the_way_samples_are_cut_changes_nothing(cuts: list[int], seed: int) -> None:
    model, wave = make_model(seed), make_wave(40_000, seed)
    for whole, cut in zip(run_stream(model, wave, []), run_stream(model, wave, cuts), strict=True):
        assert torch.equal(whole, cut)


def test_features_are_those_of_the_whole_recording() -> None:
    wave = make_wave(50_000)
    stream = FeatureStream(FRONT_END, 10)
    parts = [chunk for piece in wave.split(777) for chunk in stream.push(piece)]
    assert {len(part) for part in parts} == {10}
    parts.append(stream.finish())
    torch.testing.assert_close(torch.cat(parts), FRONT_END.features([wave])[0][0])


def test_tokens_come_while_the_audio_still_runs() -> None:
    stream = ParaformerStream(make_model(), FRONT_END)
    wave = make_wave(48_000)
    assert len(stream.push(wave[:9000]).ids_N) == 0
    assert len(stream.push(wave[9000:20_000]).ids_N) > 0


def test_silence_gives_no_token_and_does_not_upset_the_caches() -> None:
    model = make_model()
    with torch.no_grad():
        model.predictor.cif_output.bias.fill_(-30.0)
    assert len(run_stream(model, make_wave(30_000), [15_000]).ids_N) == 0


def test_wrong_settings_are_named() -> None:
    with pytest.raises(ConfigError, match="look_ahead"):
        StreamingConfig(look_ahead=10)
    with pytest.raises(ConfigError, match="look-backs"):
        StreamingConfig(encoder_look_back=-1)
    with pytest.raises(ConfigError, match="snip_edges"):
        FeatureStream(FrontEnd(FrontEndConfig(snip_edges=False)), 10)
