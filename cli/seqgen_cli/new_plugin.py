"""Writes a new plugin from `template/`: a complete one, under the name that the user chose."""

from __future__ import annotations

import re
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from seqgen.errors import UsageError

PLACEHOLDER = "myplugin"
_TEXT = (".py", ".toml", ".md", ".yaml", ".tsv")


def write_plugin(name: str, directory: Path | None = None) -> Path:
    """Write the plugin `name`; returns its folder.

    Args:
        name: lower case letters, digits and single hyphens; the package is `seqgen_NAME`.
        directory: the folder; `seqgen-NAME` in the present one by default.

    Raises:
        UsageError: the name cannot be one, or the folder holds something already.
    """
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        proposal = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-0123456789")
        raise UsageError(
            f"{name!r} cannot be a plugin's name",
            why="it must start with a letter and hold lower case letters, digits, single hyphens",
            fix=f"seqgen plugins new {proposal or 'mine'}",
        )
    folder = directory or Path(f"seqgen-{name}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(
            f"{folder} exists already",
            fix=f"seqgen plugins new {name} --directory ANOTHER, or remove it",
        )
    _copy(files("seqgen_cli") / "template", folder, name)
    return folder


def _copy(source: Traversable, target: Path, name: str) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for entry in sorted(source.iterdir(), key=lambda entry: entry.name):
        if entry.name == "__pycache__":
            continue
        place = target / _renamed(entry.name, name)
        if entry.is_dir():
            _copy(entry, place, name)
        elif entry.name.endswith(_TEXT):
            place.write_text(_renamed(entry.read_text(encoding="utf-8"), name), encoding="utf-8")
        else:
            place.write_bytes(entry.read_bytes())


def _renamed(text: str, name: str) -> str:
    text = text.replace(f"seqgen_{PLACEHOLDER}", "seqgen_" + name.replace("-", "_"))
    text = text.replace("MyPlugin", "".join(part.capitalize() for part in name.split("-")))
    return text.replace(PLACEHOLDER, name)
