"""How good a character model is: bits per character, and how many of its tales are true.

Shapes: B rows, S slots.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from seqgen.canvas import Canvas
from seqgen.decoders.base import Decoder, Generated
from seqgen.events import Event
from seqgen.inputs import MaskedInputs
from seqgen.model import SequenceModel, device_of
from seqgen.orders import Order
from seqgen.seeds import item_seed
from seqgen.training.likelihood import nats, nats_bound
from seqgen_text.characters import END_ID, encode
from seqgen_text.corpus import Tale, is_true

if TYPE_CHECKING:
    from tokenizers import Tokenizer

AT_ONCE = 64
"""Documents scored or decoded together."""
LONGEST = 100
"""Characters a tale is given room for."""


@dataclass(frozen=True)
class Quality:
    """What a decoder made of tales.

    Attributes:
        share: of the tales that are right.
        tokens: decided, of all tales, the end included and what follows it in a block not.
        forwards: passes they took, as if every tale had been decoded alone.
    """

    share: float
    tokens: int
    forwards: int

    @property
    def tokens_per_forward(self) -> float:
        return self.tokens / max(1, self.forwards)


@torch.inference_mode()
def bits_per_character(
    model: SequenceModel,
    tokenizer: Tokenizer,
    documents: Sequence[str],
    order: Order,
    *,
    end_id: int,
    seed: int,
) -> float:
    """Bits a character, the end counted as one; a bound where the inputs are masked."""
    total, characters = 0.0, 0
    chance = torch.Generator().manual_seed(seed)
    for start in range(0, len(documents), AT_ONCE):
        ids_BS, valid_BS = padded(tokenizer, documents[start : start + AT_ONCE], end_id)
        ids_BS, valid_BS = ids_BS.to(device_of(model)), valid_BS.to(device_of(model))
        fixed_BS = torch.zeros_like(valid_BS)
        fixed_BS[:, 0] = True
        if isinstance(model.inputs, MaskedInputs):
            nats_B = nats_bound(
                model, ids_BS, valid_BS, order=order, generator=chance, fixed_BS=fixed_BS
            )
        else:
            nats_B = nats(model, ids_BS, valid_BS, fixed_BS=fixed_BS)
        total += float(nats_B.sum())
        characters += int(valid_BS.sum()) - len(valid_BS)
    return total / math.log(2) / max(1, characters)


def padded(tokenizer: Tokenizer, documents: Sequence[str], end_id: int) -> tuple[Tensor, Tensor]:
    """Ids [B, S] of documents with the end before and behind them, and which are in use."""
    rows = [[*row, end_id] for row in encode(tokenizer, documents, end_id)]
    longest = max(len(row) for row in rows)
    ids_BS = torch.tensor([row + [end_id] * (longest - len(row)) for row in rows])
    return ids_BS, torch.arange(longest)[None] < torch.tensor([[len(row)] for row in rows])


def true_tales(
    model: SequenceModel, tokenizer: Tokenizer, decoder: Decoder, *, count: int, seed: int
) -> Quality:
    """Tales drawn from nothing but the start; right are those that `is_true`."""
    return _decoded(model, tokenizer, decoder, [Tale("")] * count, seed=seed)


def finished_tales(
    model: SequenceModel, tokenizer: Tokenizer, decoder: Decoder, tales: Sequence[Tale]
) -> Quality:
    """Tales finished from the part that fixes the rest; right are those that come out as given."""
    return _decoded(model, tokenizer, decoder, [tale for tale in tales if tale.given], seed=0)


def _decoded(
    model: SequenceModel,
    tokenizer: Tokenizer,
    decoder: Decoder,
    tales: Sequence[Tale],
    *,
    seed: int,
) -> Quality:
    right = tokens = forwards = 0
    for start in range(0, len(tales), AT_ONCE):
        part = tales[start : start + AT_ONCE]
        prompts = encode(tokenizer, [tale.text[: tale.given] for tale in part], END_ID)
        canvas = Canvas.tokens(
            prompts,
            new=LONGEST,
            seeds=torch.tensor([item_seed(seed, f"{start + i}") for i in range(len(part))]),
            device=device_of(model),
        )
        passes = _Passes()
        made = decoder.generate(model, canvas, on_event=passes)
        texts = [tokenizer.decode(row) for row in made.sequences(drop=(END_ID,))]
        whole = [tale.text[: tale.given] + text for tale, text in zip(part, texts, strict=True)]
        done = made.finished_B.tolist()
        right += sum(
            end and (text == tale.text if tale.given else is_true(text))
            for tale, text, end in zip(part, whole, done, strict=True)
        )
        tokens += _new_tokens(made)
        forwards += passes.total
    return Quality(right / max(1, len(tales)), tokens, forwards)


class _Passes:
    """Counts passes row by row: a row needs a pass only while it has open slots."""

    def __init__(self) -> None:
        self.total = 0

    def __call__(self, event: Event) -> None:
        self.total += int(event.kept_BQ.any(dim=1).sum())


def _new_tokens(made: Generated) -> int:
    return int((made.length_B - made.prompt_B).sum())
