"""The text domain: prompts in, texts out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seqgen.canvas import Canvas
from seqgen.decoders.base import Generated
from seqgen.domain import Fields, Plan
from seqgen.errors import CheckpointError, InputError
from seqgen.model import Context, device_of
from seqgen.models.qwen3 import read_config
from seqgen.registry import Card
from seqgen.training.task import TrainingTask
from seqgen.weights import local_files
from seqgen_text.decoding import (
    Ends,
    TextDecoder,
    TextGenerated,
    block_length,
    choose,
    end_ids,
)
from seqgen_text.formats import write_rows
from seqgen_text.likelihood import block_nats, causal_nats
from seqgen_text.live import LiveText
from seqgen_text.metrics import score
from seqgen_text.model import TextModel, load_text_model
from seqgen_text.options import DEFAULT_NEW_TOKENS, TextOptions
from seqgen_text.prompts import Prompt, list_prompts


@dataclass(frozen=True)
class TextContext(Context):
    """The batch: its pieces and the model that decodes them."""

    model: TextModel | None = None
    pieces: tuple[Prompt, ...] = ()


class TextDomain:
    """Continuing texts."""

    options = TextOptions

    def __init__(self) -> None:
        self._model: TextModel | None = None
        """The model in use: prompts are counted in its tokens."""
        self._drafts: dict[str, TextModel] = {}

    def load(self, source: str, options: TextOptions) -> Iterator[Prompt]:
        yield from list_prompts(source, options)

    def example(self) -> list[str]:
        return [str(files("seqgen_text") / "assets" / "prompts.jsonl")]

    def build(self, card: Card, device: torch.device, dtype: torch.dtype) -> TextModel:
        self._model = load_text_model(local_files(card)[0], device=device, dtype=dtype)
        self._drafts = {}
        return self._model

    def default_decoder(self, card: Card) -> str:
        """Block diffusion for a folder whose config names a mask token, as it was trained."""
        if card.path is None:
            return ""
        try:
            config = read_config(card.path if card.path.is_dir() else card.path.parent)
        except CheckpointError:
            return ""  # `build` says what is wrong
        return "" if config.mask_id is None else "block-diffusion"

    def decoders_of(self, model: TextModel) -> tuple[str, ...]:
        """The decoders that a model has."""
        return model.decoders

    def split(self, item: Prompt, options: TextOptions) -> Iterator[Prompt]:
        """The prompt in tokens."""
        if item.problem is not None:
            raise item.problem
        if self._model is None:
            raise RuntimeError("build() comes before split()")
        ids = self._model.encode_prompt(item.text, options)
        if not ids:
            raise InputError(
                f"the prompt of {item.id} is empty",
                why="the tokenizer made no token of it",
                fix="give a text whose characters the model knows",
            )
        reference = self._model.encode(item.reference) if item.reference else []
        _no_mask([*ids, *reference], item, self._model)
        piece = replace(item, ids=tuple(ids), reference_ids=tuple(reference))
        _new_tokens(piece, self._model, options)
        yield piece

    def condition(
        self, model: TextModel, pieces: Sequence[Prompt], options: TextOptions
    ) -> TextContext:
        return TextContext(model=model, pieces=tuple(pieces))

    def plan(
        self,
        model: TextModel,
        context: Context | None,
        decoder: str,
        options: TextOptions,
        seeds: Tensor,
    ) -> Plan:
        assert isinstance(context, TextContext)
        draft = self._draft(options, model) if decoder == "speculative" else None
        chosen, driven = choose(decoder, model, options, draft)
        room = [_room(piece, model, decoder, options) for piece in context.pieces]
        canvas = Canvas.tokens(
            [piece.ids for piece in context.pieces],
            new=room,
            seeds=seeds,
            device=device_of(driven),
        )
        watched = TextDecoder(
            decoder=chosen,
            text_of=model.decode,
            ends=Ends(
                most=tuple(_new_tokens(piece, model, options) for piece in context.pieces),
                ids=end_ids(options, model),
                texts=options.stop_texts,
            ),
            name=decoder,
        )
        return Plan(watched, driven, canvas)

    def finish(
        self,
        generated: Generated,
        pieces: Sequence[Prompt],
        context: Context | None,
        options: TextOptions,
    ) -> list[Fields]:
        assert isinstance(generated, TextGenerated)
        assert isinstance(context, TextContext)
        model = context.model
        assert model is not None
        confidences = generated.confidence_BS.tolist()
        passes = generated.passes_B.tolist()
        rows = []
        for row, (piece, ids) in enumerate(zip(pieces, generated.sequences(), strict=True)):
            start = len(piece.ids)
            own = confidences[row][start : start + len(ids)]
            answer = Answer.of(ids, own, generated.ends, row, model)
            nats = _nats(piece, model, generated.name, options)
            rows.append(answer.fields(piece, passes[row], nats, model))
        return rows

    def join(self, item: Prompt, parts: Sequence[Fields], options: TextOptions) -> Fields:
        return dict(parts[0])

    def describe(self, item: Prompt) -> Fields:
        """What a row says of a prompt that failed."""
        return {"prompt": item.text}

    def live(self, model: TextModel, write: Callable[[str], None], items: int) -> LiveText:
        """Shows texts while they are decoded."""
        return LiveText(model, write, title=items > 1)

    def write(self, rows: Iterable[Mapping[str, Any]], destination: Path, format: str) -> None:
        write_rows(rows, destination, format)

    def score(self, rows: Sequence[Mapping[str, Any]], items: Sequence[Prompt]) -> dict[str, float]:
        return score(rows, items)

    def training(self) -> TrainingTask:
        from seqgen_text.training import TextTask

        return TextTask()

    def _draft(self, options: TextOptions, model: TextModel) -> TextModel | None:
        if not options.draft:
            return None
        if options.draft not in self._drafts:
            weight = next(model.ar.parameters())
            # Weights that are made while a batch is planned must be ordinary tensors all the same.
            with torch.inference_mode(False):
                draft = load_text_model(
                    Path(options.draft).expanduser(), device=weight.device, dtype=weight.dtype
                )
            for step in model.steps:
                draft.when_loaded(step)
            self._drafts[options.draft] = draft
        return self._drafts[options.draft]


@dataclass(frozen=True)
class Answer:
    """What was generated, cut where it ends.

    Attributes:
        ids: tokens, without the one that ends the text.
        confidences: of each of them.
        text: without the stop text and what follows it.
        finish_reason: `stop` (an end-of-text token), `stop_text` or `length`.
        decided: tokens that the model decided, the ending one and the rest of a last block too.
    """

    ids: list[int]
    confidences: list[float]
    text: str
    finish_reason: str
    decided: int

    @classmethod
    def of(
        cls, ids: list[int], confidences: list[float], ends: Ends, row: int, model: TextModel
    ) -> Answer:
        """From a row's new ids and their confidences."""
        if not all(map(math.isfinite, confidences)):
            raise CheckpointError(
                f"the model in {model.folder} computes numbers that are not finite",
                why="its weights are damaged, or overflow in this type",
                fix="--dtype float32, or get the weights again",
            )
        reason, decided = "length", len(ids)
        ids = ids[: ends.most[row]]
        if ids and ids[-1] in ends.ids:
            reason, ids = "stop", ids[:-1]
        text, cut = ends.cut(model.decode(ids))
        return cls(ids, confidences[: len(ids)], text, "stop_text" if cut else reason, decided)

    def fields(self, piece: Prompt, passes: int, nats: float | None, model: TextModel) -> Fields:
        """As a row has them."""
        fields: Fields = {
            "prompt": piece.text,
            "text": self.text,
            "tokens": [model.piece(i) for i in self.ids],
            "token_ids": self.ids,
            "confidences": [round(c, 4) for c in self.confidences],
            "finish_reason": self.finish_reason,
            "forwards": passes,
            "tokens_per_forward": round(self.decided / max(passes, 1), 4),
        }
        if nats is not None:
            fields |= {
                "reference_nats": round(nats, 4),
                "reference_tokens": len(piece.reference_ids),
                "reference_bytes": len((piece.reference or "").encode()),
            }
        return fields


