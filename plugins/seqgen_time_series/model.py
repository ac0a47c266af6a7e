"""The forecaster: windows in, a distribution of every future value out, by four decoders.

    patches -> encoder -> context           the history, right-aligned, any length
    simple forecasts -> linear skip         a weighted mean of J simple forecasts: the base
    open slots -> decoder -> head           what comes on top, in units of the window's own errors

One slot of the canvas is one patch of P future values v = asinh((z - base) / unit). The skip is
linear in the simple forecasts; its weights depend on the window, and before any training on the
errors that each of them made shortly before. The arcsinh keeps rare large errors within reach of
every head, and quantiles pass through it unharmed.

| decoder | inputs | head |
|---|---|---|
| `nar` | all slots open | quantiles of every value, in one pass |
| `ar` | the patch before, sampled | a joint sample of the patch, by flow |
| `hybrid` | as `ar`, attending to the last states of `nar` too | the same |
| `block` | blocks of patches, each filled in a few passes | the same |

Shape suffixes: B windows, T patches of history, S slots, P patch length, J simple forecasts,
D width, K quantile levels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqgen import checkpoints
from seqgen.attention import MaskView
from seqgen.decoders.hybrid import FirstPass
from seqgen.heads import FlowHead, QuantileHead, StudentTHead
from seqgen.masks import Full, SlotInfo
from seqgen.model import Context, SequenceModel
from seqgen.transformer import Transformer, TransformerConfig
from seqgen.value_inputs import MaskedValueInputs, ValueInputs
from seqgen_time_series.simple import SIMPLE
from seqgen_time_series.windows import FACTS, WindowBatch

KIND = "time-series"
LARGEST = 6.0
"""Bound of v: a value 200 units from the base. A rare sample must not run away."""
LEVELS = (0.025, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.975)
DecoderName = Literal["ar", "nar", "hybrid", "block"]
SampleHead = Literal["flow", "student-t", "quantile"]


@dataclass(frozen=True)
class ForecasterConfig:
    """Sizes of a `Forecaster`.

    Attributes:
        patch: values a slot P.
        context: most patches of history.
        slots: most slots of a horizon.
        width: D.
        heads: of attention.
        encoder_layers, decoder_layers: layers of the encoder and of each decoder.
        levels: of the quantile head.
        sample_head: head of `ar`, `hybrid` and `block`. `flow` samples the values of a patch
            together; `student-t` and `quantile` take them as independent given all before.
        flow_hidden, flow_depth, flow_steps: sizes of the flow head.
        block_length: patches a block in training.
    """

    patch: int = 8
    context: int = 64
    slots: int = 24
    width: int = 64
    heads: int = 4
    encoder_layers: int = 3
    decoder_layers: int = 2
    levels: tuple[float, ...] = LEVELS
    sample_head: SampleHead = "flow"
    flow_hidden: int = 96
    flow_depth: int = 2
    flow_steps: int = 6
    block_length: int = 3

    @property
    def horizon(self) -> int:
        """Most steps of a forecast."""
        return self.slots * self.patch

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ForecasterConfig:
        """From `asdict` of a config, as a checkpoint holds it."""
        return cls(**{**values, "levels": tuple(values["levels"])})


@dataclass(frozen=True)
class WindowContext(Context):
    """Encoded windows.

    Attributes:
        windows: what was encoded.
        base_BSP: the linear skip's forecast, in units of the scale.
        levels: of the quantiles that `nar` gives.
    """

    windows: WindowBatch | None = None
    base_BSP: Tensor | None = None
    levels: tuple[float, ...] = ()

    def repeated(self, times: int) -> WindowContext:
        """Every row this often, one after another; the windows stay as they are."""

        def wide(x: Tensor | None) -> Tensor | None:
            return None if x is None else x.repeat_interleave(times, dim=0)

        return replace(
            self,
            states_BTD=wide(self.states_BTD),
            valid_BT=wide(self.valid_BT),
            given_BSD=wide(self.given_BSD),
            layers=(),
        )


class Forecaster(nn.Module):
    """Windows -> context -> a `SequenceModel` for the decoder asked for."""

    def __init__(self, config: ForecasterConfig) -> None:
        super().__init__()
        self.config = config
        D, P = config.width, config.patch
        self.encoder = PatchEncoder(config)
        self.skip = LinearSkip(config)
        self.given = nn.Linear(P * SIMPLE + FACTS, D)
        self.nar = self._decoder("nar")
        self.ar = self._decoder("ar")
        self.hybrid = self._decoder("hybrid")
        self.memory = DraftMemory(config)
        self.block = self._decoder("block")

    def listen(self, windows: WindowBatch) -> WindowContext:
        """Encode windows, and lay down the base of their forecasts."""
        states_BTD = self.encoder(windows)
        base_BSP = self.skip(windows, states_BTD[:, -1])
        unit_BS1 = windows.unit_BS[..., None]
        # The heads speak of what comes on top of the base; it is not theirs to move.
        apart = windows.simple_BSPJ - base_BSP.detach()[..., None]
        apart = torch.asinh(apart / unit_BS1[..., None]).flatten(2)
        return WindowContext(
            states_BTD=states_BTD,
            valid_BT=windows.valid_BT,
            given_BSD=self.given(torch.cat([apart, windows.facts_BSG], dim=-1)),
            windows=windows,
            base_BSP=base_BSP,
            levels=self.config.levels,
        )

    def decoder(self, name: DecoderName) -> SequenceModel:
        """The model of a decoder."""
        found = getattr(self, name)
        assert isinstance(found, SequenceModel)
        return found

    def first_pass(self) -> FirstPass:
        """The direct pass whose last states `hybrid` attends to."""
        return FirstPass(model=self.nar, memory=self.memory)

    def _decoder(self, name: DecoderName) -> SequenceModel:
        c = self.config
        transformer = TransformerConfig(
            width=c.width, layers=c.decoder_layers, heads=c.heads, context_width=c.width
        )
        inputs: ValueInputs | MaskedValueInputs
        if name in ("ar", "hybrid"):
            inputs = ValueInputs(c.patch, c.width, adds_given=True)
            own = inputs.start_D
        else:
            inputs = MaskedValueInputs(c.patch, c.width, adds_given=True)
            own = inputs.mask_D
        # Beside the given embedding it must not drown what differs between slots.
        nn.init.normal_(own, std=c.width**-0.5)
        return SequenceModel(
            inputs=inputs,
            backbone=Transformer(transformer),
            head=self._head("quantile" if name == "nar" else c.sample_head),
        )

    def _head(self, name: SampleHead) -> FlowHead | StudentTHead | QuantileHead:
        c = self.config
        if name == "flow":
            return FlowHead(
                c.width, c.patch, hidden=c.flow_hidden, depth=c.flow_depth, steps=c.flow_steps,
                draws=2,
            )  # fmt: skip
        if name == "student-t":
            return StudentTHead(c.width, c.patch)
        return QuantileHead(c.width, c.patch, levels=c.levels)


class PatchEncoder(nn.Module):
    """Patches of a history to states; every patch sees all of them."""

    def __init__(self, config: ForecasterConfig) -> None:
        super().__init__()
        D = config.width
        self.patch = nn.Linear(3 * config.patch, D)
        # Counted from the end, so that it says how long ago a patch was.
        self.age = nn.Embedding(config.context, D)
        nn.init.normal_(self.age.weight, std=D**-0.5)
        self.transformer = Transformer(
            TransformerConfig(width=D, layers=config.encoder_layers, heads=config.heads)
        )

    def forward(self, windows: WindowBatch) -> Tensor:
        """States [B, T, D]."""
        count = windows.patches_BTE.shape[1]
        age_1T = torch.arange(count - 1, -1, -1, device=windows.patches_BTE.device)[None]
        x_BTD = self.patch(windows.patches_BTE) + self.age(age_1T)
        info = SlotInfo(group=torch.zeros_like(age_1T), position=age_1T)
        view = MaskView(Full(), info, info, windows.valid_BT)
        states_BTD: Tensor = self.transformer(x_BTD, -age_1T[..., None], view=view)
        return states_BTD


class DraftMemory(nn.Module):
    """The context of `hybrid`: the last states of `nar`, marked by slot, then those of the history.

    The history's states say themselves how old they are, wherever they stand: rows of a batch are
    padded in front.
    """

    def __init__(self, config: ForecasterConfig) -> None:
        super().__init__()
        self.slot = nn.Embedding(config.slots, config.width)
        nn.init.normal_(self.slot.weight, std=config.width**-0.5)

    def forward(
        self, states_BSD: Tensor, valid_BS: Tensor | None, context: Context | None
    ) -> Context:
        assert context is not None
        assert context.states_BTD is not None
        slots_S = torch.arange(states_BSD.shape[1], device=states_BSD.device)
        states = torch.cat([states_BSD + self.slot(slots_S), context.states_BTD], dim=1)
        valid = context.valid_BT
        if valid is not None:
            own_BS = valid.new_ones(states_BSD.shape[:2]) if valid_BS is None else valid_BS
            valid = torch.cat([own_BS, valid], dim=1)
        return replace(context, states_BTD=states, valid_BT=valid, layers=())


class LinearSkip(nn.Module):
    """A mean of the simple forecasts, with weights for every slot of a window.

    The weights are a softmax, so the base lies between the simple forecasts and cannot run away.
    Without training a forecast's weight is e^1.5 for the autoregressions (1 for the others), over
    the square of the error that it made shortly before: on simulated series this beats each one of
    them.
    """

    def __init__(self, config: ForecasterConfig) -> None:
        super().__init__()
        D = config.width
        self.slot = nn.Linear(config.patch * SIMPLE + FACTS, D)
        self.weights = nn.Linear(D, SIMPLE)
        self.sharpness = nn.Parameter(torch.tensor(2.0))
        nn.init.zeros_(self.weights.weight)
        nn.init.zeros_(self.weights.bias)
        with torch.no_grad():
            self.weights.bias[-2:] = 1.5

    def forward(self, windows: WindowBatch, last_BD: Tensor) -> Tensor:
        """The base [B, S, P] in units of the scale; `last_BD` is the newest patch's state."""
        simple_BSPJ = windows.simple_BSPJ
        apart = torch.asinh(
            (simple_BSPJ - simple_BSPJ[..., :1]) / windows.unit_BS[..., None, None]
        ).flatten(2)
        hidden_BSD = self.slot(torch.cat([apart, windows.facts_BSG], dim=-1)) + last_BD[:, None]
        log_errors_BSJ = windows.facts_BSG[..., -SIMPLE:]
        logits_BSJ = self.weights(F.gelu(hidden_BSD)) - self.sharpness * log_errors_BSJ
        base_BSP: Tensor = torch.einsum("bspj,bsj->bsp", simple_BSPJ, logits_BSJ.softmax(dim=-1))
        return base_BSP


