"""De novo sequencing of real annotated spectra: every decoder of one model, by the same rule.

    python benchmarks/peptides_valid.py [--data FILE|FOLDER] [--model CARD|PATH]
        [--json FILE] [--figure FILE]

Decodes the spectra of real_valid.mgf (`--data`, or $SEQGEN_DATA/peptides) as `seqgen run` does,
once for each of `CASES`, and scores the rows as `seqgen eval` does. A case's passes are those of a
batch, passes for a draft included; its milliseconds are processor time a spectrum, reading and
encoding included, one thread, cases taking turns batch by batch. Intervals are 95 % bootstrap
percentiles over peptides: spectra of one peptide are drawn together, since they are not
independent. Differences between cases are of the same draws, so they are paired.

The result has two lists besides the common rows: `by_set` (metrics for each source of spectra) and
`differences`.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peptides_report import Case, Measured, Outcome, draw

if TYPE_CHECKING:
    from seqgen.batching import Batch
    from seqgen.runner import BatchResult, Runner

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("SEQGEN_DATA", ROOT.parent / "shared" / "data")) / "peptides"

SETS = ("massive", "casanovo_mouse", "pepnet", "a549", "hela")
"""What the titles of the spectra begin with."""


FREE = "precursor_constraint=false"
STATIC = "remasking=low_confidence_static"

CASES = (
    Case("AR greedy", "ar", FREE),
    Case("AR greedy, constraint", "ar", ""),
    Case("AR beam 5", "beam", f"{FREE} beams=5"),
    Case("AR beam 5, constraint", "beam", "beams=5"),
    Case("NAR greedy CTC", "nar", f"{FREE} beams=1"),
    Case("NAR prefix beam 5", "nar", f"{FREE} beams=5"),
    Case("NAR mass program where needed", "nar", "beams=5 mass_program=auto"),
    Case("NAR mass program", "nar", "mass_program=true"),
    Case("hybrid beam 5", "hybrid", f"{FREE} beams=5"),
    Case("hybrid beam 5, constraint", "hybrid", "beams=5"),
    Case("block diffusion, one a pass", "block-diffusion", STATIC),
    Case("block diffusion, two a pass", "block-diffusion", f"{STATIC} steps=2"),
    Case(
        "block diffusion, above 0.85",
        "block-diffusion",
        "remasking=low_confidence_dynamic threshold=0.85",
    ),
    Case("verify: NAR, else AR beam 5", "verify", "beams=5"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA, help="MGF, or a folder with real_valid")
    parser.add_argument("--model", default="")
    parser.add_argument("--repeats", type=int, default=3, help="of the timing; the fastest counts")
    parser.add_argument("--limit", type=int, help="take the first spectra only")
    parser.add_argument("--json", type=Path, help="also write the result here")
    parser.add_argument("--figure", type=Path, help="draw it here")
    arguments = parser.parse_args()

    spectra = arguments.data / "real_valid.mgf" if arguments.data.is_dir() else arguments.data
    if not spectra.is_file():
        print(f"skipped: no spectra at {spectra}; give --data FILE", file=sys.stderr)
        return

    import torch

    from seqgen.benchmark import print_result, result, write_result
    from seqgen.errors import SeqgenError

    torch.set_num_threads(1)
    try:
        measured = measure(spectra, arguments.model, arguments.repeats, arguments.limit)
    except SeqgenError as error:
        raise SystemExit("\n".join(t for t in (error.what, error.why, error.fix) if t)) from error
    outcome = result("peptides_valid", measured.rows())
    outcome |= {"model": measured.model, "spectra": measured.counts()}
    known = trained_on(spectra.parent, measured)
    if known is not None:
        outcome["spectra"]["peptides_trained_on"] = known
    outcome["by_set"] = result("", measured.by_set())["rows"]
    outcome["differences"] = result("", measured.differences())["rows"]
    print_result(outcome)
    if arguments.json:
        write_result(outcome, arguments.json)
    if arguments.figure:
        draw(measured, arguments.figure)


def measure(spectra: Path, model_name: str, repeats: int, limit: int | None) -> Measured:
    """Decode and score the spectra with every case that the model has a decoder for."""
    import numpy as np
    import torch

    from seqgen import options
    from seqgen.batching import list_entries, plan_batches
    from seqgen.plugins import Plugins
    from seqgen.runner import Runner
    from seqgen_peptides.files import SpectrumFiles
    from seqgen_peptides.readers import read_spectrum

    plugins = Plugins()
    info, domain = plugins.info("peptides"), plugins.domain("peptides")
    registry = plugins.registry("peptides")
    card = (
        registry.card(model_name, plugin="peptides")
        if model_name
        else registry.default_card("peptides")
    )
    model = domain.build(card, torch.device("cpu"), torch.float32)
    entries = list_entries(domain, [str(spectra)], options.parse(domain.options, []), limit=limit)
    batches = [b for window in plan_batches(entries, info.batch_size) for b in window]
    # Without a one-pass decoder there is no other besides the autoregressive one (Casanovo).
    cases = [case for case in CASES if case.decoder in ("ar", "beam") or model.nar is not None]
    runners = [
        Runner(
            domain,
            model,
            decoder=case.decoder,
            model_name=card.name,
            options=options.parse(domain.options, case.sets.split()),
            batch_size=info.batch_size,
        )
        for case in cases
    ]
    timed = decode(runners, batches, repeats)

    items = [entry.item for entry in entries]
    files = SpectrumFiles()
    sets = [set_of(read_spectrum(item, files).title) for item in items]
    spelled = [bare(str(item.peptide)) for item in items]
    names, numbers = np.unique(spelled, return_inverse=True)
    return Measured(
        model=Path(card.name).name,
        sets=sets,
        names=names.tolist(),
        peptides=numbers,
        outcomes={
            case.name: outcome_of(case, runner, results, items, sets)
            for case, runner, results in zip(cases, runners, timed, strict=True)
        },
    )


@dataclass(frozen=True)
class Timed:
    """A decoded batch.

    Attributes:
        result: what came of it.
        passes: forward passes, those of a draft included.
        accepted: drafts that stood, of a decoder that verifies them.
        seconds: processor time.
    """

    result: BatchResult[Any]
    passes: int
    accepted: int
    seconds: float


def decode(
    runners: Sequence[Runner[Any]], batches: Sequence[Batch[Any]], repeats: int
) -> list[list[Timed]]:
    """Every batch by every runner, taking turns; of the repeats the fastest."""
    for runner in runners:
        runner.decode(batches[0])
    found: list[list[Timed]] = [[] for _ in runners]
    for number, batch in enumerate(batches):
        for turn in range(len(runners)):
            place = (number + turn) % len(runners)
            tries = [decode_once(runners[place], batch) for _ in range(repeats)]
            found[place].append(min(tries, key=lambda one: one.seconds))
        print(f"batch {number + 1} of {len(batches)}", file=sys.stderr)
    return found


def decode_once(runner: Runner[Any], batch: Batch[Any]) -> Timed:
    drafts = accepted = 0

    def count(_: Any, event: Any) -> None:
        nonlocal drafts, accepted
        drafts += event.draft_forwards
        if runner.decoder == "verify" and event.forward == 0:
            accepted += int(event.kept_BQ.any(dim=1).sum())

    runner.on_event = count
    started = time.process_time()
    result = runner.decode(batch)
    return Timed(result, result.forwards + drafts, accepted, time.process_time() - started)


def outcome_of(
    case: Case,
    runner: Runner[Any],
    timed: Sequence[Timed],
    items: Sequence[Any],
    sets: Sequence[str],
) -> Outcome:
    """The figures of a case."""
    from seqgen.scoring import summarize
    from seqgen_peptides.metrics import judge

    evaluated = summarize(
        runner.domain, case.decoder, runner.model_name, [one.result for one in timed]
    )
    rows = evaluated.rows
    of_set = {}
    for name in dict.fromkeys([*SETS, *sets]):
        if chosen := [place for place, own in enumerate(sets) if own == name]:
            own_rows, own_items = [rows[i] for i in chosen], [items[i] for i in chosen]
            of_set[name] = runner.domain.score(own_rows, own_items)
    return Outcome(
        case=case,
        parameters=parameters(runner.model, case.decoder),
        passes=sum(one.passes for one in timed) / len(timed),
        cpu_ms=1e3 * sum(one.seconds for one in timed) / len(rows),
        accepted=sum(one.accepted for one in timed) / len(rows),
        metrics=dict(evaluated.score.metrics),
        metrics_of=of_set,
        judged=judge(rows, items, residues=runner.model.residues),
    )


def parameters(model: Any, decoder: str) -> int:
    """Parameters that a decoder uses, the encoder included."""
    if model.nar is None:
        return sum(p.numel() for p in model.parameters())
    parts = {
        "ar": [model.ar],
        "beam": [model.ar],
        "nar": [model.nar],
        "hybrid": [model.nar, model.hybrid],
        "block-diffusion": [model.block],
        "verify": [model.nar, model.ar],
    }[decoder]
    return sum(p.numel() for part in (model.encoder, *parts) for p in part.parameters())


def trained_on(folder: Path, measured: Measured) -> int | None:
    """How many of the true peptides are in the list that training draws from; None without it."""
    from seqgen_peptides.simulate import read_peptides

    path = folder / "sim_peptides_train.txt.gz"
    if not path.is_file():
        return None
    return len(set(measured.names) & {bare(peptide) for peptide in read_peptides(path)})


def bare(peptide: str) -> str:
    """The residues without modifications; L for I."""
    return re.sub(r"\[[^]]*\]-?", "", peptide).replace("I", "L")


def set_of(title: str) -> str:
    """The source of a spectrum, by its title."""
    return next((name for name in SETS if re.match(name, title, re.IGNORECASE)), "other")


if __name__ == "__main__":
    main()
