"""The folders that our training writes are Hugging Face's: transformers loads and runs them."""

from __future__ import annotations

import json
import os
import subprocess
from importlib.resources import files
from pathlib import Path

import pytest

from seqgen.canvas import Canvas
from seqgen.decoders import Autoregressive
from seqgen.models.qwen3 import load_qwen3

PYTHON = Path(
    os.environ.get(
        "TRANSFORMERS_PYTHON",
        Path(__file__).parents[2] / ".peers" / "transformers" / "bin" / "python",
    )
)
PROMPTS = ("count from 7 to 11:", "today is sunday, 28 february. tomorrow", "the red c")
PEER = """
import json, sys, torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM
folder, *prompts = sys.argv[1:]
model = AutoModelForCausalLM.from_pretrained(folder).float().eval()
tokenizer = Tokenizer.from_file(folder + "/tokenizer.json")
found = []
for prompt in prompts:
    ids = torch.tensor([tokenizer.encode(prompt).ids])
    found.append(model.generate(ids, max_new_tokens=60, do_sample=False)[0].tolist())
print(json.dumps({"kind": type(model).__name__, "ids": found}))
"""


@pytest.mark.peer
def test_transformers_writes_the_same_texts() -> None:
    if not PYTHON.exists():
        pytest.skip(f"no transformers at {PYTHON}: run tests/parity/install_transformers.sh")
    folder = Path(str(files("seqgen_text") / "assets" / "text-tiny"))
    done = subprocess.run(
        [PYTHON, "-c", PEER, folder, *PROMPTS], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    theirs = json.loads(done.stdout)
    assert theirs["kind"] == "Qwen3ForCausalLM"
    model, config, tokenizer = load_qwen3(folder)
    assert tokenizer is not None
    decoder = Autoregressive(stop_ids=config.stop_ids)
    for prompt, ids in zip(PROMPTS, theirs["ids"], strict=True):
        out = decoder.generate(model, Canvas.tokens([tokenizer.encode(prompt).ids], new=60))
        ours = out.values[0, : int(out.length_B[0])].tolist()
        assert tokenizer.decode(ours) == tokenizer.decode(ids)
        assert ours[:-1] == ids[: len(ours) - 1]
