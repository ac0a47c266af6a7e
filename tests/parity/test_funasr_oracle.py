"""Parity with FunASR on the shared oracle: official layout, a real recording, each intermediate."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from seqgen_speech.features import FrontEnd
from seqgen_speech.funasr import FunasrModel, load_funasr
from seqgen_speech.timestamps import firing_times

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def folder(shared_data: Path) -> Path:
    folder = shared_data / "speech" / "tiny-paraformer-oracle"
    if not folder.is_dir():
        pytest.skip(f"no oracle at {folder}")
    return folder


@pytest.fixture(scope="module")
def loaded(folder: Path) -> FunasrModel:
    return load_funasr(folder)


@pytest.fixture(scope="module")
def reference(folder: Path) -> dict[str, np.ndarray]:
    with np.load(folder / "ref.npz") as file:
        return dict(file)


def test_features(loaded: FunasrModel, reference: dict[str, np.ndarray]) -> None:
    front_end = FrontEnd(loaded.front_end, shift=loaded.shift, scale=loaded.scale)
    features, lengths = front_end.features([torch.from_numpy(reference["wav"])])
    assert lengths.tolist() == [82]
    np.testing.assert_allclose(features, reference["feats"], atol=TOLERANCE)


@pytest.mark.parametrize("source", ["reference features", "our features"])
def test_every_intermediate(
    source: str, loaded: FunasrModel, reference: dict[str, np.ndarray]
) -> None:
    features = torch.from_numpy(reference["feats"])
    if source == "our features":
        front_end = FrontEnd(loaded.front_end, shift=loaded.shift, scale=loaded.scale)
        features, _ = front_end.features([torch.from_numpy(reference["wav"])])
    lengths = torch.tensor([features.shape[1]])
    with torch.inference_mode():
        encoded = loaded.model.encode(features, lengths)
    result = loaded.model.recognise(features, lengths)
    for name, got in {
        "enc": encoded,
        "alphas": result.cif.alphas_BT,
        "peaks": result.cif.peaks_BT,
        "acoustic": result.cif.embeddings_BND,
        "logp": result.log_probs_BNV,
    }.items():
        np.testing.assert_allclose(got, reference[name], atol=TOLERANCE, err_msg=name)
    assert result.cif.counts_B.tolist() == reference["token_num"].astype(int).tolist() == [50]
    assert np.array_equal(result.ids_BN, reference["ids"])


def test_timestamps_follow_from_the_same_peaks(
    loaded: FunasrModel, reference: dict[str, np.ndarray]
) -> None:
    """Times computed from our weights and from FunASR's, both in the true argument order."""
    features = torch.from_numpy(reference["feats"])
    cif = loaded.model.recognise(features, torch.tensor([82])).cif
    ours = firing_times(cif.alphas_BT[0].numpy(), cif.peaks_BT[0].numpy(), 49)
    theirs = firing_times(reference["alphas"][0], reference["peaks"][0], 49)
    assert len(ours) == 49
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
    starts = [start for start, _ in ours]
    assert starts == sorted(starts)
