"""LlamaGen's class-conditional models (Sun et al. 2024, arXiv 2406.06525), from official files.

    model = load(Path("c2i_B_256.pt"))            # vq_ds16_c2i.pt lies in the same folder
    context = guided_context(model.context(labels_BA), model.context(-torch.ones_like(labels_BA)))
    canvas = model.canvas(seeds_B)
    done = model.decoder(DecodingConfig(top_k=2000)).generate(
        model.guided(Guidance(4.0)), canvas, context
    )
    images = model.images(done.values)

An image is read in raster order by a llama: the class enters at slot 0, at the others the token
before. Published sampling, which `LlamaGen.own` names: temperature 1, top-k 2000, guidance 4. For
metrics the authors took all tokens and guidance 1.5 to 2. Their `cfg_interval` n guides the first
n + 2 tokens: `interval(n)`.

Shapes: B rows, S slots, A attributes (one, the class), D width.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from seqgen import checkpoints
from seqgen.canvas import Canvas
from seqgen.decoders.base import Decoder
from seqgen.errors import CheckpointError
from seqgen.grid_orders import OnGrid
from seqgen.guidance import Guidance, GuidedModel
from seqgen.heads import CategoricalHead
from seqgen.inputs import ShiftedInputs
from seqgen.model import Context, SequenceModel
from seqgen.orders import Order, Raster
from seqgen.tokenizers import Tokenizer
from seqgen_images.decoding import DecodingConfig, engine_decoder
from seqgen_images.known_slots import whole_cells
from seqgen_images.labels import Labels
from seqgen_images.official import llamagen_converted
from seqgen_images.official.llamagen_layers import GPTConfig, GridTransformer, our_state
from seqgen_images.official.llamagen_vq import LlamaGenVQ, find_tokenizer, load_tokenizer
from seqgen_images.options import SamplingSettings
from seqgen_images.pixels import to_bytes

HEADS = {3200: 32, 4096: 32}
"""Heads by width where they are not 64 wide: tensors do not show them."""

NULL = -1
"""The label of no class."""


class LlamaGen(nn.Module):
    """A class-conditional model; an `ImageModel`.

    Args:
        config: sizes.
        tokenizer: of the images; None for a model that is asked for tokens only.
    """

    engine: str = "raster"
    channels = 3
    own = SamplingSettings(top_k=2000, guidance=4.0)
    prefix = 0
    """Slots before the image."""

    def __init__(self, config: GPTConfig, tokenizer: Tokenizer | None = None) -> None:
        super().__init__()
        self.config = config
        self.tokenizer = tokenizer
        patch = 16 if tokenizer is None else tokenizer.image_shape[1] // config.side
        self.size = (patch * config.side, patch * config.side)
        names = tuple(map(str, range(config.classes)))
        self.labels = Labels((("class", names),))
        self.classes = nn.Embedding(config.classes + 1, config.width)
        self.sequence = self._sequence()

    def context(self, labels_BA: Tensor) -> Context:
        index_B = labels_BA[:, 0]
        index_B = torch.where(index_B == NULL, self.config.classes, index_B)
        return Context(condition_BD=self.classes(index_B))

    def order(self) -> Order:
        # A row is rotated by the position of the token that enters, not of the one it predicts.
        return OnGrid(Raster(), self.config.side, self.config.side, shift=1)

    def canvas(
        self,
        seeds_B: Tensor,
        *,
        images_BCHW: Tensor | None = None,
        known_BHW: Tensor | None = None,
    ) -> Canvas:
        side = self.config.side
        slots = side * side + self.prefix
        values = torch.zeros(len(seeds_B), slots, dtype=torch.int64, device=seeds_B.device)
        known_BS = None
        if images_BCHW is not None and known_BHW is not None:
            values[:, self.prefix :] = self._required_tokenizer().encode(images_BCHW)
            known_BS = torch.ones_like(values, dtype=torch.bool)
            known_BS[:, self.prefix :] = whole_cells(known_BHW, side, side)
        return Canvas(values, prompt=self.prefix, seeds=seeds_B, given=known_BS)

    def decoder(self, config: DecodingConfig) -> Decoder:
        return engine_decoder(self.engine, self.order(), config)

    def guided(self, guidance: Guidance) -> SequenceModel:
        return GuidedModel(self.sequence, scale=guidance)

    @torch.no_grad()
    def images(self, values: Tensor, *, known_BS: Tensor | None = None) -> Tensor:
        tokenizer, ids_BS = self._required_tokenizer(), values[:, self.prefix :]
        if known_BS is None:
            return to_bytes(tokenizer.decode(ids_BS))
        return to_bytes(tokenizer.decode_partial(ids_BS, known_BS[:, self.prefix :]))

    def materialise(self) -> None:
        """Make what no checkpoint holds, after building on `meta`."""
        backbone = self.sequence.backbone
        assert isinstance(backbone, GridTransformer)
        backbone.materialise()

    def _sequence(self) -> SequenceModel:
        c = self.config
        return SequenceModel(
            inputs=ShiftedInputs(nn.Embedding(c.vocabulary, c.width), conditioned=True),
            backbone=GridTransformer(c.transformer, c.side),
            head=CategoricalHead(c.width, c.vocabulary),
        )

    def _required_tokenizer(self) -> Tokenizer:
        if self.tokenizer is None:
            raise CheckpointError(
                "this model has no image tokenizer",
                why="it was loaded without one",
                fix="put vq_ds16_c2i.pt into the folder of the model's file",
            )
        return self.tokenizer


AnyGPT = TypeVar("AnyGPT", bound=LlamaGen)


def load(
    path: str | Path, *, tokenizer: str | Path | None = None, size: int | None = None
) -> LlamaGen:
    """Load an official checkpoint and the tokenizer.

    Args:
        path: `c2i_*.pt`, a folder that holds one such file, or what `convert` wrote.
        tokenizer: `vq_*.pt`; None: the one in the same folder.
        size: height and width of the images; None: what the file's name says (`c2i_B_256.pt`).

    Raises:
        CheckpointError: missing, damaged, refused, of another model, or not fitting.
    """
    path = checkpoint_file(path, "c2i_*")
    if (converted := llamagen_converted.read(path, LlamaGen, LlamaGen.engine)) is not None:
        return converted
    state = read_state(path)
    if "medusa_output.weight" in state:
        raise CheckpointError(f"{path} is a checkpoint of NAR", fix="load it as NAR")
    size = size or _size_of(path)
    quantizer = load_tokenizer(find_tokenizer(path, tokenizer), size=size)
    return from_state(state, source=path, tokenizer=quantizer)


def convert(
    path: str | Path,
    out: str | Path,
    *,
    tokenizer: str | Path | None = None,
    size: int | None = None,
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
) -> LlamaGen:
    """A model with published weights.

    Args:
        tokenizer: of the images.
        side: rows and columns of the tokens; 0: the tokenizer's.
        heads: 0: what the published models of this width have.
    """
    config = sizes(state, source=source, side=side or grid_side(tokenizer), heads=heads)
    with torch.device("meta"):  # no memory and no random numbers for weights that are replaced
        model = LlamaGen(config)
    return fill(model, our_state(state, config, source), tokenizer)


def fill(model: AnyGPT, weights: Mapping[str, Tensor], tokenizer: LlamaGenVQ | None) -> AnyGPT:
    """Give a model built on `meta` its weights and its tokenizer."""
    model.load_state_dict(weights, strict=True, assign=True)
    model.materialise()
    model.tokenizer = tokenizer
    if tokenizer is not None:
        model.size = tokenizer.image_shape[1:]
    return model.eval()


def sizes(
    state: Mapping[str, Tensor],
    *,
    source: str | Path,
    side: int,
    heads: int = 0,
    below: int = 0,
) -> GPTConfig:
    """Sizes from the tensors' shapes.

    Args:
        below: how many of the layers come after the first exit (NAR).
    """
    if any(name.startswith("cls_embedding.cap_proj") for name in state):
        raise CheckpointError(
            f"{source} is a text-conditional model (t2i)",
            why="only class-conditional ones (c2i) are supported: T5 would have to read the text",
            fix="use a c2i checkpoint",
        )
    try:
        vocabulary, width = state["tok_embeddings.weight"].shape
        rows = state["cls_embedding.embedding_table.weight"].shape[0]
        hidden = state["layers.0.feed_forward.w1.weight"].shape[0]
    except (KeyError, ValueError) as error:
        raise CheckpointError(
            f"{source} is not a checkpoint of LlamaGen or NAR", why=f"it has no tensor {error}"
        ) from error
    numbers = [re.match(r"layers\.(\d+)\.", name) for name in state]
    layers = 1 + max(int(match[1]) for match in numbers if match)
    heads = heads or HEADS.get(width, max(width // 64, 1))
    if width % (4 * heads):
        raise CheckpointError(f"{source}: {heads} heads do not divide its width {width}")
    return GPTConfig(
        vocabulary=vocabulary,
        classes=rows - 1,
        width=width,
        heads=heads,
        layers=layers - below,
        hidden=hidden,
        side=side,
        below=below,
    )


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of an official file: under `model`, `module` or `state_dict`, or flat.

    Nothing in the file is executed.
    """
    if path.suffix == ".safetensors":
        return checkpoints.load(path)[0]
    # Files of the published training script also hold its options, a plain namespace.
    with torch.serialization.safe_globals([argparse.Namespace]):
        content: Any = checkpoints.load_pickle(path)
    if isinstance(content, Mapping):
        nested = [content[key] for key in ("model", "module", "state_dict") if key in content]
        content = nested[0] if nested else content
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"{path} holds no weights", why=f"it is a {type(content).__name__}, not a dict"
        )
    # `freqs_cis` is the rotary table, which some versions of the code saved.
    return {
        str(name).removeprefix("_orig_mod."): value
        for name, value in content.items()
        if isinstance(value, Tensor) and name != "freqs_cis"
    }


