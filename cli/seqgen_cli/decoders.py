"""`seqgen decoders`: the core's recipes, the plugins' own, and what each domain offers."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from seqgen.catalogue import CORE_DECODERS
from seqgen.plugins import Plugins
from seqgen_cli.tables import print_json, print_table

EPILOG = """\b
Examples:
  seqgen decoders
  seqgen decoders --plugin speech
  seqgen decoders --json
"""


@click.command(epilog=EPILOG)
@click.option("--plugin", metavar="P", help="Only what this plugin offers.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(plugin: str | None, as_json: bool) -> None:
    """List the decoders and what they are.

    The first part lists the recipes of the core, which any domain can use; the second the names
    that `--decoder` takes for each domain.
    """
    plugins = Plugins()
    if plugin is None:
        loaded, errors = plugins.load_each()
        recipes = [{"from": "core", **asdict(info)} for info in CORE_DECODERS]
    else:
        loaded, errors, recipes = [plugins.load(plugin)], {}, []
    domains: list[dict[str, Any]] = []
    for one in loaded:
        recipes += [{"from": one.ref.name, **asdict(info)} for info in one.decoders()]
        for info in one.domains:
            for name, summary in info.decoders.items():
                default = name == info.default_decoder
                domains.append(
                    {"domain": info.name, "name": name, "default": default, "summary": summary}
                )
    for error in errors.values():
        click.echo(f"note: {error}", err=True)
    if as_json:
        print_json({"recipes": recipes, "domains": domains})
        return
    if recipes:
        click.echo("Recipes\n")
        print_table(recipes, ["name", "from", "paper", "summary"])
        click.echo()
    click.echo("Decoders of the installed domains (* the default)\n")
    for row in domains:
        row["decoder"] = f"{row['name']} *" if row["default"] else row["name"]
    print_table(domains, ["domain", "decoder", "summary"])
