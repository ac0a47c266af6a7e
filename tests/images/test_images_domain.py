"""The domain on models of random weights: contract, seeds, given pixels, order of filling."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.images.pictures import gradient, half_mask, save

from seqgen.errors import InputError
from seqgen.plugins import Plugins
from seqgen.registry import Card
from seqgen.seeds import item_seed
from seqgen.testing import check_domain
from seqgen_images.domain import ImagesDomain
from seqgen_images.family import ImageFamily
from seqgen_images.grids import read_png
from seqgen_images.model import ENGINES
from seqgen_images.options import ImageOptions
from seqgen_images.painting import own_passes
from seqgen_images.requests import ImageItem

CPU = torch.device("cpu")
PASSES = {
    "raster": 16, "diagonal": 7, "next-scale": 3, "masked": 10, "block-diffusion": 16,
    "continuous": 16,
}  # fmt: skip
"""Of 4 x 4 tokens; a model of random weights is never confident, so blocks take all passes."""


@pytest.fixture(scope="module")
def card(family: Path) -> Card:
    return Plugins().registry("images").card(str(family), plugin="images")


@pytest.fixture(scope="module")
def domain() -> ImagesDomain:
    return ImagesDomain()


@pytest.fixture(scope="module")
def model(domain: ImagesDomain, card: Card) -> ImageFamily:
    return domain.build(card, CPU, torch.float32)


def decoded(
    domain: ImagesDomain,
    model: ImageFamily,
    engine: str,
    items: list[ImageItem],
    options: ImageOptions,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """The fields of items, decoded in one batch."""
    pieces = [piece for item in items for piece in domain.split(item, options)]
    seeds = torch.tensor([item_seed(seed, piece.id) for piece in pieces])
    with torch.inference_mode():
        context = domain.condition(model, pieces, options)
        generated = domain.plan(model, context, engine, options, seeds).run()
        return domain.finish(generated, pieces, context, options)


def pixels(fields: dict[str, Any]) -> Any:
    return read_png(fields["file"].data)


def test_contract(card: Card) -> None:
    report = check_domain(ImagesDomain(), info=Plugins().info("images"), card=card)
    assert set(report.decoders) == set(ENGINES)
    assert report.metrics is not None
    assert {"accuracy", "duplicates", "passes"} <= set(report.metrics)


@pytest.mark.parametrize("engine", ENGINES)
def test_passes_and_likelihoods(domain: ImagesDomain, model: ImageFamily, engine: str) -> None:
    options = ImageOptions(class_="glasses", count=3)
    rows = decoded(domain, model, engine, list(domain.load("options:", options)), options)
    assert {row["passes"] for row in rows} == {PASSES[engine]}
    assert {row["engine"] for row in rows} == {engine}
    exact = engine in ("raster", "diagonal", "next-scale")
    for row in rows:
        assert ("log_likelihood" in row) == exact
        assert ("confidence" in row) == (engine != "continuous")
        assert pixels(row).shape == (8, 8, 3)
    assert not np.array_equal(pixels(rows[0]), pixels(rows[1]))


def test_the_log_likelihood_is_that_of_teacher_forcing(
    domain: ImagesDomain, model: ImageFamily
) -> None:
    from seqgen.training.objectives import teacher_forcing

    options = ImageOptions(class_="hat=no", count=1, guidance=1.0, temperature=0.7)
    items = list(domain.load("options:", options))
    row = decoded(domain, model, "raster", items, options)[0]
    engine: Any = model["raster"]
    labels = torch.tensor([[-1, 0, -1]])
    image = torch.from_numpy(pixels(row)).movedim(-1, 0)[None].float() / 127.5 - 1
    with torch.inference_mode():
        loss = teacher_forcing(
            engine.sequence,
            engine.tokens(image),
            order=engine.order(),
            context=engine.context(labels),
        )
    assert row["log_likelihood"] == pytest.approx(-16 * float(loss), rel=1e-3)


@pytest.mark.parametrize("engine", ENGINES)
def test_an_image_is_made_again_by_the_class_and_seed_of_its_row(
    domain: ImagesDomain, model: ImageFamily, engine: str
) -> None:
    options = ImageOptions(count=4)
    rows = decoded(domain, model, engine, list(domain.load("options:", options)), options)
    row = rows[2]
    again = ImageItem("x", spec=row["class"], seed=row["seed"])
    assert decoded(domain, model, engine, [again], options, seed=5)[0]["file"] == row["file"]


@pytest.mark.parametrize("engine", ENGINES)
def test_what_is_given_stays_to_the_pixel(
    domain: ImagesDomain, model: ImageFamily, tmp_path: Path, engine: str
) -> None:
    """The mask cuts through tokens: these are generated, and known pixels laid over them."""
    path, mask = save(tmp_path / "a.png"), half_mask(tmp_path / "m.png", columns=5)
    options = ImageOptions(mask=str(mask), count=2)
    rows = decoded(domain, model, engine, list(domain.load(str(path), options)), options)
    for row in rows:
        np.testing.assert_array_equal(pixels(row)[:, :5], gradient()[:, :5])
        assert not np.array_equal(pixels(row)[:, 5:], gradient()[:, 5:])
    assert not np.array_equal(pixels(rows[0]), pixels(rows[1]))


def test_whole_known_tokens_are_given_and_take_no_pass(
    domain: ImagesDomain, model: ImageFamily, tmp_path: Path
) -> None:
    path, mask = save(tmp_path / "a.png"), half_mask(tmp_path / "m.png", columns=5)
    options = ImageOptions(mask=str(mask))
    row = decoded(domain, model, "raster", list(domain.load(str(path), options)), options)[0]
    assert row["passes"] == 8  # columns 0-3 are two of four tokens a row; that of 4-5 is cut


def test_requests_and_images_share_a_batch(
    domain: ImagesDomain, model: ImageFamily, tmp_path: Path
) -> None:
    path, mask = save(tmp_path / "a.png"), half_mask(tmp_path / "m.png")
    options = ImageOptions(mask=str(mask))
    items = [ImageItem("x", spec="hat"), *domain.load(str(path), options)]
    together = decoded(domain, model, "masked", items, options)
    alone = [decoded(domain, model, "masked", [item], options)[0] for item in items]
    assert together == alone


@pytest.mark.parametrize("engine", ENGINES)
def test_a_known_part_without_a_whole_token_is_refused(
    domain: ImagesDomain, model: ImageFamily, tmp_path: Path, engine: str
) -> None:
    path = save(tmp_path / "dot.png", gradient(1, 1))
    options = ImageOptions()
    with pytest.raises(InputError, match="the part that is kept holds no whole token"):
        decoded(domain, model, engine, list(domain.load(str(path), options)), options)


def test_guidance_changes_images_of_a_class_only(domain: ImagesDomain, model: ImageFamily) -> None:
    free, asked = ImageItem("a", spec="", seed=3), ImageItem("b", spec="glasses", seed=3)
    weak, strong = ImageOptions(guidance=1.0), ImageOptions(guidance=20.0)

    def of(item: ImageItem, options: ImageOptions) -> Any:
        return pixels(decoded(domain, model, "next-scale", [item], options)[0])

    np.testing.assert_array_equal(of(free, weak), of(free, strong))
    assert not np.array_equal(of(asked, weak), of(asked, strong))


def test_drawn_classes_follow_the_id(domain: ImagesDomain, model: ImageFamily) -> None:
    options = ImageOptions(count=20)
    items = list(domain.load("options:", options))
    specs = [next(domain.split(item, options)).spec for item in items]
    assert specs == [next(domain.split(item, options)).spec for item in items]
    assert len(set(specs)) > 4
    for spec in specs:
        assert None not in model.labels.parse(spec)


def test_an_unknown_class_in_a_list_concerns_its_item_only(
    domain: ImagesDomain, model: ImageFamily
) -> None:
    item = ImageItem("x", spec="glases")
    with pytest.raises(InputError, match="unknown name 'glases'"):
        next(domain.split(item, ImageOptions()))
    with pytest.raises(Exception, match="unknown name 'glases'") as caught:
        next(domain.split(replace(item, listed=False), ImageOptions()))
    assert not isinstance(caught.value, InputError)


def test_passes_of_a_row_do_not_count_those_of_others() -> None:
    assert own_passes(torch.tensor([3, 3, 7, 9])).tolist() == [1, 1, 2, 3]
    assert own_passes(torch.tensor([0, 4, 0, 9])).tolist() == [0, 1, 0, 2]
