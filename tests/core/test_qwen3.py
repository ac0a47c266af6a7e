"""Qwen3 and SDAR folders: what is read, what is refused, and decoding without a start token."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tests.text.tiny_models import random_weights, write_weights
from torch import Tensor

from seqgen.canvas import Canvas
from seqgen.decoders import Autoregressive, BlockDiffusion
from seqgen.errors import CheckpointError, InputError
from seqgen.inputs import MaskedInputs, ShiftedInputs
from seqgen.logits import Sampling
from seqgen.model import SequenceModel, parameter_count
from seqgen.models.qwen3 import load_qwen3, read_config
from seqgen.training.objectives import teacher_forcing

CONFIG: dict[str, Any] = {
    "model_type": "qwen3",
    "vocab_size": 29,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "hidden_act": "silu",
    "rope_theta": 1e6,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "max_position_embeddings": 64,
    "eos_token_id": 3,
}
SDAR = {"model_type": "sdar", "mask_token_id": 28, "block_size": 8}
Q0 = "model.layers.0.self_attn.q_proj.weight"


def write(
    folder: Path,
    *,
    config: dict[str, Any] | None = None,
    weights: dict[str, Tensor] | None = None,
    shards: int = 1,
) -> Path:
    """A Hugging Face folder; `config` changes fields, None removes one."""
    fields = {k: v for k, v in {**CONFIG, **(config or {})}.items() if v is not None}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(fields))
    if weights is None:
        weights = random_weights({**CONFIG, **(config or {})})
    write_weights(folder, weights, shards)
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, SequenceModel]:
    folder = tmp_path_factory.mktemp("models")
    return {
        "qwen3": load_qwen3(write(folder / "qwen3"))[0],
        "sdar": load_qwen3(write(folder / "sdar", config=SDAR))[0],
    }


# Reading ----------------------------------------------------------------------------------------


def test_shards_equal_one_file(tmp_path: Path) -> None:
    one, config, tokenizer = load_qwen3(write(tmp_path / "one"))
    many, _, _ = load_qwen3(write(tmp_path / "many", shards=4))
    assert tokenizer is None
    assert config.stop_ids == (3,)
    assert config.mask_id is None
    assert isinstance(one.inputs, ShiftedInputs)
    assert not one.training
    for (name, a), (_, b) in zip(one.named_parameters(), many.named_parameters(), strict=True):
        assert torch.equal(a, b), name
    assert parameter_count(one) == sum(t.numel() for t in random_weights(CONFIG).values())


def test_a_tied_head_shares_the_embedding(tmp_path: Path) -> None:
    tied = {"tie_word_embeddings": True}
    model, config, _ = load_qwen3(write(tmp_path / "tied", config=tied))
    assert config.tied
    assert isinstance(model.inputs, ShiftedInputs)
    assert model.head.weight is model.inputs.embedding.weight
    weights = random_weights({**CONFIG, **tied})
    assert parameter_count(model) == sum(t.numel() for t in weights.values())
    # Some writers store the head once more; another one would be silently lost.
    copy = {**weights, "lm_head.weight": weights["model.embed_tokens.weight"].clone()}
    load_qwen3(write(tmp_path / "copy", config=tied, weights=copy))
    copy["lm_head.weight"][0, 0] += 1
    with pytest.raises(CheckpointError, match="differs from the embedding"):
        load_qwen3(write(tmp_path / "other", config=tied, weights=copy))


def test_weights_are_held_in_the_type_asked_for(tmp_path: Path) -> None:
    half = {k: v.bfloat16() for k, v in random_weights(CONFIG).items()}
    folder = write(tmp_path, weights=half)
    full, _, _ = load_qwen3(folder)
    assert {p.dtype for p in full.parameters()} == {torch.float32}
    small, _, _ = load_qwen3(folder, dtype=torch.bfloat16)
    assert {p.dtype for p in small.parameters()} == {torch.bfloat16}
    assert {b.dtype for b in small.buffers()} == {torch.float32}, "rotary angles need float32"
    out = Autoregressive().generate(small, Canvas.tokens([[1, 2]], new=5))
    assert len(out.sequences()[0]) == 5
    with pytest.raises(CheckpointError, match=r"torch\.int8 cannot hold weights"):
        load_qwen3(folder, dtype=torch.int8)


def test_an_sdar_config_gives_masked_inputs(tmp_path: Path) -> None:
    model, config, _ = load_qwen3(write(tmp_path, config=SDAR))
    assert (config.mask_id, config.block_length) == (28, 8)
    assert isinstance(model.inputs, MaskedInputs)


def test_configs_of_transformers_5(tmp_path: Path) -> None:
    rope = {"rope_type": "default", "rope_theta": 5e5}
    new = {"rope_theta": None, "rope_parameters": rope, "dtype": "float32"}
    assert read_config(write(tmp_path, config=new)).rope_theta == 5e5


def test_stop_ids_of_the_generation_config_win(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [5, 6]}')
    assert read_config(tmp_path).stop_ids == (5, 6)


def test_the_tokenizer(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    vocabulary = {"a": 0, "b": 1, "?": 2}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="?"))
    made.save(str(write(tmp_path) / "tokenizer.json"))
    _, _, tokenizer = load_qwen3(tmp_path)
    assert tokenizer is not None
    assert tokenizer.encode("b").ids == [1]
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is damaged"):
        load_qwen3(tmp_path)


# Refusing ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "llama"}, "a 'llama' model, not qwen3 or sdar"),
        ({"hiden_size": 24}, r"unknown field 'hiden_size'(.|\n)*did you mean 'hidden_size'"),
        ({"hidden_size": None}, "lacks the field 'hidden_size'"),
        ({"hidden_size": "24"}, "hidden_size must be int, not '24'"),
        ({"hidden_size": 0}, "hidden_size must be at least 1, not 0"),
        ({"num_key_value_heads": 3}, "4 heads cannot share 3 key/value heads"),
        ({"rope_scaling": {"rope_type": "yarn"}}, "rope_scaling .* is not supported"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu' is not supported"),
        ({"attention_bias": True}, "attention_bias True is not supported"),
        ({"use_sliding_window": True}, "use_sliding_window True is not supported"),
        ({"model_type": "sdar"}, "lacks the field 'mask_token_id'"),
        ({**SDAR, "mask_token_id": 29}, "mask_token_id 29 is not below 29"),
        ({"eos_token_id": "</s>"}, r"config\.json: eos_token_id must be ids"),
        ({"rope_theta": 10**400}, "rope_theta must be a number above 0, not inf"),
        ({"rope_parameters": {"rope_theta": 3.0}}, "and that of rope_parameters differ"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "rope_type 'yarn' is not supported"),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "factor 0.5 is not supported"),
        ({"rope_parameters": {"factor": 2.0}}, "rope_parameters has an unknown field 'factor'"),
        ({"head_dim": 16}, r"q_proj.weight is \(32, 24\), config.json asks for \(64, 24\)"),
        ({"num_hidden_layers": 3}, r"missing: model\.layers\.2"),
        ({"num_hidden_layers": 1}, r"unknown: model\.layers\.1"),
        ({"tie_word_embeddings": True}, "differs from the embedding"),
    ],
)
def test_configs_that_do_not_fit(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    write(tmp_path, config=change, weights=random_weights(CONFIG))
    with pytest.raises(CheckpointError) as error:
        load_qwen3(tmp_path)
    assert error.match(message)


def _drop(weights: dict[str, Tensor]) -> None:
    del weights[Q0]


def _reshape(weights: dict[str, Tensor]) -> None:
    weights[Q0] = weights[Q0].t().contiguous()


def _quantise(weights: dict[str, Tensor]) -> None:
    weights[Q0] = weights[Q0].to(torch.int8)


def _add(weights: dict[str, Tensor]) -> None:
    weights["model.layers.0.self_attn.q_proj.bias"] = torch.zeros(32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_drop, f"missing: {Q0}"),
        (_reshape, rf"{Q0} is \(24, 32\), config.json asks for \(32, 24\)"),
        (_quantise, f"{Q0} holds I8"),
        (_add, r"unknown: model\.layers\.0\.self_attn\.q_proj\.bias"),
    ],
)
def test_weights_that_do_not_fit(
    tmp_path: Path, change: Callable[[dict[str, Tensor]], None], message: str
) -> None:
    weights = random_weights(CONFIG)
    change(weights)
    with pytest.raises(CheckpointError) as error:
        load_qwen3(write(tmp_path, weights=weights))
    assert error.match(message)


def test_missing_and_damaged_files(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        load_qwen3(tmp_path)
    folder = write(tmp_path / "shards", shards=3)
    shard = folder / "model-00002-of-00003.safetensors"
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(CheckpointError, match=r"00002-of-00003.safetensors is damaged"):
        load_qwen3(folder)
    shard.unlink()
    with pytest.raises(CheckpointError, match=r"00002-of-00003.safetensors is missing"):
        load_qwen3(folder)
    index = folder / "model.safetensors.index.json"
    index.write_text('{"weight_map": {"a": "../model.safetensors"}}')
    with pytest.raises(CheckpointError, match="not a file of the folder"):
        load_qwen3(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json is not JSON"):
        load_qwen3(folder)


def test_an_index_and_its_files_must_agree(tmp_path: Path) -> None:
    folder = write(tmp_path, shards=3)
    index = folder / "model.safetensors.index.json"
    right = json.loads(index.read_text())["weight_map"]
    moved = {**right, Q0: next(name for name in right.values() if name != right[Q0])}
    wrong = {
        f"lacks {Q0}, which model.safetensors.index.json says(.|\n)*is in {right[Q0]}": moved,
        "lacks ghost, which(.|\n)*no other file has it": {**right, "ghost": right[Q0]},
        "names 3, which is not a file": {**right, Q0: 3},
    }
    for message, places in wrong.items():
        index.write_text(json.dumps({"weight_map": places}))
        with pytest.raises(CheckpointError, match=message):
            load_qwen3(folder)
    index.write_text(f'{{"weight_map": {{"{Q0}": "a", {json.dumps(right)[1:]}}}')
    with pytest.raises(CheckpointError, match=f"is not JSON(.|\n)*it names '{Q0}' twice"):
        load_qwen3(folder)
    index.write_text(json.dumps({"weight_map": right}))
    one, two, _ = sorted(folder.glob("*.safetensors"))
    save_file({**load_file(two), **load_file(one)}, two)
    with pytest.raises(CheckpointError, match=r"is in two files(.|\n)*do not belong together"):
        load_qwen3(folder)


def test_more_tokens_than_positions(models: dict[str, SequenceModel], tmp_path: Path) -> None:
    config = read_config(write(tmp_path))
    config.check_length(64)
    with pytest.raises(InputError, match="65 tokens"):
        config.check_length(65)


# Decoding without a start token -----------------------------------------------------------------


def test_an_empty_prompt_is_refused(models: dict[str, SequenceModel]) -> None:
    with pytest.raises(InputError, match="the prompt is empty"):
        Autoregressive().generate(models["qwen3"], Canvas.tokens([[1], []], new=3))
    assert Autoregressive().generate(models["sdar"], Canvas.tokens([[]], new=3)).forwards == 3


@settings(max_examples=20, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 7), min_size=1, max_size=4),
    new=st.integers(1, 8),
    temperature=st.sampled_from([0.0, 1.0]),
    fused=st.booleans(),
    seed=st.integers(0, 999),
)
def test_cached_uncached_batched_and_alone_agree(
    models: dict[str, SequenceModel],
    sizes: list[int],
    new: int,
    temperature: float,
    fused: bool,
    seed: int,
) -> None:
    generator = torch.Generator().manual_seed(seed)
    prompts = [torch.randint(28, (n,), generator=generator).tolist() for n in sizes]
    seeds = torch.arange(len(sizes)) + seed
    model, sampling = models["qwen3"], Sampling(temperature=temperature)
    cached = Autoregressive(sampling=sampling)
    batch = cached.generate(model, Canvas.tokens(prompts, new=new, seeds=seeds)).sequences()
    again = Autoregressive(sampling=sampling, cached=False)
    assert batch == again.generate(model, Canvas.tokens(prompts, new=new, seeds=seeds)).sequences()
    for row, prompt in enumerate(prompts):
        canvas = Canvas.tokens([prompt], new=new, seeds=seeds[row : row + 1])
        assert cached.generate(model, canvas).sequences() == [batch[row]]
        assert canvas.values[0, : len(prompt)].tolist() == prompt


def test_slot_0_is_never_fed(models: dict[str, SequenceModel]) -> None:
    """The prompt's rows in one pass, each reading out the next slot; then one row a token."""
    model = models["qwen3"]
    fed: list[list[int]] = []
    inputs = model.inputs
    assert isinstance(inputs, ShiftedInputs)
    handle = inputs.register_forward_pre_hook(lambda _, given: fed.append(given[1][0].tolist()))
    out = Autoregressive().generate(model, Canvas.tokens([[4, 5, 6]], new=3))
    handle.remove()
    assert fed == [[1, 2, 3], [4], [5]]
    assert out.forwards == 3


