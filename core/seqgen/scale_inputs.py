"""Next-scale inputs (VAR, Tian et al. 2024, arXiv 2404.02905, section 3): coarse to fine.

At the slots of scale k enters what the scales before it have made so far: the accumulated latent,
resized to the grid of scale k and projected, with a position and a scale embedding. At the first
scale, which has nothing before it, enters the condition. No slot holds its own value, so all slots
of a scale are decided in one pass. For `grid_orders.Scales` and a block-causal mask.

Shapes: B rows, R slots fed, S slots, N slots of one scale, D width, C channels of the latent, K
scales.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Protocol

import torch
from torch import Tensor, nn

from seqgen.canvas import Canvas, take
from seqgen.inputs import condition_of, plus_given
from seqgen.linear import Linear
from seqgen.model import Context

MOST_SPANS = 256
"""Parts of orders that are remembered."""


class ScaleLatents(Protocol):
    """What is needed of a quantizer over scales, such as `tokenizers.MultiScaleRVQ`.

    Attributes:
        scales: side of each scale's grid.
        bounds: first slot of each scale and the one after its last.
        slots: of all scales S.
        channels: of the latent C.
    """

    @property
    def scales(self) -> tuple[int, ...]: ...

    @property
    def bounds(self) -> tuple[tuple[int, int], ...]: ...

    @property
    def slots(self) -> int: ...

    @property
    def channels(self) -> int: ...

    def empty(self, batch: int) -> Tensor:
        """The latent of no scale, [B, C, H, W]."""
        ...

    def accumulate(self, f_BCHW: Tensor, ids_BN: Tensor, scale: int) -> Tensor:
        """The latent with the tokens of one scale added."""
        ...

    def resize(self, f_BCHW: Tensor, scale: int) -> Tensor:
        """The latent on a scale's grid, [B, N, C]."""
        ...

    def inputs(self, ids_BS: Tensor) -> Tensor:
        """What is fed for every scale but the first, [B, S - N of the first, C]."""
        ...


class ScaleInputs(nn.Module):
    """At a slot of scale k enters the latent of the scales before k, on the grid of scale k.

    What a pass has accumulated stays on the canvas, so that the next pass only adds one scale to
    it, and the branches of guidance share it.

    Args:
        quantizer: of the tokenizer whose ids these are. It is used as it is: it is not part of
            this module, and neither trained nor saved nor moved to a device with it.
        width: D.
        adds_given: add `Context.given_BSD` to every slot.
    """

    settles_open = True
    first_slot = 0

    def __init__(self, quantizer: ScaleLatents, width: int, *, adds_given: bool = False) -> None:
        super().__init__()
        self._quantizer = (quantizer,)  # in a tuple, where nn.Module does not look
        self._spans: dict[tuple[object, ...], tuple[Tensor, tuple[int, int]]] = {}
        self.adds_given = adds_given
        self.projection = Linear(quantizer.channels, width)
        self.start_ND = nn.Parameter(torch.empty(quantizer.bounds[0][1], width))
        self.positions = nn.Embedding(quantizer.slots, width)
        self.levels = nn.Embedding(len(quantizer.scales), width)
        for table in (self.start_ND, self.positions.weight, self.levels.weight):
            nn.init.normal_(table, std=(3 * width) ** -0.5)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_spans": {}}

    @property
    def quantizer(self) -> ScaleLatents:
        return self._quantizer[0]

    def forward(
        self,
        canvas: Canvas,
        slots_BR: Tensor,
        valid_BR: Tensor | None = None,
        context: Context | None = None,
    ) -> Tensor:
        lowest, highest = self._span(slots_BR)
        x, first = self._scales(canvas, lowest, highest, context)
        # Whole scales in sequence, as every pass of a decode feeds them, need no gathering.
        whole = (lowest, highest + 1) == (first, first + x.shape[1])
        if not (whole and slots_BR.shape == (1, x.shape[1])):
            x = take(x, slots_BR - first)
        return plus_given(x, slots_BR, context) if self.adds_given else x

    def embed_before(self, ids_BS: Tensor, context: Context | None = None) -> Tensor:
        """Embeddings [B, S, D] of slots that hold these values, for teacher forcing."""
        with torch.no_grad():
            fed_BRC = self.quantizer.inputs(ids_BS)
        first = self._begin(context)
        later = [self._places(scale) for scale in range(1, len(self.quantizer.scales))]
        x = self.projection(fed_BRC.to(first.dtype))
        if later:
            x = x + torch.cat(later)
        x = torch.cat([first, x], dim=1)
        return plus_given(x, slice(None), context) if self.adds_given else x

    def _span(self, slots_BR: Tensor) -> tuple[int, int]:
        """Lowest and highest slot, as host numbers.

        Reading them waits for the device, so it is done once for slots that last: an order's
        table, of which every decode feeds the same parts.
        """
        if slots_BR.is_inference():  # such tensors do not tell when they are changed
            return _ask(slots_BR)
        key = (slots_BR.data_ptr(), slots_BR._version, slots_BR.shape, slots_BR.stride())
        if key not in self._spans:
            if len(self._spans) >= MOST_SPANS:
                self._spans.clear()
            # With the slots themselves, so that no others come to lie at their address.
            self._spans[key] = slots_BR, _ask(slots_BR)
        return self._spans[key][1]

    def _scales(
        self, canvas: Canvas, lowest: int, highest: int, context: Context | None
    ) -> tuple[Tensor, int]:
        """What enters at the scales that hold these slots, [B, R, D], and their first slot."""
        bounds = self.quantizer.bounds
        first = bisect_right(bounds, lowest, key=_start) - 1
        last = bisect_right(bounds, highest, key=_start) - 1
        parts = [
            self._coarser(canvas, scale) if scale else self._begin(context)
            for scale in range(first, last + 1)
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1), bounds[first][0]

    def _begin(self, context: Context | None) -> Tensor:
        """What enters at the first scale: the condition, [B, N, D]."""
        start_ND = self.start_ND + self._places(0)
        return condition_of(context)[:, None].to(start_ND.dtype) + start_ND

    def _coarser(self, canvas: Canvas, scale: int) -> Tensor:
        """What enters at a later scale, [B, N, D]; worked out once a decode."""
        known = canvas.scratch.get((self, "inputs", scale))
        if known is None:
            fed_BNC = self.quantizer.resize(self._latent(canvas, scale), scale)
            known = self.projection(fed_BNC.to(self.start_ND.dtype))
            known = known + self._places(scale)
            canvas.scratch[self, "inputs", scale] = known
        return known

    def _latent(self, canvas: Canvas, scale: int) -> Tensor:
        """The sum of the scales before this one, [B, C, H, W]."""
        if scale == 0:
            return self.quantizer.empty(canvas.batch)
        known = canvas.scratch.get((self, "latent", scale))
        if known is None:
            start, end = self.quantizer.bounds[scale - 1]
            ids_BN = canvas.values[:, start:end]
            known = self.quantizer.accumulate(self._latent(canvas, scale - 1), ids_BN, scale - 1)
            canvas.scratch[self, "latent", scale] = known
        return known

    def _places(self, scale: int) -> Tensor:
        """Position and scale embedding of a scale's slots, [N, D]."""
        start, end = self.quantizer.bounds[scale]
        return self.positions.weight[start:end] + self.levels.weight[scale]


def _ask(slots_BR: Tensor) -> tuple[int, int]:
    lowest, highest = torch.stack(slots_BR.aminmax()).tolist()
    return lowest, highest


def _start(bounds: tuple[int, int]) -> int:
    return bounds[0]
