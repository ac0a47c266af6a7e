"""A tokenizer of characters, as a Hugging Face `tokenizer.json`.

The first token ends a document and, since no such model has a start token, also precedes it:
`encode` puts it in front. The last one is the mask of block diffusion; an autoregressive model has
its row too, so that a conversion changes no shape.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer

END, UNKNOWN, MASK = "<|end|>", "<|unknown|>", "<|mask|>"
END_ID = 0


def character_tokenizer(characters: Iterable[str]) -> Tokenizer:
    """A tokenizer whose tokens are these characters, sorted, between END, UNKNOWN and MASK."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors

    tokens = [END, UNKNOWN, *sorted(set(characters)), MASK]
    ids = {token: number for number, token in enumerate(tokens)}
    made = Tokenizer(models.WordLevel(ids, unk_token=UNKNOWN))
    made.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    made.decoder = decoders.Fuse()
    made.add_special_tokens([END, UNKNOWN, MASK])
    made.post_processor = processors.TemplateProcessing(
        single=f"{END} $A", special_tokens=[(END, END_ID)]
    )
    return made


def encode(tokenizer: Tokenizer, texts: Sequence[str], end_id: int) -> list[list[int]]:
    """Ids of documents, each with the end before it, whether or not the tokenizer puts it there."""
    rows = [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]
    return [row if row[:1] == [end_id] else [end_id, *row] for row in rows]


def mask_id_of(tokenizer: Tokenizer) -> int | None:
    """The mask's id, if the tokenizer knows it."""
    found: int | None = tokenizer.token_to_id(MASK)
    return found
