"""LlamaGen's image tokenizer (`vq_ds16_c2i.pt`, `vq_ds8_c2i.pt`), which NAR shares.

A convolutional autoencoder (VQGAN, Esser et al. 2021, arXiv 2012.09841) around a codebook of 16384
unit vectors of 8 numbers; latents are normalised too, so that the nearest code is the one of the
smallest angle (ViT-VQGAN, Yu et al. 2022, arXiv 2110.04627). Modules carry their published names.

Shapes: B rows, S slots, C channels, H and W of the image or latent, V codes, E numbers a code.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqgen import checkpoints
from seqgen.checkpoints import load_strict
from seqgen.errors import CheckpointError
from seqgen.tokenizers.patches import check_ids, check_images
from seqgen_images.official.vqgan_layers import (
    GROUPS,
    Downsample,
    Residual,
    Upsample,
    norm,
    through_level,
)

AT_ONCE = 4
"""Images that pass through the network together: at 256 x 256 each takes some 100 MB."""


@dataclass(frozen=True)
class VQConfig:
    """Sizes.

    Attributes:
        codes: V.
        code_width: E.
        widths: channels of each resolution, the finest first; each halves the one before.
        first: channels of the first convolution.
        blocks: residual blocks a resolution of the encoder; the decoder has one more.
        latent: channels between the convolutions and the codes.
    """

    codes: int
    code_width: int
    widths: tuple[int, ...]
    first: int
    blocks: int
    latent: int

    @property
    def factor(self) -> int:
        """Pixels a token, in height and in width."""
        return 1 << (len(self.widths) - 1)


class LlamaGenVQ(nn.Module):
    """Images to ids and back; a `Tokenizer`.

    Args:
        config: sizes.
        size: height and width of the images, a multiple of `config.factor`.
    """

    def __init__(self, config: VQConfig, size: int) -> None:
        super().__init__()
        side = size // config.factor
        self.config = config
        self.vocabulary = config.codes
        self.grid = (side, side)
        self.slots = side * side
        self.image_shape = (3, size, size)
        self.encoder = _Encoder(config)
        self.decoder = _Decoder(config)
        self.quantize = nn.ModuleDict({"embedding": nn.Embedding(config.codes, config.code_width)})
        self.quant_conv = nn.Conv2d(config.latent, config.code_width, 1)
        self.post_quant_conv = nn.Conv2d(config.code_width, config.latent, 1)

    @property
    def codebook_VE(self) -> Tensor:
        """The codes, of length 1."""
        embedding = self.quantize["embedding"]
        assert isinstance(embedding, nn.Embedding)
        return F.normalize(embedding.weight, dim=-1)

    @torch.no_grad()
    def encode(self, images_BCHW: Tensor) -> Tensor:
        """Ids [B, S] of images in [-1, 1]."""
        check_images(images_BCHW, self.image_shape)
        batches = torch.split(images_BCHW.to(self.codebook_VE.dtype), AT_ONCE)
        return torch.cat([self.nearest(self.latent(images)) for images in batches])

    def latent(self, images_BCHW: Tensor) -> Tensor:
        """The latent [B, E, H, W] of images."""
        out: Tensor = self.quant_conv(self.encoder(images_BCHW))
        return out

    def nearest(self, z_BEHW: Tensor) -> Tensor:
        """Ids [B, S] of a latent."""
        z_BSE = F.normalize(z_BEHW.flatten(2).transpose(1, 2), dim=-1)
        return (z_BSE @ self.codebook_VE.T).argmax(dim=-1)

    @torch.no_grad()
    def decode(self, ids_BS: Tensor) -> Tensor:
        """Images [B, C, H, W], about in [-1, 1]."""
        check_ids(ids_BS, self.slots)
        return self._decode(self.codebook_VE[ids_BS])

    @torch.no_grad()
    def decode_partial(self, ids_BS: Tensor, known_BS: Tensor) -> Tensor:
        """Images of which only some slots are known; the others hold the mean code."""
        check_ids(ids_BS, self.slots)
        codebook_VE = self.codebook_VE
        known = known_BS[..., None]
        z_BSE = codebook_VE[ids_BS.masked_fill(~known_BS, 0)]
        return self._decode(torch.where(known, z_BSE, codebook_VE.mean(dim=0)))

    def _decode(self, z_BSE: Tensor) -> Tensor:
        z_BEHW = z_BSE.transpose(1, 2).reshape(len(z_BSE), -1, *self.grid)
        parts = [self.decoder(self.post_quant_conv(part)) for part in torch.split(z_BEHW, AT_ONCE)]
        return torch.cat(parts).float()


def load_tokenizer(path: str | Path, *, size: int) -> LlamaGenVQ:
    """Load `vq_ds16_c2i.pt` or another of this layout; sizes are read from the tensors.

    Args:
        size: height and width of the images.

    Raises:
        CheckpointError: missing, damaged, refused, of another layout, or not for this size.
    """
    path = Path(path)
    content = checkpoints.load_pickle(path)
    if isinstance(content, Mapping):
        content = content.get("model", content)
    if not isinstance(content, Mapping):
        raise _wrong(path, f"it is a {type(content).__name__}, not a dict")
    state = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    return tokenizer_from_state(state, size=size, source=path)


def tokenizer_from_state(
    state: Mapping[str, Tensor], *, size: int, source: str | Path = "the checkpoint"
) -> LlamaGenVQ:
    """A tokenizer with published weights."""
    config = read_sizes(state, source)
    if size < config.factor or size % config.factor:
        raise CheckpointError(
            f"images of {size}x{size} do not fit the tokenizer {source}",
            why=f"a token is {config.factor}x{config.factor} pixels",
            fix=f"choose a multiple of {config.factor}",
        )
    with torch.device("meta"):
        tokenizer = LlamaGenVQ(config, size)
    tokenizer.to_empty(device="cpu")
    # Which codes the last training batches used; a discriminator may lie beside the model.
    load_strict(tokenizer, state, source=source, ignore=("quantize.codebook_used",))
    return tokenizer.eval()


def find_tokenizer(path: Path, given: str | Path | None) -> Path:
    """The tokenizer's file: the one given, or the only `vq_*` beside the model's."""
    if given is not None:
        return Path(given)
    beside = sorted(path.parent.glob("vq_*"))
    if len(beside) == 1:
        return beside[0]
    names = ", ".join(file.name for file in beside) or "none"
    raise CheckpointError(
        f"{path} needs its image tokenizer",
        why=f"one file vq_*.pt must lie in the same folder; found: {names}",
        fix="download vq_ds16_c2i.pt from the page FoundationVision/LlamaGen into that folder",
    )


def read_sizes(state: Mapping[str, Tensor], source: str | Path) -> VQConfig:
    """Sizes from the tensors' shapes."""
    widths: list[int] = []
    while (key := f"encoder.conv_blocks.{len(widths)}.res.0.conv1.weight") in state:
        widths.append(state[key].shape[0])
    found = (re.match(r"encoder\.conv_blocks\.0\.res\.(\d+)\.", name) for name in state)
    blocks = len({match[1] for match in found if match})
    try:
        codes, code_width = state["quantize.embedding.weight"].shape
        first, latent = (
            state[f"encoder.{name}.weight"].shape[0] for name in ("conv_in", "conv_out")
        )
    except (KeyError, ValueError) as error:
        raise _wrong(source, f"it has no tensor {error}") from error
    if not widths or any(width % GROUPS for width in (first, *widths)):
        raise _wrong(source, f"its resolutions have {widths} channels")
    return VQConfig(codes, code_width, tuple(widths), first, blocks, latent)


