"""Training in two processes: both end with the codes that one process with all the data has."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from seqgen.tokenizers import MultiScaleRVQ, VectorQuantizer


def batches() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(8, 3, 4, 4, generator=generator) for _ in range(3)]


def quantizers() -> list[nn.Module]:
    torch.manual_seed(0)
    return [
        VectorQuantizer(12, 3, decay=0.9, revive_below=0.0, kmeans_init=False),
        VectorQuantizer(12, 3, decay=0.9, revive_below=0.5),
        MultiScaleRVQ((1, 2, 4), 12, 3, revive_below=0.5, use_decay=0.5),
    ]


def half(rank: int, folder: str) -> None:
    """What one of two processes does: its half of every batch, with draws of its own."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    found = []
    for quantizer in quantizers():
        torch.manual_seed(rank)
        for f in batches():
            quantizer(f[4 * rank : 4 * rank + 4])
        found.append(quantizer.state_dict())
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_agree(tmp_path: Path) -> None:
    mp.spawn(half, args=(str(tmp_path),), nprocs=2)
    ours, theirs = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    for one, other in zip(ours, theirs, strict=True):
        for name, value in one.items():
            assert torch.equal(value, other[name]), name
    alone = quantizers()[0]
    for f in batches():
        alone(f)
    for name, value in alone.state_dict().items():
        torch.testing.assert_close(ours[0][name], value)
