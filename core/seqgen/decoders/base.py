"""What every decoder offers, and what it returns.

Shapes: B rows, S slots.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from seqgen.canvas import Canvas
from seqgen.events import Event
from seqgen.hypotheses import Hypotheses
from seqgen.loop import Recipe, decode
from seqgen.model import Context, SequenceModel


@dataclass(frozen=True)
class Generated:
    """A decoded batch.

    Attributes:
        values: ids [B, S] or vectors [B, S, C], the prompt included.
        confidence_BS: confidence each slot was committed with.
        prompt_B: slots of the prompt.
        length_B: slots in use; the stop value, if any, is the last of them.
        finished_B: rows that ended with a stop value.
        forwards: forward passes of the model.
        draft_forwards: forward passes of a draft model (speculative decoding).
        hypotheses: the n best answers of every row, of decoders that search for several.
        parameters: [B, S, C, P], the distribution each continuous value was chosen from, of heads
            that know it: `head.distribution(generated.parameters)`.
    """

    values: Tensor
    confidence_BS: Tensor
    prompt_B: Tensor
    length_B: Tensor
    finished_B: Tensor
    forwards: int
    draft_forwards: int = 0
    hypotheses: Hypotheses | None = None
    parameters: Tensor | None = None

    def sequences(self, *, drop: tuple[int, ...] = ()) -> list[list[int]]:
        """The new ids of each row as lists, without the ids in `drop` (the stop id, say)."""
        rows = self.values.tolist()
        spans = zip(self.prompt_B.tolist(), self.length_B.tolist(), strict=True)
        return [
            [i for i in row[a:b] if i not in drop] for row, (a, b) in zip(rows, spans, strict=True)
        ]

    def vectors(self) -> list[Tensor]:
        """The new continuous values of each row, [slots, C]."""
        spans = zip(self.prompt_B.tolist(), self.length_B.tolist(), strict=True)
        return [row[a:b] for row, (a, b) in zip(self.values, spans, strict=True)]


class Decoder(Protocol):
    """A way to decode a canvas."""

    def stream(
        self, model: SequenceModel, canvas: Canvas, context: Context | None = None
    ) -> Iterator[Event]:
        """Decode in place, yielding events."""
        ...

    def generate(
        self,
        model: SequenceModel,
        canvas: Canvas,
        context: Context | None = None,
        *,
        on_event: Callable[[Event], None] | None = None,
    ) -> Generated:
        """Decode in place and return the result."""
        ...


class StreamDecoder:
    """Base of the decoders: `generate` drains `stream`."""

    def stream(
        self, model: SequenceModel, canvas: Canvas, context: Context | None = None
    ) -> Iterator[Event]:
        raise TypeError(f"{type(self).__name__} must define stream()")

    def generate(
        self,
        model: SequenceModel,
        canvas: Canvas,
        context: Context | None = None,
        *,
        on_event: Callable[[Event], None] | None = None,
    ) -> Generated:
        """Decode `canvas` in place; `on_event` sees every event."""
        return drain(self.stream(model, canvas, context), canvas, on_event)


class GroupDecoder(StreamDecoder):
    """Base of the decoders that are one `Recipe` over the loop."""

    def recipe(self, model: SequenceModel) -> Recipe:
        raise TypeError(f"{type(self).__name__} must define recipe()")

    def stream(
        self, model: SequenceModel, canvas: Canvas, context: Context | None = None
    ) -> Iterator[Event]:
        """Decode `canvas` in place, yielding an event a forward pass."""
        return decode(model, canvas, context, self.recipe(model))


def drain(
    events: Iterator[Event], canvas: Canvas, on_event: Callable[[Event], None] | None = None
) -> Generated:
    """Run a stream to its end. A decoder with several answers returns them from its generator."""
    forwards = draft_forwards = 0
    hypotheses: Hypotheses | None = None
    while True:
        try:
            event = next(events)
        except StopIteration as end:
            hypotheses = end.value
            break
        forwards = event.forward + 1
        draft_forwards += event.draft_forwards
        if on_event is not None:
            on_event(event)
    return Generated(
        values=canvas.values,
        confidence_BS=canvas.confidence_BS,
        prompt_B=canvas.prompt_B,
        length_B=canvas.length_B,
        finished_B=canvas.finished_B,
        forwards=forwards,
        draft_forwards=draft_forwards,
        hypotheses=hypotheses,
        parameters=canvas.parameters,
    )
