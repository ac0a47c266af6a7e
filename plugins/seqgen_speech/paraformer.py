"""Paraformer: encoder, CIF predictor and one-pass decoder in one model.

Gao et al., "Paraformer: Fast and Accurate Parallel Transformer for Non-autoregressive End-to-End
Speech Recognition" (arXiv:2206.08317).

Shape suffixes: B batch, T frames, N tokens, D width, V vocabulary, F feature width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from seqgen.errors import ConfigError, did_you_mean
from seqgen_speech.cif import CifConfig, CifOutput, CifPredictor
from seqgen_speech.decoder import ParaformerDecoderConfig, ParaformerSanmDecoder
from seqgen_speech.encoder import SanmEncoder, SanmEncoderConfig


@dataclass(frozen=True, kw_only=True)
class ParaformerConfig:
    """Everything that fixes the parameters; `dataclasses.asdict` and `from_dict` are inverse.

    Attributes:
        encoder: sizes of the encoder.
        predictor: sizes of the CIF predictor.
        decoder: sizes of the decoder.
        ctc: whether there is a CTC head on the encoder.
        predictor_bias: 1 if the model also emits the end token, 0 if not.
        end_id: the end token `</s>`.
        blank_id: the CTC blank.
    """

    encoder: SanmEncoderConfig = field(default_factory=SanmEncoderConfig)
    predictor: CifConfig = field(default_factory=CifConfig)
    decoder: ParaformerDecoderConfig = field(default_factory=ParaformerDecoderConfig)
    ctc: bool = False
    predictor_bias: int = 1
    end_id: int = 2
    blank_id: int = 0

    def __post_init__(self) -> None:
        widths = {self.encoder.width, self.predictor.width, self.decoder.width}
        if len(widths) != 1:
            raise ConfigError(
                f"encoder, predictor and decoder must have one width, got {sorted(widths)}",
                fix="set the same `width` in all three",
            )
        if self.predictor_bias not in (0, 1):
            raise ConfigError(f"predictor_bias must be 0 or 1, got {self.predictor_bias}")

    @classmethod
    def small(
        cls,
        *,
        vocabulary: int,
        width: int = 128,
        encoder_layers: int = 4,
        decoder_layers: int = 2,
        heads: int = 4,
        ffn_width: int = 512,
        dropout: float = 0.1,
        predictor_bias: int = 0,
        ctc: bool = False,
        input_width: int = 560,
    ) -> ParaformerConfig:
        """A small model with the parts of the large one."""
        return cls(
            encoder=SanmEncoderConfig(
                input_width=input_width,
                width=width,
                heads=heads,
                ffn_width=ffn_width,
                layers=encoder_layers,
                dropout=dropout,
                attention_dropout=dropout,
            ),
            predictor=CifConfig(width=width, dropout=dropout),
            decoder=ParaformerDecoderConfig(
                vocabulary=vocabulary,
                width=width,
                heads=heads,
                ffn_width=ffn_width,
                layers=decoder_layers,
                dropout=dropout,
                attention_dropout=dropout,
            ),
            ctc=ctc,
            predictor_bias=predictor_bias,
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ParaformerConfig:
        """Rebuild a configuration that `dataclasses.asdict` has written.

        Raises:
            ConfigError: unknown key.
        """
        fields = dict(values)
        parts: dict[str, type[Any]] = {
            "encoder": SanmEncoderConfig,
            "predictor": CifConfig,
            "decoder": ParaformerDecoderConfig,
        }
        for name, part in parts.items():
            if name in fields:
                fields[name] = _from_fields(part, fields[name], name)
        return _from_fields(cls, fields, "model")


class Recognition(NamedTuple):
    """The result of one greedy pass.

    Attributes:
        ids_BN: most probable token of each slot; arbitrary beyond a row's count.
        log_probs_BNV: log-probabilities of all tokens.
        cif: counts, weights and peaks.
    """

    ids_BN: Tensor
    log_probs_BNV: Tensor
    cif: CifOutput


class Paraformer(nn.Module):
    """Features -> tokens in one pass: `encode`, `predict`, `decode`; `recognise` does all three."""

    def __init__(self, config: ParaformerConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = SanmEncoder(config.encoder)
        self.predictor = CifPredictor(config.predictor)
        self.decoder = ParaformerSanmDecoder(config.decoder)
        self.ctc = CtcHead(config.encoder.width, config.decoder.vocabulary) if config.ctc else None

    def encode(self, features_BTF: Tensor, lengths_B: Tensor) -> Tensor:
        """Normalised features -> encoder states [B, T, D]."""
        h_BTD: Tensor = self.encoder(features_BTF, lengths_B)
        return h_BTD

    def predict(
        self, h_BTD: Tensor, lengths_B: Tensor, target_lengths_B: Tensor | None = None
    ) -> CifOutput:
        """Encoder states -> acoustic embeddings and counts."""
        cif: CifOutput = self.predictor(h_BTD, lengths_B, target_lengths_B)
        return cif

    def decode(
        self, embeddings_BND: Tensor, counts_B: Tensor, h_BTD: Tensor, lengths_B: Tensor
    ) -> Tensor:
        """Acoustic embeddings -> logits [B, N, V]. N may be 0 (silence)."""
        batch, size, _ = embeddings_BND.shape
        if size == 0:
            return h_BTD.new_zeros(batch, 0, self.config.decoder.vocabulary)
        hidden_BND = self.decoder(embeddings_BND, counts_B, h_BTD, lengths_B)
        logits_BNV: Tensor = self.decoder.output_layer(hidden_BND)
        return logits_BNV

    @torch.inference_mode()
    def recognise(self, features_BTF: Tensor, lengths_B: Tensor) -> Recognition:
        """Greedy recognition of a padded batch."""
        h_BTD = self.encode(features_BTF, lengths_B)
        cif = self.predict(h_BTD, lengths_B)
        logits_BNV = self.decode(cif.embeddings_BND, cif.counts_B, h_BTD, lengths_B)
        log_probs_BNV = logits_BNV.float().log_softmax(-1)
        return Recognition(log_probs_BNV.argmax(-1), log_probs_BNV, cif)


class CtcHead(nn.Module):
    """A linear read-out of the encoder, under its official key `ctc.ctc_lo`."""

    def __init__(self, width: int, vocabulary: int) -> None:
        super().__init__()
        self.ctc_lo = nn.Linear(width, vocabulary)

    def forward(self, h_BTD: Tensor) -> Tensor:
        """Encoder states -> CTC logits [B, T, V]."""
        logits_BTV: Tensor = self.ctc_lo(h_BTD)
        return logits_BTV


ConfigT = TypeVar("ConfigT")


def _from_fields(kind: type[ConfigT], values: Mapping[str, Any], where: str) -> ConfigT:
    if not isinstance(values, Mapping):
        raise ConfigError(f"the {where} configuration must be a mapping, got {values!r}")
    known = [f.name for f in dataclasses.fields(kind)]  # type: ignore[arg-type]
    for name in values:
        if name not in known:
            raise ConfigError(
                f"unknown value {name!r} in the {where} configuration",
                fix=did_you_mean(name, known),
            )
    return kind(**values)
