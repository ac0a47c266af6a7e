"""The work of `seqgen run`: rows to stdout, or through a journal into an output."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seqgen.errors import UsageError
from seqgen_cli.console import Bar, Failures, note
from seqgen_cli.job import Job, Request, resolve_device
from seqgen_cli.plugin_command import command_again
from seqgen_cli.threads import default_threads

if TYPE_CHECKING:
    from click import Context

    from seqgen.artifacts import ArtifactFolder
    from seqgen.batching import Batch, Entry
    from seqgen.domain import Domain, Live
    from seqgen.journal import Journal
    from seqgen.output import Output
    from seqgen.runner import BatchResult, OnEvent, Row, Runner
    from seqgen_cli.pictures import Pictures


def make_runner(job: Job, request: Request, model: Any, decoder: str) -> Runner[Any]:
    """A runner of a resolved job; failures are reported on stderr."""
    from seqgen.runner import Runner

    return Runner(
        job.domain,
        model,
        decoder=decoder,
        model_name=job.card.name,
        options=job.options,
        seed=job.seed,
        batch_size=job.batch_size,
        on_failure=Failures(debug=request.debug),
    )


class Work:
    """One run: what is to be done, and how it is carried out."""

    def __init__(
        self,
        ctx: Context,
        request: Request,
        job: Job,
        entries: Sequence[Entry[Any]],
        batches: Sequence[Batch[Any]],
        pictures: Pictures | None = None,
        *,
        stream: bool | None = None,
    ) -> None:
        self.ctx = ctx
        self.request = request
        self.job = job
        self.entries = entries
        self.batches = batches
        self.pictures = pictures
        self.items = sum(len(batch.entries) for batch in batches)
        self.stream = stream

    def runner(self, on_event: OnEvent | None, *, streams: bool) -> Runner[Any]:
        """The model, built, with what drives it."""
        job = self.job
        model = job.build(self.request.threads)
        runner = make_runner(job, self.request, model, job.decoder)
        runner.on_event = on_event
        runner.live = self._live(model) if streams else None
        return runner

    def to_stdout(self, on_event: OnEvent | None) -> int:
        """Rows as JSON lines, each as soon as all before it are done. Returns the failures."""
        from seqgen.journal import to_line

        started = time.perf_counter()
        stdout = sys.stdout.buffer
        streams = self._streams(default=sys.stderr.isatty() or self.items == 1)
        runner = self.runner(on_event, streams=streams)
        artifacts = _artifacts_here()
        done = failures = 0
        try:
            # A bar would be drawn over the text that streams.
            with Bar(0 if streams else self.items, self.job.decoder) as bar:
                for rows in _in_order(self._decode(runner, artifacts, bar), self._first()):
                    for row in rows:
                        stdout.write(to_line(row))
                        done += 1
                        failures += row["status"] == "failed"
                    stdout.flush()
        except KeyboardInterrupt:
            note(
                f"interrupted: {done} of {self.items} items were printed. "
                "With -o OUT a run can go on where it stopped (--resume)"
            )
            raise SystemExit(130) from None
        if artifacts.written:
            files = "file" if artifacts.written == 1 else "files"
            note(f"{artifacts.written} {files} in {artifacts.folder}/")
        if self.pictures is not None:
            self.pictures.say_done()
        self._say_done(done, failures, time.perf_counter() - started)
        return failures

    def to_output(
        self, target: Output, on_event: OnEvent | None, *, shard: str, resume: bool, timings: bool
    ) -> int:
        """Rows into the journal, batch by batch; then OUT from the journal. Returns failures."""
        from seqgen.output import JSONL

        started = time.perf_counter()
        artifacts = target.artifacts()
        try:
            with self._journal(target, shard, resume=resume) as journal:
                todo = [batch for batch in self.batches if batch.index not in journal.done]
                # A format of the domain's own may name what the model knows.
                streams = self._streams(default=False)
                if todo or target.format != JSONL:
                    runner = self.runner(on_event, streams=streams)
                if todo:
                    items = 0 if streams else self.items
                    with Bar(items, self.job.decoder, done=journal.totals.items) as bar:
                        for batch in todo:
                            result = runner.decode(batch)
                            rows = _with_paths(result, artifacts)
                            self._draw(result.batch, rows)
                            journal.append(
                                batch.index, rows, forwards=result.forwards, seconds=result.seconds
                            )
                            bar.advance(len(rows))
                journal.finish()
                rows_out = journal.rows() if timings else _without_times(journal.rows())
                target.write(rows_out, self._writer())
                if resume:
                    self._draw_missing(journal)
                totals = journal.totals
        except KeyboardInterrupt:
            note("interrupted; what is finished is kept. To go on:")
            note(f"  {command_again(self.ctx, '--resume', ['--overwrite'])}")
            raise SystemExit(130) from None
        self._say_done(totals.items, totals.failures, time.perf_counter() - started)
        # A format that holds one item has no file for one that failed.
        wrote = "wrote" if target.path.exists() else "nothing to write to"
        note(f"{wrote} {target.path}")
        if self.pictures is not None:
            self.pictures.say_done()
        return totals.failures

    def _streams(self, *, default: bool) -> bool:
        """Whether to show what comes as it comes."""
        from seqgen.domain import Streaming

        if isinstance(self.job.domain, Streaming):
            return default if self.stream is None else self.stream
        if self.stream:
            raise UsageError(f"the plugin {self.job.plugin!r} cannot stream", fix="--no-stream")
        return False

    def _live(self, model: Any) -> Live:
        from seqgen.domain import Streaming

        def write(text: str) -> None:
            # Also where stderr cannot print every character.
            encoding = sys.stderr.encoding or "utf-8"
            sys.stderr.write(text.encode(encoding, "replace").decode(encoding))
            sys.stderr.flush()

        assert isinstance(self.job.domain, Streaming)
        return self.job.domain.live(model, write, self.items)

    def _decode(
        self, runner: Runner[Any], artifacts: ArtifactFolder, bar: Bar
    ) -> Iterator[list[tuple[int, Row]]]:
        for batch in self.batches:
            rows = _with_paths(runner.decode(batch), artifacts)
            self._draw(batch, rows)
            yield rows
            bar.advance(len(batch.entries))

    def _draw(self, batch: Batch[Any], rows: Sequence[tuple[int, Row]]) -> None:
        if self.pictures is not None:
            for entry, (_, row) in zip(batch.entries, rows, strict=True):
                self.pictures.draw(entry, row)

    def _draw_missing(self, journal: Journal) -> None:
        """Pictures of what an earlier run finished without them."""
        if self.pictures is not None:
            entries = {entry.id: entry for entry in self.entries}
            for row in journal.rows():
                self.pictures.draw(entries[row["id"]], row, anew=False)

    def _writer(self) -> Domain[Any]:
        """The domain, told of the settings where its formats name them."""
        from seqgen.domain import SettingsAware

        domain = self.job.domain
        if isinstance(domain, SettingsAware):
            return domain.with_settings(self.job.settings())
        return domain

    def _first(self) -> int:
        return min((entry.index for batch in self.batches for entry in batch.entries), default=0)

    def _journal(self, target: Output, shard: str, *, resume: bool) -> Journal:
        from seqgen import __version__
        from seqgen.batching import inputs_digest
        from seqgen.journal import Journal

        job = self.job
        header = {
            "seqgen": __version__,
            **job.settings(),
            "device": resolve_device(job.device),
            "checksums": job.checksums(),
            "items": len(self.entries),
            "inputs": inputs_digest(self.entries),
            "shard": shard,
            "sources": list(job.sources),
            "threads": self.request.threads or default_threads(),
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        }
        if not (resume and target.manifest.exists()):
            if resume and target.path.exists():
                raise UsageError(
                    f"there is no manifest {target.manifest} to resume {target.path} from",
                    fix="start anew with --overwrite",
                )
            return Journal.create(target.manifest, header)
        journal = Journal.resume(target.manifest, header)
        note(f"resuming: {journal.totals.items} of {self.items} items are done")
        return journal

    def _say_done(self, items: int, failures: int, seconds: float) -> None:
        failed = f", {failures} failed" if failures else ""
        note(
            f"{items} {'item' if items == 1 else 'items'}{failed} in {seconds:.1f} s "
            f"({self.job.card.name}, {self.job.decoder})"
        )


@contextmanager
def tracing(path: str | None, *, append: bool) -> Iterator[OnEvent | None]:
    """A callback that writes events with the ids of their rows to a file; None without a path.

    Raises:
        UsageError: the file cannot be written.
    """
    if path is None:
        yield None
        return
    try:
        file = open(path, "a" if append else "w", encoding="utf-8")  # noqa: SIM115
    except OSError as error:
        raise UsageError(f"cannot write the trace {path}", why=str(error)) from error
    with file:

        def on_event(ids: Sequence[str], event: Any) -> None:
            line = _finite({"ids": list(ids), **event.to_json()})
            file.write(json.dumps(line, allow_nan=False) + "\n")
            file.flush()

        yield on_event


def _finite(value: Any) -> Any:
    # JSON knows neither infinity nor NaN, and a trace must not stop the work it looks at.
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, list):
        return [_finite(element) for element in value]
    return {k: _finite(v) for k, v in value.items()} if isinstance(value, dict) else value


def _with_paths(result: BatchResult[Any], artifacts: ArtifactFolder) -> list[tuple[int, Row]]:
    """(place in the run, row) with binary fields written to files."""
    return [
        (entry.index, artifacts.store(entry.stem, row))
        for entry, row in zip(result.batch.entries, result.rows, strict=True)
    ]


def _without_times(rows: Iterator[Row]) -> Iterator[Row]:
    # A measured time differs between runs; without it equal runs give equal bytes.
    for row in rows:
        yield {**row, "seconds": None}


def _in_order(batches: Iterator[list[tuple[int, Row]]], following: int) -> Iterator[list[Row]]:
    """Rows in input order from place `following` on, as soon as they can be given."""
    waiting: dict[int, Row] = {}
    for batch in batches:
        waiting |= dict(batch)
        ready = []
        while following in waiting:
            ready.append(waiting.pop(following))
            following += 1
        yield ready


def _artifacts_here() -> ArtifactFolder:
    """Without -o: the first of `seqgen-output`, `seqgen-output-2`, ... that does not exist."""
    from seqgen.artifacts import ArtifactFolder

    count = 1
    folder = Path("seqgen-output")
    while folder.exists():
        count += 1
        folder = Path(f"seqgen-output-{count}")
    return ArtifactFolder(folder, Path())
