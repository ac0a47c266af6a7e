"""Parity with FunASR run beside ours, on fresh random weights: `make peers`.

FunASR lives in an environment of its own (tests/parity/install_funasr.sh); funasr_reference.py runs
there and leaves a checkpoint and what FunASR computed with it.
"""

from __future__ import annotations

import os
import secrets
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from token_times import compare

from seqgen_speech.features import FrontEnd
from seqgen_speech.funasr import FunasrModel, load_funasr
from seqgen_speech.losses import append_end, paraformer_loss, smoothed_kl
from seqgen_speech.streaming import ParaformerStream, chunked_reference

HERE = Path(__file__).parent
PYTHON = Path(
    os.environ.get("FUNASR_PYTHON", HERE.parents[1] / ".peers" / "funasr" / "bin" / "python")
)
TARGETS = [[3, 4, 5, 6, 7], [8, 9, 10], [11, 12, 11, 12, 11, 12, 3], [20]]
ROWS = ("0", "1", "2", "3")
TOLERANCE = 1e-4

pytestmark = pytest.mark.peer


def run_reference(folder: Path, kind: str) -> dict[str, np.ndarray]:
    if not PYTHON.exists():
        pytest.skip(f"no funasr at {PYTHON}: run tests/parity/install_funasr.sh")
    seed = secrets.randbelow(10_000)
    command = [PYTHON, HERE / "funasr_reference.py", folder, "--kind", kind, "--seed", str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    print(f"{kind}: seed {seed}")  # shown when a test fails
    with np.load(folder / "ref.npz") as file:
        return dict(file)


def run_funasr(folder: Path, kind: str) -> tuple[FunasrModel, dict[str, np.ndarray]]:
    reference = run_reference(folder, kind)
    return load_funasr(folder), reference


@pytest.fixture(scope="module", params=["paraformer", "v1", "bicif", "seaco"])
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[FunasrModel, dict[str, np.ndarray]]:
    return run_funasr(tmp_path_factory.mktemp(request.param), request.param)


@pytest.mark.parametrize("row", ROWS)
def test_single_recordings(row: str, pair: tuple[FunasrModel, dict[str, np.ndarray]]) -> None:
    loaded, reference = pair
    front_end = FrontEnd(loaded.front_end, shift=loaded.shift, scale=loaded.scale)
    features, lengths = front_end.features([torch.from_numpy(reference[f"wav_{row}"])])
    np.testing.assert_allclose(features, reference[f"feats_{row}"], atol=TOLERANCE)
    result = loaded.model.recognise(features, lengths)
    with torch.inference_mode():
        encoded = loaded.model.encode(features, lengths)
    steps = {
        "enc": encoded,
        "alphas": result.cif.alphas_BT,
        "peaks": result.cif.peaks_BT,
        "acoustic": result.cif.embeddings_BND,
        "logp": result.log_probs_BNV,
    }
    if loaded.model.config.predictor.version == "v3":
        with torch.inference_mode():
            fine = loaded.model.predictor.fine_peaks(encoded, lengths, result.cif.counts_B)
        steps |= {"fine_alphas": fine[0], "fine_peaks": fine[1]}
    for name, got in steps.items():
        np.testing.assert_allclose(got, reference[f"{name}_{row}"], atol=TOLERANCE, err_msg=name)
    assert result.cif.counts_B.tolist() == reference[f"count_{row}"].tolist()
    assert np.array_equal(result.ids_BN, reference[f"logp_{row}"].argmax(-1))


def test_padded_batch(pair: tuple[FunasrModel, dict[str, np.ndarray]]) -> None:
    """The encoder agrees on padding, too. FunASR's predictor lets a padded frame's state into the
    weight of a short row's last frame; with that put back, its batch agrees as a whole. Our own
    batch gives each row what it gives alone."""
    loaded, reference = pair
    features = torch.from_numpy(reference["feats_batch"])
    lengths = torch.from_numpy(reference["lengths_batch"]).long()
    with torch.inference_mode():
        encoded = loaded.model.encode(features, lengths)
        np.testing.assert_allclose(encoded, reference["enc_batch"], atol=TOLERANCE)
        leaky = loaded.model.predictor.alphas(encoded)
    result = loaded.model.recognise(features, lengths)
    for row, length in enumerate(lengths.tolist()):
        theirs = reference["alphas_batch"][row, :length]
        np.testing.assert_allclose(leaky[row, :length], theirs, atol=TOLERANCE)
        ours = result.cif.alphas_BT[row, : length - 1]
        np.testing.assert_allclose(ours, theirs[:-1], atol=TOLERANCE)
        alone = reference[f"logp_{row}"][0]
        np.testing.assert_allclose(result.log_probs_BNV[row, : len(alone)], alone, atol=TOLERANCE)


@pytest.mark.parametrize("row", ROWS)
def test_losses(row: str, pair: tuple[FunasrModel, dict[str, np.ndarray]]) -> None:
    loaded, reference = pair
    if f"loss_att_{row}" not in reference:
        pytest.skip("FunASR trains this model with hotwords only")
    features = torch.from_numpy(reference[f"feats_{row}"])
    lengths = torch.tensor([features.shape[1]])
    targets = torch.tensor([TARGETS[int(row)]])
    counts = torch.tensor([targets.shape[1]])
    with torch.no_grad():
        parts = paraformer_loss(loaded.model, features, lengths, targets, counts, None, loaded.loss)
        if reference[f"lost_{row}"]:
            parts = {
                "length": parts["length"],
                "cross_entropy": without_last(loaded, features, targets),
            }
    names = {"cross_entropy": "loss_att", "length": "loss_pre", "ctc": "loss_ctc", "loss": "loss"}
    if loaded.model.config.predictor.version == "v3":
        del names["loss"]  # theirs has a term for the finer weights
    for ours in parts.keys() & names.keys():
        want = float(reference[f"{names[ours]}_{row}"])
        assert parts[ours].item() == pytest.approx(want, abs=TOLERANCE, rel=1e-5), ours


def without_last(
    loaded: FunasrModel, features: torch.Tensor, targets: torch.Tensor
) -> torch.Tensor:
    """The cross-entropy if the last token's embedding is missing, as happens in FunASR."""
    lengths = torch.tensor([features.shape[1]])
    ids, counts = append_end(loaded.model, targets, torch.tensor([targets.shape[1]]))
    encoded = loaded.model.encode(features, lengths)
    embeddings = loaded.model.predict(encoded, lengths, counts).embeddings_BND.clone()
    embeddings[:, -1] = 0
    logits = loaded.model.decode(embeddings, counts, encoded, lengths)
    valid = torch.ones_like(ids, dtype=torch.bool)
    return smoothed_kl(logits, ids, valid, loaded.loss.label_smoothing) / counts.sum()


def test_token_times(tmp_path: Path) -> None:
    assert compare(run_reference(tmp_path, "timestamps")) > 30


@pytest.fixture(scope="module")
def streaming(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[FunasrModel, dict[str, np.ndarray]]:
    return run_funasr(tmp_path_factory.mktemp("streaming"), "streaming")


@pytest.mark.parametrize("row", ROWS)
def test_streaming_text(row: str, streaming: tuple[FunasrModel, dict[str, np.ndarray]]) -> None:
    loaded, reference = streaming
    front_end = FrontEnd(loaded.front_end, shift=loaded.shift, scale=loaded.scale)
    wave = torch.from_numpy(reference[f"wav_{row}"])
    stream = ParaformerStream(loaded.model, front_end)
    parts = [stream.push(wave[i : i + 9600]) for i in range(0, len(wave), 9600)]
    parts.append(stream.finish())

    def text(ids: torch.Tensor) -> str:
        pieces = [loaded.tokens[i] for i in ids.tolist()]
        return "".join(p for p in pieces if not p.startswith("<")).upper()  # as FunASR's text

    theirs = "".join(str(part).upper() for part in reference[f"texts_{row}"])
    assert theirs
    assert "".join(text(part.ids_N) for part in parts) == theirs
    whole = chunked_reference(loaded.model, front_end.features([wave])[0][0])
    assert text(whole.ids_N) == theirs
