"""The cache against a plain list of entries a row."""

from __future__ import annotations

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from seqgen.cache import Cache

BATCH, HEADS, WIDTH, CAPACITY = 3, 2, 4, 24


class CacheMachine(RuleBasedStateMachine):
    """Any sequence of passes, rollbacks, reorders and snapshots, beside lists that do the same."""

    @initialize()
    def empty(self) -> None:
        self.cache = Cache(layers=2, batch=BATCH, capacity=CAPACITY, heads=HEADS, head_width=WIDTH)
        self.rows: list[list[float]] = [[] for _ in range(BATCH)]
        self.count = 0
        self.kept: tuple[object, list[list[float]]] | None = None

    @rule(fed=st.integers(1, 3), data=st.data())
    def feed(self, fed: int, data: st.DataObject) -> None:
        """A pass that settles some of what it fed, maybe another number in each row."""
        if self.cache.bound + fed > CAPACITY:
            with pytest.raises(ValueError, match=r"cache of 24 entries is full"):
                self.cache.begin(torch.zeros(1, fed, dtype=torch.int64), None)
            return
        marks = torch.arange(self.count, self.count + BATCH * fed).view(BATCH, fed)
        self.count += BATCH * fed
        self.cache.begin(marks, None)
        for layer in range(2):
            entry = (marks + 1000 * layer).float()[:, None, :, None]
            entry = entry.expand(BATCH, HEADS, fed, WIDTH)
            keys, values = self.cache.write(layer, entry, -entry)
            assert keys.shape == values.shape == (BATCH, HEADS, self.cache.visible, WIDTH)
            self._check(keys, layer, marks)
            self._check(-values, layer, marks)
        ragged = data.draw(st.booleans())
        settled = data.draw(
            st.lists(st.integers(0, fed), min_size=BATCH, max_size=BATCH)
            if ragged
            else st.integers(0, fed).map(lambda n: [n] * BATCH)
        )
        self.cache.settle(max(settled), torch.tensor(settled) if ragged else None)
        for row, count in enumerate(settled):
            self.rows[row] += marks[row, :count].tolist()

    def _check(self, keys: torch.Tensor, layer: int, marks: torch.Tensor) -> None:
        """A row sees what it has settled, then what was just fed, and nothing else."""
        valid = self.cache.valid()
        for row in range(BATCH):
            seen = keys[row, 0, :, 0]
            slots = self.cache.slots_BN[row, : self.cache.visible]
            if valid is not None:
                seen, slots = seen[valid[row]], slots[valid[row]]
            want = [*self.rows[row], *marks[row].tolist()]
            assert (seen - 1000 * layer).tolist() == want
            assert slots.tolist() == want

    @rule(length=st.integers(0, CAPACITY))
    def truncate_all(self, length: int) -> None:
        self.cache.truncate(length)
        self.rows = [row[:length] for row in self.rows]
        self.kept = None

    @rule(lengths=st.lists(st.integers(0, CAPACITY), min_size=BATCH, max_size=BATCH))
    def truncate_rows(self, lengths: list[int]) -> None:
        self.cache.truncate(torch.tensor(lengths))
        self.rows = [row[:n] for row, n in zip(self.rows, lengths, strict=True)]
        self.kept = None

    @rule(order=st.lists(st.integers(0, BATCH - 1), min_size=BATCH, max_size=BATCH))
    def reorder(self, order: list[int]) -> None:
        self.cache.reorder(torch.tensor(order))
        self.rows = [list(self.rows[row]) for row in order]
        self.kept = None

    @rule()
    def snapshot(self) -> None:
        self.kept = (self.cache.snapshot(), [list(row) for row in self.rows])

    @rule()
    def restore(self) -> None:
        if self.kept is not None:
            mark, rows = self.kept
            self.cache.restore(mark)  # type: ignore[arg-type]
            self.rows = [list(row) for row in rows]

    @invariant()
    def lengths_agree(self) -> None:
        lengths = [len(row) for row in self.rows]
        assert self.cache.length_B.tolist() == lengths
        assert max(lengths) <= self.cache.bound
        assert self.cache.uniform is None or {self.cache.uniform} == set(lengths)


TestCache = CacheMachine.TestCase
TestCache.settings = settings(max_examples=40, stateful_step_count=15, deadline=None)


def test_unused_rows_of_a_pass_are_not_seen() -> None:
    """Ragged prompts: row 1 feeds two of three slots."""
    cache = Cache(layers=1, batch=2, capacity=8, heads=1, head_width=2)
    used = torch.tensor([[True, True, True], [True, True, False]])
    cache.begin(torch.arange(3)[None], used)
    cache.write(0, torch.ones(2, 1, 3, 2), torch.ones(2, 1, 3, 2))
    valid = cache.valid()
    assert valid is not None
    assert torch.equal(valid, used)
    cache.settle(3, used.sum(1))
    assert cache.length_B.tolist() == [3, 2]
    cache.begin(torch.tensor([[3], [2]]), None)
    valid = cache.valid()
    assert valid is not None
    assert valid.sum(1).tolist() == [4, 3]
    assert [cache.slots_BN[row][: cache.visible][valid[row]].tolist() for row in (0, 1)] == [
        [0, 1, 2, 3],
        [0, 1, 2],
    ]
