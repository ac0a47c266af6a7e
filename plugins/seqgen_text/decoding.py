"""Decoders of the core, chosen and configured by the options.

Shapes: B rows, S slots.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from seqgen.canvas import COMMITTED, Canvas
from seqgen.decoders import (
    Autoregressive,
    BlockDiffusion,
    Decoder,
    NonAutoregressive,
    Speculative,
)
from seqgen.decoders.base import Generated, StreamDecoder, drain
from seqgen.drafts import Drafter, DraftModel, NgramLookup
from seqgen.errors import ConfigError, UsageError
from seqgen.events import Event
from seqgen.inputs import ShiftedInputs
from seqgen.logits import (
    Ban,
    LogitsProcessor,
    MinP,
    RepetitionPenalty,
    Sampling,
    TopK,
    TopP,
)
from seqgen.model import Context, SequenceModel
from seqgen_text.model import TextModel
from seqgen_text.options import TextOptions

NAR_STEPS = 8


def choose(
    decoder: str, model: TextModel, options: TextOptions, draft: TextModel | None
) -> tuple[Decoder, SequenceModel]:
    """A decoder of the core, and the model that it drives.

    Args:
        draft: the smaller model of `speculative`; None for n-gram lookup.

    Raises:
        UsageError: the model has no such decoder.
        ConfigError: draft and model do not fit together.
    """
    if decoder not in model.decoders:
        raise _no_decoder(decoder, model)
    sampling = _sampling(options, model)
    stop_ids = end_ids(options, model)
    if decoder == "ar":
        return Autoregressive(stop_ids=stop_ids, sampling=sampling), model.ar
    if decoder == "speculative":
        speculative = Speculative(
            draft=_drafter(options, model, draft),
            draft_length=options.draft_length,
            sampling=sampling,
            stop_ids=stop_ids,
        )
        return speculative, model.ar
    assert model.block is not None
    if decoder == "nar":
        steps = options.steps or NAR_STEPS
        return NonAutoregressive(steps=steps, sampling=sampling, stop_ids=stop_ids), model.block
    blocks = BlockDiffusion(
        block_length=block_length(options, model),
        steps=options.steps or 0,
        remasking=options.remasking,
        threshold=options.threshold,
        entropy_bound=options.entropy_bound,
        entropy_own=options.entropy_own,
        ties=options.ties,
        sampling=sampling,
        stop_ids=stop_ids,
    )
    return blocks, model.block


def end_ids(options: TextOptions, model: TextModel) -> tuple[int, ...]:
    """Tokens that end a text."""
    return model.config.stop_ids if options.end else ()


def block_length(options: TextOptions, model: TextModel) -> int:
    """Tokens a block of block diffusion."""
    return options.block_length or model.config.block_length


@dataclass(frozen=True)
class Ends:
    """Where texts end.

    Attributes:
        most: new tokens of each row at most; a last block may hold more.
        ids: tokens that end a text.
        texts: what ends a text without being part of it.
    """

    most: tuple[int, ...]
    ids: tuple[int, ...] = ()
    texts: tuple[str, ...] = ()

    def cut(self, text: str) -> tuple[str, bool]:
        """The text before the first of `texts`, and whether there is one."""
        places = [place for stop in self.texts if (place := text.find(stop)) >= 0]
        return (text[: min(places)], True) if places else (text, False)


@dataclass(frozen=True, kw_only=True)
class TextGenerated(Generated):
    """A decoded batch of texts.

    Attributes:
        ends: where its texts end.
        passes_B: forward passes of the model in which a row was still being decided.
        name: of the decoder.
    """

    ends: Ends
    passes_B: Tensor
    name: str


@dataclass(frozen=True, kw_only=True)
class TextDecoder(StreamDecoder):
    """A decoder whose rows also end with a text, and whose passes are counted a row.

    Attributes:
        decoder: what decodes.
        text_of: ids -> text.
        ends: a row ends with the token that completes one of `ends.texts`. What is looked at is the
            row's own, so a row of a batch ends as it does alone.
        name: of the decoder, for the result.
    """

    decoder: Decoder
    text_of: Callable[[list[int]], str]
    ends: Ends
    name: str

    def stream(
        self, model: SequenceModel, canvas: Canvas, context: Context | None = None
    ) -> Iterator[Event]:
        """Decode `canvas` in place, yielding an event a forward pass."""
        events = self.decoder.stream(model, canvas, context)
        if not self.ends.texts:
            yield from events
            return
        search = _TextSearch(canvas, self.ends.texts, self.text_of)
        for event in events:
            yield event
            search.stop_rows()
            if bool(canvas.finished_B.all()):
                return

    def generate(
        self,
        model: SequenceModel,
        canvas: Canvas,
        context: Context | None = None,
        *,
        on_event: Callable[[Event], None] | None = None,
    ) -> TextGenerated:
        """Decode `canvas` in place."""
        passes_B = torch.zeros_like(canvas.prompt_B)

        def seen(event: Event) -> None:
            # A pass with an open slot keeps at least one.
            passes_B.add_(event.kept_BQ.any(dim=1) & ~canvas.finished_B)
            if on_event is not None:
                on_event(event)

        generated = drain(self.stream(model, canvas, context), canvas, seen)
        fields: dict[str, Any] = vars(generated)
        return TextGenerated(**fields, ends=self.ends, passes_B=passes_B, name=self.name)


class _TextSearch:
    """Looks for texts in what rows have decided, from left to right.

    A text is no property of single ids, so this reads the new ids of every pass on the host.
    """

    def __init__(
        self, canvas: Canvas, texts: Sequence[str], text_of: Callable[[list[int]], str]
    ) -> None:
        self.canvas, self.texts, self.text_of = canvas, tuple(texts), text_of
        self.prompts: list[int] = canvas.prompt_B.tolist()
        self.seen = list(self.prompts)
        # A token stands for a byte at least, special ones for nothing.
        self.overlap = max(len(text.encode()) for text in texts) + 4

    def stop_rows(self) -> None:
        """Finish the rows that hold one of the texts, with the token that completes it."""
        canvas = self.canvas
        known_B = decided(canvas).tolist()
        finished = canvas.finished_B.tolist()
        ends = [0] * canvas.batch
        for row, known in enumerate(known_B):
            if finished[row] or known <= self.seen[row]:
                continue
            first = max(self.prompts[row], self.seen[row] - self.overlap)
            ids = canvas.values[row, first:known].tolist()
            ends[row] = self._end(ids, self.seen[row] - first, first)
            self.seen[row] = known
        if any(ends):
            end_B1 = torch.tensor(ends, device=canvas.device)[:, None]
            canvas.stop_at((end_B1 - 1).clamp(min=0), end_B1 > 0)

    def _end(self, ids: list[int], old: int, first: int) -> int:
        """The slot behind the first text that the new ids complete; 0 if there is none."""
        if not self._found(ids):
            return 0
        return next((first + n for n in range(old + 1, len(ids) + 1) if self._found(ids[:n])), 0)

    def _found(self, ids: list[int]) -> bool:
        text = self.text_of(ids)
        return any(stop in text for stop in self.texts)


def decided(canvas: Canvas) -> Tensor:
    """How many slots of each row are decided without a gap, the prompt's included: [B]."""
    known_BS = canvas.state_BS == COMMITTED
    return known_BS.long().cumprod(dim=1).sum(dim=1).minimum(canvas.limit_B)


