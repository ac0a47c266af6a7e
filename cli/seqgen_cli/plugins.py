"""`seqgen plugins`: what is installed and what exists; checking them; starting a new one."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from seqgen.plugins import Plugins
from seqgen.registry import Registry
from seqgen_cli.tables import print_json, print_table

EPILOG = """\b
Examples:
  seqgen plugins                 installed and known plugins (imports none of them)
  seqgen plugins check           load each one in a process of its own
  seqgen plugins check mine --contract
  seqgen plugins new mine        write a plugin that works, to start from

$SEQGEN_DISABLE_PLUGINS hides plugins: names or dist:names, separated by commas.
"""


@click.group(invoke_without_command=True, epilog=EPILOG)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """List, check and create plugins. Without a subcommand: list."""
    if ctx.invoked_subcommand is None:
        _list(as_json)


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
def list_command(as_json: bool) -> None:
    """List the plugins: those installed, and those that could be.

    \b
    Example:
      seqgen plugins list --json
    """
    _list(as_json)


@command.command()
@click.argument("names", nargs=-1)
@click.option("--contract", is_flag=True, help="Also run the contract test on each domain.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
@click.pass_context
def check(ctx: click.Context, names: tuple[str, ...], contract: bool, as_json: bool) -> None:
    """Load plugins, each in a process of its own, and say which are broken and why.

    Exits with 3 if one is broken.

    \b
    Examples:
      seqgen plugins check
      seqgen plugins check speech --contract
    """
    from seqgen_cli.check_plugin import check_in_process_of_its_own

    plugins = Plugins()
    if names:
        refs = [plugins.find(name) for name in names]
    else:
        refs = [ref for ref in plugins.installed() if not ref.disabled]
    results = []
    for ref in refs:
        result = check_in_process_of_its_own(ref, contract=contract)
        results.append(result)
        if not as_json:
            state = "ok    " if result.ok else "broken"
            click.echo(f"{state}  {ref.name} ({ref.distribution} {ref.version})")
            for line in result.cause.splitlines():
                click.echo(f"        {line}")
    if as_json:
        print_json([asdict(result) for result in results])
    elif not refs:
        click.echo("no plugin is installed", err=True)
    if not all(result.ok for result in results):
        ctx.exit(3)


@command.command()
@click.argument("name")
@click.option(
    "--directory",
    type=click.Path(path_type=Path),
    help="Folder to write; by default seqgen-NAME in the present folder.",
)
def new(name: str, directory: Path | None) -> None:
    """Write a small complete plugin: it installs, passes its tests and generates.

    \b
    Examples:
      seqgen plugins new mine
      seqgen plugins new mine --directory ~/code/mine
    """
    from seqgen_cli.new_plugin import write_plugin

    folder = write_plugin(name, directory)
    click.echo(f"wrote {folder}", err=True)
    click.echo(f"pip install -e {folder}")
    click.echo(f"pytest {folder}")
    click.echo(f"seqgen run --plugin {name}")


def _list(as_json: bool) -> None:
    rows = plugin_rows()
    if as_json:
        print_json(rows)
    else:
        for row in rows:
            row["from"] = f"{row['distribution']} {row['version']}".strip()
        print_table(rows, ["name", "state", "from", "summary"])


def plugin_rows() -> list[dict[str, Any]]:
    """One row a plugin; imports no plugin."""
    catalogue = Registry.load().plugins
    refs = Plugins().installed()
    enabled = Counter(ref.name for ref in refs if not ref.disabled)
    rows: list[dict[str, Any]] = []
    for ref in refs:
        state = "installed"
        if ref.disabled:
            state = "disabled"
        elif enabled[ref.name] > 1:
            state = f"duplicate: use {ref.full_name}"
        entry = catalogue.get(ref.name)
        own = entry is not None and entry.distribution == ref.distribution
        summary = entry.summary if entry is not None and own else ref.summary
        rows.append(_row(ref.name, state, ref.distribution, ref.version, summary))
    installed = {ref.name for ref in refs}
    for entry in catalogue.values():
        if entry.name not in installed:
            state = f"not installed: {entry.install_command}"
            rows.append(_row(entry.name, state, entry.distribution, "", entry.summary))
    return rows


def _row(name: str, state: str, distribution: str, version: str, summary: str) -> dict[str, Any]:
    return {
        "name": name,
        "state": state,
        "distribution": distribution,
        "version": version,
        "summary": summary,
    }
