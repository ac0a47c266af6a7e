"""The domain: items in, rows out. `seqgen.domain.Domain` says what each method must do."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import torch
from seqgen.decoders import Autoregressive, BlockDiffusion, Generated, NonAutoregressive
from seqgen.decoders.base import Decoder
from seqgen.domain import Fields, Plan
from seqgen.errors import InputError, UsageError, did_you_mean
from seqgen.logits import Sampling
from seqgen.model import Context, device_of
from seqgen.options import option
from seqgen.registry import Card
from seqgen.weights import local_files

from seqgen_myplugin.model import LENGTH, WRITES, DateModel, empty_canvas, load_model
from seqgen_myplugin.training import DateTraining

LONGEST = 60  # characters; nobody writes a date in more


@dataclass(frozen=True)
class Date:
    """One line of a file. The item's seed derives from `id`, which no batch or shard changes."""

    id: str
    text: str
    expected: str = ""

    @property
    def size(self) -> float:
        """Items of like size are batched together."""
        return len(self.text)


@dataclass(frozen=True)
class Options:
    """What `--set key=value` can set."""

    temperature: float = option(0.0, help="0 takes the most probable character", range=(0.0, None))
    block: int = option(4, help="characters a block in block diffusion", range=(1, LENGTH))
    steps: int = option(3, help="passes: of mask-predict, or a block", range=(1, LENGTH))
    keep: Literal["quota", "threshold"] = option(
        "threshold", help="in a block: an equal number a pass, or all that are certain enough"
    )


class MyPluginDomain:
    """Reads written dates."""

    options = Options

    def load(self, source: str, options: Options) -> Iterator[Date]:
        if source == "-":
            lines = sys.stdin.read().splitlines()
        else:
            try:
                lines = Path(source).read_text(encoding="utf-8").splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise InputError(f"cannot read {source}", why=str(error)) from error
        if not any(line.strip() for line in lines):
            raise InputError(f"{source} holds no date", fix="write one date a line")
        name = "stdin" if source == "-" else Path(source).name
        for number, line in enumerate(lines, start=1):
            text, _, expected = line.partition("\t")
            if text.strip():
                yield Date(f"{name}:{number}", text.strip(), expected.strip())

    def example(self) -> list[str]:
        return [str(files("seqgen_myplugin") / "assets" / "example.tsv")]

    def build(self, card: Card, device: torch.device, dtype: torch.dtype) -> DateModel:
        (path,) = local_files(card)
        return load_model(path, device, dtype)

    def split(self, item: Date, options: Options) -> Iterator[Date]:
        # Long items would be read here and yielded in parts; a bad one raises and only it fails.
        if len(item.text) > LONGEST:
            raise InputError(
                f"{item.id} has {len(item.text)} characters", why=f"a date has at most {LONGEST}"
            )
        yield item

    def condition(self, model: DateModel, pieces: Sequence[Date], options: Options) -> Context:
        return model.read([piece.text for piece in pieces])

    def plan(
        self,
        model: DateModel,
        context: Context | None,
        decoder: str,
        options: Options,
        seeds: torch.Tensor,
    ) -> Plan:
        canvas = empty_canvas(len(seeds), seeds, device_of(model))
        return Plan(_recipe(decoder, options), model.decoder, canvas, context)

    def finish(
        self,
        generated: Generated,
        pieces: Sequence[Date],
        context: Context | None,
        options: Options,
    ) -> list[Fields]:
        confidences = generated.confidence_BS[:, 1:].tolist()  # without the start
        return [
            {
                "text": piece.text,
                "date": "".join(WRITES[i] for i in ids),
                "confidences": [round(value, 4) for value in row],
            }
            for piece, ids, row in zip(pieces, generated.sequences(), confidences, strict=True)
        ]

    def join(self, item: Date, parts: Sequence[Fields], options: Options) -> Fields:
        return parts[0]  # an item is one piece

    def write(self, rows: Iterable[Mapping[str, Any]], destination: Path, format: str) -> None:
        file = destination / "dates.txt" if destination.is_dir() else destination
        with file.open("w", encoding="utf-8") as out:
            for row in rows:
                out.write(f"{row.get('date') or row.get('reason', '')}\n")

    def score(self, rows: Sequence[Mapping[str, Any]], items: Sequence[Date]) -> dict[str, float]:
        if not all(item.expected for item in items):
            raise InputError("not every date has an expected one", fix="write: date, tab, ISO date")
        dates = [row.get("date", "").ljust(LENGTH) for row in rows]
        pairs = list(zip(dates, [item.expected for item in items], strict=True))
        characters = [a == b for date, iso in pairs for a, b in zip(date, iso, strict=False)]
        return {
            "accuracy": sum(a == b for a, b in pairs) / len(pairs),
            "character_accuracy": sum(characters) / len(characters),
        }

    def training(self) -> DateTraining:
        return DateTraining()


def _recipe(name: str, options: Options) -> Decoder:
    """One model, every decoder: only the recipe differs."""
    sampling = Sampling(temperature=options.temperature)
    recipes: dict[str, Decoder] = {
        "ar": Autoregressive(sampling=sampling),
        "nar": NonAutoregressive(sampling=sampling),
        "mask-predict": NonAutoregressive(steps=options.steps, sampling=sampling),
        "block-diffusion": BlockDiffusion(
            block_length=options.block,
            steps=min(options.steps, options.block),
            remasking=(
                "low_confidence_static" if options.keep == "quota" else "low_confidence_dynamic"
            ),
            sampling=sampling,
        ),
    }
    if name not in recipes:
        raise UsageError(f"unknown decoder {name!r}", fix=did_you_mean(name, recipes))
    return recipes[name]
