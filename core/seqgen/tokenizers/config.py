"""A tokenizer as JSON, and back: what a checkpoint needs beside the tensors.

    save(path, tokenizer.state_dict(), {"tokenizer": tokenizer_config(tokenizer)})

    state, config = load(path)
    tokenizer = build_tokenizer(config["tokenizer"])
    load_strict(tokenizer, state, source=path)

Each frozen dataclass below lists the arguments that make one class; an instance is
`asdict(config)` away from its module. Defaults are those of the classes and not repeated: a
configuration that was written holds every value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from torch import nn

from seqgen.errors import ConfigError, did_you_mean
from seqgen.options import parse
from seqgen.tokenizers.convolutional import ConvTokenizer
from seqgen.tokenizers.finite_scalar import FiniteScalarQuantizer
from seqgen.tokenizers.lookup_free import LookupFreeQuantizer
from seqgen.tokenizers.multi_scale import MultiScaleRVQ
from seqgen.tokenizers.patch_kmeans import PatchKMeans
from seqgen.tokenizers.patch_tokenizer import PatchTokenizer
from seqgen.tokenizers.pointwise import PointwiseQuantizer
from seqgen.tokenizers.vector_quantizer import VectorQuantizer


@dataclass(frozen=True)
class PatchKMeansConfig:
    """Arguments of `PatchKMeans`."""

    height: int
    width: int
    channels: int
    patch: int
    codes: int


@dataclass(frozen=True)
class VectorConfig:
    """Arguments of `VectorQuantizer`."""

    codes: int
    channels: int
    grid: tuple[int, int] | None
    l2_normalised: bool
    decay: float
    beta: float
    revive_below: float
    kmeans_init: bool


@dataclass(frozen=True)
class FiniteScalarConfig:
    """Arguments of `FiniteScalarQuantizer`."""

    levels: tuple[int, ...]
    grid: tuple[int, int] | None


@dataclass(frozen=True)
class LookupFreeConfig:
    """Arguments of `LookupFreeQuantizer`."""

    bits: int
    grid: tuple[int, int] | None
    spherical: bool
    beta: float
    entropy_weight: float
    diversity: float
    temperature: float
    group: int


@dataclass(frozen=True)
class MultiScaleConfig:
    """Arguments of `MultiScaleRVQ`."""

    scales: tuple[int, ...]
    codes: int
    channels: int
    phis: int
    phi_ratio: float
    beta: float
    revive_below: float
    use_decay: float


@dataclass(frozen=True)
class PatchConfig:
    """Arguments of `PatchTokenizer`, beside its quantizer."""

    patch: int
    image_shape: tuple[int, int, int]


@dataclass(frozen=True)
class ConvConfig:
    """Arguments of `ConvTokenizer`, beside its quantizer."""

    image_shape: tuple[int, int, int]
    downsample: int
    width: int
    depth: int
    groups: int
    l1: float
    l2: float


_QUANTIZERS: Mapping[str, tuple[type[PointwiseQuantizer] | type[MultiScaleRVQ], type[Any]]] = {
    "vector": (VectorQuantizer, VectorConfig),
    "finite-scalar": (FiniteScalarQuantizer, FiniteScalarConfig),
    "lookup-free": (LookupFreeQuantizer, LookupFreeConfig),
    "multi-scale": (MultiScaleRVQ, MultiScaleConfig),
}
_PATCH_KMEANS, _PATCH, _CONV = "patch-kmeans", "patch", "conv"


def tokenizer_config(tokenizer: nn.Module) -> dict[str, Any]:
    """What `build_tokenizer` makes the same tokenizer of, without its weights.

    Raises:
        ConfigError: it is none of the tokenizers of this package.
    """
    match tokenizer:
        case PatchKMeans():
            return {"kind": _PATCH_KMEANS, **_values(tokenizer, PatchKMeansConfig)}
        case PatchTokenizer(quantizer=quantizer):
            values = {"kind": _PATCH, **_values(tokenizer, PatchConfig)}
        case ConvTokenizer(quantizer=quantizer):
            values = {"kind": _CONV, **_values(tokenizer, ConvConfig)}
        case _:
            raise ConfigError(
                f"a {type(tokenizer).__name__} cannot be written as a configuration",
                why="known are PatchKMeans, PatchTokenizer and ConvTokenizer",
            )
    for kind, (made, config) in _QUANTIZERS.items():
        if type(quantizer) is made:
            return {**values, "quantizer": {"kind": kind, **_values(quantizer, config)}}
    raise ConfigError(
        f"a {type(quantizer).__name__} cannot be written as a configuration",
        why=f"known quantizers are {', '.join(_QUANTIZERS)}",
    )


def build_tokenizer(config: Mapping[str, Any]) -> PatchKMeans | PatchTokenizer | ConvTokenizer:
    """The tokenizer of a configuration, with fresh weights.

    Raises:
        ConfigError: an unknown kind or key, a missing value or one that is out of range.
    """
    kind, values = _split(config, "tokenizer", (_PATCH_KMEANS, _PATCH, _CONV))
    if kind == _PATCH_KMEANS:
        return PatchKMeans(**asdict(parse(PatchKMeansConfig, config=values)))
    inner = values.pop("quantizer", None)
    quantizer = build_quantizer(inner if isinstance(inner, Mapping) else {})
    if kind == _CONV:
        return ConvTokenizer(quantizer, **asdict(parse(ConvConfig, config=values)))
    if not isinstance(quantizer, VectorQuantizer | MultiScaleRVQ):
        raise ConfigError("patches need a quantizer of kind 'vector' or 'multi-scale'")
    return PatchTokenizer(quantizer, **asdict(parse(PatchConfig, config=values)))


def build_quantizer(config: Mapping[str, Any]) -> PointwiseQuantizer | MultiScaleRVQ:
    """The quantizer of a configuration (the `quantizer` of a tokenizer's)."""
    kind, values = _split(config, "quantizer", tuple(_QUANTIZERS))
    made, cls = _QUANTIZERS[kind]
    return made(**asdict(parse(cls, config=values)))


def _split(
    config: Mapping[str, Any], what: str, known: tuple[str, ...]
) -> tuple[str, dict[str, Any]]:
    values = dict(config)
    kind = values.pop("kind", None)
    if kind not in known:
        raise ConfigError(f"unknown kind of {what}: {kind!r}", fix=did_you_mean(str(kind), known))
    return str(kind), values


def _values(module: nn.Module, config: type[Any]) -> dict[str, Any]:
    return {field.name: _plain(getattr(module, field.name)) for field in fields(config)}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
