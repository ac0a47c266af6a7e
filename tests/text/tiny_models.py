"""Tiny random language models in the published folder layout, with a tokenizer of characters."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor

CHARACTERS = "\n" + string.ascii_letters + string.digits + " .,!?'"
UNKNOWN, END = 0, 1
SPECIAL = {"<unk>": UNKNOWN, "<end>": END}
MASK = len(SPECIAL) + len(CHARACTERS)

CONFIG: dict[str, Any] = {
    "model_type": "qwen3",
    "vocab_size": MASK + 1,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "hidden_act": "silu",
    "rope_theta": 1e4,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "max_position_embeddings": 96,
    "eos_token_id": END,
}
SDAR: dict[str, Any] = {"model_type": "sdar", "mask_token_id": MASK, "block_size": 4}


def make_model(
    folder: Path,
    *,
    config: dict[str, Any] | None = None,
    seed: int = 0,
    shards: int = 1,
    tokenizer: bool = True,
    end_bias: float = 0.0,
) -> Path:
    """Write a folder that `seqgen run --plugin text --model FOLDER` runs.

    Args:
        config: fields to change; None removes one.
        shards: files of weights.
        end_bias: how much more often the end token comes, as a multiple of its row of the head.
    """
    fields = {k: v for k, v in {**CONFIG, **(config or {})}.items() if v is not None}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(fields))
    weights = random_weights({**CONFIG, **(config or {})}, seed)
    if end_bias:
        weights["lm_head.weight"][END] *= end_bias
    write_weights(folder, weights, shards)
    if tokenizer:
        make_tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def make_tokenizer() -> Tokenizer:
    """Characters as tokens."""
    vocabulary = {**SPECIAL, **{c: len(SPECIAL) + i for i, c in enumerate(CHARACTERS)}}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens(list(SPECIAL))
    return tokenizer


def byte_tokenizer() -> Tokenizer:
    """Bytes as tokens: most characters outside ASCII take several."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def write_weights(folder: Path, weights: dict[str, Tensor], shards: int = 1) -> None:
    """One file, or shards with their index."""
    if shards == 1:
        save_file(weights, folder / "model.safetensors")
        return
    where = {
        key: f"model-{i % shards + 1:05d}-of-{shards:05d}.safetensors"
        for i, key in enumerate(weights)
    }
    for name in set(where.values()):
        save_file({k: v for k, v in weights.items() if where[k] == name}, folder / name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))


def random_weights(config: dict[str, Any], seed: int = 0) -> dict[str, Tensor]:
    """Weights under the published keys; logits far enough apart that rounding flips no argmax."""
    D, F, d = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    H, G = config["num_attention_heads"], config["num_key_value_heads"]
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (config["vocab_size"], D),
        "model.norm.weight": (D,),
    }
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (config["vocab_size"], D)
    for i in range(config["num_hidden_layers"]):
        layer = {
            "self_attn.q_proj": (H * d, D),
            "self_attn.k_proj": (G * d, D),
            "self_attn.v_proj": (G * d, D),
            "self_attn.o_proj": (D, H * d),
            "self_attn.q_norm": (d,),
            "self_attn.k_norm": (d,),
            "mlp.gate_proj": (F, D),
            "mlp.up_proj": (F, D),
            "mlp.down_proj": (D, F),
            "input_layernorm": (D,),
            "post_attention_layernorm": (D,),
        }
        shapes |= {f"model.layers.{i}.{name}.weight": shape for name, shape in layer.items()}
    generator = torch.Generator().manual_seed(seed)
    return {
        key: torch.randn(shape, generator=generator) * (2 * shape[-1] ** -0.5)
        if len(shape) == 2
        else torch.rand(shape, generator=generator) + 0.5
        for key, shape in shapes.items()
    }
