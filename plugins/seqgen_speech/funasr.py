"""Load an official Paraformer as FunASR publishes it: a folder; nothing of funasr is needed.

    model.pt             a state dict, bare or nested, names perhaps prefixed with `module.`
    config.yaml          class names and sizes
    tokens.json|.txt     the vocabulary
    am.mvn               CMVN of the features
    configuration.json   may name the files above differently (`file_path_metas`)

Read are Paraformer, its streaming variant (the same weights), BiCif and SeACo. SeACo's hotword
network is skipped: without hotwords it takes no part in the result.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Literal

import torch
import yaml
from torch import Tensor

from seqgen.checkpoints import load_pickle, load_strict
from seqgen.errors import CheckpointError
from seqgen_speech.cif import CifConfig
from seqgen_speech.decoder import ParaformerDecoderConfig
from seqgen_speech.encoder import SanmEncoderConfig
from seqgen_speech.features import FrontEndConfig, load_mvn
from seqgen_speech.losses import ParaformerLossConfig
from seqgen_speech.paraformer import Paraformer, ParaformerConfig

CIF_VERSIONS: dict[str, Literal["v1", "v2", "v3"]] = {
    "CifPredictor": "v1",
    "CifPredictorV2": "v2",
    "CifPredictorV3": "v3",
}
CLASSES = {
    "model": (
        "Paraformer",
        "ParaformerStreaming",
        "BiCifParaformer",
        "SeacoParaformer",
    ),
    "encoder": ("SANMEncoder", "SANMEncoderChunkOpt"),
    "decoder": ("ParaformerSANMDecoder",),
    "predictor": tuple(CIF_VERSIONS),
}
HOTWORD_KEYS = ("bias_encoder.", "bias_embed.", "seaco_decoder.", "hotword_output_layer.")
METAS = ("tokenizer_conf", "frontend_conf")
NESTED_UNDER = ("state_dict", "model_state_dict", "model")


@dataclass(frozen=True)
class FunasrModel:
    """An official model, ready to use.

    Attributes:
        model: in eval mode.
        front_end: how the features are made; dither is always 0.
        shift: CMVN vector added to the features [F], or None if the folder has none.
        scale: CMVN vector the sum is multiplied with [F], or None.
        tokens: the vocabulary in id order.
        loss: the training objective's weights, for finetuning.
        seg_dict: the word-to-pieces file, where there is one.
        notes: what was left out, in words for the user.
    """

    model: Paraformer
    front_end: FrontEndConfig
    shift: Tensor | None
    scale: Tensor | None
    tokens: list[str]
    loss: ParaformerLossConfig
    seg_dict: Path | None
    notes: tuple[str, ...]


def is_funasr_folder(path: str | Path) -> bool:
    """Whether the path looks like a folder that `load_funasr` reads."""
    folder = Path(path)
    return (folder / "configuration.json").is_file() or (
        (folder / "config.yaml").is_file() and (folder / "model.pt").is_file()
    )


def load_funasr(path: str | Path) -> FunasrModel:
    """Read a FunASR Paraformer folder.

    Raises:
        CheckpointError: a file is missing, damaged or unsafe; the model is of another kind; a key
            or a shape does not fit (it is named).
    """
    folder = Path(path)
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is not a folder", fix="give the folder of the model")
    files = _files(folder)
    config = _read_config(files["config"])
    tokens = _read_tokens(files["tokens"])
    state, notes = _read_state(files["weights"])
    model_config = model_configuration(config, state, vocabulary=len(tokens))
    with torch.device("meta"):
        model = Paraformer(model_config)
    model = model.to_empty(device="cpu")
    load_strict(model, state, source=files["weights"])
    front_end = _front_end(config)
    if front_end.dim != model_config.encoder.input_width:
        raise CheckpointError(
            f"the front end makes {front_end.dim} values a frame, the encoder of "
            f"{files['weights']} wants {model_config.encoder.input_width}",
            fix="check n_mels and lfr_m in config.yaml",
        )
    shift = scale = None
    if mvn := files.get("cmvn"):
        shift, scale = load_mvn(mvn)
        if shift.numel() != front_end.dim:
            raise CheckpointError(
                f"{mvn} has {shift.numel()} values, the front end makes {front_end.dim}"
            )
    else:
        notes.append("no am.mvn: features are not normalised")
    return FunasrModel(
        model=model.eval(),
        front_end=front_end,
        shift=shift,
        scale=scale,
        tokens=tokens,
        loss=_loss_config(config),
        seg_dict=files.get("seg_dict"),
        notes=tuple(notes),
    )


def model_configuration(
    config: Mapping[str, Any], state: Mapping[str, Tensor], *, vocabulary: int
) -> ParaformerConfig:
    """Our configuration for a config.yaml; `state` only tells what config.yaml does not say.

    Raises:
        CheckpointError: another architecture, or a size is missing.
    """
    for part, known in CLASSES.items():
        if config.get(part) not in known:
            raise CheckpointError(
                f"config.yaml: the {part} is {config.get(part)!r}",
                why=f"only {', '.join(known)} can be loaded",
            )
    encoder, decoder = _section(config, "encoder_conf"), _section(config, "decoder_conf")
    predictor, model = _section(config, "predictor_conf"), _section(config, "model_conf")
    width = _size(encoder, "encoder_conf", "output_size")
    decoder_layers = _size(decoder, "decoder_conf", "num_blocks")
    attention_layers = int(decoder.get("att_layer_num", decoder_layers))
    decoder_kernel = _size(decoder, "decoder_conf", "kernel_size")
    shift = decoder.get("sanm_shfit", 0)
    first = state.get("encoder.encoders0.0.norm1.weight")
    _check_vocabulary(state, vocabulary)
    defaults = CifConfig()
    return ParaformerConfig(
        encoder=SanmEncoderConfig(
            input_width=width if first is None else first.numel(),
            width=width,
            heads=_size(encoder, "encoder_conf", "attention_heads"),
            ffn_width=_size(encoder, "encoder_conf", "linear_units"),
            layers=_size(encoder, "encoder_conf", "num_blocks"),
            kernel=_size(encoder, "encoder_conf", "kernel_size"),
            shift=int(encoder.get("sanm_shfit", 0)),
            dropout=float(encoder.get("dropout_rate", 0.1)),
            attention_dropout=float(encoder.get("attention_dropout_rate", 0.0)),
        ),
        predictor=CifConfig(
            width=int(predictor.get("idim", width)),
            version=CIF_VERSIONS[config["predictor"]],
            left=int(predictor.get("l_order", 1)),
            right=int(predictor.get("r_order", 1)),
            tail_threshold=float(predictor.get("tail_threshold", 0.0)),
            smooth_factor=float(predictor.get("smooth_factor", defaults.smooth_factor)),
            noise_threshold=float(predictor.get("noise_threshold", defaults.noise_threshold)),
            upsample=int(predictor.get("upsample_times", defaults.upsample)),
            smooth_factor2=float(predictor.get("smooth_factor2", defaults.smooth_factor2)),
            noise_threshold2=float(predictor.get("noise_threshold2", defaults.noise_threshold2)),
            upsample_convolved=bool(predictor.get("use_cif1_cnn", True)),
        ),
        decoder=ParaformerDecoderConfig(
            vocabulary=vocabulary,
            width=width,
            heads=_size(decoder, "decoder_conf", "attention_heads"),
            ffn_width=_size(decoder, "decoder_conf", "linear_units"),
            layers=attention_layers,
            memory_layers=max(decoder_layers - attention_layers, 0),
            kernel=decoder_kernel,
            # No value means "causal"; 0 means centred.
            shift=(decoder_kernel - 1) // 2 if shift is None else int(shift),
            dropout=float(decoder.get("dropout_rate", 0.1)),
            attention_dropout=float(decoder.get("src_attention_dropout_rate", 0.0)),
        ),
        ctc="ctc.ctc_lo.weight" in state,
        predictor_bias=int(model.get("predictor_bias", 0)),
        end_id=int(model.get("eos", 2)),
        blank_id=int(model.get("blank_id", 0)),
    )


def _files(folder: Path) -> dict[str, Path]:
    """Where each file lies: as configuration.json says, else under the usual names."""
    metas = _file_path_metas(folder)
    tokenizer, frontend = metas.get("tokenizer_conf", {}), metas.get("frontend_conf", {})
    named = {
        "weights": metas.get("init_param"),
        "config": metas.get("config"),
        "tokens": tokenizer.get("token_list"),
        "seg_dict": tokenizer.get("seg_dict_file") or tokenizer.get("seg_dict"),
        "cmvn": frontend.get("cmvn_file"),
    }
    usual = {
        "weights": ("model.pt", "model.pb"),
        "config": ("config.yaml",),
        "tokens": ("tokens.json", "tokens.txt"),
        "seg_dict": ("seg_dict",),
        "cmvn": ("am.mvn",),
    }
    files: dict[str, Path] = {}
    for role, name in named.items():
        candidates = (str(name),) if name else usual[role]
        found = [confined(folder, c) for c in candidates if confined(folder, c).is_file()]
        if found:
            files[role] = found[0]
        elif name or role in ("weights", "config", "tokens"):
            raise CheckpointError(
                f"{folder} has no {' or '.join(candidates)}",
                why="configuration.json names it" if name else "",
                fix="get the whole folder of the model again",
            )
    return files


def confined(folder: Path, name: str) -> Path:
    """`folder / name`, if `name` cannot lead out of the folder.

    Raises:
        CheckpointError: an absolute path, or one with `..`.
    """
    kinds = (PurePosixPath(name), PureWindowsPath(name))
    if any(p.is_absolute() or p.drive or p.root or ".." in p.parts for p in kinds):
        raise CheckpointError(
            f"{folder / 'configuration.json'} names a file outside its folder: {name}",
            fix="a model's files must lie in the model's folder",
        )
    return folder / name


def _file_path_metas(folder: Path) -> dict[str, Any]:
    path = folder / "configuration.json"
    if not path.is_file():
        return {}
    try:
        metas = json.loads(path.read_text(encoding="utf-8")).get("file_path_metas") or {}
    except (OSError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path} is damaged", why=str(error)) from error
    parts = [metas] if not isinstance(metas, dict) else [metas.get(k, {}) for k in METAS]
    if not all(isinstance(part, dict) for part in parts):
        raise CheckpointError(f"{path}: file_path_metas or a part of it is not a mapping")
    return metas


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise CheckpointError(f"{path} is damaged", why=str(error)) from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{path} is not a mapping of settings")
    return config


def _read_tokens(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8")
        tokens = json.loads(text) if path.suffix == ".json" else text.splitlines()
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged", why=str(error)) from error
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        raise CheckpointError(f"{path} is not a list of tokens")
    return tokens


def _read_state(path: Path) -> tuple[dict[str, Tensor], list[str]]:
    """The flat state dict without prefixes and hotword keys, and notes about the latter."""
    content = load_pickle(path)
    for name in NESTED_UNDER:
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            content = content[name]
            break
    if not isinstance(content, dict) or not content:
        raise CheckpointError(f"{path} holds no state dict")
    state: dict[str, Tensor] = {}
    skipped = 0
    for key, value in content.items():
        key = str(key).removeprefix("module.")
        if key.startswith(HOTWORD_KEYS):
            skipped += 1
        elif isinstance(value, Tensor):
            state[key] = value.float()
        else:
            raise CheckpointError(f"{path}: {key} is not a tensor but {type(value).__name__}")
    if not skipped:
        return state, []
    return state, [f"{skipped} tensors of the hotword network skipped: hotwords are not supported"]


def _check_vocabulary(state: Mapping[str, Tensor], vocabulary: int) -> None:
    output = state.get("decoder.output_layer.weight")
    if output is not None and output.shape[0] != vocabulary:
        raise CheckpointError(
            f"the token list has {vocabulary} tokens, decoder.output_layer.weight has "
            f"{output.shape[0]} rows",
            fix="use the token list that belongs to the weights",
        )


def _front_end(config: Mapping[str, Any]) -> FrontEndConfig:
    conf, defaults = _section(config, "frontend_conf"), FrontEndConfig()
    return FrontEndConfig(
        sample_rate=int(conf.get("fs", defaults.sample_rate)),
        n_mels=int(conf.get("n_mels", defaults.n_mels)),
        frame_length=float(conf.get("frame_length", defaults.frame_length)),
        frame_shift=float(conf.get("frame_shift", defaults.frame_shift)),
        window=str(conf.get("window", defaults.window)),
        # The published configurations ask for random noise even at inference.
        dither=0.0,
        lfr_m=int(conf.get("lfr_m", 1)),
        lfr_n=int(conf.get("lfr_n", 1)),
        snip_edges=bool(conf.get("snip_edges", True)),
    )


def _loss_config(config: Mapping[str, Any]) -> ParaformerLossConfig:
    conf = _section(config, "model_conf")
    return ParaformerLossConfig(
        sampling_ratio=float(conf.get("sampling_ratio", 0.75)),
        label_smoothing=float(conf.get("lsm_weight", 0.0)),
        predictor_weight=float(conf.get("predictor_weight", 1.0)),
        ctc_weight=float(conf.get("ctc_weight", 0.0)),
        length_normalised=bool(conf.get("length_normalized_loss", False)),
    )


def _section(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = config.get(name) or {}
    if not isinstance(section, Mapping):
        raise CheckpointError(f"config.yaml: {name} is not a mapping")
    return section


def _size(section: Mapping[str, Any], where: str, name: str) -> int:
    value = section.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise CheckpointError(f"config.yaml: {where}.{name} must be a size, got {value!r}")
    return value
