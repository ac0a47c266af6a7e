"""Documents to train on: a text file's, or tales; and windows of their ids.

Shapes: B rows, S slots, N tokens of all documents.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from seqgen.errors import InputError
from seqgen.seeds import item_seed
from seqgen_text.characters import encode
from seqgen_text.corpus import Tale, tales

if TYPE_CHECKING:
    from tokenizers import Tokenizer

HELD_OUT = 50
"""One document in so many is kept for validation."""
TALES_SEED = 0
"""The shipped models' corpus, whatever the seed of the training."""


@dataclass(frozen=True)
class Documents:
    """Texts to train on and texts kept back; none is in both.

    Attributes:
        tales: those kept back, with the part from which the rest follows; empty for other texts.
    """

    train: tuple[str, ...]
    held_out: tuple[str, ...]
    tales: tuple[Tale, ...] = ()

    @property
    def characters(self) -> set[str]:
        return set().union(*self.train)


def read_documents(data: Path | None, *, count: int) -> Documents:
    """The documents of `data`, a text file or a folder of them (*.txt); None for `count` tales.

    Documents are separated by empty lines.

    Raises:
        InputError: nothing is there, or it is not text, or it is too little.
    """
    if data is None:
        drawn = list(tales(TALES_SEED, count))
        parts = _split([tale.text for tale in drawn])
        by_text = {tale.text: tale for tale in drawn}
        return Documents(parts.train, parts.held_out, tuple(by_text[t] for t in parts.held_out))
    files = sorted(data.glob("*.txt")) if data.is_dir() else [data]
    if not files:
        raise InputError(f"{data} holds no text", fix="give a text file, or a folder of *.txt")
    try:
        texts = [file.read_text(encoding="utf-8") for file in files]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {data}", why=str(error), fix="text must be UTF-8") from error
    found = [part.strip("\n") for text in texts for part in re.split(r"\n\s*\n", text)]
    documents = _split([part for part in found if part.strip()])
    if not documents.train or not documents.held_out:
        raise InputError(
            f"{data} holds too few documents",
            why=f"{len(documents.train) + len(documents.held_out)} different ones, one in "
            f"{HELD_OUT} is kept for validation",
            fix="separate documents by empty lines",
        )
    return documents


def _split(texts: list[str]) -> Documents:
    kept = list(dict.fromkeys(texts))[::HELD_OUT]
    apart = set(kept)
    return Documents(tuple(text for text in texts if text not in apart), tuple(kept))


class Windows:
    """Batches of ids: windows that begin where a document does, or further on in a long one."""

    def __init__(
        self,
        documents: Documents,
        tokenizer: Tokenizer,
        *,
        end_id: int,
        length: int,
        size: int,
        seed: int,
    ) -> None:
        self.length, self.size, self.seed = length, size, seed
        rows = encode(tokenizer, documents.train, end_id)
        stream = [i for row in rows for i in row] + [end_id]
        self.stream_N = torch.tensor(stream)
        starts: list[int] = []
        place = 0
        for row in rows:
            starts += range(place, place + len(row), length)
            place += len(row)
        last = len(stream) - length
        self.starts = torch.tensor([start for start in starts if start <= last])
        if not len(self.starts):
            raise InputError(
                f"the text is shorter than {length} characters", fix="--set length=... or more text"
            )

    def batch(self, step: int, rank: int) -> Tensor:
        """Ids [B, S]: a function of its arguments and the seed."""
        chance = torch.Generator().manual_seed(item_seed(self.seed, f"batch {step} rank {rank}"))
        chosen = torch.randint(len(self.starts), (self.size,), generator=chance)
        return self.stream_N[self.starts[chosen][:, None] + torch.arange(self.length)]
