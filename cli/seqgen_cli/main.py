"""The command `seqgen`: finds the subcommand, and turns errors into messages and exit codes.

Subcommands are named here as strings and imported when called, so that `seqgen --help` stays
fast and a broken command harms no other. `seqgen PLUGIN COMMAND` reaches the commands that a
plugin brings with the hook `seqgen_commands`; only that plugin is imported.

Exit codes: 0 all done, 1 some items failed, 2 usage, 3 plugin or package missing, 4 checkpoint
missing or damaged, 130 interrupted.
"""

from __future__ import annotations

import errno
import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Sequence

import click

COMMANDS = {
    "run": ("seqgen_cli.run", "Generate: decode inputs with a plugin's model."),
    "compare": ("seqgen_cli.compare", "Decode with several decoders, side by side."),
    "eval": ("seqgen_cli.evaluate", "Score a model on inputs with references."),
    "train": ("seqgen_cli.train", "Train a plugin's model."),
    "bench": ("seqgen_cli.bench", "Measure the speed of decoding."),
    "models": ("seqgen_cli.models", "List, show and fetch models."),
    "decoders": ("seqgen_cli.decoders", "List the decoders and what they are."),
    "plugins": ("seqgen_cli.plugins", "List, check and create plugins."),
    "doctor": ("seqgen_cli.doctor", "Check this installation."),
}
"""Command -> module with the click command `command`, and the line for `seqgen --help`."""

EPILOG = """\b
Examples:
  seqgen run --plugin speech hello.wav
  seqgen run --plugin speech recordings/ -o text.jsonl --resume
  seqgen compare --plugin speech --decoders ar,paraformer
  seqgen plugins new mine

`seqgen COMMAND --help` explains a command; `seqgen PLUGIN --help` lists those a plugin adds.
"""


class LazyGroup(click.Group):
    """Knows its subcommands by name and imports one when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in COMMANDS:
            return _import_command(cmd_name)
        return _plugin_group(cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        command = self.get_command(ctx, name)
        if command is None:
            from seqgen.errors import UsageError, did_you_mean

            raise UsageError(f"unknown command {name!r}", fix=did_you_mean(name, COMMANDS))
        return name, command, args[1:]


def _print_version(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from seqgen import __version__

        click.echo(f"seqgen {__version__}")
        ctx.exit()


@click.group(cls=LazyGroup, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Print the version and stop.",
)
@click.option("--debug", is_flag=True, help="Show the traceback of an error; accepted anywhere.")
def cli(debug: bool) -> None:  # `run` takes --debug out before click sees it; here for help
    """One core that decodes any sequence in any order, and plugins that teach it a domain."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Run the command line; returns the exit code and prints any error to stderr."""
    args, debug = _take_debug(list(arguments))
    try:
        from seqgen.errors import SeqgenError
    except ImportError as error:
        return _foreign_seqgen(error)
    try:
        result = cli.main(
            args=args,
            prog_name="seqgen",
            standalone_mode=False,
            default_map={name: {"debug": debug} for name in COMMANDS},
        )
        return result if isinstance(result, int) and not isinstance(result, bool) else 0
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()  # the bare command prints its help
        return error.exit_code
    except click.ClickException as error:
        error.show()
        if isinstance(error, click.MissingParameter) and _names(error.param, "plugin"):
            click.echo("  fix: --plugin NAME; `seqgen plugins` lists the names", err=True)
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return 130
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    except BrokenPipeError:
        # The reader of stdout (head, less) has gone; point stdout elsewhere so that the
        # interpreter does not complain when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except SeqgenError as error:
        return _report(str(error), error.exit_code, debug)
    except ModuleNotFoundError as error:
        return _report(_missing_package(error), 3, debug)
    except OSError as error:
        return _report(_file_trouble(error), 1 if error.errno in _MACHINE else 2, debug)
    except Exception as error:
        message = (
            f"an internal error: {type(error).__name__}: {error}\n"
            "  fix: run it again with --debug and report what it prints"
        )
        return _report(message, 1, debug)


