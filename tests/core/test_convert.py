"""Conversion: what is kept, what changes, and that the converted model learns and decodes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import VOCABULARY, WIDTH, canvas_of, random_prompts, small_model
from torch import nn

from seqgen.attention import MaskView
from seqgen.canvas import Canvas
from seqgen.decoders import Autoregressive, BlockDiffusion
from seqgen.errors import ConfigError
from seqgen.heads import CategoricalHead, GaussianHead
from seqgen.heads.base import Request
from seqgen.inputs import MaskedInputs, ShiftedInputs
from seqgen.logits import GREEDY
from seqgen.masks import BlockCausal, Causal, Window
from seqgen.model import SequenceModel
from seqgen.orders import Blocks, Raster
from seqgen.training.convert import BlockDiffusionOptions, to_masked
from seqgen.training.likelihood import nats, nats_bound
from seqgen.training.objectives import masked_losses
from seqgen.transformer import Transformer, TransformerConfig
from seqgen.value_inputs import MaskedValueInputs, ValueInputs


def tied_model(*, rows: int = VOCABULARY + 1, bias: bool = False) -> SequenceModel:
    """An autoregressive model whose head shares the embedding, as small language models have it."""
    torch.manual_seed(0)
    embedding = nn.Embedding(rows, WIDTH)
    return SequenceModel(
        inputs=ShiftedInputs(embedding, start_id=None),
        backbone=Transformer(TransformerConfig(width=WIDTH, layers=2, heads=4, kv_heads=2)),
        head=CategoricalHead(WIDTH, VOCABULARY, tied=embedding, bias=bias),
        mask=Causal(),
    ).eval()


def states(model: SequenceModel, x_BSD: torch.Tensor, first: int) -> torch.Tensor:
    """Hidden states under the model's own mask, blocks of one, at slots first, first + 1, ..."""
    table = Raster().table(first + x_BSD.shape[1], x_BSD.device)
    slots = torch.arange(first, first + x_BSD.shape[1])[None]
    view = MaskView(model.mask, table.info(slots), table.info(slots), None)
    return model.backbone(x_BSD, table.coordinates_SA[slots], view=view, cache=None, context=None)


@pytest.mark.parametrize("make", [lambda: small_model(shifted=True), tied_model])
def test_decided_slots_have_the_states_they_had_one_slot_later(make) -> None:  # type: ignore[no-untyped-def]
    """What the cache of the converted model holds is the autoregressive one's, shifted by one."""
    old = make()
    new = to_masked(old)
    ids = torch.tensor(random_prompts(1, [9, 9]))
    assert isinstance(old.inputs, ShiftedInputs)
    assert isinstance(new.inputs, MaskedInputs)
    with torch.no_grad():
        before = states(old, old.inputs.embed(ids), 1)  # the row that is fed slot s reads out s + 1
        after = states(new, new.inputs.embed(ids, torch.arange(9)[None]), 0)
    torch.testing.assert_close(after, before, atol=2e-6, rtol=0)


def test_the_original_is_left_alone_and_the_head_stays_untied() -> None:
    old = small_model(shifted=True)
    kept = {name: value.clone() for name, value in old.state_dict().items()}
    new = to_masked(old)
    with torch.no_grad():
        for parameter in new.parameters():
            parameter.add_(1)
    assert all(torch.equal(value, kept[name]) for name, value in old.state_dict().items())
    assert isinstance(new.inputs, MaskedInputs)
    assert isinstance(new.head, CategoricalHead)
    assert new.inputs.mask_id == VOCABULARY + 1  # behind the start token
    assert new.head.weight.shape == (VOCABULARY, WIDTH)
    assert new.head.weight is not new.inputs.embedding.weight


