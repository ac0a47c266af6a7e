"""LlamaGen: the published numbers, the core's promises, checkpoints of every form, errors."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tests.images.official_gpt import (
    generated,
    golden,
    one_pass,
    published_state,
    tiny,
    tiny_config,
    tiny_tokenizer,
)
from torch import Tensor

from seqgen.errors import CheckpointError
from seqgen.guidance import Guidance
from seqgen_images.decoding import DecodingConfig
from seqgen_images.official import llamagen, nar
from seqgen_images.official.llamagen import LlamaGen, interval
from seqgen_images.official.llamagen_layers import GPTConfig, layout


@pytest.fixture(scope="module")
def model() -> LlamaGen:
    return tiny("llamagen")


@pytest.fixture(scope="module")
def saved() -> dict[str, np.ndarray]:
    return golden("llamagen")


def test_the_copy_is_the_shared_file(saved: dict[str, np.ndarray], shared_data: Path) -> None:
    original = golden("llamagen", shared_data / "images" / "golden")
    assert saved.keys() == original.keys()
    for name, values in original.items():
        np.testing.assert_array_equal(values, saved[name])


def test_published_names(saved: dict[str, np.ndarray]) -> None:
    assert sorted(published_state(tiny_config())) == saved["keys"].tolist()


def test_published_logits(model: LlamaGen, saved: dict[str, np.ndarray]) -> None:
    logits = one_pass(model, torch.from_numpy(saved["tokens"]), torch.from_numpy(saved["labels"]))
    assert (logits - torch.from_numpy(saved["logits"])).abs().max() < 1e-4


@pytest.mark.parametrize("cached", [True, False])
def test_published_greedy_tokens(
    model: LlamaGen, saved: dict[str, np.ndarray], cached: bool
) -> None:
    done = generated(model, torch.from_numpy(saved["labels"]), scale=2, cached=cached)
    assert done.values.tolist() == saved["greedy_cfg2"].tolist()
    assert done.forwards == 16


def test_decode_logits_are_those_of_one_pass(model: LlamaGen) -> None:
    labels = torch.tensor([0, 4])
    done = generated(model, labels)
    chosen = one_pass(model, done.values, labels).softmax(dim=-1)
    confidence = chosen.gather(-1, done.values[..., None]).squeeze(-1)
    torch.testing.assert_close(done.confidence_BS, confidence, atol=1e-5, rtol=0)


def test_a_seed_gives_the_same_tokens_in_any_batch(model: LlamaGen) -> None:
    labels, seeds = torch.tensor([3, 1, 3]), torch.tensor([11, 12, 13])
    together = generated(model, labels, seeds=seeds, temperature=1, scale=2).values
    alone = generated(model, labels[2:], seeds=seeds[2:], temperature=1, scale=2).values
    assert torch.equal(together[2:], alone)
    assert not torch.equal(together[0], together[2])


def test_the_class_has_no_query_and_no_key(model: LlamaGen) -> None:
    """A published quirk: its rotation is a table of zeros, not an angle of zero."""
    canvas, cache = model.canvas(torch.zeros(1, dtype=torch.int64)), None
    table = model.order().table(16, torch.device("cpu"))
    cache = model.sequence.backbone.new_cache(1, 16)
    with torch.no_grad():
        context = model.context(torch.tensor([[2]]))
        model.sequence.hidden(canvas, table, torch.arange(2)[None], cache=cache, context=context)
    for keys, values in zip(cache.keys, cache.values, strict=True):
        assert not keys[:, :, 0].any()
        assert keys[:, :, 1].any()
        assert values[:, :, 0].any()


def test_no_class_is_the_last_row(model: LlamaGen) -> None:
    context = model.context(torch.tensor([[-1], [0]]))
    assert torch.equal(context.condition_BD, model.classes.weight[torch.tensor([5, 0])])
    assert model.labels.parse("3") == (3,)
    assert model.labels.names((3,)) == {"class": "3"}


def test_known_pixels_stay() -> None:
    model = tiny("llamagen", tiny_tokenizer())
    images = torch.rand(2, 3, 16, 16) * 2 - 1
    known = torch.zeros(2, 16, 16, dtype=torch.bool)
    known[:, :8, 3:] = True  # of the first of four columns of tokens only a part
    canvas = model.canvas(torch.arange(2), images_BCHW=images, known_BHW=known)
    given = canvas.state_BS.bool().view(2, 4, 4)
    assert given[:, :2, 1:].all()
    assert given.sum() == 2 * 2 * 3
    done = model.decoder(DecodingConfig()).generate(
        model.sequence, canvas, model.context(torch.tensor([[1], [2]]))
    )
    ids = model.tokenizer.encode(images)
    assert torch.equal(done.values[given.flatten(1)], ids[given.flatten(1)])
    pictures = model.images(done.values)
    assert pictures.shape == (2, 16, 16, 3)
    assert pictures.dtype == torch.uint8
    partial = model.images(done.values, known_BS=given.flatten(1))
    assert partial.shape == pictures.shape
    assert not torch.equal(partial, pictures)


def test_published_interval() -> None:
    """The published loop: token 0 always; token i + 1 while i <= cfg_interval."""
    for n in range(14):
        guided = [0, *(i + 1 for i in range(15) if i <= n)]
        schedule = interval(n, 3.0)
        assert [p for p in range(16) if schedule(p, 16) == 3.0] == guided
        assert {schedule(p, 16) for p in range(16)} == {1.0, 3.0}
    assert interval(-1, 3.0) == Guidance(3.0)


@pytest.mark.parametrize(
    ("width", "layers", "heads", "hidden", "parameters"),
    [
        (768, 12, 12, 2048, 111e6),
        (1024, 24, 16, 2816, 343e6),
        (1280, 36, 20, 3584, 775e6),
        (1536, 48, 24, 4096, 1.4e9),
        (3200, 24, 32, 8704, 3.1e9),
    ],
)
def test_published_sizes(
    width: int, layers: int, heads: int, hidden: int, parameters: float
) -> None:
    """B, L, XL, XXL and 3B: sizes from shapes, and as many parameters as published."""
    published = GPTConfig(
        vocabulary=16384, classes=1000, width=width, heads=heads, layers=layers, hidden=hidden,
        side=24,
    )  # fmt: skip
    state = {
        name: torch.empty(shape, device="meta")
        for part in layout(published).values()
        for name, shape in zip(part.names, part.shapes, strict=True)
    }
    assert llamagen.sizes(state, source="it", side=24) == published
    assert sum(t.numel() for t in state.values()) == pytest.approx(parameters, rel=0.03)
    if width == 768:
        assert len(state) == 88


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder as a user has it: head width 64, so that nothing need be said."""
    torch.save({"model": tiny_tokenizer().state_dict()}, tmp_path / "vq_ds4.pt")
    return tmp_path


