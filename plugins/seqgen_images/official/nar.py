"""NAR's class-conditional models (He et al. 2025, arXiv 2503.10696), from official files.

    model = load(Path("nar_b_256.pt"))            # vq_ds16_c2i.pt lies in the same folder

LlamaGen with two exits. A token's states after most layers predict its neighbour on the right,
those after the further layer (`medusa`) the one below; where a token has both a left and an upper
neighbour, their logits are averaged. So an anti-diagonal is decoded in one pass, 2 n - 1 in all.
Within a diagonal the tokens see each other; the class is slot 0, which nothing predicts.

Published sampling is LlamaGen's (`NAR.own`); its `cfg_interval` counts tokens: `interval`.

Shapes: B rows, S slots (1 + h w).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from seqgen.errors import CheckpointError
from seqgen.grid_orders import Diagonals
from seqgen.guidance import Guidance
from seqgen.heads import CategoricalHead
from seqgen.inputs import NeighbourInputs
from seqgen.model import SequenceModel
from seqgen.orders import Order
from seqgen_images.official import llamagen_converted
from seqgen_images.official.llamagen import (
    LlamaGen,
    checkpoint_file,
    fill,
    grid_side,
    read_state,
    sizes,
)
from seqgen_images.official.llamagen_layers import TwoExits, our_state
from seqgen_images.official.llamagen_vq import LlamaGenVQ, find_tokenizer, load_tokenizer


class NAR(LlamaGen):
    """A class-conditional model that decodes diagonals; an `ImageModel`."""

    engine = "diagonal"
    prefix = 1

    def order(self) -> Order:
        return Diagonals(self.config.side, self.config.side, prefix=1)

    def materialise(self) -> None:
        super().materialise()
        inputs, side = self.sequence.inputs, self.config.side
        assert isinstance(inputs, NeighbourInputs)
        self.sequence.inputs = NeighbourInputs(inputs.embedding, height=side, width=side, exits=2)

    def _sequence(self) -> SequenceModel:
        c = self.config
        return SequenceModel(
            inputs=NeighbourInputs(
                nn.Embedding(c.vocabulary, c.width), height=c.side, width=c.side, exits=2
            ),
            backbone=TwoExits(c.transformer, c.side, right=c.layers),
            head=CategoricalHead(2 * c.width, c.vocabulary),
        )


def load(path: str | Path, *, tokenizer: str | Path | None = None, size: int = 256) -> NAR:
    """Load an official checkpoint and the tokenizer, which is LlamaGen's.

    Args:
        path: the file, a folder with one file `nar*.pt`, or what `convert` wrote.
        tokenizer: `vq_*.pt`; None: the one in the same folder.
        size: height and width of the images.

    Raises:
        CheckpointError: missing, damaged, refused, of another model, or not fitting.
    """
    path = checkpoint_file(path, "[nN][aA][rR]*")
    if (converted := llamagen_converted.read(path, NAR, NAR.engine)) is not None:
        return converted
    quantizer = load_tokenizer(find_tokenizer(path, tokenizer), size=size)
    return from_state(read_state(path), source=path, tokenizer=quantizer)


def convert(
    path: str | Path, out: str | Path, *, tokenizer: str | Path | None = None, size: int = 256
) -> Path:
    """Write official files as one safetensors file that `load` reads; arguments as there."""
    return llamagen_converted.write(load(path, tokenizer=tokenizer, size=size), out)


def from_state(
    state: Mapping[str, Tensor],
    *,
    source: str | Path = "the checkpoint",
    tokenizer: LlamaGenVQ | None = None,
    side: int = 0,
    heads: int = 0,
    below: int = 1,
) -> NAR:
    """A model with published weights.

    Args:
        tokenizer: of the images.
        side: rows and columns of the tokens; 0: the tokenizer's.
        heads: 0: what the published models of this width have.
        below: layers behind the first exit; 1 in all published models.
    """
    if "medusa_output.weight" not in state:
        raise CheckpointError(
            f"{source} is not a checkpoint of NAR", why="it has no medusa_output.weight"
        )
    side = side or grid_side(tokenizer)
    config = sizes(state, source=source, side=side, heads=heads, below=below)
    with torch.device("meta"):
        model = NAR(config)
    return fill(model, our_state(state, config, source), tokenizer)


def interval(cfg_interval: int, scale: float, side: int) -> Guidance:
    """The guidance of the published `--cfg-interval`: off once more tokens than that are there."""
    if cfg_interval < 0:
        return Guidance(scale)
    diagonals = [min(d + 1, 2 * side - 1 - d) for d in range(2 * side - 1)]
    guided = [sum(diagonals[:d]) <= cfg_interval or d == 0 for d in range(2 * side - 1)]
    return Guidance(scale, "interval", last=sum(guided) - 1)
