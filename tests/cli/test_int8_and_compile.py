"""`--dtype int8` and `--compile`: they reach the model, stand in the record, and say what fails."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from toys import Done

Seqgen = Callable[..., Done]

TEXT = ("--plugin", "text", "--model", "text-tiny")
PROMPT = "count from 7 to 11:"

needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None, reason="torch.compile needs a C++ compiler"
)


def test_8_bits_change_little_and_stand_in_the_record(seqgen: Seqgen) -> None:
    rows = {}
    for dtype in ("float32", "int8", "float32"):
        arguments = ("run", *TEXT, PROMPT, "--dtype", dtype, "-o", "o.jsonl", "--overwrite")
        assert seqgen(*arguments).code == 0
        row = json.loads(Path("o.jsonl").read_text())
        manifest = Path("o.jsonl.manifest.jsonl").read_text().splitlines()
        header = json.loads(manifest[0])
        assert (header["dtype"], header["compile"]) == (dtype, False)
        assert rows.setdefault(dtype, row) == row  # a float32 model after one of 8 bits
    assert rows["int8"]["text"] == rows["float32"]["text"] == " 7, 8, 9, 10, 11."
    assert rows["int8"]["confidences"] != rows["float32"]["confidences"]
    near = pytest.approx(rows["float32"]["confidences"], abs=0.05)
    assert rows["int8"]["confidences"] == near


def test_8_bits_lose_next_to_no_likelihood(seqgen: Seqgen, tmp_path: Path) -> None:
    pair = {"prompt": "two red cats", "reference": " chase an old dog."}
    (tmp_path / "p.jsonl").write_text(json.dumps(pair))
    found = {}
    for dtype in ("float32", "int8"):
        done = seqgen("eval", *TEXT, "p.jsonl", "--dtype", dtype, "--json")
        found[dtype] = json.loads(done.out)
        assert (found[dtype]["dtype"], found[dtype]["compile"]) == (dtype, False)
    assert found["int8"]["bits_per_byte"] != found["float32"]["bits_per_byte"]
    near = pytest.approx(found["float32"]["bits_per_byte"], abs=0.01)
    assert found["int8"]["bits_per_byte"] == near


@pytest.mark.parametrize("plugin", ["speech", "peptides", "time-series", "images"])
def test_plugins_decode_with_8_bits(seqgen: Seqgen, plugin: str) -> None:
    done = seqgen("run", "--plugin", plugin, "--limit", 1, "--dtype", "int8")
    assert (done.code, json.loads(done.out)["status"]) == (0, "ok")


def test_bench_and_compare_say_what_was_measured(seqgen: Seqgen) -> None:
    asked = (*TEXT, PROMPT, "--decoders", "ar", "--dtype", "int8", "--json", "--repeats", 1)
    for command, more in (("bench", ()), ("compare", ("--no-picture",))):
        printed = json.loads(seqgen(command, *asked, *more).out)
        assert (printed["dtype"], printed["compile"]) == ("int8", False)


def test_a_file_may_ask_for_both(seqgen: Seqgen, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("dtype: int8\ncompile: true\n")
    ask = ("run", *TEXT, PROMPT, "--config", "c.yaml")
    plan = json.loads(seqgen(*ask, "--dry-run").out)
    assert (plan["settings"]["dtype"], plan["settings"]["compile"]) == ("int8", True)
    plan = json.loads(seqgen(*ask, "--dry-run", "--no-compile").out)
    assert plan["settings"]["compile"] is False
    done = seqgen(*ask)
    assert (done.code, "8-bit weights cannot be compiled" in done.err) == (2, True)
    (tmp_path / "c.yaml").write_text("compile: 3\n")
    assert "compile must be true or false, not 3" in seqgen(*ask).err


@needs_compiler
def test_compiled_text_is_the_same(seqgen: Seqgen) -> None:
    texts = [
        json.loads(seqgen("run", *TEXT, PROMPT, *more).out)["text"] for more in ((), ["--compile"])
    ]
    assert texts[0] == texts[1] == " 7, 8, 9, 10, 11."


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "--plugin", "speech", "--compile"), "cannot be compiled for decoding"),
        (("run", "--plugin", "toy", "--dtype", "int8"), "there are no weights in int"),
        (("run", "--plugin", "toy", "--compile"), "there are no weights in int"),
        (("run", *TEXT, PROMPT, "--dtype", "int4"), "unknown dtype 'int4'"),
        (("train", *TEXT[:2], "-o", "t", "--preset", "micro", "--set", "precision=int8"), "int8"),
        (("train", *TEXT[:2], "-o", "t", "--preset", "micro", "--set", "dtype=int8"), "dtype"),
    ],
)
def test_what_cannot_be(seqgen: Seqgen, arguments: tuple[str, ...], message: str) -> None:
    done = seqgen(*arguments)
    assert (done.code, message in done.err) == (2, True)
    assert "Traceback" not in done.err
    assert not done.out
