"""Parity of our Qwen3 with transformers' Qwen3ForCausalLM on random weights.

`test_golden_*` compares with numbers in the repository; the others (`make peers`) with transformers
itself, which lives in an environment of its own (tests/parity/install_transformers.sh).
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from seqgen.canvas import Canvas
from seqgen.decoders import Autoregressive, BlockDiffusion
from seqgen.heads import CategoricalHead
from seqgen.model import SequenceModel
from seqgen.models.qwen3 import load_qwen3
from seqgen.orders import Blocks, Order, Raster

HERE = Path(__file__).parent
GOLDEN = HERE / "golden" / "qwen3"
PYTHON = Path(
    os.environ.get(
        "TRANSFORMERS_PYTHON", HERE.parents[1] / ".peers" / "transformers" / "bin" / "python"
    )
)
REFERENCE = "ref.safetensors"


@pytest.fixture(scope="module", params=["untied", "tied"])
def fresh(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with random weights in shards, and what transformers computed with them."""
    if not PYTHON.exists():
        pytest.skip(f"no transformers at {PYTHON}: run tests/parity/install_transformers.sh")
    folder = tmp_path_factory.mktemp(request.param) / "model"
    seed = str(secrets.randbelow(10_000))
    script = HERE / "qwen3_reference.py"
    command = [PYTHON, script, folder, "--kind", request.param, "--seed", seed]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    print(f"{request.param}: seed {seed}")  # shown when a test fails
    assert len(list(folder.glob("model-*.safetensors"))) > 2
    return folder


@pytest.mark.peer
def test_logits(fresh: Path) -> None:
    check_logits(fresh)


@pytest.mark.peer
def test_greedy_tokens(fresh: Path) -> None:
    check_greedy_tokens(fresh)


@pytest.mark.peer
def test_block_causal_logits(fresh: Path) -> None:
    check_block_causal_logits(fresh)


def test_golden_logits() -> None:
    check_logits(GOLDEN)


def test_golden_greedy_tokens() -> None:
    check_greedy_tokens(GOLDEN)


def test_golden_block_causal_logits(tmp_path: Path) -> None:
    shutil.copytree(GOLDEN, tmp_path / "model")
    check_block_causal_logits(tmp_path / "model")


def check_logits(folder: Path) -> None:
    """The row of slot s + 1 is transformers' row of token s."""
    reference = load_file(folder / REFERENCE)
    ids = reference["ids"]
    model, config, _ = load_qwen3(folder)
    config.check_length(ids.shape[1])
    ours = _logits(model, torch.cat([ids, ids[:, :1]], dim=1), Raster(), first=1)
    torch.testing.assert_close(ours, reference["logits"], atol=1e-5, rtol=1e-5)


def check_greedy_tokens(folder: Path) -> None:
    """Prompts of 1, 5 and 12 tokens, each alone and all in one batch."""
    reference = load_file(folder / REFERENCE)
    model, _, _ = load_qwen3(folder)
    prompts = [reference[f"prompt_{i}"].tolist() for i in range(3)]
    theirs = [reference[f"greedy_{i}"].tolist() for i in range(3)]
    new = len(theirs[0])
    assert len({tuple(row) for row in theirs}) == 3
    batch = Autoregressive().generate(model, Canvas.tokens(prompts, new=new))
    assert batch.sequences() == theirs
    for cached in (True, False):
        for prompt, row in zip(prompts, theirs, strict=True):
            alone = Autoregressive(cached=cached).generate(model, Canvas.tokens([prompt], new=new))
            assert alone.sequences() == [row]
            assert alone.forwards == new


def check_block_causal_logits(folder: Path) -> None:
    """The same weights as an SDAR model: nothing but the mask and the inputs change."""
    path = folder / "config.json"
    sdar = {"model_type": "sdar", "mask_token_id": 63, "block_size": 4}
    path.write_text(json.dumps({**json.loads(path.read_text()), **sdar}))
    reference = load_file(folder / REFERENCE)
    model, config, _ = load_qwen3(folder)
    ours = _logits(model, reference["ids"], Blocks(config.block_length), first=0)
    torch.testing.assert_close(ours, reference["logits_block4"], atol=1e-5, rtol=1e-5)
    decoder = BlockDiffusion(block_length=config.block_length)
    prompt = reference["prompt_1"].tolist()
    assert decoder.generate(model, Canvas.tokens([prompt], new=7)).sequences()[0]


def _logits(model: SequenceModel, ids_BS: Tensor, order: Order, *, first: int) -> Tensor:
    """Logits of one pass over the slots from `first` on, all of them decided."""
    batch, slots = ids_BS.shape
    assert isinstance(model.head, CategoricalHead)
    canvas = Canvas(ids_BS, prompt=[slots] * batch)
    table = order.table(slots, ids_BS.device)
    with torch.inference_mode():
        return model.head.logits(model.hidden(canvas, table, torch.arange(first, slots)[None]))
