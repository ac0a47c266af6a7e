"""The runner: every item gets a row, and the same one in every way of running it."""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqgen.artifacts import ArtifactFolder
from seqgen.batching import (
    Entry,
    Shard,
    failure_reason,
    list_entries,
    plan_batches,
    safe_stem,
)
from seqgen.domain import Artifact
from seqgen.errors import ConfigError, InputError, PluginError, UsageError
from seqgen.runner import Row, Runner
from seqgen.seeds import item_seed

TOY = Path(__file__).resolve().parents[1] / "toy_plugin"


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module of the toy domain."""
    monkeypatch.syspath_prepend(str(TOY))
    import seqgen_toy.domain

    yield seqgen_toy.domain
    for name in [name for name in sys.modules if name.startswith("seqgen_toy")]:
        del sys.modules[name]


def _rows(toy: Any, texts: dict[str, str], folder: Path, **settings: Any) -> list[Row]:
    """Rows of texts in input order, by the settings of `Runner`; `options` go to the toy."""
    for name, text in texts.items():
        (folder / name).write_text(text)
    domain = toy.ToyDomain()
    options = toy.ToyOptions(**settings.pop("options", {}))
    batch_size = settings.pop("batch_size", 4)
    entries = list_entries(domain, [str(folder)], options)
    runner = Runner(
        domain,
        7,
        decoder=settings.pop("decoder", "upper"),
        model_name="toy-seven",
        options=options,
        batch_size=batch_size,
        **settings,
    )
    found = {}
    for result in runner.run(plan_batches(entries, batch_size)):
        for entry, row in zip(result.batch.entries, result.rows, strict=True):
            found[entry.index] = row
    return [found[index] for index in sorted(found)]


def test_rows_have_the_contract_s_fields(toy: Any, tmp_path: Path) -> None:
    (row,) = _rows(toy, {"a.txt": "hello"}, tmp_path)
    assert list(row)[:5] == ["id", "status", "decoder", "model", "seconds"]
    assert row["id"] == "a.txt"
    assert row["status"] == "ok"
    assert row["text"] == "HELLO"
    assert row["seconds"] > 0


def test_one_poisonous_item_does_not_spoil_its_batch(toy: Any, tmp_path: Path) -> None:
    texts = {"a.txt": "one", "b.txt": "a POISON", "c.txt": "three", "d.txt": "four"}
    seen: list[str] = []
    rows = _rows(toy, texts, tmp_path, on_failure=lambda entry, error: seen.append(entry.id))
    assert [row["status"] for row in rows] == ["ok", "failed", "ok", "ok"]
    assert [row.get("text") for row in rows] == ["ONE", None, "THREE", "FOUR"]
    assert rows[1]["reason"] == "b.txt: RuntimeError: the whole batch died"
    assert seen == ["b.txt"]


def test_items_that_cannot_be_read_say_why(toy: Any, tmp_path: Path) -> None:
    texts = {"a.txt": "BAD", "b.txt": "", "c.txt": "CRASH", "d.txt": "fine"}
    rows = _rows(toy, texts, tmp_path)
    assert [row["status"] for row in rows] == ["failed", "failed", "failed", "ok"]
    assert "a.txt is not a toy text; it starts with BAD" in rows[0]["reason"]
    assert rows[1]["reason"] == "b.txt is empty"
    assert rows[2]["reason"] == "c.txt: ValueError: something nobody thought of"


def test_long_items_are_cut_and_joined(toy: Any, tmp_path: Path) -> None:
    text = "".join(chr(97 + i % 26) for i in range(1000))
    rows = _rows(toy, {"a.txt": "x", "long.txt": text}, tmp_path, options={"piece": 7})
    assert rows[1]["text"] == text.upper()
    assert len(rows[1]["company"]) == -(-1000 // 7)


def test_poison_in_one_piece_fails_the_item_and_not_its_company(toy: Any, tmp_path: Path) -> None:
    long = "a" * 40 + "b POISON" + "c" * 80
    rows = _rows(toy, {"a.txt": "x" * 30, "long.txt": long}, tmp_path)
    assert [row["status"] for row in rows] == ["ok", "failed"]


def test_a_long_item_is_never_in_memory_as_a_whole(toy: Any, tmp_path: Path) -> None:
    class Long(toy.ToyDomain):  # type: ignore[misc, name-defined]
        def split(self, item: Any, options: Any) -> Iterator[Any]:
            for _ in range(200):
                yield replace(item, text="x" * 1_000_000, size=1.0)

        def finish(self, generated: Any, pieces: Any, context: Any, options: Any) -> Any:
            return [{"text": "", "company": []} for _ in pieces]

    (tmp_path / "a.txt").write_text("x")
    options = toy.ToyOptions()
    domain = Long()
    entries = list_entries(domain, [str(tmp_path)], options)
    runner = Runner(domain, 7, decoder="upper", model_name="m", options=options, batch_size=2)
    tracemalloc.start()
    (result,) = runner.run(plan_batches(entries, 2))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert result.rows[0]["status"] == "ok"
    assert peak < 20_000_000  # 200 MB of text in all; 8 pieces are read ahead


def test_samples_depend_on_seed_and_item_and_nothing_else(toy: Any, tmp_path: Path) -> None:
    texts = {f"t{number}.txt": "abcdefgh" for number in range(9)}
    one = _rows(toy, texts, tmp_path, decoder="dice", seed=1, batch_size=4)
    two = _rows(toy, texts, tmp_path, decoder="dice", seed=1, batch_size=2)
    other = _rows(toy, texts, tmp_path, decoder="dice", seed=2, batch_size=4)
    assert [row["text"] for row in one] == [row["text"] for row in two]
    assert len({row["text"] for row in one}) == 9
    assert {row["text"] for row in one}.isdisjoint(row["text"] for row in other)


def test_pieces_of_an_item_have_seeds_of_their_own(toy: Any, tmp_path: Path) -> None:
    (row,) = _rows(toy, {"a.txt": "abcdefgh" * 2}, tmp_path, decoder="dice", options={"piece": 8})
    assert row["text"][:16] != row["text"][16:]


def test_events_come_with_the_ids_of_their_rows(toy: Any, tmp_path: Path) -> None:
    seen: list[tuple[list[str], int]] = []
    _rows(
        toy,
        {"a.txt": "one", "b.txt": "two"},
        tmp_path,
        on_event=lambda ids, event: seen.append((list(ids), event.forward)),
    )
    assert seen == [(["a.txt", "b.txt"], 0)]


def test_errors_of_the_whole_run_stop_it(toy: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no decoder"):
        _rows(toy, {"a.txt": "one"}, tmp_path, decoder="nope")

    class Broken(toy.ToyDomain):  # type: ignore[misc, name-defined]
        def split(self, item: Any, options: Any) -> Iterator[Any]:
            raise PluginError("needs a package")
            yield

    runner = Runner(Broken(), 7, decoder="upper", model_name="m", options=toy.ToyOptions())
    (window,) = plan_batches(list_entries(Broken(), [str(tmp_path)], toy.ToyOptions()), 4)
    with pytest.raises(PluginError, match="needs a package"):
        runner.decode(window[0])


def test_an_interrupt_is_not_an_item_s_failure(toy: Any, tmp_path: Path) -> None:
    class Interrupted(toy.ToyDomain):  # type: ignore[misc, name-defined]
        def condition(self, model: Any, pieces: Any, options: Any) -> Any:
            raise KeyboardInterrupt

    (tmp_path / "a.txt").write_text("x")
    options = toy.ToyOptions()
    runner = Runner(Interrupted(), 7, decoder="upper", model_name="m", options=options)
    (window,) = plan_batches(list_entries(Interrupted(), [str(tmp_path)], options), 4)
    with pytest.raises(KeyboardInterrupt):
        runner.decode(window[0])


def test_numbers_that_json_does_not_know_fail_the_item(toy: Any, tmp_path: Path) -> None:
    (row,) = _rows(toy, {"a.txt": "one"}, tmp_path, options={"spoil": True})
    assert row["status"] == "failed"
    assert "JSON" in row["reason"]


def test_a_plugin_cannot_hide_the_row_s_own_fields(toy: Any, tmp_path: Path) -> None:
    class Hides(toy.ToyDomain):  # type: ignore[misc, name-defined]
        def join(self, item: Any, parts: Any, options: Any) -> Any:
            return {"status": "splendid"}

    (tmp_path / "a.txt").write_text("x")
    options = toy.ToyOptions()
    runner = Runner(Hides(), 7, decoder="upper", model_name="m", options=options)
    (window,) = plan_batches(list_entries(Hides(), [str(tmp_path)], options), 4)
    with pytest.raises(PluginError, match="'status'"):
        runner.decode(window[0])


def test_missing_sources_and_doubles_are_entries_too(toy: Any, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    (tmp_path / "empty").mkdir()
    sources = [str(tmp_path / name) for name in ("a.txt", "gone.txt", "a.txt", "empty", "a.txt")]
    entries = list_entries(toy.ToyDomain(), sources, toy.ToyOptions())
    assert [entry.id for entry in entries][::2] == ["a.txt", "a.txt#2", "a.txt#3"]
    assert "gone.txt does not exist" in entries[1].reason
    assert "holds no items" in entries[3].reason
    assert len({entry.stem for entry in entries}) == 5
    limited = list_entries(toy.ToyDomain(), sources, toy.ToyOptions(), limit=2)
    assert [entry.id for entry in limited] == [entry.id for entry in entries[:2]]


def _entries(sizes: list[float]) -> list[Entry[Any]]:
    class Item:
        def __init__(self, number: int, size: float) -> None:
            self.id, self.size = str(number), size

    return [
        Entry(number, str(number), str(number), Item(number, size))
        for number, size in enumerate(sizes)
    ]


@given(st.lists(st.floats(0, 100), max_size=200), st.integers(1, 9), st.integers(1, 7))
def test_shards_are_contiguous_and_together_the_whole(
    sizes: list[float], batch_size: int, count: int
) -> None:
    windows = plan_batches(_entries(sizes), batch_size)
    whole = [batch for window in windows for batch in window]
    parts = [Shard(index, count).of(windows) for index in range(count)]
    assert [batch for part in parts for batch in part] == whole
    assert [batch.index for batch in whole] == list(range(len(whole)))
    following = 0
    for part in parts:
        places = sorted(entry.index for batch in part for entry in batch.entries)
        assert places == list(range(following, following + len(places)))
        following += len(places)
    assert following == len(sizes)
    assert all(1 <= len(batch.entries) <= batch_size for batch in whole)


def test_like_sizes_are_batched_together() -> None:
    windows = plan_batches(_entries([float(i % 2) for i in range(640)]), 8)
    pure = [
        batch
        for window in windows
        for batch in window
        if len({entry.size for entry in batch.entries}) == 1
    ]
    assert len(pure) == 80


@pytest.mark.parametrize("text", ["3/3", "a/b", "1", "-1/3", "0/0"])
def test_nonsense_shards(text: str) -> None:
    with pytest.raises(UsageError, match="--shard 0/3"):
        Shard.parse(text)


@given(st.text(max_size=300))
def test_stems_are_safe_file_names(item_id: str) -> None:
    stem = safe_stem(item_id)
    assert stem
    assert not stem.startswith(".")
    assert not set(stem) & set('/\\\0:*?"<>|\n')
    assert "--" not in stem
    assert len(stem.encode()) <= 130


def test_artifacts_stay_in_their_folder(tmp_path: Path) -> None:
    folder = ArtifactFolder(tmp_path / "out_files", tmp_path)
    stem = safe_stem("../../etc/passwd")
    row = folder.store(stem, {"file": Artifact(".png", b"x"), "score": 1})
    assert row == {"file": f"out_files/{stem}.png", "score": 1}
    both = folder.store("a", {"image": Artifact(".png", b"1"), "masks": [Artifact(".png", b"2")]})
    assert both == {"image": "out_files/a--image.png", "masks": ["out_files/a--masks-0.png"]}
    assert all(path.parent == folder.folder for path in tmp_path.rglob("*.png"))
    with pytest.raises(PluginError, match="suffix"):
        folder.store("a", {"file": Artifact("/../x", b"")})


def test_item_seeds_are_spread_and_stable() -> None:
    seeds = {item_seed(seed, f"item-{number}") for seed in range(20) for number in range(200)}
    assert len(seeds) == 4000
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert item_seed(0, "a") == item_seed(0, "a")
    # the value is part of every output: changing it is a breaking change
    assert item_seed(0, "example") == 4624260937435198588


def test_reasons_are_one_line_and_name_the_item() -> None:
    error = InputError("x.wav is no sound", why="bad\nheader", fix="convert it")
    assert failure_reason("x.wav", error) == "x.wav is no sound; bad header; convert it"
    assert failure_reason("y", ConfigError("odd")) == "y: odd"
    assert failure_reason("y", KeyError("k")) == "y: KeyError: 'k'"
