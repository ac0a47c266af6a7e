"""Spectra of Mascot Generic Format files: headers while listing, peaks of one when asked for.

Headers are read here, because listing has to be quick; a spectrum's peaks are read by pyteomics.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from seqgen.errors import InputError
from seqgen_peptides.blocks import Block, before, blocks
from seqgen_peptides.files import SpectrumFile
from seqgen_peptides.spectra import SpectrumItem

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MARK = re.compile(
    rb"\n(?:\xef\xbb\xbf)?[ \t]*"  # a byte order mark may stand at the very start
    rb"(?:(?P<open>BEGIN IONS)|(?P<close>END IONS))(?=[ \t\r]*(?:\n|\Z))"
)

_END = "\nEND IONS"
_FIRST_PEAK = re.compile(rb"\n[ \t]*(?:[-+.\d]|(?i:nan|inf)\b)")
_COMMENTS = ("#", ";", "!", "/")
_CHARGE = re.compile(r"([+-]?)(\d+)([+-]?)")

READ = 1 << 16
"""Bytes read at a time for one spectrum."""


def list_mgf(file: SpectrumFile, name: str, path: Path) -> Iterator[SpectrumItem]:
    """The spectra of a file, without their peaks. A bad one carries its problem."""
    common = _fields(before(file.head, MARK))
    index = 0
    ended = "closed"
    for block in blocks(file.data, MARK):
        yield _item(block, common, f"{name}:index={index}", path, name, file.problem)
        ended = block.ended
        index += 1
    if file.problem is not None and ended == "closed":
        yield SpectrumItem(f"{name}:index={index}", path, name, problem=file.problem)


def read_mgf(
    file: SpectrumFile, offset: int
) -> tuple[str, NDArray[np.float64], NDArray[np.float32]]:
    """Title, m/z and intensities of the spectrum that begins at a byte.

    Raises:
        InputError: its peaks cannot be read.
    """
    import numpy as np
    from pyteomics import mgf
    from pyteomics.auxiliary import PyteomicsError

    block = next(blocks(file.data, MARK, start=offset, chunk=READ), None)
    if block is None or block.offset != offset or block.ended != "closed":
        raise InputError(f"{file.name} has changed since it was listed")
    first_peak = _FIRST_PEAK.search(block.data)
    peaks = "" if first_peak is None else _text(block.data[first_peak.start() :])
    with io.StringIO(f"BEGIN IONS{peaks or _END}") as text:
        reader = mgf.MGF(text, use_header=False, convert_arrays=0, read_charges=False)
        try:
            found = next(reader)
        except (PyteomicsError, ValueError) as error:
            raise InputError("its peaks cannot be read", why=str(error)) from error
    title = _fields(block.data).get("TITLE", "")
    mz = np.array(found["m/z array"], dtype=np.float64)
    return title, mz, np.array(found["intensity array"], dtype=np.float32)


def mgf_title(file: SpectrumFile, offset: int) -> str:
    """The title of the spectrum that begins at a byte."""
    block = next(blocks(file.data, MARK, start=offset, chunk=READ), None)
    return "" if block is None else _fields(block.data).get("TITLE", "")


@lru_cache(maxsize=256)  # equal charges are one object: a million items are listed
def charges_of(text: str) -> tuple[int, ...]:
    """The charges that a CHARGE line names: `2+`, `+2`, `2`, `2+ and 3+`, `2+,3+`; () for none.

    Raises:
        InputError: it names something else, or negative charges.
    """
    found = []
    for word in re.split(r"[\s,;]+|\band\b|\bor\b", text):
        if not word:
            continue
        match = _CHARGE.fullmatch(word)
        if match is None or (match[1] and match[3]):
            raise InputError(f"the charge {text!r} cannot be read", fix="write it as 2+")
        if "-" in (match[1], match[3]):
            raise InputError(
                f"the precursor's charge is negative: {text}",
                why="models are trained on positive ions",
            )
        found.append(int(match[2]))
    return tuple(dict.fromkeys(found))


def _item(
    block: Block,
    common: Mapping[str, str],
    key: str,
    path: Path,
    name: str,
    broken: InputError | None,
) -> SpectrumItem:
    fields = {**common, **_fields(block.data)}
    problem = None
    mz: float | None = None
    charges: tuple[int, ...] = ()
    try:
        if block.ended == "file":
            raise broken or InputError(f"{path} ends within this spectrum", why="no END IONS")
        if block.ended == "opened":
            raise InputError("the spectrum has no END IONS before the next BEGIN IONS")
        mz = _precursor_mz(fields)
        # A third number of PEPMASS, after the intensity, is the charge (Mascot's later files).
        third = " ".join(fields["PEPMASS"].split()[2:3])
        charges = charges_of(fields.get("CHARGE") or third)
    except InputError as error:
        problem = error
    return SpectrumItem(
        key,
        path,
        name,
        offset=block.offset,
        precursor_mz=mz,
        charges=charges,
        peptide=fields.get("SEQ") or None,
        problem=problem,
    )


def _precursor_mz(fields: Mapping[str, str]) -> float:
    words = fields.get("PEPMASS", "").split()
    if not words:
        raise InputError("the spectrum states no precursor m/z", why="no PEPMASS line")
    try:
        mz = float(words[0])
    except ValueError as error:
        raise InputError(f"PEPMASS={fields['PEPMASS']} is no number") from error
    if not (math.isfinite(mz) and mz > 0):
        raise InputError(f"the precursor m/z is {mz:g}")
    return mz


def _fields(data: bytes) -> dict[str, str]:
    """The KEY=value lines before the first peak."""
    first_peak = _FIRST_PEAK.search(data)
    text = _text(data if first_peak is None else data[: first_peak.start()])
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
    return {
        key.strip().upper(): value.strip()
        for key, _, value in pairs
        if not key.startswith(_COMMENTS)
    }


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")
