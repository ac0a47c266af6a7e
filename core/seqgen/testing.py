"""The contract test of a domain. Run it in your plugin's tests:

    from seqgen.testing import check_domain

    def test_contract():
        check_domain("mine")

It takes the domain through everything that the command line will ask of it, on its own example
and default model, and raises `ContractError` with one sentence on the first thing that is wrong.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from seqgen import options as option_values
from seqgen.artifacts import ArtifactFolder
from seqgen.domain import (
    Artifact,
    Domain,
    DomainInfo,
    Fields,
    Item,
    Trainable,
    available_decoders,
)
from seqgen.errors import InputError, SeqgenError, UsageError
from seqgen.registry import Card
from seqgen.runner import RESERVED
from seqgen.seeds import item_seed

MOST_PIECES = 4
"""Pieces of the example that are decoded; more would only make the test slow."""

TOLERANCE = 1e-3
"""Numbers may differ by this much between batch sizes: sums are added in another order."""


class ContractError(AssertionError):
    """A domain does not keep the contract."""


@dataclass(frozen=True)
class Report:
    """What was run.

    Attributes:
        decoders: the decoders that decoded the example.
        rows: the example's finished rows of the default decoder.
        metrics: what `score` gave, or None if the example has no references.
    """

    decoders: tuple[str, ...]
    rows: tuple[Mapping[str, Any], ...]
    metrics: Mapping[str, float] | None


def check_domain(
    domain: str | Domain[Any],
    *,
    info: DomainInfo | None = None,
    card: Card | None = None,
    decoders: Sequence[str] | None = None,
) -> Report:
    """Check a domain against the contract of `seqgen.domain.Domain`.

    Args:
        domain: the name of an installed plugin, or a domain object (then give `info` and `card`).
        card: the model to use; by default the plugin's default one.
        decoders: which decoders to run; by default all that `info` lists and the model has.

    Raises:
        ContractError: says what is wrong.
        SeqgenError: the plugin or its model is not there.
    """
    if isinstance(domain, str):
        from seqgen.plugins import Plugins

        plugins = Plugins()
        name = domain
        info = info or plugins.info(name)
        owner = name.partition("/")[0].rpartition(":")[2]
        card = card or plugins.registry(name).default_card(owner)
        domain = plugins.domain(name)
    if info is None or card is None:
        raise TypeError("check_domain needs `info` and `card` beside a domain object")
    _check_info(domain, info)
    _check_options(domain)
    options = option_values.parse(domain.options)
    items = _check_load(domain, options)
    model = domain.build(card, torch.device("cpu"), torch.float32)
    if isinstance(model, nn.Module):
        _need(not model.training, "build() must return the model in eval mode")
    pieces = [piece for item in items for piece in domain.split(item, options)][:MOST_PIECES]
    if decoders is None:
        decoders = available_decoders(domain, model, info.decoders)
        _need(bool(decoders), "decoders_of() names no decoder of DomainInfo for this model")
    for name in decoders:
        _check_decoding(domain, model, pieces, name, options)
    default = info.default_decoder if info.default_decoder in decoders else decoders[0]
    rows = _rows(domain, model, items[:MOST_PIECES], default, options)
    _check_write(domain, info, rows)
    metrics = _check_score(domain, rows, items[:MOST_PIECES])
    if isinstance(domain, Trainable):
        _need(domain.training() is not None, "training() must return a TrainingTask")
    return Report(tuple(decoders), tuple(rows), metrics)


def _check_info(domain: Domain[Any], info: DomainInfo) -> None:
    for name in ("name", "summary", "factory", "inputs", "default_decoder"):
        _need(bool(getattr(info, name)), f"DomainInfo.{name} is empty")
    _need(bool(info.formats), "DomainInfo.formats is empty; jsonl is always possible")
    _need(
        info.default_decoder in info.decoders,
        f"default_decoder {info.default_decoder!r} is not among {list(info.decoders)}",
    )
    _need(all(info.decoders.values()), "every decoder of DomainInfo needs a sentence")
    module, _, attribute = info.factory.partition(":")
    factory = getattr(importlib.import_module(module), attribute, None)
    _need(factory is not None, f"DomainInfo.factory {info.factory!r} does not exist")
    if isinstance(factory, type):
        _need(isinstance(domain, factory), f"the domain is no {info.factory}")
    methods = (
        "load", "example", "build", "split", "condition", "plan", "finish", "join", "write",
        "score",
    )  # fmt: skip
    for method in methods:
        _need(callable(getattr(domain, method, None)), f"the domain has no method {method}()")


def _check_options(domain: Domain[Any]) -> None:
    options = domain.options
    _need(dataclasses.is_dataclass(options), "Domain.options must be a dataclass")
    params = options.__dataclass_params__
    _need(params.frozen, "Domain.options must be a frozen dataclass")
    for field in dataclasses.fields(options):
        _need(bool(field.metadata.get("help")), f"option {field.name!r} has no help text")
    try:
        values = option_values.parse(options)
        again = option_values.parse(options, config=option_values.to_json(values))
    except (SeqgenError, TypeError) as error:
        raise ContractError(f"the default options cannot be used: {error}") from error
    _need(again == values, "the default options change on their way through JSON")


def _check_load(domain: Domain[Any], options: Any) -> list[Any]:
    sources = domain.example()
    _need(bool(sources), "example() must name at least one source")
    items = [item for source in sources for item in domain.load(source, options)]
    _need(bool(items), "load() lists nothing for the example")
    for item in items:
        _need(isinstance(item, Item), f"{type(item).__name__} lacks `id` or `size`")
        _need(isinstance(item.id, str) and bool(item.id), "an item's id must be a non-empty string")
        size = float(item.size)
        _need(math.isfinite(size) and size >= 0, f"size of {item.id} is {item.size}")
    ids = [item.id for item in items]
    _need(len(set(ids)) == len(ids), f"items share an id: {ids}")
    again = [item.id for source in sources for item in domain.load(source, options)]
    _need(ids == again, "load() gives other ids the second time")
    missing = "no-such-file-\N{SNOWMAN}.xyz"
    try:
        list(domain.load(missing, options))
    except SeqgenError:
        pass
    except Exception as error:
        raise ContractError(
            f"load() of a missing file must raise InputError, not {type(error).__name__}"
        ) from error
    return items


def _check_decoding(
    domain: Domain[Any], model: Any, pieces: Sequence[Any], decoder: str, options: Any
) -> None:
    """Every piece alone, and all in one batch with the first one once more at its end."""
    batch = [*pieces, pieces[0]]
    seeds_B = _seeds(batch)
    together = _decode(domain, model, batch, decoder, options, seeds_B)
    for fields in together:
        _check_fields(fields, decoder)
    for i, piece in enumerate(pieces):
        alone = _decode(domain, model, [piece], decoder, options, seeds_B[i : i + 1])[0]
        _need(
            _alike(alone, together[i]),
            f"decoder {decoder!r}: {piece.id} decodes differently in a batch "
            f"({_short(together[i])}) and alone ({_short(alone)})",
        )
    _need(
        _alike(together[0], together[-1]),
        f"decoder {decoder!r}: the same piece and seed twice in a batch give two results",
    )


def _decode(
    domain: Domain[Any],
    model: Any,
    pieces: Sequence[Any],
    decoder: str,
    options: Any,
    seeds_B: Tensor,
) -> list[Fields]:
    seen: list[object] = []
    with torch.inference_mode():
        context = domain.condition(model, pieces, options)
        plan = domain.plan(model, context, decoder, options, seeds_B)
        generated = plan.run(seen.append)
        fields = domain.finish(generated, pieces, context, options)
    _need(len(fields) == len(pieces), f"finish() gave {len(fields)} dicts for {len(pieces)} pieces")
    _need(generated.forwards == 0 or bool(seen), f"decoder {decoder!r} emits no events")
    return fields


def _check_fields(fields: Fields, decoder: str) -> None:
    taken = [name for name in RESERVED if name in fields]
    _need(not taken, f"the field names {taken} belong to the runner")
    try:
        json.dumps(fields, default=_artifact_only, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ContractError(f"decoder {decoder!r}: fields are not JSON-able: {error}") from error


def _artifact_only(value: object) -> str:
    if isinstance(value, Artifact):
        return value.suffix
    raise TypeError(f"{type(value).__name__} is neither JSON-able nor an Artifact")


def _rows(
    domain: Domain[Any], model: Any, items: Sequence[Any], decoder: str, options: Any
) -> list[dict[str, Any]]:
    rows = []
    for item in items:
        pieces = list(domain.split(item, options))
        parts = [
            _decode(domain, model, [piece], decoder, options, _seeds([piece]))[0]
            for piece in pieces
        ]
        fields = domain.join(item, parts, options)
        _check_fields(fields, decoder)
        head = {"id": item.id, "status": "ok", "decoder": decoder, "model": "", "seconds": 0.0}
        rows.append(head | fields)
    return rows


def _check_write(domain: Domain[Any], info: DomainInfo, rows: Sequence[Mapping[str, Any]]) -> None:
    for format in info.formats:
        if format == "jsonl":
            continue  # the runner's own
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            artifacts = ArtifactFolder(folder / "files", folder)
            stored = [artifacts.store(str(i), dict(row)) for i, row in enumerate(rows)]
            target = folder / "rows"
            target.mkdir()
            domain.write(stored, target, format)
            _need(_holds_data(target), f"write() of {format!r} into a folder wrote nothing")
            file = folder / f"one.{format}"
            try:
                domain.write(stored[:1], file, format)
            except UsageError:
                continue  # a format that only makes sense as a folder
            _need(file.is_file(), f"write() of {format!r} to a file did not make it")


def _check_score(
    domain: Domain[Any], rows: Sequence[Mapping[str, Any]], items: Sequence[Any]
) -> dict[str, float] | None:
    try:
        metrics = domain.score(rows, items)
    except InputError:
        return None  # the example has no references
    _need(bool(metrics), "score() gave no metric")
    for name, value in metrics.items():
        _need(isinstance(value, int | float), f"metric {name!r} is no number: {value!r}")
    return metrics


def _seeds(pieces: Sequence[Any]) -> Tensor:
    return torch.tensor([item_seed(0, piece.id) for piece in pieces], dtype=torch.int64)


def _holds_data(folder: Path) -> bool:
    return any(path.is_file() for path in folder.rglob("*"))


def _alike(a: Any, b: Any) -> bool:
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, int | float) and isinstance(b, int | float):
        return math.isclose(a, b, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(_alike(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(_alike, a, b))
    return bool(a == b)


def _short(fields: Fields) -> str:
    text = json.dumps(fields, default=_artifact_only, ensure_ascii=False)
    return text if len(text) <= 200 else text[:200] + "..."


def _need(condition: bool, message: str) -> None:
    if not condition:
        raise ContractError(message)
