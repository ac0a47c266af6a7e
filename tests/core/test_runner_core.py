"""The runner over the core itself: a tiny random model, every decoder, traces and seeds."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from seqgen.batching import list_entries, plan_batches
from seqgen.canvas import Canvas
from seqgen.decoders.autoregressive import Autoregressive
from seqgen.decoders.base import Decoder, Generated
from seqgen.decoders.block_diffusion import BlockDiffusion
from seqgen.decoders.non_autoregressive import NonAutoregressive
from seqgen.domain import Fields, Plan
from seqgen.heads.categorical import CategoricalHead
from seqgen.inputs import MaskedInputs
from seqgen.logits import Sampling
from seqgen.model import SequenceModel
from seqgen.options import option
from seqgen.runner import Row, Runner
from seqgen.scoring import compare
from seqgen.transformer import Transformer, TransformerConfig

VOCABULARY = 11


@dataclass(frozen=True)
class Prompt:
    id: str
    size: float
    ids: tuple[int, ...]


@dataclass(frozen=True)
class Options:
    new: int = option(6, help="tokens to add", range=(1, None))
    temperature: float = option(0.0, help="0 is greedy", range=(0.0, None))


class Continuations:
    """Continues a list of ids; a source is such a list, `1,2,3`."""

    options = Options
    pieces: Sequence[Prompt] = ()

    def load(self, source: str, options: Options) -> Iterator[Prompt]:
        ids = tuple(int(word) for word in source.split(","))
        yield Prompt(source, len(ids), ids)

    def split(self, item: Prompt, options: Options) -> Iterator[Prompt]:
        yield item

    def condition(self, model: SequenceModel, pieces: Sequence[Prompt], options: Options) -> None:
        self.pieces = pieces

    def plan(
        self,
        model: SequenceModel,
        context: None,
        decoder: str,
        options: Options,
        seeds: torch.Tensor,
    ) -> Plan:
        sampling = Sampling(temperature=options.temperature)
        decoders: dict[str, Decoder] = {
            "ar": Autoregressive(sampling=sampling),
            "mask-predict": NonAutoregressive(steps=3, sampling=sampling),
            "block-diffusion": BlockDiffusion(block_length=2, steps=2, sampling=sampling),
        }
        prompts = [list(piece.ids) for piece in self.pieces]
        canvas = Canvas.tokens(prompts, new=options.new, seeds=seeds)
        return Plan(decoders[decoder], model, canvas)

    def finish(
        self, generated: Generated, pieces: Sequence[Prompt], context: None, options: Options
    ) -> list[Fields]:
        return [{"ids": ids} for ids in generated.sequences()]

    def join(self, item: Prompt, parts: Sequence[Fields], options: Options) -> Fields:
        return parts[0]

    def score(self, rows: Sequence[Row], items: Sequence[Prompt]) -> dict[str, float]:
        return {"mean_id": sum(sum(row["ids"]) for row in rows) / len(rows)}


def _model() -> SequenceModel:
    torch.manual_seed(0)
    config = TransformerConfig(width=16, layers=2, heads=2)
    embedding = torch.nn.Embedding(VOCABULARY + 1, 16)
    return SequenceModel(
        inputs=MaskedInputs(embedding, mask_id=VOCABULARY),
        backbone=Transformer(config),
        head=CategoricalHead(16, VOCABULARY),
    ).eval()


SOURCES = ["1", "2,3", "4,5,6", "7", "8,9,10", "1,1"]


def _runner(decoder: str, *, batch_size: int = 4, **settings: Any) -> Runner[Prompt]:
    options = settings.pop("options", Options(temperature=1.0))
    return Runner(
        Continuations(),  # type: ignore[arg-type]
        _model(),
        decoder=decoder,
        model_name="tiny",
        options=options,
        batch_size=batch_size,
        **settings,
    )


def _rows(runner: Runner[Prompt]) -> list[Row]:
    entries = list_entries(runner.domain, SOURCES, runner.options)
    found = {}
    for result in runner.run(plan_batches(entries, runner.batch_size)):
        for entry, row in zip(result.batch.entries, result.rows, strict=True):
            found[entry.index] = row
    return [found[index] for index in sorted(found)]


@pytest.mark.parametrize("decoder", ["ar", "mask-predict", "block-diffusion"])
def test_samples_do_not_depend_on_the_batch(decoder: str) -> None:
    rows = _rows(_runner(decoder, seed=2, batch_size=4))
    assert all(row["status"] == "ok" and len(row["ids"]) == 6 for row in rows)
    alone = _rows(_runner(decoder, seed=2, batch_size=1))
    assert [row["ids"] for row in rows] == [row["ids"] for row in alone]
    other = _rows(_runner(decoder, seed=3, batch_size=4))
    assert [row["ids"] for row in rows] != [row["ids"] for row in other]


def test_events_of_the_core_become_json_with_their_rows() -> None:
    lines: list[str] = []
    runner = _runner(
        "ar",
        on_event=lambda ids, event: lines.append(json.dumps({"ids": ids, **event.to_json()})),
    )
    _rows(runner)
    events = [json.loads(line) for line in lines]
    assert {len(event["ids"]) for event in events} == {4, 2}
    assert all(len(event["values"]) == len(event["ids"]) for event in events)
    assert next(event["forward"] for event in events if len(event["ids"]) == 2) == 0


def test_comparison_counts_passes_and_tokens() -> None:
    runners = [_runner(name) for name in ("ar", "mask-predict")]
    entries = list_entries(runners[0].domain, SOURCES, runners[0].options)
    batches = [batch for window in plan_batches(entries, 4) for batch in window]
    ar, mask_predict = (done.score for done in compare(runners, batches))
    assert ar.tokens == mask_predict.tokens == 6 * len(SOURCES)
    assert len(batches) <= mask_predict.forwards <= 3 * len(batches)
    assert ar.forwards > mask_predict.forwards
    assert set(ar.metrics) == {"mean_id"}
    assert ar.tokens_per_second > 0
