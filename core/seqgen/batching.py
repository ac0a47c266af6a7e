"""What is decoded together: the list of a run's items, its batches, and the shards of the batches.

The plan is made once, over the whole list, from what is known before anything is read (an item's
place and its size). It depends neither on `--shard` nor on what an earlier, interrupted run has
finished, so every item is always decoded in the same company. That is what makes the promises
exact: floating-point sums differ in their last digits between batches of different shape, so only
equal batches give equal bytes.

    items    0 1 2 3 4 5 6 7 8 9 ...          input order
    windows  [0 1 2 3 4 5] [6 7 8 9 ...]       contiguous, a whole number of batches
    batches  [4 0] [2 5] [1 3]                 within a window, items of like size
    shards   whole windows, contiguous         so shards, put one after another, are the run
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic

from seqgen.domain import Domain, ItemT
from seqgen.errors import InputError, SeqgenError, UsageError

WINDOW_BATCHES = 8
"""Most batches in a window: enough items to find some of like size, few enough to shard finely."""


@dataclass(frozen=True, slots=True)
class Entry(Generic[ItemT]):
    """One item's place in a run.

    Attributes:
        index: place in the whole list (before sharding).
        id: the item's id, made unique within the run.
        stem: a safe, unique file name without suffix, for what the item yields.
        item: what the domain listed; None if its source could not be listed.
        reason: why there is no item.
    """

    index: int
    id: str
    stem: str
    item: ItemT | None
    reason: str = ""

    @property
    def size(self) -> float:
        return self.item.size if self.item is not None else 0.0


@dataclass(frozen=True)
class Batch(Generic[ItemT]):
    """Entries that are read and decoded together; also the unit of resuming."""

    index: int
    entries: tuple[Entry[ItemT], ...]


def list_entries(
    domain: Domain[ItemT], sources: Sequence[str], options: Any, *, limit: int | None = None
) -> list[Entry[ItemT]]:
    """Every item of every source, in input order. Nothing is read yet.

    A source that cannot be listed (a missing file, say) becomes an entry with a reason, so that it
    shows in the output like any other item that failed.

    Args:
        limit: take the first `limit` items only.

    Raises:
        SeqgenError: of a kind that concerns the whole run (usage, plugin, checkpoint).
    """
    entries: list[Entry[ItemT]] = []
    ids: set[str] = set()
    stems: set[str] = set()

    def add(item_id: str, item: ItemT | None, reason: str = "") -> None:
        unique = _unique(item_id, ids, "#", str)
        stem = _unique(safe_stem(item_id), stems, "-", str.casefold)
        entries.append(Entry(len(entries), unique, stem, item, reason))

    for source in sources:
        before = len(entries)
        try:
            for item in domain.load(source, options):
                if limit is not None and len(entries) >= limit:
                    return entries
                add(item.id, item)
            if len(entries) == before:
                raise InputError(f"{source} holds no items")
        except Exception as error:
            if is_fatal(error):
                raise
            if limit is not None and len(entries) >= limit:
                return entries
            add(source, None, failure_reason(source, error))
    return entries


def plan_batches(
    entries: Sequence[Entry[ItemT]], batch_size: int
) -> list[tuple[Batch[ItemT], ...]]:
    """Windows of batches, see the head of this file.

    A short list is cut into up to eight windows, so that it can still be sharded; a batch is never
    cut, so a list of one batch is one shard's work.
    """
    batches_total = -(-len(entries) // batch_size)
    batches_per_window = min(WINDOW_BATCHES, max(1, batches_total // 8))
    span = batches_per_window * batch_size
    windows: list[tuple[Batch[ItemT], ...]] = []
    index = 0
    for start in range(0, len(entries), span):
        # sorted() is stable: items of equal size keep their order
        window = sorted(entries[start : start + span], key=lambda entry: entry.size)
        batches = []
        for first in range(0, len(window), batch_size):
            batches.append(Batch(index, tuple(window[first : first + batch_size])))
            index += 1
        windows.append(tuple(batches))
    return windows


@dataclass(frozen=True)
class Shard:
    """Part `index` of `count` equal parts of a run, counted from 0."""

    index: int = 0
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """`i/n` with 0 <= i < n.

        Raises:
            UsageError: it is not.
        """
        match = re.fullmatch(r"(\d+)/(\d+)", text.strip())
        if match is None or not int(match[1]) < int(match[2]):
            raise UsageError(
                f"--shard takes i/n with i from 0 to n-1, not {text!r}",
                fix="for three machines: --shard 0/3, --shard 1/3 and --shard 2/3",
            )
        return cls(int(match[1]), int(match[2]))

    def of(self, windows: Sequence[tuple[Batch[ItemT], ...]]) -> list[Batch[ItemT]]:
        """This shard's batches: a contiguous range of whole windows."""
        start = len(windows) * self.index // self.count
        stop = len(windows) * (self.index + 1) // self.count
        return [batch for window in windows[start:stop] for batch in window]

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


def inputs_digest(entries: Sequence[Entry[Any]]) -> str:
    """A hash over ids and sizes: tells another input list, without reading the payloads."""
    digest = hashlib.blake2b(digest_size=16)
    for entry in entries:
        digest.update(f"{entry.id}\0{entry.size!r}\0".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def safe_stem(item_id: str) -> str:
    """A file name that cannot leave its folder, from any id.

    Letters, digits, dot, dash and underscore stay; runs of anything else become one dash. `--` is
    left free for the suffixes that `seqgen.artifacts` adds.
    """
    # a file's name is "clip.wav" or "folder/clip.wav": without its suffix it reads better
    stem = re.sub(r"\.[A-Za-z][A-Za-z0-9]{0,4}$", "", item_id)
    stem = re.sub(r"[^\w.]+", "-", stem.encode("utf-8", "replace").decode()).strip("-.")
    if len(stem.encode()) > 120:
        digest = hashlib.blake2b(item_id.encode("utf-8", "surrogatepass"), digest_size=6)
        head = stem.encode()[:100].decode("utf-8", "ignore").strip("-.")
        stem = f"{head}-{digest.hexdigest()}"
    return stem or "item"


def is_fatal(error: BaseException) -> bool:
    """Whether an error concerns the whole run (usage, plugin, checkpoint) and not one item."""
    return isinstance(error, SeqgenError) and error.exit_code != InputError.exit_code


def failure_reason(item_id: str, error: BaseException) -> str:
    """One line for the row of a failed item; names the item."""
    if isinstance(error, SeqgenError):
        reason = "; ".join(part for part in (error.what, error.why, error.fix) if part)
        if item_id not in error.what:
            reason = f"{item_id}: {reason}"
    else:
        reason = f"{item_id}: {type(error).__name__}: {error}".rstrip(": ")
    return " ".join(reason.split())


def _unique(name: str, taken: set[str], separator: str, key: Any) -> str:
    """`name`, or the first of `name#2`, `name#3`, ... that is free; marks it as taken."""
    candidate, count = name, 1
    while key(candidate) in taken:
        count += 1
        candidate = f"{name}{separator}{count}"
    folded = key(candidate)
    # Lists of millions of items are common: where folding changes nothing, keep one string.
    taken.add(candidate if folded == candidate else folded)
    return candidate
