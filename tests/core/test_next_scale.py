"""Next-scale inputs and the conditioned backbone: what they compute, and the core's promises."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from seqgen.adaln_transformer import AdaLNTransformer, AdaLNTransformerConfig
from seqgen.canvas import Canvas
from seqgen.decoders import Ordered
from seqgen.grid_orders import Scales
from seqgen.guidance import Guidance, GuidedModel, guided_context
from seqgen.heads import CategoricalHead
from seqgen.logits import Sampling
from seqgen.model import Context, SequenceModel
from seqgen.scale_inputs import ScaleInputs
from seqgen.tokenizers import MultiScaleRVQ
from seqgen.training.objectives import teacher_states

WIDTH, CODES = 16, 11
VAR = AdaLNTransformerConfig(
    width=WIDTH, layers=2, heads=2, qk="l2", learned_scale=True, bias="qv", hidden=24
)
DIT = AdaLNTransformerConfig(width=WIDTH, layers=2, heads=4, condition=WIDTH)
SHARED = AdaLNTransformerConfig(width=WIDTH, layers=3, heads=2, qk="l2", scale=3.0, shared=True)


def model_of(
    config: AdaLNTransformerConfig, scales: tuple[int, ...], *, adds_given: bool = False
) -> SequenceModel:
    torch.manual_seed(0)
    quantizer = MultiScaleRVQ(scales, CODES, 4).eval()
    inputs = ScaleInputs(quantizer, WIDTH, adds_given=adds_given)
    model = SequenceModel(
        inputs=inputs,
        backbone=AdaLNTransformer(config),
        head=CategoricalHead(WIDTH, CODES, bias=True),
    )
    for parameter in model.parameters():  # far from the identity that training begins with
        torch.nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
    return model.eval()


def contexts_of(batch: int, slots: int, *, given: bool) -> list[Context]:
    generator = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    return [
        Context(
            condition_BD=draw(batch, WIDTH), given_BSD=draw(batch, slots, WIDTH) if given else None
        )
        for _ in range(2)
    ]


def rows_of(context: Context, rows: slice) -> Context:
    given = context.given_BSD
    assert context.condition_BD is not None
    return Context(
        condition_BD=context.condition_BD[rows], given_BSD=None if given is None else given[rows]
    )


@settings(max_examples=25, deadline=None)
@given(
    scales=st.sampled_from([(1,), (1, 2), (2, 3), (1, 2, 4), (1, 3, 4, 5)]),
    config=st.sampled_from([VAR, DIT, SHARED]),
    guided=st.booleans(),
    adds_given=st.booleans(),
    temperature=st.sampled_from([0.0, 1.0]),
    known=st.sampled_from([0.0, 0.4]),
    prompt_scales=st.integers(0, 2),
)
def test_cached_uncached_trained_and_in_any_batch(
    scales: tuple[int, ...],
    config: AdaLNTransformerConfig,
    guided: bool,
    adds_given: bool,
    temperature: float,
    known: float,
    prompt_scales: int,
) -> None:
    model = model_of(config, scales, adds_given=adds_given)
    assert isinstance(model.inputs, ScaleInputs)
    order, slots = Scales(scales), sum(side * side for side in scales)
    both = contexts_of(3, slots, given=adds_given)
    generator = torch.Generator().manual_seed(2)
    start = torch.randint(CODES, (3, slots), generator=generator)
    given_BS = torch.rand(3, slots, generator=generator) < known if known else None
    prompt = sum(side * side for side in scales[: min(prompt_scales, len(scales) - 1)])

    def run(rows: slice, *, cached: bool) -> Any:
        context = rows_of(both[0], rows)
        sequence: SequenceModel = model
        if guided:
            context = guided_context(context, rows_of(both[1], rows))
            sequence = GuidedModel(model, scale=Guidance(2.5, "linear"))
        canvas = Canvas(
            start[rows],
            prompt=prompt,
            seeds=torch.arange(3)[rows],
            given=None if given_BS is None else given_BS[rows],
        )
        decoder = Ordered(order=order, sampling=Sampling(temperature=temperature), cached=cached)
        return decoder.generate(sequence, canvas, context)

    together = run(slice(0, 3), cached=True)
    assert together.forwards == len(scales) - min(prompt_scales, len(scales) - 1)
    assert torch.equal(together.values, run(slice(0, 3), cached=False).values)
    assert torch.equal(together.values[1:2], run(slice(1, 2), cached=True).values)

    with torch.no_grad():
        states = [
            teacher_states(model, together.values, order=order, context=context)[0]
            for context in both
        ]
        logits = [model.head.logits(state) for state in states]  # type: ignore[attr-defined]
    bounds = model.inputs.quantizer.bounds
    passes = together.forwards
    for scale in range(len(scales) - passes, len(scales)):
        start_slot, end = bounds[scale]
        at = scale - (len(scales) - passes)
        strength = Guidance(2.5, "linear")(at, passes) if guided else 1.0
        mixed = logits[1][:, start_slot:end].lerp(logits[0][:, start_slot:end], strength)
        chosen = mixed.softmax(-1).gather(-1, together.values[:, start_slot:end, None])[..., 0]
        decided = torch.ones_like(chosen, dtype=torch.bool)
        if given_BS is not None:
            decided = ~given_BS[:, start_slot:end]
        torch.testing.assert_close(
            together.confidence_BS[:, start_slot:end][decided], chosen[decided], atol=1e-5, rtol=0
        )


class Counting(MultiScaleRVQ):
    """Counts how often a scale is added to a latent."""

    added = 0

    def accumulate(self, f_BCHW: Tensor, ids_BN: Tensor, scale: int) -> Tensor:
        self.added += 1
        return super().accumulate(f_BCHW, ids_BN, scale)


@pytest.mark.parametrize("cached", [True, False])
def test_a_scale_is_added_once_a_decode_for_both_branches(cached: bool) -> None:
    quantizer = Counting((1, 2, 3, 4), CODES, 4)
    model = model_of(VAR, (1, 2, 3, 4))
    model.inputs = ScaleInputs(quantizer, WIDTH)
    canvas = Canvas(torch.zeros(2, 30, dtype=torch.int64))
    guided = GuidedModel(model, scale=2.0)
    Ordered(order=Scales((1, 2, 3, 4)), cached=cached).generate(
        guided, canvas, guided_context(*contexts_of(2, 30, given=False))
    )
    assert quantizer.added == 3


def test_what_enters_at_a_slot() -> None:
    """By the formula, for whole scales, for some slots, and for all in one pass."""
    model = model_of(VAR, (1, 2, 4))
    inputs = model.inputs
    assert isinstance(inputs, ScaleInputs)
    (context, _), quantizer = contexts_of(2, 21, given=False), inputs.quantizer
    ids = torch.randint(CODES, (2, 21), generator=torch.Generator().manual_seed(0))
    levels = torch.tensor([0] + [1] * 4 + [2] * 16)
    with torch.no_grad():
        places = inputs.positions.weight + inputs.levels.weight[levels]
        assert context.condition_BD is not None
        first = (context.condition_BD + inputs.start_ND)[:, None]
        latent = quantizer.accumulate(quantizer.empty(2), ids[:, :1], 0)
        parts = [first, inputs.projection(quantizer.resize(latent, 1))]
        latent = quantizer.accumulate(latent, ids[:, 1:5], 1)
        parts.append(inputs.projection(quantizer.resize(latent, 2)))
        want = torch.cat(parts, dim=1) + places
        torch.testing.assert_close(inputs.embed_before(ids, context), want)
        canvas = Canvas(ids, prompt=21)
        some = ([[0]], [[1, 2, 3, 4]], [[2, 4]], [[3, 9, 7]], [[5, 6], [20, 1]])
        for index in map(torch.tensor, (*some, [list(range(21))])):
            got = inputs(canvas, index, None, context)
            wide = index.expand(2, -1)[..., None].expand(-1, -1, WIDTH)
            torch.testing.assert_close(got, want.gather(1, wide))


@pytest.mark.parametrize("guided", [False, True])
def test_the_device_is_asked_once_which_slots_an_order_feeds(
    monkeypatch: pytest.MonkeyPatch, guided: bool
) -> None:
    model, asked = model_of(VAR, (1, 2, 3)), []
    aminmax = Tensor.aminmax

    def counted(slots: Tensor) -> Any:
        asked.append(slots.shape[1])
        return aminmax(slots)

    monkeypatch.setattr(Tensor, "aminmax", counted)
    context, other = contexts_of(2, 14, given=False)
    for _ in range(2):
        canvas = Canvas(torch.zeros(2, 14, dtype=torch.int64))
        sequence = GuidedModel(model, scale=2.0) if guided else model
        Ordered(order=Scales((1, 2, 3))).generate(
            sequence, canvas, guided_context(context, other) if guided else context
        )
    assert asked == [1, 4, 9]
    assert copy.deepcopy(model).inputs._spans == {}


def test_slots_that_were_changed_are_read_again() -> None:
    inputs = model_of(VAR, (1, 2)).inputs
    (context, _) = contexts_of(1, 5, given=False)
    canvas, slots = Canvas(torch.ones(1, 5, dtype=torch.int64)), torch.tensor([[1, 2]])
    with torch.no_grad():
        first = inputs(canvas, slots, None, context)
        slots.fill_(0)
        assert torch.equal(
            inputs(canvas, slots, None, context),
            inputs(canvas, torch.zeros(1, 2).long(), None, context),
        )
        slots.copy_(torch.tensor([[1, 2]]))
        assert torch.equal(inputs(canvas, slots, None, context), first)


def test_a_reopened_slot_makes_it_forget() -> None:
    model = model_of(VAR, (1, 2))
    (context, _) = contexts_of(1, 5, given=False)
    canvas = Canvas(torch.zeros(1, 5, dtype=torch.int64))
    slots, yes = torch.arange(5)[None], torch.ones(1, 1, dtype=torch.bool)
    with torch.no_grad():
        first, confidence = slots[:, :1], torch.ones(1, 1)
        canvas.commit(first, torch.tensor([[3]]), confidence, yes)
        before = model.inputs(canvas, slots[:, 1:], None, context)
        canvas.reopen(first, yes)
        canvas.commit(first, torch.tensor([[4]]), confidence, yes)
        after = model.inputs(canvas, slots[:, 1:], None, context)
    assert not torch.allclose(before, after)


def test_the_quantizer_is_used_not_owned() -> None:
    model = model_of(VAR, (1, 2))
    assert not [name for name in model.state_dict() if "codebook" in name or "phi" in name]
    inputs = model.inputs
    assert isinstance(inputs, ScaleInputs)
    assert isinstance(inputs.quantizer, MultiScaleRVQ)
    inputs.embed_before(
        torch.zeros(1, 5).long(), contexts_of(1, 5, given=False)[0]
    ).sum().backward()
    assert all(parameter.grad is None for parameter in inputs.quantizer.parameters())


def test_missing_conditions_are_errors() -> None:
    model = model_of(VAR, (1, 2), adds_given=True)
    canvas, slots = Canvas(torch.zeros(1, 5).long()), torch.arange(5)[None]
    with pytest.raises(ValueError, match="condition_BD"):
        model.inputs(canvas, slots, None, None)
    with pytest.raises(ValueError, match="given_BSD"):
        model.inputs(canvas, slots, None, Context(condition_BD=torch.zeros(1, WIDTH)))
    with pytest.raises(ValueError, match="condition_BD"):
        model.backbone(torch.zeros(1, 1, WIDTH), slots, view=None, cache=None, context=None)


# --- the backbone ---


def random_backbone(config: AdaLNTransformerConfig) -> AdaLNTransformer:
    torch.manual_seed(3)
    backbone = AdaLNTransformer(config).eval()
    for parameter in backbone.parameters():
        torch.nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
    return backbone


def by_definition(backbone: AdaLNTransformer, x: Tensor, condition: Tensor) -> Tensor:
    """The published formulas, in float64, one head at a time."""
    c = backbone.config
    activated = F.silu(condition)

    def norm(x: Tensor) -> Tensor:
        mean, variance = x.mean(-1, keepdim=True), x.var(-1, correction=0, keepdim=True)
        return (x - mean) / (variance + c.norm_eps).sqrt()

    for block in backbone.stack:
        if c.shared:
            made = backbone.modulation(activated) + block.own_modulation_6D.flatten()
        else:
            made = block.modulation(activated)
        gate1, gate2, scale1, scale2, shift1, shift2 = made[:, None].chunk(6, dim=-1)
        q, k, v = block.attention.qkv(norm(x) * (1 + scale1) + shift1).chunk(3, dim=-1)
        heads = []
        for head in range(c.heads):
            part = slice(head * c.d, (head + 1) * c.d)
            query, key, factor = q[..., part], k[..., part], c.scale or c.d**-0.5
            if c.qk == "l2":
                query, key = F.normalize(query, dim=-1), F.normalize(key, dim=-1)
                factor = c.scale or 1.0
                if c.learned_scale:
                    factor = factor * min(block.attention.log_scale_H[head].exp().item(), 100)
            scores = factor * query @ key.transpose(1, 2)
            heads.append(scores.softmax(-1) @ v[..., part])
        x = x + gate1 * block.attention.out(torch.cat(heads, dim=-1))
        inner = F.gelu(block.feed_in(norm(x) * (1 + scale2) + shift2), approximate="tanh")
        x = x + gate2 * block.feed_out(inner)
    scale, shift = backbone.final_modulation(activated)[:, None].chunk(2, dim=-1)
    return norm(x) * (1 + scale) + shift


@pytest.mark.parametrize(
    "config",
    [
        VAR,
        DIT,
        SHARED,
        AdaLNTransformerConfig(width=WIDTH, layers=1, heads=1, condition=5, scale=0.25),
    ],
)
def test_backbone_by_definition(config: AdaLNTransformerConfig) -> None:
    backbone = random_backbone(config)
    if config.learned_scale:
        for block in backbone.stack:
            block.attention.log_scale_H.data.copy_(torch.tensor([1.0, 7.0]))  # e^7 is too much
    x, condition = torch.randn(2, 6, WIDTH), torch.randn(2, config.E)
    context = Context(condition_BD=condition)
    coordinates = torch.arange(6)[None, :, None]
    with torch.no_grad():
        got = backbone(x, coordinates, context=context)
        prepared = backbone.prepare(context)
        assert backbone.prepare(prepared) is prepared
        again = backbone(x, coordinates, context=prepared)
        want = by_definition(backbone.double(), x.double(), condition.double())
    torch.testing.assert_close(got, want.float(), atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(again, got, atol=1e-6, rtol=1e-6)


def test_it_begins_near_the_identity() -> None:
    torch.manual_seed(0)
    backbone = AdaLNTransformer(VAR)
    x = torch.randn(2, 3, WIDTH)
    context = Context(condition_BD=torch.randn(2, WIDTH))
    blocks, last = [], x
    with torch.no_grad():
        layers = backbone.prepare(context).layers
        for index, block in enumerate(backbone.stack):
            last = block(last, layers[index], index, None, None)
            blocks.append(last)
    assert (blocks[-1] - x).abs().max() < 1e-3


def test_paths_are_dropped_in_training_only() -> None:
    config = AdaLNTransformerConfig(width=WIDTH, layers=2, heads=2, drop_path=0.999)
    backbone = random_backbone(config)
    x, coordinates = torch.randn(64, 3, WIDTH), torch.arange(3)[None, :, None]
    context = Context(condition_BD=torch.randn(64, WIDTH))
    with torch.no_grad():
        assert torch.equal(*(backbone(x, coordinates, context=context) for _ in range(2)))
        backbone.train()
        states: list[Tensor] = [x]
        layers = backbone.prepare(context).layers
        for index, block in enumerate(backbone.stack):
            states.append(block(states[-1], layers[index], index, None, None))
    changed = [(a != b).flatten(1).any(1).float().mean() for a, b in pairwise(states)]
    assert changed[0] == 1  # the first block keeps all its paths
    assert changed[1] < 0.1


def test_configurations_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="3 heads do not divide"):
        AdaLNTransformerConfig(width=16, layers=1, heads=3)
    with pytest.raises(ValueError, match="qk='l2'"):
        AdaLNTransformerConfig(width=16, layers=1, heads=2, learned_scale=True)
