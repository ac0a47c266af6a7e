"""Parity with FunASR on numbers kept in the repository: a tiny random model in the official layout.

Made by funasr_reference.py (`--kind golden`); the test needs neither funasr nor the shared data.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from token_times import compare

from seqgen_speech.funasr import FunasrModel, load_funasr
from seqgen_speech.losses import ParaformerLossConfig, paraformer_loss

GOLDEN = Path(__file__).parent / "golden" / "funasr"
TARGETS = [[3, 4, 5, 6, 7], [8, 9, 10], [11, 12, 11, 12, 11, 12, 3], [20]]
ROWS = ("0", "1", "2", "3")


@pytest.fixture(scope="module")
def reference() -> dict[str, np.ndarray]:
    with np.load(GOLDEN / "ref.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def loaded(
    reference: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory
) -> FunasrModel:
    folder = tmp_path_factory.mktemp("funasr") / "model"
    shutil.copytree(GOLDEN, folder)
    prefix = "weights/"
    weights = {k.removeprefix(prefix): v for k, v in reference.items() if k.startswith(prefix)}
    torch.save({k: torch.from_numpy(v) for k, v in weights.items()}, folder / "model.pt")
    return load_funasr(folder)


@pytest.mark.parametrize("row", ROWS)
def test_every_step_equals_funasr(
    row: str, loaded: FunasrModel, reference: dict[str, np.ndarray]
) -> None:
    features = torch.from_numpy(reference[f"feats_{row}"])
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
        np.testing.assert_allclose(got, reference[f"{name}_{row}"], atol=1e-4, err_msg=name)
    assert result.cif.counts_B.tolist() == reference[f"count_{row}"].tolist()
    assert np.array_equal(result.ids_BN, reference[f"logp_{row}"].argmax(-1))


@pytest.mark.parametrize("row", ROWS)
def test_losses_equal_funasrs(
    row: str, loaded: FunasrModel, reference: dict[str, np.ndarray]
) -> None:
    assert not reference[f"lost_{row}"], "FunASR lost a token here: make it with another seed"
    features = torch.from_numpy(reference[f"feats_{row}"])
    targets = torch.tensor([TARGETS[int(row)]])
    config = ParaformerLossConfig(sampling_ratio=0.0, label_smoothing=0.1)
    with torch.no_grad():
        parts = paraformer_loss(
            loaded.model,
            features,
            torch.tensor([features.shape[1]]),
            targets,
            torch.tensor([targets.shape[1]]),
            None,
            config,
        )
    for ours, theirs in (("loss", "loss"), ("cross_entropy", "loss_att"), ("length", "loss_pre")):
        assert parts[ours].item() == pytest.approx(float(reference[f"{theirs}_{row}"]), abs=1e-4)


def test_padded_rows_equal_funasrs_unpadded_ones(
    loaded: FunasrModel, reference: dict[str, np.ndarray]
) -> None:
    """FunASR lets padding into a short row's last weight; ours gives what the row gives alone."""
    rows = [torch.from_numpy(reference[f"feats_{row}"][0]) for row in ROWS]
    features = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    result = loaded.model.recognise(features, torch.tensor([len(row) for row in rows]))
    for row in ROWS:
        want = reference[f"logp_{row}"][0]
        np.testing.assert_allclose(result.log_probs_BNV[int(row), : len(want)], want, atol=1e-4)
        assert int(result.cif.counts_B[int(row)]) == len(want)


def test_token_times_equal_funasrs() -> None:
    """Made-up traces with long spans, silences at both ends, and fires that do not fit."""
    with np.load(GOLDEN.with_name("funasr_timestamps.npz")) as file:
        assert compare(dict(file)) > 30
