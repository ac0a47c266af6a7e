"""What is to be generated: items from the options, from a list of classes, or from images.

An item is one image. A list has a class a line, as plain text (`glasses,hat=no`) or as JSON:

    {"class": "glasses", "count": 4}
    {"class": "hat", "seed": 7, "id": "my-hat"}
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seqgen.errors import InputError, SeqgenError, UsageError, did_you_mean
from seqgen.seeds import item_seed
from seqgen.sources import find_files
from seqgen_images.options import ImageOptions
from seqgen_images.readers import SUFFIXES

if TYPE_CHECKING:
    from seqgen_images.labels import Indices
    from seqgen_images.placing import Given

FROM_OPTIONS = "options:"
"""The source of a run without INPUT."""

COUNT = 64
"""Images of a run without INPUT."""

DRAWN = "*"
"""A class to be drawn for every image."""

MOST = 1_000_000
LISTS = (".txt", ".jsonl")
KEYS = ("class", "count", "seed", "id")
_LINE = 'write it as {"class": "glasses", "count": 4}'


@dataclass(frozen=True)
class ImageItem:
    """One image to generate.

    Attributes:
        id: the class (or the file's name) and a number.
        spec: class and attributes as they were written.
        seed: of its own; None: from the run's seed and the id.
        source: the image to complete.
        listed: whether it stands in a list or is an input; a mistake in it concerns no other item.
        problem: why there is nothing to generate.
        indices: the class, understood (after `split`).
        given: the part of the image that is known (after `split`).
    """

    id: str
    spec: str = ""
    seed: int | None = None
    source: Path | None = None
    listed: bool = True
    problem: SeqgenError | None = None
    indices: Indices = ()
    given: Given | None = field(default=None, repr=False)

    @property
    def size(self) -> float:
        """All images of a model cost the same."""
        return 1.0


def list_items(source: str, options: ImageOptions) -> Iterator[ImageItem]:
    """The items of one INPUT, or of `FROM_OPTIONS`.

    Raises:
        InputError: the source does not exist or lists nothing.
        UsageError: options that need an image, and there is none.
    """
    path = Path(source).expanduser()
    if source == FROM_OPTIONS:
        _no_image(options, "")
        yield from numbered(_Request(options.class_, options.count or COUNT), listed=False)
    elif source == "-" or (path.suffix.lower() in LISTS and path.is_file()):
        name = "standard input" if source == "-" else source
        _no_image(options, name)
        yield from _from_list(_text(path, source), source, options)
    else:
        for _, file in find_files(source, what="images", suffixes=SUFFIXES):
            yield from _completions(file, options)


@dataclass(frozen=True)
class _Request:
    """A class and how many images of it."""

    spec: str
    count: int
    seed: int | None = None
    id: str = ""


def numbered(request: _Request, *, listed: bool = True) -> Iterator[ImageItem]:
    """The images of a request: `glasses-0000`, `glasses-0001`, ...

    With a seed of its own the first image has this very seed, so that an image is made again by
    the `class` and the `seed` of its row.
    """
    plain = "" if request.spec == DRAWN else "".join(request.spec.split())
    stem = request.id or plain or "image"
    for number in range(request.count):
        name = stem if request.id and request.count == 1 else f"{stem}-{number:04d}"
        seed = request.seed
        if seed is not None and number:
            seed = item_seed(seed, str(number))
        yield ImageItem(name, spec=request.spec, seed=seed, listed=listed)


def _completions(file: Path, options: ImageOptions) -> Iterator[ImageItem]:
    count = options.count or 1
    spec = "" if options.class_ == DRAWN else options.class_  # what is given says what there is
    for number in range(count):
        name = file.name if count == 1 else f"{file.stem}-{number:04d}"
        yield ImageItem(name, spec=spec, source=file)


def _from_list(text: str, source: str, options: ImageOptions) -> Iterator[ImageItem]:
    """Items of a list; a line that cannot be read is an item with a problem."""
    name = "stdin" if source == "-" else Path(source).name
    found = 0
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        found += 1
        try:
            request = _parse(line.strip(), options)
        except InputError as error:
            yield ImageItem(f"{name}:{number}", problem=error)
            continue
        yield from numbered(request)
    if not found:
        raise InputError(
            f"{'standard input' if source == '-' else source} lists no classes",
            fix="write one a line, such as glasses,hat=no",
        )


def _parse(line: str, options: ImageOptions) -> _Request:
    if not line.startswith(("{", "[")):
        return _Request(line, options.count or 1)
    try:
        found = json.loads(line)
    except ValueError as error:
        raise InputError("the line is not a JSON object", why=str(error), fix=_LINE) from error
    if not isinstance(found, dict):
        raise InputError("the line is a JSON list, not an object", fix=_LINE)
    for key in found:
        if key not in KEYS:
            raise InputError(f"unknown key {key!r}", fix=did_you_mean(str(key), KEYS))
    spec, name = found.get("class", options.class_), found.get("id", "")
    if not isinstance(spec, str | int) or isinstance(spec, bool) or not isinstance(name, str):
        raise InputError("`class` and `id` must be texts", fix=_LINE)
    count = _whole(found, "count", options.count or 1, 1, MOST)
    seed = _whole(found, "seed", None, 0, 2**63 - 1)
    assert count is not None
    return _Request(str(spec), count, seed, name)


def _whole(found: dict[str, Any], key: str, default: int | None, low: int, high: int) -> int | None:
    value = found.get(key)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InputError(f"`{key}` is {value!r}", fix=f"a whole number from {low} to {high}")
    return value


def _text(path: Path, source: str) -> str:
    data = sys.stdin.buffer.read() if source == "-" else path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        what = "standard input" if source == "-" else source
        raise InputError(
            f"{what} is no text",
            why="a list of classes was expected, one a line",
            fix="name image files as INPUT",
        ) from error


def _no_image(options: ImageOptions, name: str) -> None:
    for key in ("mask", "outpaint"):
        if getattr(options, key):
            why = f"{name} is a list of classes" if name else "there is no INPUT"
            raise UsageError(
                f"{key} needs an image to complete, and {why}",
                fix=f"seqgen run --plugin images IMAGE --set {key}={getattr(options, key)}",
            )
