"""Runs inside vector-quantize-pytorch's own environment: what it computes on random numbers.

    .peers/vector_quantize/bin/python tests/parity/vector_quantize_reference.py OUT.npz [--seed N]

OUT.npz gets the inputs and the results, under `CASE/NAME`. Imports nothing of seqgen.
"""

from __future__ import annotations

import argparse
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from vector_quantize_pytorch import FSQ, LFQ, ResidualVQ, VectorQuantize

STEPS, CODES, CHANNELS = 3, 24, 4
LEVELS = ((8, 8, 8), (8, 5, 5, 5), (7, 3), (4, 4, 6))
BITS = 6


def main(destination: Path, seed: int) -> None:
    torch.manual_seed(seed)
    found: dict[str, torch.Tensor] = {}
    for name, cosine in (("vq", False), ("vq_l2", True)):
        found |= {f"{name}/{key}": value for key, value in vector(cosine).items()}
    for levels in LEVELS:
        name = "fsq_" + "_".join(map(str, levels))
        found |= {f"{name}/{key}": value for key, value in finite_scalar(levels).items()}
    for name, spherical in (("lfq", False), ("bsq", True)):
        found |= {f"{name}/{key}": value for key, value in lookup_free(spherical).items()}
    found |= {f"residual/{key}": value for key, value in residual().items()}
    arrays = {name: value.detach().numpy() for name, value in found.items()}
    np.savez_compressed(destination, version=version("vector-quantize-pytorch"), **arrays)


def vector(cosine: bool) -> dict[str, torch.Tensor]:
    """Steps of the running means, without revival."""
    model = VectorQuantize(
        CHANNELS,
        CODES,
        decay=0.9,
        commitment_weight=0.25,
        use_cosine_sim=cosine,
        accept_image_fmap=True,
        rotation_trick=False,
    ).train()
    found = {"codebook": model.codebook.clone()}
    for step in range(STEPS):
        f = torch.randn(2, CHANNELS, 6, 6, requires_grad=True)
        quantized, ids, loss = model(f)
        (gradient,) = torch.autograd.grad(quantized.square().sum() + 3 * loss.sum(), f)
        found |= {
            f"f{step}": f,
            f"quantized{step}": quantized,
            f"ids{step}": ids,
            f"loss{step}": loss,
            f"gradient{step}": gradient,
            f"codebook{step}": model.codebook.clone(),
            f"count{step}": model._codebook.cluster_size[0].clone(),
        }
    return found


def finite_scalar(levels: tuple[int, ...]) -> dict[str, torch.Tensor]:
    model = FSQ(levels).train()
    f = (2 * torch.randn(2, len(levels), 6, 6)).requires_grad_()
    quantized, ids = model(f)
    (gradient,) = torch.autograd.grad(quantized.square().sum(), f)
    every = model.implicit_codebook
    return {"f": f, "quantized": quantized, "ids": ids, "gradient": gradient, "codes": every}


def lookup_free(spherical: bool) -> dict[str, torch.Tensor]:
    model = LFQ(
        dim=BITS,
        codebook_size=2**BITS,
        spherical=spherical,
        entropy_loss_weight=0.1,
        commitment_loss_weight=0.25,
        diversity_gamma=2.0,
    ).train()
    f = torch.randn(2, BITS, 6, 6, requires_grad=True)
    (quantized, ids, loss), parts = model(f, inv_temperature=2.0, return_loss_breakdown=True)
    (gradient,) = torch.autograd.grad(quantized.square().sum() + loss, f)
    return {
        "f": f,
        "quantized": quantized,
        "ids": ids,
        "loss": loss,
        "gradient": gradient,
        "each": parts.per_sample_entropy,
        "mean": parts.batch_entropy,
        "commitment": parts.commitment,
        "codes": model.indices_to_codes(torch.arange(2**BITS)[None])[0],
    }


def residual() -> dict[str, torch.Tensor]:
    """One codebook for all the stages."""
    model = ResidualVQ(
        dim=CHANNELS,
        codebook_size=CODES,
        num_quantizers=3,
        shared_codebook=True,
    ).eval()
    f = torch.randn(2, 36, CHANNELS)
    quantized, ids, _ = model(f)  # ids [B, places, stages]
    return {"f": f, "quantized": quantized, "ids": ids, "codebook": model.codebooks[0]}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("destination", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    main(given.destination, given.seed)
