"""Timing side by side: calls take turns, medians count, and every result has one form.

    {"benchmark": "nar_vs_ar", "machine": {...}, "rows": [{"case": "...", "..._ms": 1.2, ...}]}

`seqgen bench` and the scripts in `benchmarks/` share this module. Processor time is what a machine
that does other things besides can measure; a device's work shows in wall time alone.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Timing:
    """Medians over the repeats, in milliseconds: processor time of the process, and wall time."""

    cpu_ms: float
    wall_ms: float


def interleaved(
    calls: Mapping[str, Callable[[], object]], *, repeats: int, warm_up: int = 1
) -> dict[str, Timing]:
    """Time calls that take turns, each round begun by another of them.

    Whatever else the machine does is so spread over all of them. A call that uses a device must
    wait for it before it returns.

    Args:
        repeats: measured rounds.
        warm_up: rounds before that, unmeasured (allocations, lazy imports).
    """
    names = list(calls)
    cpu: dict[str, list[float]] = {name: [] for name in names}
    wall: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(warm_up + repeats):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            started, used = time.perf_counter(), time.process_time()
            calls[name]()
            if turn >= warm_up:
                cpu[name].append(time.process_time() - used)
                wall[name].append(time.perf_counter() - started)
    return {
        name: Timing(1e3 * statistics.median(cpu[name]), 1e3 * statistics.median(wall[name]))
        for name in names
    }


def result(benchmark: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A benchmark's result in the common form; figures to four digits."""
    return {
        "benchmark": benchmark,
        "machine": machine(),
        "rows": [{name: _rounded(value) for name, value in row.items()} for row in rows],
    }


def machine() -> dict[str, Any]:
    """What the figures depend on besides the code."""
    import torch

    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def print_result(outcome: Mapping[str, Any]) -> None:
    """The table, for a person."""
    about = outcome["machine"]
    threads = f"{about['threads']} thread{'' if about['threads'] == 1 else 's'}"
    print(f"{outcome['benchmark']}: {about['processor']}, {threads}, torch {about['torch']}")
    rows = outcome["rows"]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = [columns, *([_cell(row.get(column)) for column in columns] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    for line in lines:
        first, *rest = (
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        print("  ".join([first, *rest]))


def write_result(outcome: Mapping[str, Any], path: Path) -> None:
    """The result as a JSON file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(outcome, indent=1) + "\n")


def _rounded(value: Any) -> Any:
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
