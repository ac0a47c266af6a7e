"""Runs inside Casanovo's own environment: makes a random checkpoint and records what it computes.

    .peers/casanovo/bin/python tests/parity/casanovo_reference.py FOLDER --seed 1 \
        --mgf real_valid.mgf --unimod unimod.xml.gz [--checkpoint FILE]

FOLDER/model.ckpt becomes a random checkpoint as Casanovo writes it (or --checkpoint is used) and
FOLDER/ref.npz holds: `index` (place of each usable spectrum in the file), `mz`, `intensity`,
`precursor_mz`, `charge`, `tokens` (padded with 0) of the spectra as its data module gives them,
`states` of the encoder, teacher-forced `logits`. FOLDER/ref.json holds its predictions as
[peptide, score, residue scores] a spectrum: `greedy`, and of the first spectra `beams` (the 5 best
of 5 beams) and `search` (the same without the rules on length and N-terminal modifications). There
are no predictions with --checkpoint, which may never stop. Imports nothing of seqgen.

`--kind golden` makes spectra of its own and a checkpoint small enough for the repository:
tests/parity/golden/casanovo was made with `--kind golden --seed 7` by casanovo 5.2.1.

HOME should be a folder that can be lost: casanovo keeps its tables of modifications there.
"""

from __future__ import annotations

import argparse
import datetime
import gzip
import json
import warnings
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import casanovo
import lightning.pytorch as pl
import numpy as np
import spectrum_utils.proforma
import torch
import yaml
from casanovo.denovo.dataloaders import DeNovoDataModule
from casanovo.denovo.model import Spec2Pep
from depthcharge.tokenizers import PeptideTokenizer

SIZES = {
    "real": {"dim_model": 128, "n_head": 8, "dim_feedforward": 512, "n_layers": 3},
    "golden": {"dim_model": 24, "n_head": 4, "dim_feedforward": 32, "n_layers": 2},
}


BEAM_SPECTRA = 48
"""How many spectra are searched with beams, which takes half a second each."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kind", choices=list(SIZES), default="real")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--mgf", type=Path)
    parser.add_argument("--unimod", type=Path)
    parser.add_argument("--checkpoint", type=Path)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    folder = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    if arguments.kind == "golden":
        batch = made_up_spectra(arguments.seed)
    else:
        offline_modifications(arguments.unimod)
        batch = read_spectra(arguments.mgf, folder)
    checkpoint = arguments.checkpoint
    if checkpoint is None:
        checkpoint = folder / "model.ckpt"
        write_checkpoint(checkpoint, random_model(arguments.kind, arguments.seed, batch))
    model = Spec2Pep.load_from_checkpoint(checkpoint, map_location="cpu", weights_only=False)
    record(model.eval(), batch, folder, searched=arguments.checkpoint is None)


def settings() -> dict:
    """Casanovo's own configuration."""
    return yaml.safe_load((Path(casanovo.__file__).parent / "config.yaml").read_text())


def new_tokenizer() -> PeptideTokenizer:
    return PeptideTokenizer(settings()["residues"], True, True, None, "$")


@torch.no_grad()
def random_model(kind: str, seed: int, batch: dict) -> Spec2Pep:
    """Casanovo's own initialisation; the output layer is larger, so that peptides vary and end."""
    torch.manual_seed(seed)
    model = Spec2Pep(
        **SIZES[kind],
        dropout=0.0,
        residues=settings()["residues"],
        max_charge=settings()["max_charge"],
        max_peptide_len=40,
        tokenizer=new_tokenizer(),
    )
    stop, final = model.stop_token, model.decoder.final
    final.weight *= 6
    final.weight[stop] *= 3
    final.bias[0] -= 30  # padding, which Casanovo takes for a first residue
    few = {name: values[:24] for name, values in batch.items()}
    answered = {}
    for bias in range(0, 14, 2):
        final.bias[stop] = float(bias)
        answered[bias] = sum(map(bool, predictions(model.eval(), few, 1)))
    final.bias[stop] = float(max(answered, key=answered.get))
    return model


def write_checkpoint(path: Path, model: Spec2Pep) -> None:
    """As Casanovo writes it."""
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.strategy.connect(model)
    trainer.save_checkpoint(path)


