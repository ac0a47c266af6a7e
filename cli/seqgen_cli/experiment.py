"""`seqgen run --model NAME` where the card names an experiment: a command of the plugin does it.

Such a card says `config: {command: NAME}`. The experiment makes its own data and has settings of
its own; `seqgen PLUGIN NAME --help` shows them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from seqgen.errors import UsageError

if TYPE_CHECKING:
    from seqgen_cli.job import Request


def run_experiment(
    request: Request, *, output: str | None, plot: str | None, overwrite: bool
) -> bool:
    """Run it if the request's model is one; False if it is a model like any other.

    Its rows are JSON lines on stdout or in `output`; its picture is DIR/NAME.png.

    Raises:
        UsageError: there are inputs, its settings are wrong, or `output` exists already.
    """
    name = _command_of(request)
    if name is None:
        return False
    from seqgen.plugins import Plugins

    if request.inputs:
        raise UsageError(
            f"{request.model} is an experiment on data of its own: it takes no INPUT",
            fix=f"leave it away, or choose a model (`seqgen models --plugin {request.plugin}`)",
        )
    if output is not None and Path(output).exists() and not overwrite:
        raise UsageError(f"{output} exists already", fix="--overwrite, or another file")
    arguments = ["--json"]
    for setting in request.sets:
        arguments += ["--set", setting]
    if request.seed is not None:
        arguments += ["--set", f"seed={request.seed}"]
    if output is not None:
        arguments += ["--output", output]
    if plot is not None:
        folder = Path(plot).expanduser()
        folder.mkdir(parents=True, exist_ok=True)
        arguments += ["--plot", str(folder / f"{name}.png")]
    group = click.Group(request.plugin)
    Plugins().add_commands(request.plugin, group)
    group.commands[name].main(args=arguments, prog_name=f"seqgen {name}", standalone_mode=False)
    return True


def _command_of(request: Request) -> str | None:
    from seqgen.plugins import Plugins
    from seqgen_cli.job import card_owner

    if request.model is None:
        return None
    registry = Plugins().registry(request.plugin)
    name = registry.card(request.model, plugin=card_owner(request.plugin)).config.get("command")
    return None if name is None else str(name)
