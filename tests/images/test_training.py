"""Every engine trains, is written, is read again and generates; a raster model is converted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.images.toy_data import LABELS, write_toy

from seqgen.errors import CheckpointError, ConfigError, InputError
from seqgen.training.loop import fit
from seqgen.training.task import TrainingRun
from seqgen_images.data import batches_of, load_images
from seqgen_images.decoding import DecodingConfig
from seqgen_images.model import ENGINES, AvatarModel, load_image_model
from seqgen_images.tokenizer_training import load_tokenizer
from seqgen_images.training import PRESETS, ImageConversion, ImageRun, ImageTask

OPTIONS, FIT = PRESETS["micro"]
OPTIONS = replace(OPTIONS, labels="dark,size", codes=16)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy(tmp_path_factory.mktemp("toy") / "toy.npz")


@pytest.fixture(scope="module")
def tokenizer(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    options = replace(OPTIONS, engine="tokenizer", tokenizer_width=8)
    run = ImageTask().start(options, FIT, data=data, seed=0, folder=folder)
    result = fit(run, replace(FIT, steps=30, validate_every=30), folder=folder)
    assert result["psnr"] > 10
    run.export(folder, {})
    return folder


def train(engine: str, data: Path, folder: Path, tokenizer: Path, steps: int = 12) -> TrainingRun:
    options = replace(OPTIONS, engine=engine)
    if engine == "next-scale":
        options = replace(options, tokenizer=str(tokenizer))
    run = ImageTask().start(options, FIT, data=data, seed=0, folder=folder)
    fit(run, replace(FIT, steps=steps, validate_every=steps, save_every=steps), folder=folder)
    return run


@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_learns_is_kept_and_generates(
    engine: str, data: Path, tokenizer: Path, tmp_path: Path
) -> None:
    run = train(engine, data, tmp_path, tokenizer, steps=30)
    assert isinstance(run, ImageRun)
    first = ImageTask().start(
        replace(OPTIONS, engine=engine, tokenizer=str(tokenizer))
        if engine == "next-scale"
        else replace(OPTIONS, engine=engine),
        FIT, data=data, seed=0, folder=tmp_path,
    )  # fmt: skip
    assert run.validate()["validation_loss"] < 0.9 * first.validate()["validation_loss"]
    model = load_image_model(run.export(tmp_path, {"steps": 30}))
    assert model.engine == engine
    assert model.labels == LABELS
    labels = torch.tensor([[1, 0], [-1, -1], [0, 1]])
    seeds = torch.tensor([1, 2, 3])
    decoder = model.decoder(DecodingConfig(steps=3))
    with torch.inference_mode():
        made = decoder.generate(model.sequence, model.canvas(seeds), model.context(labels))
        alone = decoder.generate(
            model.sequence, model.canvas(seeds[1:2]), model.context(labels[1:2])
        )
    images = model.images(made.values)
    assert images.shape == (3, 8, 8, 3)
    assert images.dtype == torch.uint8
    # In a batch or alone; a continuous model's sums may be rounded otherwise.
    apart = (images[1].int() - model.images(alone.values)[0].int()).abs().max()
    assert int(apart) <= (1 if engine == "continuous" else 0)
    passes = {"raster": 16, "diagonal": 7, "next-scale": 3, "masked": 3, "continuous": 3}
    assert made.forwards == passes.get(engine, made.forwards)
    assert made.forwards <= 16
    assert model.draw_labels(5) in dict(model.config.seen)


def test_a_raster_model_becomes_block_diffusion(
    data: Path, tokenizer: Path, tmp_path: Path
) -> None:
    run = train("raster", data, tmp_path / "raster", tokenizer)
    checkpoint = run.export(tmp_path / "raster", {})
    options = ImageConversion(rate_low=0.2, weighting="none", labels="dark,size", held_out=32)
    converted = ImageTask().convert(
        checkpoint, options, FIT, data=data, seed=0, folder=tmp_path / "block"
    )
    model = converted.model
    assert isinstance(model, AvatarModel)
    before = load_image_model(checkpoint).state_dict()
    for name in ("start_D", "sequence.head.weight", "sequence.backbone.blocks.0.feed_in.weight"):
        assert torch.allclose(model.state_dict()[name], before[name])
    fit(converted, replace(FIT, steps=4, validate_every=4), folder=tmp_path / "block")
    again = load_image_model(converted.export(tmp_path / "block", {}))
    assert again.engine == "block-diffusion"
    with pytest.raises(CheckpointError, match="only a raster model"):
        ImageTask().convert(
            tmp_path / "block", options, FIT, data=data, seed=0, folder=tmp_path / "twice"
        )
    with pytest.raises(InputError, match="is not like the data"):
        ImageTask().convert(
            checkpoint, replace(options, labels="dark"), FIT, data=data, seed=0, folder=tmp_path
        )


def test_next_scale_asks_for_its_tokenizer(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--preset tokenizer"):
        ImageTask().start(
            replace(OPTIONS, engine="next-scale"), FIT, data=data, seed=0, folder=tmp_path
        )
    with pytest.raises(CheckpointError, match=r"is not an image tokenizer|no checkpoint|not exist"):
        load_tokenizer(tmp_path)


def test_batches_are_epochs_and_functions_of_the_step() -> None:
    seen = torch.cat([batches_of(10, 4, seed=3, step=s, rank=0, world=1) for s in range(5)])
    assert sorted(seen[:10].tolist()) == list(range(10))
    assert sorted(seen[10:].tolist()) == list(range(10))
    assert seen[:10].tolist() != seen[10:].tolist()
    parts = [batches_of(10, 2, seed=3, step=0, rank=r, world=2) for r in range(2)]
    assert torch.cat(parts).tolist() == seen[:4].tolist()


def test_a_folder_of_images(tmp_path: Path) -> None:
    for name, colour in [("red", (255, 0, 0)), ("blue", (0, 0, 255))]:
        (tmp_path / name).mkdir()
        for index in range(3):
            Image.new("RGB", (6, 6), colour).save(tmp_path / name / f"{index}.png")
    found = load_images(tmp_path)
    assert found.labels.attributes == (("class", ("blue", "red")),)
    assert found.indices_NA.flatten().tolist() == [0, 0, 0, 1, 1, 1]
    assert found.images_NHWC[0, 0, 0].tolist() == [0, 0, 255]
    Image.new("RGB", (5, 6)).save(tmp_path / "red" / "odd.png")
    with pytest.raises(InputError, match="--set size=16"):
        load_images(tmp_path)
    assert load_images(tmp_path, size=4).shape == (4, 4, 3)
    (tmp_path / "red" / "text.png").write_text("no picture")
    with pytest.raises(InputError, match=r"text\.png is not an image that can be read"):
        load_images(tmp_path, size=4)


def test_bad_tables(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    with pytest.raises(InputError, match="does not exist"):
        load_images(path)
    path.write_bytes(b"no zip")
    with pytest.raises(InputError, match="not a readable npz"):
        load_images(path)
    np.savez(path, pixels=np.zeros((3, 4, 4, 3), np.uint8))
    with pytest.raises(InputError, match="no images"):
        load_images(path)
    np.savez(path, images=np.zeros((3, 4, 4, 3), np.uint8), hat=np.array(["a", "b", "c"]))
    with pytest.raises(InputError, match="did you mean 'hat'"):
        load_images(path, columns=["hats"])
    np.savez(path, images=np.zeros((3, 4, 4, 3)))
    with pytest.raises(InputError, match="expected uint8"):
        load_images(path)
