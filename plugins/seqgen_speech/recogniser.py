"""The recogniser: one encoder, a CIF predictor, and two decoders that read its states.

The Paraformer decoder gives all tokens in one pass. The masked decoder is a transformer from the
core with masked inputs, trained on blocks of many lengths, so that the same weights decode token by
token (blocks of one), by block diffusion, and by mask-predict (one block). It attends to the
encoder's states and gets the predictor's acoustic embedding of each slot added to its input (zero
beyond the predicted number of tokens).

Shapes: B batch, T frames, N tokens, D width, V vocabulary, F feature width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from seqgen import checkpoints
from seqgen.attention import MaskView
from seqgen.cache import Cache
from seqgen.errors import CheckpointError
from seqgen.heads import CategoricalHead
from seqgen.inputs import GivenInputs, MaskedInputs
from seqgen.model import Context, SequenceModel
from seqgen.transformer import Transformer, TransformerConfig
from seqgen_speech.features import FrontEnd, FrontEndConfig
from seqgen_speech.funasr import is_funasr_folder, load_funasr
from seqgen_speech.paraformer import Paraformer, ParaformerConfig
from seqgen_speech.text import EOS, Tokens
from seqgen_speech.timestamps import Times, fired_times, firing_times, integration_times

KIND = "speech-recogniser"


@dataclass(frozen=True)
class RecogniserConfig:
    """Everything that fixes the parameters.

    Attributes:
        front_end: how the features are made.
        paraformer: sizes of encoder, predictor and one-pass decoder.
        masked: sizes of the masked decoder; None if there is none (official checkpoints).
    """

    front_end: FrontEndConfig
    paraformer: ParaformerConfig
    masked: TransformerConfig | None = None


@dataclass(frozen=True)
class SpeechContext(Context):
    """Encoder states of a batch, with what the CIF predictor said of them.

    Attributes:
        frames_B: encoder frames of each row.
        counts_B: tokens of each row, the end token included where the model emits one.
        alphas_BT, peaks_BT: weights and peak trace; the tail frame, or the finer frames of V3.
        upsample: frames of these traces per encoder frame.
        emits_end: whether one fire more than there are tokens is expected (`predictor_bias`).
        frame_seconds: duration of an encoder frame.
        vocabulary: turns ids into text.
        waves: streaming: samples of each row, not yet encoded.
        fired: streaming: filled by the decoder, the frame in which each token of a row fired.
    """

    frames_B: Tensor | None = None
    counts_B: Tensor | None = None
    alphas_BT: Tensor | None = None
    peaks_BT: Tensor | None = None
    upsample: int = 1
    emits_end: bool = False
    frame_seconds: float = 0.06
    vocabulary: Tokens | None = None
    waves: list[Tensor] | None = None
    fired: list[list[int]] = field(default_factory=list)

    def times(self, row: int, count: int) -> Times:
        """[start, end] in seconds of each of a row's `count` tokens."""
        if self.waves is not None:
            return fired_times(self.fired[row][:count], step_seconds=self.frame_seconds)
        assert self.frames_B is not None
        assert self.alphas_BT is not None
        assert self.peaks_BT is not None
        # FunASR's rule wants the tail frame as well.
        tail = self.emits_end and self.upsample == 1
        frames = int(self.frames_B[row]) * self.upsample + tail
        alphas = self.alphas_BT[row, :frames].float().cpu().numpy()
        if self.emits_end:
            peaks = self.peaks_BT[row, :frames].float().cpu().numpy()
            return firing_times(alphas, peaks, count, upsample=self.upsample)
        return integration_times(alphas, count, step_seconds=self.frame_seconds / self.upsample)


class Recogniser(nn.Module):
    """Waveforms -> context -> a `SequenceModel` for the decoder asked for."""

    def __init__(self, config: RecogniserConfig, tokens: Tokens) -> None:
        super().__init__()
        self.config = config
        self.tokens = tokens
        self.front_end = FrontEnd(config.front_end)
        self.paraformer = Paraformer(config.paraformer)
        self.masked: SequenceModel | None = None
        if config.masked is not None:
            width = config.masked.width
            embedding = nn.Embedding(len(tokens) + 1, width)
            nn.init.normal_(embedding.weight, std=width**-0.5)
            self.masked = SequenceModel(
                inputs=MaskedInputs(
                    embedding, mask_id=len(tokens), scale=width**0.5, adds_given=True
                ),
                backbone=Transformer(config.masked),
                head=CategoricalHead(width, len(tokens), tied=embedding),
            )
        self.notes: tuple[str, ...] = ()

    @property
    def end_id(self) -> int:
        """The token that ends a text."""
        return self.tokens.id(EOS)

    def encode(self, features_BTF: Tensor, lengths_B: Tensor) -> Context:
        """The encoder's states as a context for training."""
        states = self.paraformer.encode(features_BTF, lengths_B)
        steps = torch.arange(states.shape[1], device=states.device)
        return Context(states_BTD=states, valid_BT=steps < lengths_B[:, None])

    @property
    def dtype(self) -> torch.dtype:
        """Of the encoder and the decoders."""
        return self.paraformer.encoder.after_norm.weight.dtype

    def cast(self, dtype: torch.dtype) -> Recogniser:
        """Change the type of the weights, but for the front end's and the predictor's.

        CMVN shifts and the sum of the CIF weights, which says how many tokens there are, want
        float32.
        """
        self.to(dtype)
        self.front_end.float()
        self.paraformer.predictor.float()
        return self

    def listen(self, features_BTF: Tensor, lengths_B: Tensor) -> SpeechContext:
        """Encoder states, token counts and acoustic embeddings for decoding."""
        model = self.paraformer
        states = model.encode(features_BTF.to(self.dtype), lengths_B)
        cif = model.predict(states, lengths_B)
        alphas, peaks, upsample = cif.alphas_BT, cif.peaks_BT, 1
        if model.config.predictor.version == "v3":
            alphas, peaks = model.predictor.fine_peaks(states, lengths_B, cif.counts_B)
            upsample = model.config.predictor.upsample
        full = bool((lengths_B == states.shape[1]).all())
        steps = torch.arange(states.shape[1], device=states.device)
        return SpeechContext(
            states_BTD=states,
            valid_BT=None if full else steps < lengths_B[:, None],
            given_BSD=cif.embeddings_BND.to(self.dtype),
            counts_B=cif.counts_B,
            alphas_BT=alphas,
            peaks_BT=peaks,
            frames_B=lengths_B,
            upsample=upsample,
            emits_end=model.config.predictor_bias == 1,
            frame_seconds=self.config.front_end.step_seconds,
            vocabulary=self.tokens,
        )

    def one_pass(self) -> SequenceModel:
        """The Paraformer decoder, driven by the core's loop."""
        decoder = self.paraformer.decoder
        return SequenceModel(
            inputs=GivenInputs(),
            backbone=SanmBackbone(decoder),
            head=CategoricalHead.of(decoder.output_layer),
        )


