"""Drives a domain: batches of items in, rows out, one row an item whatever happens to it.

The pieces around it: `batching` decides what is decoded together, `journal` keeps finished rows,
`artifacts` writes binary outputs. A library user needs this file only:

    entries = list_entries(domain, ["clips/"], options)
    runner = Runner(domain, model, decoder="ar", model_name="my-model", options=options)
    for result in runner.run(plan_batches(entries, 8)):
        for row in result.rows: ...
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, Generic

from seqgen.artifacts import has_artifacts
from seqgen.batching import Batch, Entry, failure_reason, is_fatal
from seqgen.domain import Described, Domain, Fields, ItemT, Live, Plan
from seqgen.errors import InputError, PluginError
from seqgen.seeds import item_seed

if TYPE_CHECKING:
    from seqgen.decoders.base import Generated
    from seqgen.events import Event

Row = dict[str, Any]
"""`id`, `status` ("ok" or "failed"), `reason` (when failed), `decoder`, `model`, `seconds`, and
the domain's own fields. `seconds` is the only measured time in a row."""

RESERVED = ("id", "status", "reason", "decoder", "model", "seconds")

LOOKAHEAD_BATCHES = 4
"""Pieces of this many batches are read ahead, to find some of like size; bounds the memory."""

OnEvent = Callable[[Sequence[str], "Event"], None]
"""Called with the ids of the rows being decoded and the event."""

OnFailure = Callable[[Entry[Any], BaseException], None]
"""Called once for every item that failed."""


@dataclass(frozen=True)
class BatchResult(Generic[ItemT]):
    """A finished batch.

    Attributes:
        batch: what was decoded.
        rows: one row an entry, in the batch's order; fields may still hold `Artifact`s.
        forwards: forward passes in the decoding loop, those of drafts included.
        seconds: reading, conditioning, decoding and finishing.
        loop_seconds: the decoding loop alone.
        tokens: slots that the loop committed, prompts not counted.
    """

    batch: Batch[ItemT]
    rows: list[Row]
    forwards: int
    seconds: float
    loop_seconds: float
    tokens: int


@dataclass
class _Progress(Generic[ItemT]):
    """An entry on its way through the batch."""

    entry: Entry[ItemT]
    fields: dict[int, Fields] = field(default_factory=dict)
    seconds: float = 0.0
    reason: str = ""


@dataclass(frozen=True)
class _Piece(Generic[ItemT]):
    progress: _Progress[ItemT]
    place: int
    item: ItemT


@dataclass
class _Counts:
    forwards: int = 0
    loop_seconds: float = 0.0
    tokens: int = 0


