"""The domain on a model of random weights: contract, rows, charges, candidates, resuming."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from seqgen.errors import InputError, UsageError
from seqgen.plugins import Plugins
from seqgen.registry import Card
from seqgen.seeds import item_seed
from seqgen.testing import check_domain
from seqgen_peptides.answers import PROBLEM, fields_of, join_charges
from seqgen_peptides.constraint import mass_windows
from seqgen_peptides.domain import PeptidesDomain
from seqgen_peptides.masses import WATER
from seqgen_peptides.options import PeptideOptions
from seqgen_peptides.preprocess import PreprocessConfig
from seqgen_peptides.residues import STOP, Residues

Seqgen = Callable[..., Any]
CONSTRAINED = ("ar", "beam", "nar", "hybrid", "verify")


@pytest.fixture(scope="module")
def card(random_peptides: Path) -> Card:
    return Plugins().registry("peptides").card(str(random_peptides), plugin="peptides")


@pytest.fixture(scope="module")
def domain() -> PeptidesDomain:
    return PeptidesDomain()


@pytest.fixture(scope="module")
def model(domain: PeptidesDomain, card: Card) -> Any:
    return domain.build(card, torch.device("cpu"), torch.float32)


def decoded(
    domain: PeptidesDomain, model: Any, decoder: str, options: PeptideOptions, source: str = ""
) -> list[dict[str, Any]]:
    """Fields of the example's spectra (or of `source`), one batch, joined; or the reason."""
    found = []
    for item in domain.load(source or domain.example()[0], options):
        pieces = list(domain.split(item, options))
        seeds = torch.tensor([item_seed(0, piece.id) for piece in pieces])
        with torch.inference_mode():
            context = domain.condition(model, pieces, options)
            generated = domain.plan(model, context, decoder, options, seeds).run()
            parts = domain.finish(generated, pieces, context, options)
        try:
            found.append(domain.join(item, parts, options))
        except InputError as error:
            found.append({PROBLEM: str(error)})
    return found


def test_contract(card: Card) -> None:
    info = Plugins().info("peptides")
    report = check_domain(PeptidesDomain(), info=info, card=card)
    assert set(report.decoders) == {*CONSTRAINED, "block-diffusion"}
    assert report.metrics is not None
    assert report.metrics["coverage"] == 1
    assert report.metrics["precursor_match"] == 1


@pytest.mark.parametrize("decoder", CONSTRAINED)
def test_answers_weigh_what_the_precursor_does(
    domain: PeptidesDomain, model: Any, decoder: str
) -> None:
    options = PeptideOptions(precursor_tol_ppm=15.0, isotope_low=-1, top=3)
    residues, answers = Residues(), 0
    for fields in decoded(domain, model, decoder, options):
        mz, charge = torch.tensor([fields["precursor_mz"]]).double(), fields["charge"]
        low, high = mass_windows(
            (mz - 1.007276467) * charge, torch.tensor([charge]), mz, tol_ppm=15.0, isotopes=(-1, 1)
        )
        for answer in fields.get("candidates", [fields]):
            mass = residues.mass(residues.encode(answer["peptide"])) - WATER
            assert bool(((low <= mass) & (mass <= high)).any())
            assert abs(answer["precursor_error_ppm"]) <= 15.0
            answers += 1
    assert answers >= 8


def test_scores_are_products_of_probabilities(domain: PeptidesDomain, model: Any) -> None:
    """Summed by hand in one teacher-forced pass."""
    from seqgen.training.objectives import teacher_forcing

    options = PeptideOptions()
    item = next(iter(domain.load(domain.example()[0], options)))
    (piece,) = domain.split(item, options)
    with torch.inference_mode():
        context = domain.condition(model, [piece], options)
        seeds = torch.tensor([0])
        generated = domain.plan(model, context, "beam", options, seeds).run()
        (fields,) = domain.finish(generated, [piece], context, options)
        ids = torch.tensor([[*model.residues.encode(fields["peptide"])[::-1], STOP]])
        valid = torch.ones_like(ids, dtype=torch.bool)
        assert context.spectra is not None
        loss = teacher_forcing(model.ar, ids, valid, context=context.spectra)
    assert fields["score"] == pytest.approx(math.exp(-float(loss) * ids.shape[1]), rel=1e-3)
    product = math.prod(fields["residue_scores"])
    assert product == pytest.approx(fields["score"], rel=0.2) or product > fields["score"]
    assert len(fields["residue_scores"]) == ids.shape[1] - 1


