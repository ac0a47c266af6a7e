"""Spectra of mzML and mzXML files of MS level 2; pyteomics parses every spectrum.

Each spectrum's element is given to pyteomics as a document of its own, with the groups of common
parameters that it may refer to.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seqgen.errors import InputError
from seqgen_peptides.blocks import Block, before, blocks
from seqgen_peptides.files import SpectrumFile
from seqgen_peptides.spectra import SpectrumItem

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

READ = 1 << 16
"""Bytes read at a time for one spectrum."""

_ENCODING = re.compile(rb"<\?xml[^>]*encoding=[\"']([\w.-]+)")
_GROUPS = re.compile(rb"<referenceableParamGroupList.*?</referenceableParamGroupList>", re.DOTALL)
_SCAN = re.compile(r"(?:^| )scan=(\d+)$")


@dataclass(frozen=True)
class _Kind:
    """What differs between the two formats.

    Attributes:
        mark: where an element begins and ends.
        level: an element's MS level, where it is easily seen.
        name: an element's own name for itself.
        before, after: what makes a document of an element.
        last: follows the last spectrum.
    """

    mark: re.Pattern[bytes]
    level: re.Pattern[bytes]
    name: re.Pattern[bytes]
    before: bytes
    after: bytes
    last: bytes


_KINDS = {
    "mzml": _Kind(
        mark=re.compile(rb"(?P<open><spectrum(?=\s))|(?P<close></spectrum>)"),
        level=re.compile(rb"\"MS:1000511\"[^>]*value=\"(\d+)\""),
        name=re.compile(rb"<[^>]*\sid=\"([^\"]*)\""),
        before=b"<run><spectrumList>",
        after=b"</spectrumList></run></mzML>",
        last=b"</spectrumList>",
    ),
    "mzxml": _Kind(
        mark=re.compile(rb"(?P<open><scan(?=\s))|(?P<close></scan>)"),
        level=re.compile(rb"<scan[^>]*\smsLevel=\"(\d+)\""),
        name=re.compile(rb"<[^>]*\snum=\"([^\"]*)\""),
        before=b"<msRun>",
        after=b"</msRun></mzXML>",
        last=b"</msRun>",
    ),
}


def list_xml(file: SpectrumFile, name: str, path: Path) -> Iterator[SpectrumItem]:
    """The spectra of level 2, without their peaks. A bad one carries its problem.

    Raises:
        InputError: there are none.
    """
    kind = _KINDS[file.format]
    wrap = _wrapping(file)
    end, found = 0, False
    for block in blocks(file.data, kind.mark):
        end = block.offset + len(block.data)
        level = kind.level.search(block.data)
        if level is not None and level[1] != b"2":
            continue
        item = _item(block, kind, wrap, file, name, path)
        if item is not None:
            found = True
            yield item
    file.data.seek(end)
    cut = file.problem
    if cut is None and kind.last not in file.data.read(READ):
        cut = InputError(f"{file.name} is cut off: {kind.last.decode()} is missing")
    if cut is not None:
        yield SpectrumItem(f"{name}:end", path, name, problem=cut)
    elif not found:
        raise InputError(f"{file.name} holds no spectra of MS level 2")


def read_xml(
    file: SpectrumFile, offset: int
) -> tuple[str, NDArray[np.float64], NDArray[np.float32]]:
    """Title, m/z and intensities of the spectrum that begins at a byte.

    Raises:
        InputError: its peaks cannot be read.
    """
    import numpy as np

    kind = _KINDS[file.format]
    block = next(blocks(file.data, kind.mark, start=offset, chunk=READ), None)
    if block is None or block.offset != offset:
        raise InputError(f"{file.name} has changed since it was listed")
    found = _parsed(block, kind, _wrapping(file), file.format, peaks=True)
    if "profile spectrum" in found or found.get("centroided") in (0, "0", False):
        raise InputError(
            "the spectrum is a profile, not a list of peaks",
            fix="centroid the file: msconvert --filter 'peakPicking true 2-'",
        )
    mz = np.asarray(found.get("m/z array", ()), dtype=np.float64)
    intensity = np.asarray(found.get("intensity array", ()), dtype=np.float32)
    return str(found.get("spectrum title", "")), mz, intensity


def xml_title(file: SpectrumFile, offset: int) -> str:
    """The title of the spectrum that begins at a byte.

    Raises:
        InputError: it cannot be read.
    """
    kind = _KINDS[file.format]
    block = next(blocks(file.data, kind.mark, start=offset, chunk=READ), None)
    if block is None:
        return ""
    found = _parsed(block, kind, _wrapping(file), file.format, peaks=False)
    return str(found.get("spectrum title", ""))


def _item(
    block: Block, kind: _Kind, wrap: bytes, file: SpectrumFile, name: str, path: Path
) -> SpectrumItem | None:
    """An item, or None if the spectrum is of another level."""
    own = kind.name.search(block.data)
    reference = _reference("" if own is None else own[1].decode("utf-8", "replace"), block.offset)
    mz: float | None = None
    charges: tuple[int, ...] = ()
    problem = None
    try:
        if block.ended == "file":
            raise file.problem or InputError(f"{file.name} ends within this spectrum")
        found = _parsed(block, kind, wrap, file.format, peaks=False)
        if int(found.get("ms level", found.get("msLevel", 2))) != 2:
            return None
        mz, charges = _precursor(found)
    except InputError as error:
        problem = error
    return SpectrumItem(
        f"{name}:{reference}",
        path,
        name,
        offset=block.offset,
        precursor_mz=mz,
        charges=charges,
        problem=problem,
    )


def _reference(native_id: str, offset: int) -> str:
    """`scan=19` where the scan number alone names the spectrum, else the whole native id."""
    if native_id.isdecimal():
        return f"scan={native_id}"
    scan = _SCAN.search(native_id)
    others = {word.partition("=")[0] for word in native_id.split()}
    if scan is not None and others <= {"controllerType", "controllerNumber", "scan"}:
        return f"scan={scan[1]}"
    return native_id or f"offset={offset}"


def _wrapping(file: SpectrumFile) -> bytes:
    """What goes before an element to make a document."""
    kind = _KINDS[file.format]
    start = before(file.head, kind.mark)
    encoding = _ENCODING.search(start)
    declared = b"utf-8" if encoding is None else encoding[1]
    groups = _GROUPS.search(start)
    root = b"<mzML>" if file.format == "mzml" else b"<mzXML>"
    return b"".join(
        [
            b'<?xml version="1.0" encoding="',
            declared,
            b'"?>',
            root,
            b"" if groups is None else groups[0],
            kind.before,
        ]
    )


def _parsed(block: Block, kind: _Kind, wrap: bytes, format: str, *, peaks: bool) -> dict[str, Any]:
    """pyteomics' dictionary of one spectrum."""
    from lxml.etree import XMLSyntaxError
    from pyteomics import mzml, mzxml
    from pyteomics.auxiliary import PyteomicsError

    reader = mzml.MzML if format == "mzml" else mzxml.MzXML
    # An mzXML scan may hold the scans that it led to, which have blocks of their own.
    closed = block.data if block.ended == "closed" else block.data + b"</scan>"
    document = io.BytesIO(wrap + closed + kind.after)
    try:
        with reader(document, use_index=False, decode_binary=peaks) as spectra:
            found: dict[str, Any] = next(spectra)
            return found
    except (XMLSyntaxError, PyteomicsError, ValueError, KeyError, StopIteration) as error:
        raise InputError("the spectrum cannot be read", why=str(error)) from error


def _precursor(found: dict[str, Any]) -> tuple[float, tuple[int, ...]]:
    """m/z and the possible charges of the first precursor that is stated."""
    if "precursorMz" in found:
        chosen = found["precursorMz"][0]
        mz, charge = chosen.get("precursorMz"), chosen.get("precursorCharge")
    else:
        precursors = found.get("precursorList", {}).get("precursor") or [{}]
        ions = precursors[0].get("selectedIonList", {}).get("selectedIon") or [{}]
        mz = ions[0].get("selected ion m/z")
        charge = ions[0].get("charge state", ions[0].get("possible charge state"))
    if mz is None:
        raise InputError("the spectrum states no precursor m/z")
    if not (math.isfinite(mz) and mz > 0):
        raise InputError(f"the precursor m/z is {mz:g}")
    listed = charge if isinstance(charge, list) else [] if charge is None else [charge]
    return float(mz), tuple(dict.fromkeys(int(z) for z in listed))
