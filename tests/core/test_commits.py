"""Commit rules against their definitions, written out row by row."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seqgen.canvas import Canvas
from seqgen.commits import (
    All,
    CommitRule,
    ConfidenceQuota,
    EntropyBound,
    Sequential,
    Threshold,
    quota,
)
from seqgen.heads.base import Proposal, Request
from seqgen.logits import GREEDY

Rows = list[list[tuple[float, bool]]]
"""(confidence, open) of each slot of each row."""

CONFIDENCES = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.5, 0.75, 0.9, 1.0])


@st.composite
def groups(draw: st.DrawFn) -> Rows:
    size = draw(st.integers(1, 7))
    row = st.lists(st.tuples(CONFIDENCES, st.booleans()), min_size=size, max_size=size)
    return draw(st.lists(row, min_size=1, max_size=3))


def tensors(rows: Rows) -> tuple[Proposal, torch.Tensor, torch.Tensor]:
    confidence = torch.tensor([[c for c, _ in row] for row in rows])
    open_BQ = torch.tensor([[o for _, o in row] for row in rows])
    size_B = torch.full((len(rows),), len(rows[0]))
    return Proposal(torch.zeros_like(open_BQ, dtype=torch.int64), confidence), open_BQ, size_B


def asked(open_BQ: torch.Tensor, refinement: int) -> Request:
    slots = torch.arange(open_BQ.shape[1])[None]
    seeds = torch.arange(open_BQ.shape[0])
    canvas = Canvas(torch.zeros(open_BQ.shape, dtype=torch.int64), seeds=seeds)
    return Request(canvas, slots, GREEDY, refinement)


def due(size: int, steps: int, refinement: int) -> int:
    return size // steps + (1 if refinement < size % steps else 0)


def best(row: list[tuple[float, bool]], count: int) -> list[bool]:
    """The `count` most confident open slots; the earlier of equals."""
    ranked = sorted((i for i, (_, o) in enumerate(row) if o), key=lambda i: (-row[i][0], i))
    return [i in ranked[:count] for i in range(len(row))]


@settings(max_examples=100, deadline=None)
@given(rows=groups(), steps=st.integers(1, 9), refinement=st.integers(0, 8), t=CONFIDENCES)
def test_rules_by_definition(rows: Rows, steps: int, refinement: int, t: float) -> None:
    proposal, open_BQ, size_B = tensors(rows)
    count = due(len(rows[0]), steps, refinement)

    def kept(rule: CommitRule) -> list[list[bool]]:
        return rule(proposal, open_BQ, size_B, asked(open_BQ, refinement)).tolist()

    assert kept(All()) == [[o for _, o in row] for row in rows]
    first = [
        [o and sum(p for _, p in row[:i]) < count for i, (_, o) in enumerate(row)] for row in rows
    ]
    assert kept(Sequential(steps)) == first
    assert kept(ConfidenceQuota(steps)) == [best(row, count) for row in rows]
    dynamic = []
    for row in rows:
        sure = [o and c > t for c, o in row]
        dynamic.append(sure if sum(sure) >= count else best(row, count))
    assert kept(Threshold(steps, t)) == dynamic


@settings(max_examples=60, deadline=None)
@given(size=st.integers(0, 30), steps=st.integers(1, 40))
def test_quotas_of_all_passes_sum_to_the_group(size: int, steps: int) -> None:
    shares = [int(quota(torch.tensor([size]), steps, r)) for r in range(steps)]
    assert sum(shares) == size
    assert shares == sorted(shares, reverse=True)
    assert max(shares) - min(shares) <= 1


@settings(max_examples=100, deadline=None)
@given(rows=groups(), seed=st.integers(0, 9999), bound=st.sampled_from([0.0, 0.3, 1.0, 2.5, 99.0]))
def test_entropy_bound_both_ways(rows: Rows, seed: int, bound: float) -> None:
    _, open_BQ, size_B = tensors(rows)
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(*open_BQ.shape, 5, generator=generator)
    proposal = Proposal(torch.zeros_like(open_BQ, dtype=torch.int64), open_BQ.float(), logits)
    for strict in (True, False):
        got = EntropyBound(bound, strict=strict)(
            proposal, open_BQ, size_B, asked(open_BQ, 0)
        ).tolist()
        for row, marks in enumerate(got):
            entropies = {
                i: entropy(logits[row, i].tolist())
                for i in range(open_BQ.shape[1])
                if open_BQ[row, i]
            }
            total, want = 0.0, set()
            for i in sorted(entropies, key=lambda i: (entropies[i], i)):
                before = total
                total += entropies[i]
                if not want or (total < bound if strict else before <= bound):
                    want.add(i)
                else:
                    break
            assert {i for i, mark in enumerate(marks) if mark} == want


def entropy(logits: list[float]) -> float:
    total = sum(math.exp(x) for x in logits)
    return -sum(math.exp(x) / total * math.log(math.exp(x) / total) for x in logits)


def test_banned_values_have_no_entropy() -> None:
    logits = torch.tensor([[[0.0, 0.0, -torch.inf], [0.0, -torch.inf, -torch.inf]]])
    proposal = Proposal(torch.zeros(1, 2, dtype=torch.int64), torch.ones(1, 2), logits)
    open_BQ = torch.ones(1, 2, dtype=torch.bool)
    request = asked(open_BQ, 0)
    kept = EntropyBound(0.5)(proposal, open_BQ, torch.tensor([2]), request)
    assert kept.tolist() == [[False, True]]
    without = Proposal(proposal.values, torch.ones(1, 2))
    with pytest.raises(ValueError, match="head with logits"):
        EntropyBound(0.5)(without, kept, torch.tensor([2]), request)


@settings(max_examples=100, deadline=None)
@given(rows=groups(), steps=st.integers(1, 9), seed=st.integers(0, 99))
def test_the_promised_number_of_passes_closes_the_group(rows: Rows, steps: int, seed: int) -> None:
    """`passes` bounds what really happens; the loop does not ask the device in between."""
    generator = torch.Generator().manual_seed(seed)
    rules: list[CommitRule] = [
        All(), Sequential(steps), ConfidenceQuota(steps), Threshold(steps, 0.5), EntropyBound(0.4),
    ]  # fmt: skip
    for rule in rules:
        for row in rows:
            proposal, open_BQ, size_B = tensors([row])
            opened = int(open_BQ.sum())
            fewest, most = rule.passes(len(row), opened)
            used = 0
            while bool(open_BQ.any()):
                confidence = torch.rand(open_BQ.shape, generator=generator)
                logits = torch.randn(*open_BQ.shape, 4, generator=generator)
                proposal = Proposal(proposal.values, confidence, logits)
                keep = rule(proposal, open_BQ, size_B, asked(open_BQ, used))
                assert not bool((keep & ~open_BQ).any())
                open_BQ = open_BQ & ~keep
                used += 1
                assert used <= most, (rule, row)
            if opened:
                assert fewest <= used <= most
