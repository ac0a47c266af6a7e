"""A Hugging Face model folder: its JSON fields and its safetensors, in one file or in shards.

Everything that does not fit is a `CheckpointError` that names the file, the field or the key in the
words of the folder, before any weight is read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from seqgen.errors import CheckpointError, PluginError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

FLOATS = {"F64", "F32", "F16", "BF16"}
"""Element types (safetensors' names) that are read; the others are quantised."""

ONE_FILE, INDEX = "model.safetensors", "model.safetensors.index.json"

T = TypeVar("T")


class Fields:
    """Typed access to a JSON object, with errors that name the file and the field."""

    def __init__(self, path: Path, values: dict[str, Any]) -> None:
        self.path = path
        self.values = values

    @classmethod
    def read(cls, path: Path) -> Fields:
        """The object in a JSON file."""
        try:
            values = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_once_each)
        except OSError as error:
            raise CheckpointError(
                f"no {path.name} in {path.parent}",
                why=error.strerror or str(error),
                fix="name the folder of a model: config.json, *.safetensors, tokenizer.json",
            ) from error
        except (ValueError, RecursionError) as error:
            raise CheckpointError(
                f"{path} is not JSON", why=str(error), fix="get the file again"
            ) from error
        if not isinstance(values, dict):
            raise CheckpointError(f"{path} is not a JSON object", fix="get the file again")
        return cls(path, values)

    def get(self, name: str, kind: type[T], default: T | None = None) -> T:
        """A field of a type (an int serves as a float); `default` where it is absent or null."""
        value = self.values.get(name)
        value = default if value is None else value
        if value is None:
            raise self.error(f"{self.path} lacks the field {name!r}")
        if kind is float and type(value) is int:
            value = _float(value)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise self.error(f"{self.path}: {name} must be {kind.__name__}, not {value!r}")
        return value

    def size(self, name: str, default: int | None = None, *, most: int | None = None) -> int:
        """A whole number of at least 1."""
        value = self.get(name, int, default)
        if value < 1:
            raise self.error(f"{self.path}: {name} must be at least 1, not {value}")
        if most is not None and value > most:
            raise self.error(f"{self.path}: {name} must be at most {most}, not {value}")
        return value

    def positive(self, name: str) -> float:
        """A finite number above 0."""
        value = self.get(name, float)
        if not 0 < value < math.inf:
            raise self.error(f"{self.path}: {name} must be a number above 0, not {value}")
        return value

    def require(self, name: str, only: object) -> None:
        """Refuse any other value of a field; it may be absent or null."""
        value = self.values.get(name)
        if value is not None and value != only:
            raise CheckpointError(
                f"{self.path}: {name} {value!r} is not supported",
                why=f"only {only!r} is",
                fix="get another variant of the model",
            )

    def object(self, name: str) -> Fields | None:
        """A field that is an object itself, or None."""
        return Fields(self.path, self.get(name, dict)) if self.values.get(name) else None

    def error(self, what: str, *, why: str = "") -> CheckpointError:
        """That the file is wrong."""
        fix = f"correct it, or get {self.path.name} from where the weights come from"
        return CheckpointError(what, why=why, fix=fix)


class Unfilled(TorchFunctionMode):
    """Leaves out the random numbers of new layers, whose weights are replaced by a file's.

    On the meta device they would cost no time but a second of imports.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is nn.init.normal_:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of pairs; a reader would take the last of equal names without a word."""
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"it names {twice!r} twice")
    return values


def _float(value: int) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


