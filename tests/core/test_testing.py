"""The contract test passes a domain that keeps the contract, and catches each way to break it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from seqgen.domain import Artifact, DomainInfo, Fields
from seqgen.errors import InputError
from seqgen.options import option
from seqgen.registry import Card
from seqgen.testing import ContractError, check_domain

INFO = DomainInfo(
    name="echo",
    summary="Repeats words",
    factory=f"{__name__}:Echo",
    inputs="words",
    formats=("jsonl", "txt"),
    decoders={"plain": "as it is", "loud": "in capitals"},
    default_decoder="plain",
)
CARD = Card(name="echo", plugin="echo", status="untested")


@dataclass(frozen=True)
class Word:
    id: str
    size: float
    text: str = ""


@dataclass(frozen=True)
class Options:
    suffix: str = option("!", help="what follows a word")


@dataclass(frozen=True)
class EchoPlan:
    """The two things that the contract asks of a plan: `run(on_event)` and its result."""

    words: tuple[str, ...]
    forwards: int = 1

    def run(self, on_event: Any = None) -> EchoPlan:
        if on_event is not None:
            on_event(self)
        return self


class Echo:
    """Keeps the contract; every class below breaks it in one way."""

    options: type[Any] = Options

    def load(self, source: str, options: Any) -> Iterator[Word]:
        if source != "example":
            raise InputError(f"no {source}")
        yield Word("a", 1.0, "hello")
        yield Word("b", 2.0, "world")

    def example(self) -> list[str]:
        return ["example"]

    def build(self, card: Card, device: torch.device, dtype: torch.dtype) -> Any:
        return torch.nn.Identity().eval()

    def split(self, item: Word, options: Any) -> Iterator[Word]:
        yield item

    def condition(self, model: Any, pieces: Sequence[Word], options: Any) -> Any:
        return tuple(piece.text for piece in pieces)

    def plan(
        self, model: Any, context: Any, decoder: str, options: Any, seeds: torch.Tensor
    ) -> Any:
        return EchoPlan(tuple(w.upper() if decoder == "loud" else w for w in context))

    def finish(
        self, generated: Any, pieces: Sequence[Word], context: Any, options: Any
    ) -> list[Fields]:
        return [{"text": word + options.suffix, "score": 0.5} for word in generated.words]

    def join(self, item: Word, parts: Sequence[Fields], options: Any) -> Fields:
        return parts[0]

    def write(self, rows: Iterable[Mapping[str, Any]], destination: Path, format: str) -> None:
        file = destination / "all.txt" if destination.is_dir() else destination
        file.write_text("".join(f"{row['text']}\n" for row in rows))

    def score(self, rows: Sequence[Mapping[str, Any]], items: Sequence[Word]) -> dict[str, float]:
        return {"accuracy": 1.0}


class Training(Echo):
    def build(self, card: Card, device: torch.device, dtype: torch.dtype) -> Any:
        return torch.nn.Identity()


class SharedIds(Echo):
    def load(self, source: str, options: Any) -> Iterator[Word]:
        for word in super().load(source, options):
            yield dataclasses.replace(word, id="same")


class RestlessIds(Echo):
    count = 0

    def load(self, source: str, options: Any) -> Iterator[Word]:
        for word in super().load(source, options):
            self.count += 1
            yield dataclasses.replace(word, id=f"{self.count}")


class WrongError(Echo):
    def load(self, source: str, options: Any) -> Iterator[Word]:
        if source != "example":
            raise KeyError(source)
        return super().load(source, options)


class NoExample(Echo):
    def example(self) -> list[str]:
        return []


class BatchDependent(Echo):
    def condition(self, model: Any, pieces: Sequence[Word], options: Any) -> Any:
        return tuple(f"{piece.text}{len(pieces)}" for piece in pieces)


class Unrepeatable(Echo):
    def finish(
        self, generated: Any, pieces: Sequence[Word], context: Any, options: Any
    ) -> list[Fields]:
        return [{"place": place} for place, _ in enumerate(pieces)]


class LosesRows(Echo):
    def finish(
        self, generated: Any, pieces: Sequence[Word], context: Any, options: Any
    ) -> list[Fields]:
        return super().finish(generated, pieces, context, options)[:-1]


class Fielded(Echo):
    fields: Fields = {}  # noqa: RUF012

    def finish(
        self, generated: Any, pieces: Sequence[Word], context: Any, options: Any
    ) -> list[Fields]:
        return [dict(self.fields) for _ in pieces]


class TakesId(Fielded):
    fields: Fields = {"id": "mine"}  # noqa: RUF012


class NotJson(Fielded):
    fields: Fields = {"x": torch.ones(2)}  # noqa: RUF012


class NotFinite(Fielded):
    fields: Fields = {"x": float("nan")}  # noqa: RUF012


class SilentPlan(Echo):
    def plan(
        self, model: Any, context: Any, decoder: str, options: Any, seeds: torch.Tensor
    ) -> Any:
        class Silent(EchoPlan):
            def run(self, on_event: Any = None) -> EchoPlan:
                return self

        return Silent(tuple(context))


class WritesNothing(Echo):
    def write(self, rows: Iterable[Mapping[str, Any]], destination: Path, format: str) -> None:
        """Forgets."""


class WordyScore(Echo):
    def score(self, rows: Sequence[Mapping[str, Any]], items: Sequence[Word]) -> dict[str, float]:
        return {"accuracy": "good"}  # type: ignore[dict-item]


class ThawedOptions(Echo):
    @dataclass
    class Thawed:
        suffix: str = option("!", help="what follows a word")

    options = Thawed


class UnexplainedOptions(Echo):
    @dataclass(frozen=True)
    class Unexplained:
        suffix: str = "!"

    options = Unexplained


@pytest.mark.parametrize(
    ("domain", "message"),
    [
        (Training, "eval mode"),
        (SharedIds, "share an id"),
        (RestlessIds, "other ids the second time"),
        (WrongError, "must raise InputError, not KeyError"),
        (NoExample, "at least one source"),
        (BatchDependent, "decodes differently in a batch"),
        (Unrepeatable, "decodes differently in a batch"),
        (LosesRows, "2 dicts for 3 pieces"),
        (TakesId, "belong to the runner"),
        (NotJson, "not JSON-able"),
        (NotFinite, "not JSON-able"),
        (SilentPlan, "emits no events"),
        (WritesNothing, "wrote nothing"),
        (WordyScore, "is no number"),
        (ThawedOptions, "must be a frozen dataclass"),
        (UnexplainedOptions, "has no help text"),
    ],
)
def test_each_way_to_break_the_contract_is_caught(domain: type[Echo], message: str) -> None:
    with pytest.raises(ContractError, match=message):
        check_domain(domain(), info=INFO, card=CARD)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"summary": ""}, "summary is empty"),
        ({"formats": ()}, "formats is empty"),
        ({"default_decoder": "fast"}, "'fast' is not among"),
        ({"decoders": {"plain": ""}}, "needs a sentence"),
        ({"factory": f"{__name__}:Gone"}, "does not exist"),
        ({"factory": f"{__name__}:Word"}, "the domain is no"),
    ],
)
def test_what_a_domain_says_of_itself_is_checked(change: dict[str, Any], message: str) -> None:
    info = dataclasses.replace(INFO, **change)
    with pytest.raises(ContractError, match=message):
        check_domain(Echo(), info=info, card=CARD)


def test_a_domain_that_keeps_the_contract_passes() -> None:
    report = check_domain(Echo(), info=INFO, card=CARD)
    assert report.decoders == ("plain", "loud")
    assert [row["text"] for row in report.rows] == ["hello!", "world!"]
    assert report.metrics == {"accuracy": 1.0}


def test_artifacts_and_unscored_examples_are_fine() -> None:
    class Drawn(Fielded):
        fields: Fields = {"text": "x", "file": Artifact(".png", b"data")}  # noqa: RUF012

        def score(
            self, rows: Sequence[Mapping[str, Any]], items: Sequence[Word]
        ) -> dict[str, float]:
            raise InputError("no references")

    assert check_domain(Drawn(), info=INFO, card=CARD).metrics is None


def test_a_domain_object_needs_its_info_and_card() -> None:
    with pytest.raises(TypeError, match="info"):
        check_domain(Echo())