def encode_values(z_BSP: Tensor, context: WindowContext) -> Tensor:
    """Canvas values v [B, S, P] of values in units of the scale."""
    assert context.windows is not None
    assert context.base_BSP is not None
    apart = (z_BSP - context.base_BSP) / context.windows.unit_BS[..., None]
    return torch.asinh(apart).clamp(-LARGEST, LARGEST)


def decode_values(v: Tensor, context: WindowContext) -> Tensor:
    """Values y, float64, of canvas values v [B, S, P, ...] (paths or quantiles behind)."""
    windows, base = context.windows, context.base_BSP
    assert windows is not None
    assert base is not None
    extra = [1] * (v.dim() - 3)

    def like(x: Tensor, *places: int) -> Tensor:
        return x.double().view(*x.shape, *places, *extra)

    z = like(base) + like(windows.unit_BS, 1) * torch.sinh(v.double().clamp(-LARGEST, LARGEST))
    return like(windows.level_B, 1, 1) + like(windows.scale_B, 1, 1) * z


def save_model(model: Forecaster, path: Path, notes: Mapping[str, Any]) -> Path:
    """Write one safetensors file, weights in half precision, with everything `load_model` needs."""
    config = {"kind": KIND, "model": asdict(model.config), "training": dict(notes)}
    return checkpoints.save(path, model.state_dict(), config, half=True)


def load_model(path: Path) -> Forecaster:
    """Load our own checkpoint: a file, or the folder of a training.

    Raises:
        CheckpointError: missing, damaged, of another kind, or not fitting.
    """
    fix = "use a checkpoint made by `seqgen train --plugin time-series`"
    state, config = checkpoints.load_kind(path, KIND, what="a forecasting model", fix=fix)
    with checkpoints.building(path):
        model = Forecaster(ForecasterConfig.from_dict(config["model"]))
    checkpoints.load_strict(model, state, source=path)
    checkpoints.require_finite(model, source=path)
    return model.eval()
