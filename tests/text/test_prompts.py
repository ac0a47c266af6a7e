"""What an INPUT is: a prompt, a file of prompts, standard input."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import pytest

from seqgen import options as option_values
from seqgen.errors import ConfigError, InputError, UsageError
from seqgen_text.options import TextOptions
from seqgen_text.prompts import Prompt, id_of, list_prompts


def listed(source: object, **options: Any) -> list[Prompt]:
    return list(list_prompts(str(source), TextOptions(**options)))


def test_a_text_is_a_prompt_and_its_own_id() -> None:
    assert listed("Once upon a time") == [Prompt("Once upon a time", "Once upon a time")]
    (prompt,) = listed(" two\nlines ")
    assert prompt.text == " two\nlines "
    assert prompt.id.startswith("two lines~")
    long = "word " * 40
    assert len(id_of(long)) < 60
    assert id_of(long) != id_of(long + "x")


def test_existing_txt_and_jsonl_files_are_read(tmp_path: Path) -> None:
    lines = tmp_path / "lines.txt"
    lines.write_text("\ufeffone\r\n\n  \ntwo words \n", encoding="utf-8")
    assert [(p.id, p.text) for p in listed(lines)] == [
        ("lines:1", "one"),
        ("lines:4", "two words "),
    ]
    rows = tmp_path / "rows.jsonl"
    rows.write_text(
        '{"prompt": "a", "reference": "b", "id": 7}\n\n'
        '{"text": "c"}\n[1]\n{"prompt": ""}\n{"prompt": 3}\n{"id": "x"}\n{"prompt": "d", '
    )
    found = listed(rows)
    assert [(p.id, p.text, p.reference) for p in found[:2]] == [
        ("7", "a", "b"),
        ("rows:3", "c", None),
    ]
    problems = [str(p.problem.what) for p in found[2:] if p.problem is not None]
    assert problems == [
        "rows:4 is not a JSON object",
        "rows:5: the prompt is empty",
        "rows:6: prompt and reference must be texts",
        "x has no prompt",
        "rows:8 is not JSON",
    ]


def test_windows_of_a_text(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("abcdefgh\nj")
    found = listed(path, window=4)
    assert [(p.text, p.reference) for p in found] == [("ab", "cd"), ("ef", "gh")]


def test_other_files_and_words_are_prompts_unless_the_option_says_so(tmp_path: Path) -> None:
    path = tmp_path / "notes.md"
    path.write_text("one\ntwo\n")
    assert [p.text for p in listed(path)] == [str(path)]
    assert [p.text for p in listed(path, input="file")] == ["one", "two"]
    assert [p.text for p in listed(tmp_path)] == [str(tmp_path)]
    with pytest.raises(InputError, match=r"missing\.txt does not exist(.|\n)*input=text"):
        listed("missing.txt")
    assert [p.text for p in listed("missing.txt", input="text")] == ["missing.txt"]
    assert [p.text for p in listed("read it in missing.txt")] == ["read it in missing.txt"]
    assert [p.text for p in listed("-", input="text")] == ["-"]
    with pytest.raises(InputError, match="cannot read"):
        listed(tmp_path, input="file")


@pytest.mark.parametrize("text", ["a\0b.txt", "x" * 5000 + ".txt", "\ud800"])
def test_prompts_that_are_no_possible_file_name(text: str) -> None:
    assert [p.text for p in listed(text, input="text")] == [text]
    if not text.endswith(".txt"):
        assert [p.text for p in listed(text)] == [text]


def test_standard_input_holds_a_prompt_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("é\n\nb".encode())))
    assert [(p.id, p.text) for p in listed("-")] == [("stdin:1", "é"), ("stdin:3", "b")]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff\xfe")))
    with pytest.raises(InputError, match="not text in UTF-8"):
        listed("-")


def test_an_empty_prompt_is_a_wrong_command() -> None:
    with pytest.raises(UsageError, match="the prompt is empty"):
        listed("")


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("block_length=0", "'block_length' is 0, outside its range"),
        ("threshold=2.0", r"'threshold' is 2\.0, outside its range(.|\n)*in 0\.0\.\.1\.0"),
        ("threshold=-1", "'threshold' is -1.0"),
        ("entropy_bound=-1", "'entropy_bound' is -1.0"),
        ("steps=0", "'steps' is 0"),
        ("max_new_tokens=0", "'max_new_tokens' is 0"),
        ("temperature=-1", "'temperature' is -1.0"),
        ("top_p=0", "'top_p' is 0.0"),
        ("remasking=random", "'remasking' cannot be 'random'"),
        ("confidence=top", "'confidence' cannot be 'top'"),
        ("draft_length=0", "'draft_length' is 0"),
        ("blok_length=4", "unknown option 'blok_length'(.|\n)*did you mean 'block_length'"),
    ],
)
def test_options_out_of_range(assignment: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        option_values.parse(TextOptions, [assignment])


def test_options_that_do_not_fit_together() -> None:
    with pytest.raises(ConfigError, match="needs a chat template"):
        TextOptions(system="be brief", chat="off")
    with pytest.raises(ConfigError, match="empty text"):
        TextOptions(stop=("",))


def test_stop_texts_have_escapes() -> None:
    options = option_values.parse(TextOptions, [r"stop=\n\n,\\n,a\tb,\x"])
    assert options.stop_texts == ("\n\n", "\\n", "a\tb", "\\x")