def _sampling(options: TextOptions, model: TextModel) -> Sampling:
    constraints: list[LogitsProcessor] = []
    if model.config.mask_id is not None:
        constraints.append(Ban((model.config.mask_id,)))
    if options.repetition_penalty != 1:
        constraints.append(RepetitionPenalty(options.repetition_penalty))
    filters: list[LogitsProcessor] = []
    if options.top_k:
        filters.append(TopK(options.top_k))
    if options.top_p < 1:
        filters.append(TopP(options.top_p))
    if options.min_p > 0:
        filters.append(MinP(options.min_p))
    return Sampling(
        temperature=options.temperature,
        constraints=tuple(constraints),
        filters=tuple(filters),
        confidence=options.confidence,
    )


def _drafter(options: TextOptions, model: TextModel, draft: TextModel | None) -> Drafter:
    if draft is None:
        return NgramLookup(longest=options.ngram)
    if not isinstance(draft.ar.inputs, ShiftedInputs):
        raise ConfigError(
            f"{draft.folder} cannot draft", why="it is no autoregressive model", fix="a qwen3 model"
        )
    if draft.tokenizer.get_vocab() != model.tokenizer.get_vocab():
        raise ConfigError(
            f"{draft.folder} cannot draft for {model.folder}",
            why="their tokenizers differ, so an id means another text",
            fix="a draft model of the same family",
        )
    return DraftModel(draft.ar)


def _no_decoder(decoder: str, model: TextModel) -> UsageError:
    if model.block is None:
        return UsageError(
            f"{model.folder} has no decoder {decoder!r}",
            why="it is autoregressive: its config.json names no mask token",
            fix=f"--decoder {' or '.join(model.decoders)}, or make a block-diffusion model of it: "
            "seqgen train --plugin text --convert block-diffusion",
        )
    return UsageError(
        f"{model.folder} has no decoder {decoder!r}",
        why="drafts are verified by an autoregressive model, and this one fills in masks",
        fix=f"--decoder {', '.join(model.decoders)}, or a qwen3 model",
    )