def offline_modifications(unimod: Path) -> None:
    """Put UNIMOD where spectrum_utils would store what it downloads."""
    by_id, by_name = {}, {}
    with gzip.open(unimod) as file:
        for mod in ElementTree.parse(file).iterfind(".//{*}modifications/{*}mod"):
            name, number = mod.attrib["title"], f"UNIMOD:{mod.attrib['record_id']}"
            mass = float(mod.find("{*}delta").attrib["mono_mass"])
            by_id[number], by_name[name] = (mass, name), (mass, number)
    now = datetime.datetime.now(datetime.UTC)
    spectrum_utils.proforma._store_in_cache(
        spectrum_utils.proforma.cache_dir, "UNIMOD.pkl", ((by_id, by_name), now)
    )


def read_spectra(mgf: Path, folder: Path) -> dict:
    """All usable spectra of a file as one batch of Casanovo's data module."""
    module = DeNovoDataModule(
        lance_dir=str(folder),
        test_paths=[str(mgf)],
        eval_batch_size=4096,
        max_charge=4,
        tokenizer=new_tokenizer(),
        n_workers=0,
    )
    module.setup(stage="test", annotated=True)
    (batch,) = list(module.test_dataloader())
    return batch


def made_up_spectra(seed: int) -> dict:
    """Three spectra of 24 to 40 peaks with targets of 7 to 12 residues, in the same form."""
    random = np.random.default_rng(seed)
    peaks = [np.sort(random.uniform(60, 1500, count)) for count in (40, 24, 31)]
    rows = [torch.tensor(random.uniform(0.1, 1, len(mz))) for mz in peaks]
    pad = torch.nn.utils.rnn.pad_sequence
    tokens = [torch.tensor([*random.integers(2, 25, count), 1]) for count in (12, 7, 9)]
    return {
        "mz_array": pad([torch.tensor(mz) for mz in peaks], batch_first=True).float(),
        "intensity_array": pad([row / row.norm() for row in rows], batch_first=True).float(),
        "precursor_mz": torch.tensor(random.uniform(300, 900, 3)).float(),
        "precursor_charge": torch.tensor([2, 1, 4]),
        "seq": pad(tokens, batch_first=True),
        "scan_id": [f"index={i}" for i in range(3)],
    }


def forward(model: Spec2Pep, batch: dict) -> tuple[torch.Tensor, torch.Tensor]:
    """Encoder states, and logits of every residue and the stop given those before."""
    mzs, intensities, precursors, tokens = model._process_batch(batch)
    states, masked = model.encoder(mzs, intensities)
    logits = model.decoder(
        tokens=tokens, memory=states, memory_key_padding_mask=masked, precursors=precursors
    )
    # Padded places hold whatever the fused encoder leaves there.
    return states.masked_fill(masked[..., None], 0), logits[:, :-1]


@torch.no_grad()
def record(model: Spec2Pep, batch: dict, folder: Path, *, searched: bool) -> None:
    states, logits = forward(model, batch)
    np.savez_compressed(
        folder / "ref.npz",
        index=[int(str(scan).rpartition("=")[2]) for scan in batch["scan_id"]],
        mz=batch["mz_array"].numpy(),
        intensity=batch["intensity_array"].numpy(),
        precursor_mz=batch["precursor_mz"].numpy(),
        charge=batch["precursor_charge"].numpy(),
        tokens=batch["seq"].numpy(),
        states=states.numpy(),
        logits=logits.numpy(),
    )
    if not searched:
        return
    few = {name: values[:BEAM_SPECTRA] for name, values in batch.items()}
    said = {"greedy": predictions(model, batch, 1), "beams": predictions(model, few, 5)}
    model.min_peptide_len = 1
    model.nterm_idx = model.nterm_idx[:0]
    said["search"] = predictions(model, few, 5)
    (folder / "ref.json").write_text(json.dumps(said))


def predictions(model: Spec2Pep, batch: dict, beams: int) -> list:
    """[peptide, score, residue scores] of the best answers of each spectrum, best first."""
    model.n_beams = model.top_match = beams
    return [
        [[peptide, float(score), [float(s) for s in scores]] for score, scores, peptide in answers]
        for answers in model(batch)
    ]


if __name__ == "__main__":
    main()
