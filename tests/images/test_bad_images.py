"""What a user can get wrong: each has its message and exit code, and the other items go on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.images.pictures import cut_in_half, gradient, half_mask, header_only, save
from tests.images.small_images import LABELS, random_model, save_random

from seqgen import checkpoints

Seqgen = Callable[..., Any]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["class=glases"], "did you mean 'glasses'?"),
        (["class=hair=longg"], "did you mean 'long'?"),
        (["class=,"], "class ',' names nothing"),
        (["class=glasses,glasses=no"], "says two things of 'glasses'"),
        (["count=0"], "'count' is 0, outside its range"),
        (["count=-3"], "'count' is -3, outside its range"),
        (["count=9999999999"], "'count' is 9999999999, outside its range"),
        (["count=many"], "'count' takes a whole number"),
        (["guidance=-1"], "'guidance' is -1.0, outside its range"),
        (["guidance=nan"], "'guidance' takes a number"),
        (["top_p=1.5"], "'top_p' is 1.5, outside its range"),
        (["top_p=0"], "'top_p' is 0, which leaves no token"),
        (["top_k=-1"], "'top_k' is -1, outside its range"),
        (["temperature=-0.1"], "'temperature' is -0.1, outside its range"),
        (["guidance_schedule=linea"], "did you mean 'linear'?"),
        (["guidance_first=5", "guidance_last=2"], "guidance_last=2 is before guidance_first=5"),
        (["preview=order.mp4"], "suffix must be .gif or .png"),
        (["preview=order"], "suffix must be .gif or .png"),
        (["preview=out.png"], "out.png would be written twice"),
        (["outpaint=lef:4"], "did you mean 'left'?"),
        (["mask=m.png"], "mask needs an image to complete"),
        (["resize=zoom"], "'resize' cannot be 'zoom'"),
        (["clas=glasses"], "did you mean 'class'?"),
    ],
)
def test_wrong_options(images: Seqgen, tmp_path: Path, settings: list[str], message: str) -> None:
    flags = [word for setting in settings for word in ("--set", setting)]
    done = images(*flags, "-o", "out.png")
    assert done.code == 2
    assert message in done.err
    assert done.out == ""
    assert list(tmp_path.iterdir()) == []  # nothing to resume is left behind either


def test_bad_images_fail_alone(images: Seqgen, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    save(folder / "good one.png", gradient(8, 6))
    (folder / "text.png").write_text("hello")
    (folder / "empty.png").write_bytes(b"")
    cut_in_half(folder / "cut.png")
    save(folder / "dot.png", gradient(1, 1))
    header_only(folder / "bomb.png", 20_000, 20_000)
    save(folder / "full.png")
    save(folder / "large.png", gradient(20, 20))
    done = images("in", "missing.png", "-o", "out.jsonl")
    assert done.code == 1
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    reasons = {row["id"]: row.get("reason", "") for row in rows}
    assert [row["id"] for row in rows if row["status"] == "ok"] == ["good one.png"]
    for name, expected in {
        "text.png": "not an image that can be read",
        "empty.png": "it has 0 bytes; get it again",
        "cut.png": "cut off or damaged",
        "dot.png": "holds no whole token",
        "bomb.png": "more than 64,000,000 pixels",
        "full.png": "nothing is left to paint",
        "large.png": "there is room for 8x8",
        "missing.png": "does not exist",
    }.items():
        assert expected in reasons[name]
        assert name in done.err


def test_masks_that_do_not_fit(images: Seqgen, tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    half_mask(tmp_path / "small.png", height=4)
    save(tmp_path / "black.png", np.zeros((8, 8), np.uint8))
    for name, expected in (
        ("small.png", "a.png is 8x8, the mask is 8x4"),
        ("black.png", "the mask opens no pixel"),
    ):
        done = images("a.png", "--set", f"mask={name}")
        assert done.code == 1
        assert expected in done.err
    done = images("a.png", "--set", "mask=none.png", "-o", "x.png")
    assert done.code == 2
    assert "the mask cannot be used: none.png does not exist" in done.err


def test_a_list_with_bad_lines(images: Seqgen, tmp_path: Path) -> None:
    (tmp_path / "wanted.txt").write_text('hat\nglases\n{"count": 0}\n["hat"]\n')
    done = images("wanted.txt")
    assert done.code == 1
    rows = [json.loads(line) for line in done.out.splitlines()]
    assert [row["status"] for row in rows] == ["ok", "failed", "failed", "failed"]
    assert "did you mean 'glasses'?" in rows[1]["reason"]
    assert "`count` is 0" in rows[2]["reason"]
    assert "a JSON list, not an object" in rows[3]["reason"]
    (tmp_path / "none.txt").write_text("# nothing\n")
    none = images("none.txt")
    assert none.code == 1
    assert "none.txt lists no classes" in none.err


def test_files_where_folders_should_be(images: Seqgen, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for arguments, message in (
        (("-o", "file/out.png"), "it is a file, and a folder is needed"),
        (("-o", "out.png", "--set", "preview=file/p.gif"), "file is a file"),
    ):
        done = images("--set", "count=1", *arguments)
        assert done.code == 2
        assert message in done.err
        assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_ids_cannot_leave_the_output(images: Seqgen, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    names = ("../../evil", "/etc/evil", "..", "a/b/c", "nul\0l")
    lines = [json.dumps({"class": "hat", "id": name}) for name in names]
    (work / "wanted.jsonl").write_text("\n".join(lines))
    done = images(work / "wanted.jsonl", "-o", work / "out/")
    assert done.code == 0, done.err
    written = list(tmp_path.rglob("*.png"))
    assert len(written) == len(names) + 1  # and the grid
    assert {path.parent for path in written} == {work / "out"}


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def garbage(path: Path) -> None:
    path.write_bytes(b"not safetensors")


def missing_key(path: Path) -> None:
    state, config = checkpoints.load(path)
    state.pop("start_D")
    checkpoints.save(path, state, config)


def wrong_shape(path: Path) -> None:
    state, config = checkpoints.load(path)
    state["start_D"] = state["start_D"][:3]
    checkpoints.save(path, state, config)


def not_a_number(path: Path) -> None:
    state, config = checkpoints.load(path)
    state["start_D"][3] = float("nan")
    checkpoints.save(path, state, config)


def wrong_kind(path: Path) -> None:
    state, _ = checkpoints.load(path)
    checkpoints.save(path, state, {"kind": "something else"})


def wrong_config(path: Path) -> None:
    state, config = checkpoints.load(path)
    del config["model"]["height"]
    checkpoints.save(path, state, config)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncated, "damaged or not a safetensors file"),
        (garbage, "damaged or not a safetensors file"),
        (missing_key, "missing: start_D"),
        (wrong_shape, "wrong shape: start_D"),
        (not_a_number, "weights that are no finite numbers in tensors: start_D"),
        (wrong_kind, "is not an image model"),
        (wrong_config, "configuration that this version cannot read"),
    ],
)
def test_damaged_checkpoints(
    seqgen: Seqgen, family: Path, tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    path = tmp_path / "model.safetensors"
    shutil.copy(family / "raster.safetensors", path)
    damage(path)
    done = seqgen("run", "--plugin", "images", "--model", path, "-o", "x.png")
    assert done.code == 4
    assert message in done.err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.safetensors"]


def test_a_wrong_checksum(
    seqgen: Seqgen, family: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cards.yaml").write_text(
        "schema: 1\nmodels:\n  mine:\n    plugin: images\n    status: untested\n    files:\n"
        f"      - {{name: raster.safetensors, urls: ['file://{family}/raster.safetensors'],\n"
        f"         sha256: '{'0' * 64}'}}\n"
    )
    cache = tmp_path / "cache" / "models" / "mine"
    cache.mkdir(parents=True)
    shutil.copy(family / "raster.safetensors", cache)
    monkeypatch.setenv("SEQGEN_REGISTRY", str(tmp_path / "cards.yaml"))
    monkeypatch.setenv("SEQGEN_CACHE", str(tmp_path / "cache"))
    done = seqgen("run", "--plugin", "images", "--model", "mine", "--set", "count=1")
    assert done.code == 4
    assert "sha256 expected 0000" in done.err


def test_files_that_do_not_belong_together(seqgen: Seqgen, family: Path, tmp_path: Path) -> None:
    from seqgen_images.labels import Labels
    from seqgen_images.model import save_image_model

    folder = tmp_path / "both"
    folder.mkdir()
    shutil.copy(family / "raster.safetensors", folder / "a.safetensors")
    command = ("run", "--plugin", "images", "--model", folder, "--set", "count=1")
    save_random("raster", folder / "b.safetensors")
    twice = seqgen(*command)
    assert twice.code == 4
    assert "are both raster models" in twice.err
    fewer = random_model("masked", labels=Labels(LABELS.attributes[:1]))
    save_image_model(fewer, folder / "b.safetensors", {})
    other = seqgen(*command)
    assert other.code == 4
    assert "makes other images than" in other.err


def test_an_empty_folder_is_no_model(seqgen: Seqgen, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    done = seqgen("run", "--plugin", "images", "--model", tmp_path / "none")
    assert done.code == 4
    assert "holds no checkpoint" in done.err


def test_other_checkpoints_are_told_which_names_are_known(seqgen: Seqgen, tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(b"PK" + bytes(100))
    done = seqgen("run", "--plugin", "images", "--model", tmp_path / "model.pt")
    assert done.code == 4
    assert "known by their names: var_*, c2i_*, nar*" in done.err


def test_a_damaged_judge(seqgen: Seqgen, family: Path, tmp_path: Path) -> None:
    state, config = checkpoints.load(family / "judge.safetensors")
    del config["size"]
    checkpoints.save(tmp_path / "judge.safetensors", state, config)
    command = ("eval", "--plugin", "images", "--model", family / "raster.safetensors")
    done = seqgen(*command, "--set", "count=2", "--set", "judge=judge.safetensors")
    assert done.code == 4
    assert "holds a configuration that this version cannot build" in done.err
