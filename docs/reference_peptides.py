"""Generated parts of the peptides page: formats, bad input, and figures from result files.

Every function gets the one that makes a table: (head, rows) -> Markdown.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
FIGURE = Path("figures", "peptides_valid.png")

Table = Callable[[Sequence[str], Sequence[Sequence[str]]], str]

ANSWER: Mapping[str, Any] = {
    "peptide": "SAM[Oxidation]PLER",
    "score": 0.8125,
    "residue_scores": [0.98, 0.97, 0.95, 0.99, 0.99, 0.96, 0.99],
}
"""Written by hand, to show the formats; no model said this."""


def formats(table: Table) -> str:
    """Two rows in each format: an answer, and a spectrum without one."""
    from seqgen_peptides.formats import write_rows

    rows = list(_sample_rows())
    settings = {"model": "my-model", "decoder": "beam"}
    text = {"jsonl": "".join(json.dumps(row) + "\n" for row in rows)}
    with tempfile.TemporaryDirectory() as folder:
        for name in ("tsv", "mztab"):
            file = Path(folder, name)
            write_rows(rows, file, name, settings=settings)
            text[name] = file.read_text(encoding="utf-8")
    lines = text["mztab"].splitlines(keepends=True)
    # One modification of the head stands for all.
    text["mztab"] = "".join(
        line for line in lines if "_mod[" not in line or "\tvariable_mod[1]" in line
    )
    return (
        "".join(f"\n`{name}`:\n\n```text\n{shown.rstrip()}\n```\n" for name, shown in text.items())
        + "\n"
    )


def _sample_rows() -> Iterator[dict[str, Any]]:
    from seqgen_peptides.masses import to_mz
    from seqgen_peptides.residues import Residues

    residues = Residues()
    mass = residues.mass(residues.encode(str(ANSWER["peptide"])))
    precursor_mz = round(to_mz(mass, 2), 4)
    error = (to_mz(mass, 2) - precursor_mz) / precursor_mz * 1e6
    common = {"decoder": "beam", "model": "my-model", "seconds": None}
    yield {
        "id": "run1.mgf:index=0",
        "status": "ok",
        **common,
        **ANSWER,
        "precursor_error_ppm": round(error, 3),
        "precursor_mz": precursor_mz,
        "charge": 2,
        "title": "scan 1201",
        "file": "/data/run1.mgf",
        "spectra_ref": "index=0",
    }
    yield {
        "id": "run1.mgf:index=1",
        "status": "failed",
        "reason": "run1.mgf:index=1: the spectrum has no peaks",
        **common,
        "precursor_mz": 520.2617,
        "charge": 2,
        "title": "scan 1207",
        "file": "/data/run1.mgf",
        "spectra_ref": "index=1",
    }


SPECTRUM = "BEGIN IONS\nTITLE=t\nPEPMASS={mz}\nCHARGE={charge}\n{peaks}END IONS\n"
PEAKS = "".join(f"{100.5 + 20 * i} {1 + i}\n" for i in range(30))

BAD: Mapping[str, str] = {
    "an empty file": "",
    "another kind of file": "a,b\n1,2\n",
    "no precursor": SPECTRUM.format(mz="", charge="2+", peaks=PEAKS).replace("PEPMASS=\n", ""),
    "charge 0": SPECTRUM.format(mz="500.25", charge="0", peaks=PEAKS),
    "charge 12": SPECTRUM.format(mz="500.25", charge="12+", peaks=PEAKS),
    "no peaks": SPECTRUM.format(mz="500.25", charge="2+", peaks=""),
    "few peaks": SPECTRUM.format(mz="500.25", charge="2+", peaks="200.1 1\n300.2 1\n"),
    "an intensity of NaN": SPECTRUM.format(mz="500.25", charge="2+", peaks=PEAKS + "700.5 nan\n"),
    "a negative intensity": SPECTRUM.format(mz="500.25", charge="2+", peaks=PEAKS + "700.5 -3\n"),
}


def bad_input(table: Table) -> str:
    """What the reason of a row says, from the code that says it."""
    return table(
        ("the input holds", "reason"), [(what, _reason(text)) for what, text in BAD.items()]
    )


def _reason(text: str) -> str:
    from seqgen.batching import failure_reason
    from seqgen.errors import InputError
    from seqgen.plugins import Plugins

    domain = Plugins().domain("peptides")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "run1.mgf")
        file.write_text(text, encoding="utf-8")
        try:
            for item in domain.load(str(file), domain.options()):
                list(domain.split(item, domain.options()))
        except InputError as error:
            return failure_reason("", error).replace(f"{folder}/", "").removeprefix(": ")
    raise AssertionError(f"no reason was given for {text!r}")


def vocabulary(table: Table) -> str:
    """The residues and modifications of the standard vocabulary."""
    from seqgen_peptides.residues import STANDARD

    bare = [token for token in STANDARD if len(token) == 1]
    changed = [token for token in STANDARD if len(token) > 1]
    return table(
        ("", "tokens"),
        [
            ("residues (I is read as L)", " ".join(f"`{token}`" for token in bare)),
            ("modifications", " ".join(f"`{token}`" for token in changed)),
        ],
    )


def valid(table: Table) -> str:
    """Every decoder of the shipped model on real spectra."""
    found = _result("peptides_valid")
    if found is None:
        return _unmeasured(
            "python benchmarks/peptides_valid.py --data real_valid.mgf "
            "--json benchmarks/results/peptides_valid.json "
            f"--figure docs/{FIGURE.as_posix()}"
        )
    spectra, about = found["spectra"], found["machine"]
    text = (
        f"\nModel `{found['model']}`, {spectra['all']} spectra of {spectra['peptides']} peptides"
        + _overlap(spectra)
        + f"; {about['processor']}, one thread, torch {about['torch']}.\n"
    )
    head = (
        "case", "parameters", "passes", "ms", "peptide precision (95 %)", "strict", "AA precision",
        "AA recall", "mass fits", "coverage", "area",
    )  # fmt: skip
    names = (
        "peptide_precision_strict", "aa_precision", "aa_recall", "precursor_match", "coverage",
        "coverage_auc",
    )  # fmt: skip
    text += table(
        head,
        [
            (
                row["case"],
                f"{row['parameters'] / 1e6:.2f} M",
                f"{row['passes']:.3g}",
                f"{row['cpu_ms']:.3g}",
                _interval(row, "peptide_precision"),
                *(f"{row[name]:.3f}" for name in names),
            )
            for row in found["rows"]
        ],
    )
    accepted = [row for row in found["rows"] if "accepted" in row]
    text += "".join(f"`verify` accepted {row['accepted']:.0%} of the drafts. " for row in accepted)
    text += "Differences of peptide precision, paired (of the same draws of peptides):\n"
    text += table(
        ("one above the other", "difference (95 %)"),
        [(row["case"], _interval(row, "difference")) for row in found["differences"]],
    )
    if (ROOT / "docs" / FIGURE).is_file():
        text += f"![Peptide precision and coverage of every decoder]({FIGURE.as_posix()})\n\n"
    return text


def _overlap(spectra: Mapping[str, int]) -> str:
    known = spectra.get("peptides_trained_on")
    if known is None:
        return ""
    return f", {known or 'none'} of them in the list that training draws from"


def sets(table: Table) -> str:
    """Peptide precision for each source of the spectra."""
    found = _result("peptides_valid")
    if found is None:
        return "\nNot measured yet, see above.\n\n"
    names = list(dict.fromkeys(row["set"] for row in found["by_set"]))
    value = {(row["case"], row["set"]): row["peptide_precision"] for row in found["by_set"]}
    return table(
        ("case", *(f"{name} ({found['spectra'][name]})" for name in names)),
        [
            (row["case"], *(f"{value[row['case'], name]:.2f}" for name in names))
            for row in found["rows"]
        ],
    )


def speed(table: Table) -> str:
    """Ours against Casanovo's decoding, same checkpoint."""
    found = _result("casanovo_speed")
    if found is None:
        return _unmeasured(
            "make peers, then PYTHONPATH=core:plugins .peers/casanovo/bin/python "
            "benchmarks/casanovo_speed.py --json benchmarks/results/casanovo_speed.json"
        )
    about = found["machine"]
    rows = [row for row in found["rows"] if "ratio" in row]
    names = ("ours_spectra_a_second", "peer_spectra_a_second", "ratio")
    return f"\n{about['processor']}, one thread, torch {about['torch']}.\n" + table(
        ("case", "seqgen, spectra/s", "Casanovo, spectra/s", "ratio"),
        [(row["case"], *(f"{row[name]:.3g}" for name in names)) for row in rows],
    )


def _interval(row: Mapping[str, Any], name: str) -> str:
    return f"{row[name]:.3f} ({row['low']:.3f} to {row['high']:.3f})"


def _result(name: str) -> Mapping[str, Any] | None:
    """A benchmark's last result, where it was run."""
    path = RESULTS / f"{name}.json"
    found: Mapping[str, Any] | None = json.loads(path.read_text()) if path.is_file() else None
    return found


def _unmeasured(command: str) -> str:
    return f"\nNot measured yet. To measure: `{command}`\n\n"
