"""A published GPT and its image tokenizer in one safetensors file of ours.

The header says what the published files leave to their names: sizes, heads, the grid.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from seqgen import checkpoints
from seqgen.errors import CheckpointError
from seqgen_images.official.llamagen_layers import GPTConfig
from seqgen_images.official.llamagen_vq import LlamaGenVQ, VQConfig

if TYPE_CHECKING:
    from seqgen_images.official.llamagen import LlamaGen

KIND = "seqgen-llamagen"

AnyGPT = TypeVar("AnyGPT", bound="LlamaGen")


def write(model: LlamaGen, out: str | Path) -> Path:
    """Write a model that has its tokenizer."""
    tokenizer = model.tokenizer
    if not isinstance(tokenizer, LlamaGenVQ):
        raise CheckpointError("a model without its image tokenizer cannot be converted")
    config = {
        "kind": KIND,
        "engine": model.engine,
        "gpt": asdict(model.config),
        "tokenizer": asdict(tokenizer.config),
        "size": model.size[0],
    }
    return checkpoints.save(out, model.state_dict(), config)


def read(
    path: Path, build: Callable[[GPTConfig, LlamaGenVQ], AnyGPT], engine: str
) -> AnyGPT | None:
    """The model that `write` wrote; None if the file is of another kind.

    Args:
        build: makes the model on `meta`.
        engine: of the model wanted.

    Raises:
        CheckpointError: missing, damaged, of the other model, or not fitting.
    """
    if path.suffix != ".safetensors":
        return None
    state, header = checkpoints.load(path)
    if header.get("kind") != KIND:
        return None
    if header.get("engine") != engine:
        raise CheckpointError(f"{path} is of the engine {header.get('engine')!r}, not {engine!r}")
    with checkpoints.building(path, fix="convert the published files again"):
        config, codes = GPTConfig(**header["gpt"]), _tokenizer_config(header["tokenizer"])
        with torch.device("meta"):
            model = build(config, LlamaGenVQ(codes, int(header["size"])))
    model.to_empty(device="cpu")
    checkpoints.load_strict(model, state, source=path)
    model.materialise()
    return model.eval()


def _tokenizer_config(data: dict[str, Any]) -> VQConfig:
    return VQConfig(**{**data, "widths": tuple(data["widths"])})
