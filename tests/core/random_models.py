"""Random models, canvases and decoders, for the properties that must hold for all of them.

Models are float64: rounding then cannot make two ways to the same number choose different values,
so that outputs are compared for equality.

Two Hypothesis profiles: `fixed`, the same examples in every run, and `deep`, ten times as many and
others every time (`make slow`, or SEQGEN_PROPERTIES=deep).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from seqgen.canvas import Canvas
from seqgen.commits import All, CommitRule, ConfidenceQuota, EntropyBound, Sequential, Threshold
from seqgen.decoders import Autoregressive, BlockDiffusion, Generated, NonAutoregressive
from seqgen.decoders.base import GroupDecoder, drain
from seqgen.heads import CategoricalHead
from seqgen.inputs import MaskedInputs, ShiftedInputs
from seqgen.logits import GREEDY, RepetitionPenalty, Sampling, TopK, TopP
from seqgen.loop import Recipe, decode
from seqgen.masks import BlockCausal, Causal, Markov, Mask, Prefix, Window
from seqgen.model import Context, SequenceModel
from seqgen.orders import OrderTable, table_from_groups
from seqgen.transformer import Transformer, TransformerConfig

VOCABULARY = 17
MOST_SLOTS = 20

Kind = Literal["shifted", "headless", "masked", "given"]
"""Inputs: the value before with a start token, without one, a mask, a mask and given embeddings."""

_COMMON: dict[str, Any] = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("fixed", max_examples=20, derandomize=True, database=None, **_COMMON)
settings.register_profile("deep", max_examples=200, print_blob=True, **_COMMON)
PROFILE = settings.get_profile(os.environ.get("SEQGEN_PROPERTIES", "fixed"))


def examples(share: float = 1.0) -> settings:
    """The profile, with a share of its examples."""
    return settings(PROFILE, max_examples=max(1, round(PROFILE.max_examples * share)))


@dataclass(frozen=True)
class Case:
    """A model, and a batch to decode with it.

    Attributes:
        values, prompts, lengths, seeds, given: of the canvas; prompt <= length <= slots a row.
    """

    model: SequenceModel
    kind: Kind
    values: Tensor
    prompts: tuple[int, ...]
    lengths: tuple[int, ...]
    seeds: tuple[int, ...]
    given: Tensor | None = None
    context: Context | None = None

    def canvas(self, rows: Sequence[int] | None = None, *, cut: bool = True) -> Canvas:
        """The canvas of these rows, cut to the longest of them."""
        rows = range(len(self.prompts)) if rows is None else rows
        width = max(self.lengths[r] for r in rows) if cut else self.values.shape[1]
        index = list(rows)
        return Canvas(
            self.values[index, :width],
            prompt=[self.prompts[r] for r in rows],
            length=[self.lengths[r] for r in rows],
            seeds=torch.tensor([self.seeds[r] for r in rows]),
            given=None if self.given is None else self.given[index, :width],
        )

    def context_of(self, rows: Sequence[int]) -> Context | None:
        """Their context. Of a single row the padding is cut off."""
        if self.context is None:
            return None
        states, valid, given = (
            None if x is None else x[list(rows)]
            for x in (self.context.states_BTD, self.context.valid_BT, self.context.given_BSD)
        )
        if len(rows) == 1 and valid is not None and states is not None:
            states, valid = states[:, : int(valid.sum())], None
        return Context(states_BTD=states, valid_BT=valid, given_BSD=given)

    def decode(
        self,
        decoder: GroupDecoder,
        rows: Sequence[int] | None = None,
        *,
        cut: bool = True,
        **changes: Any,
    ) -> Generated:
        """Decode some of the rows, with changes to the decoder's recipe."""
        canvas = self.canvas(rows, cut=cut)
        context = self.context if rows is None else self.context_of(rows)
        recipe = replace(decoder.recipe(self.model), **changes)
        return drain(decode(self.model, canvas, context, recipe), canvas)


@dataclass(frozen=True)
class AnyGroups:
    """An order that puts slots into any groups."""

    groups: tuple[int, ...]

    def table(self, slots: int, device: torch.device) -> OrderTable:
        _, dense = torch.unique(torch.tensor(self.groups[:slots]), return_inverse=True)
        return table_from_groups(dense.to(device))


