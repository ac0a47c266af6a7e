"""Sentences for synthetic voices, from a small context-free grammar of our own.

`assets/grammar.txt` holds the rules (telephone prompts, numbers, dates, spelling, general English)
and `assets/words.txt` frequent English words, so that a recogniser trained on few recordings still
hears and spells most words. The grammar was written from general knowledge and from the training
prompts only; the texts of the development set were never looked at (see `corpus.py`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from importlib import resources
from typing import NamedTuple

import numpy as np

from seqgen.errors import ConfigError

_SYMBOL = re.compile(r"\{(\w+)\}")
_WEIGHT = re.compile(r"(\d+)\*\s+")
_MAX_DEPTH = 12


class Sentence(NamedTuple):
    """`text` is what a recogniser should write, `spoken` what a synthesiser is given."""

    text: str
    spoken: str


@dataclass(frozen=True)
class Grammar:
    """Rules: symbol -> alternatives with their weights as cumulative probabilities."""

    rules: dict[str, tuple[list[str], np.ndarray]]
    words: list[str] = field(repr=False)

    @classmethod
    def load(cls) -> Grammar:
        """The grammar and the word list shipped with the plugin."""
        assets = resources.files("seqgen_speech") / "assets"
        return cls.parse(
            (assets / "grammar.txt").read_text(encoding="utf-8"),
            (assets / "words.txt").read_text(encoding="utf-8"),
        )

    @classmethod
    def parse(cls, grammar: str, words: str) -> Grammar:
        """Read rules (`symbol = alternative | alternative`) and words (one a line).

        Raises:
            ConfigError: a line has no `=`, or an alternative names an unknown symbol.
        """
        rules = {}
        for line in _lines(grammar):
            symbol, equals, body = line.partition("=")
            if not equals:
                raise ConfigError(f"grammar line without '=': {line!r}")
            alternatives, weights = [], []
            for alternative in body.split("|"):
                alternative = alternative.strip()
                weight = _WEIGHT.match(alternative)
                weights.append(float(weight[1]) if weight else 1.0)
                alternatives.append(alternative[weight.end() :] if weight else alternative)
            rules[symbol.strip()] = (alternatives, np.cumsum(weights) / np.sum(weights))
        known = {*rules, "word"}
        for symbol, (alternatives, _) in rules.items():
            used = {name for text in alternatives for name in _SYMBOL.findall(text)}
            if missing := used - known:
                raise ConfigError(f"grammar symbol {symbol!r} uses unknown {sorted(missing)}")
        return cls(rules, list(_lines(words)))

    def sentence(self, rng: np.random.Generator, symbol: str = "sentence") -> Sentence:
        """Draw one sentence."""
        tokens = self._expand(symbol, rng, 0).split()
        pairs = [token.partition("~") for token in tokens]
        return Sentence(
            " ".join(text for text, _, _ in pairs),
            " ".join((said or text).replace("_", " ") for text, _, said in pairs),
        )

    def _expand(self, symbol: str, rng: np.random.Generator, depth: int) -> str:
        if symbol == "word":
            return self.words[int(rng.integers(len(self.words)))]
        if depth > _MAX_DEPTH:
            raise ConfigError(f"grammar symbol {symbol!r} nests deeper than {_MAX_DEPTH}")
        alternatives, cumulative = self.rules[symbol]
        chosen = alternatives[int(np.searchsorted(cumulative, rng.random(), side="right"))]
        return _SYMBOL.sub(lambda match: self._expand(match[1], rng, depth + 1), chosen)


def _lines(text: str) -> list[str]:
    stripped = (line.strip() for line in text.splitlines())
    return [line for line in stripped if line and not line.startswith("#")]
