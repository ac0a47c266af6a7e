"""Guidance against its definition, and its limits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_models import WIDTH, canvas_of, random_context, random_prompts, small_model

from seqgen.decoders import Autoregressive, BlockDiffusion
from seqgen.guidance import GuidedModel, guided_context
from seqgen.inputs import MaskedInputs
from seqgen.model import Context

DECODERS: list[Any] = [Autoregressive(), BlockDiffusion(block_length=3)]


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize(("scale", "which"), [(1.0, 0), (0.0, 1)])
@pytest.mark.parametrize("sizes", [[2, 2], [0, 3, 1]])
def test_scale_one_is_conditional_and_zero_unconditional(
    decoder: Any, scale: float, which: int, sizes: list[int]
) -> None:
    model = small_model(cross=True)
    contexts = [random_context(seed, len(sizes)) for seed in (1, 2)]
    prompts = random_prompts(0, sizes)
    guided = decoder.generate(
        GuidedModel(model, scale=scale), canvas_of(prompts, 7), guided_context(*contexts)
    )
    plain = decoder.generate(model, canvas_of(prompts, 7), contexts[which])
    assert guided.sequences() == plain.sequences()


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize(("scale", "which"), [(1.0, 0), (0.0, 1)])
def test_each_branch_has_its_own_embeddings(decoder: Any, scale: float, which: int) -> None:
    """Conditioning that enters at the slots (a draft, an upsampled scale)."""
    model = small_model()
    assert isinstance(model.inputs, MaskedInputs)
    model.inputs.adds_given = True
    prompts = random_prompts(0, [1, 3])
    contexts = [Context(given_BSD=torch.randn(2, 10, WIDTH)) for _ in range(2)]
    guided = decoder.generate(
        GuidedModel(model, scale=scale), canvas_of(prompts, 7), guided_context(*contexts)
    )
    plain = decoder.generate(model, canvas_of(prompts, 7), contexts[which])
    assert guided.sequences() == plain.sequences()


def test_guided_logits_are_the_extrapolation() -> None:
    model = small_model(cross=True)
    contexts = [random_context(seed, 1) for seed in (1, 2)]

    def first(m: Any, context: Any) -> torch.Tensor:
        logits = []
        head = m.head.propose
        m.head.propose = lambda h, r: logits.append(head(h, r)) or logits[-1]
        for _ in Autoregressive().stream(m, canvas_of([[]], 1), context):
            pass
        m.head.propose = head
        result: torch.Tensor = logits[0].logits_BQV
        return result

    plain = [first(model, context) for context in contexts]
    guided = first(GuidedModel(model, scale=3.0), guided_context(*contexts))
    expected = plain[1] + 3 * (plain[0] - plain[1])
    torch.testing.assert_close(guided, expected, atol=1e-4, rtol=1e-4)


def test_contexts_must_match() -> None:
    with pytest.raises(ValueError, match="same parts"):
        guided_context(random_context(0, 1), random_context(0, 1, ragged=True))
