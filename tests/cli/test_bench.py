"""`seqgen bench`: the decoders' speed in the form that all benchmarks share."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from toys import Done, texts

from seqgen.benchmark import interleaved

Seqgen = Callable[..., Done]


def test_a_row_a_decoder_in_the_common_form(seqgen: Seqgen) -> None:
    done = seqgen("bench", "--plugin", "toy", "--json", "-o", "speed.json", "--repeats", "3")
    printed = json.loads(done.out)
    kept = json.loads(Path("speed.json").read_text())
    assert done.code == 0
    assert (printed["plugin"], printed["benchmark"]) == ("toy", "bench")
    assert kept == {key: printed[key] for key in ("benchmark", "machine", "rows")}
    assert kept["machine"]["threads"] == 1
    rows = {row["case"]: row for row in kept["rows"]}
    assert list(rows) == ["upper", "reverse", "dice"]
    assert [rows[name]["forwards"] for name in rows] == [1, 9, 9]
    assert rows["upper"]["tokens"] == 9
    for row in rows.values():
        assert row["pieces"] == 1
        assert row["decode_wall_ms"] > 0
        assert row["tokens_per_second"] > 0
        assert row["condition_wall_ms"] == rows["upper"]["condition_wall_ms"]


def test_the_table_has_the_decoders_asked_for(seqgen: Seqgen) -> None:
    done = seqgen("bench", "--plugin", "toy", "--decoders", "dice,upper,dice")
    lines = done.out.splitlines()
    assert [line.split()[0] for line in lines] == ["bench:", "case", "dice", "upper"]
    assert "1 thread" in lines[0]
    assert "measuring on the example shipped with toy" in done.err


def test_bad_inputs_are_reported_and_left_out(seqgen: Seqgen, tmp_path: Path) -> None:
    folder = texts(tmp_path / "in", 5)
    done = seqgen("bench", "--plugin", "toy", folder, "gone.txt", "--json", "--repeats", "1")
    assert done.code == 1
    assert json.loads(done.out)["rows"][0]["pieces"] >= 4
    assert done.err.count("failed: ") == 2
    only = seqgen("bench", "--plugin", "toy", "gone.txt")
    assert (only.code, "no input could be read" in only.err) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--decoders", "uper"], "did you mean 'upper'"),
        (["--decoders", ","], "--decoders a,b"),
        (["--repeats", "0"], "repeats"),
    ],
)
def test_wrong_usage(seqgen: Seqgen, arguments: list[str], message: str) -> None:
    done = seqgen("bench", "--plugin", "toy", *arguments)
    assert (done.code, message in done.err) == (2, True)


def test_calls_take_turns_and_the_first_round_does_not_count() -> None:
    order: list[str] = []
    times = interleaved(
        {name: lambda name=name: order.append(name) for name in "abc"},  # type: ignore[misc]
        repeats=2,
    )
    assert "".join(order) == "abc" + "bca" + "cab"
    assert set(times) == {"a", "b", "c"}
    assert all(time.wall_ms >= 0 and time.cpu_ms >= 0 for time in times.values())
