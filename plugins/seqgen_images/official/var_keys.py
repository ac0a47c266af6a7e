"""VAR's checkpoints: their layout, sizes read from the tensors, weights put in their places.

    vae_ch160v4096z32.pth     a flat state dict: the image tokenizer
    var_d16.pth               a flat state dict: the transformer
    ar-ckpt-*.pth             of a training: both, under trainer.vae_local and trainer.var_wo_ddp

Every key must be known and every tensor must fit; errors name the published keys.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from seqgen import checkpoints
from seqgen.adaln_transformer import AdaLNTransformerConfig
from seqgen.errors import CheckpointError
from seqgen_images.official.var_vqvae import VQVAEConfig

SCALES = (
    (1, 2, 3, 4, 5, 6, 8, 10, 13, 16),
    (1, 2, 3, 4, 6, 9, 13, 18, 24, 32),
    (1, 2, 3, 4, 5, 7, 9, 12, 16, 21, 27, 36, 48, 64),
)
"""The published schedules, at 256, 512 and 1024 pixels."""

HEAD_WIDTH = 64
"""Of all published models; only l2-normalised attention shows it in its tensors."""

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class VarConfig:
    """Sizes of a VAR transformer.

    Attributes:
        transformer: of the backbone.
        classes: it can be asked for, without the null class.
        vocabulary: codes V.
        scales: side of each scale's grid.
        latent: channels of the tokenizer's latent.
    """

    transformer: AdaLNTransformerConfig
    classes: int
    vocabulary: int
    scales: tuple[int, ...]
    latent: int


@dataclass(frozen=True)
class Place:
    """Where a published tensor lies in our state dict: a name, and a part of its first axis."""

    name: str
    part: slice = field(default_factory=lambda: slice(None))


def read_files(path: Path) -> dict[str, State]:
    """The state dicts of a file by kind: `vae`, `var` or both. Nothing in it is executed.

    Raises:
        CheckpointError: missing, damaged, refused, or neither of the two.
    """
    content = checkpoints.load_pickle(path)
    if isinstance(content, Mapping) and isinstance(content.get("trainer"), Mapping):
        trainer = content["trainer"]
        names = {"vae": "vae_local", "var": "var_wo_ddp"}
        nested = {kind: trainer.get(name) for kind, name in names.items()}
        if lacking := [names[kind] for kind, state in nested.items() if state is None]:
            raise _wrong(path, f"its `trainer` has no {' and no '.join(lacking)}")
    else:
        kind = "vae" if _looks_like(content, "quantize.embedding.weight") else "var"
        nested = {kind: content}
    for kind, state in nested.items():
        if not isinstance(state, Mapping) or not state:
            raise _wrong(path, f"it holds a {type(state).__name__}, not a state dict")
        for name, value in state.items():
            if not isinstance(value, Tensor):
                raise _wrong(path, f"{name} is a {type(value).__name__}, not a tensor")
        if kind == "var" and not _looks_like(state, "word_embed.weight"):
            raise _wrong(path, "it has neither quantize.embedding.weight nor word_embed.weight")
    return {kind: {str(k): v for k, v in state.items()} for kind, state in nested.items()}


def var_config(state: State, *, source: object, scales: tuple[int, ...] | None) -> VarConfig:
    """Sizes of a transformer from its tensors.

    Args:
        scales: None: as `lvl_1L` says, or the published schedule with that many slots.
    """
    vocabulary, width = _shape(state, "head.weight", 2, source)
    latent = _shape(state, "word_embed.weight", 2, source)[1]
    classes = _shape(state, "class_emb.weight", 2, source)[0] - 1
    hidden = _shape(state, "blocks.0.ffn.fc1.weight", 2, source)[0]
    l2 = "blocks.0.attn.scale_mul_1H11" in state
    heads = width // HEAD_WIDTH
    if l2:
        heads = _shape(state, "blocks.0.attn.scale_mul_1H11", 4, source)[1]
    if heads < 1 or width % heads:
        raise _wrong(source, f"{heads} heads do not divide its width {width}")
    transformer = AdaLNTransformerConfig(
        width=width,
        layers=_count(state, r"blocks\.(\d+)\."),
        heads=heads,
        hidden=hidden,
        qk="l2" if l2 else "dot",
        learned_scale=l2,
        scale=0.0 if l2 else 0.25 / math.sqrt(width // heads),
        bias="qv",
        shared="shared_ada_lin.1.weight" in state,
    )
    found = scales or _scales(state, source)
    return VarConfig(transformer, classes, vocabulary, found, latent)


def vae_config(state: State, *, source: object, scales: tuple[int, ...]) -> VQVAEConfig:
    """Sizes of a tokenizer from its tensors; the scales are the transformer's."""
    codes, latent = _shape(state, "quantize.embedding.weight", 2, source)
    levels = range(_count(state, r"encoder\.down\.(\d+)\."))
    widths = [
        _shape(state, f"encoder.down.{level}.block.0.conv1.weight", 4, source)[0]
        for level in levels
    ]
    first = _shape(state, "encoder.conv_in.weight", 4, source)[0]
    if not widths or any(width % 32 for width in (first, *widths)):
        raise _wrong(source, f"its resolutions have {widths} channels, not multiples of 32")
    return VQVAEConfig(
        scales=scales,
        codes=codes,
        latent=latent,
        first=first,
        widths=tuple(widths),
        blocks=_count(state, r"encoder\.down\.0\.block\.(\d+)\."),
        attends=f"encoder.down.{len(widths) - 1}.attn.0.norm.weight" in state,
        kernel=_shape(state, "quant_conv.weight", 4, source)[2],
        phis=_count(state, r"quantize\.quant_resi\.qresi_ls\.(\d+)\."),
    )


