"""The canvas: the values decoded so far, the only mutable decoding state.

Rows of a batch may differ in prompt length, in how much they may generate, in what they accept and
in when they stop; so everything is [batch, slots] and nothing assumes one token a row.

Shapes: B rows, S slots, Q slots of one step, C channels of a continuous value.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from seqgen.errors import InputError

OPEN = 0
"""A slot without a value: the model sees a mask (or nothing) there."""
COMMITTED = 1
"""A slot whose value stands. A committed value changes only by an explicit rollback."""


class Canvas:
    """Values, slot states and row lengths of one batch.

    Attributes:
        values: token ids int64 [B, S], or continuous vectors float [B, S, C].
        state_BS: uint8, `OPEN` or `COMMITTED`.
        confidence_BS: float32, the confidence a slot was committed with; 1 for the prompt.
        parameters: float32 [B, S, C, P], the distribution each value was chosen from
            (`Proposal.parameters`); zeros for the prompt, None before a head has given any.
        prompt_B: int64, slots given by the user; they never change.
        length_B: int64, slots of a row in use; shrinks to the stop slot when the row stops.
        seeds_B: int64, the source of a row's randomness.
        finished_B: bool, rows that have stopped; set by `stop_at` or as a whole, not in place.
        may_have_stopped: whether a row may have stopped, a host flag: False is certain.
        uniform_prompt: the prompt length if all rows share it, else None. A host number, so that
            the loop need not ask the device.
        max_length: the greatest `length_B` at the start, a host number.
        uniform_length: whether all rows use all slots.
        scratch: what inputs have worked out from committed values and will need again in later
            passes (an accumulated latent), under keys that hold their maker, so that none reads
            another's. Forgotten when a slot is reopened.
    """

    def __init__(
        self,
        values: Tensor,
        *,
        prompt: Tensor | Sequence[int] | int = 0,
        length: Tensor | Sequence[int] | int | None = None,
        seeds: Tensor | None = None,
        given: Tensor | None = None,
    ) -> None:
        """Make a canvas from values whose first `prompt` slots of each row are given.

        Args:
            values: [B, S] int64 or [B, S, C] float; slots that are not given may hold anything.
            prompt: given slots a row (from slot 0).
            length: slots in use a row; S if None.
            seeds: int64 [B]; zeros if None.
            given: bool [B, S], further slots that are known from the start (inpainting). They
                must lie within `length`.

        Raises:
            ValueError: there is no row, or the lengths of one do not fit.
        """
        batch, slots = values.shape[:2]
        if batch == 0:
            raise ValueError("a canvas needs at least one row: decode nothing when there is none")
        device = values.device
        self.values = values.clone()
        prompts = _host_list(prompt, batch)
        lengths = _host_list(slots if length is None else length, batch)
        for row, (given_slots, used) in enumerate(zip(prompts, lengths, strict=True)):
            if not 0 <= given_slots <= used <= slots:
                raise ValueError(
                    f"row {row}: prompt {given_slots} <= length {used} <= slots {slots} must hold"
                )
        self.prompt_B = torch.tensor(prompts, device=device)
        self.length_B = torch.tensor(lengths, device=device)
        self.limit_B = self.length_B.clone()
        self.seeds_B = torch.zeros(batch, dtype=torch.int64, device=device)
        if seeds is not None:
            self.seeds_B = seeds.to(device=device, dtype=torch.int64)
        self.uniform_prompt = prompts[0] if len(set(prompts)) == 1 else None
        self.max_prompt = max(prompts)
        self.min_prompt = min(prompts)
        self.max_length = max(lengths)
        self.uniform_length = min(lengths) == slots
        known_BS = torch.arange(slots, device=device) < self.prompt_B[:, None]
        if given is not None:
            known_BS = known_BS | given
        self.has_given = given is not None
        self.state_BS = known_BS.to(torch.uint8)
        self.confidence_BS = known_BS.float()
        self.parameters: Tensor | None = None
        self._finished_B = torch.zeros(batch, dtype=torch.bool, device=device)
        self.may_have_stopped = False
        self.scratch: dict[Hashable, Tensor] = {}

    @classmethod
    def tokens(
        cls,
        prompts: Sequence[Sequence[int]],
        *,
        new: int | Sequence[int],
        seeds: Tensor | None = None,
        device: torch.device | str = "cpu",
    ) -> Canvas:
        """A canvas of token ids: each row's prompt and room for `new` tokens after it."""
        fresh = [new] * len(prompts) if isinstance(new, int) else list(new)
        lengths = [len(p) + n for p, n in zip(prompts, fresh, strict=True)]
        values = torch.zeros(len(prompts), max(lengths, default=0), dtype=torch.int64)
        for row, prompt in enumerate(prompts):
            values[row, : len(prompt)] = torch.tensor(list(prompt), dtype=torch.int64)
        return cls(values.to(device), prompt=[len(p) for p in prompts], length=lengths, seeds=seeds)

    @classmethod
    def vectors(
        cls,
        prompts: Sequence[Tensor],
        *,
        new: int | Sequence[int],
        seeds: Tensor | None = None,
        device: torch.device | str = "cpu",
    ) -> Canvas:
        """A canvas of continuous values: each row's prompt and room for `new` vectors after it.

        Args:
            prompts: float [slots, C] a row; a row without a prompt has 0 slots.

        Raises:
            InputError: a number of a prompt is not finite.
        """
        fresh = [new] * len(prompts) if isinstance(new, int) else list(new)
        lengths = [len(p) + n for p, n in zip(prompts, fresh, strict=True)]
        channels = prompts[0].shape[-1] if prompts else 0
        values = torch.zeros(len(prompts), max(lengths, default=0), channels, device=device)
        for row, prompt in enumerate(prompts):
            values[row, : len(prompt)] = prompt
        bad = (~values.isfinite().all(dim=-1)).nonzero()
        if bad.numel():
            row, slot = bad[0].tolist()
            raise InputError(
                f"row {row}, slot {slot}: {values[row, slot].tolist()} is not finite",
                why="it would spread to every value that depends on it",
                fix="fill it, or leave it out",
            )
        return cls(values, prompt=[len(p) for p in prompts], length=lengths, seeds=seeds)

    @property
    def batch(self) -> int:
        return int(self.values.shape[0])

    @property
    def slots(self) -> int:
        return int(self.values.shape[1])

    @property
    def device(self) -> torch.device:
        return self.values.device

    @property
    def finished_B(self) -> Tensor:
        return self._finished_B

    @finished_B.setter
    def finished_B(self, finished_B: Tensor) -> None:
        self._finished_B = finished_B
        self.may_have_stopped = True

    @property
    def untouched(self) -> bool:
        """Whether nothing but the prompts is decided, and no row has stopped: asks the device."""
        if self.has_given or (self.may_have_stopped and bool(self.finished_B.any())):
            return False
        return bool((self.state_BS.sum(dim=1) == self.prompt_B).all())

    def take(self, slots_BQ: Tensor, run: slice | None = None) -> Tensor:
        """Values at slots: [B, Q] or [B, Q, C]. `slots_BQ` may be [1, Q] (the same in all rows).

        Args:
            run: the same slots as a slice, where they are consecutive and the caller knows it:
                then nothing is gathered.
        """
        return take(self.values, slots_BQ) if run is None else self.values[:, run]

    def open_at(
        self, slots_BQ: Tensor, valid_BQ: Tensor | None, run: slice | None = None
    ) -> Tensor:
        """Which slots are still to be decided, bool [B, Q]; none in rows that have stopped."""
        state = take(self.state_BS, slots_BQ) if run is None else self.state_BS[:, run]
        open_BQ = state == OPEN
        if self.may_have_stopped:
            open_BQ = open_BQ & ~self.finished_B[:, None]
        return open_BQ if valid_BQ is None else open_BQ & valid_BQ

    def commit(
        self,
        slots_BQ: Tensor,
        values: Tensor,
        confidence_BQ: Tensor,
        keep_BQ: Tensor,
        parameters: Tensor | None = None,
        *,
        run: slice | None = None,
        every: bool = False,
    ) -> None:
        """Write the kept values. The caller guarantees that `keep_BQ` marks open slots only.

        Args:
            run: the slots as a slice, see `take`.
            every: all of them are kept.
        """
        if run is not None and parameters is None:
            _write_run(self.values[:, run], values, keep_BQ, every=every)
            _write_run(self.confidence_BS[:, run], confidence_BQ, keep_BQ, every=every)
            state = self.state_BS[:, run]
            if every:
                state.fill_(COMMITTED)
            else:
                state.masked_fill_(keep_BQ, COMMITTED)
            return
        slots_BQ = slots_BQ.expand(self.batch, -1)
        _write(self.values, slots_BQ, values, keep_BQ)
        if parameters is not None:
            if self.parameters is None:
                shape = (self.batch, self.slots, *parameters.shape[2:])
                self.parameters = torch.zeros(shape, device=self.device)
            _write(self.parameters, slots_BQ, parameters, keep_BQ)
        state = take(self.state_BS, slots_BQ)
        self.state_BS.scatter_(1, slots_BQ, state | keep_BQ.to(torch.uint8))
        score = torch.where(keep_BQ, confidence_BQ, take(self.confidence_BS, slots_BQ))
        self.confidence_BS.scatter_(1, slots_BQ, score)

    def reopen(self, slots_BQ: Tensor, where_BQ: Tensor) -> None:
        """Roll committed slots back to open (edits, backspace). Prompt slots are left alone."""
        slots_BQ = slots_BQ.expand(self.batch, -1)
        undo = where_BQ & (slots_BQ >= self.prompt_B[:, None])
        self.scratch.clear()
        state = take(self.state_BS, slots_BQ)
        self.state_BS.scatter_(1, slots_BQ, torch.where(undo, OPEN, state).to(torch.uint8))

    def stop_at(self, slots_BQ: Tensor, hit_BQ: Tensor) -> None:
        """Finish the rows in which `hit_BQ` marks a slot; they end with the first such slot."""
        after = torch.where(hit_BQ, slots_BQ + 1, self.slots + 1).amin(dim=1)
        self.length_B = torch.minimum(self.length_B, after)
        self.finished_B |= hit_BQ.any(dim=1)


