"""The text domain: its contract, its rows, where texts end, and how it scores references."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.text.conftest import Folders
from tests.text.tiny_models import END, SDAR, byte_tokenizer, make_model
from tokenizers import Tokenizer

from seqgen.batching import list_entries, plan_batches
from seqgen.canvas import COMMITTED
from seqgen.domain import Streaming, available_decoders
from seqgen.errors import CheckpointError, ConfigError, InputError, UsageError
from seqgen.events import Event
from seqgen.plugins import Plugins
from seqgen.registry import card_from_path
from seqgen.runner import Runner
from seqgen.testing import check_domain
from seqgen_text.domain import TextDomain
from seqgen_text.live import clean
from seqgen_text.metrics import score
from seqgen_text.options import TextOptions
from seqgen_text.prompts import Prompt

PROMPTS = ["Once upon a time", "a", "It was so"]


def decode(
    folder: Path,
    decoder: str,
    prompts: Sequence[str] = PROMPTS,
    *,
    batch_size: int = 8,
    shown: list[str] | None = None,
    **options: Any,
) -> list[dict[str, Any]]:
    """Rows of prompts, as `seqgen run` gets them."""
    domain = TextDomain()
    model = domain.build(card_from_path(folder, plugin="text"), torch.device("cpu"), torch.float32)
    chosen = TextOptions(**options)
    entries = list_entries(domain, prompts, chosen)
    runner = Runner(
        domain,
        model,
        decoder=decoder,
        model_name="tiny",
        options=chosen,
        batch_size=batch_size,
        live=None if shown is None else domain.live(model, shown.append, len(prompts)),
    )
    rows = [row for done in runner.run(plan_batches(entries, batch_size)) for row in done.rows]
    place = {entry.id: entry.index for entry in entries}
    return sorted(rows, key=lambda row: place[row["id"]])


@pytest.mark.parametrize("kind", ["qwen3", "sdar"])
def test_contract(folders: Folders, kind: str) -> None:
    """The example is the shipped model's; characters that this one does not know are unknown."""
    plugins = Plugins()
    report = check_domain(
        plugins.domain("text"),
        info=plugins.info("text"),
        card=card_from_path(getattr(folders, kind), plugin="text"),
    )
    expected = {"qwen3": ("ar", "speculative"), "sdar": ("ar", "block-diffusion", "nar")}
    assert report.decoders == expected[kind]
    assert report.metrics is not None
    assert {"accuracy", "perplexity", "bits_per_byte"} <= set(report.metrics)


def test_a_row(folders: Folders) -> None:
    (row,) = decode(folders.sdar, "block-diffusion", ["Once"], max_new_tokens=10, steps=2)
    assert row["status"] == "ok"
    assert row["prompt"] == "Once"
    assert row["text"] == "".join(row["tokens"])
    assert len(row["tokens"]) == len(row["token_ids"]) == len(row["confidences"]) == 10
    assert all(0 < c <= 1 for c in row["confidences"])
    assert row["finish_reason"] == "length"
    # Twelve tokens in three blocks of four, two passes each.
    assert (row["forwards"], row["tokens_per_forward"]) == (6, 2.0)


@pytest.mark.parametrize("options", [{}, {"temperature": 1.0, "top_k": 5, "min_p": 0.01}])
@pytest.mark.parametrize("decoder", ["ar", "block-diffusion", "nar", "speculative"])
def test_rows_do_not_depend_on_the_batch(
    folders: Folders, decoder: str, options: dict[str, Any]
) -> None:
    folder = folders.qwen3 if decoder == "speculative" else folders.sdar
    given: dict[str, Any] = {"max_new_tokens": 14, "stop": ("a", "k."), **options}
    together = decode(folder, decoder, **given)
    alone = decode(folder, decoder, batch_size=1, **given)
    for one, two in zip(together, alone, strict=True):
        one, two = ({**row, "seconds": 0} for row in (one, two))
        assert one.pop("confidences") == pytest.approx(two.pop("confidences"), abs=2e-4)
        assert one == two


