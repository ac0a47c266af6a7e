"""Peptides as text: the part of ProForma that names linear peptides, and spellings like it.

    [Acetyl]-M[Oxidation]PEPTC[UNIMOD:4]K      ProForma 2.0 (LeDuc et al., 2022)
    +42.011M+15.995PEPTC+57.021K               masses, as MassIVE and Casanovo 3 write them
    M(+15.99)PEPTC(+57.02)K                    masses, as PEAKS and DeepNovo write them

`read` says where the modifications are and leaves their meaning to the vocabulary.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from seqgen.errors import InputError

TAG = r"\[(?:[^\[\]]|\[[^\[\]]*\])*\]"
"""`[...]`, with one level of brackets inside (`[Xlink:DSS[156]]`)."""

_NUMBER = r"[+-]\d+(?:\.\d*)?|[+-]\.\d+"
_MARK = rf"(?:{TAG}|\((?:{_NUMBER})\)|{_NUMBER})"
_PREFIX = re.compile(rf"(?P<marks>{_MARK}+)-?(?=[A-Z])")
_SITE = re.compile(rf"(?P<residue>[A-Z])(?P<marks>{_MARK}*)")
_SUFFIX = re.compile(r"/[+]?\d+$")


@dataclass(frozen=True)
class Site:
    """A residue, or the N-terminus ("-"), with the modifications written at it."""

    residue: str
    tags: tuple[str, ...]


def read(text: str) -> list[Site]:
    """Sites of a peptide; the N-terminus, if it is modified, comes first.

    A charge (`PEPTIDE/2`) is allowed and left out.

    Raises:
        InputError: this is not a linear peptide.
    """
    body = _SUFFIX.sub("", text.strip())
    sites: list[Site] = []
    place = 0
    if prefix := _PREFIX.match(body):
        sites.append(Site("-", _tags(prefix["marks"])))
        place = prefix.end()
    while place < len(body):
        match = _SITE.match(body, place)
        if match is None:
            raise InputError(f"cannot read the peptide {text!r}", why=_why(body, place))
        sites.append(Site(match["residue"], _tags(match["marks"])))
        place = match.end()
    if not sites or sites[-1].residue == "-":
        raise InputError(f"cannot read the peptide {text!r}", why="it has no residues")
    return sites


def number(tag: str) -> tuple[float, float] | None:
    """A mass and how far off it may be, for a tag that is a number; None for a name.

    The last digit written is taken as rounded: `+15.99` is anything within 0.005 of it.
    """
    text = re.sub(r"^(?:U|UNIMOD|Obs|M|R|X|G):(?=[+-])", "", tag, flags=re.IGNORECASE)
    if not re.fullmatch(_NUMBER, text):
        return None
    decimals = len(text.partition(".")[2])
    return float(text), 0.5 * 10.0**-decimals + 0.0002


def split(token: str) -> tuple[str, str]:
    """Residue ("-" for the N-terminus) and tag ("" if bare) of a vocabulary's token."""
    if token.endswith("]-"):
        return "-", token[1:-2]
    return token[0], token[2:-1]


def _tags(marks: str) -> tuple[str, ...]:
    return tuple(mark[1:-1] if mark[0] in "[(" else mark for mark in re.findall(_MARK, marks))


def _why(body: str, place: int) -> str:
    rest = body[place : place + 20]
    if rest.startswith("-["):
        return f"modifications of the C-terminus ({rest!r}) are not supported"
    if body.startswith("<"):
        return "global modifications (`<...@C>`) are not supported: write each one at its residue"
    if body[:1] in "{(" or "?" in body:
        return "modifications of unknown place are not supported"
    if rest[0].islower():
        return f"{rest!r} holds a small letter; residues are capital letters"
    if rest[0] == "[":
        return f"{rest!r}: a modification stands behind its residue, or before the first with '-'"
    return f"{rest!r} is neither a residue nor a modification"
