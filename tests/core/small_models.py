"""Small random models for the property tests of the core."""

from __future__ import annotations

import torch
from torch import nn

from seqgen.attention import Backend
from seqgen.canvas import Canvas
from seqgen.heads import CategoricalHead
from seqgen.inputs import MaskedInputs, ShiftedInputs
from seqgen.masks import Mask
from seqgen.model import Context, SequenceModel
from seqgen.transformer import Transformer, TransformerConfig

VOCABULARY = 23
WIDTH = 24


def small_model(
    *,
    seed: int = 0,
    shifted: bool = False,
    cross: bool = False,
    layers: int = 2,
    mask: Mask | None = None,
    backend: Backend = "auto",
    sharpness: float = 4.0,
) -> SequenceModel:
    """A random model whose logits are far enough apart that rounding cannot flip an argmax."""
    torch.manual_seed(seed)
    embedding = nn.Embedding(VOCABULARY + 1, WIDTH)
    inputs = (
        ShiftedInputs(embedding, start_id=VOCABULARY)
        if shifted
        else MaskedInputs(embedding, mask_id=VOCABULARY, positions=nn.Embedding(64, WIDTH))
    )
    config = TransformerConfig(
        width=WIDTH,
        layers=layers,
        heads=4,
        kv_heads=2,
        head_width=6,
        context_width=WIDTH if cross else 0,
        backend=backend,
    )
    head = CategoricalHead(WIDTH, VOCABULARY)
    head.weight.data *= sharpness
    return SequenceModel(inputs=inputs, backbone=Transformer(config), head=head, mask=mask).eval()


def random_context(seed: int, batch: int, *, ragged: bool = False) -> Context:
    generator = torch.Generator().manual_seed(seed)
    states = torch.randn(batch, 7, WIDTH, generator=generator)
    valid = None
    if ragged:
        lengths = torch.randint(2, 8, (batch,), generator=generator)
        valid = torch.arange(7) < lengths[:, None]
    return Context(states_BTD=states, valid_BT=valid)


def random_prompts(seed: int, sizes: list[int]) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(VOCABULARY, (n,), generator=generator).tolist() for n in sizes]


def canvas_of(prompts: list[list[int]], new: int, *, seeds: list[int] | None = None) -> Canvas:
    tensor = None if seeds is None else torch.tensor(seeds)
    return Canvas.tokens(prompts, new=new, seeds=tensor)


def row_of(context: Context | None, row: int) -> Context | None:
    """One row of a context, as if it were alone (padding cut off)."""
    if context is None or context.states_BTD is None:
        return None
    states = context.states_BTD[row : row + 1]
    if context.valid_BT is not None:
        states = states[:, : int(context.valid_BT[row].sum())]
    return Context(states_BTD=states)
