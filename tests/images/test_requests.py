"""Items: numbered images of a class, lists of classes, images to complete."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from tests.images.pictures import save

from seqgen.errors import InputError, UsageError
from seqgen.seeds import item_seed
from seqgen_images.options import ImageOptions
from seqgen_images.requests import FROM_OPTIONS, ImageItem, list_items


def listed(source: object, **options: Any) -> list[ImageItem]:
    return list(list_items(str(source), ImageOptions(**options)))


def test_without_input_the_options_say_what() -> None:
    assert len(listed(FROM_OPTIONS)) == 64
    items = listed(FROM_OPTIONS, class_="glasses, hat=no", count=3)
    assert [item.id for item in items] == [f"glasses,hat=no-000{n}" for n in range(3)]
    assert not any(item.listed for item in items)
    assert listed(FROM_OPTIONS, class_="", count=1)[0].id == "image-0000"


def test_a_list_of_classes(tmp_path: Path) -> None:
    path = tmp_path / "wanted.jsonl"
    path.write_text(
        "# two of one, one of another\n\n"
        "hat\n"
        '{"class": "glasses", "count": 2, "seed": 7}\n'
        '{"class": 3, "id": "../../three"}\n'
    )
    items = listed(path, count=1)
    found = [(item.id, item.spec, item.seed) for item in items]
    assert found == [
        ("hat-0000", "hat", None),
        ("glasses-0000", "glasses", 7),
        ("glasses-0001", "glasses", item_seed(7, "1")),
        ("../../three", "3", None),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"class": "hat"', "not a JSON object"),
        ('{"clas": "hat"}', "unknown key 'clas'"),
        ('{"class": ["hat"]}', "must be texts"),
        ('{"count": 0}', "`count` is 0"),
        ('{"count": -2}', "`count` is -2"),
        ('{"count": 1000000000}', "`count` is 1000000000"),
        ('{"count": true}', "`count` is True"),
        ('{"seed": "x"}', "`seed` is 'x'"),
        ('{"seed": -1}', "`seed` is -1"),
        ('{"seed": 9223372036854775808}', "`seed` is 9223372036854775808"),
    ],
)
def test_a_bad_line_is_an_item_with_a_problem(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "wanted.txt"
    path.write_text(f"hat\n{line}\nglasses\n")
    first, bad, last = listed(path, count=1)
    assert (first.problem, last.problem) == (None, None)
    assert bad.id == "wanted.txt:2"
    assert message in str(bad.problem)


def test_standard_input_is_a_list(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stdin:
        buffer = io.BytesIO(b"hat\nglasses\n")

    monkeypatch.setattr("sys.stdin", Stdin)
    assert [item.spec for item in listed("-")] == ["hat", "glasses"]


def test_images_of_a_folder_and_a_pattern(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("b.png", "a b.PNG", "sub/ü.jpg"):
        save(tmp_path / name)
    (tmp_path / "notes.md").write_text("no image")
    assert [item.id for item in listed(tmp_path)] == ["a b.PNG", "b.png", "ü.jpg"]
    assert [item.id for item in listed(f"{tmp_path}/*.png")] == ["b.png"]
    again = listed(tmp_path / "b.png", count=2, class_="hat")
    assert [(item.id, item.spec) for item in again] == [("b-0000", "hat"), ("b-0001", "hat")]
    assert listed(tmp_path / "b.png")[0].spec == ""


def test_sources_that_hold_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00\x80")
    for source, message in (
        ("nofile.png", "does not exist"),
        ("empty", "holds no images"),
        ("*.gif", "no file matches"),
        ("binary.txt", "no text"),
    ):
        with pytest.raises(InputError, match=message):
            listed(tmp_path / source)


@pytest.mark.parametrize("options", [{"mask": "m.png"}, {"outpaint": "left:2"}])
def test_masks_need_an_image(options: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="needs an image to complete, and there is no INPUT"):
        listed(FROM_OPTIONS, **options)
