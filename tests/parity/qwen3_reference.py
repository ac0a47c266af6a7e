"""Runs inside transformers' own environment: a random Qwen3 folder and what transformers computes.

    .peers/transformers/bin/python tests/parity/qwen3_reference.py FOLDER --kind tied --seed 1

FOLDER/ref.safetensors holds `ids` [2, S], `logits` and `logits_block4` [2, S, V] (one causal and
one block-causal pass with blocks of 4) and, for i in 0, 1, 2, `prompt_i` and its greedy
continuation `greedy_i`. Imports nothing of seqgen.

tests/parity/golden/qwen3 was made with `--kind golden --seed 3` by transformers 4.52.4.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import Qwen3Config, Qwen3ForCausalLM

SIZES = {
    "untied": {"hidden_size": 48, "heads": 6, "kv_heads": 2, "head_dim": 16, "tied": False},
    "tied": {"hidden_size": 64, "heads": 4, "kv_heads": 4, "head_dim": 16, "tied": True},
    "golden": {"hidden_size": 32, "heads": 4, "kv_heads": 2, "head_dim": 16, "tied": False},
}
NEW = 24


def random_model(kind: str, seed: int) -> Qwen3ForCausalLM:
    """Weights large enough that the logits differ clearly; norms that are not all ones."""
    size = SIZES[kind]
    config = Qwen3Config(
        vocab_size=64,
        hidden_size=size["hidden_size"],
        intermediate_size=48 if kind == "golden" else 112,
        num_hidden_layers=2 if kind == "golden" else 4,
        num_attention_heads=size["heads"],
        num_key_value_heads=size["kv_heads"],
        head_dim=size["head_dim"],
        tie_word_embeddings=size["tied"],
        rms_norm_eps=1e-5,
        max_position_embeddings=128,
        attn_implementation="sdpa",
    )
    torch.manual_seed(seed)
    model = Qwen3ForCausalLM(config).eval()
    for parameter in model.parameters():
        if parameter.dim() == 2:
            torch.nn.init.normal_(parameter, std=1.5 * parameter.shape[1] ** -0.5)
        else:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    return model


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kind", choices=sorted(SIZES), default="untied")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = random_model(arguments.kind, arguments.seed)
    shards = {} if arguments.kind == "golden" else {"max_shard_size": "100KB"}
    model.save_pretrained(arguments.folder, **shards)

    generator = torch.Generator().manual_seed(arguments.seed)
    ids = torch.randint(64, (2, 16), generator=generator)
    block = torch.arange(16) // 4
    unseen = torch.zeros(16, 16).masked_fill(block[:, None] < block, torch.finfo().min)
    record = {
        "ids": ids,
        "logits": model(ids).logits,
        "logits_block4": model(ids, attention_mask=unseen.expand(2, 1, 16, 16)).logits,
    }
    for i, length in enumerate((1, 5, 12)):
        prompt = torch.randint(64, (1, length), generator=generator)
        out = model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            do_sample=False,
            max_new_tokens=NEW,
            pad_token_id=0,
        )
        record |= {f"prompt_{i}": prompt[0], f"greedy_{i}": out[0, length:].clone()}
    save_file({k: v.contiguous() for k, v in record.items()}, arguments.folder / "ref.safetensors")


if __name__ == "__main__":
    main()
