"""Training objectives from the same order, mask, inputs and head as decoding.

Teacher forcing is all groups in one pass; mask-predict is one group with a random part masked;
block diffusion is a noisy copy beside the clean one. The last with blocks of one, everything
masked, is teacher forcing for a model with masked inputs.

Targets are ids int64 [B, S] for models with inputs of ids, vectors float [B, S, C] for models with
inputs of continuous values (what lies in padding is not read).

Shapes: B rows, S slots, D width, C channels of a continuous value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from seqgen.attention import MaskView
from seqgen.inputs import DecidedInputs, MaskedInputs
from seqgen.masks import CLEAN, NOISY, NoisyClean, SlotInfo
from seqgen.model import Context, SequenceModel
from seqgen.orders import Order, OrderTable, Raster
from seqgen.value_inputs import MaskedValueInputs

RASTER = Raster()


@dataclass(frozen=True)
class Noise:
    """How much of a sequence is masked in training.

    Attributes:
        low, high: the rate is drawn uniformly from this range (BD3-LM clips it, section 5.2);
            1, 1 masks everything.
        per: draw one rate a `sample` (SDAR) or a `group` (BD3-LM).
        weighting: `rate` divides a slot's loss by its rate, which makes the sum a bound on the
            likelihood (SDAR; BD3-LM, eq. 8); `none` averages over masked slots.
    """

    low: float = 1e-3
    high: float = 1.0
    per: Literal["sample", "group"] = "sample"
    weighting: Literal["rate", "none"] = "rate"

    def __post_init__(self) -> None:
        if not 0 < self.low <= self.high <= 1:
            raise ValueError(f"0 < low <= high <= 1 must hold, not {self.low}, {self.high}")


def teacher_forcing(
    model: SequenceModel,
    targets_BS: Tensor,
    valid_BS: Tensor | None = None,
    *,
    order: Order = RASTER,
    context: Context | None = None,
    fixed_BS: Tensor | None = None,
) -> Tensor:
    """Mean loss of every value given the groups before its own, all groups in one pass.

    For models whose rows do not hold the value they predict: shifted inputs, next-scale inputs,
    neighbours.

    Args:
        targets_BS: ids, or vectors [B, S, C].
        valid_BS: slots in use; None for all.
        order: the order it decodes in.
        fixed_BS: slots that are given (a prompt) and carry no loss.
    """
    loss, scored = shifted_losses(
        model, targets_BS, valid_BS, order=order, context=context, fixed_BS=fixed_BS
    )
    return (loss * scored).sum() / scored.sum().clamp(min=1)


def shifted_losses(
    model: SequenceModel,
    targets_BS: Tensor,
    valid_BS: Tensor | None = None,
    *,
    order: Order = RASTER,
    context: Context | None = None,
    fixed_BS: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Loss of each value given those before it, and which count, both [B, S'].

    S' is less than S where the model cannot predict the first slots (no start token, a prefix).
    """
    targets_BS = _without_padding(targets_BS, valid_BS)
    hidden, first = teacher_states(model, targets_BS, valid_BS, order=order, context=context)
    scored = scored_slots(targets_BS, valid_BS, fixed_BS)
    return model.head.loss(hidden, targets_BS[:, first:]), scored[:, first:]


def teacher_states(
    model: SequenceModel,
    targets_BS: Tensor,
    valid_BS: Tensor | None = None,
    *,
    order: Order = RASTER,
    context: Context | None = None,
) -> tuple[Tensor, int]:
    """States [B, S - first, ...] that the head reads every value from, and `first`."""
    inputs = model.inputs
    if not isinstance(inputs, TeacherInputs):
        raise ValueError("teacher_forcing needs shifted inputs; use noisy_clean(order=Raster())")
    targets_BS = _without_padding(targets_BS, valid_BS)
    table = order.table(targets_BS.shape[1], targets_BS.device)
    first = inputs.first_slot
    x = inputs.embed_before(targets_BS, context)
    valid_BR = None if valid_BS is None else valid_BS[:, first:]
    hidden = _one_pass(model, x, table, valid_BR, context, first=first)
    if not isinstance(inputs, DecidedInputs):
        return hidden, first
    first = table.starts[1]
    slots_1Q = torch.arange(first, targets_BS.shape[1], device=hidden.device)[None]
    return inputs.read(hidden[:, table.sequence_S], table, 0, slots_1Q), first


