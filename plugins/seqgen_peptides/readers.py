"""Listing spectra and reading their peaks: MGF, mzML and mzXML, each also as gzip.

Listing gives light items, one after another: what a spectrum's header says and where the spectrum
begins. Its peaks are read when it is its turn, so a run holds the peaks of a few spectra at a time,
however large the file is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from seqgen.errors import InputError
from seqgen.sources import find_files
from seqgen_peptides.files import STDIN, SUFFIXES, SpectrumFiles
from seqgen_peptides.mgf import list_mgf, mgf_title, read_mgf
from seqgen_peptides.mz_xml import list_xml, read_xml, xml_title
from seqgen_peptides.spectra import SpectrumItem


def list_spectra(source: str, files: SpectrumFiles | None = None) -> Iterator[SpectrumItem]:
    """The spectra of one INPUT (a file, a folder, a pattern, or `-` for standard input).

    Spectra of mzML and mzXML are those of MS level 2; of several precursors the first counts. A
    spectrum that cannot be decoded, and a file of several that cannot be read, are items with a
    `problem`.

    Args:
        files: keeps files open between calls.

    Raises:
        InputError: the source does not exist, or is one file that holds no spectra.
    """
    files = files or SpectrumFiles()
    found = [("stdin", STDIN)]
    if source != "-":
        found = find_files(source, what="spectrum files", suffixes=SUFFIXES)
    for name, path in found:
        try:
            file = files.open(path, anew=True)
            listing = list_mgf if file.format == "mgf" else list_xml
            yield from listing(file, name, path)
        except InputError as error:
            if len(found) == 1:
                raise
            yield SpectrumItem(name, path, name, problem=error)


def read_spectrum(item: SpectrumItem, files: SpectrumFiles | None = None) -> SpectrumItem:
    """The item with its title and its raw peaks.

    Raises:
        InputError: the item has a problem, or its peaks cannot be read.
    """
    if item.problem is not None:
        raise item.problem
    if item.offset is None:
        raise ValueError(f"{item.id} does not say where it begins")
    file = (files or SpectrumFiles()).open(item.path)
    reading = read_mgf if file.format == "mgf" else read_xml
    title, mz, intensity = reading(file, item.offset)
    return replace(item, title=title, mz=mz, intensity=intensity)


def read_title(item: SpectrumItem, files: SpectrumFiles) -> str:
    """What the file calls a spectrum, even one with a problem; empty if it does not say."""
    if item.offset is None:
        return ""
    try:
        file = files.open(item.path)
        return (mgf_title if file.format == "mgf" else xml_title)(file, item.offset)
    except InputError:
        return ""