def var_places(config: VarConfig) -> dict[str, Place]:
    """Published key -> place in `VarModel`'s state dict, without the tokenizer's."""
    inputs, backbone = "sequence.inputs", "sequence.backbone"
    width = config.transformer.width
    places = {
        "class_emb.weight": Place("classes.weight"),
        "pos_start": Place(f"{inputs}.start_ND"),
        "pos_1LC": Place(f"{inputs}.positions.weight"),
        "lvl_embed.weight": Place(f"{inputs}.levels.weight"),
        **_layer("word_embed", f"{inputs}.projection"),
        **_layer("head_nm.ada_lin.1", f"{backbone}.final_modulation"),
        **_layer("head", "sequence.head"),
    }
    if config.transformer.shared:
        places |= _layer("shared_ada_lin.1", f"{backbone}.modulation")
    for index in range(config.transformer.layers):
        theirs, ours = f"blocks.{index}", f"{backbone}.blocks.{index}"
        qkv = f"{ours}.attention.qkv"
        places |= {
            f"{theirs}.attn.mat_qkv.weight": Place(f"{qkv}.weight"),
            f"{theirs}.attn.q_bias": Place(f"{qkv}.bias", slice(0, width)),
            f"{theirs}.attn.v_bias": Place(f"{qkv}.bias", slice(2 * width, 3 * width)),
            **_layer(f"{theirs}.attn.proj", f"{ours}.attention.out"),
            **_layer(f"{theirs}.ffn.fc1", f"{ours}.feed_in"),
            **_layer(f"{theirs}.ffn.fc2", f"{ours}.feed_out"),
        }
        if config.transformer.learned_scale:
            places[f"{theirs}.attn.scale_mul_1H11"] = Place(f"{ours}.attention.log_scale_H")
        if config.transformer.shared:
            places[f"{theirs}.ada_gss"] = Place(f"{ours}.own_modulation_6D")
        else:
            places |= _layer(f"{theirs}.ada_lin.1", f"{ours}.modulation")
    return places


