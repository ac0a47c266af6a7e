"""Modifications by name, accession or mass, out of a table of UNIMOD that the plugin ships.

`assets/unimod.tsv` holds names, accessions and monoisotopic masses and nothing else. To make it
anew from a later UNIMOD file (`unimod.xml`, gzip too):

    python -m seqgen_peptides.modifications unimod.xml.gz > assets/unimod.tsv
"""

from __future__ import annotations

import difflib
import functools
import gzip
import sys
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from seqgen.errors import ConfigError

SAME = 0.001
"""Masses in Da closer than this are the same modification."""

HEADER = """\
# Names, accession numbers and monoisotopic masses (Da) of modifications, from UNIMOD
# (www.unimod.org; Creasy and Cottrell, Proteomics 2004). Facts only; made by
# python -m seqgen_peptides.modifications unimod.xml.gz
"""


@dataclass(frozen=True)
class Modification:
    """A line of the table; `mass` is what it adds to a residue, in Da."""

    name: str
    accession: int
    mass: float


@dataclass(frozen=True)
class Table:
    """Modifications, found by name (case does not matter), accession or mass."""

    by_name: Mapping[str, Modification]
    by_accession: Mapping[int, Modification]
    by_mass: tuple[Modification, ...]

    def named(self, name: str) -> Modification | None:
        """`Oxidation`, `U:Oxidation`, `UNIMOD:35` or `U:35`; None if there is no such one."""
        prefix, colon, rest = name.partition(":")
        if colon and prefix.upper() in ("U", "UNIMOD"):
            return self.by_accession.get(int(rest)) if rest.isdigit() else self._by_name(rest)
        return self._by_name(name)

    def near(self, mass: float, tolerance: float) -> list[Modification]:
        """Modifications of about this mass in Da, the nearest first."""
        start = bisect_left(self.by_mass, mass - tolerance, key=lambda m: m.mass)
        found = []
        for modification in self.by_mass[start:]:
            if modification.mass > mass + tolerance:
                break
            found.append(modification)
        return sorted(found, key=lambda m: (abs(m.mass - mass), m.accession))

    def suggestions(self, name: str, count: int = 3) -> list[str]:
        """Names like this one."""
        close = difflib.get_close_matches(name.casefold(), self.by_name, n=count, cutoff=0.6)
        return [self.by_name[key].name for key in close]

    def _by_name(self, name: str) -> Modification | None:
        return self.by_name.get(name.casefold())


@functools.cache
def unimod() -> Table:
    """The shipped table, read once."""
    text = (files("seqgen_peptides") / "assets" / "unimod.tsv").read_text(encoding="utf-8")
    found = []
    for line in text.splitlines():
        if line and not line.startswith(("#", "name\t")):
            name, accession, mass = line.split("\t")
            found.append(Modification(name, int(accession), float(mass)))
    return Table(
        {m.name.casefold(): m for m in found},
        {m.accession: m for m in found},
        tuple(sorted(found, key=lambda m: m.mass)),
    )


def read_modifications(path: Path) -> dict[str, float | None]:
    """Tokens of a YAML file, for `Residues.extended`.

    The file lists tokens, with a mass in Da where UNIMOD shall not be asked:

        residues:
          S[Phospho]:
          "[TMT6plex]-":
          K[MyLabel]: 300.123456     # of residue and label together

    Raises:
        ConfigError: the file cannot be read, or does not look like this.
    """
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read the modifications in {path}", why=str(error)) from error
    listed = content.get("residues") if isinstance(content, dict) else None
    if isinstance(listed, list) and all(isinstance(token, str) for token in listed):
        return dict.fromkeys(listed)
    if isinstance(listed, dict) and all(
        isinstance(token, str) and (mass is None or isinstance(mass, int | float))
        for token, mass in listed.items()
    ):
        return dict(listed)
    raise ConfigError(
        f"{path} must list residues",
        fix="for example:\nresidues:\n  S[Phospho]:\n  K[MyLabel]: 300.123456",
    )


def convert(path: Path) -> Iterator[Modification]:
    """Names, accessions and masses of a UNIMOD XML file, by rising accession."""
    from xml.etree import ElementTree

    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        tree = ElementTree.parse(file)
    found = []
    for mod in tree.iterfind(".//{*}modifications/{*}mod"):
        delta = mod.find("{*}delta")
        if delta is not None:
            mass = float(delta.attrib["mono_mass"])
            found.append(Modification(mod.attrib["title"], int(mod.attrib["record_id"]), mass))
    yield from sorted(found, key=lambda m: m.accession)


if __name__ == "__main__":
    print(HEADER + "name\taccession\tmass")
    for modification in convert(Path(sys.argv[1])):
        print(f"{modification.name}\t{modification.accession}\t{modification.mass:.6f}")