def test_candidates(domain: PeptidesDomain, model: Any) -> None:
    for fields in decoded(domain, model, "beam", PeptideOptions(top=4, beams=2)):
        candidates = fields["candidates"]
        assert len(candidates) == 4
        assert candidates[0]["peptide"] == fields["peptide"]
        scores = [c["score"] for c in candidates]
        assert scores == sorted(scores, reverse=True)
        assert len({c["peptide"] for c in candidates}) == 4
    assert "candidates" not in decoded(domain, model, "beam", PeptideOptions())[0]


def test_every_charge_that_may_be(domain: PeptidesDomain, model: Any, tmp_path: Path) -> None:
    text = Path(domain.example()[0]).read_text().split("\n\n")[0]
    path = tmp_path / "a.mgf"
    rows = {}
    for name, charge in (("two", "2+"), ("three", "3+"), ("both", "2+ and 3+"), ("none", "")):
        path.write_text(text.replace("CHARGE=2+", f"CHARGE={charge}"))
        (rows[name],) = decoded(domain, model, "beam", PeptideOptions(top=3), str(path))
    best = max((rows["two"], rows["three"]), key=lambda row: row["score"])
    assert rows["both"]["charge"] == rows["none"]["charge"] == best["charge"]
    assert rows["both"]["peptide"] == rows["none"]["peptide"] == best["peptide"]
    assert len(rows["both"]["candidates"]) == 3
    with pytest.raises(InputError, match="no charge"):
        decoded(domain, model, "beam", PeptideOptions(unknown_charges=()), str(path))


def test_charges_that_the_model_does_not_know(domain: PeptidesDomain, tmp_path: Path) -> None:
    text = Path(domain.example()[0]).read_text().split("\n\n")[0]
    path = tmp_path / "a.mgf"
    path.write_text(text.replace("CHARGE=2+", "CHARGE=3+ and 7+"))
    (item,) = domain.load(str(path), PeptideOptions())
    assert [piece.charge for piece in domain.split(item, PeptideOptions())] == [3]
    with pytest.raises(UsageError, match="up to 4"):
        list(domain.split(item, PeptideOptions(max_charge=7)))


def test_what_is_no_peptide_is_refused(domain: PeptidesDomain) -> None:
    from seqgen.decoders.base import Generated

    residues, options = Residues(), PeptideOptions(precursor_constraint=False)
    end, a = residues.encode("[Acetyl]-A")
    rows = [
        [a] * 7 + [STOP, 0],  # a peptide
        [a, a, a, end, a, a, a, STOP, 0],  # a modification in the middle
        [a] * 6 + [end, end, STOP],  # two of them
        [a] * 5 + [end, STOP, 0, 0],  # too short: the modification is no residue
        [a] * 9,  # no end
        [a, a, a, 0, a, a, a, STOP, 0],
    ]
    values = torch.tensor(rows)
    length = torch.tensor([8, 8, 9, 7, 9, 8])
    generated = Generated(
        values=values,
        confidence_BS=torch.full(values.shape, 0.5),
        prompt_B=torch.zeros(6, dtype=torch.int64),
        length_B=length,
        finished_B=torch.tensor([True, True, True, True, False, True]),
        forwards=9,
    )
    item = next(iter(domain.load(domain.example()[0], options)))
    found = fields_of(generated, [item] * 6, residues, options)
    assert found[0]["peptide"] == "A" * 7
    assert found[0]["score"] == pytest.approx(0.5**8)
    assert [PROBLEM in fields for fields in found] == [False] + [True] * 5
    reasons = [fields[PROBLEM] for fields in found[1:]]
    words = ("within it", "within it", "5 residues, fewer than 6", "came to an end", "padding")
    assert all(word in reason for word, reason in zip(words, reasons, strict=True))


