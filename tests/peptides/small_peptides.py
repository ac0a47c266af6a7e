"""Small simulated sets and random models for the tests of the peptides plugin."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from seqgen_peptides.augment import AugmentConfig
from seqgen_peptides.data import PeptideBatches
from seqgen_peptides.model import PeptideModel
from seqgen_peptides.preprocess import PreprocessConfig
from seqgen_peptides.residues import Residues
from seqgen_peptides.simulate import Simulated
from seqgen_peptides.training import PRESETS, configuration

LETTERS = "ADEFGHKLMNPQRSTVWY"


def simulated(count: int = 400, *, seed: int = 0, longest: int = 12) -> Simulated:
    """Random peptides that end in K or R, with random intensities of b and y ions."""
    rng = np.random.default_rng(seed)
    residues = Residues()
    tokens, charges, ions = [], [], []
    for _ in range(count):
        length = int(rng.integers(6, longest + 1))
        body = "".join(rng.choice(list(LETTERS), length - 1)) + rng.choice(["K", "R"])
        lead = rng.choice(["", "[Acetyl]-"], p=[0.9, 0.1])
        tokens.append(np.array(residues.encode(lead + body), dtype=np.uint8))
        charges.append(int(rng.integers(2, 4)))
        found = rng.random((4, length - 1)) * np.array([[0.4], [1.0], [0.05], [0.1]])
        ions.append(found / found.sum())
    return Simulated(
        np.concatenate(tokens),
        np.cumsum([len(t) for t in tokens]),
        np.array(charges, dtype=np.uint8),
        np.concatenate(ions, axis=1).astype(np.float16),
        np.cumsum([x.shape[1] for x in ions]),
    )


CLEAN = AugmentConfig(
    intensity=0.0,
    missing=0.0,
    threshold=(1e-6, 1.1e-6),
    losses=0.0,
    noise=(0, 1),
    noise_level=(1e-9, 2e-9),
    mz_ppm=0.0,
    offset_ppm=0.0,
    precursor_ppm=0.0,
)
"""Spectra as predicted, without noise and errors."""


def batches(
    found: Simulated | None = None, *, size: int = 8, augment: AugmentConfig = CLEAN, seed: int = 0
) -> PeptideBatches:
    return PeptideBatches(
        simulated() if found is None else found,
        Residues(),
        augment,
        PreprocessConfig(),
        size=size,
        seed=seed,
    )


def random_model(*, seed: int = 0, **changes: object) -> PeptideModel:
    """A micro model whose decoders do not all say the same thing."""
    torch.manual_seed(seed)
    options = replace(PRESETS["micro"][0], label_smoothing=0.0, **changes)
    model = PeptideModel(configuration(options), Residues())
    with torch.no_grad():
        for decoder in (model.ar, model.nar, model.hybrid, model.block):
            decoder.head.weight.mul_(4)
            if hasattr(decoder.head, "score"):
                decoder.head.score.normal_()
        model.block.inputs.distance.weight.normal_()
    return model.eval()
