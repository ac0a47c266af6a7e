"""Spectrum files: finding them, telling their format, and opening them for random access.

A gzip file has no random access. It is unpacked once into an unnamed temporary file, which the
system removes even if the process is killed; standard input is kept in the same way. That costs
disk space (in $TMPDIR) and not memory, and makes every file a plain one for the readers.
"""

from __future__ import annotations

import gzip
import sys
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

from seqgen.errors import InputError

Format = Literal["mgf", "mzml", "mzxml"]

SUFFIXES = (".mgf", ".mzml", ".mzxml", ".mgf.gz", ".mzml.gz", ".mzxml.gz")
SUPPORTED = "MGF, mzML and mzXML are read, each also as .gz"
STDIN = Path("-")

_HEAD = 1 << 20
"""The format is told from this many bytes: an MGF file may begin with many comments."""

_CONVERT = "convert it to mzML or MGF with ProteoWizard's msconvert or ThermoRawFileParser"

_FOREIGN = (
    (b"\x01\xa1F\0i\0n\0n\0i\0g\0a\0n\0", "a Thermo RAW file"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file (mzMLb, mz5)"),
    (b"PK\x03\x04", "a zip archive"),
    (b"BZh", "compressed with bzip2"),
    (b"\xfd7zXZ\x00", "compressed with xz"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd"),
    (b"SQLite format 3\0", "an SQLite database"),
)


@dataclass(frozen=True)
class SpectrumFile:
    """An open file, uncompressed, in one of the formats.

    Attributes:
        name: for messages.
        data: its bytes, seekable.
        format: what it is.
        head: its first bytes, 1 MB at most.
        problem: why its end is missing (a damaged gzip file), or None.
        once: it came through a pipe, so it cannot be opened again.
    """

    name: str
    data: IO[bytes]
    format: Format
    head: bytes = field(repr=False)
    problem: InputError | None = None
    once: bool = False


class SpectrumFiles:
    """Keeps the files used last open; the oldest is closed when another is needed.

    Args:
        most: files open at a time, pipes not counted.
    """

    def __init__(self, most: int = 8) -> None:
        self.most = most
        self._open: dict[Path, SpectrumFile] = {}

    def open(self, path: Path, *, anew: bool = False) -> SpectrumFile:
        """The file, opened now or before; with `anew` now, as it may have been written again.

        Raises:
            InputError: it cannot be read, is empty, or is in no format that is supported.
        """
        file = self._open.pop(path, None)
        if file is not None and anew and not file.once:
            file.data.close()
            file = None
        file = file or _opened(path)
        self._open[path] = file
        closable = [known for known, other in self._open.items() if not other.once]
        for oldest in closable[: -self.most]:
            self._open.pop(oldest).data.close()
        return file


def _opened(path: Path) -> SpectrumFile:
    name = "standard input" if path == STDIN else str(path)
    data: IO[bytes] | None = None
    problem: InputError | None = None
    try:
        data = sys.stdin.buffer if path == STDIN else path.open("rb")
        once = not data.seekable()
        if once:
            data, _ = _spooled(data, name)
        if data.read(2) == b"\x1f\x8b":
            data.seek(0)
            with data as packed, gzip.GzipFile(fileobj=packed) as unpacked:
                data, problem = _spooled(unpacked, name)
        data.seek(0)
        head = data.read(_HEAD)
        format = tell_format(head, name, problem)
    except (OSError, InputError) as error:
        if data is not None:
            data.close()
        if isinstance(error, InputError):
            raise
        raise InputError(f"cannot read {name}", why=error.strerror or str(error)) from error
    return SpectrumFile(name, data, format, head, problem, once)


def tell_format(head: bytes, name: str, problem: InputError | None = None) -> Format:
    """The format from the beginning of a file; its suffix does not matter.

    Args:
        problem: of an unpacked file, said where nothing could be unpacked.

    Raises:
        InputError: it is none of the formats.
    """
    if b"<mzML" in head:
        return "mzml"
    if b"<mzXML" in head:
        return "mzxml"
    if b"BEGIN IONS" in head:
        return "mgf"
    if problem is not None:
        raise problem
    if not head.strip():
        what = "is empty (0 bytes)" if not head else "is blank"
        raise InputError(f"{name} {what}", fix="export it again")
    for magic, kind in _FOREIGN:
        if head.startswith(magic):
            raise InputError(f"{name} is {kind}", why=SUPPORTED, fix=_CONVERT)
    raise InputError(
        f"{name} is no spectrum file",
        why=f"it holds neither BEGIN IONS nor <mzML> nor <mzXML>; {SUPPORTED}",
        fix=f"name a spectrum file, or {_CONVERT}",
    )


def _spooled(stream: Any, name: str) -> tuple[IO[bytes], InputError | None]:
    """The stream's bytes in a temporary file, up to where it breaks."""
    spool: IO[bytes] = tempfile.TemporaryFile(prefix="seqgen-")  # noqa: SIM115 - stays open
    problem = None
    for block in _blocks(stream):
        if isinstance(block, Exception):
            problem = InputError(
                f"{name} is damaged: its end could not be unpacked",
                why=f"{type(block).__name__}: {block}",
                fix="copy or export the file again",
            )
            break
        try:
            spool.write(block)
        except OSError as error:
            raise InputError(
                f"cannot unpack {name} into {tempfile.gettempdir()}",
                why=error.strerror or str(error),
                fix="set TMPDIR to a folder with more room, or unpack the file yourself",
            ) from error
    spool.seek(0)
    return spool, problem


def _blocks(stream: Any) -> Iterator[bytes | Exception]:
    """Blocks of a binary stream; the error that ends it, if one does, comes last."""
    while True:
        try:
            # read() would lose what it has gathered before an error.
            block = stream.read1(1 << 20)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            yield error
            return
        if not block:
            return
        yield block