def _no_mask(ids: list[int], item: Prompt, model: TextModel) -> None:
    """Raise InputError if one of the ids is the mask of block diffusion."""
    mask_id = model.config.mask_id
    if mask_id in ids:
        raise InputError(
            f"{item.id} holds {model.piece(mask_id)!r}, the model's mask token",
            why="it stands for what is not decided yet, and a prompt is never changed",
            fix="leave it out",
        )


def _new_tokens(piece: Prompt, model: TextModel, options: TextOptions) -> int:
    """New tokens that a row may have.

    Raises:
        InputError: prompt, or prompt and reference, or prompt and the tokens asked for are longer
            than the model's positions.
    """
    used, most = len(piece.ids), model.config.max_positions
    model.config.check_length(used + max(1, len(piece.reference_ids)))
    if options.max_new_tokens is not None:
        model.config.check_length(used + options.max_new_tokens)
        return options.max_new_tokens
    return len(piece.reference_ids) or min(DEFAULT_NEW_TOKENS, most - used)


def _room(piece: Prompt, model: TextModel, decoder: str, options: TextOptions) -> int:
    """Slots behind a prompt. Block diffusion fills its last block, as the model was trained."""
    new = _new_tokens(piece, model, options)
    if decoder != "block-diffusion":
        return new
    length = block_length(options, model)
    return _filled(len(piece.ids) + new, length, model) - len(piece.ids)


def _filled(slots: int, length: int, model: TextModel) -> int:
    """Slots up to the end of the last block, as far as the model's positions go."""
    return max(slots, min(-(-slots // length) * length, model.config.max_positions))


def _nats(piece: Prompt, model: TextModel, decoder: str, options: TextOptions) -> float | None:
    """-log p of the reference, in the decoder's order; None where there is none."""
    if not piece.reference_ids or decoder == "nar":
        return None
    if model.block is None:
        return causal_nats(model.ar, piece.ids, piece.reference_ids)
    length = block_length(options, model) if decoder == "block-diffusion" else 1
    return block_nats(
        model.block,
        piece.ids,
        piece.reference_ids,
        block_length=length,
        room=_filled(len(piece.ids) + len(piece.reference_ids), length, model) - len(piece.ids),
    )