@pytest.mark.parametrize("mask_id", [None, VOCABULARY])
def test_a_tied_head_stays_tied_and_the_mask_starts_at_the_mean(mask_id: int | None) -> None:
    old = tied_model()
    new = to_masked(old, mask_id=mask_id)
    assert isinstance(new.inputs, MaskedInputs)
    assert isinstance(new.head, CategoricalHead)
    assert isinstance(old.inputs, ShiftedInputs)
    table = new.inputs.embedding.weight
    assert new.head.weight is table
    assert new.head.vocabulary == VOCABULARY
    assert table.shape[0] == (VOCABULARY + 2 if mask_id is None else VOCABULARY + 1)
    before = old.inputs.embedding.weight
    assert torch.equal(table[:VOCABULARY], before[:VOCABULARY])
    torch.testing.assert_close(table[new.inputs.mask_id], before[:VOCABULARY].mean(dim=0))
    assert isinstance(new.mask, BlockCausal)


@pytest.mark.parametrize("tied", [False, True])
def test_the_mask_can_become_a_token_of_the_vocabulary(tied: bool) -> None:
    old = tied_model(rows=VOCABULARY, bias=True)
    if not tied:
        assert isinstance(old.head, CategoricalHead)
        old.head = CategoricalHead(WIDTH, VOCABULARY, bias=True)
    new = to_masked(old, in_vocabulary=True)
    assert isinstance(new.inputs, MaskedInputs)
    assert isinstance(new.head, CategoricalHead)
    assert new.inputs.mask_id == VOCABULARY
    assert (new.head.weight is new.inputs.embedding.weight) == tied
    hidden = torch.randn(2, 3, WIDTH)
    assert isinstance(old.head, CategoricalHead)
    logits, before = new.head.logits(hidden), old.head.logits(hidden)
    torch.testing.assert_close(logits[..., :-1], before)
    torch.testing.assert_close(logits[..., -1], before.mean(dim=-1))


def test_continuous_values_convert_too() -> None:
    torch.manual_seed(0)
    old = SequenceModel(
        inputs=ValueInputs(3, WIDTH, adds_given=False),
        backbone=Transformer(TransformerConfig(width=WIDTH, layers=1, heads=4)),
        head=GaussianHead(WIDTH, 3),
        mask=Causal() & Window(5),
    ).eval()
    new = to_masked(old, positions=16)
    assert isinstance(new.inputs, MaskedValueInputs)
    assert isinstance(old.inputs, ValueInputs)
    assert torch.equal(new.inputs.mask_D, old.inputs.start_D)
    assert new.mask == BlockCausal() & Window(5)
    canvas = Canvas.vectors([torch.zeros(0, 3)] * 2, new=6)
    made = BlockDiffusion(block_length=3, remasking="low_confidence_static", steps=1)
    out = made.generate(new, canvas)
    assert out.forwards == 2
    assert bool(out.values.isfinite().all())


@pytest.mark.parametrize("length", [1, 3, 4])
def test_a_short_training_makes_it_decode_what_the_original_does(length: int) -> None:
    """Sequences that count upwards: both must go on from any start, blocks in one pass."""
    torch.manual_seed(0)
    old = small_model(shifted=True, sharpness=1.0)
    new = to_masked(old)
    ids = (torch.arange(VOCABULARY)[:, None] + torch.arange(12)) % VOCABULARY
    options = BlockDiffusionOptions(block_length=length, rate_low=0.5)
    fit = torch.optim.Adam(new.parameters(), lr=1e-2)
    for step in range(120):
        loss = options.loss(new, ids, seed=0, step=step, fixed_BS=torch.arange(12)[None] < 1)
        fit.zero_grad()
        loss.backward()
        fit.step()
    new.eval()
    decoder = BlockDiffusion(block_length=length, steps=1, remasking="low_confidence_static")
    out = decoder.generate(new, canvas_of([[3], [20]], 11))
    assert out.values.tolist() == [ids[3].tolist(), ids[20].tolist()]
    assert out.forwards == len(range(0, 12, length)) - (length == 1)


