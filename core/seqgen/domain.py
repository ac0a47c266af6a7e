"""The seam between the core and a plugin: what a domain must be able to do.

A plugin's entry point is an object in a light module; its pluggy hooks only register
(`seqgen_domains` returns `DomainInfo`s). The work sits in one class that satisfies `Domain`, named
by `DomainInfo.factory` and imported when the domain is used.

One batch goes through a domain like this (see `seqgen.runner`):

    items     = domain.load(source, options)                       # light references, cheap to list
    pieces    = domain.split(item, options)                        # read; long items in parts
    context   = domain.condition(model, pieces, options)           # encoder, once a batch
    plan      = domain.plan(model, context, decoder, options, seeds)
    generated = plan.run(on_event)                                 # the core's loop
    fields    = domain.finish(generated, pieces, context, options) # JSON-able, one dict a piece
    fields    = domain.join(item, fields_of_its_pieces, options)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

if TYPE_CHECKING:
    import torch
    from torch import nn

    from seqgen.canvas import Canvas
    from seqgen.decoders.base import Decoder, Generated
    from seqgen.events import Event
    from seqgen.model import Context, SequenceModel
    from seqgen.registry import Card
    from seqgen.training.task import TrainingTask

API_VERSION = 1
"""The plugin interface this core speaks; a plugin carries `api = 1`."""

Fields = dict[str, Any]
"""The domain's own fields of one output row: JSON-able values, or `Artifact`s."""


@dataclass(frozen=True)
class DomainInfo:
    """What is known of a domain without importing anything heavy.

    Attributes:
        name: what `--plugin` takes.
        summary: one sentence for `seqgen plugins`.
        factory: `module:Class` of the `Domain`; imported only when the domain is used.
        inputs: what it reads, in words.
        formats: formats of `-o`, the default one first; `jsonl` is always possible.
        decoders: decoder name -> one sentence.
        default_decoder: used when neither the command nor the card names one.
        extra: the pip extra with the packages it needs.
        batch_size: pieces decoded together unless `--batch-size` says otherwise.
    """

    name: str
    summary: str
    factory: str
    inputs: str
    formats: tuple[str, ...]
    decoders: Mapping[str, str]
    default_decoder: str
    extra: str = ""
    batch_size: int = 8


@dataclass(frozen=True)
class Artifact:
    """A binary output (image, mesh, audio) inside a row's fields.

    The runner writes `data` into the output folder and puts the relative path in its place, so
    that no domain has to care for paths.
    """

    suffix: str
    data: bytes = field(repr=False)


@dataclass(frozen=True)
class Plan:
    """Everything that one batch's decoding needs: the parts, chosen.

    Attributes:
        decoder: the recipe, configured.
        model: inputs, backbone and head that the recipe drives.
        canvas: slots with the prompt written and the rows' seeds set.
        context: what the backbone attends to, or None.
    """

    decoder: Decoder
    model: SequenceModel
    canvas: Canvas
    context: Context | None = None

    def run(self, on_event: Callable[[Event], None] | None = None) -> Generated:
        """Decode the batch."""
        return self.decoder.generate(self.model, self.canvas, self.context, on_event=on_event)


@runtime_checkable
class Item(Protocol):
    """One thing to decode. Light: payloads are read by `Domain.split`."""

    @property
    def id(self) -> str:
        """Unique within a run and independent of batch and shard; the seed derives from it."""
        ...

    @property
    def size(self) -> float:
        """Relative cost (seconds, peaks, tokens); items of like size are batched together."""
        ...


ItemT = TypeVar("ItemT", bound=Item)


class Domain(Protocol[ItemT]):
    """What a plugin implements. `seqgen.testing.check_domain` is the contract test.

    Every method is called with `options`, an instance of the frozen dataclass `self.options`, from
    which `--set key=value` and the help text are made (field metadata: `help`, `choices`).
    """

    options: type[Any]

    def load(self, source: str, options: Any) -> Iterator[ItemT]:
        """List the items of one INPUT (file, folder, glob, manifest, `-` for stdin).

        Raises:
            InputError: the source does not exist or lists nothing.
        """
        ...

    def example(self) -> list[str]:
        """Sources to run when the user gives none; shipped inside the plugin."""
        ...

    def build(self, card: Card, device: torch.device, dtype: torch.dtype) -> Any:
        """The model of a card, ready to decode (an nn.Module in eval mode, or what holds some).

        `--dtype int8` builds in float32; `seqgen.preparation` does the rest.

        Raises:
            CheckpointError: files are missing, damaged or do not fit.
        """
        ...

    def split(self, item: ItemT, options: Any) -> Iterator[ItemT]:
        """Read an item; yields it as one loaded piece, or as several if it is long.

        Raises:
            InputError: the item cannot be read.
        """
        ...

    def condition(self, model: Any, pieces: Sequence[ItemT], options: Any) -> Context | None:
        """What the decoder attends to: encoder states of the batch. No model call if none."""
        ...

    def plan(
        self,
        model: Any,
        context: Context | None,
        decoder: str,
        options: Any,
        seeds: torch.Tensor,
    ) -> Plan:
        """Choose the parts for one batch. `seeds` [B] int64, one a piece, from (seed, item id)."""
        ...

    def finish(
        self, generated: Generated, pieces: Sequence[ItemT], context: Context | None, options: Any
    ) -> list[Fields]:
        """Turn decoded canvases into rows' fields, one a piece."""
        ...

    def join(self, item: ItemT, parts: Sequence[Fields], options: Any) -> Fields:
        """Put the fields of an item's pieces together (return `parts[0]` if there is one)."""
        ...

    def write(self, rows: Iterable[Mapping[str, Any]], destination: Path, format: str) -> None:
        """Write finished rows in one of the domain's own formats (never called for jsonl).

        `destination` is a file for formats that hold many items and for a run over one item;
        otherwise a folder that exists.
        """
        ...

    def score(self, rows: Sequence[Mapping[str, Any]], items: Sequence[ItemT]) -> dict[str, float]:
        """The field's metrics of finished rows against their items' references.

        Rows with status `failed` are included. Raises `InputError` where items have no reference.
        """
        ...


