"""Parity with SDAR's official code: logits and 105 decodes on random weights, from the shared data.

The official loop commits its quota even where fewer slots are open, and then overwrites prompt or
committed tokens. Ours never does; the cases in which it matters are listed in `OVER_QUOTA`. With
that bug put back into the rule (`OfficialQuota`) all 105 come out equal, so nothing else differs.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from seqgen.canvas import Canvas
from seqgen.commits import ConfidenceQuota, Threshold, quota
from seqgen.decoders import Autoregressive, BlockDiffusion
from seqgen.decoders.base import Generated
from seqgen.decoders.block_diffusion import Remasking
from seqgen.heads import Proposal, Request
from seqgen.inputs import MaskedInputs
from seqgen.logits import Ban, Sampling, TopK
from seqgen.loop import decode
from seqgen.model import SequenceModel
from seqgen.models.qwen3 import Qwen3Config, load_qwen3
from seqgen.orders import Blocks

STATIC: Remasking = "low_confidence_static"
DYNAMIC: Remasking = "low_confidence_dynamic"
SAMPLING = {
    "raw_greedy": Sampling(confidence="raw"),
    "topk1": Sampling(temperature=1.0, filters=(TopK(1),), confidence="filtered"),
}

# (prompt tokens, K, S, strategy, threshold, confidence); found by comparing, not by rule.
OVERWRITES_PROMPT = {
    (3, 4, 2, STATIC, None, "raw_greedy"),
    (3, 4, 2, STATIC, None, "topk1"),
    (3, 4, 2, DYNAMIC, 0.3, "raw_greedy"),
    (3, 4, 2, DYNAMIC, 0.9, "raw_greedy"),
    (3, 4, 2, DYNAMIC, 0.9, "topk1"),
}
OVERWRITES_COMMITTED = {
    (3, 8, 3, STATIC, None, "raw_greedy"),
    (3, 8, 3, STATIC, None, "topk1"),
    (3, 8, 3, DYNAMIC, 0.9, "raw_greedy"),
    (8, 4, 2, DYNAMIC, 0.3, "raw_greedy"),
    (8, 8, 3, DYNAMIC, 0.3, "raw_greedy"),
    (10, 4, 2, DYNAMIC, 0.3, "raw_greedy"),
    (10, 8, 3, DYNAMIC, 0.3, "raw_greedy"),
}
OVER_QUOTA = OVERWRITES_PROMPT | OVERWRITES_COMMITTED

Loaded = tuple[SequenceModel, Qwen3Config, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def engines(shared_data: Path) -> Path:
    folder = shared_data / "engines"
    if not (folder / "sdar_golden.json").is_file():
        pytest.skip(f"no golden decodes of SDAR in {folder}")
    return folder


@pytest.fixture(scope="module")
def loaded(engines: Path, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    """The random weights as a Hugging Face folder, and the golden cases."""
    golden = json.loads((engines / "sdar_golden.json").read_text())
    folder = tmp_path_factory.mktemp("sdar")
    extra = {"model_type": "sdar", "block_size": 4, "max_position_embeddings": 64}
    (folder / "config.json").write_text(json.dumps({**golden["config"], **extra}))
    (folder / "model.safetensors").symlink_to(engines / "sdar_random_weights.safetensors")
    model, config, tokenizer = load_qwen3(folder)
    assert tokenizer is None
    assert len(golden["cases"]) == 105
    return model, config, golden["cases"]


def test_logits_of_a_block_causal_pass(engines: Path, loaded: Loaded) -> None:
    """Within 1e-5, relative above 1: logits reach 10, and exact arithmetic is 1.2e-5 away."""
    model, _, _ = loaded
    golden = load_file(engines / "sdar_logits.safetensors")
    ours = logits_of(model, golden["input_ids"])
    torch.testing.assert_close(ours, golden["logits_block4"], atol=1e-5, rtol=1e-5)
    assert ((ours - golden["logits_block4"]).abs() <= 1e-5).float().mean() > 0.998


def test_93_decodes_equal_the_official_ones(loaded: Loaded) -> None:
    assert len(OVER_QUOTA) == 12
    assert different_from_golden(loaded) == OVER_QUOTA


def test_ties_that_go_to_the_earliest_slot_change_nothing_else(loaded: Loaded) -> None:
    """The default. Static `topk1` consists of ties: there it decodes from left to right."""
    all_ties = {key(c) for c in loaded[2] if c["strategy"] == STATIC and c["confidence"] == "topk1"}
    assert len(all_ties) == 15
    assert different_from_golden(loaded, ties="earliest") == OVER_QUOTA | all_ties


def test_passes_equal_the_official_ones(loaded: Loaded) -> None:
    """The official loop also writes the last block to its cache, which nobody reads: one more."""
    model, _, cases = loaded
    for case in cases:
        fused, apart = run(model, case), run(model, case, fused_commit=False)
        assert fused.values.tolist() == apart.values.tolist()
        if key(case) in OVER_QUOTA:  # overwriting a slot takes passes of its own
            continue
        prefill = len(case["prompt"]) >= case["block_length"]
        blocks = len(case["output"]) // case["block_length"]
        written = blocks - len(case["prompt"]) // case["block_length"]
        assert apart.forwards == case["forwards"] - 1
        assert fused.forwards == case["forwards"] - written - prefill


def test_cached_equals_uncached(loaded: Loaded) -> None:
    model, _, cases = loaded
    for case in cases:
        cached, uncached = run(model, case), run(model, case, cached=False)
        assert cached.values.tolist() == uncached.values.tolist()
        assert cached.forwards == uncached.forwards


def name(key: tuple[object, ...]) -> str:
    prompt, K, S, strategy, threshold, confidence = key
    words = [f"prompt{prompt}", f"K{K}", f"S{S}", str(strategy).removeprefix("low_confidence_")]
    return "-".join([*words, *([] if threshold is None else [str(threshold)]), str(confidence)])


@pytest.mark.parametrize(
    "which", [pytest.param(k, id=name(k)) for k in sorted(OVER_QUOTA, key=name)]
)
def test_prompt_and_committed_tokens_stand_where_the_official_code_overwrites_them(
    loaded: Loaded, which: tuple[object, ...]
) -> None:
    """What the official loop overwrites, found by running it, holds its first value in ours."""
    model, _, cases = loaded
    (case,) = [case for case in cases if key(case) == which]
    given = len(case["prompt"])
    overwritten = official_overwrites(model, case)
    in_prompt = [slot for slot, *_ in overwritten if slot < given]
    assert bool(in_prompt) == (which in OVERWRITES_PROMPT)
    assert (case["output"][:given] != case["prompt"]) == (which in OVERWRITES_PROMPT)

    canvas = canvas_of(case)
    committed: dict[int, int] = {}
    for event in decoder_of(case).stream(model, canvas):
        for column in event.kept_BQ[0].nonzero().flatten().tolist():
            slot = int(event.slots_BQ[0, column])
            assert slot >= given
            assert slot not in committed
            committed[slot] = int(event.values[0, column])
    assert canvas.values[0, :given].tolist() == case["prompt"]
    assert sorted(committed) == list(range(given, canvas.slots))
    assert all(int(canvas.values[0, slot]) == value for slot, value in committed.items())
    slot, before, after = overwritten[0]  # until then the two loops do the same
    assert before != after
    assert int(canvas.values[0, slot]) == before


def official_overwrites(model: SequenceModel, case: dict[str, Any]) -> list[tuple[int, int, int]]:
    """(slot, value before, value after) of decided slots that the official rule changes."""
    decoder = decoder_of(case)
    rule = decoder.rule()
    assert isinstance(rule, ConfidenceQuota | Threshold)
    canvas = canvas_of(case)
    values, decided = canvas.values.clone(), canvas.state_BS.clone()
    found = []
    recipe = replace(decoder.recipe(model), commit=OfficialQuota(rule))
    for event in decode(model, canvas, None, recipe):
        for column in event.kept_BQ[0].nonzero().flatten().tolist():
            slot = int(event.slots_BQ[0, column])
            before, after = int(values[0, slot]), int(canvas.values[0, slot])
            if decided[0, slot] and before != after:
                found.append((slot, before, after))
        values, decided = canvas.values.clone(), canvas.state_BS.clone()
    assert canvas.values[0].tolist() == case["output"]
    return found


def test_with_the_official_bug_put_back_all_decodes_are_equal(loaded: Loaded) -> None:
    model, _, cases = loaded
    for case in cases:
        decoder = decoder_of(case)
        recipe, rule = decoder.recipe(model), decoder.rule()
        if isinstance(rule, ConfidenceQuota | Threshold):
            recipe = replace(recipe, commit=OfficialQuota(rule))
        canvas = canvas_of(case)
        for _ in decode(model, canvas, None, recipe):
            pass
        assert canvas.values[0].tolist() == case["output"], key(case)


@pytest.mark.parametrize(
    ("remasking", "threshold", "fused", "apart"), [(STATIC, 0.85, 22, 28), (DYNAMIC, 0.0, 6, 12)]
)
def test_passes_saved_by_the_fused_commit(
    loaded: Loaded, remasking: Remasking, threshold: float, fused: int, apart: int
) -> None:
    """Ten prompt tokens and 22 new ones; as in the published loop, less its prefill pass."""
    model, _, cases = loaded
    prompt = next(c["prompt"] for c in cases if len(c["prompt"]) == 10)
    decoder = BlockDiffusion(block_length=4, remasking=remasking, threshold=threshold)
    one = decoder.generate(model, Canvas.tokens([prompt], new=22))
    two = replace(decoder, fused_commit=False).generate(model, Canvas.tokens([prompt], new=22))
    assert one.values.tolist() == two.values.tolist()
    assert (one.forwards, two.forwards) == (fused, apart)


def test_rows_of_a_batch_equal_the_rows_alone(loaded: Loaded) -> None:
    """Prompts of 3, 8 and 10 tokens together; each row starts at its own first open block."""
    model, _, cases = loaded
    prompts = list({tuple(c["prompt"]): None for c in cases})
    assert [len(p) for p in prompts] == [3, 8, 10]
    new = [21, 24, 22]  # each fills its last block of 8
    decoder = BlockDiffusion(block_length=8, steps=3, remasking=DYNAMIC, threshold=0.3)
    batch = decoder.generate(model, Canvas.tokens(prompts, new=new)).sequences()
    for row, (prompt, count) in enumerate(zip(prompts, new, strict=True)):
        alone = decoder.generate(model, Canvas.tokens([prompt], new=count))
        assert batch[row] == alone.sequences()[0]


def test_the_same_weights_run_autoregressively(loaded: Loaded) -> None:
    model, config, cases = loaded
    assert isinstance(model.inputs, MaskedInputs)
    assert config.mask_id is not None
    sampling = Sampling(constraints=(Ban((config.mask_id,)),))
    for prompt in {tuple(c["prompt"]): None for c in cases}:
        ar = Autoregressive(sampling=sampling).generate(model, Canvas.tokens([prompt], new=9))
        blocks = BlockDiffusion(block_length=1, sampling=sampling)
        assert ar.sequences() == blocks.generate(model, Canvas.tokens([prompt], new=9)).sequences()
        assert config.mask_id not in ar.sequences()[0]


@dataclass(frozen=True)
class OfficialQuota:
    """A rule of ours with the published bug: top-k over the quota, whatever is still open."""

    rule: ConfidenceQuota | Threshold

    def __call__(
        self, proposal: Proposal, open_BQ: Tensor, size_B: Tensor, request: Request
    ) -> Tensor:
        assert open_BQ.shape[0] == 1
        count = int(quota(size_B, self.rule.steps, request.draw))
        confidence = torch.where(open_BQ, proposal.confidence_BQ, -torch.inf)
        if isinstance(self.rule, Threshold):
            sure = confidence > self.rule.threshold
            if int(sure.sum()) >= count:
                return sure
        best = confidence[0].topk(count).indices
        return torch.zeros_like(open_BQ).index_fill_(1, best, True)

    def passes(self, size: int, opened: int) -> tuple[int, int]:
        # Overwriting a decided slot leaves an open one open: it may take all the steps.
        return 1, self.rule.steps


def logits_of(model: SequenceModel, ids_BS: Tensor, block_length: int = 4) -> Tensor:
    """Logits [B, S, V] of one pass over decided slots."""
    batch, slots = ids_BS.shape
    canvas = Canvas(ids_BS, prompt=[slots] * batch)
    table = Blocks(block_length).table(slots, ids_BS.device)
    with torch.inference_mode():
        return model.head.logits(model.hidden(canvas, table, torch.arange(slots)[None]))  # type: ignore[attr-defined, no-any-return]


def different_from_golden(loaded: Loaded, **options: Any) -> set[tuple[object, ...]]:
    model, _, cases = loaded
    return {
        key(case)
        for case in cases
        if run(model, case, **options).values[0].tolist() != case["output"]
    }


def key(case: dict[str, Any]) -> tuple[object, ...]:
    names = ("block_length", "denoising_steps", "strategy", "threshold", "confidence")
    return (len(case["prompt"]), *(case[name] for name in names))


def canvas_of(case: dict[str, Any]) -> Canvas:
    """The official loop fills the last block."""
    return Canvas.tokens([case["prompt"]], new=len(case["output"]) - len(case["prompt"]))


def decoder_of(case: dict[str, Any]) -> BlockDiffusion:
    return BlockDiffusion(
        block_length=case["block_length"],
        steps=case["denoising_steps"],
        remasking=case["strategy"],
        threshold=case["threshold"] or 0.85,
        sampling=SAMPLING[case["confidence"]],
        ties="topk",
    )


def run(model: SequenceModel, case: dict[str, Any], **options: Any) -> Generated:
    return replace(decoder_of(case), **options).generate(model, canvas_of(case))
