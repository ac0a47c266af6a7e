"""Training batches: simulated ions of a few peptides, drawn and turned into spectra anew each time.

Shapes: B spectra, L residues, C cleavages, S slots.
"""

from __future__ import annotations

import sys
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from seqgen.errors import InputError
from seqgen.seeds import item_seed
from seqgen_peptides.augment import AugmentConfig, Fragments, spectra
from seqgen_peptides.preprocess import PreprocessConfig
from seqgen_peptides.residues import PAD, STOP, Residues
from seqgen_peptides.simulate import Simulated, read_peptides, simulate
from seqgen_peptides.spectra import SpectrumBatch

if TYPE_CHECKING:
    from numpy.typing import NDArray

HELD_OUT = 200
"""One peptide in this many is for validation, chosen by its sequence: all its forms with it."""

POOL = 8
"""Batches drawn together and sorted by length, so that little of a batch is padding."""


@dataclass(frozen=True)
class PeptideBatch:
    """Spectra and their peptides.

    Attributes:
        spectra: preprocessed.
        targets_BS: ids from the C-terminus, then the stop; padding behind.
        lengths_B: ids before the stop.
    """

    spectra: SpectrumBatch
    targets_BS: Tensor
    lengths_B: Tensor

    @property
    def valid_BS(self) -> Tensor:
        """Slots in use, the stop included."""
        slots = torch.arange(self.targets_BS.shape[1], device=self.targets_BS.device)
        return slots <= self.lengths_B[:, None]

    def to(self, device: torch.device) -> PeptideBatch:
        """The same on another device."""
        return PeptideBatch(
            self.spectra.to(device), self.targets_BS.to(device), self.lengths_B.to(device)
        )


