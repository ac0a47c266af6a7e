"""Qwen3 and SDAR: reads a Hugging Face folder into a `SequenceModel`.

    model, config, tokenizer = load_qwen3("Qwen3-0.6B", dtype=torch.bfloat16)
    canvas = Canvas.tokens([tokenizer.encode("Once").ids], new=64)
    Autoregressive(stop_ids=config.stop_ids).generate(model, canvas)

SDAR (arXiv 2510.06303) is Qwen3 (arXiv 2505.09388) with another mask: the same weights layout, and
a config that names a mask token and a block length. It gets masked inputs: the row of a slot reads
out that slot, and `BlockDiffusion` and `Autoregressive` (blocks of one) both run it. Qwen3 has no
start token: the row that is fed token s reads out slot s + 1, so the first token must be given.
Nothing keeps a decoder from choosing the mask token of SDAR: `Ban((config.mask_id,))` does.

Shapes: V vocabulary, D width, F feed-forward width, H query heads, G key/value heads, d head width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from seqgen.attention import Backend
from seqgen.errors import CheckpointError, InputError, did_you_mean
from seqgen.heads import CategoricalHead
from seqgen.inputs import Inputs, MaskedInputs, ShiftedInputs
from seqgen.model import SequenceModel
from seqgen.models.folder import FLOATS, Fields, Unfilled, WeightFiles, read_tokenizer
from seqgen.transformer import Transformer, TransformerConfig, rotary_frequencies

if TYPE_CHECKING:
    from tokenizers import Tokenizer

EMBEDDING = "model.embed_tokens.weight"
HEAD = "lm_head.weight"

READ = {
    *("model_type", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers"),
    *("num_attention_heads", "num_key_value_heads", "head_dim", "rope_theta", "rope_parameters"),
    *("rope_scaling", "rms_norm_eps", "tie_word_embeddings", "max_position_embeddings"),
    *("eos_token_id", "mask_token_id", "block_size", "hidden_act", "attention_bias"),
    *("use_sliding_window", "layer_types"),
}
"""Fields of config.json that are read, or must have the one value that is supported."""

ROPE = {"rope_type", "rope_theta", "partial_rotary_factor"}
"""The same of its rope_parameters."""

MOST_LAYERS = 10_000
"""More is a damaged file: refused before a list of their weights is made."""

WITHOUT_EFFECT = {
    *("_name_or_path", "architectures", "auto_map", "attention_dropout", "attn_implementation"),
    *("bos_token_id", "debug", "dtype", "ep_size", "fuse_cross_entropy", "initializer_range"),
    *("max_window_layers", "micro_forward", "pad_token_id", "skip_checkpoint", "sliding_window"),
    *("quantization_config", "torch_dtype", "transformers_version", "use_cache", "use_deepep"),
}
"""Fields of published configs that say nothing about what a decode computes."""


@dataclass(frozen=True, kw_only=True)
class Qwen3Config:
    """What `config.json` says that matters for decoding.

    Attributes:
        vocabulary: V, the mask token included.
        width: D.
        hidden: F.
        layers: number of blocks.
        heads: query heads H.
        kv_heads: key/value heads G.
        head_width: d, independent of D / H.
        rope_theta: base of the rotary frequencies.
        norm_eps: epsilon of the RMS norms.
        tied: whether the head shares the embedding's weights.
        max_positions: slots the model was made for.
        stop_ids: the end-of-text ids (of generation_config.json if there is one).
        mask_id: SDAR's mask token; None for Qwen3.
        block_length: SDAR's block length; 1 for Qwen3.
    """

    vocabulary: int
    width: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_width: int
    rope_theta: float
    norm_eps: float
    tied: bool
    max_positions: int
    stop_ids: tuple[int, ...] = ()
    mask_id: int | None = None
    block_length: int = 1

    def check_length(self, slots: int) -> None:
        """Raise InputError if a prompt and the tokens asked for need more than `max_positions`."""
        if slots > self.max_positions:
            raise InputError(
                f"{slots} tokens (prompt and new ones) are too many for this model",
                why=f"it was made for {self.max_positions} positions",
                fix="shorten the prompt or ask for fewer tokens",
            )


def load_qwen3(
    folder: str | Path,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    backend: Backend = "auto",
) -> tuple[SequenceModel, Qwen3Config, Tokenizer | None]:
    """Read config.json, safetensors (one file or shards) and tokenizer.json, if there is one.

    Weights are converted one by one, so the peak is the model and its largest tensor.

    Args:
        dtype: floating type of the weights in memory, whatever the file holds.
        backend: attention backend (docs/attention.md).

    Raises:
        CheckpointError: names the file, field, key or shape that is missing, unknown or wrong.
        PluginError: there is a tokenizer.json, but the package `tokenizers` is not installed.
    """
    folder = Path(folder)
    if not dtype.is_floating_point:
        raise CheckpointError(f"{dtype} cannot hold weights", fix="use float32 or bfloat16")
    config = read_config(folder)
    layout = weights_layout(config)
    with WeightFiles(folder) as files:
        files.check(
            dict(part for parts in layout.values() for part in parts),
            optional=(HEAD,) if config.tied else (),
        )
        if config.tied and HEAD in files and not files.equal(HEAD, EMBEDDING):
            raise CheckpointError(
                f"{folder} holds a {HEAD} that differs from the embedding",
                why="config.json says tie_word_embeddings: true",
                fix="set it to false",
            )
        state = {
            name: files.stacked([key for key, _ in parts], device=device, dtype=dtype)
            for name, parts in layout.items()
        }
    return _assemble(config, state, device, backend), config, read_tokenizer(folder)


def read_config(folder: str | Path) -> Qwen3Config:
    """Read and check `config.json` (of transformers 4 or 5) and `generation_config.json`."""
    path = Path(folder) / "config.json"
    fields = Fields.read(path)
    kind = fields.get("model_type", str)
    if kind not in ("qwen3", "sdar"):
        raise CheckpointError(
            f"{path} describes a {kind!r} model, not qwen3 or sdar",
            why="other architectures compute something else with their weights",
            fix="a Qwen3 or SDAR model",
        )
    if fields.values.get("quantization_config"):
        raise CheckpointError(
            f"{path} describes quantised weights (quantization_config)",
            why=f"only {', '.join(sorted(FLOATS))} weights are read",
            fix="get the unquantised model; --dtype bfloat16 halves the memory of float32",
        )
    for name in fields.values:
        if name not in READ and name not in WITHOUT_EFFECT:
            raise CheckpointError(
                f"{path} has an unknown field {name!r}",
                why=f"it may change what the model computes; {did_you_mean(name, READ)}",
                fix="remove it if it does not",
            )
    fields.require("hidden_act", "silu")
    fields.require("attention_bias", False)
    fields.require("use_sliding_window", False)
    fields.require("rope_scaling", None)
    layers = fields.size("num_hidden_layers", most=MOST_LAYERS)
    fields.require("layer_types", ["full_attention"] * layers)
    heads, kv_heads = fields.size("num_attention_heads"), fields.size("num_key_value_heads")
    if heads % kv_heads:
        raise fields.error(f"{path}: {heads} heads cannot share {kv_heads} key/value heads")
    vocabulary = fields.size("vocab_size")
    mask_id = fields.get("mask_token_id", int) if kind == "sdar" else None
    if mask_id is not None and not 0 <= mask_id < vocabulary:
        raise fields.error(
            f"{path}: mask_token_id {mask_id} is not below {vocabulary}",
            why="it must be a row of the embedding table, whose size is vocab_size",
        )
    head_width = fields.size("head_dim", 128)
    if head_width % 2:
        raise fields.error(
            f"{path}: head_dim is {head_width}", why="rotary positions turn pairs of numbers"
        )
    return Qwen3Config(
        vocabulary=vocabulary,
        width=fields.size("hidden_size"),
        hidden=fields.size("intermediate_size"),
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_width=head_width,
        rope_theta=_rope_theta(fields),
        norm_eps=fields.positive("rms_norm_eps"),
        tied=fields.get("tie_word_embeddings", bool, False),
        max_positions=fields.size("max_position_embeddings"),
        stop_ids=_stop_ids(fields, vocabulary),
        mask_id=mask_id,
        block_length=fields.size("block_size", 4) if kind == "sdar" else 1,
    )


def _rope_theta(fields: Fields) -> float:
    rope = fields.object("rope_parameters")  # transformers 5
    if rope is None or "rope_theta" not in rope.values:
        theta = fields.positive("rope_theta")
    else:
        theta = rope.positive("rope_theta")
        if fields.values.get("rope_theta") not in (None, rope.values["rope_theta"]):
            raise fields.error(
                f"{fields.path}: rope_theta and that of rope_parameters differ",
                why="transformers 4 reads the one, transformers 5 the other",
            )
    if rope is not None:
        rope.require("rope_type", "default")
        rope.require("partial_rotary_factor", 1.0)
        if unknown := sorted(set(rope.values) - ROPE):
            raise fields.error(
                f"{fields.path}: rope_parameters has an unknown field {unknown[0]!r}",
                why="it may change what the model computes",
            )
    return theta


def _stop_ids(config: Fields, vocabulary: int) -> tuple[int, ...]:
    path = config.path.with_name("generation_config.json")
    generation = Fields.read(path) if path.is_file() else config
    fields = config if generation.values.get("eos_token_id") is None else generation
    ids = fields.values.get("eos_token_id")
    ids = ids if isinstance(ids, list) else [] if ids is None else [ids]
    if not all(type(i) is int for i in ids):
        raise fields.error(f"{fields.path}: eos_token_id must be ids, not {ids!r}")
    if outside := [i for i in ids if not 0 <= i < vocabulary]:
        raise fields.error(
            f"{fields.path}: eos_token_id {outside[0]} is not below {vocabulary}",
            why="the model can never say it, so no text would end",
        )
    return tuple(ids)


Layout = Mapping[str, tuple[tuple[str, tuple[int, ...]], ...]]
"""Our key -> the published keys that are stacked to it, with their shapes."""


def weights_layout(c: Qwen3Config) -> Layout:
    """Where each of our weights lies in a published file."""
    D, F, d = c.width, c.hidden, c.head_width
    layout: dict[str, tuple[tuple[str, tuple[int, ...]], ...]] = {
        "inputs.embedding.weight": ((EMBEDDING, (c.vocabulary, D)),),
        "backbone.norm.weight": (("model.norm.weight", (D,)),),
    }
    if not c.tied:
        layout["head.weight"] = ((HEAD, (c.vocabulary, D)),)
    for i in range(c.layers):
        own, theirs = f"backbone.blocks.{i}", f"model.layers.{i}"
        attention, mlp = f"{theirs}.self_attn", f"{theirs}.mlp"
        layout |= {
            f"{own}.attention_norm.weight": ((f"{theirs}.input_layernorm.weight", (D,)),),
            f"{own}.attention.qkv.weight": (
                (f"{attention}.q_proj.weight", (c.heads * d, D)),
                (f"{attention}.k_proj.weight", (c.kv_heads * d, D)),
                (f"{attention}.v_proj.weight", (c.kv_heads * d, D)),
            ),
            f"{own}.attention.q_norm.weight": ((f"{attention}.q_norm.weight", (d,)),),
            f"{own}.attention.k_norm.weight": ((f"{attention}.k_norm.weight", (d,)),),
            f"{own}.attention.out.weight": ((f"{attention}.o_proj.weight", (D, c.heads * d)),),
            f"{own}.feed_norm.weight": ((f"{theirs}.post_attention_layernorm.weight", (D,)),),
            f"{own}.feed_in.weight": (
                (f"{mlp}.gate_proj.weight", (F, D)),
                (f"{mlp}.up_proj.weight", (F, D)),
            ),
            f"{own}.feed_out.weight": ((f"{mlp}.down_proj.weight", (D, F)),),
        }
    return layout


def transformer_sizes(c: Qwen3Config) -> TransformerConfig:
    """The backbone's sizes."""
    return TransformerConfig(
        width=c.width,
        layers=c.layers,
        heads=c.heads,
        kv_heads=c.kv_heads,
        head_width=c.head_width,
        hidden=c.hidden,
        rope_theta=c.rope_theta,
        norm_eps=c.norm_eps,
    )


def _assemble(
    c: Qwen3Config, state: dict[str, Tensor], device: torch.device | str, backend: Backend
) -> SequenceModel:
    sizes = replace(transformer_sizes(c), backend=backend)
    with torch.device("meta"), Unfilled():  # for weights that are replaced
        backbone = Transformer(sizes)
        embedding = nn.Embedding(c.vocabulary, c.width)
        head = CategoricalHead(c.width, c.vocabulary)
    inputs: Inputs = (
        ShiftedInputs(embedding, start_id=None)
        if c.mask_id is None
        else MaskedInputs(embedding, mask_id=c.mask_id)
    )
    model = SequenceModel(inputs=inputs, backbone=backbone, head=head)
    if c.tied:
        state = {**state, "head.weight": state["inputs.embedding.weight"]}
    model.load_state_dict(state, strict=True, assign=True)
    backbone.frequencies = rotary_frequencies(sizes).to(device)
    if c.tied:
        model.head = CategoricalHead(c.width, c.vocabulary, tied=embedding)
    return model.eval()
