"""De novo sequencing, ours against Casanovo 5.2.1: same checkpoint, same spectra, one thread.

Runs inside Casanovo's environment (tests/parity/install_casanovo.sh) with our source roots in the
path:

    PYTHONPATH=core:plugins .peers/casanovo/bin/python benchmarks/casanovo_speed.py [--json FILE]

A case is a batch of preprocessed spectra -> peptides, encoder included, in turns; the figures are
medians of CPU time a spectrum. Weights are Casanovo's initialisation (1.4 M parameters), spectra
are random. In the cases `N residues` the stop token and N-terminal modifications are suppressed, so
that every hypothesis runs for N steps; `natural` lets them end where they will. Before anything is
timed both must have found the same peptides. The last row says how the time grows with the length:
the exponent of N between the shortest and the longest case, and what a residue more costs.
"""

from __future__ import annotations

import argparse
import math
import os
import tempfile
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import lightning.pytorch as pl
import torch
from casanovo.config import Config
from casanovo.denovo.model import Spec2Pep
from depthcharge.tokenizers import PeptideTokenizer

from seqgen.benchmark import interleaved, print_result, result, write_result
from seqgen.canvas import Canvas
from seqgen.decoders import Autoregressive, Beam
from seqgen_peptides.casanovo import CasanovoModel, load_casanovo
from seqgen_peptides.residues import STOP
from seqgen_peptides.spectra import SpectrumBatch

LENGTHS = (10, 20, 30)
BEAMS = 5
Peptides = list[list[str]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--spectra", type=int, default=64, help="in a batch")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write the result here")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    batch = random_spectra(arguments.spectra)

    peer, ours = make_pair(ends=True)
    rows = []
    for beams in (1, BEAMS):
        calls = pair_of_calls(peer, ours, batch, beams, length=30)
        check_equal(calls)
        rows.append(measured(f"{name_of(beams)}, natural", calls, arguments))
    peer, ours = make_pair(ends=False)
    for beams in (1, BEAMS):
        for length in LENGTHS:
            calls = pair_of_calls(peer, ours, batch, beams, length=length)
            rows.append(measured(f"{name_of(beams)}, {length} residues", calls, arguments))
    rows.append(growth(rows))
    outcome = result("casanovo_speed", rows)
    print_result(outcome)
    if arguments.json:
        write_result(outcome, arguments.json)


def name_of(beams: int) -> str:
    return "greedy" if beams == 1 else f"beam {beams}"


def make_pair(*, ends: bool) -> tuple[Spec2Pep, CasanovoModel]:
    """The same random model, made by Casanovo and loaded by each from a checkpoint of Casanovo's.

    Args:
        ends: whether the stop token is likely, or never chosen.
    """
    residues = Config().residues
    tokenizer = PeptideTokenizer(residues, True, True, None, "$")
    torch.manual_seed(0)
    model = Spec2Pep(
        dim_model=128, n_head=8, dim_feedforward=512, n_layers=3, max_charge=4,
        residues=residues, tokenizer=tokenizer, min_peptide_len=1,
    )  # fmt: skip
    with torch.no_grad():
        model.decoder.final.weight *= 6
        model.decoder.final.bias[0] -= 60  # padding, which Casanovo takes for a first residue
        model.decoder.final.bias[STOP] += 8 if ends else -60
        model.decoder.final.bias[model.nterm_idx] -= 60
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.strategy.connect(model)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "random.ckpt")
        trainer.save_checkpoint(path)
        peer = Spec2Pep.load_from_checkpoint(path, map_location="cpu", weights_only=False)
        return peer.eval(), load_casanovo(path)


def pair_of_calls(
    peer: Spec2Pep, ours: CasanovoModel, batch: SpectrumBatch, beams: int, *, length: int
) -> dict[str, Callable[[], Peptides]]:
    return {
        "ours_ms": partial(run_ours, ours, batch, beams, length),
        "peer_ms": partial(run_peer, peer, batch, beams, length),
    }