def test_speculative_text_is_that_of_ar_and_drafts_save_passes(folders: Folders) -> None:
    ar = decode(folders.qwen3, "ar", max_new_tokens=40, end=False)
    for options in ({}, {"draft": str(folders.draft)}, {"draft": str(folders.qwen3)}):
        rows = decode(folders.qwen3, "speculative", max_new_tokens=40, end=False, **options)
        assert [row["text"] for row in rows] == [row["text"] for row in ar]
    # A model drafts for itself: all four stand, and the pass gives one more.
    assert [row["forwards"] for row in rows] == [8, 8, 8]


def test_drafts_of_another_family_are_refused(folders: Folders, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="it is no autoregressive model"):
        decode(folders.qwen3, "speculative", draft=str(folders.sdar))
    other = make_model(tmp_path / "other")
    path = other / "tokenizer.json"
    path.write_text(path.read_text().replace('"a":3', '"a":4').replace('"b":4', '"b":3'))
    if '"a": 3' in path.read_text():  # written with spaces
        text = path.read_text().replace('"a": 3', '"a": 4', 1).replace('"b": 4', '"b": 3', 1)
        path.write_text(text)
    with pytest.raises(ConfigError, match="their tokenizers differ"):
        decode(folders.qwen3, "speculative", draft=str(other))
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        decode(folders.qwen3, "speculative", draft=str(tmp_path / "none"))


@pytest.mark.parametrize(
    ("kind", "decoder"),
    [("qwen3", "block-diffusion"), ("qwen3", "nar"), ("sdar", "speculative")],
)
def test_decoders_that_a_model_does_not_have(folders: Folders, kind: str, decoder: str) -> None:
    with pytest.raises(UsageError, match=f"has no decoder '{decoder}'"):
        decode(getattr(folders, kind), decoder)
    model = TextDomain().build(
        card_from_path(getattr(folders, kind), plugin="text"), torch.device("cpu"), torch.float32
    )
    assert decoder not in available_decoders(TextDomain(), model, Plugins().info("text").decoders)


# Where texts end --------------------------------------------------------------------------------


@pytest.mark.parametrize("decoder", ["ar", "block-diffusion", "nar"])
def test_an_end_token_ends_a_row_and_is_not_part_of_it(tmp_path: Path, decoder: str) -> None:
    from tests.text.tiny_models import SDAR

    folder = make_model(tmp_path / "m", config=SDAR, seed=1, end_bias=8.0)
    rows = decode(folder, decoder, temperature=1.0, max_new_tokens=24)
    assert "stop" in {row["finish_reason"] for row in rows}
    for row in rows:
        assert END not in row["token_ids"]
        assert (row["finish_reason"] == "length") == (len(row["tokens"]) == 24)
    on = decode(folder, decoder, temperature=1.0, max_new_tokens=24, end=False)
    assert {row["finish_reason"] for row in on} == {"length"}
    assert {len(row["token_ids"]) for row in on} == {24}


@pytest.mark.parametrize("decoder", ["ar", "block-diffusion", "nar", "speculative"])
def test_stop_texts_cut_the_text_and_end_the_row_early(folders: Folders, decoder: str) -> None:
    folder = folders.qwen3 if decoder == "speculative" else folders.sdar
    given: dict[str, Any] = {"max_new_tokens": 30, "temperature": 1.0, "end": False}
    whole = decode(folder, decoder, **given)
    stop = whole[0]["text"][7:9]
    rows = decode(folder, decoder, **given, stop=(stop,))
    for before, row in zip(whole, rows, strict=True):
        found = before["text"].find(stop)
        expected = before["text"] if found < 0 else before["text"][:found]
        assert row["text"] == expected
        assert row["finish_reason"] == ("length" if found < 0 else "stop_text")
        if found >= 0 and decoder not in ("nar",):
            assert len(row["tokens"]) == found + len(stop)
            assert row["forwards"] < before["forwards"]