def _take_debug(args: list[str]) -> tuple[list[str], bool]:
    # Accepted anywhere, because it is added to a command that has just failed.
    end = args.index("--") if "--" in args else len(args)
    debug = "--debug" in args[:end] or os.environ.get("SEQGEN_DEBUG", "") not in ("", "0")
    return [arg for i, arg in enumerate(args) if arg != "--debug" or i > end], debug


def _report(message: str, exit_code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    click.echo(f"error: {message}", err=True)
    return exit_code


def _names(parameter: click.Parameter | None, name: str) -> bool:
    return parameter is not None and parameter.name == name


_MACHINE = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENOMEM)
"""What the machine ran out of; other errors of files mean that a wrong one was named."""


def _file_trouble(error: OSError) -> str:
    what = f"cannot use {error.filename}" if error.filename else "a file cannot be used"
    fix = "check the path and who may read and write there"
    why = error.strerror or str(error)
    if error.errno == errno.EEXIST:  # of making a folder: files are replaced
        why, fix = "it is a file, and a folder is needed", "choose another path"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        fix = "free some space; a run with -o OUT then goes on with --resume"
    return f"{what}\n  why: {why}\n  fix: {fix}"


def _import_command(name: str) -> click.Command:
    module_name, _ = COMMANDS[name]
    try:
        command = importlib.import_module(module_name).command
    except ModuleNotFoundError as error:
        if error.name != module_name:
            raise
        from seqgen.errors import PluginError

        raise PluginError(
            f"the command {name!r} is not part of this installation",
            fix="pip install --force-reinstall --no-deps seqgen-kit",
        ) from error
    assert isinstance(command, click.Command)
    return command


def _plugin_group(name: str) -> click.Command | None:
    from seqgen.plugins import Plugins

    plugins = Plugins()
    if not any(name in (ref.name, ref.full_name) for ref in plugins.installed()):
        return None
    group = click.Group(name, help=f"Commands of the plugin {name}.")
    plugins.add_commands(name, group)
    if not group.commands:
        from seqgen.errors import UsageError

        raise UsageError(
            f"the plugin {name!r} adds no commands", fix=f"seqgen run --plugin {name} --help"
        )
    return group


def _missing_package(error: ModuleNotFoundError) -> str:
    # A package that some extra would have brought is named with that extra.
    package = (error.name or str(error)).partition(".")[0]
    fix = f"pip install {package}"
    extra = _extra_with(package)
    if extra:
        fix = f"pip install 'seqgen-kit[{extra}]'"
    return f"the package {package!r} is not installed\n  fix: {fix}"


def _extra_with(package: str) -> str:
    import re
    from importlib.metadata import PackageNotFoundError, requires

    try:
        requirements = requires("seqgen-kit") or []
    except PackageNotFoundError:
        return ""
    for requirement in requirements:
        name = re.match(r"[A-Za-z0-9_.-]+", requirement)
        extra = re.search(r"extra == ['\"]([^'\"]+)['\"]", requirement)
        if name and extra and name[0].replace("-", "_").lower() == package.lower():
            return extra[1]
    return ""


def _foreign_seqgen(error: ImportError) -> int:
    # Another package on the public index is also called seqgen; installed beside ours it may be
    # found first, and then nothing of ours can be imported.
    try:
        found = importlib.util.find_spec("seqgen")
    except (ImportError, ValueError):
        found = None
    where = (found.origin if found else None) or "nothing"
    click.echo(
        f"error: `import seqgen` does not find seqgen-kit but {where}\n"
        f"  why: {error}\n"
        "  fix: pip uninstall seqgen, then pip install --force-reinstall --no-deps seqgen-kit",
        err=True,
    )
    return 3


if __name__ == "__main__":
    main()
