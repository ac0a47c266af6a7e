"""Labels of images: attributes, each with a few values, and how people write them.

    labels = Labels((("glasses", ("no", "yes")), ("hair", ("long", "short"))))
    labels.parse("glasses,hair=long")        -> (1, 0)
    labels.parse("")                         -> (None, None): everything is left to chance

A class-conditional model has one attribute, `class`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from seqgen.errors import ConfigError, did_you_mean

NO, YES = "no", "yes"

Indices = tuple[int | None, ...]
"""The index of each attribute's value; None where it is not specified."""


@dataclass(frozen=True)
class Labels:
    """Attributes with the names of their values.

    Attributes:
        attributes: (name, values) each; `no, yes` where an image has the thing or not.
    """

    attributes: tuple[tuple[str, tuple[str, ...]], ...] = ()

    @classmethod
    def of(cls, data: Any) -> Labels:
        """From JSON's nested lists."""
        return cls(tuple((str(name), tuple(map(str, values))) for name, values in data))

    def parse(self, text: str) -> Indices:
        """Indices of a specification: `glasses`, `hat=no`, `long`, several with commas.

        A bare word is an attribute that is there (`yes`), or a value that only one attribute has.

        Raises:
            ConfigError: an unknown or ambiguous name; suggests the nearest.
        """
        found: dict[int, int] = {}
        parts = [part for part in map(str.strip, text.split(",")) if part]
        if text.strip() and not parts:
            raise ConfigError(f"class {text!r} names nothing", fix="leave it empty, or name one")
        for part in parts:
            place, value = self._pair(part)
            if found.setdefault(place, value) != value:
                name = self.attributes[place][0]
                raise ConfigError(
                    f"class {text!r} says two things of {name!r}", fix=f"name {name} once"
                )
        return tuple(found.get(place) for place in range(len(self.attributes)))

    def names(self, indices: Sequence[int | None]) -> dict[str, str]:
        """What is specified, in words."""
        return {
            name: values[index]
            for (name, values), index in zip(self.attributes, indices, strict=True)
            if index is not None and index >= 0
        }

    def _pair(self, part: str) -> tuple[int, int]:
        name, equals, value = (x.strip() for x in part.partition("="))
        known = [attribute for attribute, _ in self.attributes]
        if equals:
            if name not in known:
                raise self._unknown(part, name, known)
            values = self.attributes[known.index(name)][1]
            if value not in values:
                raise self._unknown(part, value, values, f" of {name}")
            return known.index(name), values.index(value)
        if name in known and YES in self.attributes[known.index(name)][1]:
            return known.index(name), self.attributes[known.index(name)][1].index(YES)
        owners = [(a, v.index(name)) for a, (_, v) in enumerate(self.attributes) if name in v]
        if len(owners) == 1:
            return owners[0]
        if owners:
            raise ConfigError(
                f"class {part!r}: several attributes have the value {name!r}",
                fix=f"say which: {known[owners[0][0]]}={name}",
            )
        raise self._unknown(part, name, self.words())

    def describe(self) -> str:
        """The attributes in one line."""
        names = [f"{name} ({', '.join(values[:8])})" for name, values in self.attributes]
        return "; ".join(names) or "no labels"

    def words(self) -> list[str]:
        """All that can stand alone in a specification."""
        bare = [name for name, values in self.attributes if YES in values]
        values = [v for _, own in self.attributes for v in own if v not in (NO, YES)]
        return bare + sorted({v for v in values if values.count(v) == 1})

    def _unknown(self, part: str, name: str, known: Sequence[str], of: str = "") -> ConfigError:
        if not self.attributes:
            return ConfigError(f"class {part!r}: this model knows no classes", fix="leave it out")
        hint = did_you_mean(name, known) if len(known) <= 40 else f"0 to {len(known) - 1}"
        return ConfigError(f"class {part!r}: unknown name {name!r}{of}", fix=hint)


def from_columns(columns: Mapping[str, Sequence[Any]]) -> tuple[Labels, list[list[int]]]:
    """Labels of a table's columns, and every row's indices.

    A column with empty entries says whether the thing is there (`no`, `yes`). Otherwise digits at
    the end are variants of one value: `long02` is `long`; numbers stay as they are.

    Raises:
        ConfigError: a column has one value only, or more than 1000.
    """
    attributes, indices = [], []
    for name, column in columns.items():
        cells = [str(cell).strip() for cell in column]
        if "" in cells:
            cells = [YES if cell else NO for cell in cells]
        elif not all(re.fullmatch(r"-?\d+", cell) for cell in cells):
            cells = [re.sub(r"\d+$", "", cell) or cell for cell in cells]
        values = sorted(set(cells), key=_natural)
        if not 2 <= len(values) <= 1000:
            raise ConfigError(
                f"the label column {name!r} has {len(values)} values",
                why="a class needs 2 to 1000",
                fix="choose other columns with --set labels=...",
            )
        attributes.append((name, tuple(values)))
        indices.append([values.index(cell) for cell in cells])
    rows = [list(row) for row in zip(*indices, strict=True)]
    return Labels(tuple(attributes)), rows


def _natural(text: str) -> tuple[float, str]:
    return (float(text), "") if re.fullmatch(r"-?\d+", text) else (float("inf"), text)
