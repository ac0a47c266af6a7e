"""Text: normalisation shared by training and scoring, and the vocabulary.

A vocabulary is a list of pieces, as in FunASR's `tokens.json`. Three conventions of joining pieces
into words live together, told apart by the pieces themselves: `lo@@ w` (subword-nmt), `▁lo w`
(sentencepiece), and Chinese characters, which are words of their own written without spaces.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from seqgen.errors import CheckpointError, ConfigError, PluginError

BLANK, SOS, EOS, UNK = "<blank>", "<s>", "</s>", "<unk>"
SPECIALS = (BLANK, SOS, EOS, UNK)
WORD_START = "\u2581"
"""The sentencepiece mark of a word's first piece."""
CONTINUED = "@@"

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_SYMBOLS = {"#": " pound ", "*": " star ", "&": " and ", "%": " percent ", "+": " plus "}
_CJK = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u3040-\u30ff"
_IS_CJK = re.compile(f"[{_CJK}]")
_NOTE = re.compile(r"\([^()]*\)|\[[^\[\]]*\]|<[^<>]*>")
_WORD = re.compile(rf"[{_CJK}]|(?:(?![{_CJK}_])[\w'])+")


def normalise(text: str) -> str:
    """What is said, as lower-case words; scoring and training see the same form.

    1. Unicode NFKC, lower case, curly apostrophes made straight.
    2. Notes in round, square or angle brackets are dropped: they describe, nobody says them.
    3. Digits are spelled one by one ("2" -> "two", "162" -> "one six two", "0.5" -> "zero point
       five"); # * & % + become "pound", "star", "and", "percent", "plus" (telephone usage).
    4. Other punctuation becomes a space, hyphens too ("re-record" -> "re record"); an apostrophe
       within a word stays ("don't").
    5. Words are separated by one space; Chinese characters and kana by none.
    """
    text = unicodedata.normalize("NFKC", text).lower().replace("\u2019", "'").replace("\u2018", "'")
    text = _NOTE.sub(" ", text)
    text = re.sub(r"(?<=\d)[.](?=\d)", " point ", text)
    text = re.sub(r"\d", lambda digit: f" {DIGITS[int(digit[0])]} ", text)
    text = re.sub(r"[#*&%+]", lambda symbol: _SYMBOLS[symbol[0]], text)
    stripped = (word.strip("'") for word in _WORD.findall(text))
    return join_words([word for word in stripped if word])


def words(text: str) -> list[str]:
    """Words of a normalised text; each Chinese character is one."""
    return _WORD.findall(text)


def join_words(parts: Sequence[str]) -> str:
    """Words with spaces between them, but none between two Chinese characters."""
    out: list[str] = []
    for part in parts:
        if out and not (_IS_CJK.match(out[-1][-1:]) and _IS_CJK.match(part[:1])):
            out.append(" ")
        out.append(part)
    return "".join(out)


@dataclass(frozen=True)
class Transcript:
    """A decoded text, word by word.

    Attributes:
        text: the words, joined.
        tokens: the words.
        times: [start, end] in seconds of each word; empty if none were given.
        confidences: of each word, that of its least certain piece; empty if none were given.
    """

    text: str
    tokens: list[str]
    times: list[list[float]]
    confidences: list[float]


