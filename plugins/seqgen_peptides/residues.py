"""The vocabulary: residues and modifications with their masses, and ProForma in and out.

A peptide is written from the N-terminus to the C-terminus, with modifications in brackets
(ProForma 2.0, LeDuc et al. 2022): `[Acetyl]-M[Oxidation]PEPTC[Carbamidomethyl]K`. A residue with
its modification is one token; an N-terminal modification is a token of its own.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from seqgen.errors import ConfigError, InputError
from seqgen_peptides.masses import WATER
from seqgen_peptides.modifications import SAME, unimod
from seqgen_peptides.proforma import TAG, number, split
from seqgen_peptides.spellings import Spellings

PAD = 0
"""Fills rows; the blank of CTC."""
STOP = 1
"""Ends a peptide."""
FIRST = 2
"""The first id of a residue."""

STANDARD: Mapping[str, float] = {
    "A": 71.037114,
    "C": 103.009185,
    "C[Carbamidomethyl]": 160.030649,
    "D": 115.026943,
    "E": 129.042593,
    "F": 147.068414,
    "G": 57.021464,
    "H": 137.058912,
    "K": 128.094963,
    "L": 113.084064,
    "M": 131.040485,
    "M[Oxidation]": 147.035400,
    "N": 114.042927,
    "N[Deamidated]": 115.026943,
    "P": 97.052764,
    "Q": 128.058578,
    "Q[Deamidated]": 129.042594,
    "R": 156.101111,
    "S": 87.032028,
    "T": 101.047670,
    "V": 99.068414,
    "W": 186.079313,
    "Y": 163.063329,
    "[+25.980265]-": 25.980265,
    "[Acetyl]-": 42.010565,
    "[Ammonia-loss]-": -17.026549,
    "[Carbamyl]-": 43.005814,
}
"""Residues of MassIVE-KB (and of Casanovo) with monoisotopic masses in Da. I is read as L."""

# What a model wrote may hold an N-terminal token in the middle: `PE[Acetyl]-K` has one.
_TOKEN = re.compile(rf"{TAG}-|[A-Z](?:{TAG}(?!-))?")


@dataclass(frozen=True)
class Residues:
    """A vocabulary: ids 0 (padding) and 1 (stop), then one id a residue.

    Attributes:
        masses: token -> mass in Da, of the residue with its modification.

    Raises:
        ConfigError: a token is no residue or modification, or its mass is no number.
    """

    masses: Mapping[str, float] = field(default_factory=lambda: dict(STANDARD))

    def __post_init__(self) -> None:
        for token, mass in self.masses.items():
            if not _TOKEN.fullmatch(token):
                raise ConfigError(
                    f"{token!r} is not a residue",
                    fix="a capital letter, with a modification in brackets: S[Phospho]; at the "
                    "N-terminus brackets and a dash: [Acetyl]-",
                )
            if not math.isfinite(mass):
                raise ConfigError(f"the mass of {token!r} is {mass}")

    @functools.cached_property
    def tokens(self) -> tuple[str, ...]:
        """Token of each id from `FIRST` on."""
        return tuple(self.masses)

    def __len__(self) -> int:
        return FIRST + len(self.masses)

    def table(self) -> list[float]:
        """Mass of each id; 0 for padding and stop."""
        return list(self._table)

    def n_terminal(self) -> list[bool]:
        """Which ids are N-terminal modifications."""
        return [False] * FIRST + [token.endswith("-") for token in self.masses]

    def encode(self, peptide: str) -> list[int]:
        """Ids of a peptide, from the N-terminus; `proforma` shows which spellings are read.

        Raises:
            InputError: it is no peptide, or holds what the vocabulary lacks.
        """
        index = self._index
        parts = _TOKEN.findall(peptide)
        found = [index.get(part, PAD) for part in parts]
        if found and PAD not in found and sum(map(len, parts)) == len(peptide):
            return found
        return Spellings(index, self._table).ids(peptide)

    def decode(self, ids: Sequence[int]) -> str:
        """ProForma of ids from the N-terminus; padding and stop are left out."""
        tokens = self.tokens
        return "".join(tokens[i - FIRST] for i in ids if i >= FIRST)

    def split(self, peptide: str) -> list[str]:
        """The tokens of a peptide, from the N-terminus.

        Raises:
            InputError: as `encode`.
        """
        return [self.tokens[i - FIRST] for i in self.encode(peptide)]

    def mass(self, ids: Sequence[int]) -> float:
        """Neutral mass of a peptide in Da, water included."""
        table = self._table
        return sum(table[i] for i in ids) + WATER

    def extended(self, tokens: Mapping[str, float | None] | Iterable[str]) -> Residues:
        """This vocabulary with more tokens behind its own, so that known ids stay.

        Args:
            tokens: `S[Phospho]`, `K[+8.0142]` or `[TMT6plex]-`, the mass looked up where it is
                not given: from UNIMOD, or from the number in the brackets.

        Raises:
            ConfigError: UNIMOD has no such modification, or a mass is not what the name says.
        """
        wanted = tokens if isinstance(tokens, Mapping) else dict.fromkeys(tokens)
        masses = dict(self.masses)
        for token, mass in wanted.items():
            token = _as_l(token)
            known = masses.get(token)
            if known is None:
                masses[token] = self._checked_mass(token, mass)
            elif mass is not None and abs(mass - known) > SAME:
                raise ConfigError(
                    f"the mass of {token!r} is {known}, not {mass}",
                    fix=f"leave it out, or give it another name: {token[0]}[MyLabel]",
                )
        return Residues(masses)

    def covering(self, peptides: Iterable[str]) -> Residues:
        """This vocabulary with what else these peptides hold, to compare or to draw them.

        Letters that are no one residue (X) weigh nothing.

        Raises:
            InputError: one is no peptide, or the mass of a modification is not known.
        """
        larger = self
        for peptide in peptides:
            try:
                larger.encode(peptide)
            except InputError:
                missing = Spellings(larger._index, larger._table).missing(peptide)
                larger = larger.extended(missing)
        return larger

    def parents(self, larger: Residues) -> list[int]:
        """For each id of `larger`, the id here whose weights a model best starts from.

        A known token is its own; a new one takes the bare residue, or for the N-terminus the
        modification of the nearest mass.
        """
        mine = {token: FIRST + place for place, token in enumerate(self.tokens)}
        ends = [(mass, mine[token]) for token, mass in self.masses.items() if token[-1] == "-"]
        found = [PAD, STOP]
        for token, mass in larger.masses.items():
            if token in mine:
                found.append(mine[token])
            elif token[-1] == "-":
                found.append(min(ends, key=lambda e: abs(e[0] - mass))[1] if ends else STOP)
            else:
                found.append(mine.get(token[0], STOP))
        return found

    def to_json(self) -> list[list[Any]]:
        """[token, mass] in the order of the ids."""
        return [[token, mass] for token, mass in self.masses.items()]

    @classmethod
    def from_json(cls, listed: Sequence[Sequence[Any]]) -> Residues:
        """What `to_json` gave."""
        return cls({str(token): float(mass) for token, mass in listed})

    @functools.cached_property
    def _table(self) -> tuple[float, ...]:
        return (*[0.0] * FIRST, *self.masses.values())

    @functools.cached_property
    def _index(self) -> dict[str, int]:
        """token -> id, with every L also as I."""
        index = {token: FIRST + place for place, token in enumerate(self.masses)}
        aliases = {f"I{token[1:]}": i for token, i in index.items() if token[0] == "L"}
        return aliases | index

    def _checked_mass(self, token: str, mass: float | None) -> float:
        """The mass given, or what the name says, or both where they agree."""
        if not _TOKEN.fullmatch(token):
            return math.nan if mass is None else mass  # the constructor refuses the token
        residue, tag = split(token)
        bare = 0.0 if residue == "-" else self.masses.get(residue)
        exact = number(tag) if tag else None
        named = unimod().named(tag) if tag else None
        delta = exact[0] if exact is not None else named.mass if named is not None else None
        if mass is None:
            if bare is None or delta is None:
                close = unimod().suggestions(tag)
                raise ConfigError(
                    f"the mass of {token!r} is not known",
                    why=f"UNIMOD has no modification {tag!r}"
                    if bare is not None
                    else f"the residue {residue!r} is not in the vocabulary",
                    fix=(f"did you mean {' or '.join(close)}? " if close else "")
                    + "Or give the mass in Da of residue and modification together",
                )
            return bare + delta
        if bare is not None and delta is not None and abs(bare + delta - mass) > 0.01:
            raise ConfigError(
                f"the mass of {token!r} should be {bare + delta:.6f} Da, not {mass}",
                fix="leave the mass out, or give that of residue and modification together",
            )
        return float(mass)


def _as_l(token: str) -> str:
    return f"L{token[1:]}" if token[:1] == "I" else token
