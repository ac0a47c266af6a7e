"""The files of one INPUT: a file, a folder, or a pattern with `*`, `?`, `[...]` or `**`."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from seqgen.errors import InputError, similar_path


def find_files(source: str, *, what: str, suffixes: Sequence[str]) -> list[tuple[str, Path]]:
    """(name, path) of each file of one INPUT, sorted by name.

    The name is the path below the folder or below the fixed part of the pattern, else the file's
    own name. A file that is named, or that fits a pattern, may have any suffix.

    Args:
        what: the files hold ("images"), for the message.
        suffixes: in small letters, of the files that count below a folder. Hidden files and
            folders do not.

    Raises:
        InputError: there is none.
    """
    path = Path(os.path.expanduser(source))
    if path.is_dir():
        root, found = path, list(_below(path, tuple(suffixes)))
        if not found:
            raise InputError(
                f"the folder {source} holds no {what}",
                why=f"no file below it ends in {', '.join(suffixes)}",
                fix="name another folder, or a file itself",
            )
    elif path.exists():
        return [(path.name, path)]
    elif glob.has_magic(source):
        parts = path.parts
        root = Path(*parts[: next(i for i, part in enumerate(parts) if glob.has_magic(part))])
        found = [Path(p) for p in glob.glob(str(path), recursive=True) if os.path.isfile(p)]
        if not found:
            raise InputError(f"no file matches {source}", fix="check the pattern and the folder")
    else:
        raise InputError(f"{source} does not exist", fix=similar_path(path))
    return sorted((file.relative_to(root).as_posix(), file) for file in found)


def _below(root: Path, suffixes: tuple[str, ...]) -> Iterator[Path]:
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        for name in names:
            path = Path(folder, name)
            if name.lower().endswith(suffixes) and not name.startswith(".") and path.is_file():
                yield path
