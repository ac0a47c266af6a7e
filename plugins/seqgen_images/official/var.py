"""VAR (Tian et al. 2024, arXiv 2404.02905), from official files: images scale by scale.

    model = load("folder")                     # with var_d16.pth and vae_ch160v4096z32.pth
    context = guided_context(model.context(labels_BA), model.context(-torch.ones_like(labels_BA)))
    canvas = model.canvas(seeds_B)
    done = model.decoder(DecodingConfig(top_k=900, top_p=0.96)).generate(
        model.guided(ramp(1.5)), canvas, context
    )
    images = model.images(done.values)

All tokens of a scale are drawn at once, given the image of the scales before it. Published
sampling, which `VarModel.own` names: temperature 1, top-k 900, top-p 0.96 and a guidance that grows
with the scale, `ramp(1.5)`. The published demo has `ramp(4)` and top-p 0.95, for the looks.

Shapes: B rows, S slots, A attributes (one, the class), D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from seqgen import checkpoints
from seqgen.adaln_transformer import AdaLNTransformer, AdaLNTransformerConfig
from seqgen.canvas import Canvas
from seqgen.decoders.base import Decoder
from seqgen.errors import CheckpointError
from seqgen.grid_orders import Scales
from seqgen.guidance import Guidance, GuidedModel
from seqgen.heads import CategoricalHead
from seqgen.model import Context, SequenceModel
from seqgen.orders import Order
from seqgen.scale_inputs import ScaleInputs
from seqgen_images.decoding import DecodingConfig, engine_decoder
from seqgen_images.known_slots import over_scales
from seqgen_images.labels import Labels
from seqgen_images.official.var_keys import (
    State,
    VarConfig,
    fill,
    read_files,
    vae_config,
    vae_ignored,
    vae_places,
    var_config,
    var_ignored,
    var_places,
)
from seqgen_images.official.var_vqvae import VarTokenizer, VQVAEConfig
from seqgen_images.options import SamplingSettings
from seqgen_images.pixels import to_bytes

KIND = "seqgen-images-var"

NULL = -1
"""The label of no class."""


class VarModel(nn.Module):
    """A class-conditional model; an `ImageModel`.

    Args:
        config: sizes of the transformer.
        tokenizer: its image tokenizer, whose scales are the transformer's.
    """

    engine: str = "next-scale"
    channels = 3
    own = SamplingSettings(top_k=900, top_p=0.96, guidance=2.5, guidance_schedule="linear")

    def __init__(self, config: VarConfig, tokenizer: VarTokenizer) -> None:
        super().__init__()
        self.config = config
        self.tokenizer = tokenizer
        self.size = (tokenizer.config.side, tokenizer.config.side)
        self.labels = Labels((("class", tuple(map(str, range(config.classes)))),))
        width = config.transformer.width
        self.classes = nn.Embedding(config.classes + 1, width)
        self.sequence = SequenceModel(
            inputs=ScaleInputs(tokenizer.quantizer, width),
            backbone=AdaLNTransformer(config.transformer),
            head=CategoricalHead(width, config.vocabulary, bias=True),
        )

    def context(self, labels_BA: Tensor) -> Context:
        index_B = labels_BA[:, 0]
        null_B = index_B == NULL
        return Context(condition_BD=self.classes(index_B.masked_fill(null_B, self.config.classes)))

    def order(self) -> Order:
        return Scales(self.config.scales)

    def canvas(
        self,
        seeds_B: Tensor,
        *,
        images_BCHW: Tensor | None = None,
        known_BHW: Tensor | None = None,
    ) -> Canvas:
        slots = self.tokenizer.slots
        values = torch.zeros(len(seeds_B), slots, dtype=torch.int64, device=seeds_B.device)
        known_BS = None
        if images_BCHW is not None and known_BHW is not None:
            values = self.tokenizer.encode(images_BCHW)
            known_BS = over_scales(known_BHW, self.config.scales)
        return Canvas(values, seeds=seeds_B, given=known_BS)

    def decoder(self, config: DecodingConfig) -> Decoder:
        return engine_decoder(self.engine, self.order(), config)

    def guided(self, guidance: Guidance) -> SequenceModel:
        return GuidedModel(self.sequence, scale=guidance)

    def images(self, values: Tensor, *, known_BS: Tensor | None = None) -> Tensor:
        if known_BS is None:
            return to_bytes(self.tokenizer.decode(values))
        return to_bytes(self.tokenizer.decode_partial(values, known_BS))


def ramp(cfg: float) -> Guidance:
    """The published guidance: (1 + t) conditional - t unconditional, t from 0 to `cfg`."""
    return Guidance(1 + cfg, "linear")


def load(
    path: str | Path,
    *,
    tokenizer: str | Path | None = None,
    scales: tuple[int, ...] | None = None,
) -> VarModel:
    """Load official files, or what `convert` made of them.

    Args:
        path: a folder with one `var_*.pth` and one `vae_*.pth`; the transformer's file; a file of
            a training, which holds both; or a converted `.safetensors`.
        tokenizer: the tokenizer's file; None: the `vae_*.pth` in the same folder.
        scales: side of each scale's grid, where the file does not say.

    Raises:
        CheckpointError: missing, damaged, refused, of another model, or not fitting.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        return _load_converted(path)
    file = _only_file(path, "var_*.pth") if path.is_dir() else path
    states = read_files(file)
    if "var" not in states:
        raise CheckpointError(
            f"{file} is VAR's image tokenizer without its transformer",
            fix=f"give the folder that also holds var_d16.pth: {file.parent}",
        )
    vae_file = file
    if "vae" not in states or tokenizer is not None:
        vae_file = Path(tokenizer) if tokenizer else _only_file(file.parent, "vae_*.pth")
        states["vae"] = read_files(vae_file).get("vae", {})
    return from_states(
        states["var"], states["vae"], scales=scales, source=file, tokenizer_source=vae_file
    )


