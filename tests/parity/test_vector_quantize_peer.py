"""Our quantizers beside those of vector-quantize-pytorch, on random numbers.

`test_golden` compares with numbers in the repository; `test_fresh` (`make peers`) with the package
itself, which lives in an environment of its own (tests/parity/install_vector_quantize.sh). The
numbers were written by

    .peers/vector_quantize/bin/python tests/parity/vector_quantize_reference.py \
        tests/parity/golden/vector_quantize.npz

It has no multi-scale quantizer; with equal scales and without phi, ours is its residual one.
"""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from seqgen.tokenizers import (
    FiniteScalarQuantizer,
    LookupFreeQuantizer,
    MultiScaleRVQ,
    VectorQuantizer,
)

HERE = Path(__file__).parent
GOLDEN = HERE / "golden" / "vector_quantize.npz"
PYTHON = Path(
    os.environ.get(
        "VECTOR_QUANTIZE_PYTHON",
        HERE.parents[1] / ".peers" / "vector_quantize" / "bin" / "python",
    )
)
STEPS = 3

Case = dict[str, Tensor]


def read(path: Path) -> dict[str, Case]:
    cases: dict[str, Case] = {}
    with np.load(path) as file:
        assert str(file["version"]) == "1.32.0"
        for key in file.files:
            if "/" in key:
                case, name = key.split("/")
                cases.setdefault(case, {})[name] = torch.from_numpy(file[key])
    return cases


@pytest.fixture(scope="module")
def golden() -> dict[str, Case]:
    return read(GOLDEN)


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    if not PYTHON.exists():
        pytest.skip(f"no peer at {PYTHON}: run tests/parity/install_vector_quantize.sh")
    path = tmp_path_factory.mktemp("vector_quantize") / "fresh.npz"
    seed = str(secrets.randbelow(10_000))
    command = [PYTHON, HERE / "vector_quantize_reference.py", path, "--seed", seed]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    print(f"seed {seed}")  # shown when a test fails
    return read(path)


def check_running_means(case: Case, *, l2: bool) -> None:
    codes, channels = case["codebook"].shape
    quantizer = VectorQuantizer(
        codes, channels, l2_normalised=l2, decay=0.9, revive_below=0.0, kmeans_init=False
    )
    quantizer.codebook_VC.copy_(case["codebook"])
    quantizer.sum_VC.copy_(case["codebook"])
    for step in range(STEPS):
        f = case[f"f{step}"].requires_grad_()
        out = quantizer(f)
        assert torch.equal(out.ids_BS.view(2, 6, 6), case[f"ids{step}"])
        close(out.latent_BCHW, case[f"quantized{step}"])
        close(out.loss, case[f"loss{step}"].sum())
        (gradient,) = torch.autograd.grad(out.latent_BCHW.square().sum() + 3 * out.loss, f)
        close(gradient, case[f"gradient{step}"])
        close(quantizer.codebook_VC, case[f"codebook{step}"])
        close(quantizer.count_V, case[f"count{step}"])


def check_finite_scalar(case: Case, levels: tuple[int, ...]) -> None:
    quantizer = FiniteScalarQuantizer(levels)
    every = torch.arange(quantizer.vocabulary)[None]
    close(quantizer.vectors(every)[0], case["codes"])
    f = case["f"].requires_grad_()
    out = quantizer(f)
    assert torch.equal(out.ids_BS.view(2, 6, 6), case["ids"].long())
    close(out.latent_BCHW, case["quantized"])
    (gradient,) = torch.autograd.grad(out.latent_BCHW.square().sum(), f)
    close(gradient, case["gradient"])


def check_lookup_free(case: Case, *, spherical: bool) -> None:
    bits = case["f"].shape[1]
    quantizer = LookupFreeQuantizer(
        bits, spherical=spherical, entropy_weight=0.1, beta=0.25, diversity=2.0, temperature=0.5
    )
    close(quantizer.vectors(torch.arange(2**bits)[None])[0], case["codes"])
    f = case["f"].requires_grad_()
    out = quantizer(f)
    assert torch.equal(out.ids_BS.view(2, 6, 6), case["ids"])
    close(out.latent_BCHW, case["quantized"])
    close(out.parts["commitment"], case["commitment"])
    # Theirs clips probabilities at 1e-5 before the logarithm.
    close(out.parts["entropy_each"], case["each"], atol=2e-3)
    close(out.parts["entropy_mean"], case["mean"], atol=2e-3)
    close(out.loss, case["loss"], atol=1e-3)
    (gradient,) = torch.autograd.grad(out.latent_BCHW.square().sum() + out.loss, f)
    close(gradient, case["gradient"], atol=1e-3)


def check_residual(case: Case) -> None:
    codes, channels = case["codebook"].shape
    quantizer = MultiScaleRVQ((6, 6, 6), codes, channels, phis=0).eval()
    with torch.no_grad():
        quantizer.codebook_VC.copy_(case["codebook"])
    ids = quantizer.encode(case["f"].transpose(1, 2).reshape(2, channels, 6, 6))
    assert torch.equal(ids.view(2, 3, 36).transpose(1, 2), case["ids"])
    close(quantizer.decode(ids).flatten(2).transpose(1, 2), case["quantized"])


def close(ours: Tensor, theirs: Tensor, *, atol: float = 1e-5) -> None:
    torch.testing.assert_close(ours.detach(), theirs.to(ours.dtype), atol=atol, rtol=1e-5)


CHECKS: dict[str, Callable[[Case], None]] = {
    "vq": lambda case: check_running_means(case, l2=False),
    "vq_l2": lambda case: check_running_means(case, l2=True),
    "fsq_8_8_8": lambda case: check_finite_scalar(case, (8, 8, 8)),
    "fsq_8_5_5_5": lambda case: check_finite_scalar(case, (8, 5, 5, 5)),
    "fsq_7_3": lambda case: check_finite_scalar(case, (7, 3)),
    "fsq_4_4_6": lambda case: check_finite_scalar(case, (4, 4, 6)),
    "lfq": lambda case: check_lookup_free(case, spherical=False),
    "bsq": lambda case: check_lookup_free(case, spherical=True),
    "residual": check_residual,
}


@pytest.mark.parametrize("name", list(CHECKS))
def test_golden(name: str, golden: dict[str, Case]) -> None:
    CHECKS[name](golden[name])


@pytest.mark.peer
@pytest.mark.parametrize("name", list(CHECKS))
def test_fresh(name: str, fresh: dict[str, Case]) -> None:
    CHECKS[name](fresh[name])
