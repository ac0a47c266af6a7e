"""The speech domain: audio files in, transcripts out."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seqgen.canvas import Canvas
from seqgen.decoders import Autoregressive, BlockDiffusion, Decoder, NonAutoregressive
from seqgen.decoders.base import Generated
from seqgen.decoders.block_diffusion import Remasking
from seqgen.domain import Fields, Plan
from seqgen.errors import UsageError
from seqgen.linear import pack
from seqgen.logits import LogitsProcessor, Sampling, TopK, TopP
from seqgen.model import Context
from seqgen.registry import Card
from seqgen.training.task import TrainingTask
from seqgen.weights import local_files
from seqgen_speech.audio import SAMPLE_RATE, stream_audio
from seqgen_speech.formats import write_rows
from seqgen_speech.manifests import References, SpeechItem, list_items
from seqgen_speech.metrics import score
from seqgen_speech.recogniser import Recogniser, SpeechContext, load_recogniser
from seqgen_speech.segments import SegmentConfig, segments
from seqgen_speech.streaming_decoder import StreamingDecoder
from seqgen_speech.text import join_words


@dataclass(frozen=True)
class SpeechOptions:
    """Options of `--set key=value`."""

    temperature: float = field(
        default=0.0, metadata={"help": "0 takes the most probable token", "min": 0.0}
    )
    top_k: int = field(
        default=0, metadata={"help": "sample from the k best tokens; 0 for all", "min": 0}
    )
    top_p: float = field(
        default=1.0,
        metadata={"help": "sample from this much probability mass", "min": 0.01, "max": 1.0},
    )
    steps: int = field(
        default=0,
        metadata={"help": "passes: of mask-predict (0: 4), of a block (0: its length)", "min": 0},
    )
    block_length: int = field(
        default=4, metadata={"help": "tokens a block of block-diffusion", "min": 1}
    )
    remasking: Remasking = field(
        default="low_confidence_dynamic", metadata={"help": "which tokens of a block are kept"}
    )
    threshold: float = field(
        default=0.85,
        metadata={
            "help": "confidence that low_confidence_dynamic asks for",
            "min": 0.0,
            "max": 1.0,
        },
    )
    streaming: bool = field(
        default=False,
        metadata={"help": "decode in chunks of 600 ms as they would arrive (paraformer only)"},
    )
    max_seconds: float = field(
        default=20.0,
        metadata={"help": "longer audio is cut at silences into parts this long", "min": 2.0},
    )
    min_silence: float = field(
        default=0.6,
        metadata={"help": "seconds of silence at which long audio may be cut", "min": 0.0},
    )
    allow_truncated: bool = field(
        default=False, metadata={"help": "decode what is left of a file whose end is missing"}
    )
    references: References = field(
        default="auto",
        metadata={"help": "true texts for eval: auto (manifest, NAME.txt), fsdd (names), none"},
    )


class SpeechDomain:
    """Recognition with a Paraformer and, where the model has one, a masked decoder."""

    options = SpeechOptions

    def load(self, source: str, options: SpeechOptions) -> Iterator[SpeechItem]:
        yield from list_items(source, references=options.references)

    def example(self) -> list[str]:
        return [str(files("seqgen_speech") / "assets" / "example.flac")]

    def build(self, card: Card, device: torch.device, dtype: torch.dtype) -> Recogniser:
        model = load_recogniser(local_files(card)[0]).to(device).cast(dtype)
        for note in model.notes:
            logging.getLogger("seqgen").warning("note: %s", note)
        if device.type == "cpu":
            pack(model)
        return model

    def split(self, item: SpeechItem, options: SpeechOptions) -> Iterator[SpeechItem]:
        """The item's audio, whole or in parts cut at silences. Silence gives one empty part."""
        if item.problem is not None:
            raise item.problem
        blocks = stream_audio(
            item.path,
            start=item.start,
            stop=item.stop,
            allow_truncated=options.allow_truncated,
        )
        cut = SegmentConfig(
            max_seconds=options.max_seconds,
            min_silence=options.min_silence,
            margin=min(0.2, options.min_silence / 2),
        )
        count = _Counted(blocks)
        empty = True
        for part in segments(count, cut):
            empty = False
            yield replace(
                item,
                start=item.start + part.start,
                duration=part.stop - part.start,
                wave=np.ascontiguousarray(part.wave),
            )
        if empty:
            silence = np.zeros(SAMPLE_RATE // 10, dtype=np.float32)
            yield replace(item, duration=count.seconds, wave=silence)

    def condition(
        self, model: Recogniser, pieces: Sequence[SpeechItem], options: SpeechOptions
    ) -> SpeechContext:
        device = model.front_end.shift.device
        waves = [torch.from_numpy(_wave(piece)).to(device) for piece in pieces]
        if options.streaming:
            return SpeechContext(
                waves=waves,
                vocabulary=model.tokens,
                frame_seconds=model.config.front_end.step_seconds,
            )
        features, lengths = model.front_end.features(waves)
        return model.listen(features, lengths)

    def plan(
        self,
        model: Recogniser,
        context: Context | None,
        decoder: str,
        options: SpeechOptions,
        seeds: Tensor,
    ) -> Plan:
        assert isinstance(context, SpeechContext)
        if options.streaming:
            return _streaming_plan(model, context, decoder, seeds)
        assert context.counts_B is not None
        sampling = _sampling(options)
        if decoder == "paraformer":
            canvas = _canvas(context.counts_B, seeds)
            recipe: Decoder = NonAutoregressive(sampling=sampling)
            return Plan(recipe, model.one_pass(), canvas, context)
        if model.masked is None:
            raise UsageError(
                f"this model has no decoder {decoder!r}",
                why="official Paraformer checkpoints decode in one pass only",
                fix="--decoder paraformer, or a model of `seqgen train --plugin speech`",
            )
        if decoder == "mask-predict":
            steps = options.steps or 4
            canvas = _canvas(context.counts_B, seeds)
            recipe = NonAutoregressive(steps=steps, sampling=sampling)
            return Plan(recipe, model.masked, canvas, context)
        stop = (model.end_id,)
        longest = int(_limits(context).max())
        if decoder == "ar":
            recipe = Autoregressive(stop_ids=stop, sampling=sampling)
        elif decoder == "block-diffusion":
            K = options.block_length
            longest = -(-longest // K) * K
            recipe = BlockDiffusion(
                block_length=K,
                steps=options.steps,
                remasking=options.remasking,
                threshold=options.threshold,
                stop_ids=stop,
                sampling=sampling,
            )
        else:
            raise UsageError(f"the speech plugin has no decoder {decoder!r}")
        values = torch.zeros(len(seeds), longest, dtype=torch.int64, device=context.counts_B.device)
        assert context.given_BSD is not None
        room = longest - context.given_BSD.shape[1]
        given = torch.nn.functional.pad(context.given_BSD, (0, 0, 0, max(0, room)))
        longer = replace(context, given_BSD=given)
        return Plan(recipe, model.masked, Canvas(values, seeds=seeds), longer)

    def finish(
        self,
        generated: Generated,
        pieces: Sequence[SpeechItem],
        context: Context | None,
        options: SpeechOptions,
    ) -> list[Fields]:
        assert isinstance(context, SpeechContext)
        assert context.vocabulary is not None
        vocabulary = context.vocabulary
        limits = [generated.values.shape[1]] * len(pieces)
        if context.frames_B is not None:
            limits = _limits(context).tolist()
        confidences = generated.confidence_BS.tolist()
        outputs: list[Fields] = []
        for row, ids in enumerate(generated.sequences()):
            piece = pieces[row]
            silent = not _wave(piece).any()
            kept = [
                (i, confidences[row][place])
                for place, i in enumerate(ids[: limits[row]])
                if i not in vocabulary.special_ids and not silent
            ]
            spans = context.times(row, len(kept))
            transcript = vocabulary.decode(
                [i for i, _ in kept],
                times=[[piece.start + a, piece.start + b] for a, b in spans],
                confidences=[c for _, c in kept],
            )
            outputs.append(
                {
                    "text": transcript.text,
                    "tokens": transcript.tokens,
                    "times": [[round(a, 3), round(b, 3)] for a, b in transcript.times],
                    "confidences": [round(c, 4) for c in transcript.confidences],
                    "audio_seconds": round(piece.duration, 3),
                }
            )
        return outputs

    def join(self, item: SpeechItem, parts: Sequence[Fields], options: SpeechOptions) -> Fields:
        if len(parts) == 1 and item.duration <= options.max_seconds:
            return dict(parts[0])
        # The silences between the parts are gone; only a header knows the whole.
        seconds = max(item.duration, sum(p["audio_seconds"] for p in parts))
        return {
            "text": join_words([p["text"] for p in parts if p["text"]]),
            "tokens": [token for p in parts for token in p["tokens"]],
            "times": [span for p in parts for span in p["times"]],
            "confidences": [c for p in parts for c in p["confidences"]],
            "audio_seconds": round(seconds, 3),
        }

    def write(self, rows: Iterable[Mapping[str, Any]], destination: Path, format: str) -> None:
        write_rows(rows, destination, format)

    def score(
        self, rows: Sequence[Mapping[str, Any]], items: Sequence[SpeechItem]
    ) -> dict[str, float]:
        return score(rows, items)

    def training(self) -> TrainingTask:
        from seqgen_speech.training import SpeechTask

        return SpeechTask()


class _Counted:
    """Blocks of audio, counted as they pass."""

    def __init__(self, blocks: Iterator[Any]) -> None:
        self._blocks = blocks
        self.samples = 0

    def __iter__(self) -> Iterator[Any]:
        for block in self._blocks:
            self.samples += len(block)
            yield block

    @property
    def seconds(self) -> float:
        return self.samples / SAMPLE_RATE


def _wave(piece: SpeechItem) -> np.ndarray:
    assert piece.wave is not None, "split() fills the wave"
    return piece.wave


def _sampling(options: SpeechOptions) -> Sampling:
    filters: list[LogitsProcessor] = []
    if options.top_k:
        filters.append(TopK(options.top_k))
    if options.top_p < 1:
        filters.append(TopP(options.top_p))
    return Sampling(temperature=options.temperature, filters=tuple(filters))


def _canvas(counts_B: Tensor, seeds: Tensor) -> Canvas:
    """A canvas of the predicted lengths."""
    size = int(counts_B.max())
    values = torch.zeros(len(counts_B), size, dtype=torch.int64, device=counts_B.device)
    return Canvas(values, length=counts_B, seeds=seeds)


def _streaming_plan(model: Recogniser, context: SpeechContext, decoder: str, seeds: Tensor) -> Plan:
    if decoder != "paraformer":
        raise UsageError(
            f"streaming works with the paraformer decoder, not with {decoder!r}",
            fix="--decoder paraformer, or --set streaming=false",
        )
    if model.dtype != torch.float32:
        raise UsageError(f"streaming works in float32, not {model.dtype}", fix="--dtype float32")
    if model.paraformer.config.predictor.version == "v1":
        raise UsageError("streaming needs a V2 or V3 predictor; this model has a V1 one")
    assert context.waves is not None
    recipe = StreamingDecoder(model.paraformer, model.front_end, context.waves, fired=context.fired)
    hop = model.config.front_end.hop_samples * model.config.front_end.lfr_n
    frames = max(len(wave) for wave in context.waves) // hop + 2
    values = torch.zeros(len(seeds), frames, dtype=torch.int64, device=context.waves[0].device)
    return Plan(recipe, model.one_pass(), Canvas(values, seeds=seeds), context)


def _limits(context: SpeechContext) -> Tensor:
    """Most tokens a row may have: one a frame, and the end."""
    assert context.frames_B is not None
    return context.frames_B + 1
