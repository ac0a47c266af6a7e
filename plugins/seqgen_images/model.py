"""Image models: a tokenizer, a sequence model in some order, and labels to condition on.

`ImageModel` is what the domain drives, ours and official ones alike. `AvatarModel` is ours: the
same transformer for every engine; what differs is the order, what enters at a slot and the head.

    engine            order               inputs          head           passes (8 x 8 tokens)
    raster            one by one          value before    categorical    64
    diagonal          anti-diagonals      neighbours      categorical    15
    next-scale        scales              coarser image   categorical     4
    masked            all, by confidence  mask            categorical     8-12
    block-diffusion   rows                mask            categorical     8 x 1-4
    continuous        all, at random      mask            flow           16

Shapes: B rows, S slots, D width, A attributes, V vocabulary, C channels, H and W of the image.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import torch
from torch import Tensor, nn

from seqgen import checkpoints
from seqgen.canvas import Canvas
from seqgen.decoders.base import Decoder
from seqgen.grid_orders import Diagonals, OnGrid, Scales
from seqgen.guidance import Guidance, GuidedModel
from seqgen.heads import CategoricalHead, FlowHead, Head
from seqgen.inputs import Inputs, MaskedInputs, NeighbourInputs, ShiftedInputs
from seqgen.model import Context, SequenceModel
from seqgen.orders import Blocks, Order, Raster, Whole
from seqgen.scale_inputs import ScaleInputs
from seqgen.tokenizers import Tokenizer, build_tokenizer, tokenizer_config
from seqgen.transformer import Transformer, TransformerConfig
from seqgen.value_inputs import MaskedValueInputs
from seqgen_images.decoding import TEMPERATURES, DecodingConfig, engine_decoder
from seqgen_images.known_slots import over_scales, whole_cells
from seqgen_images.labels import Labels
from seqgen_images.options import SamplingSettings
from seqgen_images.pixels import Pixels, to_bytes

KIND = "seqgen-images"

Engine = Literal["raster", "diagonal", "next-scale", "masked", "block-diffusion", "continuous"]
ENGINES: tuple[Engine, ...] = get_args(Engine)


class ImageModel(Protocol):
    """What the domain asks of a model.

    Attributes:
        engine: how it generates.
        size: height and width of its images in pixels.
        channels: of its images.
        labels: what it can be conditioned on.
        tokenizer: None for a model of continuous values.
        sequence: inputs, backbone and head.
        own: how it is sampled where the options leave it open.
    """

    engine: str
    size: tuple[int, int]
    channels: int
    labels: Labels
    tokenizer: Tokenizer | None
    sequence: SequenceModel
    own: SamplingSettings

    def context(self, labels_BA: Tensor) -> Context:
        """The condition of labels int64 [B, A]; -1 where one is not specified."""
        ...

    def draw_labels(self, seed: int) -> tuple[int | None, ...]:
        """Labels drawn as often as the training images had them."""
        ...

    def order(self) -> Order: ...

    def canvas(
        self,
        seeds_B: Tensor,
        *,
        images_BCHW: Tensor | None = None,
        known_BHW: Tensor | None = None,
    ) -> Canvas:
        """An empty canvas, or one with the tokens given that lie in known pixels whole."""
        ...

    def decoder(self, config: DecodingConfig) -> Decoder: ...

    def guided(self, guidance: Guidance) -> SequenceModel: ...

    def images(self, values: Tensor, *, known_BS: Tensor | None = None) -> Tensor:
        """Decoded slots as uint8 [B, H, W, C]; of some of them only, for previews."""
        ...


@dataclass(frozen=True)
class AvatarConfig:
    """Sizes of an `AvatarModel`.

    Attributes:
        engine: how it generates.
        height, width, channels: of the images.
        labels: attributes and their values.
        seen: combinations of values in the training images, with their numbers, most first.
        transformer: sizes of the backbone.
        block_length: slots a block of block diffusion; 0 for a row.
        patch: side of the continuous model's patches.
        flow_hidden, flow_depth, flow_steps: of its head.
    """

    engine: Engine
    height: int
    width: int
    channels: int = 3
    labels: Labels = field(default_factory=Labels)
    seen: tuple[tuple[tuple[int, ...], int], ...] = ()
    transformer: TransformerConfig = field(
        default_factory=lambda: TransformerConfig(width=128, layers=4, heads=4, axes=2)
    )
    block_length: int = 0
    patch: int = 2
    flow_hidden: int = 192
    flow_depth: int = 3
    flow_steps: int = 12

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> AvatarConfig:
        made = dict(data)
        made["labels"] = Labels.of(made["labels"]["attributes"])
        made["seen"] = tuple((tuple(row), count) for row, count in made["seen"])
        made["transformer"] = TransformerConfig(**made["transformer"])
        return cls(**made)


class AvatarModel(nn.Module):
    """Our image model; see the module's table.

    Args:
        config: sizes.
        tokenizer: images to ids; None for the continuous engine, which works on pixels.
    """

    def __init__(self, config: AvatarConfig, tokenizer: Tokenizer | None) -> None:
        super().__init__()
        self.config = config
        self.engine: str = config.engine
        self.own = SamplingSettings(temperature=TEMPERATURES.get(config.engine, 1.0))
        self.size = (config.height, config.width)
        self.channels = config.channels
        self.labels = config.labels
        self.tokenizer = tokenizer
        self.pixels: Pixels | None = None
        if config.engine == "continuous":
            self.pixels = Pixels(config.height, config.width, config.channels, config.patch)
        width = config.transformer.width
        self.values = nn.ModuleList(
            nn.Embedding(len(values) + 1, width) for _, values in config.labels.attributes
        )
        for table in self.values:
            assert isinstance(table, nn.Embedding)
            nn.init.normal_(table.weight, std=width**-0.5)
        self.start_D = nn.Parameter(torch.randn(width) * width**-0.5)
        self.sequence = SequenceModel(
            inputs=self._inputs(), backbone=Transformer(config.transformer), head=self._head()
        )

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the finest tokens."""
        source = self.pixels if self.tokenizer is None else self.tokenizer
        assert source is not None
        return source.grid

    @property
    def slots(self) -> int:
        """Slots of an image, without the prefix."""
        source = self.pixels if self.tokenizer is None else self.tokenizer
        assert source is not None
        return source.slots

    @property
    def prefix(self) -> int:
        """Slots before the image: the condition, where it has a row of its own."""
        return int(self.engine == "diagonal")

    def context(self, labels_BA: Tensor) -> Context:
        condition_BD = self.start_D.expand(len(labels_BA), -1)
        for attribute, table in enumerate(self.values):
            assert isinstance(table, nn.Embedding)
            index_B = labels_BA[:, attribute]
            # The last row is for what is not specified.
            last = table.num_embeddings - 1
            condition_BD = condition_BD + table(torch.where(index_B < 0, last, index_B))
        given_BSD = condition_BD[:, None].expand(-1, self.slots + self.prefix, -1)
        return Context(condition_BD=condition_BD, given_BSD=given_BSD)

    def draw_labels(self, seed: int) -> tuple[int | None, ...]:
        """Labels drawn as often as the training images had them."""
        if not self.config.seen:
            return (None,) * len(self.labels.attributes)
        rows, counts = zip(*self.config.seen, strict=True)
        chosen: tuple[int, ...] = random.Random(seed).choices(rows, counts)[0]
        return chosen

    def order(self) -> Order:
        rows, columns = self.grid
        if self.engine == "diagonal":
            return Diagonals(rows, columns, prefix=self.prefix)
        if self.engine == "next-scale":
            return Scales(_scales(self.tokenizer))
        if self.engine == "block-diffusion":
            return OnGrid(Blocks(self.config.block_length or columns), rows, columns)
        return OnGrid(Raster() if self.engine == "raster" else Whole(), rows, columns)

    def canvas(
        self,
        seeds_B: Tensor,
        *,
        images_BCHW: Tensor | None = None,
        known_BHW: Tensor | None = None,
    ) -> Canvas:
        values, known_BS = self.empty(len(seeds_B), seeds_B.device), None
        if images_BCHW is not None and known_BHW is not None:
            values = self.tokens(images_BCHW)
            known_BS = self.known_slots(known_BHW)
        return Canvas(values, prompt=self.prefix, seeds=seeds_B, given=known_BS)

    def empty(self, batch: int, device: torch.device) -> Tensor:
        """Values of an empty canvas."""
        slots = self.slots + self.prefix
        if self.pixels is not None:
            return torch.zeros(batch, slots, self.pixels.numbers, device=device)
        return torch.zeros(batch, slots, dtype=torch.int64, device=device)

    @torch.no_grad()
    def tokens(self, images_BCHW: Tensor) -> Tensor:
        """Values [B, prefix + S, ...] of images in [-1, 1]."""
        if self.pixels is not None:
            return self.pixels.encode(images_BCHW)
        assert self.tokenizer is not None
        ids_BS = self.tokenizer.encode(images_BCHW)
        prefix = ids_BS.new_zeros(len(ids_BS), self.prefix)
        return torch.cat([prefix, ids_BS], dim=1)

    def known_slots(self, known_BHW: Tensor) -> Tensor:
        """Slots that known pixels decide, bool [B, prefix + S]."""
        if self.engine == "next-scale":
            return over_scales(known_BHW, _scales(self.tokenizer))
        prefix = known_BHW.new_ones(len(known_BHW), self.prefix)
        return torch.cat([prefix, whole_cells(known_BHW, *self.grid)], dim=1)

    def decoder(self, config: DecodingConfig) -> Decoder:
        return engine_decoder(self.engine, self.order(), config)

    def guided(self, guidance: Guidance) -> SequenceModel:
        return GuidedModel(self.sequence, scale=guidance)

    @torch.no_grad()
    def images(self, values: Tensor, *, known_BS: Tensor | None = None) -> Tensor:
        values = values[:, self.prefix :]
        known_BS = None if known_BS is None else known_BS[:, self.prefix :]
        if self.pixels is not None:
            return to_bytes(self.pixels.decode(values, known_BS))
        assert self.tokenizer is not None
        if known_BS is None:
            return to_bytes(self.tokenizer.decode(values))
        return to_bytes(self.tokenizer.decode_partial(values, known_BS))

    def _inputs(self) -> Inputs:
        width, (rows, columns) = self.config.transformer.width, self.grid
        if self.engine == "next-scale":
            return ScaleInputs(_quantizer(self.tokenizer), width, adds_given=True)
        positions = _embedding(self.slots, width)
        if self.pixels is not None:
            return MaskedValueInputs(
                self.pixels.numbers, width, positions=positions, adds_given=True
            )
        assert self.tokenizer is not None
        vocabulary = self.tokenizer.vocabulary
        if self.engine == "raster":
            return ShiftedInputs(_embedding(vocabulary, width), conditioned=True, adds_given=True)
        if self.engine == "diagonal":
            return NeighbourInputs(
                _embedding(vocabulary, width), height=rows, width=columns, adds_given=True
            )
        return MaskedInputs(
            _embedding(vocabulary + 1, width),
            mask_id=vocabulary,
            positions=positions,
            adds_given=True,
        )

    def _head(self) -> Head:
        c = self.config
        width = c.transformer.width
        if self.pixels is not None:
            return FlowHead(
                width,
                self.pixels.numbers,
                hidden=c.flow_hidden,
                depth=c.flow_depth,
                steps=c.flow_steps,
                draws=4,
            )
        assert self.tokenizer is not None
        heads = 2 if self.engine == "diagonal" else 1
        return CategoricalHead(heads * width, self.tokenizer.vocabulary)