def test_positions_end_a_text_that_nobody_limited(folders: Folders) -> None:
    (row,) = decode(folders.qwen3, "ar", ["a" * 60])
    assert len(row["tokens"]) == 96 - 60
    (row,) = decode(folders.sdar, "block-diffusion", ["a" * 95], max_new_tokens=1)
    assert len(row["tokens"]) == 1
    rows = decode(folders.qwen3, "ar", ["a" * 96, "a" * 90, "a"], max_new_tokens=8)
    assert [row["status"] for row in rows] == ["failed", "failed", "ok"]
    assert "97 tokens (prompt and new ones) are too many" in rows[0]["reason"]
    assert "98 tokens" in rows[1]["reason"]
    assert rows[0]["prompt"] == "a" * 96


def test_numbers_that_are_not_finite_are_a_damaged_checkpoint(tmp_path: Path) -> None:
    from tests.text.tiny_models import CONFIG, random_weights, write_weights

    folder = make_model(tmp_path / "nan")
    weights = random_weights(CONFIG, 0)
    weights["model.layers.1.mlp.up_proj.weight"][0, 0] = math.nan
    write_weights(folder, weights)
    with pytest.raises(CheckpointError, match="not finite"):
        decode(folder, "ar", max_new_tokens=4)


# Scores -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "decoder", "options"),
    [
        ("qwen3", "ar", {}),
        ("sdar", "ar", {}),
        ("sdar", "block-diffusion", {"remasking": "sequential"}),
        ("sdar", "block-diffusion", {"remasking": "sequential", "block_length": 7}),
    ],
)
def test_the_likelihood_is_that_of_decoding_the_reference(
    folders: Folders, tmp_path: Path, kind: str, decoder: str, options: dict[str, Any]
) -> None:
    """What is decoded greedily is scored as a reference: its confidences multiply to its mass."""
    folder, prompt = getattr(folders, kind), "Once upon"
    (row,) = decode(folder, decoder, [prompt], max_new_tokens=19, end=False, **options)
    domain = TextDomain()
    domain.build(card_from_path(folder, plugin="text"), torch.device("cpu"), torch.float32)
    path = tmp_path / "p.jsonl"
    import json

    path.write_text(json.dumps({"prompt": prompt, "reference": row["text"]}))
    (again,) = decode(folder, decoder, [str(path)], end=False, **options)
    assert again["text"] == row["text"]
    nats = -sum(math.log(c) for c in row["confidences"])
    assert again["reference_nats"] == pytest.approx(nats, rel=2e-3)
    assert again["reference_tokens"] == again["reference_bytes"] == 19
    metrics = score([again], [Prompt("x", prompt, row["text"])])
    assert metrics["accuracy"] == 1.0
    assert metrics["perplexity"] == pytest.approx(math.exp(again["reference_nats"] / 19), rel=1e-3)
    assert metrics["bits_per_byte"] == pytest.approx(nats / math.log(2) / 19, rel=2e-3)


def test_metrics_count_failures_as_wrong_and_need_references() -> None:
    row = {"status": "ok", "text": " b ", "forwards": 4, "tokens_per_forward": 2.0}
    items = [Prompt("1", "a", "b"), Prompt("2", "a", "c"), Prompt("3", "a")]
    metrics = score([row, {"status": "failed"}, row], items)
    assert metrics == {"accuracy": 0.5, "tokens_per_forward": 2.0}
    with pytest.raises(InputError, match="no item has a reference"):
        score([row], items[2:])


# Streaming --------------------------------------------------------------------------------------


@pytest.mark.parametrize("decoder", ["ar", "block-diffusion", "nar", "speculative"])
@pytest.mark.parametrize("stop", [(), ("Q", "k")])
def test_what_streams_is_the_text(folders: Folders, decoder: str, stop: tuple[str, ...]) -> None:
    folder = folders.qwen3 if decoder == "speculative" else folders.sdar
    assert isinstance(TextDomain(), Streaming)
    shown: list[str] = []
    rows = decode(folder, decoder, max_new_tokens=21, temperature=1.0, stop=stop, shown=shown)
    parts = [f"[{row['id']}]\n{row['text']}\n" for row in sorted(rows, key=lambda r: len(r["id"]))]
    assert "".join(shown) == "".join(parts)


