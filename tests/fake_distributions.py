"""Real, tiny distributions for the tests: a dist-info folder with entry points, and modules.

Put the folder on sys.path (or PYTHONPATH) and it is installed, as far as Python can tell.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

GOOD_PLUGIN = '''
from seqgen.domain import DomainInfo
from seqgen.hookspecs import DecoderInfo, hookimpl


class Plugin:
    api = 1

    @hookimpl
    def seqgen_domains(self):
        return [
            DomainInfo(
                name="NAME", summary="a plugin of the tests", factory="MODULE_domain:Domain",
                inputs="nothing", formats=("jsonl",), decoders={"ar": "left to right"},
                default_decoder="ar", extra="fancy",
            )
        ]

    @hookimpl
    def seqgen_decoders(self):
        return [DecoderInfo(name="NAME-search", summary="its own", factory="MODULE_domain:Search")]

    @hookimpl
    def seqgen_commands(self, cli):
        import click

        @cli.command()
        def hello():
            """Say hello."""
            click.echo("hello from NAME")


plugin = Plugin()
'''


def good_plugin(name: str, module: str) -> str:
    """The source of a plugin module that works; its domain is `MODULE_domain:Domain`."""
    return GOOD_PLUGIN.replace("NAME", name).replace("MODULE", module)


def write_distribution(
    folder: Path,
    *,
    name: str,
    version: str = "1.0",
    plugins: Mapping[str, str],
    modules: Mapping[str, str],
    summary: str = "",
) -> Path:
    """Write an installed distribution into `folder`; returns the folder.

    Args:
        plugins: entry point name -> `module:object`.
        modules: file name -> source.
    """
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    (info / "METADATA").write_text(metadata + (f"Summary: {summary}\n" if summary else ""))
    points = "".join(f"{point} = {value}\n" for point, value in plugins.items())
    (info / "entry_points.txt").write_text(f"[seqgen.plugins]\n{points}")
    for file, source in modules.items():
        (folder / file).write_text(source)
    return folder


def seqgen(
    *arguments: str, paths: tuple[Path, ...] = (), env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own, with more distributions installed."""
    search = [*map(str, paths), *(str(ROOT / part) for part in ("core", "cli", "plugins"))]
    search += os.environ.get("PYTHONPATH", "").split(os.pathsep)
    merged = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, search)), "COLUMNS": "120"}
    merged.pop("SEQGEN_DISABLE_PLUGINS", None)
    merged.pop("SEQGEN_REGISTRY", None)
    return subprocess.run(
        [sys.executable, "-m", "seqgen", *arguments],
        capture_output=True,
        text=True,
        env={**merged, **(env or {})},
        timeout=120,
    )
