"""Weights by a rule, with which the golden files were made: nothing but names and shapes is needed.

The published code's state dict, sorted by name, gets sines; numbers of the golden files follow from
them. The rule leaves out what is no weight (masks, tables of rotary positions, statistics).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

NO_WEIGHT = re.compile(
    "mask|freqs|rope|ema_vocab|lvl_1L|attn_bias|zero_k_bias|codebook_used|uncond"
)


def rule_weights(shapes: Mapping[str, tuple[int, ...]], *, first: int = 0) -> dict[str, Tensor]:
    """Tensors of these names and shapes; every name must be one that the rule covers.

    Args:
        first: number of the first of them, where they are a part of a larger model.
    """
    names = sorted(shapes)
    assert not [name for name in names if NO_WEIGHT.search(name)]
    return {name: _by_rule(i, name, shapes[name]) for i, name in enumerate(names, first)}


def _by_rule(i: int, name: str, shape: tuple[int, ...]) -> Tensor:
    size = int(np.prod(shape))
    v = np.sin(0.7390851 * np.arange(size) + 0.5 * i).reshape(shape)
    if len(shape) > 1:
        v = v * np.sqrt(2 * shape[0] / size)
    elif ("norm" in name or "ln.weight" in name) and name.endswith("weight"):
        v = 1 + 0.1 * v
    else:
        v = 0.05 * v
    return torch.from_numpy(v.astype(np.float32))
