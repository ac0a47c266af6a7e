"""The core on a CUDA device: the same results as on the CPU. `make gpu-test` runs these."""

from __future__ import annotations

import pytest
import torch
from small_models import canvas_of, random_context, random_prompts, small_model

from seqgen.attention import Backend, MaskView, attend, reference_attention
from seqgen.canvas import Canvas
from seqgen.decoders import Autoregressive, BlockDiffusion, NonAutoregressive
from seqgen.decoders.base import GroupDecoder
from seqgen.logits import Sampling, TopK
from seqgen.masks import BlockCausal, SlotInfo
from seqgen.model import Context

DEVICE = torch.device("cuda")

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine"),
]


@pytest.mark.parametrize("backend", ["auto", "sdpa", "flex"])
@pytest.mark.parametrize("queries", [5, 160])  # `auto` takes flex for many queries
def test_attention_equals_the_definition(backend: Backend, queries: int) -> None:
    torch.manual_seed(0)
    index = torch.arange(queries, device=DEVICE)[None]
    info = SlotInfo(index // 3, index)
    valid = index < torch.tensor([[queries], [queries - 2]], device=DEVICE)
    query, key, value = (torch.randn(2, h, queries, 16, device=DEVICE) for h in (4, 2, 2))
    view = MaskView(BlockCausal(), info, info, valid)
    got = attend(query, key, value, view=view, backend=backend)
    want = reference_attention(query, key, value, view.dense)
    torch.testing.assert_close(got, want, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    "decoder",
    [
        Autoregressive(stop_ids=(3,)),
        Autoregressive(sampling=Sampling(temperature=1.0, filters=(TopK(5),))),
        BlockDiffusion(block_length=3, threshold=0.3, stop_ids=(3, 4)),
        BlockDiffusion(block_length=4, remasking="entropy_bounded"),
    ],
    ids=lambda decoder: type(decoder).__name__,
)
@pytest.mark.parametrize("sizes", [[4, 4], [0, 5, 2]])
def test_decoders_give_what_they_give_on_the_cpu(decoder: GroupDecoder, sizes: list[int]) -> None:
    model = small_model(cross=True)
    context = random_context(0, len(sizes), ragged=True)
    prompts, seeds = random_prompts(0, sizes), list(range(len(sizes)))
    expected = decoder.generate(model, canvas_of(prompts, 20, seeds=seeds), context)
    assert context.states_BTD is not None
    assert context.valid_BT is not None
    there = Context(states_BTD=context.states_BTD.to(DEVICE), valid_BT=context.valid_BT.to(DEVICE))
    canvas = Canvas.tokens(prompts, new=20, seeds=torch.tensor(seeds), device=DEVICE)
    found = decoder.generate(model.to(DEVICE), canvas, there)
    assert found.values.device.type == DEVICE.type
    assert found.sequences() == expected.sequences()


def test_mask_predict_of_given_lengths() -> None:
    model = small_model()
    decoder, values = NonAutoregressive(steps=3), torch.zeros(2, 9, dtype=torch.int64)
    expected = decoder.generate(model, Canvas(values, length=[9, 6])).sequences()
    found = decoder.generate(model.to(DEVICE), Canvas(values.to(DEVICE), length=[9, 6]))
    assert found.sequences() == expected
