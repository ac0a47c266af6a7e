"""Binary outputs (images, meshes, audio): from a row's fields into files beside the rows."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from seqgen.domain import Artifact, Fields
from seqgen.errors import PluginError


class ArtifactFolder:
    """Writes artifacts into `folder` and gives back paths relative to `base`.

    The folder is made when the first artifact comes, so that a run without any leaves none.

    Args:
        folder: where files go.
        base: rows name files relative to this folder (where the row file lies).
    """

    def __init__(self, folder: Path, base: Path) -> None:
        self.folder = folder
        self.base = base
        self.written = 0

    def store(self, stem: str, fields: Fields) -> Fields:
        """`fields` with every `Artifact` (or list of them) replaced by its path.

        Files are named `STEM.png`, or `STEM--field.png` and `STEM--field-0.png` where a row holds
        several. Written aside and renamed: a file with its final name is always whole.

        Args:
            stem: safe and unique within the run (`Entry.stem`).

        Raises:
            PluginError: an artifact's suffix is not one.
        """
        found = [name for name, value in fields.items() if _artifacts_of(value)]
        single = len(found) == 1 and isinstance(fields[found[0]], Artifact)
        stored = dict(fields)
        for name in found:
            value = fields[name]
            if isinstance(value, Artifact):
                tail = "" if single else f"--{name}"
                stored[name] = self._write(stem + tail, value)
            else:
                stored[name] = [
                    self._write(f"{stem}--{name}-{place}", part) for place, part in enumerate(value)
                ]
        return stored

    def _write(self, stem: str, artifact: Artifact) -> str:
        if not re.fullmatch(r"(\.[A-Za-z0-9]+)+", artifact.suffix):
            raise PluginError(
                f"an artifact's suffix is {artifact.suffix!r}",
                why="a suffix is a dot with letters and digits, such as .png",
                fix="correct the suffix in the plugin's finish()",
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{stem}{artifact.suffix}"
        part = self.folder / f".{path.name}.part"
        part.write_bytes(artifact.data)
        os.replace(part, path)
        self.written += 1
        return Path(os.path.relpath(path, self.base)).as_posix()


def has_artifacts(fields: Mapping[str, Any]) -> bool:
    """Whether any of a row's fields holds binary data."""
    return any(_artifacts_of(value) for value in fields.values())


def _artifacts_of(value: Any) -> bool:
    if isinstance(value, Artifact):
        return True
    return (
        isinstance(value, list | tuple)
        and bool(value)
        and all(isinstance(part, Artifact) for part in value)
    )
