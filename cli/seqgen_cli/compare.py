"""`seqgen compare`: one model, several decoders, the same inputs, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from seqgen_cli.console import Bar, note
from seqgen_cli.job import Job, Request, job_options, named_decoders, note_example, resolve
from seqgen_cli.pictures import draw_comparison, refuse_illustrations
from seqgen_cli.plugin_command import PluginCommand
from seqgen_cli.score_tables import print_comparison
from seqgen_cli.work import make_runner

EPILOG = """\b
Examples:
  seqgen compare --plugin speech
  seqgen compare --plugin speech dev/ --decoders ar,paraformer,mask-predict -o speed.png
  seqgen compare --plugin speech dev/ --json

Decoders take turns batch by batch, after one unmeasured batch each; seconds are of this machine.
"""


@click.command(cls=PluginCommand, epilog=EPILOG)
@job_options
@click.option("--decoders", metavar="A,B,C", help="Which decoders.  [default: all of the model]")
@click.option(
    "-o", "--output", metavar="PNG", default="compare.png", show_default=True, help="The picture."
)
@click.option(
    "--repeats",
    type=click.IntRange(min=1),
    metavar="N",
    help="Decode everything N times, the fastest counts.  [default: short inputs up to 10 times]",
)
@click.option("--no-picture", is_flag=True, help="Print the figures only.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    request: Request,
    decoders: str | None,
    output: str,
    repeats: int | None,
    no_picture: bool,
    as_json: bool,
) -> None:
    """Decode INPUTs with several decoders and compare quality and speed.

    Prints a table: the metrics of the plugin's field, forward passes, seconds and tokens a second;
    and draws quality against speed. Where the inputs have no references it compares speed alone.
    Without INPUT the plugin's example is used.
    """
    from seqgen.batching import list_entries, plan_batches
    from seqgen.domain import Comparing
    from seqgen.plots import picture_format
    from seqgen.scoring import compare

    job = resolve(request, decoder=None)
    names = named_decoders(decoders, job.info)
    picture = Path(output).expanduser()
    if not no_picture:
        picture_format(picture)  # before the work, not after it
    refuse_illustrations(job)
    note_example(job, "comparing on")
    entries = list_entries(job.domain, job.sources, job.options, limit=job.limit)
    batches = [batch for window in plan_batches(entries, job.batch_size) for batch in window]
    model = job.build(request.threads)
    if decoders is None:
        names = _of_model(job, model, names)
    runners = [make_runner(job, request, model, name) for name in names]
    for runner in runners[1:]:
        runner.on_failure = None  # the first decoder's report names the bad items already
    with Bar(len(entries), "comparing") as bar:
        compared = compare(runners, batches, repeats=repeats or 0, on_batch=bar.advance)
    scores = [done.score for done in compared]
    if scores[0].no_metrics:
        note(f"no quality columns: {scores[0].no_metrics}")
    if not no_picture:
        count = f"{len(entries)} item{'' if len(entries) == 1 else 's'}"
        draw_comparison(compared, job, picture, title=f"{job.card.name}, {count}")
        note(f"wrote {picture}")
    if as_json:
        from seqgen_cli.tables import print_json

        print_json(
            {
                "plugin": job.plugin,
                "model": job.card.name,
                "items": len(entries),
                "failures": max(score.failures for score in scores),
                "seed": job.seed,
                "dtype": job.dtype,
                "compile": job.compile,
                "picture": None if no_picture else str(picture),
                "decoders": [score.to_json() for score in scores],
            }
        )
    else:
        print_comparison(scores, job.domain.compared if isinstance(job.domain, Comparing) else ())
    if any(score.failures for score in scores):
        raise SystemExit(1)


def _of_model(job: Job, model: Any, names: Sequence[str]) -> list[str]:
    """The decoders that this model has, where nobody asked for certain ones."""
    from seqgen.domain import available_decoders

    kept = available_decoders(job.domain, model, names)
    if left_out := [name for name in names if name not in kept]:
        note(f"left out: {', '.join(left_out)}, which {job.card.name} does not have")
    return kept
