"""What other spellings of a modification mean in a vocabulary: accessions, synonyms, masses.

    M[UNIMOD:35]  M[U:Oxidation]  M[+15.9949]  M+15.995  ->  M[Oxidation]

Only needed for peptides from elsewhere; what the vocabulary wrote itself, it reads without this.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from seqgen.errors import InputError
from seqgen_peptides.modifications import SAME, Modification, unimod
from seqgen_peptides.proforma import Site, number, read, split

RARE = {"U": 150.953636, "O": 237.147727}
"""Selenocysteine and pyrrolysine, monoisotopic masses in Da. B, J, X and Z are no one residue."""

RINGS = frozenset({"Gln->pyro-Glu"})
"""Names, written at the first residue, of what the N-terminus does: it loses ammonia to a ring."""


class Spellings:
    """Reads peptides for a vocabulary.

    Args:
        index: token -> id.
        table: mass of each id in Da.
    """

    def __init__(self, index: Mapping[str, int], table: Sequence[float]) -> None:
        self._index = index
        self._table = table
        self._modified: dict[str, dict[str, float]] = {}
        for token, i in index.items():
            residue, tag = split(token)
            if tag and (residue == "-" or residue in index):
                bare = 0.0 if residue == "-" else table[index[residue]]
                self._modified.setdefault(residue, {})[token] = table[i] - bare

    def ids(self, peptide: str) -> list[int]:
        """Ids of a peptide, from the N-terminus.

        Raises:
            InputError: it is no peptide, or holds what the vocabulary lacks.
        """
        ids: list[int] = []
        for site in read(peptide):
            ids += self._site(site, peptide, first=not ids)
        return ids

    def missing(self, peptide: str) -> dict[str, float]:
        """Token -> mass in Da of what a peptide holds and the vocabulary lacks.

        Raises:
            InputError: it is no peptide, or a modification's mass is not known.
        """
        found: dict[str, float] = {}
        for place, site in enumerate(read(peptide)):
            bare = 0.0 if site.residue == "-" else self._bare_mass(site.residue)
            if site.residue != "-" and site.residue not in self._index:
                found[site.residue] = bare
            try:
                self._site(site, peptide, first=place == 0)
            except InputError:
                if site.tags:
                    tag, delta = _canonical(site, peptide)
                    found[_spelt(site.residue, tag)] = bare + delta
        return found

    def _bare_mass(self, residue: str) -> float:
        i = self._index.get(residue)
        return RARE.get(residue, 0.0) if i is None else self._table[i]

    def _site(self, site: Site, peptide: str, *, first: bool) -> list[int]:
        """Ids of a site: two where the vocabulary puts what is written there at the N-terminus."""
        if not site.tags:
            return [self._bare(site, peptide)]
        spelt = _spelt(site.residue, site.tags[0])
        if len(site.tags) == 1 and spelt in self._index:
            return [self._index[spelt]]
        delta, tolerance, movable = 0.0, 0.0, True
        for tag in site.tags:
            own, within, is_movable = _delta(tag, site, peptide)
            delta, tolerance, movable = delta + own, tolerance + within, movable and is_movable
        token = self._nearest(site.residue, delta, tolerance)
        if token is not None:
            return [self._index[token]]
        if first and movable and site.residue != "-":
            # as it stands or modified (`C+39.995` is carbamidomethyl and a ring)
            forms = {site.residue: 0.0} | self._modified.get(site.residue, {})
            for form, own in forms.items():
                end = self._nearest("-", delta - own, tolerance)
                if end is not None and form in self._index:
                    return [self._index[end], self._index[form]]
        raise self._unknown(site, delta, peptide)

    def _bare(self, site: Site, peptide: str) -> int:
        if site.residue not in self._index:
            raise InputError(
                f"cannot read the peptide {peptide!r}",
                why=f"the vocabulary has no residue {site.residue!r}",
            )
        return self._index[site.residue]

    def _nearest(self, residue: str, delta: float, tolerance: float) -> str | None:
        near = {
            token: abs(mass - delta)
            for token, mass in self._modified.get(residue, {}).items()
            if abs(mass - delta) <= tolerance
        }
        return min(near, key=lambda token: near[token]) if near else None

    def _unknown(self, site: Site, delta: float, peptide: str) -> InputError:
        near: list[Modification] = []
        if any(number(tag) is not None for tag in site.tags):
            near = unimod().near(delta, 0.005)[:3]
        tag = " and ".join(site.tags)
        meant = f" (UNIMOD: {' or '.join(m.name for m in near)})" if near else ""
        known = ", ".join(self._modified.get(site.residue, {})) or "none there"
        added = near[0].name if near else site.tags[0] if len(site.tags) == 1 else f"{delta:+.6f}"
        return InputError(
            f"cannot read the peptide {peptide!r}",
            why=f"the vocabulary has no modification {tag!r}{meant} of {_where(site)}; it knows "
            f"{known}",
            fix="a model knows the residues it was trained with; to train one with this, add "
            f"{_spelt(site.residue, added)!r} to its residues",
        )


def _delta(tag: str, site: Site, peptide: str) -> tuple[float, float, bool]:
    """Mass and tolerance of a tag, and whether the N-terminus may be what carries it.

    A number at the first residue does not say which of the two does.
    """
    for part in tag.split("|"):
        if (given := number(part)) is not None:
            return *given, True
        if (found := unimod().named(part)) is not None:
            return found.mass, SAME, found.name in RINGS
    close = unimod().suggestions(tag.rpartition(":")[2])
    raise InputError(
        f"cannot read the peptide {peptide!r}",
        why=f"{tag!r} at {_where(site)} is neither a modification of UNIMOD nor a mass",
        fix=(f"did you mean {' or '.join(close)}? " if close else "")
        + "Write a UNIMOD name ([Oxidation]), an accession ([UNIMOD:35]) or a mass ([+15.9949])",
    )


def _canonical(site: Site, peptide: str) -> tuple[str, float]:
    """One tag and its mass for all of a site's: a UNIMOD name where there is one."""
    delta = sum(_delta(tag, site, peptide)[0] for tag in site.tags)
    named = unimod().named(site.tags[0]) if len(site.tags) == 1 else None
    return (named.name if named else f"{delta:+.6f}"), delta


def _spelt(residue: str, tag: str) -> str:
    """The token of a residue ("-": N-terminus) and a tag."""
    return f"[{tag}]-" if residue == "-" else f"{residue}[{tag}]"


def _where(site: Site) -> str:
    return "the N-terminus" if site.residue == "-" else site.residue