def test_the_better_charge_stands_and_a_failed_one_does_not() -> None:
    low, high = (
        {"peptide": p, "score": s, "charge": z} for p, s, z in (("A", 0.1, 2), ("B", 0.2, 3))
    )
    failed = {PROBLEM: "no", "charge": 4}
    assert join_charges([low, failed, high], 1) == high
    assert join_charges([failed], 1) == failed


def test_thresholds_of_the_model_unless_set() -> None:
    base = PreprocessConfig(n_peaks=300, max_charge=9)
    assert PeptideOptions().preprocess(base) == base
    changed = PeptideOptions(n_peaks=40, min_mz=0.0).preprocess(base)
    assert changed == replace(base, n_peaks=40, min_mz=0.0)


def test_half_precision_is_refused(card: Card) -> None:
    with pytest.raises(UsageError, match="float32"):
        PeptidesDomain().build(card, torch.device("cpu"), torch.bfloat16)


def test_resuming_gives_the_file_of_an_unbroken_run(seqgen: Seqgen, random_peptides: Path) -> None:
    example = Path(PeptidesDomain().example()[0]).read_text()
    Path("a.mgf").write_text(example * 4 + "BEGIN IONS\nPEPMASS=500\n1 1\nEND IONS\n")
    common = ("run", "--plugin", "peptides", "--model", random_peptides, "--decoder", "ar",
              "--batch-size", "4", "a.mgf")  # fmt: skip
    assert seqgen(*common, "-o", "whole.mztab").code == 1
    assert seqgen(*common, "-o", "part.mztab").code == 1
    manifest = next(
        path for path in Path().iterdir() if "part" in path.name and path.suffix != ".mztab"
    )
    lines = manifest.read_text().splitlines(keepends=True)
    manifest.write_text("".join(lines[: len(lines) // 2]))
    Path("part.mztab").unlink()
    done = seqgen(*common, "-o", "part.mztab", "--resume")
    assert "resuming:" in done.err
    same = [
        p.read_text().replace("part", "whole") for p in (Path("whole.mztab"), Path("part.mztab"))
    ]
    assert same[0] == same[1]
    assert same[0].count("\nPSM\t") == 33


def test_without_the_constraint(domain: PeptidesDomain, model: Any) -> None:
    """Random weights hit no mass by chance: without the constraint the errors are large."""
    for decoder, options in (
        ("beam", PeptideOptions(precursor_constraint=False)),
        ("nar", PeptideOptions(mass_program="false")),
        ("nar", PeptideOptions(precursor_constraint=False, beams=1)),
    ):
        errors = [
            abs(fields.get("precursor_error_ppm", math.inf))
            for fields in decoded(domain, model, decoder, options)
        ]
        assert min(errors) > 20


def test_a_casanovo_checkpoint(seqgen: Seqgen, shared_data: Path) -> None:
    model = ("--model", shared_data / "peptides" / "casanovo_tiny_random.ckpt", "--limit", "2")
    for decoder in ("ar", "beam"):
        done = seqgen("run", "--plugin", "peptides", *model, "--decoder", decoder)
        rows = [json.loads(line) for line in done.out.splitlines()]
        assert (done.code, [row["status"] for row in rows]) == (0, ["ok", "ok"])
        assert all(abs(row["precursor_error_ppm"]) <= 20 for row in rows)
    done = seqgen("run", "--plugin", "peptides", *model, "--decoder", "nar")
    assert (done.code, done.out) == (2, "")
    assert "--decoder beam" in done.err


def test_the_command_line_runs_the_example(seqgen: Seqgen, random_peptides: Path) -> None:
    done = seqgen("run", "--plugin", "peptides", "--model", random_peptides)
    rows = [json.loads(line) for line in done.out.splitlines()]
    assert done.code == 0
    assert len(rows) == 8
    for row in rows:
        assert row["file"].endswith("example.mgf")
        assert row["spectra_ref"] == row["id"].partition(":")[2]
        assert row["title"].startswith("simulated E. coli")