class SanmBackbone(nn.Module):
    """The Paraformer decoder as a backbone: no cache, every slot sees every slot."""

    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(
        self,
        x_BRD: Tensor,
        coordinates_BRA: Tensor,
        *,
        view: MaskView | None,
        cache: Cache | None,
        context: Context | None,
    ) -> Tensor:
        assert context is not None
        assert context.states_BTD is not None
        batch, frames, _ = context.states_BTD.shape
        lengths_B = torch.full((batch,), x_BRD.shape[1], device=x_BRD.device)
        if view is not None and view.key_valid_BK is not None:
            lengths_B = view.key_valid_BK.sum(dim=1)
        frames_B = torch.full((batch,), frames, device=x_BRD.device)
        if context.valid_BT is not None:
            frames_B = context.valid_BT.sum(dim=1)
        out: Tensor = self.decoder(x_BRD, lengths_B, context.states_BTD, frames_B)
        return out

    def new_cache(self, batch: int, capacity: int) -> Cache | None:
        return None

    def prepare(self, context: Context) -> Context:
        return context


def save_recogniser(model: Recogniser, path: Path, notes: Mapping[str, Any]) -> Path:
    """Write one safetensors file, weights in half precision, with everything `load` needs."""
    config = {
        "kind": KIND,
        "front_end": asdict(model.config.front_end),
        "paraformer": asdict(model.config.paraformer),
        "masked": None if model.config.masked is None else asdict(model.config.masked),
        "tokens": {
            "pieces": list(model.tokens.pieces),
            "merges": [list(pair) for pair in model.tokens.merges],
        },
        "training": dict(notes),
    }
    return checkpoints.save(path, _own_state(model), config, half=True)


def load_recogniser(path: Path) -> Recogniser:
    """Load our own checkpoint (a file, or a training folder) or a FunASR Paraformer folder.

    Raises:
        CheckpointError: missing, damaged, of another kind, or not fitting.
    """
    if path.is_dir() and is_funasr_folder(path):
        return _from_funasr(path)
    if path.is_dir():
        inside = path / "model.safetensors"
        if not inside.is_file():
            raise CheckpointError(
                f"{path} holds no speech model",
                why="no model.safetensors (ours), no config.yaml with model.pt (FunASR)",
                fix="give the folder of a finished training or of a FunASR Paraformer",
            )
        path = inside
    fix = "use a checkpoint made by `seqgen train --plugin speech`"
    state, config = checkpoints.load_kind(path, KIND, what="a speech recogniser", fix=fix)
    with checkpoints.building(path):
        masked = config["masked"]
        model = Recogniser(
            RecogniserConfig(
                front_end=FrontEndConfig(**config["front_end"]),
                paraformer=ParaformerConfig.from_dict(config["paraformer"]),
                masked=None if masked is None else TransformerConfig(**masked),
            ),
            Tokens.from_json(config["tokens"]),
        )
    # The tied read-out shares the embedding's tensor; a file holds it once.
    checkpoints.load_strict(model, {**state, **_tied(model, state)}, source=path)
    checkpoints.require_finite(model, source=path)
    return model.eval()


def _from_funasr(folder: Path) -> Recogniser:
    loaded = load_funasr(folder)
    tokens = Tokens(tuple(loaded.tokens))
    model = Recogniser(
        RecogniserConfig(front_end=loaded.front_end, paraformer=loaded.model.config), tokens
    )
    model.paraformer = loaded.model
    if loaded.shift is not None and loaded.scale is not None:
        model.front_end = FrontEnd(loaded.front_end, shift=loaded.shift, scale=loaded.scale)
    model.notes = loaded.notes
    return model.eval()


_TIED = ("masked.head.weight", "masked.inputs.embedding.weight")


def _own_state(model: Recogniser) -> dict[str, Tensor]:
    return {k: v for k, v in model.state_dict().items() if k != _TIED[0]}


def _tied(model: Recogniser, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if model.masked is None or _TIED[1] not in state:
        return {}
    return {_TIED[0]: state[_TIED[1]]}
