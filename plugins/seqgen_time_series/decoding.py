"""From encoded windows to forecasts: the parts of every decoder, and quantiles of what they gave.

Decoders that sample decode N paths of every window side by side, each with a seed of its own. The
paths of a window share the keys and values of its history.

Shapes: B windows, N paths, S slots, P patch length, H steps, L quantile levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from seqgen.canvas import Canvas
from seqgen.decoders import Autoregressive, BlockDiffusion, Hybrid, NonAutoregressive
from seqgen.decoders.base import Decoder, Generated
from seqgen.domain import Plan
from seqgen.heads import QuantileFunction
from seqgen.heads.continuous import level_tensor
from seqgen.logits import Sampling
from seqgen.seeds import item_seed
from seqgen_time_series.model import Forecaster, WindowContext, decode_values

SAMPLED = ("ar", "hybrid", "block-diffusion")
"""Decoders whose forecasts are sample paths."""


@dataclass(frozen=True, kw_only=True)
class DecodingConfig:
    """How a window is decoded.

    Attributes:
        paths: sample paths a window N.
        temperature: of the samples.
        block_length: patches a block of block diffusion; 0: as in training.
        block_steps: passes a block.
    """

    paths: int = 100
    temperature: float = 1.0
    block_length: int = 0
    block_steps: int = 2


def plan_windows(
    model: Forecaster,
    context: WindowContext,
    decoder: str,
    config: DecodingConfig,
    seeds_B: Tensor,
) -> Plan:
    """The parts of one batch's decoding."""
    assert context.base_BSP is not None
    assert context.windows is not None
    shape, device = context.base_BSP.shape, context.base_BSP.device
    lengths = context.windows.slots
    if decoder == "nar":
        canvas = Canvas(torch.zeros(shape, device=device), length=lengths, seeds=seeds_B)
        return Plan(NonAutoregressive(), model.nar, canvas, context)
    paths = config.paths
    rows = torch.zeros(shape[0] * paths, *shape[1:], device=device)
    lengths = tuple(length for length in lengths for _ in range(paths))
    canvas = Canvas(rows, length=lengths, seeds=path_seeds(seeds_B, paths))
    sampling = Sampling(temperature=config.temperature)
    chosen: Decoder = Autoregressive(sampling=sampling)
    if decoder == "hybrid":
        both = Hybrid(first=model.first_pass(), second=chosen)
        return Plan(both, model.hybrid, canvas, context.repeated(paths))
    assert context.given_BSD is not None
    # Cross-attention takes several rows for one of the context; what enters at a slot is a row's.
    shared = replace(context, given_BSD=context.given_BSD.repeat_interleave(paths, dim=0))
    if decoder == "ar":
        return Plan(chosen, model.ar, canvas, shared)
    blocks = BlockDiffusion(
        block_length=config.block_length or model.config.block_length,
        steps=config.block_steps,
        # A joint sample has no density to rank patches by, so they are taken in order.
        remasking="sequential",
        sampling=sampling,
    )
    return Plan(blocks, model.block, canvas, shared)


def path_seeds(seeds_B: Tensor, paths: int) -> Tensor:
    """Seeds [B N] of a window's paths, from the window's own."""
    return torch.tensor(
        [item_seed(seed, f"path {path}") for seed in seeds_B.tolist() for path in range(paths)]
    )


def paths_of(generated: Generated, context: WindowContext) -> Tensor:
    """Sample paths y [B, N, S P], float64, of a decoder in `SAMPLED`."""
    assert context.base_BSP is not None
    batch = len(context.base_BSP)
    v_BNSP = generated.values.view(batch, -1, *generated.values.shape[1:])
    return decode_values(v_BNSP.movedim(1, -1), context).flatten(1, 2).movedim(-1, 1)


def quantiles_of(generated: Generated, context: WindowContext, levels: Sequence[float]) -> Tensor:
    """Quantiles y [B, S P, L], float64, of a decoded batch: of its paths, if there are any."""
    assert context.base_BSP is not None
    if len(generated.values) > len(context.base_BSP):
        y_BNH = paths_of(generated, context)
        at = torch.tensor(levels, dtype=torch.float64, device=y_BNH.device)
        return y_BNH.quantile(at, dim=1).movedim(0, -1)
    assert generated.parameters is not None
    known_K = level_tensor(context.levels, generated.parameters)
    v_BSPL = QuantileFunction(known_K, generated.parameters).quantile(levels)
    return decode_values(v_BSPL, context).flatten(1, 2)
