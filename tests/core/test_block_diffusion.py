"""Block diffusion: its settings are checked, and what it promises holds for every strategy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import VOCABULARY, canvas_of, random_prompts, small_model

from seqgen.canvas import Canvas
from seqgen.commits import CommitRule, ConfidenceQuota, EntropyBound, Sequential, Threshold, quota
from seqgen.decoders import BlockDiffusion
from seqgen.errors import ConfigError
from seqgen.heads import Proposal, Request
from seqgen.logits import GREEDY, Sampling, TopK

REMASKING = ("sequential", "low_confidence_static", "low_confidence_dynamic", "entropy_bounded")
quick = settings(max_examples=25, deadline=None)


@st.composite
def block_decoders(draw: st.DrawFn, longest: int = 8) -> BlockDiffusion:
    K = draw(st.integers(1, longest))
    sampled = draw(st.booleans())
    confidence = draw(st.sampled_from(["raw", "temperature", "filtered"]))
    return BlockDiffusion(
        block_length=K,
        steps=draw(st.integers(0, K + 2)),
        remasking=draw(st.sampled_from(REMASKING)),
        threshold=draw(st.sampled_from([0.0, 0.3, 0.9, 1.0])),
        entropy_bound=draw(st.sampled_from([0.0, 0.5, 4.0])),
        entropy_own=draw(st.booleans()),
        ties=draw(st.sampled_from(["earliest", "topk"])),
        sampling=Sampling(
            temperature=0.7 if sampled else 0.0,
            filters=(TopK(3),) if sampled else (),
            confidence=confidence,
        ),
    )


# Settings ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"block_length": 0}, "block_length is 0\n  fix: a whole number of at least 1"),
        ({"block_length": -4}, "block_length is -4"),
        ({"block_length": 2.5}, r"block_length is 2\.5"),
        ({"block_length": True}, "block_length is True"),
        ({"steps": -1}, "steps is -1\n  fix: a whole number of at least 0"),
        ({"threshold": 2.0}, r"threshold is 2\.0\n  fix: a number from 0 to 1"),
        ({"threshold": -0.1}, r"threshold is -0\.1"),
        ({"threshold": float("nan")}, "threshold is nan"),
        ({"entropy_bound": -0.35}, r"entropy_bound is -0\.35\n  fix: a number 0 or more"),
        ({"entropy_bound": float("nan")}, "entropy_bound is nan"),
        ({"remasking": "low_confidence"}, "remasking is 'low_confidence'\n  fix: did you mean"),
        ({"ties": "latest"}, "ties is 'latest'"),
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        BlockDiffusion(**wrong)
    assert error.value.exit_code == 2


def test_the_ends_of_the_ranges_are_allowed() -> None:
    for K in range(1, 65):
        for steps in (0, 1, K):
            BlockDiffusion(block_length=K, steps=steps, threshold=0.0, entropy_bound=0.0).rule()
    BlockDiffusion(threshold=1.0, entropy_bound=float("inf"))


@pytest.mark.parametrize(
    ("remasking", "kind"),
    list(zip(REMASKING, (Sequential, ConfidenceQuota, Threshold, EntropyBound), strict=True)),
)
def test_more_steps_than_slots_are_as_many_as_slots(remasking: Any, kind: type) -> None:
    """SDAR divides K slots over S > K steps as one slot in each of the first K."""
    most = BlockDiffusion(block_length=4, steps=4, remasking=remasking).rule()
    assert isinstance(most, kind)
    for steps in (0, 5, 99):
        assert BlockDiffusion(block_length=4, steps=steps, remasking=remasking).rule() == most
    size = torch.tensor([4])
    due = [int(quota(size, 99, n)) for n in range(99)]
    assert due == [1, 1, 1, 1, *[0] * 95]


# Promises ---------------------------------------------------------------------------------------


@quick
@given(
    decoder=block_decoders(),
    sizes=st.lists(st.integers(0, 9), min_size=1, max_size=4),
    new=st.integers(1, 13),
    seed=st.integers(0, 999),
)
def test_a_pass_keeps_masked_slots_only_and_what_is_kept_stands(
    decoder: BlockDiffusion, sizes: list[int], new: int, seed: int
) -> None:
    """Rows of different prompts: no pass touches a prompt or a committed token, nor idles."""
    prompts = random_prompts(seed, sizes)
    canvas = canvas_of(prompts, new, seeds=list(range(len(sizes))))
    before = canvas.state_BS.clone()
    values = canvas.values.clone()
    for event in decoder.stream(small_model(seed=seed), canvas):
        slots = event.slots_BQ.expand(canvas.batch, -1)
        kept = torch.zeros_like(before).scatter_add_(1, slots, event.kept_BQ.to(torch.uint8))
        assert not bool((kept & before).any()), "a decided slot was kept again"
        assert torch.equal(canvas.values[before == 1], values[before == 1])
        open_BQ = (before.gather(1, slots) == 0) & (slots < canvas.limit_B[:, None])
        if event.slots_BQ.shape[0] == 1:  # else unused slots of a row name others
            assert bool((event.kept_BQ.any(dim=1) | ~open_BQ.any(dim=1)).all())
        before, values = canvas.state_BS.clone(), canvas.values.clone()
    for row, prompt in enumerate(prompts):
        assert canvas.values[row, : len(prompt)].tolist() == prompt
        assert bool((canvas.state_BS[row, : len(prompt) + new] == 1).all())


@quick
@given(
    decoder=block_decoders(),
    sizes=st.lists(st.integers(0, 9), min_size=2, max_size=4),
    new=st.lists(st.integers(1, 13), min_size=4, max_size=4),
    stops=st.sampled_from([(), (3,), (1, 2, 3, 4)]),
    seed=st.integers(0, 999),
)
def test_rows_of_different_prompts_lengths_and_stops_equal_the_rows_alone(
    decoder: BlockDiffusion, sizes: list[int], new: list[int], stops: tuple[int, ...], seed: int
) -> None:
    decoder = replace(decoder, stop_ids=stops, ties="earliest")
    prompts = random_prompts(seed, sizes)
    model, room = small_model(seed=seed), new[: len(sizes)]
    seeds = torch.arange(len(sizes)) + seed
    batch = decoder.generate(model, Canvas.tokens(prompts, new=room, seeds=seeds))
    for row, prompt in enumerate(prompts):
        canvas = Canvas.tokens([prompt], new=room[row], seeds=seeds[row : row + 1])
        alone = decoder.generate(model, canvas)
        assert alone.sequences()[0] == batch.sequences()[row]
        assert bool(alone.finished_B[0]) == bool(batch.finished_B[row])


@quick
@given(decoder=block_decoders(), seed=st.integers(0, 999), stop=st.integers(0, VOCABULARY - 1))
def test_a_row_ends_with_its_own_first_stop_value(
    decoder: BlockDiffusion, seed: int, stop: int
) -> None:
    """Cut inside a block where need be; a stop value of the prompt does not count."""
    prompts = [[stop, 1, 2], [3, stop], [5]]
    decoder = replace(decoder, stop_ids=(stop,))
    canvas = canvas_of(prompts, 16, seeds=[1, 2, 3])
    out = decoder.generate(small_model(seed=seed, sharpness=1.0), canvas)
    for row, ids in enumerate(out.sequences()):
        assert stop not in ids[:-1]
        assert bool(out.finished_B[row]) == (ids[-1] == stop)
        assert len(ids) == 16 or ids[-1] == stop


@pytest.mark.parametrize("K", [1, 2, 3, 7, 16, 33, 64])
@pytest.mark.parametrize("remasking", REMASKING)
def test_block_lengths_up_to_64_and_their_passes(K: int, remasking: Any) -> None:
    """70 new tokens behind 5: every block takes at most `steps` passes, and all are filled."""
    steps = -(-K // 3)
    decoder = BlockDiffusion(
        block_length=K, steps=steps, remasking=remasking, threshold=0.9, entropy_bound=3.0
    )
    table = torch.nn.Embedding(128, 24)
    model = small_model()
    model.inputs.positions = table  # type: ignore[assignment]
    canvas = canvas_of(random_prompts(0, [5]), 70)
    passes: dict[int, int] = {}
    for event in decoder.stream(model, canvas):
        passes[event.step] = passes.get(event.step, 0) + 1
    assert bool((canvas.state_BS == 1).all())
    blocks = -(-75 // K) - 5 // K
    assert len(passes) == blocks
    if remasking != "entropy_bounded":
        assert max(passes.values()) <= max(steps, 1)


# Strategies -------------------------------------------------------------------------------------


def kept(rule: CommitRule, confidence: list[float], open_: list[int], draw: int) -> list[int]:
    """Slots that a rule keeps of a block, from confidences (and logits whose softmax they are)."""
    size = len(confidence)
    p = torch.tensor([confidence])
    logits = torch.stack([p.log(), (1 - p).log()], dim=-1)
    open_BQ = torch.tensor([[i in open_ for i in range(size)]])
    request = Request(Canvas(torch.zeros(1, size).long()), torch.arange(size)[None], GREEDY, draw)
    proposal = Proposal(torch.zeros_like(p).long(), p, logits_BQV=logits)
    found = rule(proposal, open_BQ, torch.tensor([size]), request)[0]
    return [int(slot) for slot in found.nonzero()]


CONFIDENCE = [0.6, 0.95, 0.7, 0.97]
ALL = [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("options", "open_", "draw", "expected"),
    [
        ({"remasking": "sequential", "steps": 2}, ALL, 0, [0, 1]),
        ({"remasking": "sequential", "steps": 2}, [2], 1, [2]),
        ({"remasking": "sequential", "steps": 3}, ALL, 0, [0, 1]),  # quotas 2, 1, 1
        ({"remasking": "low_confidence_static", "steps": 2}, ALL, 0, [1, 3]),
        ({"remasking": "low_confidence_static", "steps": 2}, [0], 1, [0]),  # quota 2, one left
        ({"remasking": "low_confidence_static", "steps": 1}, [0, 2], 0, [0, 2]),
        ({"remasking": "low_confidence_dynamic", "threshold": 0.9}, ALL, 0, [1, 3]),
        ({"remasking": "low_confidence_dynamic", "threshold": 0.95}, ALL, 0, [3]),  # not equal
        ({"remasking": "low_confidence_dynamic", "threshold": 0.99}, ALL, 0, [3]),  # the quota
        ({"remasking": "low_confidence_dynamic", "threshold": 0.65}, [0, 2], 0, [2]),
        # Entropies are 0.673, 0.199, 0.611 and 0.135 nats.
        ({"remasking": "entropy_bounded", "entropy_bound": 0.35}, ALL, 0, [1, 3]),
        ({"remasking": "entropy_bounded", "entropy_bound": 0.3}, ALL, 0, [3]),
        ({"remasking": "entropy_bounded", "entropy_bound": 0.0}, ALL, 0, [3]),
        ({"remasking": "entropy_bounded", "entropy_bound": 0.3}, [0, 2], 0, [2]),
        (
            {"remasking": "entropy_bounded", "entropy_bound": 0.35, "entropy_own": False},
            ALL,
            0,
            [1, 2, 3],
        ),
    ],
)
def test_what_each_strategy_keeps(
    options: dict[str, Any], open_: list[int], draw: int, expected: list[int]
) -> None:
    rule = BlockDiffusion(block_length=4, **options).rule()
    assert kept(rule, CONFIDENCE, open_, draw) == expected


def test_the_definition_of_confidence_changes_what_dynamic_keeps() -> None:
    """Top-k of 1 makes a filtered confidence 1: the whole block stands after one pass (SDAR)."""
    prompts = random_prompts(1, [4])
    model = small_model(seed=3, sharpness=1.0)
    passes = {}
    for confidence in ("raw", "temperature", "filtered"):
        sampling = Sampling(temperature=0.1, filters=(TopK(1),), confidence=confidence)  # type: ignore[arg-type]
        decoder = BlockDiffusion(block_length=8, threshold=0.9, sampling=sampling)
        passes[confidence] = decoder.generate(model, canvas_of(prompts, 20)).forwards
    assert passes["filtered"] == 3
    assert passes["raw"] > passes["temperature"] > passes["filtered"]
