"""What enters a peptide decoder at a slot: the residue, the masses on both sides, and evidence.

Peptides are decoded from the C-terminus, so the residues before a slot are a suffix of the peptide:
their mass m is known exactly, and so is the mass M - m that is left (ContraNovo, Jin et al. 2024).

Evidence (`evidence.py`) travels behind the embedding, in further channels: `EvidenceBackbone` adds
it to what the transformer reads and hands it on to the head, which scores every candidate by it.

Shapes: N rows, R slots fed, S slots, D width, V vocabulary, I ions.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqgen.attention import MaskView
from seqgen.cache import Cache
from seqgen.canvas import COMMITTED, Canvas, take
from seqgen.heads import CategoricalHead
from seqgen.heads.base import Proposal, Request
from seqgen.inputs import MaskedInputs, ShiftedInputs
from seqgen.logits import sample_from
from seqgen.model import Context
from seqgen.orders import OrderTable
from seqgen.transformer import Transformer
from seqgen_peptides.context import SpectrumContext
from seqgen_peptides.encoder import MAX_CHARGE
from seqgen_peptides.evidence import (
    EVIDENCE_STD,
    IONS,
    WAYS,
    ion_evidence,
    repeat_rows,
    slot_evidence,
)
from seqgen_peptides.residues import PAD, Residues
from seqgen_peptides.sines import MassSines

FARTHEST = 16
"""Slots beyond the last known mass that are told apart."""


class MassFeatures(nn.Module):
    """Precursor, known mass and remaining mass of a slot -> [N, R, D + evidence]."""

    masses_V: Tensor

    def __init__(
        self, width: int, residues: Residues, *, sines: int, running: bool, evidence: bool
    ) -> None:
        super().__init__()
        self.sines = MassSines(sines)
        self.running, self.evidence = running, evidence
        self.project = nn.Linear((2 if running else 1) * sines, width)
        self.charge = nn.Embedding(MAX_CHARGE + 1, width)
        nn.init.normal_(self.charge.weight, std=width**-0.5)
        # Not a weight, and float64 whatever the type of the weights.
        table = torch.tensor(residues.table(), dtype=torch.float64)
        self.register_buffer("masses_V", table, persistent=False)

    def forward(
        self,
        x_NRD: Tensor,
        prefix_NR: Tensor,
        context: Context | None,
        known_NR: Tensor | None = None,
    ) -> Tensor:
        """Add the masses; append the evidence, for the slots in `known_NR` (None for all)."""
        assert isinstance(context, SpectrumContext)
        assert context.charge_B is not None
        rows, dtype = x_NRD.shape[0], self.project.weight.dtype
        total_N1 = repeat_rows(context.residue_mass_B, rows)[:, None]
        charge_N = repeat_rows(context.charge_B, rows).clamp(max=MAX_CHARGE)
        if self.running:
            masses = torch.cat([self.sines(prefix_NR), self.sines(total_N1 - prefix_NR)], dim=-1)
        else:
            masses = self.sines(total_N1).expand(-1, x_NRD.shape[1], -1)
        x_NRD = x_NRD + self.project(masses.to(dtype)) + self.charge(charge_N)[:, None]
        if not self.evidence:
            return x_NRD
        found = ion_evidence(context, prefix_NR, self.masses_V)
        if known_NR is not None:
            found = found * known_NR[..., None, None]
        return torch.cat([x_NRD, found.flatten(2).to(x_NRD.dtype)], dim=-1)

    def _apply(self, fn: object, recurse: bool = True) -> MassFeatures:
        """Move to a device; the masses stay float64 whatever the type of the weights."""
        kept = self.masses_V
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.masses_V = kept.to(self.masses_V.device)
        return self


class ResidueInputs(ShiftedInputs):
    """Inputs of the autoregressive decoder: the previous residue, and the masses so far."""

    def __init__(self, embedding: nn.Embedding, features: MassFeatures) -> None:
        super().__init__(embedding, start_id=PAD)
        self.features = features

    def forward(
        self,
        canvas: Canvas,
        slots_BR: Tensor,
        valid_BR: Tensor | None = None,
        context: Context | None = None,
    ) -> Tensor:
        x = super().forward(canvas, slots_BR, valid_BR, context)
        masses_NS = self.features.masses_V[canvas.values]
        masses_NS = masses_NS * (canvas.state_BS == COMMITTED)
        sums_NS = F.pad(masses_NS.cumsum(dim=1), (1, 0))
        out: Tensor = self.features(x, take(sums_NS, slots_BR), context)
        return out

    def embed(self, ids_BS: Tensor, context: Context | None = None) -> Tensor:
        x = super().embed(ids_BS, context)
        out: Tensor = self.features(x, self.features.masses_V[ids_BS].cumsum(dim=1), context)
        return out


class MaskedResidueInputs(MaskedInputs):
    """Inputs of the block-diffusion decoder: a residue or the mask, and the masses known so far.

    Behind the first undecided slot no mass is exact: there the last known mass enters, with the
    distance to it, and no evidence.
    """

    def __init__(self, embedding: nn.Embedding, mask_id: int, features: MassFeatures) -> None:
        super().__init__(embedding, mask_id=mask_id)
        self.features = features
        self.distance = nn.Embedding(FARTHEST + 1, embedding.embedding_dim)
        nn.init.zeros_(self.distance.weight)

    def forward(
        self,
        canvas: Canvas,
        slots_BR: Tensor,
        valid_BR: Tensor | None = None,
        context: Context | None = None,
    ) -> Tensor:
        open_BR = canvas.open_at(slots_BR, valid_BR)
        ids_BR = torch.where(open_BR, self.mask_id, canvas.take(slots_BR))
        decided_BS = canvas.state_BS == COMMITTED
        front_BS = _front(~decided_BS)
        sums_BS = _before(self.features.masses_V[canvas.values] * decided_BS)
        front_BR = take(front_BS, slots_BR)
        prefix_BR = sums_BS.gather(1, front_BR)
        return self._features(ids_BR, prefix_BR, slots_BR - front_BR, context)

    def embed(self, ids_BR: Tensor, slots_BR: Tensor, context: Context | None = None) -> Tensor:
        """Embeddings of ids at all slots from 0 on."""
        masked_BR = ids_BR == self.mask_id
        masses_BR = self.features.masses_V[torch.where(masked_BR, PAD, ids_BR)]
        front_BR = _front(masked_BR)
        prefix_BR = _before(masses_BR).gather(1, front_BR)
        return self._features(ids_BR, prefix_BR, slots_BR - front_BR, context)

    def embed_copies(
        self,
        noisy_BS: Tensor,
        clean_BS: Tensor,
        table: OrderTable,
        context: Context | None = None,
    ) -> Tensor:
        # What is masked in a block hides the masses behind it in the noisy copy of this block only.
        masked_BS = noisy_BS == self.mask_id
        slots_S = torch.arange(clean_BS.shape[1], device=clean_BS.device)
        starts = torch.tensor(table.starts, device=clean_BS.device)
        begin_S = starts[table.group_S]
        count_BS = F.pad(masked_BS.long().cumsum(dim=1), (1, 0))
        hidden_BS = count_BS[:, :-1] - count_BS[:, begin_S]
        front_BS = torch.where(hidden_BS == 0, slots_S, 0).cummax(dim=1).values
        sums_BS = _before(self.features.masses_V[clean_BS])
        noisy = self._features(noisy_BS, sums_BS.gather(1, front_BS), slots_S - front_BS, context)
        clean = self._features(clean_BS, sums_BS, torch.zeros_like(front_BS), context)
        return torch.cat([noisy, clean], dim=1)

    def _features(
        self, ids_BR: Tensor, prefix_BR: Tensor, distance_BR: Tensor, context: Context | None
    ) -> Tensor:
        x = self.embedding(ids_BR) + self.distance(distance_BR.clamp(max=FARTHEST))
        out: Tensor = self.features(x, prefix_BR, context, distance_BR == 0)
        return out


class SlotInputs(nn.Module):
    """Inputs of the non-autoregressive decoder: a vector a slot, and the precursor.

    With running masses the slots divide the peptide's mass evenly: each is told which mass lies
    before it and which behind. Blanks leave a residue free to settle at the slot where it belongs.
    With evidence each slot also gets the residues that two peaks enclose there.
    """

    settles_open = True
    first_slot = 0

    def __init__(self, slots: int, features: MassFeatures, *, evidence: bool) -> None:
        super().__init__()
        width = features.project.out_features
        self.slot = nn.Embedding(slots, width)
        nn.init.normal_(self.slot.weight, std=width**-0.5)
        self.features = features
        if evidence:
            self.evidence = nn.Linear(len(features.masses_V) * WAYS, width, bias=False)
            nn.init.normal_(self.evidence.weight, std=EVIDENCE_STD)
        self.sees_evidence = evidence

    def forward(
        self,
        canvas: Canvas,
        slots_BR: Tensor,
        valid_BR: Tensor | None = None,
        context: Context | None = None,
    ) -> Tensor:
        return self.embed(slots_BR, canvas.batch, context)

    def embed(self, slots_BR: Tensor, rows: int, context: Context | None) -> Tensor:
        """Embeddings [rows, R, D] of slots [rows or 1, R]."""
        x_NRD: Tensor = self.slot(slots_BR).expand(rows, -1, -1)
        assert isinstance(context, SpectrumContext)
        part_R = (slots_BR + 0.5).double() / self.slot.num_embeddings
        prefix_NR = part_R * repeat_rows(context.residue_mass_B, rows)[:, None]
        out: Tensor = self.features(x_NRD, prefix_NR, context)
        if self.sees_evidence:
            found = slot_evidence(context, self.features.masses_V, self.slot.num_embeddings)
            found = repeat_rows(found.flatten(2), rows).to(out.dtype)
            out = out + take(self.evidence(found), slots_BR)
        return out


class EvidenceBackbone(nn.Module):
    """A transformer that reads evidence beside embeddings and hands it on behind its states."""

    def __init__(self, transformer: Transformer, vocabulary: int) -> None:
        super().__init__()
        self.transformer = transformer
        self.project = nn.Linear(vocabulary * IONS, transformer.config.width, bias=False)
        nn.init.normal_(self.project.weight, std=EVIDENCE_STD)

    def forward(
        self,
        x_BRD: Tensor,
        coordinates_BRA: Tensor,
        *,
        view: MaskView | None = None,
        cache: Cache | None = None,
        context: Context | None = None,
    ) -> Tensor:
        width = self.transformer.config.width
        x_BRD, found = x_BRD[..., :width], x_BRD[..., width:]
        x_BRD = x_BRD + self.project(found)
        hidden = self.transformer(x_BRD, coordinates_BRA, view=view, cache=cache, context=context)
        return torch.cat([hidden, found.to(hidden.dtype)], dim=-1)

    def new_cache(self, batch: int, capacity: int) -> Cache:
        return self.transformer.new_cache(batch, capacity)

    def prepare(self, context: Context) -> Context:
        return self.transformer.prepare(context)


class EvidenceHead(CategoricalHead):
    """A linear layer to logits, and a score of each candidate's evidence."""

    def __init__(self, width: int, vocabulary: int, *, label_smoothing: float = 0.0) -> None:
        super().__init__(width, vocabulary, bias=True, label_smoothing=label_smoothing)
        self.width = width
        self.mix = nn.Linear(IONS, 16)
        self.score = nn.Parameter(torch.zeros(vocabulary, 16))

    def logits(self, hidden_BQD: Tensor) -> Tensor:
        hidden, found = hidden_BQD[..., : self.width], hidden_BQD[..., self.width :]
        found = found.view(*found.shape[:-1], self.vocabulary, IONS)
        scored = (F.silu(self.mix(found)) * self.score).sum(dim=-1)
        return super().logits(hidden) + scored

    def propose(self, hidden_BQD: Tensor, request: Request) -> Proposal:
        return sample_from(self.logits(hidden_BQD), request)


def _front(open_BS: Tensor) -> Tensor:
    """For each slot: itself if all before it are decided, else the first open slot."""
    slots_S = torch.arange(open_BS.shape[1], device=open_BS.device)
    before_BS = _before(open_BS.long())
    return torch.where(before_BS == 0, slots_S, 0).cummax(dim=1).values


def _before(x_BS: Tensor) -> Tensor:
    """Sums of what lies before each slot."""
    return F.pad(x_BS.cumsum(dim=1), (1, 0))[:, :-1]
