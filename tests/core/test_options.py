"""Options: typed values, choices and ranges, and errors that help."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqgen.errors import ConfigError
from seqgen.options import describe, option, parse, to_json


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True)
class Options:
    temperature: float = option(1.0, help="spread of the samples", range=(0.0, None))
    beams: int = option(1, help="hypotheses kept", range=(1, 64))
    order: Literal["raster", "diagonal"] = option("raster", help="order of the tokens")
    top_k: int | None = option(None, help="keep the k likeliest")
    verbose: bool = field(default=False, metadata={"help": "say more"})
    colour: Colour = Colour.RED
    sizes: tuple[int, ...] = option((1, 2), range=(1, 9))
    span: tuple[float, str] = (0.5, "s")
    vocabulary: Path | None = None
    rate: int = option(16000, choices=(8000, 16000))
    threshold: float = field(default=0.5, metadata={"help": "by hand", "min": 0.0, "max": 1.0})


def test_defaults_need_nothing() -> None:
    assert parse(Options) == Options()


@pytest.mark.parametrize(
    ("assignment", "name", "value"),
    [
        ("temperature=0.7", "temperature", 0.7),
        ("temperature=2", "temperature", 2.0),
        ("beams=4", "beams", 4),
        ("order=diagonal", "order", "diagonal"),
        ("top_k=50", "top_k", 50),
        ("top-k=50", "top_k", 50),
        ("top_k=none", "top_k", None),
        ("verbose=yes", "verbose", True),
        ("verbose=False", "verbose", False),
        ("colour=blue", "colour", Colour.BLUE),
        ("sizes=3,4,5", "sizes", (3, 4, 5)),
        ("sizes=(3, 4)", "sizes", (3, 4)),
        ("sizes=", "sizes", ()),
        ("span=1,ms", "span", (1.0, "ms")),
        ("vocabulary=a=b.txt", "vocabulary", Path("a=b.txt")),
        ("rate=8000", "rate", 8000),
    ],
)
def test_text_becomes_typed(assignment: str, name: str, value: object) -> None:
    parsed = getattr(parse(Options, [assignment]), name)
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("beems=4", "did you mean 'beams'"),
        ("beams", "--set beams=VALUE"),
        ("beams=4.5", "takes a whole number, not '4.5'"),
        ("beams=0", "in 1..64"),
        ("temperature=-1", ">= 0.0"),
        ("temperature=nan", "takes a number"),
        ("order=diagonl", "did you mean 'diagonal'"),
        ("verbose=maybe", "true or false"),
        ("colour=rad", "did you mean 'red'"),
        ("sizes=1,10", "outside its range"),
        ("sizes=1,x", "whole number"),
        ("span=1", "takes 2 values, not 1"),
        ("threshold=2", "in 0.0..1.0"),
        ("rate=44100", "Known: 16000, 8000"),
    ],
)
def test_errors_say_what_is_possible(assignment: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(Options, [assignment])
    assert message in str(caught.value)
    assert caught.value.exit_code == 2


def test_command_line_wins_over_file() -> None:
    parsed = parse(Options, ["beams=3"], {"beams": 8, "sizes": [4], "verbose": True})
    assert (parsed.beams, parsed.sizes, parsed.verbose) == (3, (4,), True)


def test_values_of_a_file_are_checked_too() -> None:
    with pytest.raises(ConfigError, match="whole number"):
        parse(Options, config={"beams": True})
    with pytest.raises(ConfigError, match="takes a whole number"):
        parse(Options, config={"beams": None})


def test_yaml_truth_values_are_understood_as_words() -> None:
    @dataclass(frozen=True)
    class Switch:
        mode: Literal["on", "off"] = "off"

    assert parse(Switch, config={"mode": True}).mode == "on"


def test_required_option() -> None:
    @dataclass(frozen=True)
    class Needs:
        path: Path = option(help="where")

    with pytest.raises(ConfigError, match="'path' has no value"):
        parse(Needs)
    assert parse(Needs, ["path=x"]).path == Path("x")


def test_complaints_of_the_dataclass_are_usage_errors() -> None:
    @dataclass(frozen=True)
    class Pair:
        low: int = 0
        high: int = 1

        def __post_init__(self) -> None:
            if self.low > self.high:
                raise ValueError("low is above high")

    with pytest.raises(ConfigError, match="low is above high"):
        parse(Pair, ["low=3"])


def test_a_keyword_of_python_is_set_without_its_underscore() -> None:
    @dataclass(frozen=True)
    class Labelled:
        class_: str = option("", help="what is shown")

    assert parse(Labelled, ["class=cat"]).class_ == "cat"
    assert to_json(Labelled("cat")) == {"class": "cat"}
    assert [line.name for line in describe(Labelled)] == ["class"]
    with pytest.raises(ConfigError, match="unknown option 'class_'"):
        parse(Labelled, ["class_=cat"])


def test_description_for_the_help_text() -> None:
    lines = {line.name: line for line in describe(Options)}
    assert lines["beams"].type == "int in 1..64"
    assert lines["order"].type == "raster|diagonal"
    assert lines["top_k"].type == "int|none"
    assert lines["top_k"].default == "none"
    assert lines["sizes"].default == "1,2"
    assert lines["verbose"].default == "false"
    assert lines["temperature"].help == "spread of the samples"


@given(
    st.builds(
        Options,
        temperature=st.floats(0, 10),
        beams=st.integers(1, 64),
        order=st.sampled_from(["raster", "diagonal"]),
        top_k=st.none() | st.integers(),
        verbose=st.booleans(),
        colour=st.sampled_from(Colour),
        sizes=st.lists(st.integers(1, 9)).map(tuple),
        vocabulary=st.none() | st.just(Path("v.txt")),
    )
)
def test_json_and_back(options: Options) -> None:
    assert parse(Options, config=to_json(options)) == options
