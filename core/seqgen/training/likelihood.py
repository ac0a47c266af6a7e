"""What a model thinks of given sequences: exact for autoregression, a bound for masked diffusion.

Divided by ln 2 and the number of characters they are bits per character, the figure in which
models of one text are compared whatever their decoder.

Shapes: B rows, S slots.
"""

from __future__ import annotations

import torch
from torch import Tensor

from seqgen.model import Context, SequenceModel
from seqgen.orders import Order
from seqgen.training.objectives import masked_losses, scored_slots, shifted_losses


def nats(
    model: SequenceModel,
    targets_BS: Tensor,
    valid_BS: Tensor | None = None,
    *,
    context: Context | None = None,
    fixed_BS: Tensor | None = None,
) -> Tensor:
    """-log p of each row [B] under a model with shifted inputs.

    Args:
        targets_BS: ids, or vectors [B, S, C].
        valid_BS: slots in use; None for all.
        fixed_BS: slots that are given (a prompt) and do not count.
    """
    loss, scored = shifted_losses(model, targets_BS, valid_BS, context=context, fixed_BS=fixed_BS)
    return (loss * scored).sum(dim=1)


def nats_bound(
    model: SequenceModel,
    targets_BS: Tensor,
    valid_BS: Tensor | None = None,
    *,
    order: Order,
    generator: torch.Generator,
    context: Context | None = None,
    fixed_BS: Tensor | None = None,
) -> Tensor:
    """An unbiased draw of the upper bound of -log p of each row [B], with masked inputs.

    Inside a group the bound averages over all orders of its slots (Hoogeboom et al. 2022, arXiv
    2110.02037, eq. 3): the sum over m of the mean loss of m masked slots, which is what masked
    diffusion's continuous bound comes to (BD3-LM, arXiv 2503.09573, eq. 8), without the variance
    of drawn rates. One order is drawn a group; as many passes as the widest group has slots.
    Groups of one have one order, so there the bound is -log p itself.

    Args:
        targets_BS: ids, or vectors [B, S, C].
        generator: source of the orders, on the CPU or on the targets' device.
    """
    table = order.table(targets_BS.shape[1], targets_BS.device)
    scored_BS = scored_slots(targets_BS, valid_BS, fixed_BS)
    key = torch.rand(scored_BS.shape, generator=generator, device=generator.device)
    key = key.to(targets_BS.device)
    group_S = table.group_S
    # rank of a slot among the scored ones of its group: how many come before it
    same_SS = group_S[:, None] == group_S
    before_BSS = (key[:, None, :] < key[:, :, None]) & same_SS & scored_BS[:, None, :]
    rank_BS = before_BSS.sum(dim=2)
    count_BS = (same_SS & scored_BS[:, None, :]).sum(dim=2)
    total_B = torch.zeros(len(targets_BS), device=targets_BS.device)
    for masked in range(1, table.widest + 1):
        masked_BS = scored_BS & (rank_BS < masked) & (count_BS >= masked)
        loss = masked_losses(model, targets_BS, masked_BS, valid_BS, table=table, context=context)
        total_B = total_B + loss.sum(dim=1) / masked
    return total_B
