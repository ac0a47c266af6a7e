"""Runs the benchmarks one after another: a JSON file each, and one table of all of them.

    python benchmarks/run_all.py [NAME...]      (`make bench`)

Results go to benchmarks/results/NAME.json and benchmarks/results/README.md. A benchmark whose peer
is not installed is skipped with the reason, and its last result stays.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
RESULTS = HERE / "results"
CASANOVO = ROOT / ".peers" / "casanovo" / "bin" / "python"
NEURALPROPHET = ROOT / ".peers" / "neuralprophet" / "bin" / "python"
FUNASR = ROOT / ".peers" / "funasr" / "bin" / "python"
TRANSFORMERS = ROOT / ".peers" / "transformers" / "bin" / "python"

SCRIPTS = {
    "nar_vs_ar": Path(sys.executable),
    # With the peers' environment there is a column for the package transformers.
    "loop_overhead": FUNASR if FUNASR.exists() else Path(sys.executable),
    # Likewise; and SDAR_SRC says where the published loop of SDAR lies.
    "decode": TRANSFORMERS if TRANSFORMERS.exists() else Path(sys.executable),
    "decode_growth": Path(sys.executable),
    "funasr_speed": FUNASR,
    "speech_wer": Path(sys.executable),
    "peptides_valid": Path(sys.executable),
    "casanovo_speed": CASANOVO,
    # With statsmodels in an environment of its own there are columns for its AutoReg.
    "arnet_exact": Path(sys.executable),
    "arnet_sparse": Path(sys.executable),
    "etth1": Path(sys.executable),
    "ts_coverage": Path(sys.executable),
    "neuralprophet_speed": NEURALPROPHET,
    # Skipped unless VAR_SRC, LLAMAGEN_SRC and NAR_SRC say where the published code lies.
    "var_speed": Path(sys.executable),
    "llamagen_speed": Path(sys.executable),
    "nar_speed": Path(sys.executable),
}
"""Benchmark -> the interpreter that runs it."""

MORE = {
    "decode": ("--weights",),
    "decode_growth": ("--figure", ROOT / "docs" / "figures" / "decode_growth.png"),
    "peptides_valid": ("--figure", ROOT / "docs" / "figures" / "peptides_valid.png"),
}
"""Benchmark -> further arguments."""


def main() -> None:
    names = sys.argv[1:] or list(SCRIPTS)
    if unknown := [name for name in names if name not in SCRIPTS]:
        raise SystemExit(f"unknown benchmark {unknown[0]!r}; known: {', '.join(SCRIPTS)}")
    RESULTS.mkdir(exist_ok=True)
    failed = []
    for name in names:
        python = SCRIPTS[name]
        if not python.exists():
            print(f"{name}: skipped, its peer is not installed (make peers)", flush=True)
            continue
        paths = os.pathsep.join(str(ROOT / part) for part in ("core", "cli", "plugins"))
        done = subprocess.run(
            [python, HERE / f"{name}.py", "--json", RESULTS / f"{name}.json", *MORE.get(name, ())],
            env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        )
        if done.returncode:
            failed.append(name)
    write_tables()
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


def write_tables() -> None:
    """benchmarks/results/README.md from the JSON files that are there."""
    parts = ["# Results\n\nWritten by `make bench`; ../README.md says how to read them.\n"]
    for path in sorted(RESULTS.glob("*.json")):
        parts.append(table(json.loads(path.read_text())))
    (RESULTS / "README.md").write_text("\n".join(parts))


def table(outcome: Mapping[str, Any]) -> str:
    """One benchmark as a Markdown table."""
    about, rows = outcome["machine"], outcome["rows"]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)]]
    lines += [[str(row.get(column, "-")) for column in columns] for row in rows]
    where = ", ".join(f"{name} {value}" for name, value in about.items() if name != "processor")
    head = f"## {outcome['benchmark']}\n\n{about['processor']}; {where}\n\n"
    return head + "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    main()
