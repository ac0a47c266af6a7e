"""Casanovo's network, for inference: encoder of peaks, and a decoder with a cache.

Both are post-norm transformers (Yilmaz et al. 2022; Vaswani et al. 2017) with sines of real numbers
for m/z, intensity, mass and position. Parameters carry the names that they have in a checkpoint.
The published code decodes the whole prefix again at every step and copies the spectrum's states for
every beam; here a step feeds one slot, and the hypotheses of a spectrum share its states.

Phases are computed in float32 as the published models do: at 2000 Da that is a tenth of the
shortest wavelength, and the weights were trained with this rounding.

Shapes: B spectra, P peaks, T = 1 + P states, N hypotheses (a multiple of B), R slots fed, D width,
H heads, d head width.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqgen.attention import MaskView, attend
from seqgen.cache import Cache
from seqgen.canvas import Canvas
from seqgen.inputs import ShiftedInputs
from seqgen.linear import Linear, linear
from seqgen.model import Context
from seqgen_peptides.context import SpectrumContext
from seqgen_peptides.residues import PAD
from seqgen_peptides.spectra import SpectrumBatch

PROTON = 1.007276
"""In Da, as Casanovo rounds it: in a phase of 0.001 Da the sixth decimal counts."""


@dataclass(frozen=True)
class Sizes:
    """Sizes of the network: width, heads, feed-forward width, layers of encoder and decoder."""

    width: int
    heads: int
    feed_forward: int
    encoder_layers: int
    decoder_layers: int


@dataclass(frozen=True)
class CasanovoContext(SpectrumContext):
    """Encoded spectra, and what enters the decoder at slot 0.

    Attributes:
        precursor_BD: sines of the precursor's mass, plus the embedding of its charge.
    """

    precursor_BD: Tensor | None = None


class FloatSines(nn.Module):
    """Real numbers [...] -> sines and cosines [..., D], the wavelengths in the checkpoint."""

    sin_term: Tensor
    cos_term: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        sines = (width + 1) // 2
        self.register_buffer("sin_term", torch.ones(sines))
        self.register_buffer("cos_term", torch.ones(width - sines))

    def forward(self, x: Tensor) -> Tensor:
        phases = x[..., None].to(self.sin_term.dtype) / torch.cat([self.sin_term, self.cos_term])
        sines = len(self.sin_term)
        phases[..., :sines].sin_()
        phases[..., sines:].cos_()
        return phases


class SpectrumEncoder(nn.Module):
    """Preprocessed spectra -> states of a learned token and of each peak."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.latent_spectrum = nn.Parameter(torch.zeros(1, 1, sizes.width))
        self.peak_encoder = _PeakEncoder(sizes.width)
        self.transformer_encoder = _Encoder(sizes)

    def forward(self, batch: SpectrumBatch) -> tuple[Tensor, Tensor]:
        """States [B, T, D] and which are in use, bool [B, T]."""
        peaks = self.peak_encoder(batch.mz_BP, batch.intensity_BP)
        x = torch.cat([self.latent_spectrum.expand(len(peaks), -1, -1), peaks], dim=1)
        valid_BT = F.pad(batch.valid_BP, (1, 0), value=True)
        return self.transformer_encoder(x, valid_BT), valid_BT


class PrecursorToken(nn.Module):
    """Mass and charge of the precursor -> [B, D]."""

    def __init__(self, width: int, charges: int) -> None:
        super().__init__()
        self.mass = FloatSines(width)
        self.charge = nn.Embedding(charges, width)

    def forward(self, precursor_mz_B: Tensor, charge_B: Tensor) -> Tensor:
        mass_B = (precursor_mz_B.to(self.mass.sin_term.dtype) - PROTON) * charge_B
        out: Tensor = self.mass(mass_B) + self.charge(charge_B - 1)
        return out


class CasanovoInputs(ShiftedInputs):
    """The precursor at slot 0, then the residue before the slot; positions are added."""

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__(embedding, start_id=PAD)
        self.positions = FloatSines(embedding.embedding_dim)

    def forward(
        self,
        canvas: Canvas,
        slots_BR: Tensor,
        valid_BR: Tensor | None = None,
        context: Context | None = None,
    ) -> Tensor:
        ids_NR = canvas.take((slots_BR - 1).clamp(min=0))
        return self._placed(self.embedding(ids_NR), slots_BR, context)

    def embed(self, ids_BS: Tensor, context: Context | None = None) -> Tensor:
        """Embeddings [N, S, D] of shifted ids; the id at slot 0 means nothing."""
        slots_1S = torch.arange(ids_BS.shape[1], device=ids_BS.device)[None]
        return self._placed(self.embedding(ids_BS), slots_1S, context)

    def _placed(self, x_NRD: Tensor, slots_BR: Tensor, context: Context | None) -> Tensor:
        assert isinstance(context, CasanovoContext)
        first = context.precursor_BD
        assert first is not None
        # Hypotheses of a spectrum share its token, uncopied.
        x = x_NRD.view(len(first), -1, *x_NRD.shape[1:])
        begins = (slots_BR == 0)[..., None]
        begins = begins[None] if len(begins) == 1 else begins.view(*x.shape[:3], 1)
        x = torch.where(begins, first[:, None, None], x).flatten(0, 1)
        out: Tensor = x + self.positions(slots_BR)
        return out


