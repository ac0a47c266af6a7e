"""The text plugin's training: tales, documents, a Hugging Face folder, and its conversion."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest
import torch

from seqgen.canvas import Canvas
from seqgen.decoders import Autoregressive, BlockDiffusion
from seqgen.errors import CheckpointError, InputError
from seqgen.inputs import MaskedInputs, ShiftedInputs
from seqgen.models.qwen3 import load_qwen3
from seqgen.orders import Raster
from seqgen.training.loop import fit
from seqgen_text.characters import END_ID, MASK, character_tokenizer, encode
from seqgen_text.chat import ChatTemplate
from seqgen_text.corpus import Tale, is_true, main, tales
from seqgen_text.documents import Windows, read_documents
from seqgen_text.measures import bits_per_character, finished_tales, true_tales
from seqgen_text.training import TextRun, TextTask, decoder_of


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training that shows only that everything works."""
    folder = tmp_path_factory.mktemp("runs") / "ar"
    options, config = TextTask.presets["micro"]
    config = replace(config, steps=12)
    run = TextTask().start(options, config, data=None, seed=0, folder=folder)
    fit(run, config, folder=folder)
    return folder


def converted(source: Path, folder: Path, length: int = 4, steps: int = 4) -> TextRun:
    options, config = TextTask.conversions["block-diffusion"]
    options = replace(options, block_length=length, length=48, batch=8, count=500, validation=4)
    config = replace(config, steps=steps, warmup=1, compile=False, precision="float32")
    run = TextTask().convert(source, options, config, data=None, seed=0, folder=folder)
    fit(run, config, folder=folder)
    return run


def test_every_drawn_tale_is_true_and_reproducible() -> None:
    drawn = list(tales(3, 2000))
    assert all(is_true(tale.text) for tale in drawn)
    assert drawn == list(tales(3, 2000))
    assert drawn[:50] != list(tales(4, 50))
    assert all(0 <= tale.given < len(tale.text) for tale in drawn)


@pytest.mark.parametrize(
    ("true", "part", "wrong"),
    [
        ("anna has 5 nuts. she buys 3 more. now anna has 8 nuts.", "she", "he"),
        ("anna has 5 nuts. she buys 3 more. now anna has 8 nuts.", "8", "9"),
        ("anna has 5 nuts. she loses 3. now anna has 2 nuts.", "loses 3", "loses 3 more"),
        ("today is monday, 30 june. tomorrow is tuesday, 1 july.", "30", "31"),
        ("today is sunday, 28 february. tomorrow is monday, 1 march.", "1 march", "29 february"),
        (
            "tom is older than ben. ben is older than paul. so tom is older than paul.",
            "so tom",
            "so",
        ),
        ("count from 8 to 11: 8, 9, 10, 11.", " 10,", ""),
        ("sort 3 9 4: 3 4 9.", ": 3 4 9", ": 3 9 4"),
        ("the word dog is spelled d-o-g.", "d-o-g", "d-o-c"),
        ("the code is abc. say it again: abc.", "again: abc", "again: abd"),
        ("an old dog sees the cat.", "an old", "a old"),
        ("the dogs see a cat.", "see", "sees"),
        ("two dogs see a cat.", "dogs", "dog"),
    ],
)
def test_one_error_makes_a_tale_untrue(true: str, part: str, wrong: str) -> None:
    assert is_true(true)
    assert part in true
    assert not is_true(true.replace(part, wrong))


def test_the_tokenizer_knows_every_character_and_where_a_document_ends() -> None:
    pytest.importorskip("tokenizers")
    made = character_tokenizer("hello\nworld é")
    ids = made.encode("hello é\n?").ids
    assert ids[0] == END_ID
    assert len(ids) == 10
    assert made.decode(ids) == "hello é\n"  # `?` was not among them
    assert made.token_to_id(MASK) == made.get_vocab_size() - 1
    assert encode(made, ["he"], END_ID)[0][0] == END_ID
    assert len(encode(made, ["he"], END_ID)[0]) == 3


