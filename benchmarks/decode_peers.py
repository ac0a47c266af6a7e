"""The peers of `decode.py`: transformers' `generate` and SDAR's own loop, on the same folders.

SDAR is a repository, not a package: SDAR_SRC names a checkout of it. Its code asks for packages
that need CUDA (flash-attn, a fused loss); here functions of PyTorch that compute the same stand in
for those that decoding calls, at PyTorch's own speed.

Shapes: B rows, P prompt slots, S slots.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import types
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

HOW_TRANSFORMERS = "transformers is not installed here: bash tests/parity/install_transformers.sh"
HOW_SDAR = "SDAR_SRC must name a checkout of github.com/JetAstra/SDAR"
MODELING = Path("training", "model", "SDAR-4B-Chat")


def has_transformers() -> bool:
    return find_spec("transformers") is not None


def transformers_call(folder: Path, ids_BP: Tensor, new: int) -> Callable[[], Tensor]:
    """Greedy `generate` of exactly `new` tokens; the result is [B, S]."""
    from transformers import GenerationConfig, Qwen3ForCausalLM

    _quiet()
    model = Qwen3ForCausalLM.from_pretrained(
        folder, attn_implementation="sdpa", torch_dtype=torch.float32
    ).eval()
    settings = GenerationConfig(
        max_new_tokens=new, min_new_tokens=new, do_sample=False, pad_token_id=0
    )
    everything = torch.ones_like(ids_BP)

    @torch.inference_mode()
    def call() -> Tensor:
        made = model.generate(ids_BP, attention_mask=everything, generation_config=settings)
        assert isinstance(made, Tensor)
        return made

    return call


def sdar_source() -> Path | None:
    """The checkout of SDAR, if there is one and its packages are installed."""
    named = os.environ.get("SDAR_SRC")
    if named is None or not has_transformers() or find_spec("einops") is None:
        return None
    path = Path(named)
    if not (path / "generate.py").is_file() or not (path / MODELING).is_dir():
        raise SystemExit(f"SDAR_SRC={named} holds no generate.py or no {MODELING}")
    return path


def sdar_call(
    source: Path, folder: Path, ids_1P: Tensor, new: int, *, mask_id: int, block: int
) -> Callable[[], Tensor]:
    """SDAR's loop, a token a pass (static remasking, K steps), top-k 1; one row, as it has it."""
    _stand_ins()
    generate = _module("sdar_generate", source / "generate.py")
    _quiet()
    config_module, model_module = _sdar_modules(source / MODELING)
    config = config_module.SDARConfig.from_pretrained(folder)
    config._attn_implementation = "sdpa"
    config.fuse_cross_entropy = False
    model = model_module.SDARForCausalLM.from_pretrained(
        folder, config=config, torch_dtype=torch.float32, attn_implementation="sdpa"
    ).eval()

    def call() -> Tensor:
        made = generate.block_diffusion_generate(
            model,
            {"input_ids": ids_1P},
            mask_id,
            gen_length=new,
            block_length=block,
            denoising_steps=block,
            top_k=1,
            remasking_strategy="low_confidence_static",
        )
        assert isinstance(made, Tensor)
        return made

    return call


def _sdar_modules(folder: Path) -> tuple[Any, Any]:
    package = types.ModuleType("sdar_model")
    package.__path__ = [str(folder)]
    sys.modules["sdar_model"] = package
    loss = types.ModuleType("sdar_model.fused_linear_diffusion_cross_entropy")
    loss.FusedLinearDiffusionCrossEntropyLoss = None  # type: ignore[attr-defined]  # training only
    sys.modules[loss.__name__] = loss
    return (
        importlib.import_module("sdar_model.configuration_sdar"),
        importlib.import_module("sdar_model.modeling_sdar"),
    )


def _stand_ins() -> None:
    """What decoding calls of flash-attn, made of PyTorch's own functions."""

    def rms_norm_fn(x: Tensor, weight: Tensor, bias: None, eps: float) -> Tensor:
        return F.rms_norm(x, weight.shape, weight, eps)

    def flash_attn_func(q: Tensor, k: Tensor, v: Tensor, **_: object) -> Tensor:
        heads = [x.transpose(1, 2) for x in (q, k, v)]
        return F.scaled_dot_product_attention(*heads, enable_gqa=True).transpose(1, 2)

    def unavailable(*_: object, **__: object) -> None:
        raise NotImplementedError("a function of training, which is not benchmarked")

    _define("flash_attn", flash_attn_func=flash_attn_func, flash_attn_varlen_func=unavailable)
    _define("flash_attn.ops")
    _define("flash_attn.ops.triton")
    _define("flash_attn.ops.triton.layer_norm", rms_norm_fn=rms_norm_fn)
    padding = ("index_first_axis", "pad_input", "unpad_input")
    _define("flash_attn.bert_padding", **dict.fromkeys(padding, unavailable))


def _define(name: str, **functions: Callable[..., object]) -> None:
    module = types.ModuleType(name)
    module.__spec__ = importlib.util.spec_from_loader(name, None)
    module.__path__ = []
    for key, function in functions.items():
        setattr(module, key, function)
    sys.modules[name] = module


def _module(name: str, path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _quiet() -> None:
    from transformers.utils import logging

    logging.set_verbosity_error()
