"""How a model is sampled where the options leave it open: ours, and as the authors published."""

from __future__ import annotations

import pytest
import torch
from tests.images.official_gpt import tiny as tiny_gpt
from tests.images.official_gpt import tiny_tokenizer
from tests.images.official_var import tiny as tiny_var
from tests.images.small_images import random_model

from seqgen.guidance import Guidance
from seqgen.logits import TopK, TopP
from seqgen.options import parse
from seqgen.seeds import item_seed
from seqgen_images.domain import ImagesDomain
from seqgen_images.family import ImageFamily
from seqgen_images.model import ImageModel
from seqgen_images.official.var import ramp
from seqgen_images.options import ImageOptions

OURS = {"top_k": 0, "top_p": 1.0, "guidance": 2.0, "guidance_schedule": "constant"}
LLAMAGEN = {**OURS, "temperature": 1.0, "top_k": 2000, "guidance": 4.0}
VAR = {
    "temperature": 1.0, "top_k": 900, "top_p": 0.96, "guidance": 2.5, "guidance_schedule": "linear",
}  # fmt: skip


def model_of(kind: str) -> ImageModel:
    if kind == "var":
        return tiny_var()
    if kind in ("llamagen", "nar"):
        return tiny_gpt(kind, tiny_tokenizer())
    return random_model(kind)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        ("raster", {**OURS, "temperature": 1.0}),
        ("masked", {**OURS, "temperature": 0.8}),
        ("var", VAR),
        ("llamagen", LLAMAGEN),
        ("nar", LLAMAGEN),
    ],
)
def test_rows_say_how_they_were_sampled(kind: str, wanted: dict[str, object]) -> None:
    """Without options as the model wants it; what is set explicitly wins, one by one."""
    model, domain = model_of(kind), ImagesDomain()
    domain._family = family = ImageFamily.of(model, kind, torch.device("cpu"))
    for settings, changed in (
        ([], {}),
        (["top_k=0", "guidance=3"], {"top_k": 0, "guidance": 3.0}),
        (
            ["guidance_schedule=constant", "top_p=1"],
            {"guidance_schedule": "constant", "top_p": 1.0},
        ),
    ):
        options = parse(ImageOptions, ["count=2", "class=", *settings])
        pieces = [
            p for item in domain.load("options:", options) for p in domain.split(item, options)
        ]
        seeds = torch.tensor([item_seed(0, piece.id) for piece in pieces])
        with torch.inference_mode():
            context = domain.condition(family, pieces, options)
            done = domain.plan(family, context, model.engine, options, seeds).run()
            rows = domain.finish(done, pieces, context, options)
        assert [row["sampling"] for row in rows] == [{**wanted, **changed}] * 2


def test_published_settings_reach_the_recipe() -> None:
    own = tiny_var().own
    options = ImageOptions()
    assert options.guide(own) == ramp(1.5)
    assert options.decoding(own).sampling().filters == (TopK(900), TopP(0.96))
    assert ImageOptions(guidance=3.0).guide(own) == ramp(2.0)
    assert ImageOptions(guidance=1.0).guide(own) is None
    plain = ImageOptions(guidance=3.0, guidance_schedule="constant", top_k=0, top_p=1.0)
    assert plain.guide(own) == Guidance(3.0)
    assert plain.decoding(own).sampling().filters == ()
