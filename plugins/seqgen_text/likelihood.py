"""How probable a model finds a reference: teacher forcing, in the order of a decoder.

`ar` and `speculative`: every token given all before it. `block-diffusion`: in blocks of K tokens,
every token given all before it while the rest of its block is masked; that is the exact likelihood
of decoding with `remasking=sequential`, one token a pass, and takes K passes over [noisy | clean].
`nar` has no such order. A mask is no token that a text can hold, so it has no probability here, as
in decoding.

Shapes: B rows (here 1), S slots, D width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from seqgen.canvas import Canvas
from seqgen.heads import CategoricalHead
from seqgen.heads.base import Proposal, Request
from seqgen.inputs import MaskedInputs
from seqgen.logits import NEVER
from seqgen.model import SequenceModel, device_of
from seqgen.orders import Blocks, Raster
from seqgen.training.objectives import masked_losses


@torch.inference_mode()
def causal_nats(model: SequenceModel, prompt: Sequence[int], reference: Sequence[int]) -> float:
    """-log p(reference | prompt) under a model with shifted inputs."""
    ids_1S = torch.tensor([[*prompt, *reference]], device=device_of(model))
    slots = ids_1S.shape[1]
    fed_1S = torch.arange(model.inputs.first_slot, slots, device=ids_1S.device)[None]
    table = Raster().table(slots, ids_1S.device)
    hidden_1SD = model.hidden(Canvas(ids_1S, prompt=slots), table, fed_1S)
    loss = model.head.loss(hidden_1SD[:, -len(reference) :], ids_1S[:, len(prompt) :])
    return float(loss.sum())


@torch.inference_mode()
def block_nats(
    model: SequenceModel,
    prompt: Sequence[int],
    reference: Sequence[int],
    *,
    block_length: int,
    room: int,
) -> float:
    """-log p(reference | prompt) under a model with masked inputs, block by block.

    Args:
        room: slots behind the prompt, at least those of the reference; the rest stays masked, as
            it is while the last block is decoded.
    """
    assert isinstance(model.inputs, MaskedInputs)
    assert isinstance(model.head, CategoricalHead)
    unable = _Unable(model.head, model.inputs.mask_id)
    model = SequenceModel(
        inputs=model.inputs, backbone=model.backbone, head=unable, mask=model.mask
    )
    ids = [*prompt, *reference, *[0] * (room - len(reference))]
    ids_1S = torch.tensor([ids], device=device_of(model))
    slots_1S = torch.arange(len(ids), device=ids_1S.device)[None]
    table = Blocks(block_length).table(len(ids), ids_1S.device)
    new_1S = slots_1S >= len(prompt)
    scored_1S = new_1S & (slots_1S < len(prompt) + len(reference))
    total = torch.zeros((), device=ids_1S.device)
    for place in range(min(block_length, len(ids))):
        masked_1S = new_1S & (slots_1S % block_length >= place)
        masked_1S = masked_1S | (new_1S & ~scored_1S)
        read_1S = scored_1S & (slots_1S % block_length == place)
        loss_1S = masked_losses(model, ids_1S, masked_1S, table=table)
        total = total + loss_1S.where(read_1S, 0.0).sum()
    return float(total)


class _Unable:
    """A head that cannot say the mask."""

    def __init__(self, head: CategoricalHead, mask_id: int) -> None:
        self.head, self.mask_id = head, mask_id

    def propose(self, hidden_BQD: Tensor, request: Request) -> Proposal:
        return self.head.propose(hidden_BQD, request)

    def loss(self, hidden_BSD: Tensor, targets_BS: Tensor) -> Tensor:
        logits_BSV = self.head.logits(hidden_BSD).float()
        logits_BSV[..., self.mask_id] = NEVER
        return F.cross_entropy(logits_BSV.mT, targets_BS, reduction="none")