def checkpoint_file(path: str | Path, pattern: str) -> Path:
    """The file, or the only one of a folder whose name without ending fits the pattern."""
    path = Path(path)
    if not path.is_dir():
        return path
    found = [
        file
        for file in sorted(path.glob(f"{pattern}.*"))
        if file.suffix in (".pt", ".pth", ".bin", ".safetensors")
    ]
    if len(found) != 1:
        names = ", ".join(file.name for file in found) or "none"
        raise CheckpointError(
            f"{path} must hold one file {pattern}.pt", why=f"found: {names}", fix="name the file"
        )
    return found[0]


def grid_side(tokenizer: LlamaGenVQ | None) -> int:
    if tokenizer is None:
        raise ValueError("give a tokenizer or the side of the token grid")
    return tokenizer.grid[0]


def interval(cfg_interval: int, scale: float) -> Guidance:
    """The guidance of the published `--cfg-interval`; -1 guides all tokens.

    The published loop counts from the second token and compares with `>`.
    """
    if cfg_interval < 0:
        return Guidance(scale)
    return Guidance(scale, "interval", last=cfg_interval + 1)


def _size_of(path: Path) -> int:
    match = re.search(r"_(\d{3,4})$", path.stem)
    if match is None:
        raise CheckpointError(
            f"{path} does not say the size of its images",
            why="neither its tensors nor its name do",
            fix=f"name it as the published files are: {path.stem}_256{path.suffix}",
        )
    return int(match[1])
