"""Options from a frozen dataclass: `--set key=value`, configuration files and the help text.

A domain (or anything else) declares its options once, as a frozen dataclass:

    @dataclass(frozen=True)
    class Options:
        temperature: float = option(1.0, help="1 samples the model as it is", range=(0.0, None))
        order: Literal["raster", "diagonal"] = option("raster", help="order of the tokens")

and gets from it typed values, checked choices and ranges, errors with a suggestion, and a table
for the help text. A plain `field(metadata={...})` with `help`, `choices`, `range` (or `min`, `max`)
says the same without importing this module.

A field that would be a keyword of Python ends in an underscore: `class_` is set as `class`.

Types: bool, int, float, str, Path, Literal, Enum, `tuple[T, ...]`, `tuple[A, B]` and `T | None`.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

from seqgen.errors import ConfigError, SeqgenError, did_you_mean

T = TypeVar("T")

_TRUE = frozenset({"true", "yes", "on", "1"})
_FALSE = frozenset({"false", "no", "off", "0"})
_NONE = frozenset({"none", "null", ""})


def option(
    default: Any = dataclasses.MISSING,
    *,
    help: str = "",
    choices: tuple[Any, ...] = (),
    range: tuple[float | None, float | None] | None = None,
) -> Any:
    """A dataclass field with what the help text and the checks need.

    Args:
        default: the value when nothing is set; without one the option is required.
        help: one sentence.
        choices: the only values allowed.
        range: lowest and highest value, both allowed; None leaves that side open. For a tuple it
            holds for every element.
    """
    metadata = {"help": help, "choices": choices, "range": range}
    if default is dataclasses.MISSING:
        return dataclasses.field(metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def parse(
    cls: type[T], assignments: Iterable[str] = (), config: Mapping[str, Any] | None = None
) -> T:
    """An instance of `cls` from `config` (a file's mapping), then `key=value` strings over it.

    Raises:
        ConfigError: an unknown key, a value of the wrong type, outside its choices or range, or a
            required option that is missing.
    """
    fields = {_key(field): field for field in dataclasses.fields(_dataclass(cls)) if field.init}
    hints = typing.get_type_hints(cls)
    given: dict[str, Any] = dict(config or {})
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals:
            raise ConfigError(
                f"'{assignment}' is not an option setting",
                fix=f"write it as key=value, for example --set {key.strip() or 'key'}=VALUE",
            )
        given[key.strip()] = value.strip()

    values: dict[str, Any] = {}
    for key, raw in given.items():
        name = str(key).replace("-", "_")
        if name not in fields:
            raise ConfigError(f"unknown option {str(key)!r}", fix=did_you_mean(name, fields))
        value = _convert(raw, hints[fields[name].name], name)
        _check(value, fields[name].metadata, name)
        values[fields[name].name] = value
    for name, field in fields.items():
        if field.name not in values and _default(field) is dataclasses.MISSING:
            raise ConfigError(f"option {name!r} has no value", fix=f"add --set {name}=VALUE")
    try:
        return cls(**values)
    except SeqgenError:
        raise
    except (TypeError, ValueError) as error:
        raise ConfigError(f"the options do not fit together: {error}") from error


@dataclass(frozen=True)
class OptionHelp:
    """One line of the help text."""

    name: str
    type: str
    default: str
    help: str


def describe(cls: type[Any]) -> list[OptionHelp]:
    """What can be set, for the help text, in the order of the dataclass."""
    hints = typing.get_type_hints(cls)
    described = []
    for field in dataclasses.fields(_dataclass(cls)):
        if not field.init:
            continue
        default = _default(field)
        described.append(
            OptionHelp(
                name=_key(field),
                type=_type_text(hints[field.name], field.metadata),
                default="required" if default is dataclasses.MISSING else _value_text(default),
                help=str(field.metadata.get("help", "")),
            )
        )
    return described


def to_json(options: Any) -> dict[str, Any]:
    """The options as JSON-able values that `parse(cls, config=...)` reads back."""
    return {
        _key(field): _jsonable(getattr(options, field.name))
        for field in dataclasses.fields(options)
        if field.init
    }


def _key(field: dataclasses.Field[Any]) -> str:
    """What an option is called where it is set."""
    return field.name.removesuffix("_")


def _dataclass(cls: type[Any]) -> Any:
    if not dataclasses.is_dataclass(cls):
        raise TypeError(f"{cls!r} is not a dataclass, so it cannot describe options")
    return cls


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _convert(raw: Any, hint: Any, name: str) -> Any:
    """`raw` (text of the command line, or a file's value) as a value of type `hint`."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        inner = [argument for argument in arguments if argument is not types.NoneType]
        if len(inner) != 1:
            raise TypeError(f"option {name}: a union is only supported with None, not {hint}")
        if raw is None or (isinstance(raw, str) and raw.lower() in _NONE):
            return None
        return _convert(raw, inner[0], name)
    if origin is Literal:
        return _choice(raw, {str(argument): argument for argument in arguments}, name)
    if origin is tuple:
        return _convert_tuple(raw, arguments, name)
    if isinstance(hint, type) and issubclass(hint, Enum):
        known: dict[str, Any] = {str(member.value): member for member in hint}
        return raw if isinstance(raw, hint) else _choice(raw, known, name)
    converter = _SCALARS.get(hint)
    if converter is None:
        raise TypeError(f"option {name}: type {hint} cannot be set from a command line")
    try:
        return converter(raw)
    except ValueError:
        raise ConfigError(
            f"option {name!r} takes {_NAMES[hint]}, not {raw!r}",
            fix=f"--set {name}={_EXAMPLES[hint]}, for example",
        ) from None


def _convert_tuple(raw: Any, arguments: tuple[Any, ...], name: str) -> tuple[Any, ...]:
    if isinstance(raw, str):
        parts: list[Any] = [part.strip() for part in raw.strip("()[] ").split(",") if part.strip()]
    elif isinstance(raw, list | tuple):
        parts = list(raw)
    else:
        parts = [raw]
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return tuple(_convert(part, arguments[0], name) for part in parts)
    if len(parts) != len(arguments):
        raise ConfigError(
            f"option {name!r} takes {len(arguments)} values, not {len(parts)} ({raw!r})",
            fix=f"write --set {name}=" + ",".join("VALUE" for _ in arguments),
        )
    return tuple(
        _convert(part, argument, name) for part, argument in zip(parts, arguments, strict=True)
    )


def _choice(raw: Any, known: Mapping[str, Any], name: str) -> Any:
    key = str(raw)
    if isinstance(raw, bool):  # YAML reads a bare `no` or `on` as a truth value
        key = next((text for text in known if text in (_TRUE if raw else _FALSE)), key)
    if key not in known:
        raise ConfigError(f"option {name!r} cannot be {key!r}", fix=did_you_mean(key, known))
    return known[key]


def _check(value: Any, metadata: Mapping[str, Any], name: str) -> None:
    """Choices and range of the field's metadata; element by element for a tuple."""
    choices, span = metadata.get("choices"), _span(metadata)
    for element in value if isinstance(value, tuple) else (value,):
        if element is None:
            continue
        if choices and element not in choices:
            known = [str(choice) for choice in choices]
            raise ConfigError(
                f"option {name!r} cannot be {str(element)!r}",
                fix=did_you_mean(str(element), known),
            )
        if span is not None:
            low, high = span
            if (low is not None and element < low) or (high is not None and element > high):
                raise ConfigError(
                    f"option {name!r} is {element}, outside its range",
                    fix=f"choose a value {_range_text(span)}",
                )


def _to_bool(raw: Any) -> bool:
    if isinstance(raw, bool):
        return raw
    text = str(raw).lower()
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    raise ValueError(raw)


def _to_int(raw: Any) -> int:
    if isinstance(raw, bool) or (isinstance(raw, float) and not raw.is_integer()):
        raise ValueError(raw)
    try:
        return int(raw)
    except TypeError as error:
        raise ValueError(raw) from error


def _to_float(raw: Any) -> float:
    if isinstance(raw, bool):
        raise ValueError(raw)
    try:
        value = float(raw)
    except TypeError as error:
        raise ValueError(raw) from error
    if math.isnan(value):
        raise ValueError(raw)
    return value


def _to_str(raw: Any) -> str:
    if isinstance(raw, Mapping | list | tuple) or raw is None:
        raise ValueError(raw)
    return str(raw)


def _to_path(raw: Any) -> Path:
    if not isinstance(raw, str | Path) or not str(raw):
        raise ValueError(raw)
    return Path(raw).expanduser()


_SCALARS: dict[Any, Any] = {
    bool: _to_bool,
    int: _to_int,
    float: _to_float,
    str: _to_str,
    Path: _to_path,
}
_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "text",
          Path: "a path"}  # fmt: skip
_EXAMPLES = {bool: "true", int: "4", float: "0.5", str: "word", Path: "folder/file"}


def _type_text(hint: Any, metadata: Mapping[str, Any]) -> str:
    choices, span = metadata.get("choices"), _span(metadata)
    if choices:
        return "|".join(str(choice) for choice in choices)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        inner = [argument for argument in arguments if argument is not types.NoneType]
        return "|".join([*(_type_text(argument, {}) for argument in inner), "none"])
    if origin is Literal:
        return "|".join(str(argument) for argument in arguments)
    if origin is tuple:
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return f"{_type_text(arguments[0], {})},..."
        return ",".join(_type_text(argument, {}) for argument in arguments)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return "|".join(str(member.value) for member in hint)
    text = str(hint.__name__).lower() if isinstance(hint, type) else str(hint)
    return f"{text} {_range_text(span)}" if span is not None else text


def _span(metadata: Mapping[str, Any]) -> tuple[float | None, float | None] | None:
    """Lowest and highest value: `range`, or `min` and `max` of a field written by hand."""
    span: tuple[float | None, float | None] | None = metadata.get("range")
    if span is None and ("min" in metadata or "max" in metadata):
        return metadata.get("min"), metadata.get("max")
    return span


def _range_text(span: tuple[float | None, float | None]) -> str:
    low, high = span
    if low is None:
        return f"<= {high}"
    return f">= {low}" if high is None else f"in {low}..{high}"


def _value_text(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(_value_text(element) for element in value)
    shown = _jsonable(value)
    if shown is None or isinstance(shown, bool):
        return "none" if shown is None else str(shown).lower()
    return str(shown)


def _jsonable(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_jsonable(element) for element in value]
    if isinstance(value, Enum):
        return _jsonable(value.value)
    return str(value) if isinstance(value, Path) else value
