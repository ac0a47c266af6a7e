"""Loading a folder: weights, tokenizer and chat template belong together."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from tests.text.conftest import Folders
from tests.text.tiny_models import END, MASK, SDAR, make_model, make_tokenizer

from seqgen.errors import CheckpointError, ConfigError
from seqgen.inputs import MaskedInputs, ShiftedInputs
from seqgen.registry import Card, CardFile
from seqgen_text.domain import TextDomain
from seqgen_text.model import load_text_model
from seqgen_text.options import TextOptions

TEMPLATE = (
    "{%- for m in messages %}{{ '<' + m.role + '>' + m.content }}\n{% endfor %}"
    "{%- if add_generation_prompt %}{{ eos_token }}{% endif %}"
)


def test_a_qwen3_folder_is_autoregressive(folders: Folders) -> None:
    model = load_text_model(folders.qwen3)
    assert isinstance(model.ar.inputs, ShiftedInputs)
    assert model.block is None
    assert model.decoders == ("ar", "speculative")
    assert model.config.stop_ids == (END,)
    assert model.decode(model.encode("a b.")) == "a b."
    assert not model.ar.training


def test_an_sdar_folder_runs_both_ways(folders: Folders) -> None:
    model = load_text_model(folders.sdar)
    assert model.block is model.ar
    assert isinstance(model.ar.inputs, MaskedInputs)
    assert (model.config.mask_id, model.config.block_length) == (MASK, 4)
    assert model.decoders == ("ar", "block-diffusion", "nar")


def test_a_file_of_the_folder_names_it_and_the_type_is_chosen(folders: Folders) -> None:
    model = load_text_model(folders.qwen3 / "config.json", dtype=torch.bfloat16)
    assert model.folder == folders.qwen3
    assert {p.dtype for p in model.ar.parameters()} == {torch.bfloat16}


def test_a_card_of_files_is_their_folder(folders: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a shipped model is: files of a package, each with its checksum."""
    (folders.qwen3.parent / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(folders.qwen3.parent.parent))
    files = tuple(
        CardFile(
            package=folders.qwen3.parent.name,
            path=f"qwen3/{path.name}",
            sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        )
        for path in sorted(folders.qwen3.iterdir())
    )
    card = Card(name="shipped", plugin="text", status="verified", files=files)
    model = TextDomain().build(card, torch.device("cpu"), torch.float32)
    assert model.folder == folders.qwen3
    assert model.decode(model.encode("a b")) == "a b"


def test_prompts_are_never_cut_or_filled_up(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "m")
    tokenizer = make_tokenizer()
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=8)
    tokenizer.save(str(folder / "tokenizer.json"))
    assert len(load_text_model(folder).encode("abcdefgh a")) == 10
    assert len(load_text_model(folder).encode("ab")) == 2


def test_a_tokenizer_that_is_missing_damaged_or_anothers(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "m", tokenizer=False)
    with pytest.raises(CheckpointError, match=r"has no tokenizer\.json"):
        load_text_model(folder)
    (folder / "tokenizer.json").write_text('{"version": "1.0"}')
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is damaged"):
        load_text_model(folder)
    small = make_model(tmp_path / "s", config={"vocab_size": 20})
    with pytest.raises(CheckpointError, match=rf"has token {MASK - 1}, the model 20 tokens"):
        load_text_model(small)


# Chat templates ---------------------------------------------------------------------------------


@pytest.fixture
def chat(tmp_path: Path) -> Path:
    folder = make_model(tmp_path / "chat", config=SDAR)
    config = {"chat_template": TEMPLATE, "eos_token": {"content": "<end>"}}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def test_a_chat_template_is_used_where_there_is_one(chat: Path) -> None:
    model = load_text_model(chat)
    assert model.chat is not None
    assert model.chat.render("hi", "be brief") == "<system>be brief\n<user>hi\n<end>"
    ids = model.encode_prompt("hi", TextOptions())
    assert ids[-1] == END
    assert ids == model.encode_prompt("hi", TextOptions(chat="on"))
    assert model.encode_prompt("hi", TextOptions(chat="off")) == model.encode("hi")


def test_a_template_in_a_file_of_its_own_wins_and_named_ones_have_a_default(chat: Path) -> None:
    named = [{"name": "tool", "template": "t"}, {"name": "default", "template": "d"}]
    (chat / "tokenizer_config.json").write_text(json.dumps({"chat_template": named}))
    found = load_text_model(chat).chat
    assert found is not None
    assert found.render("x") == "d"
    (chat / "chat_template.jinja").write_text("{{ messages[0].content | tojson }}")
    found = load_text_model(chat).chat
    assert found is not None
    assert found.render("<é>") == '"<é>"'


def test_wrong_templates(chat: Path, folders: Folders, tmp_path: Path) -> None:
    for source in (
        "{{ raise_exception('no system message') }}",
        "{% for %}",
        "{{ messages[7].content }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",  # out of the sandbox
    ):
        (chat / "chat_template.jinja").write_text(source)
        with pytest.raises(CheckpointError, match=r"the chat template in .* cannot be used"):
            load_text_model(chat).encode_prompt("hi", TextOptions())
    (chat / "tokenizer_config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"tokenizer_config\.json is damaged"):
        load_text_model(chat)
    for options in (TextOptions(chat="on"), TextOptions(system="be brief")):
        with pytest.raises(ConfigError, match="has no chat template"):
            load_text_model(folders.qwen3).encode_prompt("hi", options)


def test_a_folder_moved_as_a_whole_still_loads(folders: Folders, tmp_path: Path) -> None:
    shutil.copytree(folders.sdar, tmp_path / "moved")
    ours, theirs = load_text_model(tmp_path / "moved"), load_text_model(folders.sdar)
    for one, two in zip(ours.ar.parameters(), theirs.ar.parameters(), strict=True):
        assert torch.equal(one, two)
