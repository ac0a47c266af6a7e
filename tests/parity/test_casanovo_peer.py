"""Parity with Casanovo 5.2.1 run beside ours on the real annotated spectra: `make peers`.

Casanovo lives in an environment of its own (tests/parity/install_casanovo.sh);
casanovo_reference.py runs there, with a home folder of its own, and leaves what it computed.
"""

from __future__ import annotations

import os
import secrets
import subprocess
from pathlib import Path

import numpy as np
import pytest
from casanovo_compare import Recorded, check_greedy, check_search, check_tensors, same_best

from seqgen_peptides.casanovo import CasanovoModel, load_casanovo
from seqgen_peptides.files import SpectrumFiles
from seqgen_peptides.preprocess import preprocess
from seqgen_peptides.readers import list_spectra, read_spectrum
from seqgen_peptides.residues import STOP

HERE = Path(__file__).parent
PYTHON = Path(
    os.environ.get("CASANOVO_PYTHON", HERE.parents[1] / ".peers" / "casanovo" / "bin" / "python")
)

pytestmark = pytest.mark.peer


def run_reference(folder: Path, data: Path, *arguments: str | Path) -> Recorded:
    if not PYTHON.exists():
        pytest.skip(f"no casanovo at {PYTHON}: run tests/parity/install_casanovo.sh")
    command = [PYTHON, HERE / "casanovo_reference.py", folder, *arguments]
    command += ["--mgf", data / "real_valid.mgf", "--unimod", data / "unimod.xml.gz"]
    home = {"HOME": str(folder), "XDG_CACHE_HOME": str(folder / "cache")}
    environment = {**os.environ, **home, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return Recorded.of(folder)


@pytest.fixture(scope="module")
def data(shared_data: Path) -> Path:
    return shared_data / "peptides"


@pytest.fixture(scope="module")
def pair(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[CasanovoModel, Recorded]:
    """A fresh random model, loaded by us, and what Casanovo computed with it."""
    folder, seed = tmp_path_factory.mktemp("casanovo"), secrets.randbelow(10_000)
    print(f"seed {seed}")  # shown when a test fails
    recorded = run_reference(folder, data, "--seed", str(seed))
    return load_casanovo(folder / "model.ckpt"), recorded


def test_preprocessing_and_tokens(pair: tuple[CasanovoModel, Recorded], data: Path) -> None:
    """The same spectra are usable, with the same peaks and the same reference ids."""
    model, recorded = pair
    files, seen = SpectrumFiles(), recorded.arrays
    items = list(list_spectra(str(data / "real_valid.mgf"), files))
    assert len(seen["index"]) > 180
    for row, index in enumerate(seen["index"]):
        item = read_spectrum(items[index], files)
        assert item.mz is not None
        assert item.intensity is not None
        assert item.precursor_mz is not None
        assert item.charge == seen["charge"][row]
        assert item.peptide is not None
        peaks = preprocess(
            item.mz, item.intensity, item.precursor_mz, item.charge, model.config.preprocess
        )
        used = seen["mz"][row] > 0
        np.testing.assert_array_equal(peaks[0].astype(np.float32), seen["mz"][row][used])
        np.testing.assert_allclose(peaks[1], seen["intensity"][row][used], atol=1e-6)
        ids = [*model.residues.encode(item.peptide)[::-1], STOP]
        assert seen["tokens"][row][: len(ids)].tolist() == ids
        assert not seen["tokens"][row][len(ids) :].any()


def test_states_and_logits(pair: tuple[CasanovoModel, Recorded]) -> None:
    check_tensors(*pair, tolerance=1e-4)


def test_greedy(pair: tuple[CasanovoModel, Recorded]) -> None:
    answered = check_greedy(*pair, tolerance=1e-5)
    print(f"{answered} peptides of {len(pair[1].arrays['mz'])} spectra")
    assert answered > 0


def test_beam_search(pair: tuple[CasanovoModel, Recorded]) -> None:
    compared = check_search(*pair, tolerance=1e-5)
    same, of = same_best(*pair)
    print(f"{compared} answers; with Casanovo's rules the same best in {same} of {of} spectra")
    assert compared > 0


def test_the_shared_checkpoint(data: Path, tmp_path: Path) -> None:
    checkpoint = data / "casanovo_tiny_random.ckpt"
    recorded = run_reference(tmp_path, data, "--checkpoint", checkpoint)
    check_tensors(load_casanovo(checkpoint), recorded, tolerance=1e-4)
