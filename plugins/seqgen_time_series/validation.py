"""How good a model under training is: forecasts of series that it was not trained on.

Figures are relative to seasonal naive (below 1 is better), as a geometric mean over the series;
`coverage` is of the 80 % interval, without any calibration.

Shapes: W windows, H steps, L levels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from seqgen_time_series.data import (
    HELD_OUT,
    Floats,
    TrainingSeries,
    collate,
    window_and_future,
)
from seqgen_time_series.decoding import DecodingConfig, plan_windows, quantiles_of
from seqgen_time_series.model import Forecaster, ForecasterConfig
from seqgen_time_series.windows import Window

LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9)
SLOTS = 3
"""Slots of the horizon that is validated."""
BATCH = 32


class Validation:
    """Calls a model on fixed windows.

    Args:
        simulated: series of another seed than the training's.
        tables: series of `--data`, whose last part was not trained on.
    """

    def __init__(
        self,
        simulated: Sequence[TrainingSeries],
        tables: Sequence[TrainingSeries],
        config: ForecasterConfig,
        *,
        decoding: DecodingConfig,
        seed: int,
    ) -> None:
        self.decoding, self.seed, self.config = decoding, seed, config
        slots = min(SLOTS, config.slots)
        steps = slots * config.patch
        self.sets = {
            "simulated": [(series, len(series.y) - steps) for series in simulated],
            "tables": [
                (series, origin)
                for series in tables
                for origin in range(
                    max(round(len(series.y) * (1 - HELD_OUT)), 2 * steps),
                    len(series.y) - config.patch,
                    steps,
                )
            ][:BATCH],
        }
        self.slots = slots

    def __call__(self, model: Forecaster) -> dict[str, float]:
        found: dict[str, float] = {}
        for name, places in self.sets.items():
            cuts = [window_and_future(s, origin, self.config, self.slots) for s, origin in places]
            kept = [cut for cut in cuts if cut is not None]
            if kept:
                decoders = ("nar", "ar", "hybrid", "block-diffusion")
                for decoder in decoders if name == "simulated" else ("nar",):
                    few = kept if decoder == "nar" else kept[:BATCH]
                    scores = self._scores(model, decoder, few)
                    prefix = f"{name}_{decoder}"
                    found |= {f"{prefix}_{key}": value for key, value in scores.items()}
        return found

    def _scores(
        self, model: Forecaster, decoder: str, cuts: Sequence[tuple[Window, Floats]]
    ) -> dict[str, float]:
        device = next(model.parameters()).device
        apart, pinball, naive, covered = [], [], [], []
        for start in range(0, len(cuts), BATCH):
            batch = collate(cuts[start : start + BATCH], self.config).to(device)
            seeds_B = torch.arange(len(batch.y_BH)) + self.seed + start
            with torch.inference_mode():
                context = model.listen(batch.windows)
                plan = plan_windows(model, context, decoder, self.decoding, seeds_B)
                q = quantiles_of(plan.run(), context, LEVELS).cpu().numpy()
            y = batch.y_BH.cpu().numpy()
            windows = batch.windows
            simple = windows.simple_BSPJ[..., 0].flatten(1).double()
            plain = windows.level_B[:, None] + windows.scale_B[:, None] * simple
            levels = np.array(LEVELS)
            over = y[..., None] - q
            loss = np.maximum(levels * over, (levels - 1) * over).mean(axis=-1)
            apart.append(np.nanmean(np.abs(y - q[..., 2]), axis=1))
            pinball.append(2 * np.nanmean(loss, axis=1))
            naive.append(np.nanmean(np.abs(y - plain.cpu().numpy()), axis=1))
            inside = (y >= q[..., 0]) & (y <= q[..., -1])
            covered.append(inside[np.isfinite(y)])
        base = np.maximum(np.concatenate(naive), 1e-12)
        return {
            "mae": _geometric(np.concatenate(apart) / base),
            "wql": _geometric(np.concatenate(pinball) / base),
            "coverage": float(np.concatenate(covered).mean()),
        }


def _geometric(ratios: Floats) -> float:
    return float(np.exp(np.log(ratios.clip(1e-3, 1e3)).mean()))