def test_qwen3_refuses_blocks_and_sdar_runs_both_ways(models: dict[str, SequenceModel]) -> None:
    with pytest.raises(ValueError, match="one slot a group"):
        BlockDiffusion(block_length=4).generate(models["qwen3"], Canvas.tokens([[1]], new=7))
    ar = Autoregressive().generate(models["sdar"], Canvas.tokens([[1, 2]], new=6))
    one = BlockDiffusion(block_length=1).generate(models["sdar"], Canvas.tokens([[1, 2]], new=6))
    assert ar.sequences() == one.sequences()
    four = BlockDiffusion(block_length=4, threshold=0.0)
    assert four.generate(models["sdar"], Canvas.tokens([[1, 2]], new=6)).forwards == 2


def test_teacher_forcing_scores_all_but_the_first_value(models: dict[str, SequenceModel]) -> None:
    model = models["qwen3"]
    targets = torch.tensor([[4, 5, 6, 7], [8, 9, 10, 0]])
    valid = torch.tensor([[True] * 4, [True] * 3 + [False]])
    losses = []
    for row, length in ((0, 4), (1, 3)):
        for slot in range(1, length):
            canvas = Canvas.tokens([targets[row, :slot].tolist()], new=1)
            event = next(iter(Autoregressive().stream(model, canvas)))
            assert event.slots_BQ.tolist() == [[slot]]
            logits = _next_logits(model, targets[row, :slot])
            assert int(logits.argmax()) == int(event.values[0, 0])
            losses.append(-logits.log_softmax(-1)[targets[row, slot]])
    with torch.no_grad():
        torch.testing.assert_close(
            teacher_forcing(model, targets, valid), torch.stack(losses).mean(), atol=1e-4, rtol=1e-4
        )


def _next_logits(model: SequenceModel, given: Tensor) -> Tensor:
    from seqgen.orders import Raster

    canvas = Canvas.tokens([given.tolist()], new=1)
    table = Raster().table(canvas.slots, canvas.device)
    with torch.inference_mode():
        hidden = model.hidden(canvas, table, torch.arange(1, canvas.slots)[None])
        logits: Tensor = model.head.logits(hidden[:, -1:])  # type: ignore[attr-defined]
    return logits[0, 0].clone()
