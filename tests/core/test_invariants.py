"""The invariants of the decoding loop, over random models, orders and batches.

| invariant | test |
|---|---|
| cached equals uncached | `test_cached_equals_uncached`; search: `test_invariants_search.py`; continuous values: `test_continuous.py` |
| a batch row equals the row alone | `test_a_batch_row_equals_the_row_alone`; `test_invariants_search.py` |
| one-pass training logits equal decode logits | `test_one_pass_training_logits_equal_decode_logits`, `test_teacher_forcing_logits_equal_decode_logits` |
| the prompt never changes | `test_the_prompt_never_changes_and_committed_values_stand` |
| draft == target accepts everything | `test_invariants_search.py: test_a_draft_by_the_target_is_accepted_whole` |
| speculative output has the target's distribution | `test_invariants_search.py: test_speculative_samples_have_the_targets_distribution` (chi-square); greedy: `test_greedy_speculation_equals_autoregressive` |
| fused commit equals separate commit | `test_fused_commit_equals_a_separate_pass_and_saves_passes` |
| block length 1 equals AR | `test_blocks_of_one_equal_autoregressive` |
| one block equals mask-predict | `test_one_block_equals_mask_predict` |
| beam 1 equals greedy | `test_invariants_search.py: test_one_beam_equals_greedy` |
| every backend equals `reference` | `test_invariants_search.py: test_every_backend_equals_the_reference`; one pass: `test_attention.py`, `test_kernels.py` |
| same seed, same bytes, whatever the batch size or shard | `test_same_seed_same_bytes_whatever_the_batch_or_shard`; whole files: `test_runner.py` |

`random_models.py` makes the examples. `make slow` runs ten times as many
(`test_invariants_deep.py`). Below the properties are single cases that they do not show.
"""  # noqa: E501

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from random_models import (
    GROUP_MASKS,
    RASTER_MASKS,
    VOCABULARY,
    AnyGroups,
    Case,
    batches,
    block_decoders,
    cases,
    examples,
    samplings,
)
from small_models import canvas_of, random_prompts, small_model
from torch import Tensor

from seqgen.canvas import COMMITTED
from seqgen.commits import All
from seqgen.decoders import Autoregressive, BlockDiffusion, NonAutoregressive
from seqgen.decoders.base import GroupDecoder
from seqgen.heads.base import Proposal, Request
from seqgen.logits import Sampling
from seqgen.loop import Recipe, decode
from seqgen.masks import BlockCausal, Causal, SlotInfo
from seqgen.orders import Blocks, Order, Raster, Whole
from seqgen.training.objectives import Noise, noisy_clean, teacher_forcing

Batch = tuple[Case, GroupDecoder, bool]


@examples(3)
@given(batch=batches())
def test_cached_equals_uncached(batch: Batch) -> None:
    case, decoder, _ = batch
    cached, uncached = case.decode(decoder), case.decode(decoder, cached=False)
    assert cached.sequences() == uncached.sequences()
    torch.testing.assert_close(cached.confidence_BS, uncached.confidence_BS)


@examples(2)
@given(batch=batches())
def test_a_batch_row_equals_the_row_alone(batch: Batch) -> None:
    case, decoder, cut = batch
    together = case.decode(decoder)
    for row in range(len(case.prompts)):
        alone = case.decode(decoder, [row], cut=cut)
        assert alone.sequences()[0] == together.sequences()[row]
        used = slice(0, int(together.length_B[row]))
        torch.testing.assert_close(
            alone.confidence_BS[0, used], together.confidence_BS[row, used], atol=1e-5, rtol=1e-5
        )


@examples()
@given(batch=batches(), data=st.data())
def test_same_seed_same_bytes_whatever_the_batch_or_shard(
    batch: Batch, data: st.DataObject
) -> None:
    """Rows dealt to shards, in any order, and decoded there in batches of any size."""
    case, decoder, cut = batch
    whole = case.decode(decoder).sequences()
    assert case.decode(decoder).sequences() == whole
    rows = data.draw(st.permutations(range(len(whole))))
    shards = data.draw(st.integers(1, len(whole)))
    size = data.draw(st.integers(1, len(whole)))
    found: dict[int, bytes] = {}
    for shard in range(shards):
        mine = rows[shard::shards]
        for first in range(0, len(mine), size):
            part = mine[first : first + size]
            done = case.decode(decoder, part, cut=cut)
            found |= {row: bytes(ids) for row, ids in zip(part, done.sequences(), strict=True)}
    assert [found[row] for row in range(len(whole))] == [bytes(ids) for ids in whole]


