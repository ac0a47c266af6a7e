"""The published VAR code (FoundationVision/VAR, MIT), given by VAR_SRC=path of its repository.

It runs as it is; only a package that it imports for downloads has a stand-in where it is missing.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

HOW = "set VAR_SRC to a clone of github.com/FoundationVision/VAR"
NAMES = ("models", "dist", "utils")
"""Its top-level modules, which would hide those of other repositories."""


@dataclass(frozen=True)
class Published:
    """A tokenizer and a transformer as the published code builds them, in eval mode."""

    vae: Any
    var: Any
    filters: Any
    """`sample_with_top_k_top_p_`, which masks the logits it is given in place."""

    def states(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """What its files would hold: of the transformer, of the tokenizer."""
        return self.var.state_dict(), self.vae.state_dict()


def source() -> Path | None:
    """Where the published code lies, if it is given."""
    path = os.environ.get("VAR_SRC")
    return Path(path) if path and (Path(path) / "models" / "var.py").is_file() else None


def build(
    path: Path,
    *,
    seed: int,
    scales: tuple[int, ...] = (1, 2, 3, 4),
    codes: int = 64,
    latent: int = 8,
    channels: int = 32,
    depth: int = 2,
    width: int = 128,
    heads: int = 2,
    classes: int = 5,
    l2: bool = True,
    shared: bool = False,
) -> Published:
    """Random weights; modulations, biases and gates are large, so that all of them show."""
    with _imported(path) as (vqvae, var, helpers), contextlib.redirect_stdout(io.StringIO()):
        torch.manual_seed(seed)
        vae = vqvae.VQVAE(
            vocab_size=codes, z_channels=latent, ch=channels, v_patch_nums=scales, test_mode=True
        )
        made = var.VAR(
            vae, num_classes=classes, depth=depth, embed_dim=width, num_heads=heads,
            shared_aln=shared, cond_drop_rate=0.0, attn_l2_norm=l2, patch_nums=scales,
        )  # fmt: skip
        made.init_weights(init_std=0.02)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if "scale_mul" in name:
                parameter.add_(0.3 * torch.randn_like(parameter))
            elif "head" in name or "ada" in name or name.endswith("bias"):
                parameter.copy_(torch.randn_like(parameter) * parameter.shape[-1] ** -0.5)
        nn.init.normal_(vae.quantize.embedding.weight)
    return Published(vae.eval(), made.eval(), helpers.sample_with_top_k_top_p_)


@contextlib.contextmanager
def _imported(path: Path) -> Iterator[list[ModuleType]]:
    """Its modules, imported without leaving anything behind in `sys`."""

    def own() -> list[str]:
        return [name for name in sys.modules if name.partition(".")[0] in NAMES]

    hidden = {name: sys.modules.pop(name) for name in own()}
    stand_in = importlib.util.find_spec("huggingface_hub") is None
    if stand_in:
        module: Any = ModuleType("huggingface_hub")
        module.PyTorchModelHubMixin = type("PyTorchModelHubMixin", (), {})
        sys.modules["huggingface_hub"] = module
    sys.path.insert(0, str(path))
    try:
        yield [importlib.import_module(f"models.{name}") for name in ("vqvae", "var", "helpers")]
    finally:
        sys.path.remove(str(path))
        for name in own():
            del sys.modules[name]
        sys.modules.update(hidden)
        if stand_in:
            del sys.modules["huggingface_hub"]
