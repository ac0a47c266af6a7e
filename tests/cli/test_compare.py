"""`seqgen compare`: several decoders over the same inputs, a table and a picture."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from toys import Done, texts

Seqgen = Callable[..., Done]


def test_the_example_by_all_decoders(seqgen: Seqgen, tmp_path: Path) -> None:
    done = seqgen("compare", "--plugin", "toy")
    assert done.code == 0
    for expected in ("accuracy", "forwards", "seconds", "tokens/s", "upper", "reverse", "dice"):
        assert expected in done.out
    assert (tmp_path / "compare.png").read_bytes().startswith(b"\x89PNG")


def test_json_has_an_entry_for_each_decoder(seqgen: Seqgen, tmp_path: Path) -> None:
    command = ["compare", "--plugin", "toy", "--decoders", "reverse,upper", "--json"]
    found = json.loads(seqgen(*command, "-o", "p.svg").out)
    assert [entry["decoder"] for entry in found["decoders"]] == ["reverse", "upper"]
    reverse, upper = found["decoders"]
    assert (reverse["forwards"], upper["forwards"]) == (9, 1)
    assert (reverse["accuracy"], upper["accuracy"]) == (0.0, 1.0)
    assert upper["tokens"] == 9
    assert upper["tokens_per_second"] > 0
    assert (tmp_path / "p.svg").exists()


def test_without_references_speed_alone_is_compared(seqgen: Seqgen, tmp_path: Path) -> None:
    folder = texts(tmp_path / "in", 5)
    done = seqgen("compare", "--plugin", "toy", folder, "--decoders", "upper,reverse")
    assert done.code == 1  # one of the five is unusable
    assert "no quality columns: t000.txt has no reference" in done.err
    assert done.err.count("failed: ") == 1
    assert (tmp_path / "compare.png").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--decoders", "uper"], "did you mean 'upper'"),
        (["--decoders", ","], "--decoders a,b"),
        (["-o", "picture.doc"], "name it picture.png"),
    ],
)
def test_wrong_usage(seqgen: Seqgen, arguments: list[str], message: str) -> None:
    done = seqgen("compare", "--plugin", "toy", *arguments)
    assert done.code == 2
    assert message in done.err
    assert done.out == ""


def test_decoders_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from toys import TOY

    monkeypatch.syspath_prepend(str(TOY))
    from seqgen_toy.domain import ToyDomain, ToyOptions

    from seqgen.batching import list_entries, plan_batches
    from seqgen.runner import Runner
    from seqgen.scoring import compare

    order: list[str] = []

    class Watched(ToyDomain):
        def plan(self, model, context, decoder, options, seeds):  # type: ignore[no-untyped-def]
            order.append(decoder)
            return super().plan(model, context, decoder, options, seeds)

    folder = texts(tmp_path / "in", 3)
    options, domain = ToyOptions(), Watched()
    runners = [
        Runner(domain, 7, decoder=name, model_name="m", options=options)
        for name in ("upper", "reverse")
    ]
    windows = plan_batches(list_entries(domain, [str(folder)], options), 1)
    batches = [batch for window in windows for batch in window]
    scores = compare(runners, batches, repeats=1)
    assert order == ["upper", "reverse", "upper", "reverse", "reverse", "upper", "upper", "reverse"]
    assert [done.score.items for done in scores] == [3, 3]  # the warm-up is not counted
    order.clear()
    again = compare(runners, batches, repeats=2)
    assert len(order) == 2 + 2 * 6
    assert [done.score.forwards for done in again] == [done.score.forwards for done in scores]