@dataclass(frozen=True, kw_only=True)
class InGroups(GroupDecoder):
    """Decode in an order with a rule, whatever they are."""

    order: Any
    commit: CommitRule
    sampling: Sampling = GREEDY
    stop_ids: tuple[int, ...] = ()

    def recipe(self, model: SequenceModel) -> Recipe:
        return Recipe(self.order, self.commit, self.sampling, self.stop_ids, quota_over="open")


@st.composite
def models(
    draw: st.DrawFn, kinds: Sequence[Kind], masks: Sequence[Mask], *, backend: Any = "auto"
) -> tuple[SequenceModel, Kind, int]:
    """A random model, its inputs, and the width of the context it attends to (0 for none)."""
    kind = draw(st.sampled_from(kinds))
    kv_heads, share = draw(st.sampled_from([(1, 1), (1, 2), (2, 1), (2, 2), (1, 4)]))
    width = draw(st.sampled_from([8, 12, 16]))
    context_width = draw(st.sampled_from([0, 0, 6]))
    torch.manual_seed(draw(st.integers(0, 2**20)))
    config = TransformerConfig(
        width=width,
        layers=draw(st.integers(1, 3)),
        heads=kv_heads * share,
        kv_heads=kv_heads,
        head_width=draw(st.sampled_from([2, 4, 8])),
        qk_norm=draw(st.booleans()),
        context_width=context_width,
        backend=backend,
    )
    table = nn.Embedding(VOCABULARY + 1, width)
    inputs: nn.Module
    if kind in ("shifted", "headless"):
        inputs = ShiftedInputs(table, start_id=VOCABULARY if kind == "shifted" else None)
    else:
        inputs = MaskedInputs(
            table,
            mask_id=VOCABULARY,
            positions=nn.Embedding(MOST_SLOTS, width),
            adds_given=kind == "given",
        )
    head = CategoricalHead(width, VOCABULARY)
    head.weight.data *= draw(st.sampled_from([1.0, 4.0]))
    model = SequenceModel(
        inputs=inputs,  # type: ignore[arg-type]
        backbone=Transformer(config),
        head=head,
        mask=draw(st.sampled_from(masks)),
    )
    return model.double().eval(), kind, context_width


RASTER_MASKS = [BlockCausal(), Causal(), Causal() & Window(2), BlockCausal() & Window(3), Markov()]
BLOCK_MASKS = [*RASTER_MASKS, BlockCausal() & (Window(3) | Prefix(2))]
GROUP_MASKS = [BlockCausal(), Markov(), BlockCausal() & Window(4)]


@st.composite
def cases(
    draw: st.DrawFn,
    kinds: Sequence[Kind] = ("shifted", "headless", "masked", "given"),
    masks: Sequence[Mask] = BLOCK_MASKS,
    *,
    ragged: bool = True,
    prompted: bool = True,
    inpaints: bool = True,
    batch: int = 4,
    new: int = 9,
    backend: Any = "auto",
) -> Case:
    """A model and a batch.

    Args:
        ragged: rows may differ in prompt and length.
        prompted: there may be prompts.
        inpaints: models with masked inputs may be given slots behind the prompt.
        batch, new: at most so many rows, and new slots a row.
    """
    model, kind, context_width = draw(models(kinds, masks, backend=backend))
    rows = draw(st.integers(1, batch))
    least = 1 if kind == "headless" else 0
    one_prompt, one_new = not ragged or draw(st.booleans()), not ragged or draw(st.booleans())

    def sizes(low: int, high: int, same: bool) -> list[int]:
        if same:
            return [draw(st.integers(low, high))] * rows
        return [draw(st.integers(low, high)) for _ in range(rows)]

    prompts = sizes(least, 9, one_prompt) if prompted or least else [0] * rows
    lengths = [p + n for p, n in zip(prompts, sizes(1, new, one_new), strict=True)]
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**20)))
    slots = max(lengths)
    values = torch.randint(VOCABULARY, (rows, slots), generator=generator)
    given = None
    if inpaints and kind in ("masked", "given") and draw(st.integers(0, 2)) == 0:
        given = torch.rand(rows, slots, generator=generator) < 0.3
        given &= torch.arange(slots) < torch.tensor(lengths)[:, None]
    states = valid = embeddings = None
    if context_width:
        states = torch.randn(rows, 5, context_width, generator=generator).double()
        ends = torch.randint(1, 6, (rows, 1), generator=generator)
        valid = torch.arange(5) < ends if draw(st.booleans()) else None
    if kind == "given":
        width = model.backbone.config.width
        embeddings = torch.randn(rows, MOST_SLOTS, width, generator=generator).double()
    context = None
    if states is not None or embeddings is not None:
        context = Context(states_BTD=states, valid_BT=valid, given_BSD=embeddings)
    first = draw(st.integers(0, 2**40))
    return Case(
        model,
        kind,
        values,
        tuple(prompts),
        tuple(lengths),
        tuple(first + 7919 * row for row in range(rows)),
        given,
        context,
    )


