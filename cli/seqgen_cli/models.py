"""`seqgen models`: the model cards that are known; one in full; fetching files when asked."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from seqgen.errors import UsageError
from seqgen.plugins import Plugins
from seqgen.registry import Card, Registry
from seqgen.weights import Progress, local_files, pull, whereabouts
from seqgen_cli.tables import print_json, print_table

EPILOG = """\b
Examples:
  seqgen models                        all models
  seqgen models list --plugin speech   those of one plugin
  seqgen models show paraformer-zh     one card: licence, source, figures, files
  seqgen models pull NAME              download a model's files and check them

Cards of your own: a file like registry.yaml, named in $SEQGEN_REGISTRY.
"""


@click.group(invoke_without_command=True, epilog=EPILOG)
@click.option("--plugin", metavar="P", help="Only the models of this plugin.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
@click.pass_context
def command(ctx: click.Context, plugin: str | None, as_json: bool) -> None:
    """List, show and fetch models. Without a subcommand: list."""
    if ctx.invoked_subcommand is None:
        _list(plugin, as_json)


@command.command("list")
@click.option("--plugin", metavar="P", help="Only the models of this plugin.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
def list_command(plugin: str | None, as_json: bool) -> None:
    """List the models: plugin, how far each was tested, where its files are.

    \b
    verified          its figures were reproduced with these files
    converter-tested  loading was checked against the original code on other weights
    untested          neither

    \b
    Example:
      seqgen models list --json
    """
    _list(plugin, as_json)


@command.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def show(name: str, as_json: bool) -> None:
    """Show one model card in full.

    \b
    Example:
      seqgen models show paraformer-zh
    """
    card = _registry().card(name)
    row = _row(card)
    if as_json:
        print_json(row)
        return
    import yaml

    kept = {key: value for key, value in row.items() if value not in ("", None, {}, [], False)}
    click.echo(yaml.safe_dump(kept, sort_keys=False, allow_unicode=True, width=100), nl=False)


@command.command("pull")
@click.argument("name")
def pull_command(name: str) -> None:
    """Download a model's files, check their checksums and print where they are.

    A cut download goes on where it stopped.

    \b
    Example:
      seqgen models pull NAME
    """
    card = _registry().card(name)
    if any(file.urls for file in card.files):
        with _progress() as on_progress:
            paths = pull(card, on_progress=on_progress)
    else:
        paths = local_files(card)  # shipped, or an error that says how to get it
    for path in paths:
        click.echo(path)


def _list(plugin: str | None, as_json: bool) -> None:
    plugins = Plugins()
    cards = list(_registry(plugins).models.values())
    if plugin is not None:
        cards = [card for card in cards if card.plugin == plugin]
        if not cards:
            plugins.find(plugin)  # a misspelt name gets its suggestion
            raise UsageError(f"the plugin {plugin!r} has no model card")
    rows = [_row(card) for card in cards]
    if as_json:
        print_json(rows)
    else:
        print_table(rows, ["name", "plugin", "status", "files_are", "summary"])


def _registry(plugins: Plugins | None = None) -> Registry:
    plugins = plugins or Plugins()
    _, errors = plugins.load_each()
    for error in errors.values():
        click.echo(f"note: {error}", err=True)
    return plugins.registry()


def _row(card: Card) -> dict[str, Any]:
    row = dataclasses.asdict(card)
    row["files"] = [
        {key: value for key, value in file.items() if value} for file in map(dict, row["files"])
    ]
    for file in row["files"]:
        if "urls" in file:
            file["urls"] = list(file["urls"])
    for key in ("licence", "source"):
        row[key] = {name: value for name, value in row[key].items() if value}
    row["files_are"] = whereabouts(card)
    return row


@contextmanager
def _progress() -> Iterator[Progress]:
    """A bar on a terminal, nothing elsewhere; rich is imported only here."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    tasks: dict[str, Any] = {}
    with Bar(*columns, console=console, disable=not console.is_terminal) as bar:

        def on_progress(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(name, total=total or None)
            bar.update(tasks[name], completed=done)

        yield on_progress
