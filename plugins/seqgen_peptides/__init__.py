"""The peptides plugin's light module: what it registers. Nothing heavy is imported here.

The work sits in `seqgen_peptides.domain.PeptidesDomain`, imported when the domain is used.
"""

from __future__ import annotations

from collections.abc import Sequence

from seqgen.domain import DomainInfo
from seqgen.hookspecs import hookimpl


class PeptidesPlugin:
    """De novo peptide sequencing: one encoder, six ways to decode its residues."""

    api = 1

    @hookimpl
    def seqgen_domains(self) -> Sequence[DomainInfo]:
        return [
            DomainInfo(
                name="peptides",
                summary="De novo peptide sequencing from MS/MS spectra",
                factory="seqgen_peptides.domain:PeptidesDomain",
                inputs="MGF, mzML, mzXML (gzip too): files, folders, globs, -",
                formats=("jsonl", "mztab", "tsv"),
                decoders={
                    "beam": "the best of several peptides that fit the precursor's mass",
                    "ar": "one residue after another from the C-terminus, greedy",
                    "nar": "all residues in one pass (CTC), with an exact mass program",
                    "hybrid": "beam search that attends to the one-pass decoder's states",
                    "block-diffusion": "blocks from the C-terminus, each filled in a few passes",
                    "verify": "the answer of nar if ar agrees, else beam search",
                },
                default_decoder="beam",
                extra="peptides",
                batch_size=32,
            )
        ]


plugin = PeptidesPlugin()