def var_ignored(key: str) -> bool:
    """Buffers of the published transformer: levels, mask, a bias that is always 0."""
    return key in ("lvl_1L", "attn_bias_for_masking") or key.endswith(".attn.zero_k_bias")


def vae_places(tokenizer: nn.Module, config: VQVAEConfig) -> dict[str, Place]:
    """Published key -> place in `VarTokenizer`'s state dict."""
    places = {
        name: Place(name) for name in tokenizer.state_dict() if not name.startswith("quantizer.")
    }
    places["quantize.embedding.weight"] = Place("quantizer.codebook_VC")
    for index in range(config.phis):
        places |= _layer(f"quantize.quant_resi.qresi_ls.{index}", f"quantizer.phi.{index}")
    return places


def vae_ignored(key: str) -> bool:
    """How often each code was used, which only training asks for."""
    return key == "quantize.ema_vocab_hit_SV"


@torch.no_grad()
def fill(
    module: nn.Module,
    state: State,
    places: Mapping[str, Place],
    *,
    ignored: Iterable[str] = (),
    source: object,
) -> None:
    """Copy published tensors to their places, as float32. Everything must fit, or nothing is done.

    Raises:
        CheckpointError: names the missing and unexpected keys and the mismatched shapes.
    """
    own, skip = module.state_dict(), set(ignored)
    targets = {key: own[place.name][place.part] for key, place in places.items()}
    checkpoints.require_shapes(
        {key: value for key, value in state.items() if key not in skip},
        {key: _shaped_as(target, state.get(key)) for key, target in targets.items()},
        source=str(source),
        fix="use a published checkpoint of VAR, and the two files that belong together",
    )
    for key, target in targets.items():
        target.copy_(state[key].view(target.shape))


def _layer(theirs: str, ours: str) -> dict[str, Place]:
    return {f"{theirs}.{name}": Place(f"{ours}.{name}") for name in ("weight", "bias")}


def _scales(state: State, source: object) -> tuple[int, ...]:
    """The schedule: `lvl_1L` holds the scale of every slot."""
    slots = _shape(state, "pos_1LC", 3, source)[1]
    if "lvl_1L" in state:
        sizes = torch.bincount(state["lvl_1L"].flatten().long()).tolist()
        found = tuple(math.isqrt(size) for size in sizes)
        if sum(side * side for side in found) != slots:
            raise _wrong(source, f"lvl_1L and pos_1LC disagree: {sizes} and {slots} slots")
        return found
    known = {sum(side * side for side in scales): scales for scales in SCALES}
    if slots not in known:
        raise CheckpointError(
            f"{source} does not say the sides of its scales",
            why=f"it has no lvl_1L, and no published schedule has {slots} slots",
            fix="give them: load(path, scales=(1, 2, 3, 4))",
        )
    return known[slots]


def _shape(state: State, key: str, axes: int, source: object) -> tuple[int, ...]:
    if key not in state:
        raise _wrong(source, f"missing: {key}")
    shape = tuple(state[key].shape)
    if len(shape) != axes:
        raise _wrong(source, f"{key} is {shape}, expected {axes} axes")
    return shape


def _count(state: State, pattern: str) -> int:
    """How many numbers the keys have at the group of the pattern."""
    return len({match[1] for key in state if (match := re.match(pattern, key))})


def _shaped_as(target: Tensor, given: Tensor | None) -> tuple[int, ...]:
    """The shape of the target, with the axes of length 1 that a published tensor may have."""
    if given is not None and given.squeeze().shape == target.squeeze().shape:
        return tuple(given.shape)
    return tuple(target.shape)


def _looks_like(content: object, key: str) -> bool:
    return isinstance(content, Mapping) and key in content


def _wrong(source: object, why: str) -> CheckpointError:
    return CheckpointError(
        f"{source} is not a checkpoint of VAR",
        why=why,
        fix="use var_d16.pth (or another var_d*.pth) with vae_ch160v4096z32.pth",
    )
