"""RMS norms (Zhang and Sennrich 2019, arXiv 1910.07467) that cost little in a small pass.

On a CPU `F.rms_norm` is seven kernels. sqrt(mean(x^2) + eps) is also hypot(|x| / sqrt(d),
sqrt(eps)), with which they are five, and half the time for the few rows of a decoding step.

Shapes: d width of the last axis.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RMSNorm(nn.RMSNorm):
    """`nn.RMSNorm` of the last axis, with a weight, by `rms_norm`."""

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight, self.eps or 0.0)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight.

    Args:
        x: [..., d].
        weight: [d], or anything that broadcasts to x.
    """
    width = x.shape[-1]
    # Only where nothing can ask for a gradient, and not where the length would be rounded.
    eager = not torch.compiler.is_compiling() and torch.is_inference_mode_enabled()
    if not (eager and x.dtype == torch.float32 and x.is_cpu and x.numel() <= _SMALL):
        if weight.dim() == 1:
            return F.rms_norm(x, (width,), weight, eps)
        return F.rms_norm(x, (width,), None, eps) * weight
    share, floor = _constants(width, eps)
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True).mul_(share).hypot_(floor)
    return x.div(length).mul_(weight)


_SMALL = 1 << 11
"""Numbers of a decoding step, where the calls cost more than the work.

Longer passes, prefills among them, round as `F.rms_norm` does.
"""


@lru_cache(maxsize=64)
def _constants(width: int, eps: float) -> tuple[Tensor, Tensor]:
    """1 / sqrt(d) and sqrt(eps); a number that is not a tensor would become one in every call."""
    with torch.inference_mode(False):
        numbers = torch.tensor([width**-0.5, eps**0.5], dtype=torch.float32, device="cpu")
        return numbers[0], numbers[1]
