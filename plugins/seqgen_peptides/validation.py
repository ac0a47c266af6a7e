"""Validation while training: losses, and the share of peptides a decoder gets exactly right.

Two sets: simulated spectra of held-out peptides, and real annotated spectra where there are any.
Decoding is greedy and without the mass constraint, so that it is quick and shows the network alone.

Shapes: B spectra, S slots.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from seqgen.canvas import Canvas
from seqgen.ctc import collapse, ctc_loss
from seqgen.decoders import Autoregressive, BlockDiffusion
from seqgen.decoders.one_pass import whole_pass
from seqgen.model import Context, SequenceModel
from seqgen.training.hybrid import hybrid_context
from seqgen.training.objectives import teacher_forcing
from seqgen_peptides.annotated import read_annotated
from seqgen_peptides.data import PeptideBatch, PeptideBatches
from seqgen_peptides.model import PeptideModel
from seqgen_peptides.residues import PAD, STOP

AT_ONCE = 64
"""Spectra decoded together."""


@dataclass(frozen=True)
class Validation:
    """Validation sets by name."""

    sets: dict[str, PeptideBatch]

    @classmethod
    def of(cls, batches: PeptideBatches, real: Path | None, *, simulated: int) -> Validation:
        """Sets from the held-out part of what is trained on, and from an MGF file."""
        chosen = np.random.default_rng(0).permutation(batches.held_out())[:simulated]
        sets = {"sim": batches.of(np.sort(chosen), seed=0)}
        if real is not None:
            sets["real"] = read_annotated(real, batches.residues, batches.preprocess)
        return cls(sets)

    @torch.inference_mode()
    def __call__(self, model: PeptideModel) -> dict[str, float]:
        device = next(model.parameters()).device
        found: dict[str, float] = {}
        for name, whole in self.sets.items():
            right: dict[str, int] = {}
            losses: dict[str, float] = {}
            for start in range(0, len(whole.lengths_B), AT_ONCE):
                part = _rows(whole, slice(start, start + AT_ONCE)).to(device)
                for decoder, ids_BS in _decoded(model, part).items():
                    width = max(ids_BS.shape[1], part.targets_BS.shape[1])
                    pairs = [_padded(x, width) for x in (ids_BS, part.targets_BS)]
                    hits = (pairs[0] == pairs[1]).all(dim=1).sum()
                    right[decoder] = right.get(decoder, 0) + int(hits)
                for loss, value in _losses(model, part).items():
                    losses[loss] = losses.get(loss, 0.0) + float(value) * len(part.lengths_B)
            totals = {**right, **losses}
            found |= {f"{name}_{key}": x / len(whole.lengths_B) for key, x in totals.items()}
        return found


def _losses(model: PeptideModel, batch: PeptideBatch) -> dict[str, Tensor]:
    """What tells two models apart before either gets many peptides right: nats a residue."""
    context = model.listen(batch.spectra)
    hidden = whole_pass(model.nar, _canvas(batch, model.config.slots), context)
    logits = model.nar_logits(hidden)
    return {
        "ar_loss": teacher_forcing(model.ar, batch.targets_BS, batch.valid_BS, context=context),
        "nar_loss": ctc_loss(logits, batch.targets_BS, batch.lengths_B, blank=PAD),
    }


def _decoded(model: PeptideModel, batch: PeptideBatch) -> dict[str, Tensor]:
    """Ids of every decoder, padded behind the stop."""
    context = model.listen(batch.spectra)
    canvas = _canvas(batch, model.config.slots)
    hidden = whole_pass(model.nar, canvas, context)
    best = model.nar_logits(hidden).max(dim=-1)
    path = collapse(best.indices, best.values, blank=PAD)
    values, end_B1 = torch.nn.functional.pad(path.values_BS, (0, 1)), path.length_B[:, None]
    slots = torch.arange(values.shape[1], device=values.device)
    values = torch.where(slots < end_B1, values, PAD)
    found = {"nar": torch.where(slots == end_B1, STOP, values)}
    memory = hybrid_context(model.first_pass(), canvas, context)
    found["ar"] = _greedy(model.ar, batch, context)
    found["hybrid"] = _greedy(model.hybrid, batch, memory)
    canvas = _canvas(batch, batch.targets_BS.shape[1] + 4)
    blocks = BlockDiffusion(block_length=4, remasking="low_confidence_static", stop_ids=(STOP,))
    made = blocks.generate(model.block, canvas, context)
    found["block"] = _used(made.values, made.length_B)
    return found


def _greedy(model: SequenceModel, batch: PeptideBatch, context: Context) -> Tensor:
    canvas = _canvas(batch, batch.targets_BS.shape[1] + 2)
    made = Autoregressive(stop_ids=(STOP,)).generate(model, canvas, context)
    return _used(made.values, made.length_B)


def _canvas(batch: PeptideBatch, slots: int) -> Canvas:
    shape = (len(batch.lengths_B), slots)
    return Canvas(torch.zeros(shape, dtype=torch.int64, device=batch.lengths_B.device))


def _used(values_BS: Tensor, length_B: Tensor) -> Tensor:
    slots = torch.arange(values_BS.shape[1], device=values_BS.device)
    return torch.where(slots < length_B[:, None], values_BS, PAD)


def _padded(ids_BS: Tensor, width: int) -> Tensor:
    return torch.nn.functional.pad(ids_BS, (0, width - ids_BS.shape[1]), value=PAD)


def _rows(batch: PeptideBatch, rows: slice) -> PeptideBatch:
    spectra = {name: value[rows] for name, value in vars(batch.spectra).items()}
    return PeptideBatch(
        replace(batch.spectra, **spectra), batch.targets_BS[rows], batch.lengths_B[rows]
    )
