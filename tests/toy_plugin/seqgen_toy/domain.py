"""The toy domain: deterministic, quick, and as awkward as a real one.

It has long texts (several pieces), texts that cannot be read ("BAD ..."), texts that break the
batch they are in ("POISON"), artifacts, references, and a field that depends on what else was in
the batch (`company`), as the last digits of a real model's scores do. Tests that compare bytes
would notice any difference in how items are batched.
"""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch

from seqgen.domain import Artifact, Fields
from seqgen.errors import InputError, UsageError
from seqgen.options import option
from seqgen.registry import Card
from seqgen.training.task import FitConfig
from seqgen.weights import local_files


@dataclass(frozen=True)
class ToyItem:
    id: str
    size: float
    path: Path | None = None
    text: str = ""


@dataclass(frozen=True)
class ToyOptions:
    piece: int = option(40, help="longest text that is decoded in one piece", range=(1, None))
    delay: float = option(0.0, help="seconds that a batch takes at least", range=(0, None))
    artifact: bool = option(False, help="give the text as a file too")
    style: Literal["plain", "loud"] = option("plain", help="how it ends")
    spoil: bool = option(False, help="give a number that JSON does not know")


@dataclass(frozen=True)
class ToyEvent:
    forward: int
    values: list[str]

    def to_json(self) -> dict[str, Any]:
        return {"forward": self.forward, "values": self.values}


@dataclass(frozen=True)
class ToyGenerated:
    texts: list[str]
    forwards: int
    prompt_B: torch.Tensor
    length_B: torch.Tensor
    draft_forwards: int = 0


@dataclass(frozen=True)
class ToyPlan:
    texts: list[str]
    decoder: str
    seeds: list[int]
    delay: float
    key: int

    def run(self, on_event: Callable[[Any], None] | None = None) -> ToyGenerated:
        time.sleep(self.delay)
        if self.decoder == "upper":
            texts, forwards = [text.upper() for text in self.texts], 1
        elif self.decoder == "reverse":
            texts, forwards = [text[::-1] for text in self.texts], max(map(len, self.texts))
        elif self.decoder == "dice":
            texts, forwards = [], max(map(len, self.texts))
            for text, seed in zip(self.texts, self.seeds, strict=True):
                generator = torch.Generator().manual_seed(seed)
                draws = torch.randint(0, 26, (len(text),), generator=generator).tolist()
                texts.append("".join(c + chr(97 + d) for c, d in zip(text, draws, strict=True)))
        else:
            raise UsageError(f"the toy has no decoder {self.decoder!r}")
        if on_event is not None:
            on_event(ToyEvent(0, texts))
        lengths = torch.tensor([len(text) for text in texts])
        return ToyGenerated(texts, forwards, torch.zeros_like(lengths), lengths)


@dataclass(frozen=True)
class SumOptions:
    width: int = option(3, help="numbers to add", range=(1, None))


