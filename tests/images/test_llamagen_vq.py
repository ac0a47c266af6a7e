"""LlamaGen's image tokenizer.

tests/images/data/llamagen_vq_tiny.npz holds what the published VQModel (torch 2.13.0, CPU) computed
with an encoder and a decoder of 32 channels, 64 codes of 4 numbers and the weights of
rule_weights.py; `f` is a latent, `f_ids` its ids, `reconstruction` the image of those.
"""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.images.rule_weights import rule_weights
from torch import Tensor

from seqgen.errors import CheckpointError, InputError
from seqgen_images.official.llamagen_vq import (
    LlamaGenVQ,
    VQConfig,
    find_tokenizer,
    load_tokenizer,
    tokenizer_from_state,
)

GOLDEN = Path(__file__).parent / "data" / "llamagen_vq_tiny.npz"


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    return dict(np.load(GOLDEN))


@pytest.fixture(scope="module")
def state(golden: dict[str, np.ndarray]) -> dict[str, Tensor]:
    shapes = map(ast.literal_eval, golden["shapes"].tolist())
    return rule_weights(dict(zip(golden["keys"].tolist(), shapes, strict=True)))


@pytest.fixture(scope="module")
def tokenizer(state: dict[str, Tensor]) -> LlamaGenVQ:
    return tokenizer_from_state(state, size=16)


def test_encoder(tokenizer: LlamaGenVQ, golden: dict[str, np.ndarray]) -> None:
    images = torch.from_numpy(golden["image"])
    with torch.no_grad():
        latent = tokenizer.latent(images)
    assert (latent - torch.from_numpy(golden["latent"])).abs().max() < 1e-4
    assert tokenizer.encode(images).tolist() == golden["ids"].tolist()


def test_codes(tokenizer: LlamaGenVQ, golden: dict[str, np.ndarray]) -> None:
    ids = tokenizer.nearest(torch.from_numpy(golden["f"]))
    assert ids.tolist() == golden["f_ids"].tolist()
    assert ids.unique().numel() > 8


def test_decoder(tokenizer: LlamaGenVQ, golden: dict[str, np.ndarray]) -> None:
    ids = torch.from_numpy(golden["f_ids"]).long()
    images = tokenizer.decode(ids)
    assert (images - torch.from_numpy(golden["reconstruction"])).abs().max() < 1e-4
    many = tokenizer.decode(ids.repeat(3, 1))  # more than pass through the network at once
    assert (many - images.repeat(3, 1, 1, 1)).abs().max() < 1e-5


def test_partial_decoding(tokenizer: LlamaGenVQ) -> None:
    ids = torch.arange(32).view(2, 16)
    known = torch.ones(2, 16, dtype=torch.bool)
    assert torch.equal(tokenizer.decode_partial(ids, known), tokenizer.decode(ids))
    known[:, 5:] = False
    wild = ids.where(known, 10_000)  # what lies in an unknown slot means nothing
    partial = tokenizer.decode_partial(wild, known)
    assert torch.equal(partial, tokenizer.decode_partial(ids, known))
    assert not torch.allclose(partial, tokenizer.decode(ids), atol=1e-3)


def test_sizes_are_read_from_the_published_layout() -> None:
    """vq_ds16_c2i.pt: 344 entries, `codebook_used` among them, and 71.9 M parameters."""
    published = VQConfig(16384, 8, (128, 128, 256, 256, 512), 128, 2, 256)
    with torch.device("meta"):
        model = LlamaGenVQ(published, 256)
    layout = model.state_dict()
    assert len(layout) == 343
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(71.9e6, rel=1e-3)
    assert model.grid == (16, 16)
    assert (model.slots, model.vocabulary) == (256, 16384)


def test_files(state: dict[str, Tensor], tmp_path: Path, golden: dict[str, np.ndarray]) -> None:
    """Under `model`, with the record of used codes; found beside the model's file."""
    file = tmp_path / "vq_tiny.pt"
    torch.save({"model": {**state, "quantize.codebook_used": torch.zeros(65536)}}, file)
    assert find_tokenizer(tmp_path / "c2i_B_256.pt", None) == file
    tokenizer = load_tokenizer(file, size=32)
    assert tokenizer.grid == (8, 8)
    images = torch.from_numpy(golden["image"]).repeat(1, 1, 2, 2)
    assert tokenizer.encode(images).shape == (2, 64)


def test_bad_files(state: dict[str, Tensor], tmp_path: Path) -> None:
    def said(changed: object) -> str:
        file = tmp_path / "vq.pt"
        torch.save(changed, file)
        with pytest.raises(CheckpointError) as error:
            load_tokenizer(file, size=16)
        return str(error.value)

    key = "decoder.mid.0.conv1.weight"
    assert key in said({k: v for k, v in state.items() if k != key})
    assert "decoder.more" in said({**state, "decoder.more": torch.zeros(1)})
    wrong = said({**state, key: torch.zeros(3, 3)})
    assert key in wrong
    assert "(3, 3)" in wrong
    assert "quantize.embedding.weight" in said({"a": torch.zeros(1)})
    assert "not a dict" in said([1])
    with pytest.raises(CheckpointError, match="multiple of 4"):
        tokenizer_from_state(state, size=18)
    with pytest.raises(CheckpointError, match=r"found: none[\s\S]*download vq_ds16_c2i"):
        find_tokenizer(tmp_path / "elsewhere" / "c2i_B_256.pt", None)


def test_bad_input(tokenizer: LlamaGenVQ) -> None:
    with pytest.raises(InputError, match="resize the images to 16x16"):
        tokenizer.encode(torch.zeros(1, 3, 20, 20))
    with pytest.raises(InputError, match="16 tokens"):
        tokenizer.decode(torch.zeros(1, 4, dtype=torch.int64))
