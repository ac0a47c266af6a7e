"""Decoding to pixels: an engine's decoder, with the image at its end and the order kept on the way.

What the user gave is copied into the image as it was, whatever the tokenizer makes of it.

Shapes: B rows, S slots, H, W, C of an image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from seqgen.canvas import COMMITTED, Canvas, take
from seqgen.decoders.base import Decoder, Generated
from seqgen.events import Event
from seqgen.model import Context, SequenceModel
from seqgen_images.model import ImageModel

NEVER = 1 << 30


@dataclass(frozen=True)
class Known:
    """The given part of a batch's images.

    Attributes:
        pixels_BHWC: uint8.
        known_BHW: bool.
    """

    pixels_BHWC: Tensor
    known_BHW: Tensor

    def over(self, images_BHWC: Tensor) -> Tensor:
        """Images with the known pixels copied in."""
        colours = self.colours(images_BHWC.shape[-1])
        return torch.where(self.known_BHW[..., None], colours, images_BHWC)

    def colours(self, channels: int) -> Tensor:
        """The pixels as a model with so many channels has them: grey for one."""
        if channels == 3:
            return self.pixels_BHWC
        return self.pixels_BHWC.float().mean(dim=-1, keepdim=True).round().to(torch.uint8)

    def row(self, row: int) -> Known:
        """One row's, on the host."""
        part = slice(row, row + 1)
        return Known(self.pixels_BHWC[part].cpu(), self.known_BHW[part].cpu())


@dataclass(frozen=True)
class Painted(Generated):
    """A decoded batch with its images.

    Attributes:
        images_BHWC: uint8.
        pass_BS: the pass that decided a slot, from 1; 0 for one that was given.
        seeds: of the rows.
        engine: that made them.
        known: what was given, or None.
    """

    images_BHWC: Tensor | None = None
    pass_BS: Tensor | None = None
    seeds: tuple[int, ...] = ()
    engine: str = ""
    known: Known | None = None


@dataclass(frozen=True)
class Painter:
    """A decoder whose result has the images too.

    Attributes:
        inner: the engine's.
        model: turns slots into images.
        known: what the user gave, or None.
    """

    inner: Decoder
    model: ImageModel
    known: Known | None = None

    def stream(
        self, model: SequenceModel, canvas: Canvas, context: Context | None = None
    ) -> Iterator[Event]:
        return self.inner.stream(model, canvas, context)

    def generate(
        self,
        model: SequenceModel,
        canvas: Canvas,
        context: Context | None = None,
        *,
        on_event: Callable[[Event], None] | None = None,
    ) -> Painted:
        pass_BS = torch.full_like(canvas.state_BS, NEVER, dtype=torch.int32)
        pass_BS.masked_fill_(canvas.state_BS == COMMITTED, 0)

        def watch(event: Event) -> None:
            _note(pass_BS, event)
            if on_event is not None:
                on_event(event)

        done = self.inner.generate(model, canvas, context, on_event=watch)
        images_BHWC = self.model.images(done.values)
        if self.known is not None:
            images_BHWC = self.known.over(images_BHWC)
        return Painted(
            **vars(done),
            images_BHWC=images_BHWC,
            pass_BS=pass_BS,
            seeds=tuple(canvas.seeds_B.tolist()),
            engine=self.model.engine,
            known=self.known,
        )


def _note(pass_BS: Tensor, event: Event) -> None:
    slots_BQ = event.slots_BQ.expand(len(pass_BS), -1)
    before_BQ = take(pass_BS, slots_BQ)
    now_BQ = torch.where(event.kept_BQ, event.forward + 1, before_BQ)
    pass_BS.scatter_(1, slots_BQ, now_BQ.to(pass_BS.dtype))


def own_passes(pass_S: Tensor) -> Tensor:
    """A row's passes, counted without those that decided nothing in it: 1, 2, ... [S].

    So the count of a row does not depend on its company in the batch.
    """
    _, rank_S = torch.unique(pass_S, return_inverse=True)
    own_S: Tensor = rank_S if bool((pass_S == 0).any()) else rank_S + 1
    return own_S