class Runner(Generic[ItemT]):
    """Decodes batches with one model, one decoder and one set of options.

    Args:
        domain: what the items are.
        model: what `domain.build` gave.
        decoder: name of the decoder, one of the domain's.
        model_name: written into the rows.
        options: an instance of `domain.options`.
        seed: the run's seed; every item gets its own from it.
        batch_size: most pieces decoded together.
        on_event: sees the decoder's events.
        on_failure: sees the error of every failed item.
        live: shows batches while they are decoded.
    """

    def __init__(
        self,
        domain: Domain[ItemT],
        model: Any,
        *,
        decoder: str,
        model_name: str,
        options: Any,
        seed: int = 0,
        batch_size: int = 8,
        on_event: OnEvent | None = None,
        on_failure: OnFailure | None = None,
        live: Live | None = None,
    ) -> None:
        self.domain = domain
        self.model = model
        self.decoder = decoder
        self.model_name = model_name
        self.options = options
        self.seed = seed
        self.batch_size = batch_size
        self.on_event = on_event
        self.on_failure = on_failure
        self.live = live

    def silently(self) -> Runner[ItemT]:
        """The same runner without callbacks, to warm up."""
        quiet = copy.copy(self)
        quiet.on_event = quiet.on_failure = quiet.live = None
        return quiet

    def run(self, windows: Iterable[Iterable[Batch[ItemT]]]) -> Iterator[BatchResult[ItemT]]:
        """Decode batch after batch."""
        for window in windows:
            for batch in window:
                yield self.decode(batch)

    def decode(self, batch: Batch[ItemT]) -> BatchResult[ItemT]:
        """Read and decode one batch of items.

        An item that fails gets a row with status `failed`; the others do not notice. If a whole
        batch raises (one poisonous item, or not enough memory), its pieces are decoded one by one.

        Raises:
            SeqgenError: of a kind that concerns the whole run (usage, plugin, checkpoint).
        """
        started = time.perf_counter()
        counts = _Counts()
        progress = [_Progress(entry, reason=entry.reason) for entry in batch.entries]
        pieces = self._read(progress)
        while ahead := list(islice(pieces, LOOKAHEAD_BATCHES * self.batch_size)):
            ahead.sort(key=lambda piece: piece.item.size)
            for start in range(0, len(ahead), self.batch_size):
                self._decode_pieces(ahead[start : start + self.batch_size], counts)
        rows = [self._row(state) for state in progress]
        return BatchResult(
            batch=batch,
            rows=rows,
            forwards=counts.forwards,
            seconds=time.perf_counter() - started,
            loop_seconds=counts.loop_seconds,
            tokens=counts.tokens,
        )

    def _read(self, progress: Sequence[_Progress[ItemT]]) -> Iterator[_Piece[ItemT]]:
        """The pieces of all items, read as they are asked for."""
        for state in progress:
            if state.entry.item is None:
                continue
            parts = self._split(state)
            place = 0
            while not state.reason:
                started = time.perf_counter()
                part = next(parts, None)
                state.seconds += time.perf_counter() - started
                if part is None:
                    break
                yield _Piece(state, place, part)
                place += 1

    def _split(self, state: _Progress[ItemT]) -> Iterator[ItemT]:
        assert state.entry.item is not None
        count = 0
        try:
            for part in self.domain.split(state.entry.item, self.options):
                count += 1
                yield part
            if count == 0:
                raise InputError(f"{state.entry.id} is empty")
        except Exception as error:
            self._fail(state, error)

    def _decode_pieces(self, pieces: Sequence[_Piece[ItemT]], counts: _Counts) -> None:
        alive = [piece for piece in pieces if not piece.progress.reason]
        if not alive:
            return
        started = time.perf_counter()
        try:
            fields = self._generate(alive, counts)
        except Exception as error:
            if is_fatal(error):
                raise
            if len(alive) == 1:
                alive[0].progress.seconds += time.perf_counter() - started
                self._fail(alive[0].progress, error)
                return
            for piece in alive:
                self._decode_pieces([piece], counts)
            return
        share = (time.perf_counter() - started) / len(alive)
        for piece, own in zip(alive, fields, strict=True):
            piece.progress.fields[piece.place] = own
            piece.progress.seconds += share

    def _generate(self, pieces: Sequence[_Piece[ItemT]], counts: _Counts) -> list[Fields]:
        """The domain's fields of each piece: one pass through the domain's methods."""
        import torch

        ids = [piece.progress.entry.id for piece in pieces]
        items = [piece.item for piece in pieces]
        seeds_B = torch.tensor(
            [item_seed(self.seed, _piece_id(piece)) for piece in pieces], dtype=torch.int64
        )
        with torch.inference_mode():
            context = self.domain.condition(self.model, items, self.options)
            plan = self.domain.plan(self.model, context, self.decoder, self.options, seeds_B)
            started = time.perf_counter()
            generated = self._run(plan, ids)
            # Reading the lengths waits for the device, so that the clock sees the work done.
            counts.tokens += int((generated.length_B - generated.prompt_B).sum())
            counts.loop_seconds += time.perf_counter() - started
            counts.forwards += generated.forwards + generated.draft_forwards
            fields = self.domain.finish(generated, items, context, self.options)
        if len(fields) != len(items):
            raise PluginError(
                f"the plugin gave {len(fields)} results for {len(items)} pieces",
                fix="finish() must return one dict a piece, in order",
            )
        return fields

    def _run(self, plan: Plan, ids: Sequence[str]) -> Generated:
        live, on_event = self.live, self.on_event
        if live is None:
            return plan.run(None if on_event is None else (lambda event: on_event(ids, event)))

        def seen(event: Event) -> None:
            live.event(event)
            if on_event is not None:
                on_event(ids, event)

        live.begin(ids, plan)
        try:
            return plan.run(seen)
        finally:
            live.end()

    def _row(self, state: _Progress[ItemT]) -> Row:
        fields: Fields = {}
        if not state.reason:
            try:
                parts = [state.fields[place] for place in sorted(state.fields)]
                assert state.entry.item is not None
                fields = self.domain.join(state.entry.item, parts, self.options)
                _check_fields(fields)
            except Exception as error:
                fields = {}
                self._fail(state, error)
        row: Row = {"id": state.entry.id, "status": "failed" if state.reason else "ok"}
        if state.reason:
            row["reason"] = state.reason
            if state.entry.item is None and self.on_failure is not None:
                self.on_failure(state.entry, InputError(state.reason))
        row |= {
            "decoder": self.decoder,
            "model": self.model_name,
            "seconds": round(state.seconds, 6),
        }
        if state.reason and state.entry.item is not None and isinstance(self.domain, Described):
            fields = self.domain.describe(state.entry.item)
        return row | fields

    def _fail(self, state: _Progress[ItemT], error: Exception) -> None:
        if is_fatal(error):
            raise error
        state.reason = failure_reason(state.entry.id, error)
        if self.on_failure is not None:
            self.on_failure(state.entry, error)


def _piece_id(piece: _Piece[Any]) -> str:
    """What a piece's seed derives from: the item's id, with the piece's number from the second on.

    Not the id that the domain gives a piece: that one is unknown to be unique within the run.
    """
    entry_id = piece.progress.entry.id
    return entry_id if piece.place == 0 else f"{entry_id}\0{piece.place}"


def _check_fields(fields: Fields) -> None:
    """Raises where a row could not be written as JSON; better now than after a night's run."""
    if taken := [name for name in RESERVED if name in fields]:
        raise PluginError(
            f"the plugin's own field {taken[0]!r} hides one of the row's fields",
            fix=f"choose names other than {', '.join(RESERVED)}",
        )
    plain = {name: value for name, value in fields.items() if not has_artifacts({name: value})}
    json.dumps(plain, allow_nan=False)