class PeptideBatches:
    """Batches of a simulated set, each a function of (seed, step, rank).

    Args:
        found: predicted ions.
        noise: m/z and relative intensity [spectra, N] of real unmatched peaks to draw from.
    """

    def __init__(
        self,
        found: Simulated,
        residues: Residues,
        augment: AugmentConfig,
        preprocess: PreprocessConfig,
        *,
        size: int,
        seed: int,
        noise: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        self.found, self.residues = found, residues
        self.augment, self.preprocess = augment, preprocess
        self.size, self.seed, self.noise = size, seed, noise
        self.masses_V = torch.tensor(residues.table(), dtype=torch.float64)
        self.n_terminal_V = torch.tensor(residues.n_terminal())
        self._held_out = _held_out(found, residues)
        self.rows = np.flatnonzero(~self._held_out)
        self._epoch: tuple[int, NDArray[np.int64]] = (-1, self.rows)

    def batch(self, step: int, rank: int = 0, world: int = 1) -> PeptideBatch:
        """The batch of a step."""
        place = step * world + rank
        per_pool = POOL * self.size
        pool, part = divmod(place, POOL)
        rows = self._drawn(pool * per_pool, per_pool)
        lengths = np.diff(self.found.token_ends, prepend=0)[rows]
        rows = rows[np.argsort(lengths, kind="stable")]
        order = np.random.default_rng(item_seed(self.seed, f"pool {pool}")).permutation(POOL)
        start = int(order[part]) * self.size
        return self.of(rows[start : start + self.size], item_seed(self.seed, f"batch {place}"))

    def held_out(self) -> NDArray[np.int64]:
        """Rows that are never trained on."""
        return np.flatnonzero(self._held_out)

    def of(self, rows: NDArray[np.int64], seed: int) -> PeptideBatch:
        """A batch of these rows of the set, the augmentation drawn from `seed`."""
        found, B = self.found, len(rows)
        generator = torch.Generator().manual_seed(seed & (2**63 - 1))
        begins = np.concatenate([[0], found.token_ends[:-1]])[rows]
        counts = found.token_ends[rows] - begins
        L = int(counts.max())
        place_L = np.arange(L)
        inside_BL = place_L < counts[:, None]
        index = np.where(inside_BL, begins[:, None] + place_L, 0)
        ids_BL = torch.from_numpy(np.where(inside_BL, found.tokens[index], PAD).astype(np.int64))

        cuts = np.concatenate([[0], found.cleavage_ends[:-1]])[rows]
        cleavages = found.cleavage_ends[rows] - cuts
        C = int(cleavages.max())
        cut_BC = np.arange(C) < cleavages[:, None]
        index = np.where(cut_BC, cuts[:, None] + np.arange(C), 0)
        ions_4BC = np.where(cut_BC, found.intensities[:, index].astype(np.float32), 0)

        masses_BL = self.masses_V[ids_BL]
        # A modification of the N-terminus is no residue: its mass belongs to the first one.
        leads_B1 = self.n_terminal_V[ids_BL[:, :1]]
        merged = masses_BL.roll(-1, dims=1)
        merged[:, 0] += masses_BL[:, 0]
        merged[:, -1] = 0
        masses_BL = torch.where(leads_B1, merged, masses_BL)
        counts_B = torch.from_numpy(counts)
        made = spectra(
            Fragments(
                masses_BL,
                counts_B - leads_B1[:, 0].long(),
                torch.from_numpy(ions_4BC).transpose(0, 1).contiguous(),
                torch.from_numpy(found.charges[rows].astype(np.int64)),
            ),
            self.augment,
            self.preprocess,
            generator,
            noise_BN=self._noise(B, generator),
        )
        return PeptideBatch(made, reversed_targets(ids_BL, counts_B), counts_B)

    def _drawn(self, start: int, count: int) -> NDArray[np.int64]:
        """Rows start..start+count of an endless sequence of shuffled epochs."""
        drawn = []
        while count > 0:
            epoch, place = divmod(start, len(self.rows))
            if self._epoch[0] != epoch:
                rng = np.random.default_rng(item_seed(self.seed, f"epoch {epoch}"))
                self._epoch = (epoch, rng.permutation(self.rows))
            part = self._epoch[1][place : place + count]
            drawn.append(part)
            start, count = start + len(part), count - len(part)
        return np.concatenate(drawn)

    def _noise(self, rows: int, generator: torch.Generator) -> tuple[Tensor, Tensor] | None:
        if self.noise is None:
            return None
        chosen = torch.randint(len(self.noise[0]), (rows,), generator=generator)
        return self.noise[0][chosen], self.noise[1][chosen]


def reversed_targets(ids_BL: Tensor, lengths_B: Tensor) -> Tensor:
    """Ids from the C-terminus with a stop behind, [B, L + 1], from ids from the N-terminus."""
    slots = torch.arange(ids_BL.shape[1] + 1)
    index = (lengths_B[:, None] - 1 - slots).clamp(min=0)
    ids = ids_BL.gather(1, index)
    ids = torch.where(slots < lengths_B[:, None], ids, PAD)
    return torch.where(slots == lengths_B[:, None], STOP, ids)


def load_simulated(
    source: Path, residues: Residues, *, count: int, seed: int, folder: Path
) -> Simulated:
    """Simulated ions from an npz file, or made from a list of peptides (and kept in `folder`).

    Raises:
        InputError: the source is missing or of another kind.
        PluginError: a list is given and ms2pip is not installed.
    """
    if not source.is_file():
        raise InputError(f"{source} does not exist", fix="give a list of peptides or an npz file")
    if source.suffix == ".npz":
        try:
            return Simulated.load(source)
        except (OSError, ValueError, TypeError) as error:
            raise InputError(
                f"{source} holds no simulated spectra",
                why=str(error).splitlines()[0],
                fix="make it with python -m seqgen_peptides.simulate",
            ) from error
    print(f"simulating {count} spectra from {source}", file=sys.stderr, flush=True)
    where = folder / "simulated"
    return simulate(read_peptides(source), count, seed=seed, folder=where, residues=residues)


def _held_out(found: Simulated, residues: Residues) -> NDArray[np.bool_]:
    """Which peptides are for validation: by the bare sequence, so that no form of it leaks."""
    letters = np.zeros(256, dtype=np.uint8)
    for place, token in enumerate(residues.tokens):
        # An N-terminal modification counts as nothing.
        letters[place + 2] = 0 if token.endswith("-") else ord(token[0])
    bare = letters[found.tokens].tobytes()
    ends = found.token_ends.tolist()
    begins = [0, *ends[:-1]]
    chosen = [
        zlib.crc32(bare[a:b].lstrip(b"\0")) % HELD_OUT == 0
        for a, b in zip(begins, ends, strict=True)
    ]
    return np.array(chosen)