def save_image_model(model: AvatarModel, path: Path, notes: Mapping[str, Any]) -> Path:
    """Write one safetensors file, in half precision, with everything `load_image_model` needs."""
    config = {
        "kind": KIND,
        "model": asdict(model.config),
        "tokenizer": _configuration(model.tokenizer),
        "training": dict(notes),
    }
    return checkpoints.save(path, model.state_dict(), config, half=True)


def load_image_model(path: Path) -> AvatarModel:
    """Load our own checkpoint: a file, or the folder of a training.

    Raises:
        CheckpointError: missing, damaged, of another kind, or not fitting.
    """
    fix = "use a checkpoint made by `seqgen train --plugin images`"
    state, config = checkpoints.load_kind(path, KIND, what="an image model", fix=fix)
    with checkpoints.building(path):
        made = AvatarConfig.from_dict(config["model"])
        tokenizer = config["tokenizer"]
        model = AvatarModel(made, None if tokenizer is None else build_tokenizer(tokenizer))
    checkpoints.load_strict(model, state, source=path)
    return model.eval()


def _configuration(tokenizer: Tokenizer | None) -> dict[str, Any] | None:
    return tokenizer_config(tokenizer) if isinstance(tokenizer, nn.Module) else None


def _embedding(rows: int, width: int) -> nn.Embedding:
    table = nn.Embedding(rows, width)
    # As large as what the first norm expects; larger embeddings drown what is added to them.
    nn.init.normal_(table.weight, std=width**-0.5)
    return table


def _quantizer(tokenizer: Tokenizer | None) -> Any:
    """The multi-scale quantizer of a tokenizer."""
    found = getattr(tokenizer, "quantizer", tokenizer)
    if not hasattr(found, "scales"):
        raise ValueError("next-scale generation needs a multi-scale tokenizer")
    return found


def _scales(tokenizer: Tokenizer | None) -> tuple[int, ...]:
    sides: tuple[int, ...] = tuple(_quantizer(tokenizer).scales)
    return sides