def from_states(
    var: State,
    vae: State,
    *,
    scales: tuple[int, ...] | None = None,
    source: object = "the checkpoint",
    tokenizer_source: object = "the tokenizer's checkpoint",
) -> VarModel:
    """A model with published weights, in eval mode."""
    config = var_config(var, source=source, scales=scales)
    vae_sizes = vae_config(vae, source=tokenizer_source, scales=config.scales)
    if (vae_sizes.latent, vae_sizes.codes) != (config.latent, config.vocabulary):
        raise CheckpointError(
            f"{source} and {tokenizer_source} do not belong together",
            why=f"the transformer works with {config.vocabulary} codes of {config.latent} numbers, "
            f"the tokenizer has {vae_sizes.codes} of {vae_sizes.latent}",
        )
    model = _empty(config, vae_sizes)
    own = model.tokenizer
    fill(
        own,
        vae,
        vae_places(own, vae_sizes),
        ignored=filter(vae_ignored, vae),
        source=tokenizer_source,
    )
    fill(model, var, var_places(config), ignored=filter(var_ignored, var), source=source)
    return model


def convert(
    path: str | Path,
    out: str | Path,
    *,
    tokenizer: str | Path | None = None,
    scales: tuple[int, ...] | None = None,
) -> Path:
    """Write official files as one safetensors file that `load` reads; arguments as there."""
    model = load(path, tokenizer=tokenizer, scales=scales)
    config = {
        "kind": KIND,
        "transformer": asdict(model.config),
        "tokenizer": asdict(model.tokenizer.config),
    }
    return checkpoints.save(out, model.state_dict(), config)


def _load_converted(path: Path) -> VarModel:
    fix = "convert the official files with seqgen_images.official.var.convert"
    state, config = checkpoints.load_kind(path, KIND, what="a converted VAR", fix=fix)
    with checkpoints.building(path, fix="convert the official files again"):
        model = _empty(_read_config(config["transformer"]), _read_vae(config["tokenizer"]))
    checkpoints.load_strict(model, state, source=path)
    return model


def _read_config(data: Mapping[str, Any]) -> VarConfig:
    transformer = AdaLNTransformerConfig(**data["transformer"])
    return VarConfig(**{**data, "transformer": transformer, "scales": tuple(data["scales"])})


def _read_vae(data: Mapping[str, Any]) -> VQVAEConfig:
    return VQVAEConfig(**{**data, "scales": tuple(data["scales"]), "widths": tuple(data["widths"])})


def _empty(config: VarConfig, vae: VQVAEConfig) -> VarModel:
    """A model in eval mode whose weights are yet to be filled in."""
    with torch.device("meta"):  # no time for random numbers that are replaced
        model = VarModel(config, VarTokenizer(vae))
    model.to_empty(device="cpu")
    quantizer = model.tokenizer.quantizer
    quantizer.use_KV.fill_(1 / vae.codes)
    quantizer.initialised.fill_(True)
    for half in (model.tokenizer.encoder, model.tokenizer.decoder):
        half.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # fast on a CPU
    backbone = model.sequence.backbone
    assert isinstance(backbone, AdaLNTransformer)
    for block in backbone.stack:
        block.attention.qkv.bias.data.zero_()  # keys have none
    return model.eval().requires_grad_(False)


def _only_file(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        names = ", ".join(file.name for file in found) or "none"
        raise CheckpointError(
            f"{folder} must hold one file {pattern}",
            why=f"found: {names}",
            fix="name the files: the transformer's as the model, the tokenizer's beside it",
        )
    return found[0]
