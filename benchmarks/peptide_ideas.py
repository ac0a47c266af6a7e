"""What the additions to the published peptide models bring: short trainings with one left out.

    python benchmarks/peptide_ideas.py --data FOLDER --simulated ions.npz --runs RUNS [--steps 300]

Each row trains the preset `small` for the first steps of its schedule, with one option changed, and
gives the losses (nats a residue) on held-out simulated and on the real annotated spectra: `ar`
teacher-forced, `nar` CTC. One seed, a few minutes: it shows what learns faster, not what ends
better. FOLDER holds the peptides and real_valid.mgf; RUNS keeps the runs, finished ones are reused.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from seqgen.benchmark import print_result, result, write_result

CASES = {
    "all": (),
    "without complement m/z": ("complement=false",),
    "without running masses": ("running_masses=false",),
    "without candidate-ion evidence": ("ion_evidence=false",),
    "without the peaks' ladder": ("ladder=false",),
    "without rotation by m/z": ("rotary=false",),
    "without CTC's warm start": ("aligned=0",),
    "with noise from real spectra": ("real_noise={noise}",),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--simulated", type=Path, required=True)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--noise", type=Path, help="mzML or MGF for the last case")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--only", help="case to run, by a part of its name")
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    rows = []
    for case, settings in CASES.items():
        if chosen.only and chosen.only not in case:
            continue
        if any("{noise}" in s for s in settings) and chosen.noise is None:
            continue
        filled = [s.format(noise=chosen.noise) for s in settings]
        found = train(chosen, case, filled)
        rows.append(
            {
                "case": case,
                "steps": found["step"],
                **{name: found[name] for name in found if name.endswith("_loss")},
            }
        )
    outcome = result("peptide_ideas", rows)
    print_result(outcome)
    if chosen.json:
        write_result(outcome, chosen.json)


def train(chosen: argparse.Namespace, case: str, settings: list[str]) -> dict[str, Any]:
    """The last validation of a short training."""
    folder = chosen.runs / case.replace(" ", "-").replace("/", "-").replace("'", "")
    log = folder / "log.jsonl"
    if log.exists():
        last = json.loads(log.read_text().splitlines()[-1])
        if last.get("validation") and last["step"] == chosen.steps:
            return dict(last)
    command = [sys.executable, "-m", "seqgen", "train", "--plugin", "peptides", "--preset", "small"]
    command += ["--data", str(chosen.data), "-o", str(folder)]
    every = f"simulated={chosen.simulated}", f"stop={chosen.steps}", *settings
    command += [part for setting in every for part in ("--set", setting)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return dict(json.loads(log.read_text().splitlines()[-1]))


if __name__ == "__main__":
    main()
