"""Hybrid decoding: a non-autoregressive pass whose hidden states are context of another decoder.

CrossNovo joins two decoders over one encoder so: a pass of the non-autoregressive decoder looks at
all slots at once, and the autoregressive decoder attends to what it saw, concat[V_last, E] in place
of E. A direct forecast that an autoregressive model refines is the same thing.

    first = FirstPass(model=nar, slots=40)
    second = Autoregressive(stop_ids=(0,))
    generated = Hybrid(first=first, second=second).generate(ar, canvas, context)

Shapes: B rows, S slots of the first pass, T context length, D width.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor

from seqgen.canvas import Canvas
from seqgen.decoders.base import Decoder, Generated
from seqgen.decoders.inner import changed
from seqgen.decoders.one_pass import whole_pass
from seqgen.events import Event
from seqgen.hypotheses import Hypotheses
from seqgen.model import Context, SequenceModel


@dataclass(frozen=True, kw_only=True)
class Hybrid:
    """Decode with `second`, whose model attends to the states of `first` besides the context.

    The model given to `generate` is the second one. The first pass counts as a draft's
    (`Generated.draft_forwards`).

    Attributes:
        first: the pass whose hidden states are attended to.
        second: any decoder.
    """

    first: FirstPass
    second: Decoder

    def stream(
        self, model: SequenceModel, canvas: Canvas, context: Context | None = None
    ) -> Generator[Event, None, Hypotheses | None]:
        """Decode `canvas` in place; yields the second decoder's events, returns what it returns."""
        events = self.second.stream(model, canvas, self._memory(canvas, context))
        return (yield from changed(events, _counted))

    def generate(
        self,
        model: SequenceModel,
        canvas: Canvas,
        context: Context | None = None,
        *,
        on_event: Callable[[Event], None] | None = None,
    ) -> Generated:
        """Decode `canvas` in place; the result is the second decoder's."""
        index = itertools.count()

        def seen(event: Event) -> None:
            if on_event is not None:
                on_event(_counted(next(index), event))

        memory = self._memory(canvas, context)
        generated = self.second.generate(model, canvas, memory, on_event=seen)
        return replace(generated, draft_forwards=generated.draft_forwards + 1)

    @torch.inference_mode()
    def _memory(self, canvas: Canvas, context: Context | None) -> Context:
        states_BSD, valid_BS = self.first.states(canvas, context)
        return self.first.memory(states_BSD, valid_BS, context)


def _counted(index: int, event: Event) -> Event:
    """The first event counts the first pass."""
    return replace(event, draft_forwards=event.draft_forwards + (index == 0))


class Memory(Protocol):
    """Makes the context of the second model."""

    def __call__(
        self, states_BSD: Tensor, valid_BS: Tensor | None, context: Context | None
    ) -> Context:
        """A context like `context`, with the states of the first pass in it.

        Args:
            states_BSD: last hidden states of the first pass.
            valid_BS: its slots in use; None if all are.
            context: what the first pass was conditioned on.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class ConcatenatedMemory:
    """The states of the first pass, then the encoder's, as one longer context.

    Other fields of the context stay as they are, those of a subclass too.

    Attributes:
        positions: add sinusoids (Vaswani et al. 2017, section 3.5; all sines, then all cosines) of
            positions 1..S for the slots and S+1..S+T for the encoder's states, as CrossNovo does.
            Attention could not tell them apart otherwise. S is a row's own number of slots in use.
    """

    positions: bool = True

    def __call__(
        self, states_BSD: Tensor, valid_BS: Tensor | None, context: Context | None
    ) -> Context:
        context = context or Context()
        states, valid = states_BSD, valid_BS
        if context.states_BTD is not None:
            states = torch.cat([states_BSD, context.states_BTD], dim=1)
            if valid_BS is not None or context.valid_BT is not None:
                parts = (states_BSD, valid_BS), (context.states_BTD, context.valid_BT)
                valid = torch.cat([_all_of(x) if v is None else v for x, v in parts], dim=1)
        if self.positions:
            states = states + _sinusoids(states, states_BSD.shape[1], valid_BS)
        # Keys and values of the old states, if there are any, are another model's.
        return replace(context, states_BTD=states, valid_BT=valid, layers=())


@dataclass(frozen=True, kw_only=True)
class FirstPass:
    """One pass of a non-autoregressive model over all slots.

    Attributes:
        model: inputs that do not read the value before (`MaskedInputs`, `GivenInputs`).
        slots: slots of its canvas, without a prompt. None: it looks at the canvas that is decoded,
            with its prompt and known slots.
        memory: makes the second model's context.
    """

    model: SequenceModel
    slots: int | None = None
    memory: Memory = field(default_factory=ConcatenatedMemory)

    def states(self, canvas: Canvas, context: Context | None) -> tuple[Tensor, Tensor | None]:
        """Last hidden states [B, S, D], and which slots are in use (None: all)."""
        if self.slots is not None:
            values = canvas.values.new_zeros(canvas.batch, self.slots, *canvas.values.shape[2:])
            canvas = Canvas(values, seeds=canvas.seeds_B)
        rows = None if context is None or context.states_BTD is None else len(context.states_BTD)
        if self.model.branches != 1 or rows not in (None, canvas.batch):
            raise ValueError(
                f"the first pass of a hybrid takes one row of context a row, and no guidance: "
                f"{rows} rows of context for {canvas.batch} rows, {self.model.branches} branches"
            )
        states_BSD = whole_pass(self.model, canvas, context)
        if canvas.uniform_length:
            return states_BSD, None
        slots_S = torch.arange(canvas.slots, device=canvas.device)
        return states_BSD, slots_S < canvas.limit_B[:, None]


def _all_of(states_BTD: Tensor) -> Tensor:
    return torch.ones(states_BTD.shape[:2], dtype=torch.bool, device=states_BTD.device)


def _sinusoids(states_BTD: Tensor, slots: int, valid_BS: Tensor | None) -> Tensor:
    """Sinusoids [B or 1, T, D] of positions 1..T; slots that are not in use do not count."""
    length, width = states_BTD.shape[1:]
    half = -(-width // 2)
    index = torch.arange(half, dtype=torch.float32, device=states_BTD.device)
    position_BT = torch.arange(1, length + 1, device=states_BTD.device)[None]
    if valid_BS is not None:
        unused_B1 = slots - valid_BS.sum(dim=1, keepdim=True)
        position_BT = position_BT - unused_B1 * (position_BT > slots)
    angle = position_BT[..., None].float() / 10_000 ** (index / half)
    return torch.cat([angle.sin(), angle.cos()], dim=-1)[..., :width].to(states_BTD.dtype)