@settings(deadline=None, max_examples=15)
@given(length=st.integers(1, 6), seed=st.integers(0, 5))
def test_training_logits_are_decoding_logits_after_conversion(length: int, seed: int) -> None:
    """A fully masked noisy copy gives the losses of the first pass of every block in decoding."""
    model = to_masked(small_model(shifted=True, seed=seed), positions=16)
    ids = torch.tensor(random_prompts(seed, [11, 11]))
    order = Blocks(length)
    table = order.table(11, ids.device)
    with torch.no_grad():
        trained = masked_losses(model, ids, torch.ones_like(ids, dtype=torch.bool), table=table)
        for start in range(0, 11, length):
            canvas = Canvas.tokens(ids[:, :start].tolist(), new=11 - start)
            slots = torch.arange(min(start + length, 11))[None]
            hidden = model.hidden(canvas, table, slots)
            request = Request(canvas, slots[:, start:], GREEDY, 0)
            logits = model.head.propose(hidden[:, start:], request).logits_BQV
            assert logits is not None
            decoded = -logits.log_softmax(-1).gather(-1, ids[:, slots[0, start:], None])[..., 0]
            torch.testing.assert_close(trained[:, slots[0, start:]], decoded, atol=2e-5, rtol=1e-5)


def test_the_bound_is_exact_for_blocks_of_one_and_unbiased_for_longer_ones() -> None:
    model = to_masked(small_model(shifted=True, sharpness=1.0), positions=8)
    ids = torch.tensor([[1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 0, 0]])
    valid = torch.arange(6)[None] < torch.tensor([[6], [4]])
    fixed = torch.arange(6)[None] < 1
    chance = torch.Generator().manual_seed(0)
    with torch.no_grad():
        everything = valid & ~fixed
        table = Raster().table(6, ids.device)
        exact = masked_losses(model, ids, everything, valid, table=table).sum(dim=1)
        ones = nats_bound(model, ids, valid, order=Blocks(1), generator=chance, fixed_BS=fixed)
        torch.testing.assert_close(ones, exact)
        # all orders of a block of two: (both masked) + (either one given the other) / 2 each
        pairs = Blocks(2).table(6, ids.device)
        both = masked_losses(model, ids, everything, valid, table=pairs)
        halves = [
            masked_losses(
                model, ids, everything & (torch.arange(6) % 2 == part), valid, table=pairs
            )
            for part in (0, 1)
        ]
        alone = halves[0] + halves[1]
        # slot 0 is given, so slot 1 is alone in its block and has one order only
        wanted = (both[:, 2:] / 2 + alone[:, 2:] / 2).sum(dim=1) + alone[:, 1]
        drawn = torch.stack(
            [
                nats_bound(model, ids, valid, order=Blocks(2), generator=chance, fixed_BS=fixed)
                for _ in range(200)
            ]
        )
    error = drawn.std(dim=0) / 200**0.5
    assert bool(((drawn.mean(dim=0) - wanted).abs() < 4 * error + 1e-4).all())


def test_nats_of_an_autoregressive_model_are_those_of_its_greedy_decode() -> None:
    model = small_model(shifted=True)
    out = Autoregressive().generate(model, canvas_of([[1, 2], [3, 4]], 7))
    fixed = torch.arange(9)[None] < 2
    with torch.no_grad():
        total = nats(model, out.values, fixed_BS=fixed)
    confidences = out.confidence_BS[:, 2:].log().sum(dim=1)
    torch.testing.assert_close(total, -confidences, atol=1e-4, rtol=1e-4)


def test_errors() -> None:
    with pytest.raises(ConfigError, match="MaskedInputs is not autoregressive"):
        to_masked(small_model())
    with pytest.raises(ConfigError, match="no row 99 for the mask"):
        to_masked(small_model(shifted=True), mask_id=99)
    with pytest.raises(ConfigError, match="cannot be token"):
        to_masked(small_model(shifted=True), in_vocabulary=True)  # the start token is in the way
    with pytest.raises(ConfigError, match=r"rate_low=0\.9 is above"):
        replace(BlockDiffusionOptions(), rate_low=0.9, rate_high=0.5)

    class Own(ShiftedInputs):
        pass

    own = small_model(shifted=True)
    assert isinstance(own.inputs, ShiftedInputs)
    own.inputs = Own(own.inputs.embedding, start_id=VOCABULARY)
    with pytest.raises(ConfigError, match="Own may hold more"):
        to_masked(own)
    made = to_masked(own, inputs=lambda old, table, row: MaskedInputs(table, mask_id=row, scale=2))
    assert isinstance(made.inputs, MaskedInputs)
    assert made.inputs.scale == 2
