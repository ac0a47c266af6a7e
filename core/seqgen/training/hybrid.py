"""Training a hybrid in two stages (CrossNovo), as parts that a training run puts together.

Stage 1 trains encoder and both decoders, the weight passing from one loss to the other:

    weight = annealed(step, steps)
    loss = joint_loss(ar_loss, nar_loss, weight)

Stage 2 trains the second model alone, on the states of the first one (call `freeze` when the run
starts, so that the optimiser leaves them out, and in every step, since validation ends by putting
the whole model into training mode):

    freeze(encoder, nar)
    context = encode(batch)
    memory = hybrid_context(first, canvas, context)
    loss = teacher_forcing(ar, targets_BS, valid_BS, context=memory)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from seqgen.canvas import Canvas
from seqgen.decoders.hybrid import FirstPass
from seqgen.model import Context


def annealed(step: int, steps: int, *, ceiling: float = 1.0) -> float:
    """Weight of the second loss: step / steps, and no more than `ceiling`.

    CrossNovo's importance annealing has a ceiling of 1: in the end the first loss counts nothing.
    A lower one keeps the first decoder from drifting away meanwhile.
    """
    if not 0 <= step <= steps or steps < 1:
        raise ValueError(f"step {step} does not lie in 0..{steps}")
    if not 0 <= ceiling <= 1:
        raise ValueError(f"the ceiling must lie in [0, 1], not {ceiling}")
    return min(step / steps, ceiling)


def joint_loss(autoregressive: Tensor, non_autoregressive: Tensor, weight: float) -> Tensor:
    """weight * L_AR + (1 - weight) * L_NAR."""
    return weight * autoregressive + (1 - weight) * non_autoregressive


def freeze(*modules: nn.Module) -> None:
    """No gradients for their parameters, and no dropout. Doing it again does no harm."""
    for module in modules:
        module.requires_grad_(False)
        module.eval()


def hybrid_context(
    first: FirstPass, canvas: Canvas, context: Context | None, *, detach: bool = True
) -> Context:
    """The second model's context in training: what `Hybrid` gives it in decoding.

    Args:
        canvas: rows, lengths and prompts as in decoding; open values are not read.
        detach: gradient blocking: no gradient reaches the first model, nor the encoder through it.
            (The encoder's own states in the context keep theirs: freeze it in stage 2.)
    """
    with torch.set_grad_enabled(torch.is_grad_enabled() and not detach):
        states_BSD, valid_BS = first.states(canvas, context)
    return first.memory(states_BSD, valid_BS, context)
