"""Official checkpoints through the command line: found by their names, a family of one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.images.official_gpt import published_state, tiny_config, tiny_tokenizer
from tests.images.official_var import tiny_states

from seqgen.registry import card_from_path
from seqgen_images.family import official_kind, own_engine
from seqgen_images.official import llamagen, nar, var

Seqgen = Callable[..., Any]


def test_a_published_layout(seqgen: Seqgen, tmp_path: Path) -> None:
    folder = tmp_path / "published"
    folder.mkdir()
    torch.save({"model": tiny_tokenizer().state_dict()}, folder / "vq_ds4.pt")
    torch.save({"model": published_state(tiny_config())}, folder / "c2i_tiny_016.pt")
    command = ("run", "--plugin", "images", "--model", folder, "--set", "count=2")
    done = seqgen(*command, "--set", "class=3", "--set", "preview=p.png")
    assert done.code == 0, done.err
    rows = [json.loads(line) for line in done.out.splitlines()]
    assert [(row["decoder"], row["passes"]) for row in rows] == [("raster", 16)] * 2
    assert rows[0]["labels"] == {"class": "3"}
    unknown = seqgen(*command, "--set", "class=5")
    assert unknown.code == 2
    assert "unknown name '5'" in unknown.err


def convert(kind: str, folder: Path, out: Path) -> Path:
    """A published checkpoint of random weights, converted."""
    folder.mkdir()
    if kind == "var":
        weights, tokenizer = tiny_states()
        torch.save(weights, folder / "var_d16.pth")
        torch.save(tokenizer, folder / "vae_ch160v4096z32.pth")
        return var.convert(folder, out)
    torch.save({"model": tiny_tokenizer().state_dict()}, folder / "vq_ds4.pt")
    if kind == "nar":
        torch.save({"model": published_state(tiny_config(1))}, folder / "nar_016.pt")
        return nar.convert(folder, out, size=16)
    torch.save({"model": published_state(tiny_config())}, folder / "c2i_tiny_016.pt")
    return llamagen.convert(folder, out)


@pytest.mark.parametrize(
    ("kind", "engine"), [("var", "next-scale"), ("llamagen", "raster"), ("nar", "diagonal")]
)
def test_a_converted_file_is_known_by_its_header(
    seqgen: Seqgen, tmp_path: Path, kind: str, engine: str
) -> None:
    file = convert(kind, tmp_path / "published", tmp_path / "mine" / "any name.safetensors")
    for path in (file, file.parent):
        assert own_engine(card_from_path(path, plugin="images")) == engine
        done = seqgen("run", "--plugin", "images", "--model", path, "--set", "count=1")
        assert done.code == 0, done.err
        assert json.loads(done.out)["decoder"] == engine
    done = seqgen("bench", "--plugin", "images", "--model", file, "--set", "count=2", "--json")
    assert done.code == 0, done.err
    assert [row["case"] for row in json.loads(done.out)["rows"]] == [engine]


def test_a_model_of_ours_may_have_any_name(family: Path, tmp_path: Path) -> None:
    shutil.copy(family / "masked.safetensors", tmp_path / "narrow.safetensors")
    card = card_from_path(tmp_path, plugin="images")
    assert official_kind(card) == ""
    assert own_engine(card) == "masked"


@pytest.mark.parametrize(
    ("name", "kind", "engine"),
    [
        ("var_d16.pth", "var", "next-scale"),
        ("c2i_B_256.pt", "llamagen", "raster"),
        ("NAR_B_256.pt", "nar", "diagonal"),
        ("model.txt", "", ""),
    ],
)
def test_published_names(tmp_path: Path, name: str, kind: str, engine: str) -> None:
    (tmp_path / name).write_bytes(b"")
    (tmp_path / "vae_ch160v4096z32.pth").write_bytes(b"")
    for path in (tmp_path, tmp_path / name):
        card = card_from_path(path, plugin="images")
        assert official_kind(card) == kind
        assert own_engine(card) == engine
