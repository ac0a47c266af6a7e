"""`seqgen eval`: the field's metrics of a decoder on inputs that have references."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from seqgen.errors import InputError, UsageError
from seqgen_cli.console import Bar, note
from seqgen_cli.job import Job, Request, job_options, note_example, resolve
from seqgen_cli.pictures import refuse_illustrations
from seqgen_cli.plugin_command import PluginCommand
from seqgen_cli.score_tables import print_score
from seqgen_cli.work import make_runner

if TYPE_CHECKING:
    from seqgen.scoring import Evaluated, Score

EPILOG = """\b
Examples:
  seqgen eval --plugin speech dev/ --decoder ar
  seqgen eval --plugin speech dev/ --json
  seqgen eval --plugin speech dev/ -o rows.jsonl --plot errors.png

Exit codes as for `seqgen run`: 1 if some items failed (they are scored as the plugin says).
"""


@click.command(cls=PluginCommand, epilog=EPILOG)
@job_options
@click.option("--decoder", metavar="NAME", help="One of the plugin's decoders.")
@click.option("-o", "--output", metavar="OUT", help="Keep the rows too, as JSON lines.")
@click.option("--overwrite", is_flag=True, help="Replace OUT.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--plot", metavar="FILE", help="Draw how the metrics come about.")
def command(
    request: Request,
    decoder: str | None,
    output: str | None,
    overwrite: bool,
    as_json: bool,
    plot: str | None,
) -> None:
    """Decode INPUTs and print the metrics of the plugin's field.

    INPUTs carry their references in the way that the plugin documents (a transcript beside a
    recording, a column of a table). Without INPUT the plugin's example is scored.
    """
    from seqgen.batching import list_entries, plan_batches
    from seqgen.scoring import evaluate

    job = resolve(request, decoder=decoder)
    out = _free(output, overwrite=overwrite)
    if plot is not None:
        from seqgen.plots import picture_format

        picture_format(Path(plot))  # before the work, not after it
    refuse_illustrations(job)
    note_example(job, "scoring")
    entries = list_entries(job.domain, job.sources, job.options, limit=job.limit)
    batches = [batch for window in plan_batches(entries, job.batch_size) for batch in window]
    runner = make_runner(job, request, job.build(request.threads), job.decoder)
    with Bar(len(entries), job.decoder) as bar:
        evaluated = evaluate(runner, batches, on_batch=bar.advance)
    if out is not None:
        _write_rows(out, evaluated)
    score = evaluated.score
    if score.no_metrics:
        raise InputError("these inputs cannot be scored", why=score.no_metrics)
    if plot is not None:
        from seqgen.plots import plot_metrics

        plot_metrics(evaluated, job.domain, Path(plot))
        note(f"wrote {plot}")
    _print(job, score, as_json=as_json)
    if score.failures:
        raise SystemExit(1)


def _free(output: str | None, *, overwrite: bool) -> Path | None:
    if output is None:
        if overwrite:
            raise UsageError("--overwrite needs an output file", fix="add -o OUT")
        return None
    path = Path(output).expanduser()
    if path.is_dir() or (path.exists() and not overwrite):
        kind = "a folder" if path.is_dir() else "there already"
        raise UsageError(f"{path} is {kind}", fix="choose another -o, or add --overwrite")
    return path


def _write_rows(out: Path, evaluated: Evaluated) -> None:
    from seqgen.artifacts import ArtifactFolder
    from seqgen.batching import safe_stem
    from seqgen.journal import write_jsonl

    folder = ArtifactFolder(out.with_name(f"{out.stem}_files"), out.parent)

    def rows() -> Iterator[dict[str, Any]]:
        for number, row in enumerate(evaluated.rows):
            yield folder.store(f"{number:05d}-{safe_stem(row['id'])}", row)

    out.parent.mkdir(parents=True, exist_ok=True)
    write_jsonl(out, rows())
    note(f"wrote {out}")


def _print(job: Job, score: Score, *, as_json: bool) -> None:
    if as_json:
        from seqgen_cli.tables import print_json

        setting = {"seed": job.seed, "dtype": job.dtype, "compile": job.compile}
        print_json({**score.to_json(), "plugin": job.plugin, **setting})
        return
    print_score(score)
