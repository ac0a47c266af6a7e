"""Word and character error rates of transcripts.

Both texts are normalised by `seqgen_speech.text.normalise` first. Rates are over the whole set:
the sum of all errors over the sum of all reference words (characters), not a mean of rates. WER
counts each Chinese character as a word; CER counts spaces between words as characters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Protocol

from seqgen.errors import InputError, PluginError
from seqgen_speech.text import normalise, words


class Referenced(Protocol):
    """What scoring needs of an item."""

    @property
    def reference(self) -> str | None: ...


@dataclass(frozen=True)
class Edits:
    """Errors of the best alignment, and the length of the reference."""

    substitutions: int
    deletions: int
    insertions: int
    length: int

    @property
    def errors(self) -> int:
        return self.substitutions + self.deletions + self.insertions


def score(rows: Sequence[Mapping[str, Any]], items: Sequence[Referenced]) -> dict[str, float]:
    """WER, CER and their parts of output rows against their items' references, item by item.

    A row that failed counts as an empty transcript: its whole reference is deleted.

    Returns:
        `wer` and `cer` (1.0 is 100 %; above 1 with many insertions), `substitutions`, `deletions`,
        `insertions` (words), `words`, `characters` (of the references), `sentence_error_rate`
        (share of rows with any word error).

    Raises:
        InputError: there are no rows, a row's item has no reference, or all references are empty.
        PluginError: the package jiwer is missing.
    """
    # In order, not by id: where two folders hold the same name, the second row's id is another.
    references = [item.reference for item in items]
    missing = [str(row["id"]) for row, text in zip(rows, references, strict=True) if text is None]
    if missing or not rows:
        what = f"{len(missing)} of {len(rows)} items have no reference text"
        raise InputError(
            what if rows else "there is nothing to score",
            why=f"the first is {missing[0]!r}" if missing else "no rows were given",
            fix="give a manifest with texts (jsonl `target`, Kaldi `text`), or put NAME.txt beside "
            "NAME.wav; --set references=fsdd reads digit_speaker_take names",
        )
    truths = [normalise(text or "") for text in references]
    found = [
        normalise(str(row.get("text") or "")) if row.get("status", "ok") == "ok" else ""
        for row in rows
    ]
    by_word = edits([words(t) for t in truths], [words(f) for f in found])
    by_character = edits([list(t) for t in truths], [list(f) for f in found])
    if by_word.length == 0:
        raise InputError(
            "all references are empty", why="nothing is left of them after normalisation"
        )
    wrong = sum(words(t) != words(f) for t, f in zip(truths, found, strict=True))
    return {
        "wer": by_word.errors / by_word.length,
        "cer": by_character.errors / by_character.length,
        "substitutions": float(by_word.substitutions),
        "deletions": float(by_word.deletions),
        "insertions": float(by_word.insertions),
        "words": float(by_word.length),
        "characters": float(by_character.length),
        "sentence_error_rate": wrong / len(rows),
    }


def edits(references: Sequence[Sequence[str]], found: Sequence[Sequence[str]]) -> Edits:
    """Errors summed over pairs of symbol sequences, by jiwer's alignment."""
    jiwer = _jiwer()
    # jiwer aligns words of strings and refuses an empty reference: symbols become single
    # characters, and what is set against nothing is counted here.
    codes: dict[str, str] = {}
    pairs, substitutions, deletions, insertions = [], 0, 0, 0
    for truth, guess in zip(references, found, strict=True):
        if truth:
            pairs.append((_coded(truth, codes), _coded(guess, codes)))
        else:
            insertions += len(guess)
    if pairs:
        out = jiwer.process_characters(
            [t for t, _ in pairs], [g for _, g in pairs], **_as_is(jiwer)
        )
        substitutions, deletions = out.substitutions, out.deletions
        insertions += out.insertions
    return Edits(substitutions, deletions, insertions, sum(len(truth) for truth in references))


def _coded(symbols: Sequence[str], codes: dict[str, str]) -> str:
    """A string with one character a symbol, from the private-use planes."""
    return "".join(codes.setdefault(symbol, chr(0xF0000 + len(codes))) for symbol in symbols)


def _as_is(jiwer: ModuleType) -> dict[str, Any]:
    """jiwer's own normalisation switched off."""
    plain = jiwer.Compose([jiwer.ReduceToListOfListOfChars()])
    return {"reference_transform": plain, "hypothesis_transform": plain}


def _jiwer() -> ModuleType:
    try:
        import jiwer
    except ImportError as error:
        raise PluginError(
            "scoring transcripts needs the package jiwer",
            why=str(error),
            fix="pip install 'seqgen-kit[speech]'",
        ) from error
    return jiwer
