"""The Paraformer decoder: all tokens in one pass, from one acoustic embedding each.

Gao et al., "Paraformer" (arXiv:2206.08317). Its layers run in an unusual order: feed-forward,
then an FSMN memory instead of self-attention, then cross-attention. Parameter names and shapes are
those of the official checkpoints.

Shape suffixes: B batch, N tokens, T frames, D width, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from seqgen.linear import Linear
from seqgen_speech.encoder import EPS, FsmnMemory, attention, padding_mask


@dataclass(frozen=True, kw_only=True)
class ParaformerDecoderConfig:
    """Sizes of the decoder; the defaults are those of Paraformer-large.

    Attributes:
        vocabulary: number of tokens V.
        width: model width D, the same as the encoder's.
        heads: heads of the cross-attention.
        ffn_width: inner width of the feed-forward layers.
        layers: layers with cross-attention.
        memory_layers: further layers without it (`decoders2`).
        kernel: tokens that the FSMN memory spans.
        shift: tokens by which the memory's window is moved into the past.
        dropout: after every sub-layer, and inside the feed-forward layers.
        attention_dropout: on the probabilities of the cross-attention.
    """

    vocabulary: int = 8404
    width: int = 512
    heads: int = 4
    ffn_width: int = 2048
    layers: int = 16
    memory_layers: int = 0
    kernel: int = 11
    shift: int = 0
    dropout: float = 0.1
    attention_dropout: float = 0.1


class ParaformerSanmDecoder(nn.Module):
    """Acoustic embeddings and encoder states -> one hidden state a token."""

    def __init__(self, config: ParaformerDecoderConfig) -> None:
        super().__init__()
        self.config = config
        # Only the glancing sampler of the training reads the token embeddings.
        self.embed = nn.ModuleList([nn.Embedding(config.vocabulary, config.width)])
        self.decoders = nn.ModuleList(
            DecoderLayer(config, cross_attention=True) for _ in range(config.layers)
        )
        if config.memory_layers:
            self.decoders2 = nn.ModuleList(
                DecoderLayer(config, cross_attention=False) for _ in range(config.memory_layers)
            )
        self.decoders3 = nn.ModuleList([FinalLayer(config)])
        self.after_norm = nn.LayerNorm(config.width, eps=EPS)
        self.output_layer = Linear(config.width, config.vocabulary)

    def forward(
        self,
        embeddings_BND: Tensor,
        lengths_B: Tensor,
        memory_BTD: Tensor,
        memory_lengths_B: Tensor,
    ) -> Tensor:
        """Decode a padded batch; slots beyond a row's length are arbitrary in the result.

        Args:
            embeddings_BND: one acoustic embedding a token.
            lengths_B: tokens of each row.
            memory_BTD: encoder states.
            memory_lengths_B: valid encoder states of each row.

        Returns:
            hidden states [B, N, width]; `output_layer` turns them into logits.
        """
        mask_BN = padding_mask(lengths_B, embeddings_BND.shape[1])
        mask_BT = padding_mask(memory_lengths_B, memory_BTD.shape[1])
        x_BND = embeddings_BND
        for layer in self.layers():
            x_BND = layer(x_BND, mask_BN, memory_BTD, mask_BT)
        out: Tensor = self.after_norm(self.decoders3[0](x_BND))
        return out

    def layers(self) -> list[DecoderLayer]:
        """The layers with a memory, in order (all but `decoders3`)."""
        return [*self.decoders, *getattr(self, "decoders2", [])]

    def embed_tokens(self, ids: Tensor) -> Tensor:
        """Embeddings of token ids, any shape -> [..., width]."""
        out: Tensor = self.embed[0](ids)
        return out


class DecoderLayer(nn.Module):
    """t = FFN(norm1(x)); s = x + fsmn(norm2(t)); y = s + cross_attention(norm3(s), memory)."""

    def __init__(self, config: ParaformerDecoderConfig, *, cross_attention: bool) -> None:
        super().__init__()
        self.self_attn = MemoryBlock(config)
        self.src_attn = CrossAttention(config) if cross_attention else None
        self.feed_forward = NormedFeedForward(config)
        self.norm1 = nn.LayerNorm(config.width, eps=EPS)
        self.norm2 = nn.LayerNorm(config.width, eps=EPS)
        if cross_attention:
            self.norm3 = nn.LayerNorm(config.width, eps=EPS)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, x_BND: Tensor, mask_BN: Tensor | None, memory_BTD: Tensor, mask_BT: Tensor | None
    ) -> Tensor:
        """Masks are True where valid; None where everything is."""
        t_BND = self.norm2(self.feed_forward(self.norm1(x_BND)))
        s_BND = x_BND + self.dropout(self.self_attn.fsmn_block(t_BND, mask_BN))
        return self.attend(s_BND, memory_BTD, mask_BT)

    def attend(self, s_BND: Tensor, memory_BTD: Tensor, mask_BT: Tensor | None) -> Tensor:
        """The cross-attention with its norm and residual; nothing in `decoders2`."""
        if self.src_attn is None:
            return s_BND
        out: Tensor = s_BND + self.dropout(self.src_attn(self.norm3(s_BND), memory_BTD, mask_BT))
        return out


class MemoryBlock(nn.Module):
    """Holds the FSMN memory under its official key, `self_attn.fsmn_block`."""

    def __init__(self, config: ParaformerDecoderConfig) -> None:
        super().__init__()
        self.fsmn_block = FsmnMemory(config.width, config.kernel, config.shift)


class CrossAttention(nn.Module):
    """Queries from the tokens; keys and values from the encoder, by one joint projection."""

    def __init__(self, config: ParaformerDecoderConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.attention_dropout = config.attention_dropout
        self.linear_q = Linear(config.width, config.width)
        self.linear_k_v = Linear(config.width, 2 * config.width)
        self.linear_out = Linear(config.width, config.width)

    def forward(self, x_BND: Tensor, memory_BTD: Tensor, mask_BT: Tensor | None) -> Tensor:
        k_BTD, v_BTD = self.linear_k_v(memory_BTD).chunk(2, dim=-1)
        return self.attend(x_BND, k_BTD, v_BTD, mask_BT)

    def attend(self, x_BND: Tensor, k_BTD: Tensor, v_BTD: Tensor, mask_BT: Tensor | None) -> Tensor:
        """Attention over keys and values that are projected already."""
        dropout = self.attention_dropout if self.training else 0.0
        joined = attention(
            self.linear_q(x_BND), k_BTD, v_BTD, mask_BT, heads=self.heads, dropout=dropout
        )
        out: Tensor = self.linear_out(joined)
        return out


class NormedFeedForward(nn.Module):
    """w_2(norm(relu(w_1 x))); w_2 has no bias."""

    def __init__(self, config: ParaformerDecoderConfig) -> None:
        super().__init__()
        self.w_1 = Linear(config.width, config.ffn_width)
        self.w_2 = Linear(config.ffn_width, config.width, bias=False)
        self.norm = nn.LayerNorm(config.ffn_width, eps=EPS)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        h = self.w_1.relu(x)
        out: Tensor = self.w_2(self.norm(self.dropout(h)))
        return out


class FinalLayer(nn.Module):
    """`decoders3`: FFN(norm1(x)), without a residual."""

    def __init__(self, config: ParaformerDecoderConfig) -> None:
        super().__init__()
        self.feed_forward = NormedFeedForward(config)
        self.norm1 = nn.LayerNorm(config.width, eps=EPS)

    def forward(self, x_BND: Tensor) -> Tensor:
        out: Tensor = self.feed_forward(self.norm1(x_BND))
        return out