@dataclass(frozen=True)
class Tokens:
    """A vocabulary: ids <-> pieces.

    Attributes:
        pieces: the piece of each id.
        merges: byte-pair merges in order of priority; empty for vocabularies that are only
            decoded, and for lists of words and Chinese characters.
    """

    pieces: tuple[str, ...]
    merges: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if len(set(self.pieces)) != len(self.pieces):
            twice = next(p for p in self.pieces if self.pieces.count(p) > 1)
            raise CheckpointError(f"the vocabulary holds {twice!r} twice")

    def __len__(self) -> int:
        return len(self.pieces)

    @cached_property
    def ids(self) -> dict[str, int]:
        """The id of each piece."""
        return {piece: index for index, piece in enumerate(self.pieces)}

    def id(self, piece: str) -> int:
        """The id of a piece that must be there.

        Raises:
            CheckpointError: it is not.
        """
        if piece not in self.ids:
            raise CheckpointError(f"the vocabulary of {len(self)} pieces has no {piece!r}")
        return self.ids[piece]

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """Ids of `<...>`: never part of a text."""
        return frozenset(i for i, piece in enumerate(self.pieces) if re.fullmatch("<.+>", piece))

    def decode(
        self,
        ids: Iterable[int],
        *,
        times: Sequence[Sequence[float]] | None = None,
        confidences: Sequence[float] | None = None,
    ) -> Transcript:
        """Join pieces into words; times and confidences, given per piece, are joined too.

        Special pieces are left out. `times` may be shorter than `ids` by trailing special pieces.
        """
        ids = list(ids)
        spans = self._words(ids)
        kept = [[i for i in span if i < len(ids)] for _, span in spans]
        tokens = [word for word, _ in spans]
        return Transcript(
            text=join_words(tokens),
            tokens=tokens,
            times=[[float(times[span[0]][0]), float(times[span[-1]][1])] for span in kept]
            if times is not None
            else [],
            confidences=[float(min(confidences[i] for i in span)) for span in kept]
            if confidences is not None
            else [],
        )

    def _words(self, ids: Sequence[int]) -> list[tuple[str, list[int]]]:
        """Words with the positions of their pieces."""
        spans: list[tuple[str, list[int]]] = []
        joins = False  # whether the next piece goes on with the last word
        for position, index in enumerate(ids):
            if index in self.special_ids:
                continue
            piece = self.pieces[index]
            starts = piece.startswith(WORD_START)
            body = piece.removeprefix(WORD_START).removesuffix(CONTINUED)
            if self._marks_starts:
                joins = not starts and not _IS_CJK.match(body) and bool(spans)
            if joins and spans:
                word, positions = spans[-1]
                spans[-1] = (word + body, [*positions, position])
            else:
                spans.append((body, [position]))
            joins = piece.endswith(CONTINUED)
        return [(word, positions) for word, positions in spans if word]

    @cached_property
    def _marks_starts(self) -> bool:
        """Whether words begin with `▁` in this vocabulary; a piece without it then continues."""
        return any(piece.startswith(WORD_START) for piece in self.pieces)

    def encode(self, text: str) -> list[int]:
        """Ids of a normalised text, without special pieces around it.

        With merges: byte-pair encoding (package tokenizers). Without: words and Chinese characters
        are looked up; what is not in the vocabulary becomes `<unk>`.

        Raises:
            CheckpointError: a word is unknown and there is no `<unk>`.
            PluginError: the package tokenizers is needed and missing.
        """
        if self.merges:
            ids: list[int] = self._encoder.encode(text, add_special_tokens=False).ids
            return ids
        return [self.ids[w] if w in self.ids else self.id(UNK) for w in words(text)]

    @cached_property
    def _encoder(self) -> Any:
        tokenizers = _tokenizers()
        unk = UNK if UNK in self.ids else None
        encoder = tokenizers.Tokenizer(
            tokenizers.models.BPE(vocab=self.ids, merges=list(self.merges), unk_token=unk)
        )
        encoder.pre_tokenizer = _word_starts(tokenizers)
        return encoder

    def save(self, path: str | Path) -> None:
        """Write JSON: a plain list of pieces, or an object with `pieces` and `merges`."""
        data: object = list(self.pieces)
        if self.merges:
            data = {"pieces": list(self.pieces), "merges": [list(pair) for pair in self.merges]}
        Path(path).write_text(json.dumps(data, ensure_ascii=False, indent=0) + "\n", "utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Tokens:
        """Read `save`'s JSON, FunASR's tokens.json (a list) or tokens.txt (a piece a line).

        Raises:
            CheckpointError: the file is missing or has another layout.
        """
        path = Path(path)
        try:
            raw = path.read_text("utf-8")
            data = [line.split()[0] for line in raw.splitlines() if line.strip()]
            data = json.loads(raw) if path.suffix == ".json" else data
            return cls.from_json(data)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"cannot read the vocabulary {path}", why=str(error)) from error

    @classmethod
    def from_json(cls, data: object) -> Tokens:
        """From a list of pieces, or an object with `pieces` and `merges`.

        Raises:
            CheckpointError: it is something else.
        """
        pieces = data.get("pieces") if isinstance(data, dict) else data
        merges = data.get("merges", []) if isinstance(data, dict) else []
        if not (isinstance(pieces, list) and all(isinstance(p, str) for p in pieces) and pieces):
            raise CheckpointError(
                "a vocabulary must be a JSON list of strings, or an object with 'pieces' and "
                "'merges'"
            )
        return cls(tuple(pieces), tuple((left, right) for left, right in merges))


def train_bpe(texts: Iterable[str], size: int, *, specials: Sequence[str] = SPECIALS) -> Tokens:
    """A byte-pair vocabulary of at most `size` pieces (special ones first) from normalised texts.

    The same texts give the same vocabulary.

    Raises:
        ConfigError: `size` does not hold the special pieces and the characters.
        PluginError: the package tokenizers is missing.
    """
    tokenizers = _tokenizers()
    texts = list(texts)
    characters = {WORD_START} | {c for text in texts for c in text if not c.isspace()}
    if size < len(specials) + len(characters):
        raise ConfigError(
            f"a vocabulary of {size} is too small for {len(specials)} special pieces and "
            f"{len(characters)} characters",
            fix=f"use at least {len(specials) + len(characters)}",
        )
    encoder = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token=UNK))
    encoder.pre_tokenizer = _word_starts(tokenizers)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=size, special_tokens=list(specials), show_progress=False
    )
    encoder.train_from_iterator(texts, trainer=trainer)
    model = json.loads(encoder.to_str())["model"]
    pieces = sorted(model["vocab"], key=model["vocab"].__getitem__)
    pairs: Iterator[Any] = (p.split(" ") if isinstance(p, str) else p for p in model["merges"])
    return Tokens(tuple(pieces), tuple((left, right) for left, right in pairs))


def _word_starts(tokenizers: Any) -> Any:
    return tokenizers.pre_tokenizers.Metaspace(replacement=WORD_START, prepend_scheme="always")


def _tokenizers() -> Any:
    try:
        import tokenizers
        import tokenizers.models
        import tokenizers.pre_tokenizers
        import tokenizers.trainers
    except ImportError as error:
        raise PluginError(
            "encoding text needs the package tokenizers",
            why=str(error),
            fix="pip install 'seqgen-kit[speech]'",
        ) from error
    return tokenizers
