"""`seqgen train`: train a plugin's model from one of its presets."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from seqgen import options as option_values
from seqgen.errors import ConfigError, PluginError, UsageError, did_you_mean
from seqgen_cli.console import note
from seqgen_cli.job import card_owner, check_device, resolve_device
from seqgen_cli.plugin_command import PluginCommand, command_again, write_options
from seqgen_cli.threads import HELP as THREADS_HELP
from seqgen_cli.threads import use_threads

if TYPE_CHECKING:
    from seqgen.training.task import Convertible, FitConfig, TrainingRun, TrainingTask

SETTINGS_FILE = "settings.json"
MAY_CHANGE = ("steps", "stop", "log_every", "validate_every", "save_every")
"""Fit options that may differ when a training is resumed."""

EPILOG = """\b
Examples:
  seqgen train --plugin speech --preset tiny --data recordings/ -o runs/tiny
  seqgen train --plugin speech --preset tiny --data recordings/ -o runs/tiny --resume
  torchrun --nproc-per-node 4 -m seqgen train --plugin speech --preset tiny -o runs/tiny
  seqgen run --plugin speech --model runs/tiny hello.wav
  seqgen train --plugin text --convert block-diffusion --from runs/ar -o runs/block \\
      --set block_length=8
  seqgen train --plugin speech --help                 its presets and options
