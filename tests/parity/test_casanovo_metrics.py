"""Our metrics and Casanovo's (`casanovo.denovo.evaluate`) on answers spoilt in every way.

`test_golden` compares with numbers in the repository, the other (`make peers`) with Casanovo
itself on the real annotated spectra. `python tests/parity/test_casanovo_metrics.py` prints the
golden file's pairs, for casanovo_metrics_reference.py.
"""

from __future__ import annotations

import json
import os
import random
import secrets
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from seqgen_peptides.metrics import matches, score
from seqgen_peptides.residues import Residues

HERE = Path(__file__).parent
GOLDEN = HERE / "golden" / "casanovo_metrics.json"
PYTHON = Path(
    os.environ.get("CASANOVO_PYTHON", HERE.parents[1] / ".peers" / "casanovo" / "bin" / "python")
)
RESIDUES = Residues()
LIKE = {  # other residues of the same mass, or nearly so
    "K": ["Q"], "Q": ["K"], "N": ["G", "G"], "D": ["N[Deamidated]"], "F": ["M[Oxidation]"],
    "E": ["Q[Deamidated]"], "W": ["G", "E"], "R": ["G", "V"],
}  # fmt: skip

Pair = tuple[list[str], list[str] | None]


@dataclass(frozen=True)
class _Item:
    id: str
    peptide: str


def test_golden() -> None:
    _check(json.loads(GOLDEN.read_text()))


@pytest.mark.peer
def test_real_peptides(shared_data: Path) -> None:
    if not PYTHON.exists():
        pytest.skip(f"no casanovo at {PYTHON}: run tests/parity/install_casanovo.sh")
    text = (shared_data / "peptides" / "real_valid.mgf").read_text()
    peptides = [line[4:] for line in text.splitlines() if line.startswith("SEQ=")]
    seed = secrets.randbelow(10_000)
    print(f"seed {seed}")  # shown when the test fails
    rng = random.Random(seed)
    truths = [RESIDUES.split(peptide) for peptide in peptides for _ in range(10)]
    pairs = json.dumps(_pairs(truths, rng))
    done = subprocess.run(
        [PYTHON, HERE / "casanovo_metrics_reference.py"],
        input=pairs, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    said = json.loads(done.stdout)
    assert 0.1 < said["peptide_precision"] < 0.9
    _check(said)


def _check(said: dict[str, Any]) -> None:
    """Mark by mark, and the three figures of all pairs."""
    masses = said["masses"]
    for (truth, answer), marks, hit in zip(said["pairs"], said["marks"], said["hits"], strict=True):
        found = matches([masses[t] for t in truth], [masses[t] for t in answer or []])
        assert "".join(str(int(mark)) for mark in found) == marks, (truth, answer)
        assert all(found) == hit
    pairs = [("".join(t), None if a is None else "".join(a)) for t, a in said["pairs"]]
    rows = [
        {"id": str(place), "status": "failed"}
        if answer is None
        else {"id": str(place), "status": "ok", "peptide": answer, "score": 0.5}
        for place, (_, answer) in enumerate(pairs)
    ]
    ours = score(rows, [_Item(str(place), truth) for place, (truth, _) in enumerate(pairs)])
    for name in ("peptide_precision", "aa_precision", "aa_recall"):
        assert ours[name] == pytest.approx(said[name], abs=1e-7), name


def _pairs(truths: list[list[str]], rng: random.Random) -> dict[str, Any]:
    return {
        "masses": dict(RESIDUES.masses),
        "pairs": [(truth, _spoilt(truth, rng)) for truth in truths],
    }


def _spoilt(truth: list[str], rng: random.Random) -> list[str] | None:
    """An answer: right, missing, or changed in a few places."""
    if rng.random() < 0.05:
        return None
    inner = [token for token in RESIDUES.tokens if not token.endswith("-")]
    ends = [token for token in RESIDUES.tokens if token.endswith("-")]
    end, answer = [t for t in truth if t[-1] == "-"], [t for t in truth if t[-1] != "-"]
    for _ in range(rng.choice([0, 1, 1, 2, 4])):
        place = rng.randrange(len(answer))
        change = rng.randrange(7)
        if change == 0:
            answer[place] = rng.choice(inner)
        elif change == 1:
            answer.insert(place, rng.choice(inner))
        elif change == 2 and len(answer) > 2:
            del answer[place]
        elif change == 3:
            answer[place : place + 3] = reversed(answer[place : place + 3])
        elif change == 4:
            end = [] if end else [rng.choice(ends)]
        elif change == 5:
            answer[place:] = [rng.choice(inner) for _ in answer[place:]]
        else:
            alike = [i for i, token in enumerate(answer) if token in LIKE] or [place]
            place = rng.choice(alike)
            answer[place : place + 1] = LIKE.get(answer[place], [answer[place]])
    return end + answer


def _golden_pairs() -> dict[str, Any]:
    rng = random.Random(0)
    inner = [token for token in RESIDUES.tokens if not token.endswith("-")]
    truths = []
    for _ in range(120):
        end = ["[Acetyl]-"] if rng.random() < 0.2 else []
        truths.append([*end, *(rng.choice(inner) for _ in range(rng.randrange(6, 18)))])
    return _pairs(truths, rng)


if __name__ == "__main__":
    print(json.dumps(_golden_pairs()))
