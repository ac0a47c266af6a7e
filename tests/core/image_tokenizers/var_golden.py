"""VAR's quantizer with rule-made weights, and what the official code computed with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seqgen.tokenizers import MultiScaleRVQ

GOLDEN = Path(__file__).with_name("var_quantizer.npz")


def rule_weight(rank: int, shape: tuple[int, ...]) -> Tensor:
    """The weight whose name has this rank in the sorted state dict: a sine, scaled by fan-in."""
    n = int(np.prod(shape))
    v = np.sin(0.7390851 * np.arange(n) + 0.5 * rank).reshape(shape)
    v = 0.05 * v if len(shape) == 1 else v * np.sqrt(2 * shape[0] / n)
    return torch.from_numpy(v.astype(np.float32))


def var_quantizer() -> tuple[MultiScaleRVQ, dict[str, Tensor]]:
    with np.load(GOLDEN) as file:
        arrays: dict[str, NDArray[np.generic]] = dict(file)
    ranks = dict(zip(arrays.pop("names").tolist(), arrays.pop("ranks").tolist(), strict=True))
    quantizer = MultiScaleRVQ((1, 2, 3, 4), 64, 8).eval()
    state = quantizer.state_dict()
    for name, rank in ranks.items():
        ours = name.removeprefix("quantize.").replace("quant_resi.qresi_ls", "phi")
        ours = ours.replace("embedding.weight", "codebook_VC")
        state[ours] = rule_weight(rank, tuple(state[ours].shape))
    quantizer.load_state_dict(state)
    return quantizer, {name: torch.from_numpy(array) for name, array in arrays.items()}
