"""The text plugin on the command line: running, streaming, scoring, and every kind of bad input."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.text.conftest import Folders, Seqgen
from tests.text.tiny_models import MASK, SDAR, make_model

Break = Callable[[Path], None]


def run(seqgen: Seqgen, folder: Path, *arguments: object) -> Any:
    return seqgen("run", "--plugin", "text", "--model", folder, *arguments)


def test_a_prompt_streams_on_stderr_and_its_row_goes_to_stdout(
    seqgen: Seqgen, folders: Folders
) -> None:
    arguments = ("--decoder", "block-diffusion", "Once upon", "--set", "max_new_tokens=12")
    done = run(seqgen, folders.sdar, *arguments)
    assert done.code == 0
    (line,) = done.out.splitlines()
    row = json.loads(line)
    assert done.err.startswith(f"{row['text']}\n1 item in ")
    quiet = run(seqgen, folders.sdar, "--no-stream", *arguments)
    assert quiet.err.startswith("1 item in ")
    assert json.loads(quiet.out)["text"] == row["text"]


def test_a_folder_is_decoded_as_it_was_trained(seqgen: Seqgen, folders: Folders) -> None:
    few = ("a", "--set", "max_new_tokens=4")
    for folder, decoder in ((folders.qwen3, "ar"), (folders.sdar, "block-diffusion")):
        assert json.loads(run(seqgen, folder, *few).out)["decoder"] == decoder
        assert json.loads(run(seqgen, folder / "config.json", *few).out)["decoder"] == decoder
    assert json.loads(run(seqgen, folders.sdar, *few, "--decoder", "ar").out)["decoder"] == "ar"


def test_several_prompts_stream_only_when_asked_for(
    seqgen: Seqgen, folders: Folders, tmp_path: Path
) -> None:
    few = ("--set", "max_new_tokens=4")
    done = run(seqgen, folders.qwen3, "one", "two", *few)
    assert done.err.startswith("2 items in ")
    done = run(seqgen, folders.qwen3, "one", "two", *few, "--stream", "-o", tmp_path / "o.txt")
    assert done.err.startswith("[one]\n")
    text = (tmp_path / "o.txt").read_text()
    assert text.startswith("== one ==\n")
    assert "\n\n== two ==\n" in text


def test_plugins_that_cannot_stream_say_so(seqgen: Seqgen) -> None:
    done = seqgen("run", "--plugin", "time-series", "--stream", "--limit", 1)
    assert done.code == 2
    assert "the plugin 'time-series' cannot stream" in done.err


def test_the_same_command_gives_the_same_bytes(seqgen: Seqgen, folders: Folders) -> None:
    arguments = ("a", "Once", "--set", "max_new_tokens=9", "--set", "temperature=1", "-o")
    for name, extra in (("1.jsonl", ()), ("2.jsonl", ("--batch-size", 1))):
        assert run(seqgen, folders.qwen3, *arguments, name, *extra).code == 0
    one, two = (
        [json.loads(line)["text"] for line in Path(name).read_text().splitlines()]
        for name in ("1.jsonl", "2.jsonl")
    )
    assert one == two


def test_eval_and_compare(seqgen: Seqgen, folders: Folders, tmp_path: Path) -> None:
    path = tmp_path / "held_out.txt"
    path.write_text("Once upon a time there was a cat. It sat on a mat, and it was so.")
    common = ("--plugin", "text", "--model", folders.sdar, path, "--set", "window=32", "--json")
    done = seqgen("eval", *common, "--decoder", "block-diffusion")
    assert done.code == 0
    scored = json.loads(done.out)
    assert scored["items"] == 2
    assert scored["perplexity"] > 1
    done = seqgen("compare", *common, "--repeats", 1, "--no-picture")
    assert done.code == 0
    found = {score["decoder"]: score for score in json.loads(done.out)["decoders"]}
    assert set(found) == {"ar", "block-diffusion", "nar"}
    assert found["block-diffusion"]["bits_per_byte"] == scored["bits_per_byte"]
    assert "left out: speculative" in done.err
    alone = seqgen("compare", *common, "--decoders", "speculative", "--no-picture")
    assert alone.code == 2


def test_help_names_decoders_and_options(seqgen: Seqgen) -> None:
    done = seqgen("run", "--plugin", "text", "--help")
    assert done.code == 0
    for word in ("block-diffusion", "remasking", "entropy_bound", "confidence", "draft_length"):
        assert word in done.out


def test_listing_imports_nothing_heavy() -> None:
    code = "import sys, seqgen_text, seqgen_text.options, seqgen_text.prompts; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "numpy", "tokenizers", "jinja2"} & set(done.stdout.split())


# Bad input --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("a", "--set", "block_length=0"), 2, "option 'block_length' is 0, outside its range"),
        (("a", "--set", "threshold=2.0"), 2, "option 'threshold' is 2.0, outside its range"),
        (("a", "--set", "threshold=-0.5"), 2, "option 'threshold' is -0.5, outside its range"),
        (("a", "--set", "entropy_bound=-1"), 2, "option 'entropy_bound' is -1.0"),
        (("",), 2, "the prompt is empty"),
        (("a", "--set", "chat=on"), 2, "has no chat template"),
        (("missing.txt",), 1, "missing.txt does not exist"),
        (("a" * 97,), 1, "98 tokens (prompt and new ones) are too many for this model"),
        (("a", "--set", "max_new_tokens=96"), 1, "97 tokens"),
        (("a", "--decoder", "speculative"), 2, "has no decoder 'speculative'"),
        (("a", "--decoder", "blocks"), 2, "text has no decoder 'blocks'"),
    ],
)
def test_wrong_commands(
    seqgen: Seqgen, folders: Folders, arguments: tuple[str, ...], code: int, message: str
) -> None:
    done = run(seqgen, folders.sdar, *arguments)
    assert message in done.err
    assert done.code == code
    assert "Traceback" not in done.err


def _config(**changes: Any) -> Break:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        fields = {**json.loads(path.read_text()), **changes}
        path.write_text(json.dumps({k: v for k, v in fields.items() if v is not None}))

    return change


def _write(name: str, text: str) -> Break:
    return lambda folder: (folder / name).write_text(text) and None


def _remove(name: str) -> Break:
    return lambda folder: (folder / name).unlink()


def _cut(name: str) -> Break:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-100]) and None


def _quantise(folder: Path) -> None:
    for path in folder.glob("*.safetensors"):
        weights = load_file(path)
        save_file({k: v.to(torch.int8) if v.dim() == 2 else v for k, v in weights.items()}, path)


def _reshape(folder: Path) -> None:
    (path,) = [p for p in folder.glob("*.safetensors") if "model.norm.weight" in load_file(p)]
    save_file({**load_file(path), "model.norm.weight": torch.ones(31)}, path)


def _lead_outside(folder: Path) -> None:
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    shutil.copy(folder / SHARD, folder.parent / "outside.safetensors")
    index["weight_map"] = {
        key: "../outside.safetensors" if name == SHARD else name
        for key, name in index["weight_map"].items()
    }
    path.write_text(json.dumps(index))


def _only_pickles(folder: Path) -> None:
    for path in (*folder.glob("*.safetensors"), folder / "model.safetensors.index.json"):
        path.unlink()
    (folder / "pytorch_model.bin").write_bytes(b"")


SHARD = "model-00002-of-00003.safetensors"
INDEX = "model.safetensors.index.json"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_remove(SHARD), f"{SHARD} is missing"),
        (_cut(SHARD), f"{SHARD} is damaged or not a safetensors file"),
        (_write(SHARD, ""), f"{SHARD} is damaged or not a safetensors file"),
        (_reshape, "model.norm.weight is (31,), config.json asks for (32,)"),
        (_config(hidden_size=16), "config.json asks for"),
        (_config(num_hidden_layers=3), "missing: model.layers.2"),
        (_config(num_hidden_layers=10**9), "num_hidden_layers must be at most 10000"),
        (_quantise, "holds I8"),
        (_config(quantization_config={"bits": 4}), "describes quantised weights"),
        (_config(model_type="llama"), "describes a 'llama' model, not qwen3 or sdar"),
        (_config(hiden_size=3), "unknown field 'hiden_size'"),
        (_config(hidden_size=None), "lacks the field 'hidden_size'"),
        (_config(head_dim=7), "head_dim is 7"),
        (_config(rope_theta=-1.0), "rope_theta must be a number above 0, not -1.0"),
        (_config(rms_norm_eps=0), "rms_norm_eps must be a number above 0"),
        (_config(mask_token_id=MASK + 1), f"mask_token_id {MASK + 1} is not below {MASK + 1}"),
        (_config(mask_token_id=-1), "mask_token_id -1 is not below"),
        (_config(mask_token_id=None), "lacks the field 'mask_token_id'"),
        (_config(block_size=0), "block_size must be at least 1, not 0"),
        (
            _config(eos_token_id=MASK + 5),
            f"config.json: eos_token_id {MASK + 5} is not below {MASK + 1}",
        ),
        (_write("config.json", "{"), "config.json is not JSON"),
        (_write("config.json", "[" * 100_000), "config.json is not JSON"),
        (_write("config.json", "[]"), "config.json is not a JSON object"),
        (_remove("config.json"), "no config.json in"),
        (_lead_outside, "names '../outside.safetensors', which is not a file of the folder"),
        (_write(INDEX, '{"weight_map": {"a": "/etc/passwd"}}'), "names '/etc/passwd'"),
        (_write(INDEX, '{"weight_map": {"a": ".."}}'), "names '..'"),
        (_write(INDEX, '{"weight_map": {"a": "x\\u0000y"}}'), "not a file of the folder"),
        (_write(INDEX, "{}"), "lacks the field 'weight_map'"),
        (_only_pickles, "whose format can run code and is not read"),
        (_remove("tokenizer.json"), "has no tokenizer.json"),
        (_write("tokenizer.json", "{"), "tokenizer.json is damaged"),
        (_write("tokenizer.json", "[]"), "tokenizer.json is damaged"),
    ],
)
def test_damaged_checkpoints(seqgen: Seqgen, tmp_path: Path, damage: Break, message: str) -> None:
    folder = make_model(tmp_path / "folder" / "model", config=SDAR, shards=3)
    damage(folder)
    done = run(seqgen, folder, "Once", "--set", "max_new_tokens=4")
    assert message in done.err
    assert done.err.startswith("error: ")
    assert "Traceback" not in done.err
    assert done.code == 4
    assert not done.out


def test_a_model_that_is_not_there(seqgen: Seqgen, folders: Folders) -> None:
    done = run(seqgen, Path("no/such/folder"), "Once")
    assert done.code == 4
    assert "no model at no/such/folder" in done.err
    done = seqgen("run", "--plugin", "text", "--model", "text-tinny", "Once")
    assert done.code == 2


def test_one_bad_line_does_not_stop_the_others(
    seqgen: Seqgen, folders: Folders, tmp_path: Path
) -> None:
    path = tmp_path / "p.jsonl"
    long = json.dumps({"prompt": "a" * 100, "id": "long"})
    path.write_text('{"prompt": "Once", "id": "good"}\n{"prompt": ""}\nnonsense\n' + long)
    done = run(seqgen, folders.qwen3, path, "--set", "max_new_tokens=3")
    assert done.code == 1
    rows = [json.loads(line) for line in done.out.splitlines()]
    assert [row["status"] for row in rows] == ["ok", "failed", "failed", "failed"]
    assert "too many for this model" in rows[3]["reason"]
