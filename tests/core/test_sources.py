"""The files of one INPUT."""

from __future__ import annotations

from pathlib import Path

import pytest

from seqgen.errors import InputError
from seqgen.sources import find_files


def names(source: object) -> list[str]:
    found = find_files(str(source), what="tables", suffixes=(".csv", ".csv.gz"))
    assert all(path.is_file() and path.as_posix().endswith(name) for name, path in found)
    return [name for name, _ in found]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.csv", "a.CSV", "sub/c.csv.gz", "sub/d.txt", ".e.csv", ".git/f.csv", "g[1].csv"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    (tmp_path / "gone.csv").symlink_to("nowhere")
    (tmp_path / "folder.csv").mkdir()
    return tmp_path


def test_a_folder_is_searched_by_suffix(folder: Path) -> None:
    assert names(folder) == ["a.CSV", "b.csv", "g[1].csv", "sub/c.csv.gz"]


def test_a_pattern_and_a_file_may_have_any_suffix(folder: Path) -> None:
    assert names(folder / "**" / "*") == ["a.CSV", "b.csv", "g[1].csv", "sub/c.csv.gz", "sub/d.txt"]
    assert names(folder / "su?" / "*") == ["sub/c.csv.gz", "sub/d.txt"]
    assert names(folder / "sub/d.txt") == ["d.txt"]
    assert names(folder / "g[1].csv") == ["g[1].csv"]


def test_the_home_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder))
    assert names("~/sub") == ["c.csv.gz"]
    assert names("~/b*") == ["b.csv"]


def test_nothing_is_found(folder: Path) -> None:
    (folder / "sub/c.csv.gz").unlink()
    with pytest.raises(InputError, match=r"sub holds no tables\s+why: no file .* in .csv, .csv.gz"):
        names(folder / "sub")
    with pytest.raises(InputError, match="no file matches"):
        names(folder / "*.parquet")
    with pytest.raises(InputError, match=r"c\.csv does not exist\s+fix: did you mean .*b\.csv"):
        names(folder / "bc.csv")
