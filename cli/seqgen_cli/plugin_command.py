"""A click command that knows a plugin: `seqgen run --plugin speech --help` lists its options.

Without `--plugin` the help text imports nothing. It also keeps the arguments as typed, for the
command that resumes an interrupted run.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

import click

ARGUMENTS = "seqgen.arguments"


class PluginCommand(click.Command):
    """Shows decoders, formats, models and options of the plugin that the arguments name."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[ARGUMENTS] = list(args)
        return super().parse_args(ctx, args)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        plugin = _plugin_of(ctx.meta.get(ARGUMENTS, []))
        if plugin is not None:
            self.write_plugin(plugin, formatter)
        super().format_epilog(ctx, formatter)

    def write_plugin(self, plugin: str, formatter: click.HelpFormatter) -> None:
        """What the help text says of a plugin."""
        from seqgen.output import known_formats
        from seqgen.plugins import Plugins

        plugins = Plugins()
        info = plugins.info(plugin)
        with formatter.section(f"Plugin {info.name}"):
            formatter.write_text(f"{info.summary.rstrip('.')}. Reads {info.inputs.rstrip('.')}.")
        with formatter.section("Decoders (--decoder)"):
            formatter.write_dl(
                [
                    (f"{name} (default)" if name == info.default_decoder else name, summary)
                    for name, summary in info.decoders.items()
                ]
            )
        with formatter.section("Formats (--format, or the suffix of -o)"):
            formatter.write_text(", ".join(known_formats(info)))
        write_options(plugins.domain(plugin).options, "Options (--set)", formatter)


def command_again(ctx: click.Context, add: str, without: Sequence[str]) -> str:
    """The command line as typed, with one flag added and some left out, ready for a shell."""
    kept = [argument for argument in ctx.meta[ARGUMENTS] if argument not in (*without, add)]
    return shlex.join([*ctx.command_path.split(), *kept, add])


def _plugin_of(arguments: Sequence[str]) -> str | None:
    for place, argument in enumerate(arguments):
        if argument == "--plugin" and place + 1 < len(arguments):
            return arguments[place + 1]
        if argument.startswith("--plugin="):
            return argument.partition("=")[2]
    return None


def write_options(cls: type[Any], title: str, formatter: click.HelpFormatter) -> None:
    """A section of the help text made from an options dataclass."""
    from seqgen.options import describe

    lines = [
        (f"{line.name}={line.type}", f"{line.help}  [default: {line.default}]".strip())
        for line in describe(cls)
    ]
    with formatter.section(title):
        formatter.write_dl(lines or [("none", "this plugin has no options")])
