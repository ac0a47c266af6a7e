"""Small random forecasters and histories for the tests of the time-series plugin."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from seqgen_time_series.model import Forecaster
from seqgen_time_series.training import PRESETS, configuration


def random_forecaster(seed: int = 0, **changes: object) -> Forecaster:
    """A micro model in which everything matters: nothing is zero or the same everywhere."""
    torch.manual_seed(seed)
    model = Forecaster(configuration(replace(PRESETS["micro"][0], **changes)))  # type: ignore[arg-type]
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "head" in name or "skip" in name:
                parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


def history(seed: int, length: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    season = np.sin(np.arange(length) * 2 * np.pi / 7)
    return np.asarray(season + 0.05 * np.arange(length) + rng.normal(scale=0.3, size=length))
