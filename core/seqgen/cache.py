"""The cache: keys and values of slots whose representation is final, in preallocated tensors.

Entries are appended in decoding sequence, so whatever the order (raster, diagonals, scales) the
entries seen are the first n, and no concatenation or mask is needed to look at them. A pass writes
its rows behind the settled entries and may settle only some of them: the rest is scratch that the
next pass overwrites. Rows of a batch may hold different numbers of entries.

Shapes: L layers, B rows, G key/value heads, N entries, R slots fed in a pass, d head width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Snapshot:
    """What `Cache.restore` needs: entries before the mark never change, so only marks are kept."""

    uniform: int | None
    bound: int
    length_B: Tensor


@dataclass(frozen=True)
class Written:
    """The side of a cache that a backbone sees in a compiled pass (`seqgen.compiled`).

    Attributes:
        keys, values: a layer each, [B, G, capacity, d].
        place_R: entries that this pass writes.
        seen: how many entries it looks at.
    """

    keys: Sequence[Tensor]
    values: Sequence[Tensor]
    place_R: Tensor
    seen: int

    def write(self, layer: int, key_BGRd: Tensor, value_BGRd: Tensor) -> tuple[Tensor, Tensor]:
        """As `Cache.write`; an index write is what the compiler can do in place."""
        keys, values = self.keys[layer], self.values[layer]
        keys[:, :, self.place_R] = key_BGRd
        values[:, :, self.place_R] = value_BGRd
        return keys[:, :, : self.seen], values[:, :, : self.seen]


class Cache:
    """Preallocated keys and values.

    Attributes:
        slots_BN, used_BN: canvas slot of every entry, and whether it holds one. Where all rows
            agree they are written when they are asked for, which a decode without masks never does.
        length_B: int64, settled entries a row.
        uniform: the same as a host number when all rows agree, else None.
        bound: a host number that no row's length exceeds.
        marked: whether `compiled` has marked what changes from decode to decode.
    """

    def __init__(
        self,
        *,
        layers: int,
        batch: int,
        capacity: int,
        heads: int,
        head_width: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        shape = (batch, heads, capacity, head_width)
        # Zeros, not empty: a masked entry's weight is 0, and 0 times a stray NaN would be NaN.
        self.keys = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(layers)]
        self.values = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(layers)]
        self._slots_BN = torch.zeros(batch, capacity, dtype=torch.int64, device=device)
        self._used_BN = torch.zeros(batch, capacity, dtype=torch.bool, device=device)
        self._unwritten: list[tuple[int, Tensor]] = []
        self._length_B: Tensor | None = None
        self.uniform: int | None = 0
        self.bound = 0
        self.capacity = capacity
        self.marked = False
        self._index_BR: Tensor | None = None
        self._rows = 0

    @property
    def slots_BN(self) -> Tensor:
        self._write_slots()
        return self._slots_BN

    @property
    def used_BN(self) -> Tensor:
        self._write_slots()
        return self._used_BN

    @property
    def length_B(self) -> Tensor:
        if self._length_B is None:
            assert self.uniform is not None
            batch, device = self._slots_BN.shape[0], self._slots_BN.device
            self._length_B = torch.full((batch,), self.uniform, dtype=torch.int64, device=device)
        return self._length_B

    def begin(self, slots_BR: Tensor, valid_BR: Tensor | None) -> None:
        """Announce the rows of a pass; their entries go behind the settled ones.

        Args:
            slots_BR: canvas slots, [B, R] or [1, R].
            valid_BR: rows in use, or None for all.
        """
        rows = slots_BR.shape[1]
        if self.bound + rows > self.capacity:
            raise ValueError(
                f"cache of {self.capacity} entries is full: {self.bound} settled, {rows} more"
            )
        self._rows = rows
        if self.uniform is not None:
            self._index_BR = None
            if valid_BR is None:
                self._note(self.uniform, slots_BR)
                return
            span = slice(self.uniform, self.uniform + rows)
            self.slots_BN[:, span] = slots_BR
            self.used_BN[:, span] = valid_BR
            return
        offset = torch.arange(rows, device=slots_BR.device)
        self._index_BR = self.length_B[:, None] + offset
        batch = self._slots_BN.shape[0]
        self.slots_BN.scatter_(1, self._index_BR, slots_BR.expand(batch, -1))
        used = slots_BR.new_ones(batch, rows, dtype=torch.bool) if valid_BR is None else valid_BR
        self.used_BN.scatter_(1, self._index_BR, used.expand(batch, -1))

    @property
    def visible(self) -> int:
        """Entries that a pass looks at: settled ones and its own rows."""
        return self.bound + self._rows

    def write(self, layer: int, key_BGRd: Tensor, value_BGRd: Tensor) -> tuple[Tensor, Tensor]:
        """Write one layer's rows; returns views of all visible entries, [B, G, visible, d]."""
        keys, values = self.keys[layer], self.values[layer]
        if self._index_BR is None:
            assert self.uniform is not None
            keys.narrow(2, self.uniform, self._rows).copy_(key_BGRd)
            values.narrow(2, self.uniform, self._rows).copy_(value_BGRd)
        else:
            index = self._index_BR[:, None, :, None].expand_as(key_BGRd)
            keys.scatter_(2, index, key_BGRd)
            values.scatter_(2, index, value_BGRd)
        end = self.visible
        return keys.narrow(2, 0, end), values.narrow(2, 0, end)

    def valid(self) -> Tensor | None:
        """Which visible entries a row may look at, bool [B, visible]; None if all."""
        used = self.used_BN[:, : self.visible]
        if self.uniform is not None:
            return used
        inside = torch.arange(self.visible, device=used.device)
        return used & (inside < self.length_B[:, None] + self._rows)

    def settle(self, count: int, per_row_B: Tensor | None = None) -> None:
        """Keep the first entries of the pass: `count` in every row, or `per_row_B` <= count."""
        if per_row_B is None and self.uniform is not None:
            self.uniform += count
            self.bound = self.uniform
            self._length_B = None
            return
        self._length_B = self.length_B + (count if per_row_B is None else per_row_B)
        self.uniform = None
        self.bound += count

    def truncate(self, length: int | Tensor, *, bound: int | None = None) -> None:
        """Forget entries beyond `length` (rollback). An int is for all rows; a tensor is [B].

        `bound` is a host number that no `length` of a tensor exceeds, where the caller knows one:
        passes then look at no more entries than that.
        """
        if isinstance(length, int):
            if self.uniform is not None:
                self.uniform = min(self.uniform, length)
                self._length_B = None
            else:
                self._length_B = self.length_B.clamp(max=length)
            self.bound = min(self.bound, length)
        else:
            self._length_B = torch.minimum(self.length_B, length)
            self.uniform = None
            if bound is not None:
                self.bound = min(self.bound, bound)

    def reorder(self, index_B: Tensor) -> None:
        """Row b takes over the entries of row `index_B[b]` (beams)."""
        self.keep_rows(index_B)

    def keep_rows(self, index_B: Tensor) -> None:
        """Go on with these rows, in this sequence; no more of them than there are.

        Only entries in use are moved, and the memory of the others is not given back.
        """
        rows, end = index_B.shape[0], self.bound
        length_B = self.length_B
        if rows > length_B.shape[0]:
            raise ValueError(f"cannot keep {rows} of {length_B.shape[0]} rows")
        for buffers in (self.keys, self.values):
            for layer, buffer in enumerate(buffers):
                buffer[:rows, :, :end] = buffer[:, :, :end].index_select(0, index_B)
                buffers[layer] = buffer[:rows]
        self.slots_BN[:rows, :end] = self.slots_BN[:, :end].index_select(0, index_B)
        self.used_BN[:rows, :end] = self.used_BN[:, :end].index_select(0, index_B)
        self._slots_BN, self._used_BN = self.slots_BN[:rows], self.used_BN[:rows]
        self._length_B = length_B.index_select(0, index_B)

    def keep_entries(self, index_BE: Tensor, *, capacity: int | None = None) -> None:
        """Go on with these entries of every row, as many in each, in this sequence.

        Args:
            index_BE: int64, settled entries; rows that need fewer may name any.
            capacity: room for entries from now on; as before if None.
        """
        batch, kept = index_BE.shape
        if capacity is not None and capacity < kept:
            raise ValueError(f"{kept} entries do not fit a capacity of {capacity}")
        heads, width = self.keys[0].shape[1], self.keys[0].shape[3]
        wide = index_BE[:, None, :, None].expand(batch, heads, kept, width)
        grown = None if capacity in (None, self.capacity) else capacity
        for buffers in (self.keys, self.values):
            for layer, buffer in enumerate(buffers):
                chosen = buffer.gather(2, wide)
                if grown is not None:
                    buffer = buffer.new_zeros(batch, heads, grown, width)
                    buffers[layer] = buffer
                buffer[:, :, :kept] = chosen
        slots, used = self.slots_BN.gather(1, index_BE), self.used_BN.gather(1, index_BE)
        if grown is not None:
            self._slots_BN = slots.new_zeros(batch, grown)
            self._used_BN = used.new_zeros(batch, grown)
            self.capacity = grown
        self._slots_BN[:, :kept], self._used_BN[:, :kept] = slots, used
        self.uniform = self.bound = kept
        self._length_B = None

    def snapshot(self) -> Snapshot:
        return Snapshot(self.uniform, self.bound, self.length_B.clone())

    def restore(self, snapshot: Snapshot) -> None:
        """Go back to a snapshot taken earlier on the same rows (no reorder in between)."""
        self.uniform, self.bound = snapshot.uniform, snapshot.bound
        self._length_B = snapshot.length_B.clone()

    def _note(self, start: int, slots_BR: Tensor) -> None:
        """Slots of entries from `start` on, which supersede what was noted there."""
        notes, end = self._unwritten, start + slots_BR.shape[1]
        while notes and notes[-1][0] >= start and notes[-1][0] + notes[-1][1].shape[1] <= end:
            notes.pop()
        notes.append((start, slots_BR))

    def _write_slots(self) -> None:
        for start, slots_BR in self._unwritten:
            span = slice(start, start + slots_BR.shape[1])
            self._slots_BN[:, span] = slots_BR
            self._used_BN[:, span] = True
        self._unwritten.clear()