class SumRun:
    """Learns to add `width` numbers: a training that takes a second."""

    def __init__(self, options: SumOptions, seed: int) -> None:
        self.seed = seed
        self.model = torch.nn.Linear(options.width, 1)

    def batch(self, step: int, rank: int, world: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(1000 * self.seed + step * world + rank)
        return torch.randn(16, self.model.in_features, generator=generator)

    def losses(self, batch: torch.Tensor, step: int) -> dict[str, torch.Tensor]:
        batch = batch.to(self.model.weight.device)
        return {"loss": (self.model(batch) - batch.sum(1, keepdim=True)).square().mean()}

    def validate(self) -> dict[str, float]:
        return {"error": self.losses(self.batch(-1, 0, 1), 0)["loss"].item()}

    def export(self, folder: Path, notes: Mapping[str, Any]) -> Path:
        path = folder / "weights.txt"
        path.write_text(" ".join(map(repr, self.model.weight.detach().flatten().tolist())))
        return path


class SumTask:
    presets: ClassVar = {
        "quick": (SumOptions(), FitConfig(steps=60, lr=0.1, warmup=2, save_every=10)),
        "wide": (SumOptions(width=9), FitConfig(steps=60, lr=0.1, warmup=2, save_every=10)),
    }

    def start(
        self, options: SumOptions, fit: FitConfig, *, data: Path | None, seed: int, folder: Path
    ) -> SumRun:
        return SumRun(options, seed)

    conversions: ClassVar = {
        "block-diffusion": (SumOptions(), FitConfig(steps=40, lr=0.05, warmup=2, save_every=10)),
    }

    def convert(
        self,
        checkpoint: Path,
        options: SumOptions,
        fit: FitConfig,
        *,
        data: Path | None,
        seed: int,
        folder: Path,
    ) -> SumRun:
        """Goes on from the weights of an earlier training."""
        weights = [float(word) for word in checkpoint.read_text().split()]
        run = SumRun(SumOptions(width=len(weights)), seed)
        run.model.weight.data.copy_(torch.tensor(weights))
        run.model.bias.data.zero_()  # which the file does not hold
        return run


class ToyDomain:
    options = ToyOptions

    def load(self, source: str, options: ToyOptions) -> Iterator[ToyItem]:
        if source == "-":
            for number, line in enumerate(sys.stdin):
                yield ToyItem(f"line-{number}", len(line), text=line.rstrip("\n"))
            return
        path = Path(source)
        if path.is_dir():
            for file in sorted(path.glob("*.txt")):
                yield ToyItem(file.name, file.stat().st_size, file)
        elif path.is_file():
            yield ToyItem(path.name, path.stat().st_size, path)
        else:
            raise InputError(f"{source} does not exist")

    def example(self) -> list[str]:
        return [str(Path(__file__).parent / "assets" / "example.txt")]

    def build(self, card: Card, device: torch.device, dtype: torch.dtype) -> int:
        return int(local_files(card)[0].read_text().split()[1])

    def split(self, item: ToyItem, options: ToyOptions) -> Iterator[ToyItem]:
        text = item.text if item.path is None else item.path.read_text().strip()
        if text.startswith("BAD"):
            raise InputError(f"{item.path} is not a toy text", why="it starts with BAD")
        if text.startswith("CRASH"):
            raise ValueError("something nobody thought of")
        for start in range(0, len(text), options.piece):
            part = text[start : start + options.piece]
            yield replace(item, text=part, size=len(part))

    def condition(self, model: int, pieces: Sequence[ToyItem], options: ToyOptions) -> list[str]:
        if any("POISON" in piece.text for piece in pieces):
            raise RuntimeError("the whole batch died")
        return [piece.text for piece in pieces]

    def plan(
        self, model: int, context: list[str], decoder: str, options: ToyOptions, seeds: torch.Tensor
    ) -> ToyPlan:
        return ToyPlan(context, decoder, seeds.tolist(), options.delay, model)

    def finish(
        self,
        generated: ToyGenerated,
        pieces: Sequence[ToyItem],
        context: list[str],
        options: ToyOptions,
    ) -> list[Fields]:
        company = hashlib.sha256("|".join(context).encode()).hexdigest()[:8]
        ending = "!" if options.style == "loud" else ""
        return [
            {"text": text + ending, "company": [company], "nan": float("nan")}
            if options.spoil
            else {"text": text + ending, "company": [company]}
            for text in generated.texts
        ]

    def join(self, item: ToyItem, parts: Sequence[Fields], options: ToyOptions) -> Fields:
        fields: Fields = dict(parts[0])
        fields["text"] = "".join(part["text"] for part in parts)
        fields["company"] = [name for part in parts for name in part["company"]]
        if options.artifact:
            fields["file"] = Artifact(".bin", fields["text"].encode())
        return fields

    def write(self, rows: Iterable[Mapping[str, Any]], destination: Path, format: str) -> None:
        lines = [f"{row['id']}\t{row.get('text', row.get('reason'))}\n" for row in rows]
        if format == "txt":
            target = destination / "texts.txt" if destination.is_dir() else destination
            target.write_text("".join(lines))
        elif destination.is_dir():
            for line in lines:
                (destination / f"{line.split('.')[0]}.note").write_text(line)
        elif len(lines) == 1:
            destination.write_text(lines[0])
        else:
            raise UsageError("a .note file holds one text", fix="-o FOLDER/")

    def training(self) -> SumTask:
        return SumTask()

    def score(
        self, rows: Sequence[Mapping[str, Any]], items: Sequence[ToyItem]
    ) -> dict[str, float]:
        right = 0
        for row, item in zip(rows, items, strict=True):
            reference = item.path.with_suffix(".ref") if item.path is not None else None
            if reference is None or not reference.exists():
                raise InputError(f"{item.id} has no reference", why=f"no file {reference}")
            right += row.get("text", "").lower() == reference.read_text().strip()
        return {"accuracy": round(right / len(rows), 4)}
