"""The CTC loss, and the log-probabilities that every part of CTC reads.

Shapes: B rows, S slots, N target values, V vocabulary (the blank among them).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def ctc_loss(
    logits_BSV: Tensor,
    targets_BN: Tensor,
    lengths_B: Tensor,
    *,
    slots_B: Tensor | None = None,
    blank: int,
    zero_infinity: bool = True,
) -> Tensor:
    """Mean over rows of -log p(target), each divided by the number of its values (at least 1).

    Graves et al. 2006, eq. 14; in float32 whatever the logits are.

    Args:
        targets_BN: ids without blanks; what lies behind `lengths_B` means nothing.
        lengths_B: values of each row; 0 is allowed (nothing but blanks).
        slots_B: slots in use a row; all if None.
        zero_infinity: a target that does not fit into its slots counts as 0, without a gradient;
            otherwise the loss is infinite.
    """
    batch, slots = logits_BSV.shape[:2]
    if slots_B is None:
        slots_B = torch.full((batch,), slots, dtype=torch.int64, device=logits_BSV.device)
    log_p_SBV = logits_BSV.float().log_softmax(dim=-1).transpose(0, 1)
    # Padding such as -1 is never read as a value, but must not be an index out of range either.
    return F.ctc_loss(
        log_p_SBV,
        targets_BN.clamp(min=0),
        slots_B,
        lengths_B,
        blank=blank,
        reduction="mean",
        zero_infinity=zero_infinity,
    )


def log_probabilities(logits_BSV: Tensor, slots_B: Tensor | None, blank: int) -> Tensor:
    """Log-probabilities [B, S, V], float32; slots that are not in use say blank for certain.

    Such a slot changes neither a path's sequence nor its probability, so no search over slots has
    to know that rows differ.
    """
    log_p_BSV = logits_BSV.float().log_softmax(dim=-1)
    if slots_B is None:
        return log_p_BSV
    slots, vocabulary = logits_BSV.shape[1:]
    certain_V = torch.full((vocabulary,), float("-inf"), device=logits_BSV.device)
    certain_V[blank] = 0.0
    used_BS = torch.arange(slots, device=logits_BSV.device) < slots_B[:, None]
    return torch.where(used_BS[..., None], log_p_BSV, certain_V)