def test_documents_are_split_and_held_out(tmp_path: Path) -> None:
    file = tmp_path / "tales.txt"
    file.write_text("\n\n".join(tale.text for tale in tales(0, 400)) + "\n")
    found = read_documents(file, count=0)
    assert not set(found.train) & set(found.held_out)
    assert 5 <= len(found.held_out) <= 10
    assert found.tales == ()
    assert found.train == read_documents(None, count=400).train  # the same seed, written or not
    tokenizer = character_tokenizer(found.characters)
    windows = Windows(found, tokenizer, end_id=END_ID, length=32, size=4, seed=1)
    first = windows.batch(7, 0)
    assert torch.equal(first, windows.batch(7, 0))
    assert not torch.equal(first, windows.batch(8, 0))
    assert not torch.equal(first, windows.batch(7, 1))
    assert first.shape == (4, 32)


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "holds no text"), (b"\xff\xfe\x00", "UTF-8"), (b"one document", "too few")],
)
def test_bad_data(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_documents(tmp_path, count=0)


def test_the_corpus_is_written_by_a_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["corpus", "-o", str(tmp_path / "t.txt"), "--count", "30"])
    main()
    parts = (tmp_path / "t.txt").read_text().strip().split("\n\n")
    assert len(parts) == 30
    assert all(is_true(part) for part in parts)


