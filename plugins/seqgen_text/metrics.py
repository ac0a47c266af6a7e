"""Metrics of generated texts against references."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from seqgen.errors import InputError
from seqgen_text.prompts import Prompt


def score(rows: Sequence[Mapping[str, Any]], items: Sequence[Prompt]) -> dict[str, float]:
    """The metrics of finished rows; failed ones count as wrong and have no likelihood.

    - `accuracy`: share of items whose text is the reference, spaces at the ends aside.
    - `perplexity`, of a token of the references, and `bits_per_byte`: teacher forced
      (`seqgen_text.likelihood`), so they judge the model in the decoder's order, not what was
      generated. Perplexities compare only between models of one tokenizer, bits per byte always.
    - `tokens_per_forward`: generated tokens a forward pass, over all rows.

    Raises:
        InputError: no item has a reference.
    """
    pairs = [(row, item) for row, item in zip(rows, items, strict=True) if item.reference]
    if not pairs:
        raise InputError(
            "no item has a reference",
            why="prompts alone cannot be scored",
            fix='lines {"prompt": ..., "reference": ...} in a .jsonl file, or a text file with '
            "--set window=256",
        )
    right = [
        row["status"] == "ok" and row["text"].strip() == (item.reference or "").strip()
        for row, item in pairs
    ]
    metrics = {"accuracy": sum(right) / len(right)}
    done = [row for row, _ in pairs if row["status"] == "ok"]
    scored = [row for row in done if "reference_nats" in row]
    if scored:
        nats = sum(row["reference_nats"] for row in scored)
        tokens = sum(row["reference_tokens"] for row in scored)
        size = sum(row["reference_bytes"] for row in scored)
        # exp of more than 700 is no float; such a model knows nothing of the text.
        metrics["perplexity"] = round(math.exp(min(nats / tokens, 700.0)), 4)
        metrics["bits_per_byte"] = round(nats / math.log(2) / size, 4)
    passes = sum(row["forwards"] for row in done)
    if passes:
        decided = sum(row["tokens_per_forward"] * row["forwards"] for row in done)
        metrics["tokens_per_forward"] = round(decided / passes, 4)
    return metrics
