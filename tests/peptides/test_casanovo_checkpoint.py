"""What the reader of Casanovo checkpoints refuses: code, tensors beyond their bytes, others."""

from __future__ import annotations

import functools
import importlib
import io
import operator
import os
import pickle
import subprocess
import types
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from seqgen.errors import CheckpointError
from seqgen_peptides.casanovo import load_casanovo
from seqgen_peptides.casanovo_checkpoint import read_checkpoint

GOLDEN = Path(__file__).parents[1] / "parity" / "golden" / "casanovo" / "model.ckpt"


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.function, self.args = function, args

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.args


def archive(path: Path, data: bytes, **more: bytes) -> Path:
    """A file like those of torch.save around a pickle."""
    with zipfile.ZipFile(path, "w") as file:
        for name, content in {"data.pkl": data, "byteorder": b"little", **more}.items():
            file.writestr(f"archive/{name}", content)
    return path


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize(
    ("function", "args", "named"),
    [
        (os.system, ("touch MARK",), "system"),
        (eval, ("open('MARK', 'w')",), "eval"),
        (exec, ("open('MARK', 'w')",), "exec"),
        (open, ("MARK", "w"), "open"),
        (getattr, (Call(importlib.import_module, "os"), "system"), "getattr"),
        (subprocess.Popen, (["touch", "MARK"],), "Popen"),
        (functools.partial, (os.system, "touch MARK"), "functools.partial"),
        (operator.attrgetter, ("__class__",), "operator.attrgetter"),
        (pickle.loads, (pickle.dumps(Call(os.system, "touch MARK")),), "pickle.loads"),
        (types.FunctionType, (), "FunctionType"),
    ],
)
def test_code_is_refused(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    named: str,
    protocol: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        data = pickle.dumps({"state_dict": Call(function, *args)}, protocol)
    except pickle.PicklingError:  # types.FunctionType has no public name
        data = b"\x80\x02ctypes\nFunctionType\n)R."
    with pytest.raises(CheckpointError, match="was refused") as caught:
        load_casanovo(archive(tmp_path / "evil.ckpt", data))
    assert "nothing in it was executed" in caught.value.why
    # What is named first is what would be resolved first: the function or one of its arguments.
    assert named in caught.value.why or "import_module" in caught.value.why
    assert not (tmp_path / "MARK").exists()


def test_a_foreign_function_is_not_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "harmful.py").write_text("def strike(path): open(path, 'w').close()\n")
    monkeypatch.syspath_prepend(tmp_path)
    harmful = importlib.import_module("harmful")
    monkeypatch.chdir(tmp_path)
    data = pickle.dumps({"a": Call(harmful.strike, "MARK")}, 2)
    content = read_checkpoint(archive(tmp_path / "x.ckpt", data))
    assert content["a"].args == ("MARK",)
    assert not (tmp_path / "MARK").exists()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        # BUILD on a function that is allowed: setting attributes of it.
        (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}X\x01\x00\x00\x00aK\x01sb.", "refused"),
        (b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x05\x00\x00\x00rot13\x86R.", "refused"),
        # Calling what a stub returned.
        (b"\x80\x02cother\nThing\n)R)R.", "damaged"),
        (b"\x80\x02]K\x01a.", "not a Lightning checkpoint"),
        (b"\x80\x02X\x01\x00\x00\x00", "damaged"),
        (b"not a pickle", "damaged"),
    ],
)
def test_odd_pickles(data: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(archive(tmp_path / "odd.ckpt", data))


@pytest.mark.parametrize(
    "tensor",
    [
        ("0", 4, 0, (3, 2), (2, 1)),  # a shape beyond the stored bytes
        ("0", 4, 2, (4,), (1,)),  # an offset beyond them
        ("0", 400, 0, (4,), (1,)),  # more elements declared than stored
        ("0", 4, -1, (2,), (1,)),
        ("0", 4, 0, (2,), (-1,)),
        ("empty", 0, 0, (2,), (1,)),
        ("missing", 4, 0, (4,), (1,)),
    ],
)
def test_tensors_within_their_bytes(tensor: tuple[Any, ...], tmp_path: Path) -> None:
    data = pickled_tensor(*tensor)
    more = {"data/0": np.arange(4, dtype="<f4").tobytes(), "data/empty": b""}
    with pytest.raises(CheckpointError, match="damaged"):
        read_checkpoint(archive(tmp_path / "x.ckpt", data, **more))
    good = archive(tmp_path / "good.ckpt", pickled_tensor("0", 4, 1, (2,), (2,)), **more)
    assert read_checkpoint(good)["t"].tolist() == [1.0, 3.0]


def pickled_tensor(key: str, count: int, offset: int, size: tuple[int, ...], stride: Any) -> bytes:
    """{"t": tensor}, as torch.save pickles it."""

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj: Any) -> Any:
            return ("storage", torch.FloatStorage, key, "cpu", count) if obj is marker else None

    marker, stream = object(), io.BytesIO()
    call = Call(torch._utils._rebuild_tensor_v2, marker, offset, size, stride, False, {})
    Pickler(stream, 2).dump({"t": call})
    return stream.getvalue()


def test_other_files(tmp_path: Path) -> None:
    truncated, text = tmp_path / "truncated.ckpt", tmp_path / "text.ckpt"
    truncated.write_bytes(GOLDEN.read_bytes()[:60_000])
    text.write_text("hello")
    changed = tmp_path / "changed.ckpt"
    flipped = bytearray(GOLDEN.read_bytes())
    flipped[len(flipped) // 2] ^= 0xFF
    changed.write_bytes(flipped)
    packed = tmp_path / "packed.ckpt"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data.pkl", b"\x00" * 1000)
    for path, message in [
        (tmp_path / "none.ckpt", "no checkpoint at"),
        (tmp_path, "it is a folder"),
        (truncated, "damaged"),
        (text, "damaged or not a PyTorch checkpoint"),
        (changed, "Bad CRC-32"),
        (packed, "compressed"),
        (archive(tmp_path / "script.ckpt", b"", **{"constants.pkl": b""}), "TorchScript"),
        (archive(tmp_path / "big.ckpt", b"", byteorder=b"big"), "big-endian"),
    ]:
        with pytest.raises(CheckpointError) as caught:
            load_casanovo(path)
        assert message in str(caught.value), path
