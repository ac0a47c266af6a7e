"""The core on a CUDA device: the same results as on the CPU. `make gpu-test` runs these."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from small_models import canvas_of, random_context, random_prompts, small_model

from seqgen.attention import Backend, MaskView, attend, reference_attention
from seqgen.canvas import Canvas
from seqgen.decoders import Autoregressive, BlockDiffusion, NonAutoregressive
from seqgen.decoders.base import GroupDecoder
from seqgen.logits import Sampling, TopK
from seqgen.masks import BlockCausal, Causal, Full, NoisyClean, SlotInfo, Window
from seqgen.model import Context

DEVICE = torch.device("cuda")

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine"),
]


BACKENDS = [backend for backend in get_args(Backend) if backend != "reference"]
TOLERANCE = {torch.float32: 1e-3, torch.float16: 4e-3, torch.bfloat16: 3e-2}


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("queries", [1, 4, 64, 160, 300])
def test_attention_equals_the_definition(
    backend: Backend, queries: int, dtype: torch.dtype
) -> None:
    """A block at the end of a cache of ragged rows, or a prefill; heads as in SDAR-1.7B."""
    torch.manual_seed(0)
    keys = 600
    index = torch.arange(keys, device=DEVICE)[None]
    k = SlotInfo(index // 4, index)
    valid = index < torch.tensor([[keys], [keys - queries // 2]], device=DEVICE)
    query = torch.randn(2, 16, queries, 128, device=DEVICE, dtype=dtype)
    key, value = (torch.randn(2, 8, keys, 128, device=DEVICE, dtype=dtype) for _ in range(2))
    for mask in (BlockCausal(), Causal(), Full(), BlockCausal() & Window(50)):
        view = MaskView(mask, k.part(keys - queries, keys), k, valid)
        got = attend(query, key, value, view=view, backend=backend)
        want = reference_attention(query, key, value, view.dense)
        torch.testing.assert_close(got, want, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])
    got = attend(query, key, value, backend=backend)
    want = reference_attention(query, key, value, None)
    torch.testing.assert_close(got, want, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])


@pytest.mark.parametrize("width", [16, 64, 80, 256])
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("keys", [70, 3000])
def test_the_kernel_at_every_width(width: int, dtype: torch.dtype, keys: int) -> None:
    """Few rows and many keys: the keys are divided among programs."""
    torch.manual_seed(0)
    query = torch.randn(1, 4, 8, width, device=DEVICE, dtype=dtype)
    key, value = (torch.randn(1, 2, keys, width, device=DEVICE, dtype=dtype) for _ in range(2))
    got = attend(query, key, value, backend="triton")
    want = reference_attention(query, key, value, None)
    torch.testing.assert_close(got, want, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])


@pytest.mark.parametrize("backend", ["sdpa", "flex"])
def test_gradients_of_block_diffusion_training(backend: Backend) -> None:
    """[noisy | clean], 320 slots: the gradients of the queries, keys and values."""
    torch.manual_seed(0)
    slots = torch.arange(160, device=DEVICE).repeat(2)[None]
    copy = (torch.arange(320, device=DEVICE) < 160).long()[None]
    info = SlotInfo(slots // 4, slots, copy)
    made = [torch.randn(2, heads, 320, 64, device=DEVICE) for heads in (4, 2, 2)]
    grown = torch.randn(2, 4, 320, 64, device=DEVICE)
    gradients = []
    for name in (backend, "reference"):
        leaves = [x.clone().requires_grad_() for x in made]
        view = MaskView(NoisyClean(), info, info)
        attend(*leaves, view=view, backend=name).backward(grown)  # type: ignore[arg-type]
        gradients.append([leaf.grad for leaf in leaves])
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize("backend", BACKENDS)
def test_decodes_of_every_backend(backend: Backend) -> None:
    """Ragged rows; flex and the others choose what the CPU chose."""
    if backend == "flex":
        pytest.skip("FlexAttention needs heads of width 16 or more, the small model has 6")
    decoder, prompts = BlockDiffusion(block_length=4, threshold=0.3), [[1, 2, 3, 4, 5, 6], [7]]
    expected = decoder.generate(small_model(), canvas_of(prompts, 20)).sequences()
    canvas = Canvas.tokens(prompts, new=20, device=DEVICE)
    found = decoder.generate(small_model(backend=backend).to(DEVICE), canvas).sequences()
    assert found == expected


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