@runtime_checkable
class Trainable(Protocol):
    """A domain that `seqgen train` can train."""

    def training(self) -> TrainingTask:
        """The training task with its presets."""
        ...


class Live(Protocol):
    """Shows batches while they are decoded."""

    def begin(self, ids: Sequence[str], plan: Plan) -> None:
        """A batch of rows with these ids is about to be decoded; `plan.canvas` changes with it."""
        ...

    def event(self, event: Event) -> None:
        """A forward pass was made, and what it decided lies in the canvas."""
        ...

    def end(self) -> None:
        """The batch is done, or was given up."""
        ...


@runtime_checkable
class Streaming(Protocol):
    """A domain that can show what it decodes as it comes: `seqgen run --stream`."""

    def live(self, model: Any, write: Callable[[str], None], items: int) -> Live:
        """What shows a run over so many items; `write` takes text for a person to read."""
        ...


@runtime_checkable
class Selective(Protocol):
    """A domain whose models do not all have all of its decoders."""

    def decoders_of(self, model: Any) -> Sequence[str]:
        """The decoders of a model that `build` gave, by their names in `DomainInfo`."""
        ...


def available_decoders(domain: Domain[Any], model: Any, names: Iterable[str]) -> list[str]:
    """Those of `names` that a model has: all of them, unless the domain is `Selective`."""
    if not isinstance(domain, Selective):
        return list(names)
    own = domain.decoders_of(model)
    return [name for name in names if name in own]


@runtime_checkable
class LoadsLater(Protocol):
    """A model that `build` gave and that loads parts of itself when they are first used."""

    def when_loaded(self, step: Callable[[nn.Module], None]) -> None:
        """Do `step` to every part that is there, and to every other one once it is loaded."""
        ...


@runtime_checkable
class Tokenizing(Protocol):
    """A domain with tokenizers that can be ranked: `seqgen bench --tokenizers`.

    Attributes:
        ranked: columns of the table, in this sequence.
    """

    ranked: Sequence[str]

    def rank_tokenizers(
        self, model: Any, sources: Sequence[str], options: Any
    ) -> tuple[list[Fields], Callable[[str], bytes]]:
        """A row a tokenizer, the best first, and what draws them (`png`, `svg` or `pdf`).

        Args:
            sources: what to try them on; none: what the model brings.
        """
        ...


@runtime_checkable
class Described(Protocol):
    """A domain whose items say something of themselves that a failed row should hold too."""

    def describe(self, item: Any) -> Fields:
        """Fields known from the listing alone (file, title); JSON-able."""
        ...


@runtime_checkable
class Plottable(Protocol):
    """A domain that can draw what it made of an item: `seqgen run --plot DIR`."""

    def plot(self, row: Mapping[str, Any], item: Any, options: Any) -> bytes:
        """A PNG of a finished row (status `ok`).

        The row holds no payload and the item is as `load` listed it: `split` reads it again.
        """
        ...


@runtime_checkable
class Chartable(Protocol):
    """A domain with a chart of its own for `seqgen eval --plot FILE`."""

    def chart(self, rows: Sequence[Mapping[str, Any]], items: Sequence[Any], format: str) -> bytes:
        """A picture of how the metrics come about; `format` is `png`, `svg` or `pdf`.

        Rows and items are those that `score` gets.
        """
        ...


@runtime_checkable
class Pictured(Protocol):
    """A domain with a picture of its own for `seqgen compare`."""

    def side_by_side(
        self, rows: Mapping[str, Sequence[Mapping[str, Any]]], items: Sequence[Any], format: str
    ) -> bytes:
        """What the decoders made of the same items.

        Args:
            rows: decoder -> its rows, binary fields still `Artifact`s.
            format: `png`, `svg` or `pdf`.
        """
        ...


@runtime_checkable
class Comparing(Protocol):
    """A domain that knows which of its metrics belong in the table of `seqgen compare`.

    Attributes:
        compared: their names, the main one first.
    """

    compared: Sequence[str]


@runtime_checkable
class Illustrated(Protocol):
    """A domain with options that ask `seqgen run` for a file beside OUT (a preview, say)."""

    def illustrations(self, options: Any) -> Sequence[Path]:
        """The files that a run with these options writes. They are never written over unasked."""
        ...

    def illustrate(self, options: Any) -> str:
        """Write them, once all items are decoded; returns a note for the person."""
        ...


@runtime_checkable
class WithoutInput(Protocol):
    """A domain that needs no INPUT: its options say what there is to decode."""

    def without_input(self, options: Any) -> str:
        """What a command without INPUT does, for a note."""
        ...


@runtime_checkable
class DecoderOfFile(Protocol):
    """A domain whose checkpoints say by which decoder they want to be decoded."""

    def default_decoder(self, card: Card) -> str:
        """That decoder, or an empty text; light, and wrong files are no error here.

        It counts where neither the command nor the card names one.
        """
        ...


@runtime_checkable
class SettingsAware(Protocol):
    """A domain one of whose formats names the settings of the run."""

    def with_settings(self, settings: Mapping[str, Any]) -> Domain[Any]:
        """The same domain, whose `write` names these settings (`model`, `options`, ...)."""
        ...
