"""Listing items: every kind of source, stable unique ids, references, malformed manifests."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from seqgen.errors import InputError
from seqgen_speech.manifests import SpeechItem, list_items

sf = pytest.importorskip("soundfile")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.wav", "a.flac", "sub/c.wav", "sub/a.WAV", "twin.wav", "twin.flac", ".x.wav"):
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        sf.write(path, np.zeros(8000), 16000)
    (tmp_path / "data/broken.wav").write_text("not audio")
    (tmp_path / "data/notes.md").write_text("nothing")
    (tmp_path / "data/b.txt").write_text("hello there\n")
    (tmp_path / "data/.hidden").mkdir()
    sf.write(tmp_path / "data/.hidden/h.wav", np.zeros(8000), 16000)
    return tmp_path / "data"


def ids(source: Path | str) -> list[str]:
    return [item.id for item in list_items(str(source))]


def test_a_folder(folder: Path) -> None:
    items = {item.id: item for item in list_items(str(folder))}
    assert list(items) == ["a", "b", "broken", "sub/a", "sub/c", "twin.flac", "twin.wav"]
    assert items["a"].duration == items["a"].size == 0.5
    assert items["broken"].duration == 0.0  # the error comes when it is read
    assert items["b"].reference == "hello there"
    assert items["a"].reference is None
    without = list_items(str(folder), references="none")
    assert all(item.reference is None for item in without)


def test_patterns(folder: Path) -> None:
    assert ids(f"{folder}/*.wav") == ["b", "broken", "twin"]
    assert ids(f"{folder}/**/*.wav") == ["b", "broken", "sub/c", "twin"]
    with pytest.raises(InputError, match="no file matches"):
        ids(f"{folder}/*.ogg")


def test_single_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ids(folder / "sub/c.wav") == ["c"]
    monkeypatch.chdir(folder)
    assert ids("./sub/c.wav") == ["sub/c"]
    assert ids("sub/../b.wav") == ["b"]
    assert ids("../data/b.wav") == ["b"]
    assert ids("-") == ["stdin"]
    # A file whose name looks like a pattern is a file.
    sf.write(folder / "a[1].wav", np.zeros(8000), 16000)
    assert ids(folder / "a[1].wav") == ["a[1]"]


def test_nothing_there(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist") as caught:
        ids(folder / "bb.wav")
    assert f"did you mean {folder / 'b.wav'}" in caught.value.fix
    (tmp_path / "void").mkdir()
    with pytest.raises(InputError, match="holds no audio"):
        ids(tmp_path / "void")
    with pytest.raises(InputError, match="does not exist"):
        ids(tmp_path / "nowhere/x.wav")


def test_digit_file_names(tmp_path: Path) -> None:
    for name in ("7_theo_12.wav", "x_theo_12.wav", "77_theo_1.wav"):
        sf.write(tmp_path / name, np.zeros(4000), 8000)
    items = {i.id: i.reference for i in list_items(str(tmp_path), references="fsdd")}
    assert items == {"7_theo_12": "seven", "x_theo_12": None, "77_theo_1": None}


def test_jsonl(folder: Path, tmp_path: Path) -> None:
    rows = [
        {"key": "k1", "source": "data/a.flac", "target": "one two"},
        {"id": 2, "audio": str(folder / "b.wav"), "text": "", "duration": 0.5, "speaker": "x"},
        {"path": "data/sub/c.wav", "start": 0.1, "stop": 0.3},
        {"key": "k4", "audio_filepath": "data/a.flac", "offset": 0.25, "duration": 0.1},
        {"key": "gone", "audio": "data/gone.wav"},
    ]
    manifest = tmp_path / "list.jsonl"
    manifest.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    items = list(list_items(str(manifest)))
    assert [item.id for item in items] == ["k1", "2", "data/sub/c", "k4", "gone"]
    assert [item.reference for item in items] == ["one two", "", None, None, None]
    assert items[0].path == str(tmp_path / "data/a.flac")
    assert (items[2].start, items[2].stop) == (0.1, 0.3)
    assert (items[3].start, items[3].stop) == (0.25, 0.35)
    assert [round(item.duration, 3) for item in items] == [0.5, 0.5, 0.2, 0.1, 0.0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{not json}", "line 1 is not JSON"),
        ('{"key": "a"}', "line 1 names no audio"),
        ('["a"]', "line 1 names no audio"),
        ('{"audio": "a.wav"}\n\n{"audio": "a.wav"}', "line 3: the key 'a' appears twice"),
        ('{"audio": "a.wav", "start": "x"}', "must be seconds"),
        ('{"audio": "https://example.org/a.wav"}', "web address"),
        ('{"audio": "rm -rf / |"}', "is a command"),
    ],
)
def test_a_malformed_line_is_a_bad_item_and_the_others_go_on(
    folder: Path, tmp_path: Path, text: str, message: str
) -> None:
    last = f'{{"key": "last", "audio": "{folder}/a.flac"}}'
    (tmp_path / "list.jsonl").write_text(f"{text}\n{last}\n")
    *_, bad, good = list_items(str(tmp_path / "list.jsonl"))
    assert good.problem is None
    assert good.id == "last"
    assert message in str(bad.problem)
    assert bad.id.startswith("list.jsonl:")


def test_an_empty_manifest_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "list.jsonl").write_text("")
    with pytest.raises(InputError, match="is empty"):
        ids(tmp_path / "list.jsonl")


def test_kaldi_folder(folder: Path, tmp_path: Path) -> None:
    kaldi = tmp_path / "kaldi"
    kaldi.mkdir()
    (kaldi / "wav.scp").write_text(f"r1 {folder}/a.flac\nr2\t{folder}/b.wav\n")
    (kaldi / "text").write_text("r1 hello world\nr2\n")
    expected = [
        SpeechItem("r1", f"{folder}/a.flac", reference="hello world", duration=0.5),
        SpeechItem("r2", f"{folder}/b.wav", reference="", duration=0.5),
    ]
    assert list(list_items(str(kaldi))) == expected
    assert list(list_items(str(kaldi / "wav.scp"))) == expected
    (kaldi / "segments").write_text("s1 r1 0.1 0.2\ns2 r2 0.0 -1\n")
    (kaldi / "text").write_text("s1 hello\n")
    assert list(list_items(str(kaldi))) == [
        SpeechItem("s1", f"{folder}/a.flac", 0.1, 0.2, "hello", 0.1),
        SpeechItem("s2", f"{folder}/b.wav", 0.0, None, None, 0.5),
    ]
    (kaldi / "segments").write_text("s1 r9 0.1 0.2\n")
    (bad,) = list_items(str(kaldi))
    assert "key s1 is malformed" in str(bad.problem)


def test_pipes_are_never_executed(tmp_path: Path) -> None:
    canary = tmp_path / "ran"
    (tmp_path / "wav.scp").write_text(f"a touch {canary} |\n")
    (bad,) = list_items(str(tmp_path))
    assert "is a command" in str(bad.problem)
    assert not canary.exists()


def test_the_data_folder(shared_data: Path) -> None:
    prompts = list(list_items(str(shared_data / "speech/prompts.jsonl")))
    assert len(prompts) == len({item.id for item in prompts}) == 484
    assert all(item.reference and item.duration > 0.3 for item in prompts)
    digits = list(list_items(str(shared_data / "speech/fsdd"), references="fsdd"))
    assert len(digits) == 1200
    assert all(item.reference for item in digits)