def _wrong(source: str | Path, why: str) -> CheckpointError:
    return CheckpointError(
        f"{source} is not an image tokenizer of LlamaGen", why=why, fix="use vq_ds16_c2i.pt"
    )


class _Encoder(nn.Module):
    def __init__(self, c: VQConfig) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(3, c.first, 3, padding=1)
        self.conv_blocks = nn.ModuleList()
        for level, (before, width) in enumerate(pairwise((c.first, *c.widths))):
            last = level == len(c.widths) - 1
            self.conv_blocks.append(
                _Level(before, width, c.blocks, attends=last, resample="" if last else "downsample")
            )
        self.mid = _middle(c.widths[-1])
        self.norm_out = norm(c.widths[-1])
        self.conv_out = nn.Conv2d(c.widths[-1], c.latent, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return _through(self, x)


class _Decoder(nn.Module):
    def __init__(self, c: VQConfig) -> None:
        super().__init__()
        widths = c.widths[::-1]
        self.conv_in = nn.Conv2d(c.latent, widths[0], 3, padding=1)
        self.mid = _middle(widths[0])
        self.conv_blocks = nn.ModuleList()
        for level, (before, width) in enumerate(pairwise((widths[0], *widths))):
            last = level == len(widths) - 1
            self.conv_blocks.append(
                _Level(
                    before, width, c.blocks + 1, attends=not level,
                    resample="" if last else "upsample",
                )
            )  # fmt: skip
        self.norm_out = norm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return _through(self, x)


def _through(part: _Encoder | _Decoder, x: Tensor) -> Tensor:
    """All modules of a half in the sequence in which they were defined."""
    out: Tensor = part.conv_in(x)
    stages = (part.conv_blocks, part.mid)
    for stage in stages if isinstance(part, _Encoder) else stages[::-1]:
        for block in stage:
            out = block(out)
    out = part.conv_out(F.silu(part.norm_out(out)))
    return out


class _Level(nn.Module):
    """The blocks of one resolution, and the step to the next one."""

    def __init__(
        self, before: int, width: int, blocks: int, *, attends: bool, resample: str
    ) -> None:
        super().__init__()
        self.res = nn.ModuleList(
            Residual(width if index else before, width) for index in range(blocks)
        )
        self.attn = nn.ModuleList(_Attention(width) for _ in range(blocks * attends))
        self.downsample = Downsample(width) if resample == "downsample" else None
        self.upsample = Upsample(width) if resample == "upsample" else None

    def forward(self, x: Tensor) -> Tensor:
        return through_level(self.res, self.attn, self.downsample or self.upsample, x)


class _Attention(nn.Module):
    """One head over all pixels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = norm(width)
        self.q, self.k, self.v = (nn.Conv2d(width, width, 1) for _ in range(3))
        self.proj_out = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        q, k, v = (part(h).flatten(2).transpose(1, 2) for part in (self.q, self.k, self.v))
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).view(x.shape)
        out: Tensor = x + self.proj_out(mixed)
        return out


def _middle(width: int) -> nn.ModuleList:
    return nn.ModuleList([Residual(width, width), _Attention(width), Residual(width, width)])
