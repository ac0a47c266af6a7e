"""Reading a Lightning checkpoint (`.ckpt`) without the packages that wrote it, and without risk.

The file is a zip archive that `torch.save` wrote: a pickle, and the bytes of each tensor. A pickle
names functions and may ask for any of them to be called. Here only the few names in `_ALLOWED` are
resolved, to functions of this module; a class of another package becomes an inert `Stub` that keeps
what the pickle says of it as data; everything else is refused.
"""

from __future__ import annotations

import io
import pickle
import struct
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn, cast

import torch
from torch import Tensor

from seqgen.errors import CheckpointError


class Stub:
    """An object of a class that is not loaded: its name, arguments and state, as data.

    Attributes:
        name: `package.module.Class`.
        args: what its constructor was given.
        state: what its attributes were set to; a mapping for ordinary classes.
        items: what was put into it, for subclasses of list (values) and dict (pairs).
    """

    name = ""

    def __new__(cls, *args: Any) -> Stub:
        made = super().__new__(cls)
        made.args, made.state, made.items = args, None, []
        return made

    args: tuple[Any, ...]
    state: Any
    items: list[Any]

    def __init__(self, *args: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items.append((key, value))

    def append(self, value: Any) -> None:
        self.items.append(value)

    def extend(self, values: Iterable[Any]) -> None:
        self.items.extend(values)

    def __repr__(self) -> str:
        return f"<{self.name}>"


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Everything in a `.ckpt`; objects of foreign classes are `Stub`s.

    Raises:
        CheckpointError: missing, damaged, not a PyTorch archive, or it asks for code to be run
            (which is not done).
    """
    if not path.is_file():
        why = "it is a folder" if path.is_dir() else "there is no such file"
        raise CheckpointError(f"no checkpoint at {path}", why=why)
    try:
        with zipfile.ZipFile(path) as archive:
            content = _Archive(archive).load()
    except _RefusedError as error:
        raise CheckpointError(
            f"{path} was refused: it is not a plain Lightning checkpoint",
            why=f"{error} (nothing in it was executed)",
            fix="get the file from Casanovo's own releases, or convert it in an environment you "
            "can lose",
        ) from error
    except zipfile.BadZipFile as error:
        raise CheckpointError(
            f"{path} is damaged or not a PyTorch checkpoint",
            why=f"it is no zip archive of torch >= 1.6 ({error})",
            fix="get the file again",
        ) from error
    except Exception as error:  # arbitrary bytes make an unpickler fail in arbitrary ways
        raise CheckpointError(
            f"{path} is damaged",
            why=f"{type(error).__name__}: {error}",
            fix="get the file again",
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(
            f"{path} is not a Lightning checkpoint",
            why=f"it holds a {type(content).__name__}, not a dictionary",
        )
    return content


class _RefusedError(Exception):
    """The pickle asks for something that no checkpoint needs."""


class _Archive:
    """The members of a `torch.save` archive."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self.archive = archive
        self.infos = {info.filename: info for info in archive.infolist()}
        pickles = [name for name in self.infos if name.endswith("/data.pkl")]
        if len(pickles) != 1 or pickles[0].count("/") != 1:
            raise ValueError("the archive holds no data.pkl, as torch.save writes it")
        self.prefix = pickles[0].removesuffix("data.pkl")
        if f"{self.prefix}constants.pkl" in self.infos:
            raise _RefusedError("it is a TorchScript program")
        self.storages: dict[str, bytearray] = {}

    def load(self) -> Any:
        order = self.infos.get(f"{self.prefix}byteorder")
        if order is not None and self.archive.read(order) != b"little":
            raise ValueError("its numbers are big-endian")
        return _Unpickler(self.member("data.pkl"), self.storage).load()

    def member(self, name: str) -> bytes:
        info = self.infos[self.prefix + name]
        if info.compress_type != zipfile.ZIP_STORED:  # torch never compresses; a bomb would be
            raise _RefusedError(f"{info.filename} is compressed")
        return self.archive.read(info)  # checks the CRC

    def storage(self, key: str) -> bytearray:
        if key not in self.storages:
            self.storages[key] = bytearray(self.member(f"data/{key}"))
        return self.storages[key]


class _Unpickler(pickle.Unpickler):
    def __init__(self, data: bytes, storage: Callable[[str], bytearray]) -> None:
        super().__init__(io.BytesIO(data))
        self.storage = storage
        self.stubs: dict[str, type[Stub]] = {}

    def find_class(self, module: str, name: str) -> Any:
        """What a name in the pickle stands for."""
        full = f"{module}.{name}"
        if full in _ALLOWED:
            return _ALLOWED[full]
        root = module.partition(".")[0]
        if module == "torch" and name.endswith("Storage"):
            return _stub(full, self.stubs)
        if full not in _HARMLESS and (root in _STANDARD_LIBRARY or root in _OLD_NAMES):
            raise _RefusedError(f"opening it would use {full}")
        return _stub(full, self.stubs)

    def persistent_load(self, pid: Any) -> Any:
        """A tensor's bytes: ("storage", type, key, device, number of elements)."""
        kind, storage_type, key, _device, count = pid
        if kind != "storage" or not issubclass(storage_type, Stub):
            raise ValueError(f"unknown kind of stored object {kind!r}")
        name = storage_type.name.removeprefix("torch.")
        if name not in _TYPES:
            raise ValueError(f"tensors of the type {name} are not supported")
        data = self.storage(str(key))
        return _Storage(torch.frombuffer(data, dtype=_TYPES[name]), int(count)) if data else None


class _Storage:
    """The elements of one or more tensors."""

    def __init__(self, flat: Tensor, count: int) -> None:
        if flat.numel() < count:
            raise ValueError(f"a tensor has {flat.numel()} of its {count} elements")
        self.flat = flat

    def __setstate__(self, state: Any) -> NoReturn:
        raise _RefusedError("it changes a tensor's storage")


class _Function:
    """A function that a pickle may call, and can do nothing else with."""

    __slots__ = ("run",)

    def __init__(self, run: Callable[..., Any]) -> None:
        self.run = run

    def __call__(self, *args: Any) -> Any:
        return self.run(*args)

    def __setstate__(self, state: Any) -> NoReturn:
        raise _RefusedError("it changes a function")


def _tensor(
    storage: _Storage | None, offset: int, size: Sequence[int], stride: Sequence[int], *_: Any
) -> Tensor:
    """What `torch._utils._rebuild_tensor_v2` makes, its bounds checked."""
    sizes, strides = [int(n) for n in size], [int(n) for n in stride]
    if len(sizes) != len(strides) or min([offset, *sizes, *strides], default=0) < 0:
        raise ValueError(f"a tensor of shape {sizes} with strides {strides} at {offset}")
    if 0 in sizes:
        return torch.zeros(sizes)
    last = offset + sum((n - 1) * s for n, s in zip(sizes, strides, strict=True))
    if storage is None or last >= storage.flat.numel():
        raise ValueError(f"a tensor of shape {sizes} does not fit its storage")
    return storage.flat.as_strided(sizes, strides, offset)


def _parameter(data: Any, *_: Any) -> Any:
    return data


def _latin_bytes(text: str, encoding: str) -> bytes:
    """How protocol 2 writes bytes."""
    if encoding != "latin1":
        raise _RefusedError(f"it decodes text as {encoding!r}")
    return text.encode("latin1")


def _numpy_scalar(dtype: Any, data: Any = None) -> Any:
    """A number that numpy wrote; None for types that are not plain numbers."""
    code = dtype.args[0] if isinstance(dtype, Stub) and dtype.args else None
    if code not in _NUMPY or not isinstance(data, bytes):
        return None
    return struct.unpack(_NUMPY[code], data)[0]


def _stub(full: str, known: dict[str, type[Stub]]) -> type[Stub]:
    if full not in known:
        known[full] = cast(type[Stub], type("Stub", (Stub,), {"name": full}))
    return known[full]


_ALLOWED: dict[str, Any] = {
    "collections.OrderedDict": OrderedDict,
    "torch._utils._rebuild_tensor_v2": _Function(_tensor),
    "torch._utils._rebuild_parameter": _Function(_parameter),
    "_codecs.encode": _Function(_latin_bytes),
    "numpy.core.multiarray.scalar": _Function(_numpy_scalar),
    "numpy._core.multiarray.scalar": _Function(_numpy_scalar),
    "builtins.set": set,
    "builtins.frozenset": frozenset,
    "__builtin__.set": set,
    "__builtin__.frozenset": frozenset,
}

_STANDARD_LIBRARY = sys.stdlib_module_names
_OLD_NAMES = {"__builtin__", "copy_reg", "commands", "cPickle", "thread", "urllib2", "nt"}
"""Modules of the standard library that protocol 2 calls so."""
_HARMLESS = {
    *(f"pathlib.{name}" for name in ("Path", "PosixPath", "PurePosixPath", "WindowsPath")),
    *(f"pathlib._local.{name}" for name in ("Path", "PosixPath", "PurePosixPath", "WindowsPath")),
    *(f"collections.{name}" for name in ("Counter", "defaultdict", "deque")),
    *(f"datetime.{name}" for name in ("datetime", "date", "time", "timedelta", "timezone")),
    "argparse.Namespace",
}
"""Classes of the standard library that settings may hold; they become stubs all the same."""

_TYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_NUMPY = {"f8": "<d", "f4": "<f", "i8": "<q", "i4": "<i", "u8": "<Q", "u4": "<I", "b1": "<?"}
