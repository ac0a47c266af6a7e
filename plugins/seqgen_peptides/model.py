"""The peptide model: one spectrum encoder, and decoders that read its states.

- `ar`: one residue after another from the C-terminus, with the masses on both sides (ContraNovo).
- `nar`: all slots in one pass, read by CTC (PrimeNovo, doi:10.1038/s41467-024-55021-3).
- `hybrid`: an autoregressive decoder that attends to the last states of `nar` and to the spectrum
  (CrossNovo, arXiv 2510.08169).
- `block`: blocks of residues, each filled in a few passes (block diffusion; new for peptides).

Shapes: B spectra, T encoder states, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from seqgen import checkpoints
from seqgen.decoders.hybrid import FirstPass
from seqgen.heads import CategoricalHead
from seqgen.model import SequenceModel
from seqgen.transformer import Transformer, TransformerConfig
from seqgen_peptides.context import SpectrumContext
from seqgen_peptides.encoder import EncoderConfig, SpectrumEncoder
from seqgen_peptides.inputs import (
    EvidenceBackbone,
    EvidenceHead,
    MaskedResidueInputs,
    MassFeatures,
    ResidueInputs,
    SlotInputs,
)
from seqgen_peptides.preprocess import PreprocessConfig
from seqgen_peptides.residues import Residues
from seqgen_peptides.spectra import SpectrumBatch

KIND = "peptide-model"


@dataclass(frozen=True)
class PeptideConfig:
    """Everything that fixes the parameters.

    Attributes:
        encoder: of the spectrum.
        decoder: sizes of each decoder.
        slots: of the non-autoregressive decoder; the longest peptide.
        sines: width of the sine features of a mass.
        running_masses: masses before and behind a slot enter there; otherwise the precursor's.
        slot_masses: for `nar`, which does not know them, those of an even division enter.
        ion_evidence: candidate-ion evidence (`evidence.py`).
        preprocess: of the spectra it was trained on.
        label_smoothing: in training.
    """

    encoder: EncoderConfig
    decoder: TransformerConfig
    slots: int = 40
    sines: int = 128
    running_masses: bool = True
    slot_masses: bool = True
    ion_evidence: bool = True
    preprocess: PreprocessConfig = field(default_factory=PreprocessConfig)
    label_smoothing: float = 0.0

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PeptideConfig:
        """From `asdict` of a config, as a checkpoint holds it."""
        encoder = dict(values["encoder"])
        encoder.pop("peak_features", None)  # a constant that the shipped file still names
        encoder["transformer"] = TransformerConfig(**encoder["transformer"])
        return cls(
            **{
                **values,
                "encoder": EncoderConfig(**encoder),
                "decoder": TransformerConfig(**values["decoder"]),
                "preprocess": PreprocessConfig(**values["preprocess"]),
            }
        )


class PeptideModel(nn.Module):
    """Spectra -> context -> a `SequenceModel` for the decoder asked for."""

    def __init__(self, config: PeptideConfig, residues: Residues) -> None:
        super().__init__()
        self.config = config
        self.residues = residues
        self.encoder = SpectrumEncoder(config.encoder, residues)
        self.ar = self._decoder("ar")
        self.nar = self._decoder("nar")
        self.hybrid = self._decoder("hybrid")
        self.block = self._decoder("block")

    def listen(self, batch: SpectrumBatch) -> SpectrumContext:
        """Encode a batch."""
        states_BTD, valid_BT = self.encoder(batch)
        return SpectrumContext.of(batch, states_BTD, valid_BT)

    def nar_logits(self, hidden_BSD: Tensor) -> Tensor:
        """CTC logits [B, S, V] of the non-autoregressive decoder's states."""
        assert isinstance(self.nar.head, CategoricalHead)
        return self.nar.head.logits(hidden_BSD)

    def first_pass(self) -> FirstPass:
        """The non-autoregressive pass whose last states `hybrid` attends to."""
        return FirstPass(model=self.nar, slots=self.config.slots)

    @torch.no_grad()
    def copy_autoregressive(self) -> None:
        """Start the hybrid and the block-diffusion decoder from the autoregressive weights."""
        learned = self.ar.state_dict()
        self.hybrid.load_state_dict(learned)
        # Further weights, of the distance to the last known mass, are the block decoder's own.
        self.block.load_state_dict(learned, strict=False)

    @property
    def vocabulary(self) -> int:
        return len(self.residues)

    def _decoder(self, name: str) -> SequenceModel:
        c, V = self.config, self.vocabulary
        width = c.decoder.width
        evidence = c.ion_evidence and name != "nar"
        features = MassFeatures(
            width,
            self.residues,
            sines=c.sines,
            running=c.slot_masses if name == "nar" else c.running_masses,
            evidence=evidence,
        )
        transformer = Transformer(c.decoder)
        backbone = EvidenceBackbone(transformer, V) if evidence else transformer
        head = (
            EvidenceHead(width, V, label_smoothing=c.label_smoothing)
            if evidence
            else CategoricalHead(width, V, bias=True, label_smoothing=c.label_smoothing)
        )
        if name == "nar":
            slots = SlotInputs(c.slots, features, evidence=c.ion_evidence)
            return SequenceModel(inputs=slots, backbone=backbone, head=head)
        embedding = nn.Embedding(V + 1, width)
        nn.init.normal_(embedding.weight, std=width**-0.5)
        if name == "block":
            masked = MaskedResidueInputs(embedding, V, features)
            return SequenceModel(inputs=masked, backbone=backbone, head=head)
        return SequenceModel(
            inputs=ResidueInputs(embedding, features), backbone=backbone, head=head
        )


def save_model(model: PeptideModel, path: Path, notes: Mapping[str, Any]) -> Path:
    """Write one safetensors file, weights in half precision, with everything `load_model` needs."""
    config = {
        "kind": KIND,
        "model": asdict(model.config),
        "residues": model.residues.to_json(),
        "training": dict(notes),
    }
    return checkpoints.save(path, model.state_dict(), config, half=True)


def load_model(path: Path) -> PeptideModel:
    """Load our own checkpoint: a file, or the folder of a training.

    Raises:
        CheckpointError: missing, damaged, of another kind, or not fitting.
    """
    fix = "use a checkpoint made by `seqgen train --plugin peptides`"
    state, config = checkpoints.load_kind(path, KIND, what="a peptide model", fix=fix)
    with checkpoints.building(path):
        made = PeptideConfig.from_dict(config["model"])
        model = PeptideModel(made, Residues.from_json(config["residues"]))
    checkpoints.load_strict(model, state, source=path)
    checkpoints.require_finite(model, source=path)
    return model.eval()


def parameters_of(model: PeptideModel, name: str) -> int:
    """Parameters that a decoder uses, the encoder included."""
    parts = {
        "ar": [model.ar],
        "nar": [model.nar],
        "hybrid": [model.nar, model.hybrid],
        "block-diffusion": [model.block],
    }[name]
    modules = [model.encoder, *parts]
    return sum(p.numel() for module in modules for p in module.parameters())
