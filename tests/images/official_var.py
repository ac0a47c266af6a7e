"""VAR in its published layout, small, with weights by rule; its golden numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from tests.images.rule_weights import rule_weights
from torch import Tensor

from seqgen.guidance import Guidance, guided_context
from seqgen_images.decoding import DecodingConfig
from seqgen_images.official.var import VarModel, from_states
from seqgen_images.official.var_keys import VarConfig, vae_places, var_config, var_places
from seqgen_images.official.var_vqvae import VarTokenizer, VQVAEConfig

DATA = Path(__file__).parent / "data"
SCALES = (1, 2, 3, 4)
WHOLE_IMAGES = ("reconstruction", "greedy_cfg15")
BY_RULE = ("image", "fq", "vae_keys", "var_keys")
SIZES = VQVAEConfig(scales=SCALES, codes=64, latent=8, first=32, widths=(32, 32, 64, 64, 128))


def golden(folder: Path = DATA) -> dict[str, np.ndarray]:
    """Golden numbers; of images every other pixel, and nothing that a rule gives again.

    The copy beside the tests was made from the shared file by this function.
    """
    with np.load(folder / "var_tiny.npz") as file:
        found = {name: file[name] for name in file if name not in BY_RULE}
    if folder != DATA:
        found |= {name: found[name][:, :, ::2, ::2] for name in WHOLE_IMAGES}
    return found


def ruled(*shape: int, amplitude: float = 1.0) -> Tensor:
    """The golden files' inputs."""
    values = amplitude * np.sin(1.6180339 * np.arange(int(np.prod(shape))) + 0.3)
    return torch.from_numpy(values.reshape(shape).astype(np.float32))


def published_shapes(
    config: VarConfig, tokenizer: VQVAEConfig
) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
    """Names and shapes in the files of the transformer and of the tokenizer, without buffers."""
    with torch.device("meta"):
        made = VarTokenizer(tokenizer)
        own = VarModel(config, made).state_dict()
    heads, width = config.transformer.heads, config.transformer.width
    further_axes = {
        "pos_start": lambda shape: (1, *shape),
        "pos_1LC": lambda shape: (1, *shape),
        "scale_mul_1H11": lambda shape: (1, heads, 1, 1),
        "ada_gss": lambda shape: (1, 1, 6, width),
    }
    var = {}
    for key, place in var_places(config).items():
        shape = tuple(own[place.name][place.part].shape)
        change = further_axes.get(key.rpartition(".")[2])
        var[key] = change(shape) if change else shape
    vae_own = made.state_dict()
    vae = {
        key: tuple(vae_own[place.name][place.part].shape)
        for key, place in vae_places(made, tokenizer).items()
    }
    return var, vae


def tiny_config() -> VarConfig:
    shapes = {
        "head.weight": (64, 64),
        "word_embed.weight": (64, 8),
        "class_emb.weight": (6, 64),
        "blocks.0.ffn.fc1.weight": (256, 64),
        "blocks.1.ffn.fc1.weight": (256, 64),
        "blocks.0.attn.scale_mul_1H11": (1, 2, 1, 1),
    }
    state = {name: torch.empty(shape) for name, shape in shapes.items()}
    return var_config(state, source="a test", scales=SCALES)


def tiny_states() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The files' contents: transformer and tokenizer, with the buffers that published ones have."""
    var_shapes, vae_shapes = published_shapes(tiny_config(), SIZES)
    var, vae = rule_weights(var_shapes), rule_weights(vae_shapes)
    sizes = torch.tensor([side * side for side in SCALES])
    level = torch.arange(len(SCALES)).repeat_interleave(sizes)
    var["lvl_1L"] = level[None]
    sees = level[:, None] >= level
    var["attn_bias_for_masking"] = torch.where(sees, 0.0, -torch.inf)[None, None]
    for block in range(2):
        var[f"blocks.{block}.attn.zero_k_bias"] = torch.zeros(64)
    vae["quantize.ema_vocab_hit_SV"] = torch.zeros(len(SCALES), 64)
    return var, vae


def tiny() -> VarModel:
    return from_states(*tiny_states())


def generated(
    model: VarModel,
    labels_B: Tensor,
    *,
    guidance: Guidance | None = None,
    seeds_B: Tensor | None = None,
    options: DecodingConfig | None = None,
) -> tuple[Tensor, Tensor]:
    """(ids, confidences) [B, S]."""
    options = options or DecodingConfig(temperature=0)
    labels_BA = labels_B[:, None]
    context, sequence = model.context(labels_BA), model.sequence
    if guidance is not None:
        context = guided_context(context, model.context(torch.full_like(labels_BA, -1)))
        sequence = model.guided(guidance)
    canvas = model.canvas(torch.zeros(len(labels_B)).long() if seeds_B is None else seeds_B)
    done = model.decoder(options).generate(sequence, canvas, context)
    assert done.forwards == len(model.config.scales)
    return done.values, done.confidence_BS