def take(source: Tensor, slots_BQ: Tensor) -> Tensor:
    """Gather slots of [B, S, ...]; `slots_BQ` of one row serves every row without a copy of it."""
    if slots_BQ.shape[0] == 1:
        return source.index_select(1, slots_BQ[0])
    return source.gather(1, _wide(slots_BQ, source))


def _write(target: Tensor, slots_BQ: Tensor, values: Tensor, keep_BQ: Tensor) -> None:
    """Write the kept values [B, Q, ...] to slots of [B, S, ...]."""
    index = _wide(slots_BQ, target)
    keep = keep_BQ.view(*keep_BQ.shape, *[1] * (target.dim() - 2))
    target.scatter_(1, index, torch.where(keep, values.to(target.dtype), target.gather(1, index)))


def _write_run(target: Tensor, values: Tensor, keep_BQ: Tensor, *, every: bool) -> None:
    """Write the kept values [B, Q, ...] to a view of consecutive slots."""
    if not every:
        keep = keep_BQ.view(*keep_BQ.shape, *[1] * (target.dim() - 2))
        values = torch.where(keep, values.to(target.dtype), target)
    target.copy_(values)


def _wide(slots_BQ: Tensor, source: Tensor) -> Tensor:
    """Slots as an index of [B, S, ...]: [B, Q, ...]."""
    if source.dim() == 2:
        return slots_BQ
    index = slots_BQ.view(*slots_BQ.shape, *[1] * (source.dim() - 2))
    return index.expand(-1, -1, *source.shape[2:])


def _host_list(value: Tensor | Sequence[int] | int, batch: int) -> list[int]:
    if isinstance(value, int):
        return [value] * batch
    numbers = value.tolist() if isinstance(value, Tensor) else list(value)
    if len(numbers) != batch:
        raise ValueError(f"{len(numbers)} lengths for {batch} rows")
    return [int(n) for n in numbers]
