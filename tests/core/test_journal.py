"""The journal: whole batches only, the same configuration only, one writer only."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from seqgen.errors import UsageError
from seqgen.journal import Journal, replacing, to_line, write_jsonl

HEADER = {"model": "m", "seed": 3, "options": {"beams": 1, "sizes": (1, 2)}}


def _row(index: int) -> dict[str, object]:
    return {"id": f"item {index} é", "status": "failed" if index == 2 else "ok", "seconds": 0.5}


def _write(path: Path, batches: int) -> None:
    with Journal.create(path, HEADER) as journal:
        for number in range(batches):
            places = [3 * number + offset for offset in (1, 0, 2)]
            rows = [(place, _row(place)) for place in places]
            journal.append(number, rows, forwards=4, seconds=0.25)


def test_rows_come_back_in_input_order(tmp_path: Path) -> None:
    path = tmp_path / "out.manifest.jsonl"
    _write(path, 3)
    with Journal.resume(path, HEADER) as journal:
        assert list(journal.rows()) == [_row(index) for index in range(9)]
        assert journal.done == {0, 1, 2}
        assert journal.totals.items == 9
        assert journal.totals.failures == 1
        assert journal.totals.forwards == 12
        assert journal.totals.seconds == pytest.approx(0.75)


def test_any_torn_tail_is_dropped_and_the_rest_kept(tmp_path: Path) -> None:
    path = tmp_path / "out.manifest.jsonl"
    _write(path, 3)
    whole = path.read_bytes()
    ends = [0]
    for line in whole.splitlines(keepends=True):
        ends.append(ends[-1] + len(line))
    marks = [
        end for end, line in zip(ends[1:], whole.splitlines(), strict=True) if b'"batch"' in line
    ]
    near = {end + offset for end in ends for offset in (-1, 0, 1)}
    for cut in sorted(near & set(range(len(whole) + 1)) | set(range(0, len(whole), 41))):
        path.write_bytes(whole[:cut])
        with Journal.resume(path, HEADER) as journal:
            finished = sum(mark <= cut for mark in marks)
            assert journal.done == set(range(finished))
            assert list(journal.rows()) == [_row(index) for index in range(3 * finished)]
            for number in range(finished, 3):
                places = [3 * number + offset for offset in (1, 0, 2)]
                rows = [(place, _row(place)) for place in places]
                journal.append(number, rows, forwards=4, seconds=0.25)
        assert path.read_bytes() == whole


def test_a_damaged_line_costs_only_what_follows(tmp_path: Path) -> None:
    path = tmp_path / "out.manifest.jsonl"
    _write(path, 3)
    lines = path.read_bytes().splitlines(keepends=True)
    lines[6] = b"\x00\x00\xff\n"
    path.write_bytes(b"".join(lines))
    with Journal.resume(path, HEADER) as journal:
        assert journal.done == {0}
        assert journal.dropped > 0


def test_the_summary_of_a_finished_run_is_written_once(tmp_path: Path) -> None:
    path = tmp_path / "out.manifest.jsonl"
    _write(path, 2)
    for _ in range(3):
        with Journal.resume(path, HEADER) as journal:
            assert journal.done == {0, 1}
            journal.finish()
    kinds = [json.loads(line)["kind"] for line in path.read_text().splitlines()]
    assert kinds.count("summary") == 1
    assert kinds[-1] == "summary"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 4}, "seed was 3, is 4"),
        ({"model": "n"}, 'model was "m", is "n"'),
        ({"options": {"beams": 2, "sizes": (1, 2)}}, "options.beams was 1, is 2"),
        ({"shard": "0/3"}, 'shard was not set, is "0/3"'),
    ],
)
def test_another_configuration_is_refused(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    path = tmp_path / "out.manifest.jsonl"
    _write(path, 1)
    before = path.read_bytes()
    with pytest.raises(UsageError) as caught:
        Journal.resume(path, {**HEADER, **change})
    assert message in str(caught.value)
    assert "--overwrite" in str(caught.value)
    assert path.read_bytes() == before


def test_what_cannot_matter_may_differ(tmp_path: Path) -> None:
    path = tmp_path / "out.manifest.jsonl"
    _write(path, 1)
    Journal.resume(path, {**HEADER, "threads": 4, "started": "today"}).close()


def test_some_other_file_is_not_taken_for_a_manifest(tmp_path: Path) -> None:
    path = tmp_path / "out.manifest.jsonl"
    path.write_text('{"kind": "row"}\n')
    with pytest.raises(UsageError, match="not the manifest"):
        Journal.resume(path, HEADER)


def test_two_writers_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    path = tmp_path / "out.manifest.jsonl"
    with Journal.create(path, HEADER):
        with pytest.raises(UsageError, match="another process"):
            Journal.resume(path, HEADER)
        with pytest.raises(UsageError, match="another process"):
            Journal.create(path, HEADER)
    Journal.resume(path, HEADER).close()


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "out.txt"
    path.write_text("old")

    def fail_halfway() -> None:
        with replacing(path) as part:
            part.write_text("new")
            raise RuntimeError("disk gone")

    with pytest.raises(RuntimeError, match="disk gone"):
        fail_halfway()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_block_that_writes_nothing_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "out.srt"
    path.write_text("an older run's")
    with replacing(path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_names_that_are_not_text_can_be_written(tmp_path: Path) -> None:
    row = {"id": "caf\udce9.wav", "text": "café"}
    write_jsonl(tmp_path / "out.jsonl", iter([row]))
    assert json.loads((tmp_path / "out.jsonl").read_bytes()) == row
    assert to_line({"text": "café"}) == '{"text": "café"}\n'.encode()
