"""Cuts a spectrum file into blocks of one spectrum each, without holding it in memory.

A block is found by the marks at its two ends (`BEGIN IONS` and `END IONS`, `<spectrum ` and
`</spectrum>`). What parses it then sees that block and nothing else, so a damaged spectrum harms no
other one, and a spectrum can be read again from where it begins.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Literal

CHUNK = 1 << 22
"""Bytes read at a time while listing."""

LONGEST_MARK = 256
"""A mark may lie across two chunks: this many bytes of the first are looked at again."""


@dataclass(frozen=True, slots=True)
class Block:
    """The bytes of one spectrum.

    Attributes:
        offset: where it begins in the file.
        data: from the opening mark to what ends it.
        ended: by its closing mark (which `data` includes), by the next opening mark, or by the end
            of the file.
    """

    offset: int
    data: bytes
    ended: Literal["closed", "opened", "file"]


def blocks(
    data: IO[bytes], mark: re.Pattern[bytes], *, start: int = 0, chunk: int = CHUNK
) -> Iterator[Block]:
    """The blocks of a file from byte `start` on.

    Args:
        mark: matches an opening mark, in its group `open`, or a closing one, in its group `close`.
            The file is searched as if a line feed stood before `start`.
    """
    data.seek(start)
    buffer, base, searched = b"\n", start - 1, 0
    opened: int | None = None
    at_end = False
    while True:
        match = mark.search(buffer, searched)
        if match is None or (match.end() == len(buffer) and not at_end):
            if at_end:
                break
            # Search on from here, in what must be kept and more; a long block doubles the reads.
            searched = max(searched, len(buffer) - LONGEST_MARK)
            kept = searched if opened is None else opened
            more = data.read(max(chunk, len(buffer) - kept))
            at_end = not more
            buffer, base = buffer[kept:] + more, base + kept
            searched -= kept
            opened = None if opened is None else 0
            continue
        searched = match.end()
        if match["close"] is None:
            here = match.start("open")
            if opened is not None:
                yield Block(base + opened, buffer[opened:here], "opened")
            opened = here
        elif opened is not None:
            yield Block(base + opened, buffer[opened : match.end()], "closed")
            opened = None
    if opened is not None:
        yield Block(base + opened, buffer[opened:], "file")


def before(start: bytes, mark: re.Pattern[bytes]) -> bytes:
    """What stands before the first mark, given the first bytes of a file."""
    match = mark.search(b"\n" + start)
    return start if match is None else start[: match.start()]
