"""Tokenizers on a CUDA device: the same codes as on the CPU. `make gpu-test` runs these."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from seqgen.tokenizers import (
    ConvTokenizer,
    FiniteScalarQuantizer,
    LookupFreeQuantizer,
    MultiScaleRVQ,
    PatchKMeans,
    VectorQuantizer,
)
from seqgen.tokenizers.pointwise import PointwiseQuantizer

DEVICE = torch.device("cuda")

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine"),
]

MAKERS: dict[str, Callable[[], PointwiseQuantizer | MultiScaleRVQ]] = {
    "vector": lambda: VectorQuantizer(64, 4),
    "finite scalar": lambda: FiniteScalarQuantizer((8, 5, 5)),
    "lookup free": lambda: LookupFreeQuantizer(6),
    "multi-scale": lambda: MultiScaleRVQ((1, 2, 4), 64, 4),
}


@pytest.mark.parametrize("name", list(MAKERS))
def test_codes_and_latents_are_those_of_the_cpu(name: str) -> None:
    torch.manual_seed(0)
    quantizer = MAKERS[name]().eval()
    f = torch.randn(8, quantizer.channels, 4, 4)
    ids = quantizer.encode(f)
    latent, partial = quantizer.decode(ids), quantizer.decode_partial(ids, ids % 2 == 0)
    quantizer.to(DEVICE)
    assert (quantizer.encode(f.to(DEVICE)).cpu() == ids).double().mean() > 0.99
    on_device = ids.to(DEVICE)
    close = {"atol": 1e-3, "rtol": 1e-3}
    torch.testing.assert_close(quantizer.decode(on_device).cpu(), latent, **close)
    known = on_device % 2 == 0
    torch.testing.assert_close(quantizer.decode_partial(on_device, known).cpu(), partial, **close)


@pytest.mark.parametrize("name", list(MAKERS))
def test_training(name: str) -> None:
    torch.manual_seed(0)
    made = ConvTokenizer(MAKERS[name](), image_shape=(3, 8, 8), width=16, depth=1).to(DEVICE)
    optimizer = torch.optim.AdamW(made.parameters(), lr=5e-3)
    images = (torch.rand(16, 3, 8, 8, device=DEVICE) * 2 - 1) * 0.9
    errors = []
    for _ in range(30):
        losses = made.loss(images)
        losses["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
        errors.append(float(losses["squared_error"]))
    assert errors[-1] < errors[0]


def test_kmeans_is_the_same_twice() -> None:
    images = torch.rand(64, 3, 16, 16, device=DEVICE) * 2 - 1
    made = [PatchKMeans(height=16, width=16, codes=64).to(DEVICE) for _ in range(2)]
    for tokenizer in made:
        tokenizer.fit(images)
    assert torch.equal(made[0].codebook_VD, made[1].codebook_VD)
    assert torch.equal(
        made[0].decode(made[0].encode(images)).cpu(),
        made[0].cpu().decode(made[0].encode(images.cpu())),
    )