def one_head() -> dict[str, Tensor]:
    return published_state(tiny_config())


@pytest.mark.parametrize("form", ["model", "module", "state_dict", "flat", "trained", "compiled"])
def test_forms_of_checkpoints(folder: Path, form: str) -> None:
    state = one_head()
    content: dict[str, object] = {form: state}
    if form == "flat":
        content = {**state, "freqs_cis": torch.zeros(17, 16, 2)}
    elif form == "trained":  # what the published training script writes
        options = argparse.Namespace(gpt_model="GPT-B", image_size=16)
        content = {"model": state, "optimizer": {"state": {}}, "steps": 3, "args": options}
    elif form == "compiled":
        content = {"model": {f"_orig_mod.{name}": value for name, value in state.items()}}
    torch.save(content, folder / "c2i_tiny.pt")
    model = llamagen.load(folder, size=16)
    assert model.config.heads == 1
    assert model.size == (16, 16)
    assert model.config.side == 4
    reference = llamagen.from_state(state, side=4)
    labels = torch.tensor([1])
    assert torch.equal(generated(model, labels).values, generated(reference, labels).values)


def test_half_precision_and_safetensors(folder: Path) -> None:
    state = {name: value.bfloat16() for name, value in one_head().items()}
    save_file(state, folder / "c2i_tiny_016.safetensors")
    model = llamagen.load(folder / "c2i_tiny_016.safetensors")
    assert all(p.dtype == torch.float32 for p in model.parameters())
    assert model.config.side == 4
    half = model.to(torch.bfloat16)
    assert generated(half, torch.tensor([1])).values.shape == (1, 16)


def test_conversion_to_one_file(folder: Path) -> None:
    torch.save({"model": one_head()}, folder / "c2i_tiny_016.pt")
    model = llamagen.load(folder)
    out = llamagen.convert(folder, folder / "elsewhere" / "c2i.safetensors")
    again = llamagen.load(out)
    assert again.config == model.config
    assert (again.size, again.engine) == ((16, 16), "raster")
    done = generated(model, torch.tensor([1]))
    assert torch.equal(generated(again, torch.tensor([1])).values, done.values)
    assert torch.equal(again.images(done.values), model.images(done.values))
    with pytest.raises(CheckpointError, match="'raster', not 'diagonal'"):
        nar.load(out)


def test_bad_checkpoints(folder: Path) -> None:
    state, file = one_head(), folder / "c2i_tiny_016.pt"
    key = "layers.1.attention.wqkv.weight"

    def said(changed: object, path: Path = file) -> str:
        torch.save(changed, path)
        with pytest.raises(CheckpointError) as error:
            llamagen.load(path)
        return str(error.value)

    missing = said({k: v for k, v in state.items() if k != key})
    assert "missing: layers.1.attention.wqkv.weight" in missing
    assert "unexpected: layers.0.more" in said({**state, "layers.0.more": torch.zeros(2)})
    assert f"{key} is (3, 3), the model has (192, 64)" in said({**state, key: torch.zeros(3, 3)})
    assert "NAR" in said({**state, "medusa_output.weight": torch.zeros(32, 64)})
    assert "t2i" in said({**state, "cls_embedding.cap_proj.fc1.weight": torch.zeros(2)})
    assert "no tensor" in said({"a": torch.zeros(2)})
    assert "list" in said([1, 2])
    assert "_256.pt" in said(state, folder / "c2i_tiny.pt")
    torch.save(state, file)
    file.write_bytes(file.read_bytes()[:-2000])
    with pytest.raises(CheckpointError, match="damaged"):
        llamagen.load(file)
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        llamagen.load(folder / "absent_256.pt")
    with pytest.raises(CheckpointError, match="must hold one file"):
        llamagen.load(folder)  # two of them


def test_a_checkpoint_that_runs_code_is_refused(folder: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return print, ("executed",)

    torch.save({"model": one_head(), "args": Evil()}, folder / "c2i_tiny_016.pt")
    with pytest.raises(CheckpointError, match="refused"):
        llamagen.load(folder / "c2i_tiny_016.pt")


def test_without_a_tokenizer_there_are_tokens_only(model: LlamaGen) -> None:
    with pytest.raises(CheckpointError, match="vq_ds16_c2i"):
        model.images(torch.zeros(1, 16, dtype=torch.int64))
