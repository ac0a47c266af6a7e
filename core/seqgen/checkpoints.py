"""Checkpoints: safetensors files that carry their own configuration, and safe reading of pickles.

A seqgen checkpoint is one safetensors file. Its header's metadata holds, under `seqgen`, a JSON
object that says how to build the model; so one file is enough to decode with.

    save("model.safetensors", model.state_dict(), {"plugin": "speech", "model": {...}})
    state, config = load("model.safetensors")
    load_strict(model, state, source="model.safetensors")

Upstream checkpoints are often pickles, and a pickle can run any code when it is opened.
`load_pickle` reads tensors and plain containers from one and refuses everything else.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from seqgen.errors import CheckpointError, ConfigError

METADATA_KEY = "seqgen"
FILE_NAME = "model.safetensors"
"""The checkpoint in a folder that `seqgen train` wrote."""


def save(
    path: str | Path, state: Mapping[str, Tensor], config: Mapping[str, Any], *, half: bool = False
) -> Path:
    """Write a checkpoint; the file appears only when it is complete.

    Args:
        path: the file; its folder is made if need be.
        state: a `state_dict`. Tied weights are written once for each name.
        config: JSON-able settings that build the model again.
        half: write floating-point tensors in half precision.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        text = json.dumps(dict(config), sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"the configuration for {path} cannot be written as JSON", why=str(error)
        ) from error
    if half:
        state = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    tensors = {key: value.detach().cpu().contiguous().clone() for key, value in state.items()}
    # A name of its own for each process: several may write to one folder.
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        part.touch()
        mode = part.stat().st_mode  # what the umask gives; safetensors lets only the owner read
        save_file(tensors, part, metadata={"format": "pt", METADATA_KEY: text})
        part.chmod(mode)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path


