"""Generated parts of the speed page: figures from `benchmarks/results/`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parents[1] / "benchmarks" / "results"

Table = Callable[[Sequence[str], Sequence[Sequence[str]]], str]

WAYS = {
    "transformers": "`transformers` generate",
    "ar": "`Autoregressive`",
    "ar_compiled": "compiled",
    "ar_bf16": "bfloat16 weights",
    "ar_int8": "8-bit weights",
    "block_4": "`BlockDiffusion`, K = 4, a token a pass",
    "block_4_compiled": "compiled",
    "block_8": "K = 8",
    "block_8_compiled": "compiled",
    "block_16": "K = 16",
    "block_16_compiled": "compiled",
    "sure_4": "K = 4, a block a pass",
    "sure_8": "K = 8, a block a pass",
    "sure_16": "K = 16, a block a pass",
    "speculative": "`Speculative`, n-gram drafts",
    "sdar_4": "SDAR's own loop, K = 4",
    "ours_as_sdar_4": "ours with its settings",
    "ours_as_sdar_4_compiled": "compiled",
    "sdar_8": "SDAR's own loop, K = 8",
    "ours_as_sdar_8": "ours with its settings",
    "ours_as_sdar_8_compiled": "compiled",
    "sdar_16": "SDAR's own loop, K = 16",
    "ours_as_sdar_16": "ours with its settings",
    "ours_as_sdar_16_compiled": "compiled",
}
"""Column of `decode.json` -> what it is."""


def decode(table: Table) -> str:
    """Milliseconds a token, a line a way of decoding and a column a case."""
    outcome = _result("decode")
    rows = outcome["rows"]
    lines = []
    for way, name in WAYS.items():
        if any(f"{way}_cpu_ms" in row for row in rows):
            lines.append([name, *(_cell(row, way) for row in rows)])
    about = outcome["machine"]
    peer = f", transformers {about['transformers']}" if "transformers" in about else ""
    head = f"\n{about['processor']}, one thread, torch {about['torch']}{peer}.\n"
    return head + table(["ms a token (gain)", *(row["case"] for row in rows)], lines)


def growth(table: Table) -> str:
    """Milliseconds a token by the length of the context."""
    rows = _result("decode_growth")["rows"]
    lengths = sorted({row["context"] for row in rows})
    lines = []
    for model in dict.fromkeys(row["model"] for row in rows):
        own = {row["context"]: row["token_ms"] for row in rows if row["model"] == model}
        lines.append([model, *(f"{own[length]:.3g}" for length in lengths)])
    return "\n" + table(["ms a token behind", *map(str, lengths)], lines)


def _cell(row: dict[str, Any], way: str) -> str:
    time, gain = row.get(f"{way}_cpu_ms"), row.get(f"{way}_gain")
    if time is None:
        return "-"
    return f"{time:.3g}" if gain is None else f"{time:.3g} ({gain:.2f}x)"


def _result(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(RESULTS, f"{name}.json").read_text(encoding="utf-8"))
    return found