class WeightFiles:
    """The safetensors of a folder, opened; close them by leaving the `with` block."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: dict[str, Any] = {}
        self._names: dict[str, str] = {}
        self._stack = ExitStack()

    def __enter__(self) -> WeightFiles:
        try:
            index = _index(self.folder)
            for name in sorted(set(index.values())) if index is not None else [ONE_FILE]:
                self._open(self.folder / name)
            for key, name in (index or {}).items():
                self._check_place(key, name)
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def __contains__(self, key: str) -> bool:
        return key in self._files

    def check(self, shapes: Mapping[str, tuple[int, ...]], *, optional: Sequence[str] = ()) -> None:
        """Every key of `shapes` must be there with its shape, and nothing but `optional` besides.

        Raises:
            CheckpointError: names missing and unknown keys, shapes and element types.
        """
        problems = [f"missing: {key}" for key in shapes if key not in self]
        known = {*shapes, *optional}
        problems += [f"unknown: {key}" for key in self._files if key not in known]
        for key, shape in shapes.items():
            if key not in self:
                continue
            tensor = self._files[key].get_slice(key)
            given = tuple(tensor.get_shape())
            if given != shape:
                problems.append(f"{key} is {given}, config.json asks for {shape}")
            if tensor.get_dtype() not in FLOATS:
                problems.append(f"{key} holds {tensor.get_dtype()}")
        if problems:
            more = f"; and {len(problems) - 8} more" if len(problems) > 8 else ""
            raise CheckpointError(
                f"the weights in {self.folder} do not fit its config.json",
                why="; ".join(problems[:8]) + more,
                fix="get both from the same place; only unquantised weights "
                f"({', '.join(sorted(FLOATS))}) are read",
            )

    def stacked(
        self, keys: Sequence[str], *, device: torch.device | str, dtype: torch.dtype
    ) -> Tensor:
        """The tensors of keys, joined along their first axis; a copy that outlives the files."""
        parts = [self._files[k].get_tensor(k).to(device=device, dtype=dtype) for k in keys]
        return torch.cat(parts) if len(parts) > 1 else parts[0].clone()

    def equal(self, first: str, second: str) -> bool:
        """Whether two tensors are the same, bit for bit."""
        get = self._files[first].get_tensor, self._files[second].get_tensor
        return torch.equal(get[0](first), get[1](second))

    def _open(self, path: Path) -> None:
        try:
            file = self._stack.enter_context(safe_open(path, framework="pt", device="cpu"))
        except (SafetensorError, OSError) as error:
            raise _cannot_open(path, error) from error
        for key in file.keys():  # noqa: SIM118 (no iterator)
            if key in self._files:
                raise CheckpointError(
                    f"{key} is in two files of {self.folder}",
                    why=f"{self._names[key]} and {path.name} do not belong together",
                    fix="get all files of the model from the same place",
                )
            self._files[key], self._names[key] = file, path.name

    def _check_place(self, key: str, name: str) -> None:
        if self._names.get(key) != name:
            raise CheckpointError(
                f"{name} in {self.folder} lacks {key}, which {INDEX} says it holds",
                why=f"it is in {self._names[key]}" if key in self else "no other file has it",
                fix="get all files of the model from the same place",
            )


def _cannot_open(path: Path, error: Exception) -> CheckpointError:
    if path.is_file():
        return CheckpointError(
            f"{path} is damaged or not a safetensors file", why=str(error), fix="get it again"
        )
    if others := sorted(p.name for p in path.parent.glob("*.bin")):
        return CheckpointError(
            f"{path} is missing",
            why=f"the folder holds {others[0]}, whose format can run code and is not read",
            fix="get the model's safetensors, or convert it with transformers' save_pretrained",
        )
    why = f"neither {ONE_FILE} nor {INDEX} is there"
    if path.name != ONE_FILE:
        why = f"{INDEX} names it"
    return CheckpointError(f"{path} is missing", why=why, fix="get it from where the others are")


def read_tokenizer(folder: str | Path) -> Tokenizer | None:
    """The folder's `tokenizer.json`, or None if it has none.

    Raises:
        CheckpointError: it is damaged.
        PluginError: the package `tokenizers` is not installed.
    """
    path = Path(folder) / "tokenizer.json"
    if not path.is_file():
        return None
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise PluginError(
            f"{path} cannot be read", why=str(error), fix="pip install tokenizers"
        ) from error
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the package raises bare Exception
        raise CheckpointError(f"{path} is damaged", why=str(error)) from error


def _index(folder: Path) -> dict[str, str] | None:
    """Key -> the shard that holds it; None where there is one file for all."""
    path = folder / INDEX
    if not path.is_file():
        return None
    index = Fields.read(path).get("weight_map", dict)
    for name in index.values():
        outside = not isinstance(name, str) or Path(name).name != name or name in ("", ".", "..")
        if outside or "\0" in name:
            raise CheckpointError(
                f"{path} names {name!r}, which is not a file of the folder",
                why="an index must not lead anywhere else",
                fix="get the file again",
            )
    return index