class CasanovoDecoder(nn.Module):
    """The decoder; a `Backbone`."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.layers = nn.ModuleList(_DecoderLayer(sizes) for _ in range(sizes.decoder_layers))

    def forward(
        self,
        x_BRD: Tensor,
        coordinates_BRA: Tensor,
        *,
        view: MaskView | None = None,
        cache: Cache | None = None,
        context: Context | None = None,
    ) -> Tensor:
        """Hidden states [N, R, D]. The inputs hold the positions: coordinates are not used."""
        assert context is not None
        for index, layer in enumerate(self.layers):
            x_BRD = layer(x_BRD, index, view, cache, context)
        return x_BRD

    def new_cache(self, batch: int, capacity: int) -> Cache:
        weight = next(self.parameters())
        return Cache(
            layers=len(self.layers),
            batch=batch,
            capacity=capacity,
            heads=self.sizes.heads,
            head_width=self.sizes.width // self.sizes.heads,
            dtype=weight.dtype,
            device=weight.device,
        )

    def prepare(self, context: Context) -> Context:
        """Project the keys and values of the spectra, once a decode."""
        if context.layers or context.states_BTD is None:
            return context
        layers = []
        for layer in self.layers:
            assert isinstance(layer, _DecoderLayer)
            layers.append(layer.multihead_attn.keys_values(context.states_BTD))
        return replace(context, layers=tuple(layers))


class _PeakEncoder(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.mz_encoder = FloatSines(width)
        self.int_encoder = FloatSines(width)
        self.combiner = Linear(2 * width, width, bias=False)

    def forward(self, mz_BP: Tensor, intensity_BP: Tensor) -> Tensor:
        both = torch.cat([self.mz_encoder(mz_BP), self.int_encoder(intensity_BP)], dim=-1)
        out: Tensor = self.combiner(both)
        return out


class _Encoder(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_EncoderLayer(sizes) for _ in range(sizes.encoder_layers))

    def forward(self, x_BTD: Tensor, valid_BT: Tensor) -> Tensor:
        for layer in self.layers:
            x_BTD = layer(x_BTD, valid_BT[:, None, None])
        return x_BTD


class _EncoderLayer(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.self_attn = _Attention(sizes)
        self.linear1 = Linear(sizes.width, sizes.feed_forward)
        self.linear2 = Linear(sizes.feed_forward, sizes.width)
        self.norm1 = nn.LayerNorm(sizes.width)
        self.norm2 = nn.LayerNorm(sizes.width)

    def forward(self, x_BTD: Tensor, mask: Tensor) -> Tensor:
        query, key, value = self.self_attn.project(x_BTD)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        x_BTD = self.norm1(_sum(self.self_attn.merge(mixed), x_BTD))
        out: Tensor = self.norm2(_sum(self.linear2(self.linear1.relu(x_BTD)), x_BTD))
        return out


class _DecoderLayer(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.self_attn = _Attention(sizes)
        self.multihead_attn = _Attention(sizes)
        self.linear1 = Linear(sizes.width, sizes.feed_forward)
        self.linear2 = Linear(sizes.feed_forward, sizes.width)
        self.norm1 = nn.LayerNorm(sizes.width)
        self.norm2 = nn.LayerNorm(sizes.width)
        self.norm3 = nn.LayerNorm(sizes.width)

    def forward(
        self,
        x_NRD: Tensor,
        index: int,
        view: MaskView | None,
        cache: Cache | None,
        context: Context,
    ) -> Tensor:
        query, key, value = self.self_attn.project(x_NRD)
        if cache is not None:
            key, value = cache.write(index, key, value)
        mixed = attend(query, key, value, view=view)
        x_NRD = self.norm1(_sum(self.self_attn.merge(mixed), x_NRD))
        x_NRD = self.norm2(_sum(self.multihead_attn.cross(x_NRD, index, context), x_NRD))
        out: Tensor = self.norm3(_sum(self.linear2(self.linear1.relu(x_NRD)), x_NRD))
        return out


class _Attention(nn.Module):
    """The three projections in one matrix, as in `nn.MultiheadAttention`."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.width, self.heads = sizes.width, sizes.heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * sizes.width, sizes.width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * sizes.width))
        self.out_proj = Linear(sizes.width, sizes.width)
        nn.init.xavier_uniform_(self.in_proj_weight)

    def project(self, x_BRD: Tensor) -> list[Tensor]:
        """Query, key and value, [B, H, R, d] each."""
        return self._heads(linear(x_BRD, self.in_proj_weight, self.in_proj_bias), 3)

    def keys_values(self, states_BTD: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of a context, [B, H, T, d] each."""
        weight, bias = self.in_proj_weight[self.width :], self.in_proj_bias[self.width :]
        key, value = self._heads(linear(states_BTD, weight, bias), 2)
        return key.contiguous(), value.contiguous()

    def cross(self, x_NRD: Tensor, index: int, context: Context) -> Tensor:
        """Attention over the context; hypotheses of a spectrum are more queries of its row."""
        if context.layers:
            key, value = context.layers[index]
        else:
            assert context.states_BTD is not None
            key, value = self.keys_values(context.states_BTD)
        weight, bias = self.in_proj_weight[: self.width], self.in_proj_bias[: self.width]
        shape = x_NRD.shape
        x_BQD = linear(x_NRD, weight, bias).view(key.shape[0], -1, self.width)
        (query,) = self._heads(x_BQD, 1)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=context.key_mask)
        return self.merge(mixed).view(shape)

    def merge(self, mixed_BHRd: Tensor) -> Tensor:
        """The heads' results -> [B, R, D]."""
        out: Tensor = self.out_proj(mixed_BHRd.transpose(1, 2).flatten(2))
        return out

    def _heads(self, x_BRD: Tensor, parts: int) -> list[Tensor]:
        split = x_BRD.view(*x_BRD.shape[:2], parts, self.heads, -1).permute(2, 0, 3, 1, 4)
        return list(split.unbind())


def _sum(new: Tensor, x: Tensor) -> Tensor:
    """A sublayer's output and the residual, added in place where no gradient may be asked for."""
    return new + x if torch.is_grad_enabled() else new.add_(x)
