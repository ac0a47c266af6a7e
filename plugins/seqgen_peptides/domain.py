"""The peptides domain: tandem mass spectra in, peptide sequences out."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seqgen.decoders.base import Generated
from seqgen.domain import Fields, Plan
from seqgen.errors import InputError, UsageError
from seqgen.model import Context
from seqgen.registry import Card
from seqgen.training.task import TrainingTask
from seqgen.weights import local_files
from seqgen_peptides.answers import PROBLEM, about, fields_of, join_charges
from seqgen_peptides.context import SpectrumContext
from seqgen_peptides.decoding import Model, plan_batch
from seqgen_peptides.files import SpectrumFiles
from seqgen_peptides.formats import write_rows
from seqgen_peptides.metrics import score
from seqgen_peptides.model import load_model
from seqgen_peptides.options import PeptideOptions
from seqgen_peptides.preprocess import PreprocessConfig, preprocess
from seqgen_peptides.readers import list_spectra, read_spectrum, read_title
from seqgen_peptides.residues import Residues
from seqgen_peptides.spectra import SpectrumBatch, SpectrumItem


@dataclass(frozen=True)
class Encoded(Context):
    """An encoded batch, and the vocabulary that its answers are written in.

    Attributes:
        spectra: what the decoders attend to.
        residues: the model's.
    """

    spectra: SpectrumContext | None = None
    residues: Residues | None = None


class PeptidesDomain:
    """De novo sequencing."""

    options = PeptideOptions

    def __init__(self) -> None:
        self._files = SpectrumFiles()
        self._settings: Mapping[str, Any] = {}
        self._residues = Residues()
        self._preprocess = PreprocessConfig()

    def with_settings(self, settings: Mapping[str, Any]) -> PeptidesDomain:
        """The same domain; mzTab names these settings."""
        other = copy.copy(self)
        other._settings = settings
        return other

    def load(self, source: str, options: PeptideOptions) -> Iterator[SpectrumItem]:
        yield from list_spectra(source, self._files)

    def example(self) -> list[str]:
        return [str(files("seqgen_peptides") / "assets" / "example.mgf")]

    def build(self, card: Card, device: torch.device, dtype: torch.dtype) -> Model:
        if dtype != torch.float32:
            raise UsageError(
                f"the peptides plugin computes in float32, not {dtype}", fix="--dtype float32"
            )
        path = local_files(card)[0]
        model: Model
        if path.suffix == ".ckpt":
            from seqgen_peptides.casanovo import load_casanovo

            model = load_casanovo(path).to(device)
        else:
            model = load_model(path).to(device)
        # What the model cannot take is refused when it is read, before it is in a batch.
        self._preprocess, self._residues = model.config.preprocess, model.residues
        return model

    def split(self, item: SpectrumItem, options: PeptideOptions) -> Iterator[SpectrumItem]:
        """The spectrum with its peaks, once for every charge that it may have."""
        config = options.preprocess(self._preprocess)
        piece = read_spectrum(item, self._files)
        charges = piece.charges or options.unknown_charges
        if not charges:
            raise InputError(
                "the precursor has no charge",
                fix="state it (CHARGE=2+), or name the charges to try: --set unknown_charges=2,3",
            )
        # A charge that the model does not know fails only where there is no other.
        known = [z for z in charges if 1 <= z <= config.max_charge]
        usable, problem = False, None
        for charge in known or charges[:1]:
            one = replace(piece, charges=(charge,))
            try:
                _preprocessed(one, config)
            except InputError as error:
                problem = error
                continue
            usable = True
            yield one
        if problem is not None and not usable:
            raise problem

    def condition(
        self, model: Model, pieces: Sequence[SpectrumItem], options: PeptideOptions
    ) -> Encoded:
        config = options.preprocess(model.config.preprocess)
        peaks = [_preprocessed(piece, config) for piece in pieces]
        batch = SpectrumBatch.of(
            peaks,
            [piece.precursor_mz for piece in pieces if piece.precursor_mz is not None],
            [piece.charge for piece in pieces if piece.charge is not None],
        )
        device = next(model.parameters()).device
        return Encoded(spectra=model.listen(batch.to(device)), residues=model.residues)

    def plan(
        self,
        model: Model,
        context: Context | None,
        decoder: str,
        options: PeptideOptions,
        seeds: Tensor,
    ) -> Plan:
        assert isinstance(context, Encoded)
        assert context.spectra is not None
        return plan_batch(model, context.spectra, decoder, options, seeds)

    def finish(
        self,
        generated: Generated,
        pieces: Sequence[SpectrumItem],
        context: Context | None,
        options: PeptideOptions,
    ) -> list[Fields]:
        assert isinstance(context, Encoded)
        assert context.residues is not None
        return fields_of(generated, pieces, context.residues, options)

    def join(self, item: SpectrumItem, parts: Sequence[Fields], options: PeptideOptions) -> Fields:
        joined = dict(join_charges(parts, options.top))
        if PROBLEM in joined:
            raise InputError(joined[PROBLEM])
        return joined

    def describe(self, item: SpectrumItem) -> Fields:
        """What a row says of a spectrum that failed."""
        return about(replace(item, title=item.title or read_title(item, self._files)))

    def write(self, rows: Iterable[Mapping[str, Any]], destination: Path, format: str) -> None:
        write_rows(rows, destination, format, settings=self._settings, residues=self._residues)

    def score(
        self, rows: Sequence[Mapping[str, Any]], items: Sequence[SpectrumItem]
    ) -> dict[str, float]:
        """`metrics.score` over the spectra whose reference can be read; the others are named."""
        rows, items, bad = self._with_readable_references(rows, items)
        found = score(rows, items, residues=self._residues)
        return {**found, "unreadable_references": float(bad)} if bad else found

    def chart(
        self, rows: Sequence[Mapping[str, Any]], items: Sequence[SpectrumItem], format: str
    ) -> bytes:
        """Precision against coverage, by length and by charge."""
        from seqgen_peptides.plots import precision_chart

        rows, items, _ = self._with_readable_references(rows, items)
        return precision_chart(rows, items, format=format, residues=self._residues)

    def plot(self, row: Mapping[str, Any], item: SpectrumItem, options: PeptideOptions) -> bytes:
        """The spectrum with the ions of its peptide."""
        from seqgen_peptides.plots import annotated_spectrum

        piece = read_spectrum(item, self._files)
        return annotated_spectrum(row, piece, residues=self._residues)

    def training(self) -> TrainingTask:
        from seqgen_peptides.training import PeptideTask

        return PeptideTask()

    def _with_readable_references(
        self, rows: Sequence[Mapping[str, Any]], items: Sequence[SpectrumItem]
    ) -> tuple[list[Mapping[str, Any]], list[SpectrumItem], int]:
        """Rows and items without those whose reference cannot be read, and how many these are.

        Such a reference never stops a spectrum from being decoded; it cannot be scored. Nor can a
        spectrum without one, if others have one.
        """
        pairs = []
        annotated = any(item.peptide for item in items)
        for row, item in zip(rows, items, strict=True):
            try:
                if item.peptide:
                    self._residues.covering([item.peptide])
                elif annotated:
                    raise InputError("there is none", why="no line SEQ=PEPTIDE")
            except InputError as error:
                why = f" ({error.why})" if error.why else ""
                _LOG.warning("reference of %s not scored: %s%s", item.id, error.what, why)
                continue
            pairs.append((row, item))
        bad = len(rows) - len(pairs)
        return [row for row, _ in pairs], [item for _, item in pairs], bad


_LOG = logging.getLogger("seqgen")

HEAVIEST = 20_000.0
"""Da; no peptide that a model could write is heavier."""


def _preprocessed(piece: SpectrumItem, config: PreprocessConfig) -> tuple[Any, Any]:
    """The peaks of a piece as a model sees them: m/z and intensity [P]."""
    assert piece.mz is not None
    assert piece.intensity is not None
    assert piece.precursor_mz is not None
    assert piece.charge is not None
    if piece.size > HEAVIEST:
        raise InputError(
            f"the precursor's mass is {piece.size:g} Da",
            why=f"peptides weigh up to {HEAVIEST:g} Da",
        )
    return preprocess(piece.mz, piece.intensity, piece.precursor_mz, piece.charge, config)
