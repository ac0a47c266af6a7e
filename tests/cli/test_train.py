"""`seqgen train`: presets, settings, resuming, and errors that help."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from toys import Done

Seqgen = Callable[..., Done]
QUICK = ("train", "--plugin", "toy", "--preset", "quick")


def test_a_preset_trains_and_tells_how_to_use_the_model(seqgen: Seqgen, tmp_path: Path) -> None:
    done = seqgen(*QUICK, "-o", "run", "--set", "width=2", "--threads", "1")
    assert done.code == 0, done.err
    result = json.loads(done.out.splitlines()[-1])
    assert result["step"] == 60
    assert result["error"] < 0.1
    assert "step 10 " in done.err
    assert "seqgen run --plugin toy --model" in done.err
    settings = json.loads((tmp_path / "run" / "settings.json").read_text())
    assert settings["options"] == {"width": 2}
    assert settings["fit"]["steps"] == 60
    assert len((tmp_path / "run" / "weights.txt").read_text().split()) == 2


def test_resumed_equals_unbroken(seqgen: Seqgen, tmp_path: Path) -> None:
    constant = ("--set", "schedule=constant", "--seed", "3")
    assert seqgen(*QUICK, "-o", "whole", *constant).code == 0
    assert seqgen(*QUICK, "-o", "parts", *constant, "--steps", "30").code == 0
    refused = seqgen(*QUICK, "-o", "parts", *constant)
    assert refused.code == 2
    assert "--resume" in refused.err
    changed = seqgen(*QUICK, "-o", "parts", *constant, "--set", "lr=0.2", "--resume")
    assert changed.code == 2
    assert "fit.lr was 0.1, is 0.2" in changed.err
    assert seqgen(*QUICK, "-o", "parts", *constant, "--resume").code == 0
    weights = [(tmp_path / name / "weights.txt").read_text() for name in ("whole", "parts")]
    assert weights[0] == weights[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--preset", "quik"], "did you mean 'quick'"),
        ([], "--preset with one of: quick, wide"),
        (["--preset", "quick", "--set", "widht=3"], "did you mean 'width'"),
        (["--preset", "quick", "--set", "steps=many"], "takes a whole number"),
        (["--preset", "quick", "--set", "width=0"], ">= 1"),
        (["--preset", "quick", "--data", "gone"], "--data gone does not exist"),
        (["--preset", "quick", "--device", "gpu"], "unknown device 'gpu'"),
    ],
)
def test_wrong_usage(seqgen: Seqgen, tmp_path: Path, arguments: list[str], message: str) -> None:
    done = seqgen("train", "--plugin", "toy", "-o", "run", *arguments)
    assert done.code == 2
    assert message in done.err
    assert not (tmp_path / "run").exists()


def test_help_lists_presets_and_settings(seqgen: Seqgen) -> None:
    out = seqgen("train", "--plugin", "toy", "--help").out
    for expected in ("quick", "wide", "60 steps", "weight_decay=float", "width=int >= 1"):
        assert expected in out


def test_settings_may_change_on_the_way_if_asked(seqgen: Seqgen, tmp_path: Path) -> None:
    assert seqgen(*QUICK, "-o", "run", "--set", "stop=30").code == 0
    changes = ("--resume", "--allow-changes", "--set", "lr=0.05")
    done = seqgen(*QUICK, "-o", "run", *changes)
    assert done.code == 0, done.err
    assert json.loads(done.out.splitlines()[-1])["step"] == 60
    settings = json.loads((tmp_path / "run" / "settings.json").read_text())
    assert settings["fit"]["lr"] == 0.05
    assert [past["fit"]["lr"] for past in settings["earlier"]] == [0.1]


def test_a_conversion_starts_from_a_model_and_has_its_own_settings(
    seqgen: Seqgen, tmp_path: Path
) -> None:
    first = seqgen(*QUICK, "-o", "first", "--set", "width=2", "--seed", "5")
    assert first.code == 0, first.err
    convert = ("train", "--plugin", "toy", "--convert", "block-diffusion")
    source = ("--from", "first/weights.txt")
    done = seqgen(*convert, *source, "-o", "second", "--seed", "5", "--set", "lr=0.00001")
    assert done.code == 0, done.err
    result = json.loads(done.out.splitlines()[-1])
    assert result["step"] == 40
    # At this rate nothing moves: it starts where the first one ended, not from random weights.
    before = json.loads(first.out.splitlines()[-1])["error"]
    assert result["error"] == pytest.approx(before, abs=0.05)
    settings = json.loads((tmp_path / "second" / "settings.json").read_text())
    assert settings["convert"] == "block-diffusion"
    assert settings["from"] == "first/weights.txt"
    assert settings["fit"]["lr"] == 0.00001
    again = ("-o", "second", "--seed", "5", "--resume")
    other = seqgen(*convert, "--from", "second/weights.txt", *again)
    assert other.code == 2
    assert "from was" in other.err
    options = seqgen("train", "--plugin", "toy", "--help").out
    assert "Options of --convert block-diffusion" in options


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--convert", "block-diffusion"], "--from with a card or the path"),
        (["--from", "x"], "add --convert"),
        (["--convert", "blok-diffusion", "--from", "x"], "did you mean 'block-diffusion'"),
        (["--convert", "block-diffusion", "--from", "x", "--preset", "quick"], "exclude"),
        (["--convert", "block-diffusion", "--from", "gone.txt"], "gone.txt"),
        (["--convert", "block-diffusion", "--from", "x", "--set", "widht=3"], "'width'"),
    ],
)
def test_wrong_conversions(
    seqgen: Seqgen, tmp_path: Path, arguments: list[str], message: str
) -> None:
    (tmp_path / "x").write_text("1.0 1.0")
    done = seqgen("train", "--plugin", "toy", "-o", "run", *arguments)
    assert done.code == 2
    assert message in done.err
    assert not (tmp_path / "run").exists()