@runtime_checkable
class TeacherInputs(Protocol):
    """Inputs that can feed all slots of a sequence that is known.

    Attributes:
        first_slot: the first slot that is fed.
    """

    first_slot: int

    def embed_before(self, targets_BS: Tensor, context: Context | None = None) -> Tensor:
        """Embeddings [B, S - first_slot, D] of slots that hold these values."""
        ...


def noisy_clean(
    model: SequenceModel,
    targets_BS: Tensor,
    valid_BS: Tensor | None = None,
    *,
    order: Order,
    generator: torch.Generator,
    noise: Noise = Noise(),
    context: Context | None = None,
    fixed_BS: Tensor | None = None,
) -> Tensor:
    """Masked-diffusion loss in any order, for a model with masked inputs (SDAR; BD3-LM).

    One pass over [noisy | clean] trains every group at once: a noisy group sees itself and the
    clean groups before it. With a single group (mask-predict) no clean copy is needed.

    Args:
        targets_BS: ids, or vectors [B, S, C].
        valid_BS: slots in use; None for all.
        fixed_BS: slots that are given (a prompt): never masked, no loss.
        generator: source of the rates and masks, on the CPU or on the targets' device.
    """
    table = order.table(targets_BS.shape[1], targets_BS.device)
    scored = scored_slots(targets_BS, valid_BS, fixed_BS)
    rate_BS = _rates(scored, table, noise, generator)
    masked_BS = _draw(scored, rate_BS, generator)
    loss = masked_losses(model, targets_BS, masked_BS, valid_BS, table=table, context=context)
    if noise.weighting == "rate":
        return (loss / rate_BS).sum() / scored.sum().clamp(min=1)
    return loss.sum() / masked_BS.sum().clamp(min=1)


def masked_losses(
    model: SequenceModel,
    targets_BS: Tensor,
    masked_BS: Tensor,
    valid_BS: Tensor | None = None,
    *,
    table: OrderTable,
    context: Context | None = None,
) -> Tensor:
    """Loss [B, S] of each masked slot given its group's other slots and the groups before it.

    0 where nothing is masked. One pass, over [noisy | clean] if there is more than one group.

    Args:
        targets_BS: ids, or vectors [B, S, C].
        masked_BS: bool, slots that are masked in the noisy copy.
        valid_BS: slots in use; None for all.
    """
    if isinstance(model.inputs, MaskedValueInputs):
        targets_BS = _without_padding(targets_BS, valid_BS)
    elif not isinstance(model.inputs, MaskedInputs):
        raise ValueError("this loss needs masked inputs; use teacher_forcing")
    x = _embed_noisy(model.inputs, targets_BS, masked_BS, table, context)
    if table.groups <= 1:
        hidden = _one_pass(model, x, table, valid_BS, context)
    else:
        hidden = _two_copies(model, x, table, valid_BS, context)
    return model.head.loss(hidden, targets_BS) * masked_BS


def _embed_noisy(
    inputs: MaskedInputs | MaskedValueInputs,
    targets_BS: Tensor,
    masked_BS: Tensor,
    table: OrderTable,
    context: Context | None,
) -> Tensor:
    """Embeddings of the noisy copy [B, S, D], or of [noisy | clean] where there are groups."""
    slots = torch.arange(masked_BS.shape[1], device=masked_BS.device)[None]
    if isinstance(inputs, MaskedValueInputs):
        if table.groups <= 1:
            return inputs.embed(targets_BS, ~masked_BS, slots, context)
        return inputs.embed_copies(targets_BS, ~masked_BS, table, context)
    noisy_BS = torch.where(masked_BS, inputs.mask_id, targets_BS)
    if table.groups <= 1:
        return inputs.embed(noisy_BS, slots, context)
    return inputs.embed_copies(noisy_BS, targets_BS, table, context)


