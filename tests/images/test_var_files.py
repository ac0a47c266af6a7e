"""VAR's files: every published form loads; what does not fit is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.images.official_var import SCALES, generated, tiny, tiny_states
from torch import Tensor

from seqgen.errors import CheckpointError
from seqgen_images.official.var import VarModel, convert, from_states, load, ramp
from seqgen_images.official.var_keys import var_config

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def states() -> tuple[State, State]:
    return tiny_states()


@pytest.fixture
def folder(tmp_path: Path, states: tuple[State, State]) -> Path:
    torch.save(states[0], tmp_path / "var_d2.pth")
    torch.save(states[1], tmp_path / "vae_ch32v64z8.pth")
    return tmp_path


def answers(model: VarModel) -> Tensor:
    return generated(model, torch.tensor([1, 3]), guidance=ramp(1.5))[0]


def test_every_form_gives_the_same_model(folder: Path, states: tuple[State, State]) -> None:
    want = answers(tiny())
    training = folder / "ar-ckpt-best.pth"
    torch.save(
        {
            "epoch": 3,
            "trainer": {"var_wo_ddp": states[0], "vae_local": states[1], "config": {"lr": 1.0}},
        },
        training,
    )
    converted = convert(folder, folder / "out" / "var.safetensors")
    elsewhere = folder / "out" / "tokenizer.pth"
    torch.save(states[1], elsewhere)
    for model in (
        load(folder),
        load(folder / "var_d2.pth"),
        load(folder / "var_d2.pth", tokenizer=elsewhere),
        load(training),
        load(converted),
    ):
        assert not model.training
        assert model.size == (64, 64)
        assert model.config.scales == SCALES
        assert torch.equal(answers(model), want)


def test_half_precision_files_are_read_as_float32(
    folder: Path, states: tuple[State, State]
) -> None:
    torch.save({k: v.half() for k, v in states[0].items()}, folder / "var_d2.pth")
    assert {p.dtype for p in load(folder).parameters()} == {torch.float32}


def test_scales_come_from_the_file_or_from_what_is_published(
    states: tuple[State, State],
) -> None:
    var = {name: value for name, value in states[0].items() if name != "lvl_1L"}
    assert from_states(var, states[1], scales=SCALES).config.scales == SCALES
    with pytest.raises(CheckpointError, match="sides of its scales") as caught:
        from_states(var, states[1])
    assert "30 slots" in caught.value.why
    var["pos_1LC"] = torch.zeros(1, 680, 64)
    found = var_config(var, source="a test", scales=None)
    assert found.scales == (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)
    var["lvl_1L"] = states[0]["lvl_1L"]
    with pytest.raises(CheckpointError) as caught:
        var_config(var, source="a test", scales=None)
    assert "lvl_1L and pos_1LC disagree" in caught.value.why


def test_heads_without_normalised_queries(states: tuple[State, State]) -> None:
    """Tensors do not show them; all published models have heads of 64."""
    var = {name: value for name, value in states[0].items() if "scale_mul" not in name}
    config = var_config(var, source="a test", scales=None).transformer
    assert (config.heads, config.qk, config.scale) == (1, "dot", 0.25 / 8)


def renamed(state: State, old: str, new: str) -> State:
    return {new if name == old else name: value for name, value in state.items()}


@pytest.mark.parametrize(
    ("break_it", "named"),
    [
        (
            lambda var, vae: (renamed(var, "blocks.1.attn.q_bias", "blocks.1.attn.bias_q"), vae),
            ["missing: blocks.1.attn.q_bias", "unexpected: blocks.1.attn.bias_q"],
        ),
        (lambda var, vae: ({**var, "lora.weight": torch.zeros(2)}, vae), ["lora.weight"]),
        (
            lambda var, vae: ({**var, "head.bias": torch.zeros(63)}, vae),
            ["head.bias is (63,), the model has (64,)"],
        ),
        (
            lambda var, vae: ({k: v for k, v in var.items() if k != "word_embed.bias"}, vae),
            ["missing: word_embed.bias"],
        ),
        (
            lambda var, vae: ({k: v for k, v in var.items() if k != "class_emb.weight"}, vae),
            ["missing: class_emb.weight"],
        ),
        (
            lambda var, vae: (var, {**vae, "encoder.conv_in.bias": torch.zeros(33)}),
            ["encoder.conv_in.bias is (33,), the model has (32,)"],
        ),
        (
            lambda var, vae: (var, renamed(vae, "decoder.up.2.block.1.conv1.bias", "decoder.x")),
            ["missing: decoder.up.2.block.1.conv1.bias", "unexpected: decoder.x"],
        ),
        (
            lambda var, vae: (var, {**vae, "quantize.embedding.weight": torch.zeros(65, 8)}),
            ["64 codes of 8 numbers, the tokenizer has 65 of 8"],
        ),
    ],
)
def test_what_does_not_fit_is_named(
    folder: Path,
    states: tuple[State, State],
    break_it: Callable[[State, State], tuple[State, State]],
    named: list[str],
) -> None:
    var, vae = break_it(*states)
    torch.save(var, folder / "var_d2.pth")
    torch.save(vae, folder / "vae_ch32v64z8.pth")
    with pytest.raises(CheckpointError) as caught:
        load(folder)
    for text in named:
        assert text in caught.value.why


class Evil:
    def __reduce__(self) -> Any:
        return (print, ("executed",))


@pytest.mark.parametrize("name", ["var_d2.pth", "vae_ch32v64z8.pth"])
def test_code_in_a_file_is_refused(
    folder: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"head.weight": Evil()}, folder / name)
    with pytest.raises(CheckpointError, match="refused"):
        load(folder)
    assert "executed" not in capsys.readouterr().out


def test_files_that_are_missing_or_others(folder: Path, states: tuple[State, State]) -> None:
    with pytest.raises(CheckpointError, match="without its transformer"):
        load(folder / "vae_ch32v64z8.pth")
    torch.save({"weights": 3}, folder / "other.pth")
    with pytest.raises(CheckpointError, match="not a checkpoint of VAR"):
        load(folder / "other.pth")
    torch.save({"trainer": {"var_wo_ddp": states[0]}}, folder / "half.pth")
    with pytest.raises(CheckpointError) as caught:
        load(folder / "half.pth")
    assert "no vae_local" in caught.value.why
    with pytest.raises(CheckpointError, match="no checkpoint"):
        load(folder / "nothing.pth")
    whole = (folder / "var_d2.pth").read_bytes()
    (folder / "var_d3.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="damaged"):
        load(folder / "var_d3.pth")
    with pytest.raises(CheckpointError) as caught:
        load(folder)
    assert "var_d2.pth, var_d3.pth" in caught.value.why
    (folder / "vae_ch32v64z8.pth").unlink()
    with pytest.raises(CheckpointError, match=r"one file vae_\*\.pth"):
        load(folder / "var_d2.pth")


def test_a_converted_file_of_another_kind(folder: Path) -> None:
    path = convert(folder, folder / "var.safetensors")
    path.write_bytes(path.read_bytes().replace(b"seqgen-images-var", b"seqgen-images-vat"))
    with pytest.raises(CheckpointError, match="not a converted VAR"):
        load(path)
