"""What a decoder achieved on a list of items: the field's metrics, counts and times.

`evaluate` serves `seqgen eval`, `compare` serves `seqgen compare`; both print or draw a `Score`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from seqgen.batching import Batch
from seqgen.domain import Domain
from seqgen.errors import InputError
from seqgen.runner import BatchResult, Row, Runner

ENOUGH_SECONDS = 3.0
"""A comparison shorter than this is repeated: one item's milliseconds alone would say little."""


@dataclass(frozen=True)
class Score:
    """One decoder over a list of items.

    Attributes:
        decoder, model: names.
        items, failures: how many, and how many of them failed.
        forwards: forward passes in the decoding loop, those of drafts included.
        tokens: slots committed, prompts not counted.
        seconds: reading, encoding, decoding and finishing.
        loop_seconds: the decoding loop alone.
        metrics: the domain's, under the field's names.
        no_metrics: why there are none (items without references, say).
    """

    decoder: str
    model: str
    items: int
    failures: int
    forwards: int
    tokens: int
    seconds: float
    loop_seconds: float
    metrics: Mapping[str, float]
    no_metrics: str = ""

    @property
    def tokens_per_second(self) -> float:
        """Of the decoding loop alone."""
        return self.tokens / self.loop_seconds if self.loop_seconds > 0 else 0.0

    @property
    def items_per_second(self) -> float:
        """Everything included; items that failed take time too."""
        return self.items / self.seconds if self.seconds > 0 else 0.0

    def to_json(self) -> dict[str, Any]:
        """One flat object, metrics under the field's names."""
        return {
            **self.metrics,
            "items": self.items,
            "failures": self.failures,
            "decoder": self.decoder,
            "model": self.model,
            "forwards": self.forwards,
            "tokens": self.tokens,
            "seconds": round(self.seconds, 4),
            "loop_seconds": round(self.loop_seconds, 4),
            "tokens_per_second": round(self.tokens_per_second, 2),
            "items_per_second": round(self.items_per_second, 2),
        }


@dataclass(frozen=True)
class Evaluated:
    """A score, and the rows it is about in input order (binary fields still `Artifact`s)."""

    score: Score
    rows: list[Row]
    items: list[Any]


def evaluate(
    runner: Runner[Any],
    batches: Sequence[Batch[Any]],
    *,
    on_batch: Callable[[int], None] | None = None,
) -> Evaluated:
    """Decode batches and score the rows.

    Args:
        on_batch: called with the number of items after each batch.
    """
    results = []
    for batch in batches:
        results.append(runner.decode(batch))
        if on_batch is not None:
            on_batch(len(batch.entries))
    return summarize(runner.domain, runner.decoder, runner.model_name, results)


def compare(
    runners: Sequence[Runner[Any]],
    batches: Sequence[Batch[Any]],
    *,
    repeats: int = 0,
    on_batch: Callable[[int], None] | None = None,
) -> list[Evaluated]:
    """The same batches by several decoders, taking turns batch by batch.

    Taking turns, each batch begun by another decoder, spreads whatever else the machine does over
    all of them. The first batch is decoded once before, unmeasured, because the first calls of a
    process pay for allocations and lazy imports. Of a batch's repeats the fastest counts.

    Args:
        repeats: how often everything is decoded; 0 repeats a short comparison until it has taken
            `ENOUGH_SECONDS`, at most ten times, and does a long one once.
        on_batch: called with the number of items after each batch of the first round.
    """
    best: list[list[BatchResult[Any]]] = []
    quiet = [runner.silently() for runner in runners]
    for runner in quiet if batches else ():
        runner.decode(batches[0])
    started = time.perf_counter()
    for count in range(repeats or 10):
        if count > 0 and not repeats and time.perf_counter() - started > ENOUGH_SECONDS:
            break
        own = _round(quiet if count else runners, batches, None if count else on_batch)
        best = _fastest(best, own) if best else own
    return [
        summarize(runner.domain, runner.decoder, runner.model_name, results)
        for runner, results in zip(runners, best, strict=True)
    ]


def _round(
    runners: Sequence[Runner[Any]],
    batches: Sequence[Batch[Any]],
    on_batch: Callable[[int], None] | None,
) -> list[list[BatchResult[Any]]]:
    """Every batch once by every runner; results by runner, in the order of the batches."""
    results: list[list[BatchResult[Any]]] = [[] for _ in runners]
    for number, batch in enumerate(batches):
        for turn in range(len(runners)):
            place = (number + turn) % len(runners)
            results[place].append(runners[place].decode(batch))
        if on_batch is not None:
            on_batch(len(batch.entries))
    return results


def _fastest(
    one: list[list[BatchResult[Any]]], two: list[list[BatchResult[Any]]]
) -> list[list[BatchResult[Any]]]:
    """Of each pair of results the one that took less."""
    return [
        [min(pair, key=lambda result: result.seconds) for pair in zip(a, b, strict=True)]
        for a, b in zip(one, two, strict=True)
    ]


def summarize(
    domain: Domain[Any], decoder: str, model: str, results: Sequence[BatchResult[Any]]
) -> Evaluated:
    """Sum up finished batches and ask the domain for its metrics.

    An item whose source could not even be listed has nothing to compare with; it counts as a
    failure and is not scored.
    """
    pairs = sorted(
        (
            (entry, row)
            for result in results
            for entry, row in zip(result.batch.entries, result.rows, strict=True)
        ),
        key=lambda pair: pair[0].index,
    )
    rows = [row for _, row in pairs]
    scored = [(row, entry.item) for entry, row in pairs if entry.item is not None]
    metrics, reason = score_rows(domain, [row for row, _ in scored], [item for _, item in scored])
    score = Score(
        decoder=decoder,
        model=model,
        items=len(rows),
        failures=sum(row["status"] == "failed" for row in rows),
        forwards=sum(result.forwards for result in results),
        tokens=sum(result.tokens for result in results),
        seconds=sum(result.seconds for result in results),
        loop_seconds=sum(result.loop_seconds for result in results),
        metrics=metrics,
        no_metrics=reason,
    )
    return Evaluated(score, rows, [entry.item for entry, _ in pairs])


def score_rows(
    domain: Domain[Any], rows: Sequence[Row], items: Sequence[Any]
) -> tuple[dict[str, float], str]:
    """The domain's metrics, or none and the reason why."""
    if not rows:
        return {}, "no item could be listed"
    try:
        return dict(domain.score(rows, items)), ""
    except InputError as error:
        return {}, "; ".join(part for part in (error.what, error.why, error.fix) if part)
