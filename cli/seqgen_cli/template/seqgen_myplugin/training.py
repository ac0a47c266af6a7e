"""Training: dates are drawn, never read; the loss masks a random part of the date in a random
order of decoding, so that one model serves every decoder.

    seqgen train --plugin myplugin -o runs/dates
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from seqgen.checkpoints import save
from seqgen.decoders import Autoregressive, NonAutoregressive
from seqgen.options import option
from seqgen.orders import Blocks, Raster, Whole
from seqgen.training.objectives import noisy_clean
from seqgen.training.task import FitConfig
from torch import Tensor

from seqgen_myplugin.dates import draw
from seqgen_myplugin.model import START_ID, DateModel, ModelConfig, empty_canvas, encode_dates

ORDERS = (Raster(), Whole(), Blocks(2), Blocks(4), Blocks(5))
Batch = tuple[list[str], Tensor, int]
"""Written dates, ids [B, S] of what they mean, and the batch's seed."""


@dataclass(frozen=True)
class TrainOptions:
    """What `seqgen train --set key=value` can set, beside the fields of `FitConfig`."""

    width: int = option(32, help="width of the model", range=(8, None))
    layers: int = option(2, help="layers of the encoder and of the decoder", range=(1, None))
    batch: int = option(64, help="dates a batch", range=(1, None))


class DateTraining:
    """The training task."""

    presets: Mapping[str, tuple[Any, FitConfig]] = {
        "tiny": (TrainOptions(), FitConfig(steps=3000, lr=3e-3)),
        "quick": (TrainOptions(), FitConfig(steps=20, lr=3e-3, warmup=5)),
    }

    def start(
        self, options: TrainOptions, fit: FitConfig, *, data: Path | None, seed: int, folder: Path
    ) -> DateTrainingRun:
        torch.manual_seed(seed)
        model = DateModel(ModelConfig(width=options.width, layers=options.layers))
        return DateTrainingRun(model, batch_size=options.batch, seed=seed)


class DateTrainingRun:
    """One training."""

    def __init__(self, model: DateModel, *, batch_size: int, seed: int) -> None:
        self.model = model
        self.batch_size = batch_size
        self.seed = seed

    def batch(self, step: int, rank: int, world: int) -> Batch:
        # A function of its arguments alone, so that a resumed run sees what an unbroken one saw.
        return _dates(f"train {self.seed} {step} {rank}", self.batch_size)

    def losses(self, batch: Batch, step: int) -> dict[str, Tensor]:
        texts, targets_BS, number = batch
        chance = torch.Generator().manual_seed(number)
        loss = noisy_clean(
            self.model.decoder,
            targets_BS,
            order=ORDERS[number % len(ORDERS)],
            generator=chance,
            context=self.model.read(texts),
            fixed_BS=targets_BS == START_ID,
        )
        return {"loss": loss}

    def validate(self) -> dict[str, float]:
        texts, targets_BS, _ = _dates(f"validate {self.seed}", 200)
        found = {}
        for name, decoder in (("ar", Autoregressive()), ("nar", NonAutoregressive())):
            with torch.inference_mode():
                canvas = empty_canvas(len(texts), None, targets_BS.device)
                out = decoder.generate(self.model.decoder, canvas, self.model.read(texts))
            right = (out.values == targets_BS).all(dim=1)
            found[f"accuracy_{name}"] = float(right.float().mean())
        return found

    def export(self, folder: Path, notes: Mapping[str, Any]) -> Path:
        config = self.model.checkpoint_config() | {"training": dict(notes)}
        return save(folder / "model.safetensors", self.model.state_dict(), config, half=True)


def _dates(seed: str, count: int) -> Batch:
    chance = random.Random(seed)
    pairs: Sequence[tuple[str, str]] = [draw(chance) for _ in range(count)]
    texts = [text for text, _ in pairs]
    return texts, encode_dates([iso for _, iso in pairs]), chance.getrandbits(32)
