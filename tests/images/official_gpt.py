"""Small models in the layout of LlamaGen and NAR, and what the published code computed with them.

The golden files tests/images/data/{llamagen,nar}_tiny.npz were made with the published code (torch
2.13.0, CPU) on weights of rule_weights.py: width 64, 2 layers, 2 heads, 32 values, 4 x 4 tokens,
5 classes, hidden width 192, and for NAR one layer more.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from tests.images.rule_weights import rule_weights
from torch import Tensor

from seqgen.decoders.base import Generated
from seqgen.guidance import Guidance, guided_context
from seqgen.training.objectives import teacher_states
from seqgen_images.decoding import DecodingConfig
from seqgen_images.official import llamagen, nar
from seqgen_images.official.llamagen import LlamaGen
from seqgen_images.official.llamagen_layers import GPTConfig, layout
from seqgen_images.official.llamagen_vq import LlamaGenVQ, VQConfig

DATA = Path(__file__).parent / "data"
SIDE, HEADS = 4, 2


def tiny_config(below: int = 0) -> GPTConfig:
    return GPTConfig(
        vocabulary=32,
        classes=5,
        width=64,
        heads=HEADS,
        layers=2,
        hidden=192,
        side=SIDE,
        below=below,
    )


def published_state(config: GPTConfig) -> dict[str, Tensor]:
    """Weights by the rule, under their published names."""
    parts = layout(config).values()
    return rule_weights(
        {name: shape for part in parts for name, shape in zip(part.names, part.shapes, strict=True)}
    )


def tiny(kind: str, tokenizer: LlamaGenVQ | None = None) -> LlamaGen:
    """The golden files' model: `llamagen` or `nar`."""
    below = int(kind == "nar")
    make = nar.from_state if below else llamagen.from_state
    state = published_state(tiny_config(below))
    return make(state, tokenizer=tokenizer, side=SIDE, heads=HEADS)


def tiny_tokenizer() -> LlamaGenVQ:
    """Of 32 codes, for images of 16 x 16 in 4 x 4 tokens."""
    torch.manual_seed(0)
    return LlamaGenVQ(VQConfig(32, 4, (32, 32, 64), 32, 1, 32), size=16).eval()


def golden(kind: str, folder: Path = DATA) -> dict[str, np.ndarray]:
    return dict(np.load(folder / f"{kind}_tiny.npz"))


def generated(
    model: LlamaGen,
    labels: Tensor,
    *,
    scale: float = 1.0,
    seeds: Tensor | None = None,
    temperature: float = 0.0,
    cached: bool = True,
) -> Generated:
    """Tokens of classes [B], guided unless the scale is 1."""
    config = DecodingConfig(temperature=temperature, cached=cached)
    canvas = model.canvas(torch.zeros(len(labels), dtype=torch.int64) if seeds is None else seeds)
    context = model.context(labels[:, None])
    sequence = model.sequence
    if scale != 1:
        context = guided_context(context, model.context(torch.full_like(labels[:, None], -1)))
        sequence = model.guided(Guidance(scale))
    return model.decoder(config).generate(sequence, canvas, context)


def one_pass(model: LlamaGen, tokens_BN: Tensor, labels: Tensor) -> Tensor:
    """Logits [B, N, V] of all tokens in one pass, as in training."""
    prefix = tokens_BN.new_zeros(len(tokens_BN), model.prefix)
    with torch.no_grad():
        hidden, _ = teacher_states(
            model.sequence,
            torch.cat([prefix, tokens_BN], dim=1),
            order=model.order(),
            context=model.context(labels[:, None]),
        )
        return model.sequence.head.logits(hidden)
