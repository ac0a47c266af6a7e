"""NAR: the published numbers, the core's promises, the averaging by hand, errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.images.official_gpt import (
    generated,
    golden,
    one_pass,
    published_state,
    tiny,
    tiny_config,
    tiny_tokenizer,
)

from seqgen.errors import CheckpointError
from seqgen.guidance import Guidance
from seqgen_images.decoding import DecodingConfig
from seqgen_images.official import nar
from seqgen_images.official.llamagen import LlamaGen


@pytest.fixture(scope="module")
def model() -> LlamaGen:
    return tiny("nar")


@pytest.fixture(scope="module")
def saved() -> dict[str, np.ndarray]:
    return golden("nar")


def test_the_copy_is_the_shared_file(saved: dict[str, np.ndarray], shared_data: Path) -> None:
    original = golden("nar", shared_data / "images" / "golden")
    assert saved.keys() == original.keys()
    for name, values in original.items():
        np.testing.assert_array_equal(values, saved[name])


def test_published_names(saved: dict[str, np.ndarray]) -> None:
    assert sorted(published_state(tiny_config(below=1))) == saved["keys"].tolist()


@pytest.mark.parametrize("cached", [True, False])
def test_published_greedy_tokens(
    model: LlamaGen, saved: dict[str, np.ndarray], cached: bool
) -> None:
    """All diagonals, the shrinking ones too, in 2 n - 1 passes."""
    done = generated(model, torch.from_numpy(saved["labels"]), scale=2, cached=cached)
    assert done.values[:, 1:].tolist() == saved["greedy_cfg2"].tolist()
    assert done.forwards == 7


def test_decode_logits_are_those_of_one_pass(model: LlamaGen) -> None:
    labels = torch.tensor([0, 4])
    done = generated(model, labels)
    tokens = done.values[:, 1:]
    chosen = one_pass(model, tokens, labels).softmax(dim=-1)
    confidence = chosen.gather(-1, tokens[..., None]).squeeze(-1)
    torch.testing.assert_close(done.confidence_BS[:, 1:], confidence, atol=1e-5, rtol=0)


def test_who_predicts_whom(model: LlamaGen) -> None:
    """Right logits of the left neighbour, below logits of the upper one; the mean of two."""
    torch.manual_seed(0)
    tokens, labels = torch.randint(32, (2, 16)), torch.tensor([2, 3])
    canvas = model.canvas(torch.zeros(2, dtype=torch.int64))
    canvas.values[:, 1:] = tokens
    table = model.order().table(17, torch.device("cpu"))
    with torch.no_grad():
        states = model.sequence.hidden(
            canvas, table, torch.arange(17)[None], context=model.context(labels[:, None])
        )
    weight = model.sequence.head.weight
    right = states[..., :64] @ weight[:, :64].T
    below = states[..., 64:] @ weight[:, 64:].T
    expected = torch.empty(2, 4, 4, 32)
    for i in range(4):
        for j in range(4):
            sources = []
            if j or not i:
                sources.append(right[:, 4 * i + j if j else 0])
            if i or not j:
                sources.append(below[:, 4 * i + j - 3 if i else 0])
            expected[:, i, j] = torch.stack(sources).mean(dim=0)
    torch.testing.assert_close(
        one_pass(model, tokens, labels), expected.flatten(1, 2), atol=1e-5, rtol=1e-5
    )


def test_a_seed_gives_the_same_tokens_in_any_batch(model: LlamaGen) -> None:
    labels, seeds = torch.tensor([3, 1, 3]), torch.tensor([11, 12, 13])
    together = generated(model, labels, seeds=seeds, temperature=1, scale=2).values
    alone = generated(model, labels[2:], seeds=seeds[2:], temperature=1, scale=2).values
    assert torch.equal(together[2:], alone)
    assert not torch.equal(together[0], together[2])


def test_known_pixels_stay() -> None:
    model = tiny("nar", tiny_tokenizer())
    images = torch.rand(1, 3, 16, 16) * 2 - 1
    known = torch.zeros(1, 16, 16, dtype=torch.bool)
    known[:, 4:12, 4:12] = True
    canvas = model.canvas(torch.arange(1), images_BCHW=images, known_BHW=known)
    given = canvas.state_BS[:, 1:].bool()
    assert given.view(4, 4).nonzero().tolist() == [[1, 1], [1, 2], [2, 1], [2, 2]]
    done = model.decoder(DecodingConfig()).generate(
        model.sequence, canvas, model.context(torch.tensor([[1]]))
    )
    assert torch.equal(done.values[:, 1:][given], model.tokenizer.encode(images)[given])
    assert model.images(done.values).shape == (1, 16, 16, 3)
    assert model.images(done.values, known_BS=canvas.state_BS.bool()).shape == (1, 16, 16, 3)


def test_published_interval() -> None:
    """The published loop counts the tokens that are there when a pass begins."""
    side = 4
    for n in range(16):
        tokens, guided = 1, [0]
        for p in range(1, 2 * side - 1):
            if not tokens > n:
                guided.append(p)
            tokens += p + 1 if p < side else 2 * side - 1 - p
        schedule = nar.interval(n, 3.0, side)
        assert [p for p in range(7) if schedule(p, 7) == 3.0] == guided
    assert nar.interval(-1, 3.0, side) == Guidance(3.0)


def test_files(tmp_path: Path) -> None:
    torch.save({"model": tiny_tokenizer().state_dict()}, tmp_path / "vq_ds4.pt")
    state = published_state(tiny_config(below=1))
    torch.save({"model": state}, tmp_path / "NAR_tiny.pt")
    model = nar.load(tmp_path, size=16)
    assert (model.config.layers, model.config.below, model.size) == (2, 1, (16, 16))
    labels = torch.tensor([1])
    reference = nar.from_state(state, side=4)
    assert torch.equal(generated(model, labels).values, generated(reference, labels).values)

    again = nar.load(nar.convert(tmp_path, tmp_path / "out" / "nar.safetensors", size=16))
    assert torch.equal(generated(again, labels).values, generated(reference, labels).values)
    assert torch.equal(
        again.images(torch.ones(1, 17).long()), model.images(torch.ones(1, 17).long())
    )

    del state["medusa_norm.weight"]
    torch.save(state, tmp_path / "NAR_tiny.pt")
    with pytest.raises(CheckpointError, match=r"missing: medusa_norm\.weight"):
        nar.load(tmp_path / "NAR_tiny.pt", size=16)
    torch.save(published_state(tiny_config()), tmp_path / "NAR_tiny.pt")
    with pytest.raises(CheckpointError, match="not a checkpoint of NAR"):
        nar.load(tmp_path / "NAR_tiny.pt", size=16)
