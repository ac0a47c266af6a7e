"""`seqgen run`: decode inputs; JSON lines on stdout, or a file that survives interruptions."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from seqgen.errors import UsageError
from seqgen_cli.experiment import run_experiment
from seqgen_cli.job import Job, Request, job_options, note_example, resolve, resolve_device
from seqgen_cli.pictures import Illustrations, Pictures
from seqgen_cli.plugin_command import PluginCommand
from seqgen_cli.work import Work, tracing

if TYPE_CHECKING:
    from seqgen.batching import Batch, Entry
    from seqgen.output import Output

EPILOG = """\b
Examples:
  seqgen run --plugin speech                          the shipped example
  seqgen run --plugin speech hello.wav clips/ -o text.jsonl
  seqgen run --plugin speech clips/ -o text.jsonl --resume
  seqgen run --plugin speech clips/ -o part0.jsonl --shard 0/3
  seqgen run --plugin peptides spectra.mgf -o out.mztab --plot pictures/
  seqgen run --plugin speech --help                   its options, decoders, formats

Exit codes: 0 all done, 1 some items failed (each has its reason in the output), 2 usage,
3 plugin or package missing, 4 checkpoint missing or damaged, 130 interrupted.
"""


@click.command(cls=PluginCommand, epilog=EPILOG)
@job_options
@click.option("--decoder", metavar="NAME", help="One of the plugin's decoders.")
@click.option("-o", "--output", metavar="OUT", help="A file, or a folder; else rows go to stdout.")
@click.option(
    "--format", "format_", metavar="F", help="Format of OUT, where its suffix does not say it."
)
@click.option("--resume", is_flag=True, help="Go on with an interrupted run to OUT.")
@click.option("--overwrite", is_flag=True, help="Replace OUT.")
@click.option("--shard", metavar="i/n", help="Do part i of n (0 <= i < n) of the inputs.")
@click.option("--trace", metavar="FILE", help="Write every decoding step as a JSON line.")
@click.option("--plot", metavar="DIR", help="Draw every finished item, if the plugin can.")
@click.option(
    "--stream/--no-stream",
    default=None,
    help="Show on stderr what comes as it comes, if the plugin can.  [default: rows on stdout, "
    "and a terminal or a single item]",
)
@click.option("--timings", is_flag=True, help="Measured seconds in OUT (else null there).")
@click.option("--dry-run", is_flag=True, help="Print what would be done, and stop.")
@click.pass_context
def command(
    ctx: click.Context,
    request: Request,
    decoder: str | None,
    output: str | None,
    format_: str | None,
    resume: bool,
    overwrite: bool,
    shard: str | None,
    trace: str | None,
    plot: str | None,
    stream: bool | None,
    timings: bool,
    dry_run: bool,
) -> None:
    """Decode INPUTs (files, folders, what the plugin reads; `-` is stdin) with a plugin's model.

    Without INPUT the example that the plugin ships is decoded. Rows are JSON lines on stdout, or
    go to OUT in the format of its suffix. Beside OUT a manifest keeps finished rows, so that an
    interrupted run goes on with --resume and ends in the very same bytes. Every item has its own
    seed from --seed and its id; what is decoded together depends only on the list of inputs, so
    shards put one after another are the whole.
    """
    from seqgen.batching import Shard, list_entries, plan_batches

    if run_experiment(request, output=output, plot=plot, overwrite=overwrite):
        return
    job = resolve(request, decoder=decoder)
    part = Shard.parse(shard) if shard is not None else Shard()
    target = _target(job, output, format_, resume=resume, overwrite=overwrite)
    output_path = None if target is None else target.path
    beside = Illustrations(job, output=output_path, replace=resume or overwrite)
    pictures = None if plot is None else Pictures(Path(plot).expanduser(), job)
    note_example(job, "running")
    entries = list_entries(job.domain, job.sources, job.options, limit=job.limit)
    batches = part.of(plan_batches(entries, job.batch_size))
    if dry_run:
        _print_plan(job, entries, batches, str(part), target)
        return
    if target is not None:
        target.rehearse(sum(len(batch.entries) for batch in batches), job.domain)
    work = Work(ctx, request, job, entries, batches, pictures, stream=stream)
    with tracing(trace, append=resume) as on_event:
        if target is None:
            failures = work.to_stdout(on_event)
        else:
            failures = work.to_output(
                target, on_event, shard=str(part), resume=resume, timings=timings
            )
    beside.write()
    if failures:
        raise SystemExit(1)


def _target(
    job: Job, output: str | None, format_: str | None, *, resume: bool, overwrite: bool
) -> Output | None:
    """`-o` checked against what lies there; None for stdout."""
    from seqgen.output import JSONL, Output, check_format

    if resume and overwrite:
        raise UsageError("--resume and --overwrite contradict each other", fix="choose one")
    if output is None:
        if format_ is not None and check_format(format_, job.info) != JSONL:
            raise UsageError(f"the format {format_!r} needs a file", fix=f"add -o OUT.{format_}")
        if resume or overwrite:
            flag = "--resume" if resume else "--overwrite"
            raise UsageError(f"{flag} needs an output file", fix="add -o OUT")
        return None
    target = Output.resolve(output, format_, job.info)
    target.check_free(resume=resume, overwrite=overwrite)
    return target


def _print_plan(
    job: Job,
    entries: Sequence[Entry[Any]],
    batches: Sequence[Batch[Any]],
    shard: str,
    target: Output | None,
) -> None:
    card = job.card
    plan = {
        "settings": job.settings(),
        "device": resolve_device(job.device),
        "model": {
            "name": card.name,
            "status": card.status,
            "licence": card.licence.weights,
            "bytes": _bytes(job),
            "checksums": job.checksums(),
        },
        "items": len(entries),
        "unreadable": [entry.reason for entry in entries if entry.item is None],
        "shard": shard,
        "items_of_shard": sum(len(batch.entries) for batch in batches),
        "batches_of_shard": len(batches),
        "output": None if target is None else os.fspath(target.path),
        "format": "jsonl" if target is None else target.format,
        "manifest": None if target is None else os.fspath(target.manifest),
    }
    click.echo(json.dumps(plan, indent=2, ensure_ascii=False))


def _bytes(job: Job) -> int:
    """Size of the model's files; memory needs at least as much."""
    if job.card.path is None:
        return sum(file.size for file in job.card.files)
    path = job.card.path
    files = [path] if path.is_file() else [file for file in path.iterdir() if file.is_file()]
    return sum(file.stat().st_size for file in files)
