"""Where the files of a model card lie on this machine, and fetching those that are not here.

Nothing is ever downloaded unless it was asked for: `local_files` only looks, `pull` (the command
`seqgen models pull NAME`) fetches. Every file is checked against the card's sha256 before use.
"""

from __future__ import annotations

import hashlib
import os
import shlex
from collections.abc import Callable
from importlib.resources import files as package_files
from pathlib import Path

from seqgen.errors import CheckpointError, PluginError
from seqgen.registry import Card, CardFile

CHUNK = 1 << 20
Progress = Callable[[str, int, int], None]
"""Called with file name, bytes so far and bytes in all (0 if unknown)."""


def local_files(card: Card) -> list[Path]:
    """Local paths of everything the card lists, checksums verified, in the card's order.

    A card made from a path (`--model PATH`) yields just that path.

    Raises:
        CheckpointError: missing (with the command that gets it) or damaged (with both checksums).
        PluginError: the package that ships the file is not installed.
    """
    if card.path is not None:
        return [card.path]
    if not card.files:
        raise CheckpointError(
            f"the model {card.name!r} ships no file",
            fix=card.obtain or f"--model PATH with a checkpoint for the plugin {card.plugin}",
        )
    found = []
    for file in card.files:
        path = _location(card, file)
        if not path.is_file():
            raise CheckpointError(
                f"{file.filename} of the model {card.name!r} is not on this machine",
                why=f"nothing at {path}",
                fix=_repair(card, file),
            )
        verify(path, file.sha256, fix=_repair(card, file))
        found.append(path)
    return found


def whereabouts(card: Card) -> str:
    """Where the files are, in a word: `shipped`, `downloaded`, `to pull`, `missing`, `elsewhere`.

    Looks, but computes no checksum. `elsewhere`: the card lists no file; see its `obtain`.
    """
    if not card.files:
        return "elsewhere"
    try:
        here = all(_location(card, file).is_file() for file in card.files)
    except PluginError:
        here = False
    fetched = any(file.urls for file in card.files)
    if here:
        return "downloaded" if fetched else "shipped"
    return "to pull" if fetched else "missing"


def verify(path: Path, sha256: str, *, fix: str = "") -> None:
    """Raise `CheckpointError` unless the file has this checksum."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    if digest.hexdigest() != sha256.lower():
        raise CheckpointError(
            f"{path} is damaged or not the file that the card means",
            why=f"sha256 expected {sha256.lower()}, found {digest.hexdigest()}",
            fix=fix,
        )


def cache_folder(card: Card) -> Path:
    """Where the card's downloads go: `$SEQGEN_CACHE`, else the user's cache, one folder a model."""
    root = os.environ.get("SEQGEN_CACHE")
    if not root:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        root = str(Path(base) / "seqgen")
    return Path(root) / "models" / card.name.replace(os.sep, "_")


def pull(card: Card, *, on_progress: Progress | None = None) -> list[Path]:
    """Fetch the card's files that are not here yet, then return all of them as `local_files`.

    A download goes to a `.part` file, is resumed if it was cut, and is moved into place only
    when its checksum is right.
    """
    for file in card.files:
        path = _location(card, file)
        if file.urls and not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            _fetch(card, file, path, on_progress)
    return local_files(card)


def _location(card: Card, file: CardFile) -> Path:
    if not file.package:
        return cache_folder(card) / file.name
    try:
        return Path(str(package_files(file.package) / file.path))
    except ModuleNotFoundError as error:
        raise PluginError(
            f"the model {card.name!r} lies in the package {file.package!r}, which is not installed",
            fix=f"install the plugin {card.plugin!r}: see `seqgen plugins`",
        ) from error


def _repair(card: Card, file: CardFile) -> str:
    if file.urls:
        remove = f"rm -f {shlex.quote(str(_location(card, file)))} && "
        present = _location(card, file).exists()
        return f"{remove if present else ''}seqgen models pull {card.name}"
    return f"reinstall the package that ships it ({file.package}), or use another --model"


def _fetch(card: Card, file: CardFile, path: Path, on_progress: Progress | None) -> None:
    part = path.with_name(path.name + ".part")
    failures = []
    for url in file.urls:
        try:
            _download(url, part, file, on_progress)
            break
        except (OSError, ValueError) as error:  # urllib's errors are OSErrors
            failures.append(f"{url}: {error}")
    else:
        raise CheckpointError(
            f"could not download {file.filename} of the model {card.name!r}",
            why="; ".join(failures),
            fix=f"seqgen models pull {card.name} goes on where it stopped; "
            f"or put the file at {path} by hand",
        )
    try:
        verify(part, file.sha256, fix=f"seqgen models pull {card.name}, or tell the card's author")
    except CheckpointError:
        part.unlink()  # resuming a wrong file could never succeed
        raise
    part.replace(path)


def _download(url: str, part: Path, file: CardFile, on_progress: Progress | None) -> None:
    import urllib.request  # only for downloads: it is slow to import

    done = part.stat().st_size if part.exists() else 0
    if file.size and done >= file.size:
        return
    headers = {"Range": f"bytes={done}-"} if done else {}
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request, timeout=60) as response:
        # A server that does not know ranges answers 200 with the whole file; file: URLs have no
        # status at all.
        resumed = done > 0 and getattr(response, "status", None) == 206
        if not resumed:
            done = 0
        total = file.size or done + int(response.headers.get("Content-Length") or 0)
        with part.open("ab" if resumed else "wb") as stream:
            while chunk := response.read(CHUNK):
                stream.write(chunk)
                done += len(chunk)
                if on_progress:
                    on_progress(file.filename, done, total)
    if total and done < total:
        raise OSError(f"the connection ended after {done} of {total} bytes")