def _one_pass(
    model: SequenceModel,
    x_BSD: Tensor,
    table: OrderTable,
    valid_BS: Tensor | None,
    context: Context | None,
    *,
    first: int = 0,
) -> Tensor:
    slots = torch.arange(first, first + x_BSD.shape[1], device=x_BSD.device)[None]
    info = table.info(slots)
    view = None
    if valid_BS is not None or table.groups > 1:
        view = MaskView(model.mask, info, info, valid_BS)
    return model.backbone(
        x_BSD, table.coordinates_SA[slots], view=view, cache=None, context=context
    )


def _two_copies(
    model: SequenceModel,
    x_BRD: Tensor,
    table: OrderTable,
    valid_BS: Tensor | None,
    context: Context | None,
) -> Tensor:
    """Hidden states of the noisy copy, from embeddings of [noisy | clean]."""
    S = x_BRD.shape[1] // 2
    slots = torch.arange(S, device=x_BRD.device).repeat(2)[None]
    copy = torch.full_like(slots, CLEAN)
    copy[:, :S] = NOISY
    info = SlotInfo(group=table.group_S[slots], position=slots, copy=copy)
    valid = None if valid_BS is None else valid_BS.repeat(1, 2)
    view = MaskView(NoisyClean() & model.mask, info, info, valid)
    hidden = model.backbone(
        x_BRD, table.coordinates_SA[slots], view=view, cache=None, context=context
    )
    return hidden[:, :S]


def _without_padding(targets_BS: Tensor, valid_BS: Tensor | None) -> Tensor:
    """Vectors with zeros in padding: a NaN would reach the gradients though it does not count."""
    if valid_BS is None or targets_BS.dim() == 2:
        return targets_BS
    return targets_BS.masked_fill(~valid_BS[..., None], 0)


def scored_slots(targets_BS: Tensor, valid_BS: Tensor | None, fixed_BS: Tensor | None) -> Tensor:
    """Slots [B, S] that are in use and not given."""
    scored = torch.ones(targets_BS.shape[:2], dtype=torch.bool, device=targets_BS.device)
    if valid_BS is not None:
        scored = scored & valid_BS
    if fixed_BS is not None:
        scored = scored & ~fixed_BS
    return scored


def _rates(
    scored_BS: Tensor, table: OrderTable, noise: Noise, generator: torch.Generator
) -> Tensor:
    batch = scored_BS.shape[0]
    columns = 1 if noise.per == "sample" else table.groups
    t = torch.rand(batch, columns, generator=generator, device=generator.device)
    rate = (noise.low + (noise.high - noise.low) * t).to(scored_BS.device)
    if noise.per == "sample":
        return rate.expand(scored_BS.shape)
    return rate[:, table.group_S]


def _draw(scored_BS: Tensor, rate_BS: Tensor, generator: torch.Generator) -> Tensor:
    """Mask slots by their rate, at least one a row that has any."""
    u = torch.rand(scored_BS.shape, generator=generator, device=generator.device)
    u = u.to(scored_BS.device)
    masked = scored_BS & (u < rate_BS)
    # The slot with the smallest number is the one that would be masked first at a higher rate.
    first = torch.where(scored_BS, u, 2.0).argmin(dim=1, keepdim=True)
    none = ~masked.any(dim=1, keepdim=True) & scored_BS.any(dim=1, keepdim=True)
    return masked | (none & torch.zeros_like(masked).scatter(1, first, True))
