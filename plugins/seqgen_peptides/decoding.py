"""Which parts of the core decode a batch of spectra: the recipe behind each decoder's name.

Peptides are decoded from the C-terminus, and end with a stop; the one-pass decoder says blanks in
place of a stop.

Shapes: B spectra, S slots.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor

from seqgen.canvas import Canvas
from seqgen.constraints import Automaton, Constraint
from seqgen.decoders import Autoregressive, Beam, BlockDiffusion, Decoder
from seqgen.decoders.draft_verify import DraftAndVerify, DraftDecoder
from seqgen.decoders.hybrid import Hybrid
from seqgen.decoders.one_pass import OnePass
from seqgen.domain import Plan
from seqgen.errors import UsageError
from seqgen.finalizers import Finalizer, GreedyCTC, PrefixBeamCTC
from seqgen.logits import Ban, Sampling
from seqgen_peptides.constraint import PrecursorMass, fits, mass_windows
from seqgen_peptides.context import SpectrumContext
from seqgen_peptides.mass_finalizer import MassConstrainedCTC
from seqgen_peptides.model import PeptideModel
from seqgen_peptides.options import PeptideOptions
from seqgen_peptides.residues import PAD, STOP, Residues

if TYPE_CHECKING:
    from seqgen_peptides.casanovo import CasanovoModel


Model: TypeAlias = "PeptideModel | CasanovoModel"
"""What can be driven; a model of Casanovo has the autoregressive decoder only."""


def plan_batch(
    model: Model, spectra: SpectrumContext, decoder: str, options: PeptideOptions, seeds_B: Tensor
) -> Plan:
    """The parts that decode one batch.

    Raises:
        UsageError: the model has no such decoder.
    """
    search = _Search(model.residues, spectra, options)
    # Besides the residues there may be an N-terminal modification, and there is a stop.
    slots = options.max_length + 2
    recipe: Decoder
    if decoder == "ar":
        driven = model.ar
        recipe = Autoregressive(stop_ids=(STOP,), constraint=search.constraint())
    elif decoder == "beam":
        driven = model.ar
        recipe = search.beam()
    elif decoder == "nar":
        ours = _ours(model, decoder)
        driven, slots = ours.nar, ours.config.slots
        recipe = search.one_pass()
    elif decoder == "hybrid":
        ours = _ours(model, decoder)
        driven = ours.hybrid
        recipe = Hybrid(first=ours.first_pass(), second=search.beam())
    elif decoder == "block-diffusion":
        driven = _ours(model, decoder).block
        slots = -(-slots // options.block_length) * options.block_length
        recipe = BlockDiffusion(
            block_length=options.block_length,
            steps=options.steps,
            remasking=options.remasking,
            threshold=options.threshold,
            stop_ids=(STOP,),
            sampling=_RESIDUES,
        )
    elif decoder == "verify":
        ours = _ours(model, decoder)
        driven = ours.ar
        draft = DraftDecoder(model=ours.nar, decoder=search.one_pass(), slots=ours.config.slots)
        recipe = DraftAndVerify(
            draft=draft,
            fallback=search.beam,
            threshold=options.accept,
            fits=search.fits if options.precursor_constraint else None,
            drafts=options.top,
            stop_id=STOP,
        )
    else:
        raise UsageError(f"the peptides plugin has no decoder {decoder!r}")
    values_BS = torch.zeros(len(seeds_B), slots, dtype=torch.int64, device=search.mass_B.device)
    return Plan(recipe, driven, Canvas(values_BS, seeds=seeds_B), spectra)


_RESIDUES = Sampling(constraints=(Ban((PAD,)),))
"""Whatever a slot holds, it is a residue or the stop."""


class _Search:
    """Decoders that know the batch's precursors."""

    def __init__(
        self, residues: Residues, spectra: SpectrumContext, options: PeptideOptions
    ) -> None:
        assert spectra.mass_B is not None
        assert spectra.charge_B is not None
        assert spectra.precursor_mz_B is not None
        self.residues, self.options = residues, options
        self.mass_B, self.charge_B = spectra.mass_B, spectra.charge_B
        self.precursor_mz_B = spectra.precursor_mz_B

    def constraint(self, rows: Tensor | None = None) -> Constraint:
        """The precursor's mass as a constraint, of some rows or of all.

        Where it is off, any sequence of residues will do: padding is none. (A constraint, not a
        ban: scores stay the model's own, as Casanovo's are.)
        """
        if not self.options.precursor_constraint:
            return Automaton.banning([PAD], vocabulary=len(self.residues))
        precursors = (self.mass_B, self.charge_B, self.precursor_mz_B)
        chosen = precursors if rows is None else tuple(x[rows] for x in precursors)
        return PrecursorMass.for_batch(
            self.residues,
            *chosen,
            tol_ppm=self.options.precursor_tol_ppm,
            isotopes=self.options.isotopes,
            min_length=self.options.min_length,
            max_length=self.options.max_length,
        )

    def beam(self, rows: Tensor | None = None) -> Beam:
        """Beam search over some rows, or all."""
        options = self.options
        return Beam(
            beams=max(options.beams, options.top),
            keep=0 if self._may_be_refused else options.top,
            stop_ids=(STOP,),
            length_penalty=options.length_penalty,
            constraint=self.constraint(rows),
            score="mean-logit" if options.casanovo_beam else "log-probability",
            refill=not options.casanovo_beam,
        )

    @property
    def _may_be_refused(self) -> bool:
        """Whether answers may be no peptides (`answers.py`): then further ones serve."""
        return not self.options.precursor_constraint

    def one_pass(self) -> OnePass:
        """All slots at once, then CTC and the mass."""
        # The stop is a value of the other decoders only.
        return OnePass(finalizer=self._finalizer(), sampling=Sampling(constraints=(Ban((STOP,)),)))

    def _finalizer(self) -> Finalizer:
        options = self.options
        beams = max(options.beams, options.top)
        ctc: Finalizer = (
            GreedyCTC(blank=PAD) if beams == 1 else PrefixBeamCTC(blank=PAD, beams=beams)
        )
        if not options.precursor_constraint or options.mass_program == "false":
            return ctc
        return MassConstrainedCTC.for_batch(
            self.residues,
            self.mass_B,
            self.charge_B,
            self.precursor_mz_B,
            tol_ppm=options.precursor_tol_ppm,
            isotopes=options.isotopes,
            answers=options.top,
            min_length=options.min_length,
            draft=ctc if options.mass_program == "auto" else None,
        )

    def fits(self, values_BNS: Tensor, length_BN: Tensor) -> Tensor:
        """Which sequences weigh what their precursor does, bool [B, N]."""
        windows = mass_windows(
            self.mass_B,
            self.charge_B,
            self.precursor_mz_B,
            tol_ppm=self.options.precursor_tol_ppm,
            isotopes=self.options.isotopes,
        )
        return fits(
            self.residues, values_BNS, length_BN, *windows, min_length=self.options.min_length
        )


def _ours(model: Model, decoder: str) -> PeptideModel:
    if not isinstance(model, PeptideModel):
        raise UsageError(
            f"this model has no decoder {decoder!r}",
            why="Casanovo's models are autoregressive",
            fix="--decoder beam or --decoder ar, or a model of `seqgen train --plugin peptides`",
        )
    return model
