"""Scoring given sequences: their values' log-probabilities in one teacher-forced pass.

Shapes: B rows, N sequences a row, R = B * N, S slots, D width, V vocabulary.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from seqgen.beams import rows_of
from seqgen.canvas import Canvas
from seqgen.heads.base import Request
from seqgen.hypotheses import Hypotheses
from seqgen.inputs import ShiftedInputs
from seqgen.logits import GREEDY
from seqgen.model import Context, SequenceModel
from seqgen.orders import Raster


@torch.inference_mode()
def score_sequences(
    model: SequenceModel, hypotheses: Hypotheses, context: Context | None
) -> Tensor:
    """Log-probability [B, N, S] of every value given those before it, in one pass.

    What lies behind a sequence's length, or before the first slot that the model proposes, is 0.

    Args:
        model: a model with shifted inputs.
        context: a row for every row of `hypotheses`.

    Raises:
        ValueError: other inputs, or a head without logits.
    """
    if not isinstance(model.inputs, ShiftedInputs):
        raise ValueError(
            f"teacher forcing in one pass needs shifted inputs, not {type(model.inputs).__name__}"
        )
    batch, count, slots = hypotheses.values_BNS.shape
    device, first = hypotheses.values_BNS.device, model.inputs.first_slot
    # One host read, so that nothing is fed behind the longest.
    longest = max(int(hypotheses.length_BN.amax()), first + 1)
    if count > 1 and context is not None:
        size = batch * model.branches
        rows = torch.arange(size, device=device).repeat_interleave(count)
        context = rows_of(model.backbone.prepare(context), rows, size)
    used_BNS = torch.arange(longest, device=device) < hypotheses.length_BN[..., None]
    values_RS = hypotheses.values_BNS[..., :longest].where(used_BNS, 0).flatten(0, 1)
    decided = Canvas(values_RS, prompt=longest)
    slots_1R = torch.arange(first, longest, device=device)[None]
    hidden_RSD = model.hidden(
        decided,
        Raster().table(longest, device),
        slots_1R,
        context=context,
    )
    logits_RSV = model.head.propose(hidden_RSD, Request(decided, slots_1R, GREEDY, 0)).logits_BQV
    if logits_RSV is None:
        raise ValueError("sequences can only be scored by a head with logits")
    log_p_RSV = logits_RSV.log_softmax(dim=-1)
    log_p_RS = log_p_RSV.gather(-1, values_RS[:, first:, None]).squeeze(-1)
    log_p_BNS = F.pad(log_p_RS, (first, 0)).view(batch, count, longest).where(used_BNS, 0.0)
    return F.pad(log_p_BNS, (0, slots - longest))