def load(
    path: str | Path, *, device: torch.device | str = "cpu"
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and configuration of a checkpoint (`{}` if the file carries none).

    Args:
        path: the file, or a folder with a `model.safetensors`.

    Raises:
        CheckpointError: missing, damaged or not safetensors.
    """
    with _opened(path, device) as (file, config):
        return {key: file.get_tensor(key) for key in file.keys()}, config  # noqa: SIM118


def load_config(path: str | Path) -> dict[str, Any]:
    """The configuration alone, from the file's header; otherwise as `load`."""
    with _opened(path) as (_, config):
        return config


def load_kind(
    path: str | Path, kind: str, *, what: str, fix: str
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and configuration of a checkpoint whose configuration says that it is of this kind.

    Args:
        what: it should be, and `fix` how to get one, for the message.

    Raises:
        CheckpointError: missing, damaged, or of another kind.
    """
    state, config = load(path)
    if config.get("kind") != kind:
        raise CheckpointError(
            f"{path} is not {what}",
            why=f"its kind is {config.get('kind')!r}, expected {kind!r}",
            fix=fix,
        )
    return state, config


@contextmanager
def building(
    path: str | Path, *, fix: str = "use the version of seqgen that made it, or train it again"
) -> Iterator[None]:
    """Around what builds a model from a checkpoint's configuration.

    Raises:
        CheckpointError: the configuration lacks something, or holds what cannot be understood.
    """
    try:
        yield
    except (KeyError, TypeError, ValueError, ConfigError) as error:
        raise CheckpointError(
            f"{path} holds a configuration that this version cannot build",
            why=f"{type(error).__name__}: {error}",
            fix=fix,
        ) from error


def load_strict(
    module: nn.Module,
    state: Mapping[str, Tensor],
    *,
    source: str | Path = "the checkpoint",
    ignore: Iterable[str] = (),
) -> None:
    """Load a state into a module; every key and shape must fit, or nothing is loaded.

    The module keeps its element types, whatever those of the state are.

    Args:
        source: where the state came from, for the message.
        ignore: prefixes of keys that may be in the state without a place in the module.

    Raises:
        CheckpointError: names the missing and unexpected keys and the mismatched shapes.
    """
    prefixes = tuple(ignore)
    given = {key: value for key, value in state.items() if not key.startswith(prefixes)}
    expected = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    require_shapes(given, expected, source=source)
    module.load_state_dict(given, strict=True)


def require_shapes(
    state: Mapping[str, Tensor],
    expected: Mapping[str, tuple[int, ...]],
    *,
    source: str | Path,
    fix: str = "use the checkpoint with the configuration it was trained with",
) -> None:
    """Raise a `CheckpointError` unless a state has these keys with these shapes and no others."""
    problems = _listed("missing", [key for key in expected if key not in state])
    problems += _listed("unexpected", [key for key in state if key not in expected])
    shapes = [
        f"{key} is {tuple(state[key].shape)}, the model has {shape}"
        for key, shape in expected.items()
        if key in state and tuple(state[key].shape) != shape
    ]
    problems += _listed("wrong shape", shapes)
    if problems:
        raise CheckpointError(f"{source} does not fit the model", why="; ".join(problems), fix=fix)


def require_finite(module: nn.Module, *, source: str | Path) -> None:
    """Raise a `CheckpointError` if a weight is infinite or not a number; shapes do not show it."""
    bad = [
        name
        for name, value in module.state_dict().items()
        if value.is_floating_point() and not bool(value.isfinite().all())
    ]
    if bad:
        raise CheckpointError(
            f"{source} is damaged",
            why=f"weights that are no finite numbers in {'; '.join(_listed('tensors', bad))}",
            fix="get the file again, or train it again",
        )


def load_pickle(path: str | Path) -> Any:
    """Read an upstream `.pt`/`.bin` file: tensors, numbers, text, lists and dicts, nothing else.

    Raises:
        CheckpointError: missing, damaged, or it asks for code to be run (which is not done).
    """
    path = _existing(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its advice is for people who made the file
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} was refused: it is not a plain file of tensors",
            why=f"{_refusal(error)} (nothing in it was executed)",
            fix="ask its author for safetensors, or convert it in an environment you can lose",
        ) from error
    except Exception as error:  # arbitrary bytes make the unpickler fail in arbitrary ways
        raise CheckpointError(
            f"{path} is damaged or not a PyTorch file",
            why=f"{type(error).__name__} {error}".split(". ")[0].strip(),
            fix="get the file again",
        ) from error


@contextmanager
def _opened(
    path: str | Path, device: torch.device | str = "cpu"
) -> Iterator[tuple[Any, dict[str, Any]]]:
    """A safetensors file, or that of a folder, with its configuration."""
    path = _existing(Path(path) / FILE_NAME if Path(path).is_dir() else path)
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            config = json.loads((file.metadata() or {}).get(METADATA_KEY, "{}"))
            if not isinstance(config, dict):
                raise CheckpointError(f"the configuration in {path} is no JSON object")
            yield file, config
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is damaged or not a safetensors file",
            why=str(error),
            fix="get the file again; pickled checkpoints (.pt, .bin) need the plugin's converter",
        ) from error
    except json.JSONDecodeError as error:
        raise CheckpointError(f"the configuration in {path} is damaged", why=str(error)) from error


def _existing(path: str | Path) -> Path:
    path = Path(path)
    if not path.is_file():
        why = "it is a folder" if path.is_dir() else "there is no such file"
        raise CheckpointError(f"no checkpoint at {path}", why=why)
    return path


def _listed(label: str, names: list[str], *, most: int = 8) -> list[str]:
    if not names:
        return []
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return [f"{label}: {', '.join(names[:most])}{more}"]


def _refusal(error: Exception) -> str:
    # torch's message goes on with advice to switch the protection off; only the cause is wanted.
    if found := re.search(r"GLOBAL (\S+)", str(error)):
        return f"opening it would call {found[1]}"
    if found := re.search(r"WeightsUnpickler error:\s*(.+)", str(error)):
        return found[1]
    return "it holds more than tensors, numbers, text, lists and dicts"
