"""Labels: what people write, and what tables hold."""

from __future__ import annotations

import pytest

from seqgen.errors import ConfigError
from seqgen_images.labels import Labels, from_columns

LABELS = Labels(
    (("glasses", ("no", "yes")), ("hat", ("no", "yes")), ("hair", ("bald", "long", "short")))
)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", (None, None, None)),
        ("glasses", (1, None, None)),
        ("glasses, hat=no,hair=long", (1, 0, 1)),
        ("short", (None, None, 2)),
        ("hat,hat", (None, 1, None)),
    ],
)
def test_specifications(text: str, wanted: tuple[int | None, ...]) -> None:
    assert LABELS.parse(text) == wanted


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("glases", "did you mean 'glasses'"),
        ("hat=maybe", "Known: no, yes"),
        ("colour=red", "unknown name 'colour'"),
        ("no", "several attributes have the value 'no'"),
        ("hat,hat=no", "says two things of 'hat'"),
        ("hair", "unknown name 'hair'"),
        (",,", "names nothing"),
    ],
)
def test_bad_specifications(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LABELS.parse(text)


def test_a_model_without_labels_says_so() -> None:
    with pytest.raises(ConfigError, match="knows no classes"):
        Labels().parse("cat")


def test_names_are_what_is_specified() -> None:
    assert LABELS.names((1, None, 2)) == {"glasses": "yes", "hair": "short"}
    assert LABELS.names((-1, 0, -1)) == {"hat": "no"}


def test_columns_become_attributes() -> None:
    labels, rows = from_columns(
        {"hat": ["", "v1", "v2"], "hair": ["long02", "short1", "long7"], "digit": [10, 2, 2]}
    )
    assert labels.attributes == (
        ("hat", ("no", "yes")), ("hair", ("long", "short")), ("digit", ("2", "10")),
    )  # fmt: skip
    assert rows == [[0, 0, 1], [1, 1, 0], [1, 0, 0]]
    with pytest.raises(ConfigError, match="has 1 values"):
        from_columns({"same": ["a1", "a2"]})