@torch.inference_mode()
def run_peer(model: Spec2Pep, batch: SpectrumBatch, beams: int, length: int) -> Peptides:
    """The best peptides of every spectrum, the best first."""
    model.n_beams = model.top_match = beams
    model.max_peptide_len = length
    spectra = {
        "mz_array": batch.mz_BP.float(),
        "intensity_array": batch.intensity_BP,
        "precursor_mz": batch.precursor_mz_B.float(),
        "precursor_charge": batch.charge_B,
    }
    return [[peptide for _, _, peptide in answers] for answers in model(spectra)]


@torch.inference_mode()
def run_ours(model: CasanovoModel, batch: SpectrumBatch, beams: int, length: int) -> Peptides:
    """The same; hypotheses are compared as Casanovo compares them."""
    context = model.listen(batch)
    canvas = Canvas.tokens([[]] * len(batch.charge_B), new=length)
    if beams == 1:
        done = Autoregressive(stop_ids=(STOP,)).generate(model.ar, canvas, context)
        finished = done.finished_B[:, None].tolist()
        answers = [[ids] for ids in done.sequences()]
    else:
        # An answer without residues, which Casanovo drops, may be among ours: keep one more.
        search = Beam(
            beams=beams, keep=beams + 1, stop_ids=(STOP,), score="mean-logit", refill=False
        )
        found = search.generate(model.ar, canvas, context).hypotheses
        assert found is not None
        finished = found.finished_BN.tolist()
        answers = [found.sequences(row) for row in range(canvas.batch)]
    peptides = [
        [model.residues.decode(ids[::-1]) for ids, ended in zip(row, marks, strict=False) if ended]
        for row, marks in zip(answers, finished, strict=True)
    ]
    return [[peptide for peptide in row if peptide][:beams] for row in peptides]


def check_equal(calls: dict[str, Callable[[], Peptides]]) -> None:
    ours, peer = (call() for call in calls.values())
    different = [row for row, pair in enumerate(zip(ours, peer, strict=True)) if pair[0] != pair[1]]
    if different:
        row = different[0]
        raise SystemExit(
            f"{len(different)} of {len(ours)} spectra differ; {row}: {ours[row]}, {peer[row]}"
        )
    print(f"the same {sum(map(len, ours))} peptides of {len(ours)} spectra")


def measured(
    case: str, calls: dict[str, Callable[[], Peptides]], arguments: argparse.Namespace
) -> dict[str, object]:
    times = interleaved(calls, repeats=arguments.repeats)
    ours, peer = (times[name].cpu_ms / arguments.spectra for name in calls)
    return {
        "case": case,
        "ours_ms": ours,
        "peer_ms": peer,
        "ours_spectra_a_second": 1e3 / ours,
        "peer_spectra_a_second": 1e3 / peer,
        "ratio": peer / ours,
    }


def growth(rows: list[dict]) -> dict[str, object]:
    """How the time of beam search grows with the length, from its shortest and longest case."""
    first, last = (
        next(row for row in rows if row["case"] == f"{name_of(BEAMS)}, {length} residues")
        for length in (LENGTHS[0], LENGTHS[-1])
    )
    longer = math.log(LENGTHS[-1] / LENGTHS[0])
    grown = {name: last[f"{name}_ms"] / first[f"{name}_ms"] for name in ("ours", "peer")}
    return {
        "case": f"{name_of(BEAMS)}, growth from {LENGTHS[0]} to {LENGTHS[-1]} residues",
        **{f"{name}_exponent": math.log(times) / longer for name, times in grown.items()},
        **{
            f"{name}_ms": (last[f"{name}_ms"] - first[f"{name}_ms"]) / (LENGTHS[-1] - LENGTHS[0])
            for name in grown
        },
    }


def random_spectra(count: int) -> SpectrumBatch:
    """Preprocessed spectra of 80 to 150 peaks."""
    torch.manual_seed(1)
    peaks = []
    for size in torch.randint(80, 151, (count,)).tolist():
        intensity = torch.rand(size)
        mz = torch.sort(torch.rand(size, dtype=torch.float64) * 1500 + 100).values
        peaks.append((mz.numpy(), (intensity / intensity.norm()).numpy()))
    precursor_mz = (torch.rand(count, dtype=torch.float64) * 700 + 400).tolist()
    return SpectrumBatch.of(peaks, precursor_mz, (torch.arange(count) % 3 + 2).tolist())


if __name__ == "__main__":
    main()
