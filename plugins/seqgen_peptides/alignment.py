"""Where the residues of a known peptide belong among the slots of the one-pass decoder.

CTC is slow to start: before it has found out which slot says what, it learns little but how often
each residue occurs (RefineNovo, arXiv 2506.13485, answers it with a curriculum). But the slots
divide the peptide's mass evenly (`inputs.SlotInputs`), and a residue's place in the mass is known
in training. So training begins with a cross-entropy that asks for it there.

Shapes: B spectra, N residues, S slots, V vocabulary.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from seqgen_peptides.residues import PAD


def aligned_loss(
    logits_BSV: Tensor, targets_BN: Tensor, lengths_B: Tensor, masses_V: Tensor
) -> Tensor:
    """Cross-entropy of the slots against residues and blanks where the masses put them.

    The mean over spectra of the sum over slots, divided by the number of residues as CTC's is.
    """
    wanted_BS = align_by_mass(targets_BN, lengths_B, masses_V, logits_BSV.shape[1])
    loss_BS = F.cross_entropy(
        logits_BSV.float().flatten(0, 1), wanted_BS.flatten(), reduction="none"
    ).view(wanted_BS.shape)
    return (loss_BS.sum(dim=1) / lengths_B.clamp(min=1)).mean()


def align_by_mass(targets_BN: Tensor, lengths_B: Tensor, masses_V: Tensor, slots: int) -> Tensor:
    """Ids [B, S]: each residue in the slot that holds the middle of its mass, blanks elsewhere.

    Residues keep their order and a slot each: a residue whose slot is taken goes to the next one.
    What does not fit into the slots is left out.
    """
    place_N = torch.arange(targets_BN.shape[1], device=targets_BN.device)
    inside_BN = place_N < lengths_B[:, None]
    mass_BN = masses_V[targets_BN] * inside_BN
    middle_BN = mass_BN.cumsum(dim=1) - mass_BN / 2
    part_BN = middle_BN / mass_BN.sum(dim=1, keepdim=True).clamp(min=1e-9)
    slot_BN = (part_BN * slots).long().clamp(min=0)
    # Strictly rising, and with room for the residues that follow.
    slot_BN = (slot_BN - place_N).cummax(dim=1).values + place_N
    slot_BN = torch.minimum(slot_BN, slots - lengths_B[:, None] + place_N)
    inside_BN = inside_BN & (slot_BN >= 0) & (slot_BN < slots)
    wanted = torch.full((len(targets_BN), slots + 1), PAD, device=targets_BN.device)
    wanted = wanted.scatter(1, torch.where(inside_BN, slot_BN, slots), targets_BN)
    return wanted[:, :slots]