def test_text_appears_as_blocks_commit(folders: Folders) -> None:
    """Blocks of four behind four tokens of prompt, from left to right, each whole."""
    shown: list[str] = []
    options: dict[str, Any] = {"remasking": "low_confidence_dynamic", "threshold": 0.0}
    (row,) = decode(
        folders.sdar, "block-diffusion", ["Once"], max_new_tokens=10, shown=shown, **options
    )
    text = row["text"]
    assert [part for part in shown if part] == [text[:4], text[4:8], text[8:], "\n"]
    shown.clear()
    (row,) = decode(folders.qwen3, "ar", ["Once"], max_new_tokens=5, shown=shown)
    assert shown == [*row["text"], "\n"]


@pytest.fixture(scope="session")
def bytes_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bytes")
    fields = {**SDAR, "vocab_size": 257, "mask_token_id": 256, "eos_token_id": None}
    make_model(folder, config=fields, tokenizer=False)
    byte_tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def test_characters_of_several_tokens_stream_whole(bytes_model: Path) -> None:
    domain, answer = TextDomain(), "größe 日本\n👍🏽 e"
    card = card_from_path(bytes_model, plugin="text")
    model = domain.build(card, torch.device("cpu"), torch.float32)
    options = TextOptions(max_new_tokens=len(answer.encode()))
    (piece,) = domain.split(Prompt("1", "a"), options)
    context = domain.condition(model, [piece], options)
    plan = domain.plan(model, context, "ar", options, torch.zeros(1, dtype=torch.int64))
    shown: list[str] = []
    live = domain.live(model, shown.append, 1)
    live.begin(["1"], plan)
    for slot, token in enumerate(model.encode(answer), 1):
        plan.canvas.values[0, slot] = token
        plan.canvas.state_BS[0, slot] = COMMITTED
        live.event(Event.__new__(Event))
    live.end()
    assert [part for part in shown if part] == [*answer, "\n"]


@pytest.mark.parametrize("decoder", ["ar", "block-diffusion"])
def test_bytes_that_are_no_text_stream_as_they_end_up(bytes_model: Path, decoder: str) -> None:
    shown: list[str] = []
    for prompt in ("a", "b", "ä"):
        (row,) = decode(
            bytes_model, decoder, [prompt], max_new_tokens=60, temperature=1.0, shown=shown
        )
        assert "".join(shown) == f"{clean(row['text'])}\n"
        shown.clear()


def test_a_prompt_that_holds_the_mask_is_refused(bytes_model: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_file(str(bytes_model / "tokenizer.json"))
    tokenizer.add_special_tokens(["<|MASK|>"])
    folder = shutil.copytree(bytes_model, tmp_path / "model")
    tokenizer.save(str(folder / "tokenizer.json"))
    rows = decode(folder, "block-diffusion", ["a<|MASK|>b", "a"], max_new_tokens=4)
    assert [row["status"] for row in rows] == ["failed", "ok"]
    assert "holds '<|MASK|>', the model's mask token" in rows[0]["reason"]
    path = tmp_path / "reference.jsonl"
    path.write_text('{"prompt": "a", "reference": "b<|MASK|>"}')
    (row,) = decode(folder, "block-diffusion", [str(path)])
    assert "the model's mask token" in row["reason"]


def test_control_characters_do_not_reach_the_terminal() -> None:
    assert clean("a\x1b[31m\x07b\n\tc\r") == "a\N{REPLACEMENT CHARACTER}[31m" + (
        "\N{REPLACEMENT CHARACTER}b\n\tc\N{REPLACEMENT CHARACTER}"
    )
    assert clean("a\nb", lines=False) == "a\N{REPLACEMENT CHARACTER}b"
