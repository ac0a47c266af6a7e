"""How many CPU threads a command uses where `--threads` does not say."""

from __future__ import annotations

import os
from pathlib import Path

HELP = "CPU threads.  [default: half of the cores]"


def use_threads(threads: int | None) -> int:
    """Tell torch how many threads to use; returns the number. Imports torch."""
    import torch

    count = default_threads() if threads is None else threads
    torch.set_num_threads(count)
    return count


def default_threads() -> int:
    """Half of the cores this process may use, at least one; `$OMP_NUM_THREADS` wins.

    The threads of one operation wait for each other at its end. Where another program holds one of
    the cores that wait takes a whole time slice, and a small model, which has hundreds of short
    operations a second, becomes up to a hundred times slower than with one thread. Half of the
    logical cores are also the physical ones where two share one.
    """
    named = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    if named.isdigit() and int(named) > 0:
        return int(named)
    return max(1, usable_cores() // 2)


def usable_cores(quota_file: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Cores that this process may run on: its affinity, bounded by a container's quota."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    try:
        quota, period = quota_file.read_text().split()
        return max(1, min(cores, int(quota) // int(period)))
    except (OSError, ValueError):  # no Linux, no container, or "max": no quota
        return cores
