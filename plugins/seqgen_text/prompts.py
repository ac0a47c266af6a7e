"""Listing what to continue: prompts on the command line, in files, on standard input."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from seqgen.errors import InputError, UsageError, similar_path
from seqgen_text.options import TextOptions

SUFFIXES = (".txt", ".jsonl")
"""Files with these suffixes are read; any other INPUT is a prompt itself."""

LONGEST_ID = 48

_ID_KEYS = ("id", "key")
_PROMPT_KEYS = ("prompt", "text")
_REFERENCE_KEYS = ("reference", "target", "completion", "answer")


@dataclass(frozen=True)
class Prompt:
    """A prompt, and what should follow it if that is known.

    Attributes:
        id: from a file its name and line, or what its line says; of a prompt itself its text, so
            that the same prompt has the same seed wherever it stands.
        text: the prompt.
        reference: the true continuation.
        ids: tokens of the prompt, once `split` has made them.
        reference_ids: tokens of the reference.
        problem: why a line holds no prompt; `split` raises it, so that the other lines go on.
    """

    id: str
    text: str
    reference: str | None = None
    ids: tuple[int, ...] = ()
    reference_ids: tuple[int, ...] = ()
    problem: InputError | None = field(default=None, compare=False)

    @property
    def size(self) -> float:
        """Relative cost: characters."""
        return float(len(self.text) + len(self.reference or ""))


def list_prompts(source: str, options: TextOptions) -> Iterator[Prompt]:
    """The prompts of one INPUT, in order.

    - `-`: standard input, a prompt a line.
    - an existing file `*.txt`: a prompt a line, or windows of its text (`window`);
      `*.jsonl`: an object a line, `prompt` and optionally `reference` and `id`.
    - anything else: a prompt. `input=text` makes every INPUT one, `input=file` makes it a file
      (of lines, unless it ends in .jsonl).

    Empty lines are skipped.

    Raises:
        InputError: a file is missing or cannot be read.
        UsageError: the prompt is empty.
    """
    path = Path(source)
    if options.input == "text":
        yield _literal(source)
    elif source == "-":
        text = sys.stdin.buffer.read()
        yield from _of_text(_decoded(text, "standard input"), "stdin", options)
    elif options.input == "file" or _is_file(path):
        yield from _file(path, options)
    elif _looks_like_a_file(source):
        raise InputError(
            f"{source} does not exist",
            fix=f"{similar_path(path)}; to continue this very text: --set input=text",
        )
    else:
        yield _literal(source)


def _is_file(path: Path) -> bool:
    try:
        return path.suffix.lower() in SUFFIXES and path.is_file()
    except (OSError, ValueError):  # a prompt may be longer than any file name, or hold a NUL
        return False


def _looks_like_a_file(source: str) -> bool:
    return source.lower().endswith(SUFFIXES) and not any(c.isspace() for c in source)


def _literal(text: str) -> Prompt:
    if not text:
        raise UsageError(
            "the prompt is empty",
            why="there is nothing to continue",
            fix='give some text: seqgen run --plugin text "Once upon a time"',
        )
    return Prompt(id_of(text), text)


def id_of(text: str) -> str:
    """The id of a prompt: its text on one line; if that is long its beginning and a hash."""
    line = " ".join(text.split())
    if line == text and len(line) <= LONGEST_ID:
        return text
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=4).hexdigest()
    return f"{line[:LONGEST_ID].rstrip()}~{digest}"


def _file(path: Path, options: TextOptions) -> Iterator[Prompt]:
    try:
        text = _decoded(path.read_bytes(), str(path))
    except OSError as error:
        raise InputError(
            f"cannot read {path}", why=error.strerror or str(error), fix=similar_path(path)
        ) from error
    if path.suffix.lower() == ".jsonl":
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip():
                yield _json_line(line, f"{path.stem}:{number}")
    else:
        yield from _of_text(text, path.stem, options)


def _of_text(text: str, name: str, options: TextOptions) -> Iterator[Prompt]:
    if options.window:
        size = options.window
        half = max(1, size // 2)
        for number, start in enumerate(range(0, len(text), size), 1):
            piece = text[start : start + size]
            if len(piece) > half:  # the rest of the text may hold no reference
                yield Prompt(f"{name}:{number}", piece[:half], piece[half:])
        return
    for number, line in enumerate(text.split("\n"), 1):
        line = line.removesuffix("\r")
        if line.strip():
            yield Prompt(f"{name}:{number}", line)


def _json_line(line: str, name: str) -> Prompt:
    try:
        values = json.loads(line)
    except ValueError as error:
        return _bad(name, f"{name} is not JSON", str(error))
    if not isinstance(values, dict):
        return _bad(name, f"{name} is not a JSON object", "")
    name = next((str(values[key]) for key in _ID_KEYS if values.get(key) not in (None, "")), name)
    prompt = next((values[key] for key in _PROMPT_KEYS if key in values), None)
    reference = next((values[key] for key in _REFERENCE_KEYS if key in values), None)
    if prompt is None:
        known = ", ".join(_PROMPT_KEYS)
        return _bad(name, f"{name} has no prompt", f"it has none of the fields {known}")
    if not isinstance(prompt, str) or not isinstance(reference, str | None):
        return _bad(name, f"{name}: prompt and reference must be texts", "")
    if not prompt:
        return _bad(name, f"{name}: the prompt is empty", "there is nothing to continue")
    return Prompt(name, prompt, reference)


def _bad(name: str, what: str, why: str) -> Prompt:
    fix = '{"prompt": "Once upon a time", "reference": " there was"}, for example'
    return Prompt(name, "", problem=InputError(what, why=why, fix=fix))


def _decoded(data: bytes, name: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{name} is not text in UTF-8", why=str(error), fix="convert it: iconv -t UTF-8"
        ) from error
