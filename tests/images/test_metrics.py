"""The metrics by cases whose answer is known, and the judge on images made for it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.images.toy_data import toy_images

from seqgen.errors import CheckpointError
from seqgen_images.data import ImageData
from seqgen_images.judge import JudgeRun, load_judge
from seqgen_images.labels import Labels
from seqgen_images.metrics import (
    attribute_accuracy,
    frechet_distance,
    nearest_tokens,
    precision_recall,
)
from seqgen_images.training import PRESETS


def test_frechet_distance_of_gaussians() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4000, 3, generator=generator, dtype=torch.float64)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(x, x + torch.tensor([3.0, 0, 4.0])) == pytest.approx(25, rel=1e-9)
    # N(0, 1) and N(0, 4) in each of three dimensions: (2 - 1)^2 each, of the sample's own spread.
    spread = float((x - x.mean(0)).square().sum(0).div(len(x) - 1).sum())
    mean = float(x.mean(0).square().sum())
    assert frechet_distance(x, 2 * x) == pytest.approx(spread + mean, rel=1e-9)


def test_precision_and_recall_of_halves() -> None:
    generator = torch.Generator().manual_seed(0)
    real = torch.rand(400, 2, generator=generator)
    real[200:, 0] += 10  # two clusters, of which the made images know one
    made = torch.rand(200, 2, generator=generator)
    precision, recall = precision_recall(made, real)
    assert precision > 0.9
    assert recall == pytest.approx(0.5, abs=0.05)


def test_accuracy_counts_only_what_was_asked_for() -> None:
    judged = torch.tensor([[1, 0], [0, 0], [1, 1]])
    asked = torch.tensor([[1, -1], [1, -1], [-1, -1]])
    assert attribute_accuracy(judged, asked, ["hat", "hair"]) == {
        "accuracy": 0.5,
        "accuracy_hat": 0.5,
    }
    assert attribute_accuracy(judged, torch.full((3, 2), -1), ["hat", "hair"]) == {}


def test_nearest_tokens() -> None:
    known = torch.tensor([[1, 2, 3], [4, 5, 6]])
    asked = torch.tensor([[1, 2, 3], [4, 0, 0], [7, 7, 7]])
    assert nearest_tokens(asked, known).tolist() == [0, 2, 3]


def test_a_judge_learns_keeps_and_finds_copies(tmp_path: Path) -> None:
    data = toy_images(240)
    options, _ = PRESETS["judge"]
    run = JudgeRun(data, options, seed=0)
    optimiser = torch.optim.AdamW(run.model.parameters(), lr=3e-3)
    for step in range(30):
        loss = run.losses(run.batch(step, 0, 1), step)["loss"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert run.validate()["accuracy"] > 0.95
    judge = load_judge(run.export(tmp_path, {}))
    copies = run.known.images_NHWC[:20]
    figures = judge.figures(copies, run.known.indices_NA[:20])
    assert figures["accuracy"] > 0.9
    assert figures["nearest"] == 0
    assert "frechet" not in figures  # too few images for a covariance
    real = run.real
    assert judge.figures(real.images_NHWC, real.indices_NA)["nearest"] > 0


def test_another_file_is_no_judge(tmp_path: Path) -> None:
    from seqgen.checkpoints import save

    path = save(tmp_path / "x.safetensors", {}, {"kind": "other"})
    with pytest.raises(CheckpointError, match="not a judge"):
        load_judge(path)


def test_split_keeps_the_last_images_out() -> None:
    data = ImageData(torch.zeros(30, 4, 4, 3, dtype=torch.uint8), Labels(), torch.zeros(30, 0))
    train, held_out = data.split(1000)
    assert (len(train), len(held_out)) == (27, 3)