@examples()
@given(batch=batches())
def test_the_prompt_never_changes_and_committed_values_stand(batch: Batch) -> None:
    case, decoder, _ = batch
    canvas = case.canvas()
    before, known = canvas.values.clone(), canvas.state_BS == COMMITTED
    committed: dict[tuple[int, int], int] = {}
    for event in decoder.stream(case.model, canvas, case.context):
        slots = event.slots_BQ.expand(canvas.batch, -1)
        for row, column in event.kept_BQ.nonzero().tolist():
            slot = int(slots[row, column])
            assert slot < case.lengths[row]
            assert not known[row, slot], "a prompt slot or a given one was committed again"
            assert (row, slot) not in committed, "a slot was committed twice"
            committed[row, slot] = int(event.values[row, column])
    assert torch.equal(canvas.values[known], before[known])
    for (row, slot), value in committed.items():
        assert canvas.values[row, slot] == value
    for row, length in enumerate(canvas.length_B.tolist()):
        assert bool((canvas.state_BS[row, :length] == COMMITTED).all()), "a slot was left open"


@examples()
@given(case=cases(("masked", "given")), decoder=block_decoders())
def test_fused_commit_equals_a_separate_pass_and_saves_passes(
    case: Case, decoder: BlockDiffusion
) -> None:
    fused, apart = case.decode(decoder), case.decode(decoder, fused_commit=False)
    assert fused.sequences() == apart.sequences()
    assert fused.forwards <= apart.forwards
    torch.testing.assert_close(fused.confidence_BS, apart.confidence_BS)


@examples()
@given(case=cases(masks=RASTER_MASKS, inpaints=False), sampling=samplings(), data=st.data())
def test_blocks_of_one_equal_autoregressive(case: Case, sampling: Any, data: st.DataObject) -> None:
    decoder = replace(data.draw(block_decoders(sampling=sampling)), block_length=1)
    blocks = case.decode(decoder)
    one_by_one = case.decode(Autoregressive(sampling=sampling, stop_ids=decoder.stop_ids))
    assert blocks.sequences() == one_by_one.sequences()
    assert blocks.forwards == one_by_one.forwards


@examples()
@given(
    case=cases(("masked", "given"), GROUP_MASKS, ragged=False, prompted=False),
    steps=st.integers(1, 9),
    sampling=samplings(),
)
def test_one_block_equals_mask_predict(case: Case, steps: int, sampling: Any) -> None:
    length = case.values.shape[1]
    steps = min(steps, length)
    block = BlockDiffusion(
        block_length=length, steps=steps, remasking="low_confidence_static", sampling=sampling
    )
    one_block = case.decode(block, quota_over="open")
    predicted = case.decode(NonAutoregressive(steps=steps, sampling=sampling))
    assert predicted.sequences() == one_block.sequences()
    if case.given is None:
        assert predicted.forwards == one_block.forwards == steps


@examples()
@given(case=cases(("masked", "given"), ragged=False), decoder=block_decoders())
def test_a_quota_never_exceeds_what_is_open(case: Case, decoder: BlockDiffusion) -> None:
    canvas = case.canvas()
    wanted = int((canvas.state_BS != COMMITTED).sum())
    decoder = replace(decoder, stop_ids=())
    events = list(decoder.stream(case.model, canvas, case.context))
    assert sum(int(event.kept_BQ.sum()) for event in events) == wanted
    assert bool((canvas.state_BS == COMMITTED).all())


ORDERS: list[Order] = [
    Raster(), Blocks(2), Blocks(3), Whole(),
    AnyGroups((2, 0, 1, 1, 0, 2, 3, 0, 1)), AnyGroups((8, 3, 5, 0, 7, 1, 2, 6, 4)),
]  # fmt: skip


@examples()
@given(
    case=cases(("masked", "given"), GROUP_MASKS, prompted=False, inpaints=False),
    order=st.sampled_from(ORDERS),
    low=st.sampled_from([0.1, 0.5, 1.0]),
    seed=st.integers(0, 999),
)
def test_one_pass_training_logits_equal_decode_logits(
    case: Case, order: Order, low: float, seed: int
) -> None:
    """Slots that training leaves unmasked are known to the decode of their group, and no earlier.

    A decode forced to the targets, one pass a group; rows of any length.
    """
    targets = case.values
    valid = torch.arange(targets.shape[1]) < torch.tensor(case.lengths)[:, None]
    trained, weight = _trained_logits(
        case,
        lambda: noisy_clean(
            case.model,
            targets,
            valid,
            order=order,
            noise=Noise(low=low),
            generator=torch.Generator().manual_seed(seed),
            context=case.context,
        ),
    )
    masked = weight > 0
    assert bool(masked.any(dim=1).all())
    decoded = _decoded_logits(case, replace(case, given=valid & ~masked), order)
    torch.testing.assert_close(
        trained[masked].float(), decoded[masked].float(), atol=1e-5, rtol=1e-5
    )


@examples()
@given(case=cases(("shifted", "headless"), RASTER_MASKS))
def test_teacher_forcing_logits_equal_decode_logits(case: Case) -> None:
    targets = case.values
    valid = torch.arange(targets.shape[1]) < torch.tensor(case.lengths)[:, None]
    trained, _ = _trained_logits(
        case, lambda: teacher_forcing(case.model, targets, valid, context=case.context)
    )
    first = case.model.inputs.first_slot
    decoded = _decoded_logits(case, case, Raster())[:, first:]
    scored = valid & (torch.arange(targets.shape[1]) >= torch.tensor(case.prompts)[:, None])
    scored = scored[:, first:]
    torch.testing.assert_close(
        trained[scored].float(), decoded[scored].float(), atol=1e-5, rtol=1e-5
    )