@st.composite
def samplings(draw: st.DrawFn, *, greedy: bool | None = None) -> Sampling:
    if greedy or (greedy is None and draw(st.booleans())):
        return GREEDY
    return Sampling(
        temperature=draw(st.sampled_from([0.5, 1.0, 1.7])),
        constraints=draw(st.sampled_from([(), (), (RepetitionPenalty(1.3),)])),
        filters=draw(st.sampled_from([(), (TopK(5),), (TopP(0.8),)])),
        confidence=draw(st.sampled_from(["raw", "temperature", "filtered"])),
    )


STOPS = st.sampled_from([(), (3,), (1, 2, 3, 4, 5)])


@st.composite
def rules(draw: st.DrawFn) -> CommitRule:
    steps = draw(st.integers(1, 6))
    return draw(
        st.sampled_from(
            [
                All(),
                Sequential(steps),
                ConfidenceQuota(steps),
                Threshold(steps, draw(st.sampled_from([0.1, 0.4, 0.9]))),
                EntropyBound(draw(st.sampled_from([0.2, 1.0, 4.0]))),
            ]
        )
    )


@st.composite
def block_decoders(draw: st.DrawFn, *, sampling: Sampling | None = None) -> BlockDiffusion:
    return BlockDiffusion(
        block_length=draw(st.integers(1, 6)),
        steps=draw(st.integers(0, 6)),
        remasking=draw(
            st.sampled_from(
                ["sequential", "low_confidence_static", "low_confidence_dynamic", "entropy_bounded"]
            )
        ),
        threshold=draw(st.sampled_from([0.05, 0.3, 0.9])),
        entropy_bound=draw(st.sampled_from([0.35, 2.0])),
        sampling=draw(samplings()) if sampling is None else sampling,
        stop_ids=draw(STOPS),
    )


@st.composite
def batches(draw: st.DrawFn) -> tuple[Case, GroupDecoder, bool]:
    """A case, a decoder that fits it, and whether rows decode alike on a canvas cut to them.

    The groups of an arbitrary order depend on how many slots there are.
    """
    way = draw(st.sampled_from(["autoregressive", "blocks", "blocks", "whole", "groups"]))
    if way == "autoregressive":
        case = draw(cases(masks=RASTER_MASKS))
        return case, Autoregressive(sampling=draw(samplings()), stop_ids=draw(STOPS)), True
    if way == "blocks":
        return draw(cases(("masked", "given"))), draw(block_decoders()), True
    if way == "whole":
        case = draw(cases(("masked", "given"), GROUP_MASKS))
        return (
            case,
            NonAutoregressive(steps=draw(st.integers(1, 6)), sampling=draw(samplings())),
            True,
        )
    case = draw(cases(("masked", "given"), GROUP_MASKS, prompted=False))
    slots = case.values.shape[1]
    groups = draw(st.lists(st.integers(0, 4), min_size=slots, max_size=slots))
    decoder = InGroups(
        order=AnyGroups(tuple(groups)), commit=draw(rules()), sampling=draw(samplings())
    )
    return case, decoder, False
