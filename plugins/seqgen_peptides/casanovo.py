"""Casanovo 5.x checkpoints (`.ckpt`), read and run without casanovo or depthcharge.

    model = load_casanovo(Path("casanovo_v5.ckpt"))
    context = model.listen(batch)
    Autoregressive(...).generate(model.ar, canvas, context)

The vocabulary is the checkpoint's own: id 0 is padding, id 1 the stop token, then the residues in
alphabetical order. `CasanovoModel` offers what `PeptideModel` does, as far as Casanovo has it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from seqgen.checkpoints import load_strict
from seqgen.errors import CheckpointError, ConfigError
from seqgen.heads import CategoricalHead
from seqgen.model import SequenceModel
from seqgen_peptides.casanovo_checkpoint import Stub, read_checkpoint
from seqgen_peptides.casanovo_layers import (
    CasanovoContext,
    CasanovoDecoder,
    CasanovoInputs,
    PrecursorToken,
    Sizes,
    SpectrumEncoder,
)
from seqgen_peptides.preprocess import PreprocessConfig
from seqgen_peptides.residues import FIRST, STOP, Residues
from seqgen_peptides.spectra import SpectrumBatch


@dataclass(frozen=True)
class CasanovoConfig:
    """What a checkpoint says besides weights and vocabulary.

    Attributes:
        sizes: of the network.
        max_charge: highest charge of a precursor.
        min_length, max_length: residues of the peptides that Casanovo reports.
        preprocess: of spectra, by Casanovo's defaults: checkpoints do not say.
    """

    sizes: Sizes
    max_charge: int
    min_length: int = 6
    max_length: int = 100
    preprocess: PreprocessConfig = field(default_factory=PreprocessConfig)


class CasanovoModel(nn.Module):
    """Spectra -> context -> the autoregressive decoder. The other decoders are None."""

    nar: SequenceModel | None = None
    hybrid: SequenceModel | None = None
    block: SequenceModel | None = None

    def __init__(self, config: CasanovoConfig, residues: Residues) -> None:
        super().__init__()
        self.config = config
        self.residues = residues
        width = config.sizes.width
        self.encoder = SpectrumEncoder(config.sizes)
        self.precursor = PrecursorToken(width, config.max_charge)
        self.ar = SequenceModel(
            inputs=CasanovoInputs(nn.Embedding(len(residues), width)),
            backbone=CasanovoDecoder(config.sizes),
            head=CategoricalHead(width, len(residues), bias=True),
        )

    def listen(self, batch: SpectrumBatch) -> CasanovoContext:
        """Encode a batch of spectra preprocessed by `config.preprocess`."""
        states_BTD, valid_BT = self.encoder(batch)
        context = CasanovoContext.of(batch, states_BTD, valid_BT)
        token_BD = self.precursor(batch.precursor_mz_B, batch.charge_B)
        assert isinstance(context, CasanovoContext)
        return replace(context, precursor_BD=token_BD)

    @property
    def vocabulary(self) -> int:
        return len(self.residues)

    def by_casanovo_names(self) -> nn.ModuleDict:
        """The same modules in Casanovo's tree, so that its state_dict is a checkpoint's."""
        inputs = self.ar.inputs
        assert isinstance(inputs, CasanovoInputs)
        parts = {
            "token_encoder": inputs.embedding,
            "positional_encoder": inputs.positions,
            "mass_encoder": self.precursor.mass,
            "charge_encoder": self.precursor.charge,
            "transformer_decoder": self.ar.backbone,
            "final": self.ar.head,
        }
        decoder = {name: part for name, part in parts.items() if isinstance(part, nn.Module)}
        return nn.ModuleDict({"encoder": self.encoder, "decoder": nn.ModuleDict(decoder)})


def load_casanovo(path: Path) -> CasanovoModel:
    """Load a checkpoint of Casanovo 5.x; nothing in the file is executed.

    Raises:
        CheckpointError: missing, damaged, refused (`casanovo_checkpoint.py`), of another program
            or version, or its tensors do not fit.
    """
    content = read_checkpoint(path)
    settings, state = content.get("hyper_parameters"), content.get("state_dict")
    tokenizer = settings.get("tokenizer") if isinstance(settings, Mapping) else None
    if not isinstance(settings, Mapping) or not isinstance(state, Mapping):
        raise _wrong(path, "it has no hyper_parameters and state_dict, as Lightning writes them")
    if not isinstance(tokenizer, Stub) or not isinstance(tokenizer.state, Mapping):
        raise _wrong(path, "its hyper_parameters hold no tokenizer")
    tensors = {str(name): value for name, value in state.items() if isinstance(value, Tensor)}
    residues = _residues(path, tokenizer.state)
    model = CasanovoModel(_configuration(path, settings, tensors), residues)
    load_strict(model.by_casanovo_names(), tensors, source=path)
    return model.eval()


def _configuration(
    path: Path, settings: Mapping[str, Any], state: Mapping[str, Tensor]
) -> CasanovoConfig:
    """Sizes from the tensors; from the settings what tensors do not show."""
    try:
        width = state["decoder.token_encoder.weight"].shape[1]
        feed_forward = state["encoder.transformer_encoder.layers.0.linear1.weight"].shape[0]
        charges = state["decoder.charge_encoder.weight"].shape[0]
    except KeyError as error:
        raise _wrong(path, f"its state_dict lacks {error}") from error
    heads = _count(path, settings, "n_head")
    if width % heads:
        raise _wrong(path, f"n_head = {heads} does not divide the width {width}")
    sizes = Sizes(
        width=width,
        heads=heads,
        feed_forward=feed_forward,
        encoder_layers=_layers(state, "encoder.transformer_encoder.layers"),
        decoder_layers=_layers(state, "decoder.transformer_decoder.layers"),
    )
    return CasanovoConfig(
        sizes=sizes,
        max_charge=charges,
        min_length=_count(path, settings, "min_peptide_len", default=6),
        max_length=_count(path, settings, "max_peptide_len", default=100),
        preprocess=PreprocessConfig(min_peaks=20, max_charge=charges),
    )


def _residues(path: Path, tokenizer: Mapping[str, Any]) -> Residues:
    """The vocabulary of depthcharge's PeptideTokenizer, in the order of its ids."""
    if tokenizer.get("reverse") is not True:
        raise _unsupported(path, "its peptides do not run from the C-terminus to the N-terminus")
    tokens, masses = tokenizer.get("reverse_index"), tokenizer.get("residues")
    if not isinstance(tokens, list) or not isinstance(masses, Mapping):
        raise _wrong(path, "its tokenizer holds no reverse_index and residues")
    if tokens[:FIRST] != [None, tokenizer.get("stop_token")] or tokenizer.get("stop_int") != STOP:
        raise _unsupported(path, f"the first tokens are {tokens[:FIRST]}, not padding and stop")
    lacking = [token for token in tokens[FIRST:] if not isinstance(masses.get(token), float | int)]
    if lacking:
        raise _unsupported(path, f"the token {lacking[0]!r} has no mass")
    if twice := [token for token in tokens if tokens.count(token) > 1]:
        raise _unsupported(path, f"the token {twice[0]!r} is there twice")
    try:
        return Residues({token: float(masses[token]) for token in tokens[FIRST:]})
    except ConfigError as error:
        raise _unsupported(path, error.what) from error


def _layers(state: Mapping[str, Tensor], prefix: str) -> int:
    """How many layers the keys number."""
    found = (re.match(rf"{re.escape(prefix)}\.(\d+)\.", key) for key in state)
    return len({int(match[1]) for match in found if match})


def _count(path: Path, settings: Mapping[str, Any], name: str, *, default: int = 0) -> int:
    value = settings.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise _wrong(path, f"hyper_parameters say {name} = {value!r}")
    return value


def _wrong(path: Path, why: str) -> CheckpointError:
    return CheckpointError(
        f"{path} is not a checkpoint of Casanovo 5",
        why=why,
        fix="use a .ckpt that Casanovo 5.0 or later wrote",
    )


def _unsupported(path: Path, why: str) -> CheckpointError:
    return CheckpointError(f"the vocabulary of {path} cannot be used", why=why)