def _trained_logits(case: Case, objective: Any) -> tuple[Tensor, Tensor]:
    """The logits that an objective scores, and the weight of each slot's loss in its result."""
    seen: list[Tensor] = []
    head = case.model.head
    own = head.loss

    def remember(hidden_BQD: Tensor, targets: Tensor) -> Tensor:
        seen.append(head.logits(hidden_BQD).detach())  # type: ignore[attr-defined]
        seen.append(own(hidden_BQD, targets).detach().requires_grad_())
        return seen[1]

    head.loss = remember  # type: ignore[method-assign]
    try:
        objective().backward()
    finally:
        head.loss = own  # type: ignore[method-assign]
    assert seen[1].grad is not None
    return seen[0], seen[1].grad


def _decoded_logits(case: Case, known: Case, order: Order) -> Tensor:
    """Logits [B, S, V] of a decode in which every value that is committed is the target's."""
    targets, head = case.values, case.model.head
    logits = torch.zeros(*targets.shape, VOCABULARY, dtype=torch.float64)
    own = head.propose

    def force(hidden_BQD: Tensor, request: Request) -> Proposal:
        proposal = own(hidden_BQD, request)
        slots = request.slots_BQ.expand(targets.shape[0], -1)
        assert proposal.logits_BQV is not None
        made = proposal.logits_BQV.double()
        logits.scatter_(1, slots[..., None].expand_as(made), made)
        return replace(proposal, values=targets.gather(1, slots))

    head.propose = force  # type: ignore[method-assign]
    try:
        for _ in decode(case.model, known.canvas(), case.context, Recipe(order, All())):
            pass
    finally:
        head.propose = own  # type: ignore[method-assign]
    return logits


# Single cases -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("remasking", "threshold", "fused", "apart"),
    [("low_confidence_static", 0.85, 22, 28), ("low_confidence_dynamic", 0.0, 6, 12)],
)
def test_forward_counts_of_the_fused_commit(
    remasking: str, threshold: float, fused: int, apart: int
) -> None:
    """Ten prompt tokens, 22 new ones, K = 4; the prefill counts in neither (it is merged here).

    The separate loop also spends a pass on the prompt, which the published count leaves out; it
    writes the last block too, which nobody reads. The two make up for each other.
    """
    model, prompts = small_model(), random_prompts(0, [10])
    decoder = BlockDiffusion(block_length=4, remasking=remasking, threshold=threshold)  # type: ignore[arg-type]
    assert decoder.generate(model, canvas_of(prompts, 22)).forwards == fused
    separate = replace(decoder, fused_commit=False)
    assert separate.generate(model, canvas_of(prompts, 22)).forwards == apart


def test_another_seed_gives_another_sample() -> None:
    model = small_model(seed=1, sharpness=0.5)
    prompts: list[list[int]] = [[] for _ in range(6)]
    canvas = canvas_of(prompts, 12, seeds=[5, 6, 7, 8, 9, 10])
    out = Autoregressive(sampling=Sampling(temperature=1.0)).generate(model, canvas)
    assert len({tuple(row) for row in out.sequences()}) == 6


def test_shifted_inputs_refuse_blocks() -> None:
    with pytest.raises(ValueError, match="one slot a group"):
        BlockDiffusion(block_length=2).generate(small_model(shifted=True), canvas_of([[1]], 4))


def test_rows_stop_on_their_own() -> None:
    """A row that has stopped keeps its length while others go on."""
    model = small_model(seed=3)
    free = Autoregressive().generate(model, canvas_of([[1], [2], [5]], 12))
    stop = free.sequences()[0][2]
    stopped = Autoregressive(stop_ids=(stop,)).generate(model, canvas_of([[1], [2], [5]], 12))
    for before, after in zip(free.sequences(), stopped.sequences(), strict=True):
        cut = before.index(stop) + 1 if stop in before else len(before)
        assert after == before[:cut]
    assert stopped.finished_B.tolist() == [stop in row for row in free.sequences()]


def test_block_causal_groups_of_one_are_causal() -> None:
    index = torch.arange(6)[None]
    info = SlotInfo(group=index, position=index)
    same = BlockCausal()(info.column(), info.row()) == Causal()(info.column(), info.row())
    assert bool(same.all())


def test_no_pass_is_spent_when_every_row_is_full() -> None:
    """Rows with longer prompts end earlier; the passes are those of the longest generation."""
    model, prompts = small_model(), random_prompts(0, [5, 3])
    done = Autoregressive().generate(model, canvas_of(prompts, 8))
    assert done.forwards == 8
    assert [len(row) for row in done.sequences()] == [8, 8]


@pytest.mark.parametrize("known", [0, 4])
def test_mask_predict_takes_its_steps_whatever_is_given(known: int) -> None:
    canvas = canvas_of(random_prompts(0, [known]), 8)
    assert NonAutoregressive(steps=8).generate(small_model(), canvas).forwards == 8
