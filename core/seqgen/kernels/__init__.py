"""Kernels of our own, written in Triton. Importing this package imports no Triton.

`block_attention.py` is attention of a few queries over a cache: decoding on a GPU.
"""

from __future__ import annotations

import os
from functools import lru_cache
from importlib.util import find_spec

import torch

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
"""What the kernels attend in; sums are float32."""

WIDEST = 256
"""The largest head width."""


@lru_cache(maxsize=1)
def installed() -> bool:
    """Whether the package triton is installed (a CUDA build of PyTorch brings it along)."""
    return find_spec("triton") is not None


def interpreted() -> bool:
    """Whether Triton was told to run kernels in its interpreter, on any device."""
    return os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "yes", "on", "y")


def obstacle(device: torch.device) -> tuple[str, str] | None:
    """Why Triton kernels cannot run on a device, and what helps; None if they can."""
    if not installed():
        return "the package triton is not installed", "pip install triton, or take backend 'sdpa'"
    if device.type == "cuda" or interpreted():
        return None
    return (
        f"Triton kernels run on a GPU, and these tensors are on {device.type!r}",
        "take backend 'sdpa'; for tests, set TRITON_INTERPRET=1 before Python starts (slow)",
    )