"""


class TrainCommand(PluginCommand):
    """Its help lists presets and training options instead of decoders and formats."""

    def write_plugin(self, plugin: str, formatter: click.HelpFormatter) -> None:
        task = _task(plugin)
        with formatter.section("Presets (--preset)"):
            formatter.write_dl(
                [
                    (name, f"{fit.steps} steps, learning rate {fit.lr:g}")
                    for name, (_, fit) in task.presets.items()
                ]
            )
        options, fit = next(iter(task.presets.values()))
        write_options(type(fit), "Training options (--set; presets change defaults)", formatter)
        write_options(type(options), "Model and data options (--set)", formatter)
        for name, (options, fit) in _conversions(task).items():
            title = f"Options of --convert {name} (--set); {fit.steps} steps, rate {fit.lr:g}"
            write_options(type(options), title, formatter)


@click.command(cls=TrainCommand, epilog=EPILOG)
@click.option("--plugin", required=True, metavar="P", help="The domain (`seqgen plugins`).")
@click.option("--preset", metavar="NAME", help="Where the settings start from.")
@click.option(
    "--convert", metavar="NAME", help="Train a model on as another kind: block-diffusion."
)
@click.option("--from", "source", metavar="CARD|PATH", help="The model that --convert starts from.")
@click.option("--data", metavar="DIR", help="The training data, as the plugin documents.")
@click.option("-o", "--output", required=True, metavar="RUNDIR", help="Folder of this training.")
@click.option("--set", "sets", multiple=True, metavar="K=V", help="Change a setting; repeatable.")
@click.option("--seed", type=int, default=0, show_default=True, metavar="N", help="Seed.")
@click.option(
    "--steps", type=click.IntRange(min=1), metavar="N", help="Optimiser steps (--set steps=N)."
)
@click.option("--resume", is_flag=True, help="Go on from RUNDIR's last state.")
@click.option(
    "--allow-changes", is_flag=True, help="Resume with other settings; they are noted in RUNDIR."
)
@click.option("--device", default="auto", show_default=True, metavar="D", help="As for `run`.")
@click.option("--threads", type=click.IntRange(min=1), metavar="N", help=THREADS_HELP)
@click.option("--json", "as_json", is_flag=True, help="Log lines as JSON on stdout.")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@click.pass_context
def command(
    ctx: click.Context,
    plugin: str,
    preset: str | None,
    convert: str | None,
    source: str | None,
    data: str | None,
    output: str,
    sets: tuple[str, ...],
    seed: int,
    steps: int | None,
    resume: bool,
    allow_changes: bool,
    device: str,
    threads: int | None,
    as_json: bool,
    debug: bool,
) -> None:
    """Train a plugin's model.

    RUNDIR gets the settings, a log (log.jsonl), a curve, a state to resume from, and in the end
    the checkpoint that `seqgen run --model RUNDIR` loads. A resumed training equals an unbroken
    one. Started by torchrun, it trains on all processes.

    With --convert block-diffusion --from MODEL an autoregressive model is trained on to fill blocks
    in any order, a few passes a block; docs/conversion.md says what that costs and brings.
    """
    check_device(device)
    folder = Path(output).expanduser()
    task = _task(plugin)
    checkpoint = None
    if convert is None and source is None:
        name, (base_options, base_fit) = _preset(task, preset, plugin)
    else:
        name, (base_options, base_fit) = _conversion(task, convert, source, preset, plugin)
        checkpoint = _checkpoint(str(source), plugin)
    if steps is not None:
        sets = (*sets, f"steps={steps}")
    options, fit_config = override(base_options, base_fit, sets)
    if data is not None and not Path(data).expanduser().exists():
        raise UsageError(f"--data {data} does not exist", fix="give a folder that is there")
    settings = {
        "plugin": plugin,
        "preset": name,
        "seed": seed,
        "data": data,
        "options": option_values.to_json(options),
        "fit": option_values.to_json(fit_config),
    }
    if checkpoint is not None:
        settings |= {"convert": name, "from": source}
    _keep_settings(folder, settings, resume=resume, allow_changes=allow_changes)

    import torch

    from seqgen.training.loop import fit

    use_threads(threads)
    torch.manual_seed(seed)
    run = _start(
        task,
        checkpoint,
        options,
        fit_config,
        data=None if data is None else Path(data).expanduser(),
        seed=seed,
        folder=folder,
    )
    run.model.to(_local_device(device))
    try:
        result = fit(
            run,
            fit_config,
            folder=folder,
            seed=seed,
            resume=resume,
            report=_print_line if as_json else _note_line,
        )
    except KeyboardInterrupt:
        note("interrupted. To go on from the last saved state:")
        note(f"  {command_again(ctx, '--resume', [])}")
        raise SystemExit(130) from None
    if int(os.environ.get("RANK", "0")) == 0:
        click.echo(json.dumps(result))
        note(f"now: seqgen run --plugin {plugin} --model {result['checkpoint']} INPUT")


def override(options: Any, fit: FitConfig, sets: Sequence[str]) -> tuple[Any, FitConfig]:
    """A preset's two parts with `key=value` settings over them; a field of `fit` comes first.

    Raises:
        ConfigError: an unknown key or an unusable value.
    """
    fit_names = {field.name for field in dataclasses.fields(fit)}
    names = {field.name for field in dataclasses.fields(options)}
    for_fit: list[str] = []
    for_options: list[str] = []
    for assignment in sets:
        key = assignment.partition("=")[0].strip().replace("-", "_")
        if key not in fit_names | names:
            raise ConfigError(f"unknown option {key!r}", fix=did_you_mean(key, fit_names | names))
        (for_fit if key in fit_names else for_options).append(assignment)
    return (
        option_values.parse(type(options), for_options, option_values.to_json(options)),
        option_values.parse(type(fit), for_fit, option_values.to_json(fit)),
    )


def _task(plugin: str) -> TrainingTask:
    from seqgen.domain import Trainable
    from seqgen.plugins import Plugins

    domain = Plugins().domain(plugin)
    if not isinstance(domain, Trainable):
        raise PluginError(
            f"the plugin {plugin!r} cannot be trained by seqgen",
            why="its domain has no method training()",
            fix=f"seqgen models --plugin {plugin} lists the models that there are",
        )
    return domain.training()


def _preset(task: TrainingTask, name: str | None, plugin: str) -> tuple[str, tuple[Any, FitConfig]]:
    if name is None:
        if len(task.presets) > 1:
            raise UsageError(
                f"{plugin} has several presets",
                fix=f"--preset with one of: {', '.join(task.presets)}",
            )
        name = next(iter(task.presets))
    if name not in task.presets:
        raise UsageError(f"{plugin} has no preset {name!r}", fix=did_you_mean(name, task.presets))
    return name, task.presets[name]


def _conversions(task: TrainingTask) -> Mapping[str, tuple[Any, FitConfig]]:
    from seqgen.training.task import Convertible

    return task.conversions if isinstance(task, Convertible) else {}


def _conversion(
    task: TrainingTask, name: str | None, source: str | None, preset: str | None, plugin: str
) -> tuple[str, tuple[Any, FitConfig]]:
    """The settings that a conversion starts from."""
    known = _conversions(task)
    if name is None:
        raise UsageError("--from says what is converted, but not to what", fix="add --convert NAME")
    if not known:
        raise PluginError(
            f"the plugin {plugin!r} offers no conversion",
            fix=f"seqgen train --plugin {plugin} --help lists what it trains",
        )
    if name not in known:
        raise UsageError(f"{plugin} has no conversion {name!r}", fix=did_you_mean(name, known))
    if source is None:
        raise UsageError(
            "--convert starts from a model", fix="--from with a card or the path of a checkpoint"
        )
    if preset is not None:
        raise UsageError(
            "--preset and --convert exclude each other",
            why="a conversion has settings of its own, and the model's sizes stay",
            fix="change settings with --set",
        )
    return name, known[name]


def _checkpoint(source: str, plugin: str) -> Path:
    """Where the model of `--from` lies."""
    from seqgen.plugins import Plugins
    from seqgen.weights import local_files

    card = Plugins().registry(plugin).card(source, plugin=card_owner(plugin))
    return local_files(card)[0]


def _start(
    task: TrainingTask,
    checkpoint: Path | None,
    options: Any,
    fit: FitConfig,
    *,
    data: Path | None,
    seed: int,
    folder: Path,
) -> TrainingRun:
    if checkpoint is None:
        return task.start(options, fit, data=data, seed=seed, folder=folder)
    return cast("Convertible", task).convert(
        checkpoint, options, fit, data=data, seed=seed, folder=folder
    )


def _keep_settings(
    folder: Path, settings: Mapping[str, Any], *, resume: bool, allow_changes: bool
) -> None:
    """Write what determines the training beside it; when resuming, compare.

    Settings that were changed on the way are kept under `earlier`, the first ones first.
    """
    from seqgen.journal import differences

    file = folder / SETTINGS_FILE
    if (folder / "state.pt").exists():
        if not resume:
            raise UsageError(
                f"{folder} already holds a training",
                fix="add --resume to go on with it, or choose another folder",
            )
        if file.exists():
            old = json.loads(file.read_text(encoding="utf-8"))
            found = differences(_comparable(old), _comparable(settings))
            if found and allow_changes:
                note(f"resuming with other settings: {'; '.join(found)}")
                past = old.pop("earlier", [])
                settings = {**settings, "earlier": [*past, old]}
            elif found:
                raise UsageError(
                    f"cannot resume {folder}: this training is configured differently",
                    why="; ".join(found),
                    fix="repeat its settings, add --allow-changes, or choose another folder",
                )
    elif resume:
        note(f"nothing to resume in {folder}: starting")
    if int(os.environ.get("RANK", "0")) == 0:
        folder.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _comparable(settings: Mapping[str, Any]) -> dict[str, Any]:
    fit = {name: value for name, value in settings["fit"].items() if name not in MAY_CHANGE}
    # where the data lie may change (another mount); what they are, the plugin checks
    return {**{k: v for k, v in settings.items() if k not in ("data", "earlier")}, "fit": fit}


def _local_device(device: str) -> str:
    """The device of this process: under torchrun each rank has its own GPU."""
    name = resolve_device(device)
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if name == "cuda" else name


def _print_line(line: Mapping[str, Any]) -> None:
    click.echo(json.dumps(line))


def _note_line(line: Mapping[str, Any]) -> None:
    parts = [f"step {line['step']}"]
    parts += [
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in line.items()
        if name not in ("step", "minutes", "validation")
    ]
    label = "validation  " if line.get("validation") else ""
    note(f"{label}{'  '.join(parts)}  ({line.get('minutes', 0.0):.1f} min)")
