"""`seqgen models`: list, show, pull."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from seqgen_cli.main import run


@pytest.fixture
def user_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's registry file with one model, fetched from a file on this disk."""
    content = b"weights" * 1000
    source = tmp_path / "source.bin"
    source.write_bytes(content)
    registry = tmp_path / "mine.yaml"
    registry.write_text(
        "schema: 1\nmodels:\n  my-model:\n    plugin: speech\n    status: untested\n"
        "    summary: mine\n    licence: {code: MIT, weights: CC0-1.0}\n"
        f"    files: [{{name: m.bin, sha256: {hashlib.sha256(content).hexdigest()}, "
        f"size: {len(content)}, urls: ['{source.as_uri()}']}}]\n"
    )
    monkeypatch.setenv("SEQGEN_REGISTRY", str(registry))
    monkeypatch.setenv("SEQGEN_CACHE", str(tmp_path / "cache"))
    return source


def test_list_is_a_table_or_json(user_card: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models"]) == 0
    table = capsys.readouterr().out
    assert table.splitlines()[0].split() == ["NAME", "PLUGIN", "STATUS", "FILES", "ARE", "SUMMARY"]
    assert "my-model" in table
    assert run(["models", "list", "--plugin", "speech", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["my-model"]["files_are"] == "to pull"
    assert rows["paraformer-zh"]["status"] == "converter-tested"


def test_show_prints_the_card(user_card: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", "show", "my-model"]) == 0
    text = capsys.readouterr().out
    assert "weights: CC0-1.0" in text
    assert "m.bin" in text
    assert run(["models", "show", "paraformer-zh", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["source"]["repo"] == "modelscope/FunASR"


def test_pull_fetches_and_prints_the_path(
    user_card: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["models", "pull", "my-model"]) == 0
    path = Path(capsys.readouterr().out.strip())
    assert path == tmp_path / "cache" / "models" / "my-model" / "m.bin"
    assert path.read_bytes() == user_card.read_bytes()


def test_a_changed_source_is_refused(user_card: Path, capsys: pytest.CaptureFixture[str]) -> None:
    user_card.write_bytes(b"weightz" * 1000)
    assert run(["models", "pull", "my-model"]) == 4
    message = capsys.readouterr().err
    assert "sha256 expected" in message
    assert hashlib.sha256(b"weightz" * 1000).hexdigest() in message


def test_a_damaged_cache_says_how_to_repair_it(
    user_card: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["models", "pull", "my-model"]) == 0
    path = tmp_path / "cache" / "models" / "my-model" / "m.bin"
    path.write_bytes(b"torn")
    capsys.readouterr()
    assert run(["models", "pull", "my-model"]) == 4
    message = capsys.readouterr().err
    assert f"rm -f {path} && seqgen models pull my-model" in message


def test_a_wrong_registry_is_named_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("schema: 1\nmodels:\n  m: {plugin: speech, statuss: untested}\n")
    monkeypatch.setenv("SEQGEN_REGISTRY", str(wrong))
    assert run(["models"]) == 2
    message = capsys.readouterr().err
    assert f"{wrong}:3: unknown key 'statuss'" in message
    assert "did you mean 'status'?" in message
