"""`seqgen bench`: the speed of decoders, side by side on the same inputs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from seqgen.errors import InputError, PluginError
from seqgen_cli.console import Failures, note
from seqgen_cli.job import Job, Request, job_options, named_decoders, note_example, resolve
from seqgen_cli.pictures import refuse_illustrations
from seqgen_cli.plugin_command import PluginCommand

if TYPE_CHECKING:
    from torch import Tensor

    from seqgen.batching import Entry

EPILOG = """\b
Examples:
  seqgen bench --plugin speech
  seqgen bench --plugin speech dev/ --limit 20 --batch-size 1 --decoders ar,paraformer
  seqgen bench --plugin speech dev/ --json -o speed.json
  seqgen bench --plugin images --tokenizers -o tokenizers.png

Everything is read before it is timed. The decoders take turns; the figures are medians, in
milliseconds for all inputs together: `condition` is the work before the decoding loop (an encoder),
`decode` is the loop. Quality is what `seqgen compare` measures.
"""

CONDITION = "\0condition"
"""Key of the calls that are no decoder's."""


@click.command(cls=PluginCommand, epilog=EPILOG)
@job_options
@click.option("--decoders", metavar="A,B,C", help="Which decoders.  [default: all of the plugin]")
@click.option(
    "--repeats",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    metavar="N",
    help="Measured rounds; the median counts.",
)
@click.option(
    "--tokenizers",
    is_flag=True,
    help="Rank the plugin's tokenizers by quality instead; INPUTs are further ones, or data.",
)
@click.option(
    "-o", "--output", metavar="FILE", help="Write the result as JSON too (a picture: .png, .svg)."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    request: Request,
    decoders: str | None,
    repeats: int,
    tokenizers: bool,
    output: str | None,
    as_json: bool,
) -> None:
    """Measure how fast decoders are on INPUTs, with one CPU thread unless --threads says more.

    Prints processor and wall time of the conditioning and of each decoder's loop, forward passes
    and tokens a second. Without INPUT the plugin's example is used.
    """
    from seqgen.benchmark import print_result, result, write_result
    from seqgen.domain import available_decoders

    job = resolve(request, decoder=None)
    if tokenizers:
        _rank_tokenizers(job, request, output, as_json=as_json)
        return
    names = named_decoders(decoders, job.info)
    refuse_illustrations(job)
    note_example(job, "measuring on")
    model = job.build(request.threads or 1)
    if decoders is None:
        names = available_decoders(job.domain, model, names)
    failures = Failures(debug=request.debug)
    batches = list(_batches(job, failures))
    if not batches:
        raise InputError("nothing to measure: no input could be read")
    outcome = result("bench", _measure(job, model, names, batches, repeats))
    about = {
        "plugin": job.plugin,
        "model": job.card.name,
        "dtype": job.dtype,
        "compile": job.compile,
    }
    if output is not None:
        write_result(outcome, Path(output).expanduser())
    if as_json:
        from seqgen_cli.tables import print_json

        print_json({**about, **outcome})
    else:
        print_result(outcome)
    if failures.count:
        raise SystemExit(1)


def _rank_tokenizers(job: Job, request: Request, output: str | None, *, as_json: bool) -> None:
    from seqgen.domain import Tokenizing
    from seqgen.plots import PICTURES, picture_format
    from seqgen_cli.tables import print_json, print_table

    if not isinstance(job.domain, Tokenizing):
        raise PluginError(
            f"the plugin {job.plugin!r} has no tokenizers to rank", fix="leave --tokenizers out"
        )
    model = job.build(request.threads or 1)
    sources = () if job.is_example else job.sources
    rows, draw = job.domain.rank_tokenizers(model, sources, job.options)
    if output is not None:
        path = Path(output).expanduser()
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix.lower() in PICTURES:
            path.write_bytes(draw(picture_format(path)))
        else:
            path.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
        note(f"wrote {path}")
    if as_json:
        print_json({"plugin": job.plugin, "model": job.card.name, "tokenizers": rows})
    else:
        print_table([{k: _cell(v) for k, v in row.items()} for row in rows], job.domain.ranked)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"
    if isinstance(value, list):
        return "; ".join(
            ", ".join(f"{name} {_cell(own)}" for name, own in part.items()) for part in value
        )
    return str(value)


@dataclass(frozen=True)
class _Work:
    """Pieces that are decoded together, and the seeds of their rows."""

    pieces: tuple[Any, ...]
    seeds_B: Tensor
    context: Any = None


def _batches(job: Job, failures: Failures) -> Iterator[_Work]:
    """All pieces of all inputs, read, of like size together."""
    import torch

    from seqgen.batching import list_entries
    from seqgen.seeds import item_seed

    entries = list_entries(job.domain, job.sources, job.options, limit=job.limit)
    pieces = sorted(
        ((entry.id, piece) for entry in entries for piece in _pieces(job, entry, failures)),
        key=lambda pair: pair[1].size,
    )
    for start in range(0, len(pieces), job.batch_size):
        part = pieces[start : start + job.batch_size]
        seeds = torch.tensor([item_seed(job.seed, name) for name, _ in part], dtype=torch.int64)
        yield _Work(tuple(piece for _, piece in part), seeds)


def _pieces(job: Job, entry: Entry[Any], failures: Failures) -> list[Any]:
    from seqgen.batching import is_fatal

    try:
        if entry.item is None:
            raise InputError(entry.reason)
        return list(job.domain.split(entry.item, job.options))
    except Exception as error:
        if is_fatal(error):
            raise
        failures(entry, error)
        return []


def _measure(
    job: Job, model: Any, names: Sequence[str], batches: Sequence[_Work], repeats: int
) -> list[dict[str, Any]]:
    """A row a decoder."""
    import torch

    from seqgen.benchmark import interleaved

    def condition() -> list[_Work]:
        with torch.inference_mode():
            made = [
                replace(work, context=job.domain.condition(model, work.pieces, job.options))
                for work in batches
            ]
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return made

    ready = condition()
    counts: dict[str, tuple[int, int]] = {}

    def decode(name: str) -> None:
        forwards = tokens = 0
        with torch.inference_mode():
            for work in ready:
                plan = job.domain.plan(model, work.context, name, job.options, work.seeds_B)
                made = plan.run()
                forwards += made.forwards
                # Reading the lengths waits for the device.
                tokens += int((made.length_B - made.prompt_B).sum())
        counts[name] = (forwards, tokens)

    calls: dict[str, Callable[[], object]] = {CONDITION: condition}
    calls |= {name: partial(decode, name) for name in names}
    times = interleaved(calls, repeats=repeats)
    rows: list[dict[str, Any]] = []
    for name in names:
        forwards, tokens = counts[name]
        seconds = times[name].wall_ms / 1e3
        rows.append(
            {
                "case": name,
                "pieces": sum(len(work.pieces) for work in batches),
                "tokens": tokens,
                "forwards": forwards,
                "condition_cpu_ms": times[CONDITION].cpu_ms,
                "condition_wall_ms": times[CONDITION].wall_ms,
                "decode_cpu_ms": times[name].cpu_ms,
                "decode_wall_ms": times[name].wall_ms,
                "tokens_per_second": tokens / seconds if seconds > 0 else 0.0,
            }
        )
    return rows
