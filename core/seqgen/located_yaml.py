"""YAML whose mappings remember the line of each key, so that an error can name file and line.

Only plain data is read (the safe loader's scalars, lists and mappings); a key given twice, which
PyYAML lets pass silently, is an error.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

import yaml

from seqgen.errors import ConfigError, did_you_mean

T = TypeVar("T")


class LocatedDict(dict[str, Any]):
    """A mapping read from `file`; `where(key)` is `file:line` of one of its keys."""

    def __init__(self, file: str, line: int) -> None:
        super().__init__()
        self.file = file
        self.line = line
        self.lines: dict[str, int] = {}

    def where(self, key: str | None = None) -> str:
        """`file:line` of a key, or of the mapping itself."""
        return f"{self.file}:{self.line if key is None else self.lines.get(key, self.line)}"


def parse_yaml(text: str, *, file: str) -> LocatedDict:
    """The mapping that a YAML document holds (an empty document is an empty mapping).

    Raises:
        ConfigError: not YAML, a key given twice, or not a mapping; names `file` and line.
    """
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        value = LocatedDict(file, 1) if node is None else _value(loader, node, file)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        problem = getattr(error, "problem", None) or str(error)
        raise ConfigError(f"{file}:{line}: not valid YAML", why=str(problem)) from error
    finally:
        loader.dispose()
    if not isinstance(value, LocatedDict):
        raise ConfigError(f"{file}:1: a mapping (key: value) was expected")
    return value


def _value(loader: yaml.SafeLoader, node: Any, file: str) -> Any:
    if isinstance(node, yaml.MappingNode):
        found = LocatedDict(file, node.start_mark.line + 1)
        for key_node, value_node in node.value:
            key = str(key_node.value)
            line = key_node.start_mark.line + 1
            if key in found:
                first = found.lines[key]
                raise ConfigError(f"{file}:{line}: {key!r} is given twice (first in line {first})")
            found.lines[key] = line
            found[key] = _value(loader, value_node, file)
        return found
    if isinstance(node, yaml.SequenceNode):
        return [_value(loader, item, file) for item in node.value]
    return loader.construct_object(node)


def build(cls: type[T], data: Any, *, where: str, given: Mapping[str, Any] | None = None) -> T:
    """A frozen dataclass from a mapping: keys must be its fields, values of their types.

    Args:
        data: the mapping, usually a `LocatedDict`.
        where: `file:line`, used when `data` is not a located mapping.
        given: fields that the caller sets; the file may not name them.

    Raises:
        ConfigError: unknown or missing key, or a value of the wrong type; names file and line.
    """
    if not isinstance(data, dict):
        raise ConfigError(f"{where}: a mapping was expected, not {data!r}")
    given = given or {}
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls) if f.name not in given}  # type: ignore[arg-type]
    values: dict[str, Any] = dict(given)
    for key, value in data.items():
        line = data.where(key) if isinstance(data, LocatedDict) else where
        if key not in fields:
            raise ConfigError(f"{line}: unknown key {key!r}", fix=did_you_mean(key, fields))
        values[key] = _typed(value, hints[key], key=key, where=line)
    missing = [
        name
        for name, field in fields.items()
        if name not in values
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        line = data.where() if isinstance(data, LocatedDict) else where
        raise ConfigError(f"{line}: missing key {', '.join(map(repr, missing))}")
    return cls(**values)


def plain_value(value: Any) -> Any:
    """The same value with ordinary dicts in it."""
    if isinstance(value, dict):
        return {key: plain_value(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain_value(item) for item in value]
    return value


def _typed(value: Any, hint: Any, *, key: str, where: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return build(hint, value, where=where)
    if origin is tuple and isinstance(value, list):
        return tuple(_typed(item, args[0], key=key, where=where) for item in value)
    if origin is typing.Literal:
        if value in args:
            return value
        raise ConfigError(
            f"{where}: {key!r} cannot be {value!r}", fix=did_you_mean(str(value), map(str, args))
        )
    plain = origin or hint
    if plain is Mapping or (isinstance(plain, type) and issubclass(plain, Mapping)):
        if isinstance(value, dict):
            return plain_value(value)
    elif isinstance(value, bool):  # a bool is an int to Python, but not to a reader
        if plain is bool:
            return value
    elif plain is float and isinstance(value, int):
        return float(value)
    elif isinstance(plain, type) and isinstance(value, plain):
        return value
    name = getattr(plain, "__name__", str(plain))
    name = {"str": "text", "tuple": "list"}.get(name, name.lower())
    raise ConfigError(f"{where}: {key!r} must be a {name}, not {value!r}")
