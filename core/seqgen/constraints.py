"""Constraints: what a sequence may still become.

A constraint tests reachability, not only the present: a value is allowed if some sequence that
begins with it can still end well. (A mask that only asks "not too much yet" fills beams with dead
ends.) Its state is a tuple of tensors with one row a hypothesis, so that beams can be reordered,
dropped and multiplied by indexing, without asking the constraint.

Shapes: N rows (items, or hypotheses of items), B rows of a canvas, Q = 1 slot of a step, V
vocabulary, S states of an automaton.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor, nn

from seqgen.canvas import Canvas
from seqgen.heads.base import Head, Proposal, Request
from seqgen.logits import NEVER

State = tuple[Tensor, ...]
"""What a constraint knows of each row: tensors [N, ...]."""


class Constraint(Protocol):
    """Which values may come next, decided from left to right.

    Rows that have ended, or have no hypothesis, are carried along with values of any kind: their
    states must only stay valid tensors.
    """

    def start(self, canvas: Canvas) -> State:
        """The state after each row's prompt; one row a row of the canvas."""
        ...

    def allowed(self, state: State, left_N: Tensor) -> Tensor:
        """Values from which an end can be reached, bool [N, V]; all False in a dead end.

        Args:
            left_N: slots that the row may still fill, the next one included.
        """
        ...

    def advance(self, state: State, values_N: Tensor) -> State:
        """The state after one more value a row."""
        ...


@dataclass(frozen=True, eq=False)
class Automaton:
    """A finite automaton over the new values: what may follow, and where a sequence may end.

    Attributes:
        next_SV: int64, the state that a value leads to; -1 where it is forbidden. Decoding starts
            in state 0, behind the prompt.
        ends_S: bool, states in which a sequence is complete. A stop value is a value like others:
            it leads to such a state.
    """

    next_SV: Tensor
    ends_S: Tensor
    _tables: dict[torch.device, tuple[Tensor, Tensor]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        states = self.next_SV.shape[0]
        if self.ends_S.shape != (states,) or states == 0:
            raise ValueError(f"{states} rows of transitions for {self.ends_S.numel()} states")
        if int(self.next_SV.max()) >= states or int(self.next_SV.min()) < -1:
            raise ValueError(f"transitions must lead to states 0 to {states - 1}, or be -1")

    @classmethod
    def listed(cls, sequences: Sequence[Sequence[int]], *, vocabulary: int, stop: int) -> Automaton:
        """Exactly these sequences, each followed by a stop value."""
        branches: list[dict[int, int]] = [{}, {}]  # the start and the end
        for sequence in sequences:
            state = 0
            for value in sequence:
                if value not in branches[state]:
                    branches[state][value] = len(branches)
                    branches.append({})
                state = branches[state][value]
            branches[state][stop] = 1
        next_SV = torch.full((len(branches), vocabulary), -1)
        for state, values in enumerate(branches):
            for value, after in values.items():
                next_SV[state, value] = after
        return cls(next_SV, torch.arange(len(branches)) == 1)

    @classmethod
    def banning(cls, ids: Sequence[int], *, vocabulary: int) -> Automaton:
        """Every sequence without these values."""
        next_1V = torch.zeros(1, vocabulary, dtype=torch.int64)
        next_1V[:, list(ids)] = -1
        return cls(next_1V, torch.ones(1, dtype=torch.bool))

    def start(self, canvas: Canvas) -> State:
        return (torch.zeros_like(canvas.prompt_B),)

    def allowed(self, state: State, left_N: Tensor) -> Tensor:
        _, needed = self._tables_on(left_N.device)
        return needed[state[0]] <= left_N[:, None]

    def advance(self, state: State, values_N: Tensor) -> State:
        after, _ = self._tables_on(values_N.device)
        return (after[state[0], values_N],)

    def _tables_on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """The next state, and the values needed until an end, the first included: [S + 1, V].

        The last state is where forbidden values lead to, and nothing leads out of it.
        """
        if device not in self._tables:
            states, vocabulary = self.next_SV.shape
            never = torch.iinfo(torch.int64).max // 2
            after = torch.full((states + 1, vocabulary), states)
            after[:states] = torch.where(self.next_SV < 0, states, self.next_SV.cpu())
            ends = torch.cat([self.ends_S.cpu(), torch.tensor([False])])
            distance = torch.where(ends, 0, never)
            while True:
                nearer = torch.minimum(distance, distance[after].amin(dim=1) + 1)
                if torch.equal(nearer, distance):
                    break
                distance = nearer
            needed = distance[after] + 1
            self._tables[device] = after.to(device), needed.to(device)
        return self._tables[device]


class ConstrainedHead(nn.Module):
    """A head that proposes allowed values only, slot after slot; made for one decode.

    Confidences are those of the head itself, not renormalised over what is allowed.

    Attributes:
        dead_B: rows for which nothing was allowed: they end before that slot.
    """

    def __init__(self, head: Head, constraint: Constraint, canvas: Canvas) -> None:
        super().__init__()
        self.head, self.constraint = head, constraint
        self.state = constraint.start(canvas)
        self.dead_B = torch.zeros_like(canvas.finished_B)

    def propose(self, hidden_BQD: Tensor, request: Request) -> Proposal:
        """Propose for the next slot of every row, and go on to the one after it."""
        canvas, slots_BQ, sampling = request.canvas, request.slots_BQ, request.sampling
        left_B = canvas.limit_B - slots_BQ[:, 0]
        allowed_BV = self.constraint.allowed(self.state, left_B)
        filters = (_Allow(allowed_BV[:, None]), *sampling.filters)
        request = replace(request, sampling=replace(sampling, filters=filters))
        proposal = self.head.propose(hidden_BQD, request)
        if proposal.logits_BQV is None:
            raise ValueError("a constraint needs a head with logits")
        if sampling.temperature == 0:
            values_BQ = proposal.logits_BQV.argmax(dim=-1)
            confidence_BQ = proposal.confidence_in(values_BQ)
            proposal = replace(proposal, values=values_BQ, confidence_BQ=confidence_BQ)
        ends_B = ~allowed_BV.any(dim=1) & (left_B > 0) & ~canvas.finished_B
        self.dead_B |= ends_B
        canvas.length_B = torch.where(ends_B, slots_BQ[:, 0], canvas.length_B)
        canvas.finished_B = canvas.finished_B | ends_B
        self.state = self.constraint.advance(self.state, proposal.values[:, 0])
        return proposal

    def loss(self, hidden_BQD: Tensor, targets: Tensor) -> Tensor:
        """The loss of the head itself: constraints are for decoding."""
        return self.head.loss(hidden_BQD, targets)


@dataclass(frozen=True)
class Alive:
    """The commit rule that goes with a `ConstrainedHead`: all but the rows in a dead end."""

    head: ConstrainedHead

    def __call__(
        self, proposal: Proposal, open_BQ: Tensor, size_B: Tensor, request: Request
    ) -> Tensor:
        return open_BQ & ~self.head.dead_B[:, None]

    def passes(self, size: int, opened: int) -> tuple[int, int]:
        return 1, 1


@dataclass(frozen=True)
class _Allow:
    """A processor of one step's logits."""

    allowed_BQV: Tensor

    def __call__(self, logits_BQV: Tensor, canvas: Canvas, slots_BQ: Tensor) -> Tensor:
        return logits_BQV.masked_fill(~self.allowed_BQV, NEVER)
