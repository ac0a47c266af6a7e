"""A decoder inside another one: its events, its rows and its hypotheses as the outer one's.

Shapes: B rows, N hypotheses a row, S slots.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from seqgen.canvas import Canvas
from seqgen.events import Event
from seqgen.hypotheses import Hypotheses
from seqgen.logits import NEVER


def changed(
    events: Iterator[Event], change: Callable[[int, Event], Event]
) -> Generator[Event, None, Hypotheses | None]:
    """Yield `change(index, event)` for every event; return what the stream returns."""
    index = 0
    while True:
        try:
            event = next(events)
        except StopIteration as end:
            hypotheses: Hypotheses | None = end.value
            return hypotheses
        yield change(index, event)
        index += 1


def of_all_rows(event: Event, index: Tensor, rows: int, *, after: int) -> Event:
    """An event of the rows `index` as one of all rows, behind `after` passes of the outer decoder.

    The other rows keep nothing in it.
    """

    def spread(x: Tensor) -> Tensor:
        return x.new_zeros(rows, *x.shape[1:]).index_copy(0, index, x)

    slots, rolled_back = event.slots_BQ, event.rolled_back_BQ
    return replace(
        event,
        forward=event.forward + after,
        step=event.step + after,
        slots_BQ=slots if slots.shape[0] == 1 else spread(slots),
        values=spread(event.values),
        confidence_BQ=spread(event.confidence_BQ),
        kept_BQ=spread(event.kept_BQ),
        rolled_back_BQ=None if rolled_back is None else spread(rolled_back),
    )


def only_answer(canvas: Canvas) -> Hypotheses:
    """What a decoder without hypotheses wrote, as one hypothesis a row."""
    slots_S = torch.arange(canvas.slots, device=canvas.device)
    new_BS = (slots_S >= canvas.prompt_B[:, None]) & (slots_S < canvas.length_B[:, None])
    score_B = canvas.confidence_BS.log().where(new_BS, 0.0).sum(dim=1)
    return Hypotheses(
        values_BNS=canvas.values[:, None],
        length_BN=canvas.length_B[:, None],
        score_BN=score_B[:, None],
        confidence_BNS=canvas.confidence_BS[:, None],
        finished_BN=canvas.finished_B[:, None],
    )


def merged(outer: Hypotheses, found: Hypotheses, index: Tensor) -> Hypotheses:
    """The hypotheses of all rows: `outer`, but `found` for the rows `index`."""
    count = max(outer.count, found.count)
    slots = outer.values_BNS.shape[-1]

    def joined(all_of: Tensor, own: Tensor, empty: float) -> Tensor:
        wide = all_of.dim() == 3
        all_of, own = (
            F.pad(
                x,
                (*((0, slots - x.shape[-1]) if wide else ()), 0, count - x.shape[1]),
                value=empty,
            )
            for x in (all_of, own)
        )
        return all_of.index_copy(0, index, own)

    return Hypotheses(
        joined(outer.values_BNS, found.values_BNS, 0),
        joined(outer.length_BN, found.length_BN, 0),
        joined(outer.score_BN, found.score_BN, NEVER),
        joined(outer.confidence_BNS, found.confidence_BNS, 0),
        joined(outer.finished_BN, found.finished_BN, 0),
    )
