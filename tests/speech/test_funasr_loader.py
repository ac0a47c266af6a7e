"""Reading a FunASR folder: the layouts that exist, and errors that name what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from seqgen.errors import CheckpointError
from seqgen_speech.cif import CifConfig
from seqgen_speech.decoder import ParaformerDecoderConfig
from seqgen_speech.encoder import SanmEncoderConfig
from seqgen_speech.funasr import is_funasr_folder, load_funasr
from seqgen_speech.paraformer import Paraformer, ParaformerConfig

TOKENS = ["<blank>", "<s>", "</s>", "a", "b", "<unk>"]


def official_config(version: str = "CifPredictorV2") -> dict[str, Any]:
    sizes = {"attention_heads": 2, "linear_units": 12, "kernel_size": 5, "sanm_shfit": 0}
    return {
        "model": "Paraformer",
        "model_conf": {"predictor_bias": 1, "sampling_ratio": 0.3, "lsm_weight": 0.1},
        "encoder": "SANMEncoder",
        "encoder_conf": {**sizes, "output_size": 8, "num_blocks": 2},
        "decoder": "ParaformerSANMDecoder",
        "decoder_conf": {**sizes, "num_blocks": 3, "att_layer_num": 2},
        "predictor": version,
        "predictor_conf": {"idim": 8, "l_order": 1, "r_order": 1, "tail_threshold": 0.45},
        "frontend_conf": {"n_mels": 4, "lfr_m": 7, "lfr_n": 6, "dither": 1.0},
    }


def make_model(version: str = "v2") -> Paraformer:
    torch.manual_seed(0)
    sizes = {"width": 8, "heads": 2, "ffn_width": 12, "kernel": 5}
    return Paraformer(
        ParaformerConfig(
            encoder=SanmEncoderConfig(**sizes, input_width=28, layers=2),
            predictor=CifConfig(width=8, version=version),  # type: ignore[arg-type]
            decoder=ParaformerDecoderConfig(
                **sizes, vocabulary=len(TOKENS), layers=2, memory_layers=1
            ),
        )
    ).eval()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path, official_config(), make_model().state_dict())
    return tmp_path


def write(folder: Path, config: dict[str, Any], state: Any) -> None:
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "tokens.json").write_text(json.dumps(TOKENS))
    numbers = " ".join(["0.5"] * 28)
    (folder / "am.mvn").write_text(
        f"<Nnet>\n<Splice> 28 28\n[ 0 ]\n<AddShift> 28 28\n<LearnRateCoef> 0 [ {numbers} ]\n"
        f"<Rescale> 28 28\n<LearnRateCoef> 0 [ {numbers} ]\n</Nnet>\n"
    )
    torch.save(state, folder / "model.pt")


def test_plain_files_are_enough(folder: Path) -> None:
    assert is_funasr_folder(folder)
    loaded = load_funasr(folder)
    features, lengths = torch.randn(1, 9, 28), torch.tensor([9])
    want = make_model().recognise(features, lengths)
    got = loaded.model.recognise(features, lengths)
    assert torch.equal(got.log_probs_BNV, want.log_probs_BNV)
    assert loaded.tokens == TOKENS
    assert loaded.front_end.dither == 0
    assert loaded.front_end.dim == 28
    assert loaded.shift is not None
    assert loaded.shift.tolist() == [0.5] * 28
    assert loaded.loss.sampling_ratio == 0.3
    assert loaded.model.config.predictor_bias == 1
    assert loaded.notes == ()
    assert not loaded.model.training


@pytest.mark.parametrize("nested", [None, "state_dict", "model_state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_nesting_and_prefix(folder: Path, nested: str | None, prefix: str) -> None:
    state: Any = {prefix + key: value for key, value in make_model().state_dict().items()}
    torch.save({nested: state, "epoch": 3} if nested else state, folder / "model.pt")
    assert load_funasr(folder).tokens == TOKENS


def test_other_file_names_through_configuration_json(folder: Path) -> None:
    (folder / "model.pt").rename(folder / "weights.bin")
    (folder / "tokens.json").unlink()
    (folder / "list.txt").write_text("\n".join(TOKENS))
    metas = {"init_param": "weights.bin", "tokenizer_conf": {"token_list": "list.txt"}}
    (folder / "configuration.json").write_text(json.dumps({"file_path_metas": metas}))
    assert load_funasr(folder).tokens == TOKENS


def test_seaco_layout_skips_the_hotword_network(folder: Path) -> None:
    config = official_config("CifPredictorV3") | {"model": "SeacoParaformer"}
    state = make_model("v3").state_dict()
    hotwords = ["bias_encoder.weight_ih_l0", "seaco_decoder.after_norm.weight"]
    hotwords.append("hotword_output_layer.bias")
    write(folder, config, {**state, **{name: torch.ones(3) for name in hotwords}})
    loaded = load_funasr(folder)
    assert loaded.model.config.predictor.version == "v3"
    assert any("3 tensors of the hotword network" in note for note in loaded.notes)


def test_missing_cmvn_is_noted(folder: Path) -> None:
    (folder / "am.mvn").unlink()
    loaded = load_funasr(folder)
    assert loaded.shift is None
    assert any("am.mvn" in note for note in loaded.notes)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("decoder.after_norm.bias", None, "missing: decoder.after_norm.bias"),
        ("decoder.extra", torch.ones(1), "unexpected: decoder.extra"),
        ("encoder.after_norm.bias", torch.ones(9), r"encoder.after_norm.bias is \(9,\)"),
        ("decoder.note", "text", "decoder.note is not a tensor"),
        ("decoder.output_layer.weight", torch.ones(7, 8), "6 tokens.*7 rows"),
    ],
)
def test_keys_and_shapes_are_strict(folder: Path, key: str, value: Any, message: str) -> None:
    state = dict(make_model().state_dict())
    if value is None:
        del state[key]
    else:
        state[key] = value
    torch.save(state, folder / "model.pt")
    with pytest.raises(CheckpointError, match=message):
        load_funasr(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "Whisper"}, "model is 'Whisper'"),
        ({"encoder": "ConformerEncoder"}, "encoder is 'ConformerEncoder'"),
        ({"decoder": "ContextualParaformerDecoder"}, "decoder is"),
        ({"encoder_conf": {"output_size": 8}}, "attention_heads|num_blocks"),
        ({"decoder_conf": [1]}, "decoder_conf is not a mapping"),
        ({"frontend_conf": {"n_mels": 80, "lfr_m": 7, "lfr_n": 6}}, "560 values"),
    ],
)
def test_foreign_configurations(folder: Path, change: dict[str, Any], message: str) -> None:
    (folder / "config.yaml").write_text(yaml.safe_dump(official_config() | change))
    with pytest.raises(CheckpointError, match=message):
        load_funasr(folder)


@pytest.mark.parametrize("name", ["../other.pt", "/etc/passwd", "a/../../b", "C:\\model.pt"])
def test_files_outside_the_folder_are_refused(folder: Path, name: str) -> None:
    metas = {"file_path_metas": {"init_param": name}}
    (folder / "configuration.json").write_text(json.dumps(metas))
    with pytest.raises(CheckpointError, match="outside its folder"):
        load_funasr(folder)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.yaml", "model: [unclosed"),
        ("config.yaml", "- a list"),
        ("tokens.json", "{}"),
        ("tokens.json", "no json"),
        ("configuration.json", "[1]"),
        ("configuration.json", '{"file_path_metas": {"tokenizer_conf": "text"}}'),
        ("configuration.json", '{"file_path_metas": [1]}'),
        ("model.pt", "not a checkpoint"),
        ("am.mvn", "nothing"),
    ],
)
def test_damaged_files_are_named(folder: Path, file: str, content: str) -> None:
    (folder / file).write_text(content)
    with pytest.raises(CheckpointError, match=file):
        load_funasr(folder)


@pytest.mark.parametrize("file", ["config.yaml", "model.pt", "tokens.json"])
def test_missing_files_are_named(folder: Path, file: str) -> None:
    (folder / file).unlink()
    with pytest.raises(CheckpointError, match=file):
        load_funasr(folder)
    with pytest.raises(CheckpointError, match="not a folder"):
        load_funasr(folder / "nowhere")


def test_a_pickle_that_runs_code_is_refused(folder: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return (eval, (f"open({str(folder / 'pwned')!r}, 'w')",))

    torch.save({"encoder.after_norm.bias": Evil()}, folder / "model.pt")
    with pytest.raises(CheckpointError, match=r"model\.pt"):
        load_funasr(folder)
    assert not (folder / "pwned").exists()
