"""Every item's own random seed, so that results do not depend on batch, order or shard."""

from __future__ import annotations

import hashlib


def item_seed(seed: int, item_id: str) -> int:
    """A 63-bit seed for one item, from the run's seed and the item's id.

    A keyed hash rather than `seed + index`: neighbouring seeds and ids give unrelated streams, and
    the value depends neither on the item's place in a list nor on Python's salted `hash`.
    """
    text = f"{seed}\0{item_id}".encode("utf-8", "surrogatepass")
    # 63 bits: torch.Generator.manual_seed and int64 tensors take it as it is.
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1