def test_training_writes_a_qwen3_folder(trained: Path) -> None:
    model, config, tokenizer = load_qwen3(trained)
    assert isinstance(model.inputs, ShiftedInputs)
    assert tokenizer is not None
    assert config.vocabulary == tokenizer.get_vocab_size()
    assert config.stop_ids == (END_ID,)
    log = [json.loads(line) for line in (trained / "log.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in log if "loss" in line]
    assert losses[-1] < losses[0]
    assert {"bits_per_character", "finished", "true"} <= log[-1].keys()
    out = Autoregressive().generate(model, Canvas.tokens([tokenizer.encode("to").ids], new=5))
    assert len(tokenizer.decode(out.values[0].tolist())) <= 7


def test_conversion_writes_an_sdar_folder_that_both_decoders_run(
    trained: Path, tmp_path: Path
) -> None:
    run = converted(trained, tmp_path / "block")
    model, config, tokenizer = load_qwen3(tmp_path / "block")
    assert isinstance(model.inputs, MaskedInputs)
    assert tokenizer is not None
    assert config.block_length == 4
    assert config.mask_id == tokenizer.token_to_id(MASK)
    assert config.vocabulary == run.config.vocabulary == tokenizer.get_vocab_size()
    fields = json.loads((tmp_path / "block" / "config.json").read_text())
    assert (fields["model_type"], fields["block_size"]) == ("sdar", 4)
    prompt = tokenizer.encode("to").ids
    for decoder in (Autoregressive(), BlockDiffusion(block_length=4)):
        out = decoder.generate(model, Canvas.tokens([prompt], new=6))
        assert out.length_B.tolist() == [9]
    assert out.forwards <= 3 * 4


def test_a_conversion_starts_from_the_models_weights(trained: Path, tmp_path: Path) -> None:
    options, config = TextTask.conversions["block-diffusion"]
    options = replace(options, count=500)
    run = TextTask().convert(trained, options, config, data=None, seed=0, folder=tmp_path)
    source, _, _ = load_qwen3(trained)
    found = run.sequence_model.state_dict()
    mask = run.config.mask_id
    for name, value in source.state_dict().items():
        same = found[name] == value
        if name == "inputs.embedding.weight":
            assert not bool(same[mask].all())
            same = torch.cat([same[:mask], same[mask + 1 :]])
        assert bool(same.all()), name


def test_a_tokenizer_without_a_mask_gets_one(trained: Path, tmp_path: Path) -> None:
    """An autoregressive folder from elsewhere: the vocabulary grows by the mask."""
    fields = json.loads((trained / "tokenizer.json").read_text())
    fields["added_tokens"] = [t for t in fields["added_tokens"] if t["content"] != MASK]
    fields["model"]["vocab"]["$"] = fields["model"]["vocab"].pop(MASK)
    for name in ("config.json", "generation_config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((trained / name).read_bytes())
    (tmp_path / "tokenizer.json").write_text(json.dumps(fields))
    run = converted(tmp_path, tmp_path / "block", steps=1)
    before = load_qwen3(tmp_path)[1].vocabulary
    assert run.config.mask_id == before
    _, config, tokenizer = load_qwen3(tmp_path / "block")
    assert tokenizer is not None
    assert config.vocabulary == before + 1 == tokenizer.get_vocab_size()


def test_a_conversion_keeps_the_chat_template(trained: Path, tmp_path: Path) -> None:
    source = tmp_path / "chat"
    shutil.copytree(trained, source)
    ChatTemplate("<{{ messages[0].content }}>{{ eos_token }}", {"eos_token": "!"}, source).write(
        source
    )
    run = converted(source, tmp_path / "block", steps=1)
    run.export(tmp_path / "out", {})
    kept = ChatTemplate.read(tmp_path / "out")
    assert kept is not None
    assert kept.render("hi") == "<hi>!"
    assert ChatTemplate.read(trained) is None


def test_what_cannot_be_converted(trained: Path, tmp_path: Path) -> None:
    converted(trained, tmp_path / "block", steps=1)
    with pytest.raises(CheckpointError, match="block-diffusion model already"):
        converted(tmp_path / "block", tmp_path / "again")
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        converted(tmp_path, tmp_path / "again")


def test_measures_count_what_one_row_alone_would_need(trained: Path) -> None:
    """Passes of a batch are counted row by row, and equal those of every row decoded alone."""
    model, config, tokenizer = load_qwen3(trained)
    assert tokenizer is not None
    run = TextTask().convert(
        trained, replace(TextTask.conversions["block-diffusion"][0], count=500),
        TextTask.conversions["block-diffusion"][1], data=None, seed=0, folder=trained,
    )  # fmt: skip
    decoder = run.decoder(0.0)
    chosen = [Tale("the cat sees a dog.", 7), Tale("ab", 1), Tale("sort 3 2 1: 1 2 3.", 11)]
    together = finished_tales(run.sequence_model.eval(), tokenizer, decoder, chosen)
    alone = [finished_tales(run.sequence_model, tokenizer, decoder, [tale]) for tale in chosen]
    assert together.tokens == sum(each.tokens for each in alone)
    assert together.forwards == sum(each.forwards for each in alone)
    assert together.share == 0.0
    ar = true_tales(model, tokenizer, Autoregressive(stop_ids=config.stop_ids), count=3, seed=0)
    assert ar.tokens_per_forward == 1.0


def test_bits_per_character_of_a_model_that_knows_nothing(trained: Path) -> None:
    model, config, tokenizer = load_qwen3(trained)
    assert tokenizer is not None
    with torch.no_grad():
        model.head.weight.zero_()  # type: ignore[operator, union-attr]
    bits = bits_per_character(model, tokenizer, ["ab", "tom"], Raster(), end_id=END_ID, seed=0)
    assert bits == pytest.approx(torch.tensor(config.vocabulary).log2().item(), rel=1e-4)


def test_the_shipped_conversion_is_nearly_as_good_in_half_the_passes() -> None:
    assets = Path(str(files("seqgen_text") / "assets"))
    chosen = [tale for tale in read_documents(None, count=6000).tales if tale.given][:60]
    found = {}
    for name in ("text-tiny", "text-tiny-block"):
        model, config, tokenizer = load_qwen3(assets / name)
        assert tokenizer is not None
        found[name] = finished_tales(
            model, tokenizer, decoder_of(config, tokenizer, temperature=0.0), chosen
        )
    before, after = found["text-tiny"], found["text-tiny-block"]
    assert before.share > 0.6
    assert after.share > before.share - 0.15
    assert before.tokens_per_forward == 1.0
    assert after.tokens_per_forward > 1.8
