"""The model, put together from the core's parts: an encoder of characters, and a decoder that can
fill its slots in any order because an open slot enters as a mask.

Shapes: B rows, T characters read, S characters written, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from seqgen.attention import MaskView
from seqgen.canvas import Canvas
from seqgen.checkpoints import load, load_strict
from seqgen.heads import CategoricalHead
from seqgen.inputs import MaskedInputs
from seqgen.masks import Full
from seqgen.model import Context, SequenceModel, device_of
from seqgen.orders import Whole
from seqgen.transformer import Transformer, TransformerConfig
from torch import Tensor, nn

READS = " ,.abcdefghijklmnopqrstuvwxyz0123456789"
"""Characters the encoder knows, lower case; id 0 stands for all others."""
WRITES = "^0123456789-"
START_ID = 0
"""`^`, the prompt of one slot. Rotary positions are relative: without it, a canvas of nothing but
masks would look the same at every slot."""
MASK_ID = len(WRITES)
LENGTH = 10  # 2021-03-03


@dataclass(frozen=True)
class ModelConfig:
    """Sizes; kept inside the checkpoint."""

    width: int = 32
    layers: int = 2
    heads: int = 4


class DateModel(nn.Module):
    """Encoder and decoder; `decoder` is what the core's decoders drive."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        sizes: dict[str, Any] = {
            "width": config.width, "layers": config.layers, "heads": config.heads,
        }  # fmt: skip
        self.characters = nn.Embedding(len(READS) + 1, config.width)
        self.encoder = Transformer(TransformerConfig(**sizes))
        embedding = nn.Embedding(len(WRITES) + 1, config.width)  # one more: the mask
        self.decoder = SequenceModel(
            inputs=MaskedInputs(embedding, mask_id=MASK_ID),
            backbone=Transformer(TransformerConfig(**sizes, context_width=config.width)),
            head=CategoricalHead(config.width, len(WRITES)),
        )

    def read(self, texts: Sequence[str]) -> Context:
        """Encode written dates: states [B, T, D] for the decoder to attend to."""
        device = device_of(self)
        rows = [[READS.find(c) + 1 for c in text.lower()] or [0] for text in texts]
        lengths = torch.tensor([len(row) for row in rows], device=device)
        longest = int(lengths.max())
        ids_BT = torch.tensor([row + [0] * (longest - len(row)) for row in rows], device=device)
        slots = torch.arange(longest, device=device)[None]
        valid_BT = slots < lengths[:, None]
        table = Whole().table(longest, device)
        view = MaskView(Full(), table.info(slots), table.info(slots), valid_BT)
        states_BTD = self.encoder(self.characters(ids_BT), table.coordinates_SA[slots], view=view)
        return Context(states_BTD=states_BTD, valid_BT=valid_BT)

    def checkpoint_config(self) -> dict[str, Any]:
        """What `load_model` needs beside the weights."""
        return {"plugin": "myplugin", "model": asdict(self.config)}


def encode_dates(isos: Sequence[str]) -> Tensor:
    """ISO dates as ids [B, S], the start in front."""
    return torch.tensor([[START_ID, *(WRITES.index(c) for c in iso)] for iso in isos])


def empty_canvas(batch: int, seeds_B: Tensor | None, device: torch.device) -> Canvas:
    """The start, and room for a date, in every row."""
    return Canvas.tokens([[START_ID]] * batch, new=LENGTH, seeds=seeds_B, device=device)


def load_model(path: Path, device: torch.device, dtype: torch.dtype) -> DateModel:
    """A model from a checkpoint (a file, or a folder of `seqgen train`), ready to decode."""
    state, config = load(path)
    model = DateModel(ModelConfig(**config.get("model", {})))
    load_strict(model, state, source=path)
    return model.to(device=device, dtype=dtype).eval()
