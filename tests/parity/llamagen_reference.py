"""The published code of LlamaGen and of NAR (both MIT), given by LLAMAGEN_SRC and NAR_SRC.

    LLAMAGEN_SRC    a clone of github.com/FoundationVision/LlamaGen
    NAR_SRC         a clone of github.com/ThisisBillhe/NAR, or its folder NAR-images

It runs as it is. Both repositories name their modules alike, so each is imported and forgotten.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

VARIABLES = {"llamagen": "LLAMAGEN_SRC", "nar": "NAR_SRC"}
HOW = {
    "llamagen": "set LLAMAGEN_SRC to a clone of github.com/FoundationVision/LlamaGen",
    "nar": "set NAR_SRC to a clone of github.com/ThisisBillhe/NAR",
}
NAMES = ("autoregressive", "tokenizer", "utils", "dataset", "language")
"""Their top-level modules, which would hide each other and those of other repositories."""


@dataclass(frozen=True)
class Published:
    """A model as the published code builds it, in eval mode.

    Attributes:
        gpt: the transformer.
        generate: the published loop.
        side: rows and columns of tokens.
    """

    gpt: Any
    generate: Any
    side: int

    @torch.no_grad()
    def tokens(self, labels_B: Tensor, *, cfg: float, **sampling: Any) -> Tensor:
        """Tokens [B, S]; sampling: `temperature`, `top_k`, `top_p`, `sample_logits`."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a context manager of torch that it uses is old
            tokens: Tensor = self.generate(
                self.gpt, labels_B, self.side * self.side, cfg_scale=cfg, **sampling
            )
        return tokens.long()


def source(kind: str) -> Path | None:
    """Where the published code lies, if it is given."""
    path = Path(os.environ.get(VARIABLES[kind]) or "absent")
    found = (p for p in (path, path / "NAR-images") if (p / "autoregressive").is_dir())
    return next(found, None)


def build(
    path: Path,
    *,
    seed: int,
    side: int = 4,
    layers: int = 2,
    width: int = 128,
    heads: int = 2,
    codes: int = 64,
    classes: int = 5,
) -> Published:
    """Random weights; published ones begin with an output of zero."""
    with _imported(path, "autoregressive.models.gpt", "autoregressive.models.generate") as (
        models,
        loop,
    ):
        loop.tqdm = iter  # NAR's loop draws a bar, which is no part of the work
        torch.manual_seed(seed)
        gpt = models.Transformer(
            models.ModelArgs(
                dim=width, n_layer=layers, n_head=heads, vocab_size=codes, num_classes=classes,
                block_size=side * side,
            )
        )  # fmt: skip
    for name, parameter in gpt.named_parameters():
        if "output" in name:
            nn.init.normal_(parameter, std=0.3)
        elif parameter.dim() > 1:
            nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)
        else:
            nn.init.normal_(parameter, mean=1.0, std=0.1)
    return Published(gpt.eval(), loop.generate, side)


def build_tokenizer(path: Path, *, seed: int, channels: int, levels: tuple[int, ...]) -> Any:
    """The published VQModel with an encoder and decoder of other sizes, in eval mode."""
    with _imported(path, "tokenizer.tokenizer_image.vq_model") as (module,):
        torch.manual_seed(seed)
        model = module.VQModel(
            module.ModelArgs(codebook_size=256, codebook_embed_dim=8, z_channels=64)
        )
        for name, kind in (("encoder", module.Encoder), ("decoder", module.Decoder)):
            setattr(model, name, kind(ch=channels, ch_mult=levels, z_channels=64))
    nn.init.normal_(model.quantize.embedding.weight)
    return model.eval()


@contextlib.contextmanager
def _imported(path: Path, *names: str) -> Iterator[list[ModuleType]]:
    """Its modules, imported without leaving anything behind in `sys`."""

    def own() -> list[str]:
        return [name for name in sys.modules if name.partition(".")[0] in NAMES]

    hidden = {name: sys.modules.pop(name) for name in own()}
    stand_in = importlib.util.find_spec("tqdm") is None
    if stand_in:
        module: Any = ModuleType("tqdm")
        module.tqdm = lambda items: items
        sys.modules["tqdm"] = module
    sys.path.insert(0, str(path))
    try:
        yield [importlib.import_module(name) for name in names]
    finally:
        sys.path.remove(str(path))
        for name in own():
            del sys.modules[name]
        sys.modules.update(hidden)
        if stand_in:
            del sys.modules["tqdm"]
