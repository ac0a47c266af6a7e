"""The peptides domain (being written: only training so far)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PeptideOptions:
    """Options of `--set key=value`."""


class PeptidesDomain:
    """De novo sequencing."""

    options = PeptideOptions

    def training(self):
        from seqgen_peptides.training import PeptideTask

        return PeptideTask()
