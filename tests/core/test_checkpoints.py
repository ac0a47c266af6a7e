"""Checkpoints: what is saved comes back; what does not fit is named; pickles cannot run code."""

from __future__ import annotations

import os
import pickle
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from seqgen.checkpoints import load, load_pickle, load_strict, save
from seqgen.errors import CheckpointError

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@settings(max_examples=25, deadline=None)
@given(config=st.dictionaries(st.text(), json_values))
def test_weights_and_configuration_come_back(
    tmp_path_factory: pytest.TempPathFactory, config: dict[str, object]
) -> None:
    path = tmp_path_factory.mktemp("c") / "m.safetensors"
    state = {"a": torch.randn(3, 2), "b": torch.arange(4), "c": torch.randn(2).bfloat16()}
    save(path, state, config)
    loaded, found = load(path)
    assert found == config
    assert loaded.keys() == state.keys()
    for key, value in state.items():
        assert loaded[key].dtype == value.dtype
        assert torch.equal(loaded[key], value)


def test_tied_and_transposed_weights_are_saved(tmp_path: Path) -> None:
    weight = torch.randn(3, 5)
    state = {"in": weight, "out": weight, "t": weight.T}
    save(tmp_path / "m.safetensors", state, {})
    loaded, _ = load(tmp_path / "m.safetensors")
    assert torch.equal(loaded["out"], weight)
    assert torch.equal(loaded["t"], weight.T)


def test_saving_replaces_whole_files_or_nothing(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "m.safetensors"
    save(path, {"a": torch.ones(2)}, {"n": 1})
    with pytest.raises(CheckpointError, match="cannot be written as JSON"):
        save(path, {"a": torch.zeros(2)}, {"n": object()})
    assert torch.equal(load(path)[0]["a"], torch.ones(2))
    assert [file.name for file in path.parent.iterdir()] == ["m.safetensors"]


def test_load_strict_fits_or_names_what_does_not() -> None:
    module = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4))
    good = {key: torch.full_like(value, 7) for key, value in module.state_dict().items()}
    bad = dict(good)
    del bad["0.bias"]
    bad["0.weight"] = torch.zeros(3, 9)
    bad["extra.scale"] = torch.zeros(1)
    with pytest.raises(CheckpointError) as caught:
        load_strict(module, bad, source="m.safetensors")
    message = str(caught.value)
    assert "m.safetensors" in message
    assert "missing: 0.bias" in message
    assert "unexpected: extra.scale" in message
    assert "0.weight is (3, 9), the model has (3, 2)" in message
    assert not torch.equal(module[0].bias, good["0.bias"])
    load_strict(module, good | {"extra.scale": torch.zeros(1)}, ignore=["extra."])
    assert torch.equal(module[0].bias, good["0.bias"])


def test_damaged_files_are_errors(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save(path, {"a": torch.randn(100)}, {})
    whole = path.read_bytes()
    for broken in (b"", b"not safetensors", whole[:50], whole[:-8]):
        path.write_bytes(broken)
        with pytest.raises(CheckpointError, match="damaged or not a safetensors"):
            load(path)
    with pytest.raises(CheckpointError, match="no such file"):
        load(tmp_path / "gone.safetensors")
    with pytest.raises(CheckpointError, match="it is a folder"):
        load_pickle(tmp_path)


def test_a_folder_stands_for_the_checkpoint_in_it(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no checkpoint at .*model\.safetensors"):
        load(tmp_path)
    save(tmp_path / "model.safetensors", {"a": torch.ones(1)}, {"n": 1})
    assert load(tmp_path)[1] == {"n": 1}


def test_others_may_read_a_checkpoint_as_the_umask_says(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.touch()
    save(tmp_path / "m.safetensors", {"a": torch.ones(1)}, {})
    assert (tmp_path / "m.safetensors").stat().st_mode == plain.stat().st_mode


class _Evil:
    """A pickle of this runs a command when it is opened without protection."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.system, (f"touch {self.target}",))


@pytest.mark.parametrize("form", ["torch", "plain"])
def test_a_malicious_pickle_is_refused_and_nothing_runs(tmp_path: Path, form: str) -> None:
    target, path = tmp_path / "pwned", tmp_path / "evil.pt"
    if form == "torch":
        torch.save({"weight": torch.zeros(2), "x": _Evil(target)}, path)
    else:
        path.write_bytes(pickle.dumps(_Evil(target)))
    with pytest.raises(CheckpointError, match="was refused") as caught:
        load_pickle(path)
    assert not target.exists()
    assert caught.value.exit_code == 4
    assert "weights_only" not in str(caught.value)  # torch's advice to switch it off is left out
    # The file is truly dangerous: opened without protection it does run.
    if form == "plain":
        pickle.loads(path.read_bytes())
        assert target.exists()


def test_an_honest_pickle_is_read(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    state = {"state_dict": OrderedDict(a=torch.randn(2)), "epoch": 3, "names": ["x"]}
    torch.save(state, path)
    loaded = load_pickle(path)
    assert loaded["epoch"] == 3
    assert torch.equal(loaded["state_dict"]["a"], state["state_dict"]["a"])


@pytest.mark.parametrize(
    "content", [b"", b"hello junk", b"PK\x03\x04 half a zip", b"\x80\x02}q\x00"]
)
def test_junk_is_not_a_pickle(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        load_pickle(path)
    assert str(path) in str(caught.value)
