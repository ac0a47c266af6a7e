"""`seqgen run`, `eval` and `compare` with the images plugin: what lies where, and what is in it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.images.pictures import gradient, half_mask, save

Seqgen = Callable[..., Any]


def array(path: Path) -> Any:
    with Image.open(path) as image:
        return np.array(image)


def test_a_grid_and_its_single_images(images: Seqgen, tmp_path: Path) -> None:
    done = images("--set", "class=glasses", "--set", "count=5", "-o", "grid.png")
    assert done.code == 0, done.err
    assert "generating 5 images of glasses" in done.err
    grid = array(tmp_path / "grid.png")
    assert grid.shape == (2 * 96 + 12, 3 * 96 + 2 * 12, 3)
    for number in range(5):
        single = array(tmp_path / "grid_files" / f"glasses-000{number}.png")
        assert single.shape == (8, 8, 3)
        top, left = (number // 3) * 108, (number % 3) * 108
        cell = grid[top : top + 96, left : left + 96]
        np.testing.assert_array_equal(cell[::12, ::12], single)
        np.testing.assert_array_equal(cell[11::12, 11::12], single)
    assert (grid[:96, 96:108] == 255).all()


def test_scale_and_columns(images: Seqgen, tmp_path: Path) -> None:
    sets = ("--set", "count=4", "--set", "scale=1", "--set", "columns=4")
    assert images(*sets, "-o", "grid.png").code == 0
    assert array(tmp_path / "grid.png").shape == (8, 4 * 8 + 3 * 2, 3)


def test_npz_as_the_adm_evaluator_reads_it(images: Seqgen, tmp_path: Path) -> None:
    assert images("--set", "class=hat,long", "--set", "count=3", "-o", "out.npz").code == 0
    with np.load(tmp_path / "out.npz") as file:
        assert file["arr_0"].shape == (3, 8, 8, 3)
        assert file["arr_0"].dtype == np.uint8
        first = array(tmp_path / "out_files" / "hat-long-0000.png")
        np.testing.assert_array_equal(file["arr_0"][0], first)
        np.testing.assert_array_equal(file["arr_1"], [[-1, 1, 1]] * 3)


def test_a_folder_and_rows(images: Seqgen, tmp_path: Path) -> None:
    hats = ("--decoder", "raster", "--set", "class=hat", "--set", "count=2")
    assert images(*hats, "-o", "out/").code == 0
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["grid.png", "hat-0000.png", "hat-0001.png"]
    again = images(*hats, "-o", "rows.jsonl")
    assert again.code == 0
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [row["file"] for row in rows] == [f"rows_files/hat-000{n}.png" for n in range(2)]
    assert rows[0]["labels"] == {"hat": "yes"}
    assert {"class", "seed", "engine", "passes", "confidence", "log_likelihood"} <= set(rows[0])
    one, two = (tmp_path / folder / "hat-0001.png" for folder in ("out", "rows_files"))
    assert one.read_bytes() == two.read_bytes()


def test_an_image_called_grid_keeps_its_name(images: Seqgen, tmp_path: Path) -> None:
    (tmp_path / "wanted.jsonl").write_text('{"class": "hat", "id": "grid"}\n')
    assert images("wanted.jsonl", "-o", "out/").code == 0
    assert array(tmp_path / "out" / "grid.png").shape == (8, 8, 3)
    assert array(tmp_path / "out" / "grid-2.png").shape == (96, 96, 3)


@pytest.mark.parametrize("decoder", ["raster", "masked", "continuous"])
def test_the_batch_size_changes_nothing(images: Seqgen, tmp_path: Path, decoder: str) -> None:
    sets = ("--decoder", decoder, "--set", "count=5", "--set", "class=long")
    assert images(*sets, "-o", "a.npz", "--batch-size", "2").code == 0
    assert images(*sets, "-o", "b.npz", "--batch-size", "5").code == 0
    assert images(*sets, "-o", "c.npz", "--seed", "1").code == 0
    a, b, c = (np.load(tmp_path / f"{name}.npz")["arr_0"] for name in "abc")
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)


def test_a_checkpoint_decodes_by_its_own_engine(seqgen: Seqgen, family: Path) -> None:
    command = ("run", "--plugin", "images", "--model", family / "masked.safetensors")
    done = seqgen(*command, "--set", "count=1")
    assert json.loads(done.out)["decoder"] == "masked"
    wrong = seqgen(*command, "--decoder", "raster", "-o", "x.png")
    assert wrong.code == 2
    assert "--decoder masked" in wrong.err


def test_inpainting_by_file_names_with_spaces(images: Seqgen, tmp_path: Path) -> None:
    save(tmp_path / "mein bild ü.png")
    half_mask(tmp_path / "the mask.png")
    sets = ("--set", "mask=the mask.png", "--set", "class=glasses", "--set", "scale=1")
    done = images("mein bild ü.png", *sets, "-o", "out put.png")
    assert done.code == 0, done.err
    found = array(tmp_path / "out put.png")
    np.testing.assert_array_equal(found[:, :4], gradient()[:, :4])
    assert (tmp_path / "out put_files" / "mein-bild-ü.png").is_file()


def test_an_interrupted_run_goes_on(images: Seqgen, tmp_path: Path) -> None:
    command = ("--set", "count=6", "--batch-size", "2")
    assert images(*command, "-o", "whole.png").code == 0
    assert images(*command, "-o", "part.png").code == 0
    manifest = tmp_path / "part.png.manifest.jsonl"
    lines = manifest.read_text().splitlines(keepends=True)
    manifest.write_text("".join(lines[:4]))  # header, the first batch
    (tmp_path / "part.png").unlink()
    done = images(*command, "-o", "part.png", "--resume", "--set", "preview=p.gif")
    assert done.code == 2  # not configured as before
    done = images(*command, "-o", "part.png", "--resume")
    assert done.code == 0, done.err
    assert "2 of 6 items are done" in done.err
    assert (tmp_path / "part.png").read_bytes() == (tmp_path / "whole.png").read_bytes()


@pytest.mark.parametrize(("decoder", "passes"), [("diagonal", 7), ("next-scale", 3)])
def test_the_preview_has_a_frame_a_pass(
    images: Seqgen, tmp_path: Path, decoder: str, passes: int
) -> None:
    command = ("--decoder", decoder, "--set", "count=4", "--batch-size", "3")
    done = images(*command, "-o", "g.png", "--set", "preview=sub/order.gif")
    assert done.code == 0, done.err
    assert "wrote sub/order.gif" in done.err
    with Image.open(tmp_path / "sub" / "order.gif") as gif:
        assert gif.n_frames == passes + 1
        gif.seek(passes)
        last = np.array(gif.convert("RGB"))
    # A GIF has 256 colours a frame, a convolutional tokenizer makes more.
    np.testing.assert_allclose(last.astype(int), array(tmp_path / "g.png"), atol=30)


def test_a_film_strip_and_what_it_may_replace(images: Seqgen, tmp_path: Path) -> None:
    command = ("--decoder", "diagonal", "--set", "count=3", "--set", "preview=order.png")
    assert images(*command, "--set", "scale=1").code == 0
    strip = array(tmp_path / "order.png")
    assert strip.shape == (3 * 8 + 2 * 2, 8 * 8 + 7 * 2, 3)
    first, last = strip[:8, :8], strip[:8, -8:]
    assert len(np.unique(first.reshape(-1, 3), axis=0)) == 1  # nothing is known
    single = next((tmp_path / "seqgen-output").glob("*-0000.png"))
    np.testing.assert_array_equal(last, array(single))
    refused = images(*command, "-o", "g.png")
    assert refused.code == 2
    assert "order.png exists already" in refused.err
    assert not (tmp_path / "g.png").exists()
    assert images(*command, "-o", "g.png", "--overwrite").code == 0


def test_the_preview_of_an_inpainting_begins_with_what_is_given(
    images: Seqgen, tmp_path: Path
) -> None:
    save(tmp_path / "a.png")
    half_mask(tmp_path / "m.png")
    sets = ("--set", "mask=m.png", "--set", "preview=p.png", "--set", "scale=1")
    assert images("a.png", *sets, "-o", "b.png").code == 0
    strip = array(tmp_path / "p.png")
    np.testing.assert_array_equal(strip[:8, :4], gradient()[:, :4])


def test_eval(seqgen: Seqgen, family: Path, tmp_path: Path) -> None:
    command = ("eval", "--plugin", "images", "--model", family, "--set", "class=glasses")
    done = seqgen(*command, "--set", "count=70", "--decoder", "next-scale", "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["accuracy"] == found["accuracy_glasses"]
    assert {"frechet", "frechet_floor", "duplicates", "nearest", "passes"} <= set(found)
    assert found["passes"] == 3
    assert seqgen(*command, "--set", "count=4", "--plot", "p.svg").code == 0
    assert (tmp_path / "p.svg").read_text().startswith("<?xml")
    refused = seqgen(*command, "--set", "preview=p.gif")
    assert refused.code == 2
    assert "only `seqgen run` writes p.gif" in refused.err


def test_eval_needs_a_judge(seqgen: Seqgen, family: Path) -> None:
    model = family / "masked.safetensors"
    command = ("eval", "--plugin", "images", "--model", model, "--set", "count=2")
    done = seqgen(*command)
    assert done.code == 1
    assert "--set judge=RUN" in done.err
    assert seqgen(*command, "--set", f"judge={family / 'judge.safetensors'}").code == 0
    wrong = seqgen(*command, "--set", f"judge={model}")
    assert wrong.code == 4
    assert "is not a judge of images" in wrong.err


def test_compare_draws_a_row_an_engine(seqgen: Seqgen, family: Path, tmp_path: Path) -> None:
    command = ("compare", "--plugin", "images", "--model", family, "--set", "count=3")
    done = seqgen(*command, "--repeats", "1")
    assert done.code == 0, done.err
    for expected in ("accuracy", "duplicates", "passes", "items/s", "raster", "continuous"):
        assert expected in done.out
    with Image.open(tmp_path / "compare.png") as picture:
        width, height = picture.size
    assert height == pytest.approx(6 * 0.9 * 150, abs=2)
    assert width == pytest.approx((1.6 + 0.8 * 3) * 150, abs=2)
