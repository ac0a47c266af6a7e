"""The network of LlamaGen (Sun et al. 2024, arXiv 2406.06525) and NAR, and their published keys.

Both are the core's `Transformer` with rotary positions on two axes: rows in the first half of a
head, columns in the second. The class is a row before the image. Published code rotates it by a
table of zeros, not by angles of zero: its query and its key are 0 in every layer, it gives all
others its value at the weight of a score of 0, and weights were trained with that.

Published heads rotate neighbouring numbers (0, 1), (2, 3), ...; ours the two halves of a head.
Queries and keys may be permuted alike without changing a score, so their rows are, at loading.

Shapes: B rows, R slots fed, D width, H heads, d head width, F feed-forward width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from seqgen.attention import MaskView
from seqgen.cache import Cache
from seqgen.checkpoints import require_shapes
from seqgen.model import Context
from seqgen.transformer import Transformer, TransformerConfig, rotary_frequencies


@dataclass(frozen=True, kw_only=True)
class GPTConfig:
    """Sizes.

    Attributes:
        vocabulary: V.
        classes: without the null class, which is one row more of the embedding.
        width: D.
        heads: H.
        layers: blocks up to the logits of the next token (LlamaGen), or of the right one (NAR).
        hidden: F.
        side: rows and columns of the token grid.
        below: further blocks up to NAR's logits of the token below; 0 for LlamaGen.
    """

    vocabulary: int
    classes: int
    width: int
    heads: int
    layers: int
    hidden: int
    side: int
    below: int = 0

    @property
    def transformer(self) -> TransformerConfig:
        """The backbone's sizes."""
        return TransformerConfig(
            width=self.width,
            layers=self.layers + self.below,
            heads=self.heads,
            hidden=self.hidden,
            axes=2,
            norm_eps=1e-5,
            qk_norm=False,
        )


class GridTransformer(Transformer):
    """A `Transformer` on a square grid; a slot that lies nowhere has queries and keys of zero.

    Args:
        config: sizes.
        side: rows and columns of the grid.
    """

    rotations: Tensor

    def __init__(self, config: TransformerConfig, side: int) -> None:
        super().__init__(config)
        self.side = side
        self.register_buffer("rotations", self._table(), persistent=False)

    def _table(self) -> Tensor:
        """Cosines and signed sines by row and column [side + 1, side + 1, 2 d].

        The last row and column are zeros: `NOWHERE` is -1, which names them.
        """
        axis = torch.arange(self.side)
        places = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), dim=-1)
        self.frequencies = rotary_frequencies(self.config)
        cos, sin = super()._rotation(places.flatten(0, 1)[None], torch.float32)
        table = torch.zeros(self.side + 1, self.side + 1, 2 * self.config.d)
        table[:-1, :-1] = torch.cat([cos, sin], dim=-1).view(self.side, self.side, -1)
        return table

    def materialise(self) -> None:
        """Make the tables of a model that was built without memory (on `meta`)."""
        self.rotations = self._table()

    def _rotation(self, coordinates_BRA: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        row, column = coordinates_BRA.unbind(dim=-1)
        cos, sin = self.rotations[row, column][:, None].to(dtype).chunk(2, dim=-1)
        return cos, sin


class TwoExits(GridTransformer):
    """States for the token on the right, and, some layers later, for the one below (NAR).

    Args:
        config: sizes, all layers counted.
        side: rows and columns of the grid.
        right: layers up to the first exit.
    """

    def __init__(self, config: TransformerConfig, side: int, *, right: int) -> None:
        super().__init__(config, side)
        self.right = right
        self.below_norm = nn.RMSNorm(config.width, eps=config.norm_eps)

    def forward(
        self,
        x_BRD: Tensor,
        coordinates_BRA: Tensor,
        *,
        view: MaskView | None = None,
        cache: Cache | None = None,
        context: Context | None = None,
    ) -> Tensor:
        """States [B, R, 2 D]: [right | below]."""
        rotation = self._rotation(coordinates_BRA, x_BRD.dtype)
        right_BRD = x_BRD
        for index, block in enumerate(self.stack):
            x_BRD = block(x_BRD, rotation, index, view, cache, context)
            if index + 1 == self.right:
                right_BRD = self.norm(x_BRD)
        return torch.cat([right_BRD, self.below_norm(x_BRD)], dim=-1)


@dataclass(frozen=True)
class Part:
    """Where one of our weights lies in a published checkpoint.

    Attributes:
        names: published keys, which are joined to it.
        shapes: theirs.
        dim: along which they are joined.
        rotated: the first 2 / 3 of the rows are queries and keys.
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    dim: int = 0
    rotated: bool = False


def layout(c: GPTConfig) -> dict[str, Part]:
    """Our keys (of `LlamaGen.state_dict()`, without the tokenizer) and the published ones."""
    D, F, V = c.width, c.hidden, c.vocabulary
    heads = ("output.weight", "medusa_output.weight") if c.below else ("output.weight",)
    parts = {
        "classes.weight": Part(("cls_embedding.embedding_table.weight",), ((c.classes + 1, D),)),
        "sequence.inputs.embedding.weight": Part(("tok_embeddings.weight",), ((V, D),)),
        "sequence.backbone.norm.weight": Part(("norm.weight",), ((D,),)),
        "sequence.head.weight": Part(heads, ((V, D),) * len(heads), dim=1),
    }
    if c.below:
        parts["sequence.backbone.below_norm.weight"] = Part(("medusa_norm.weight",), ((D,),))
    for i in range(c.layers + c.below):
        own, theirs = f"sequence.backbone.blocks.{i}", f"layers.{i}"
        feed = f"{theirs}.feed_forward"
        parts |= {
            f"{own}.attention_norm.weight": Part((f"{theirs}.attention_norm.weight",), ((D,),)),
            f"{own}.attention.qkv.weight": Part(
                (f"{theirs}.attention.wqkv.weight",), ((3 * D, D),), rotated=True
            ),
            f"{own}.attention.out.weight": Part((f"{theirs}.attention.wo.weight",), ((D, D),)),
            f"{own}.feed_norm.weight": Part((f"{theirs}.ffn_norm.weight",), ((D,),)),
            f"{own}.feed_in.weight": Part(
                (f"{feed}.w1.weight", f"{feed}.w3.weight"), ((F, D), (F, D))
            ),
            f"{own}.feed_out.weight": Part((f"{feed}.w2.weight",), ((D, F),)),
        }
    return parts


def our_state(state: Mapping[str, Tensor], c: GPTConfig, source: str | Path) -> dict[str, Tensor]:
    """Our state dict of a published one, in float32.

    Raises:
        CheckpointError: names the keys that are missing or unknown, and the wrong shapes.
    """
    parts = layout(c)
    expected = {
        name: shape
        for part in parts.values()
        for name, shape in zip(part.names, part.shapes, strict=True)
    }
    require_shapes(state, expected, source=source, fix="get the published file again")
    made = {}
    for key, part in parts.items():
        tensors = [state[name].float() for name in part.names]
        joined = tensors[0] if len(tensors) == 1 else torch.cat(tensors, dim=part.dim)
        made[key] = _halves(joined, c) if part.rotated else joined
    return made


def _halves(qkv: Tensor, c: GPTConfig) -> Tensor:
    """Rows of queries and keys from pairs (2 i, 2 i + 1) to pairs (i, i + d / 2)."""
    rotated, value = qkv[: 2 * c.width], qkv[2 * c.width :]
    pairs = rotated.view(2 * c.heads, -1, 2, c.width)
    return torch.cat([pairs.transpose(1, 2).reshape(2 * c.width, c.width), value])
