"""New Qwen3 and SDAR models of any size, and the folders that hold them.

    config = Qwen3Config(vocabulary=64, width=128, ...)
    write_qwen3(folder, new_qwen3(config), config, tokenizer=tokenizer)

The folder has the published layout, so `load_qwen3`, transformers and SDAR's own code read it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from seqgen import checkpoints
from seqgen.heads import CategoricalHead
from seqgen.inputs import Inputs, MaskedInputs, ShiftedInputs
from seqgen.model import SequenceModel
from seqgen.models.qwen3 import Qwen3Config, transformer_sizes, weights_layout
from seqgen.transformer import Transformer

if TYPE_CHECKING:
    from tokenizers import Tokenizer

CONFIG, GENERATION, TOKENIZER = "config.json", "generation_config.json", "tokenizer.json"


def new_qwen3(config: Qwen3Config) -> SequenceModel:
    """A model with random weights; masked inputs if the config names a mask."""
    embedding = nn.Embedding(config.vocabulary, config.width)
    nn.init.normal_(embedding.weight, std=config.width**-0.5)
    inputs: Inputs = (
        ShiftedInputs(embedding, start_id=None)
        if config.mask_id is None
        else MaskedInputs(embedding, mask_id=config.mask_id)
    )
    tied = embedding if config.tied else None
    head = CategoricalHead(config.width, config.vocabulary, tied=tied)
    return SequenceModel(inputs=inputs, backbone=Transformer(transformer_sizes(config)), head=head)


def write_qwen3(
    folder: str | Path,
    model: SequenceModel,
    config: Qwen3Config,
    *,
    tokenizer: Tokenizer | None = None,
    dtype: torch.dtype = torch.float16,
    notes: Mapping[str, Any] | None = None,
) -> Path:
    """Write config.json, model.safetensors, generation_config.json and tokenizer.json.

    Args:
        dtype: floating type in the file.
        notes: how it was made, JSON-able; kept in the head of model.safetensors.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    own = model.state_dict()
    state: dict[str, Tensor] = {}
    for name, parts in weights_layout(config).items():
        sizes = [shape[0] for _, shape in parts]
        for (key, _), value in zip(parts, own[name].split(sizes), strict=True):
            state[key] = value.to(dtype)
    _write(folder / CONFIG, config_json(config, dtype))
    _write(folder / GENERATION, {"eos_token_id": list(config.stop_ids)})
    if tokenizer is not None:
        tokenizer.save(str(folder / TOKENIZER))
        # What transformers asks for beside tokenizer.json
        _write(
            folder / "tokenizer_config.json",
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "clean_up_tokenization_spaces": False,
                "model_max_length": config.max_positions,
            },
        )
    checkpoints.save(folder / checkpoints.FILE_NAME, state, dict(notes or {}))
    return folder


def config_json(config: Qwen3Config, dtype: torch.dtype) -> dict[str, Any]:
    """`config.json` in the words of transformers; of SDAR where there is a mask."""
    sdar = config.mask_id is not None
    fields: dict[str, Any] = {
        "architectures": ["SDARForCausalLM" if sdar else "Qwen3ForCausalLM"],
        "model_type": "sdar" if sdar else "qwen3",
        "vocab_size": config.vocabulary,
        "hidden_size": config.width,
        "intermediate_size": config.hidden,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_width,
        "rope_theta": config.rope_theta,
        "rms_norm_eps": config.norm_eps,
        "tie_word_embeddings": config.tied,
        "max_position_embeddings": config.max_positions,
        "eos_token_id": config.stop_ids[0] if config.stop_ids else None,
        "hidden_act": "silu",
        "attention_bias": False,
        "torch_dtype": str(dtype).removeprefix("torch."),
    }
    if sdar:
        fields |= {"mask_token_id": config.mask_id, "block_size": config.block_length}
    return fields


def _write(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
