"""AR-Net beside NeuralProphet 0.9.0 on its own example: `make peers`.

NeuralProphet lives in an environment of its own (tests/parity/install_neuralprophet.sh), in which
benchmarks/neuralprophet_speed.py fits both in turns.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PYTHON = Path(
    os.environ.get("NEURALPROPHET_PYTHON", ROOT / ".peers" / "neuralprophet" / "bin" / "python")
)

pytestmark = pytest.mark.peer


def test_ours_is_at_least_as_accurate_and_twenty_times_faster(
    tmp_path: Path, shared_data: Path
) -> None:
    if not PYTHON.exists():
        pytest.skip(f"no neuralprophet at {PYTHON}: run tests/parity/install_neuralprophet.sh")
    series = shared_data / "timeseries" / "neuralprophet_mit" / "yosemite_temps.csv"
    script, made = ROOT / "benchmarks" / "neuralprophet_speed.py", tmp_path / "made.json"
    paths = os.pathsep.join(str(ROOT / part) for part in ("core", "plugins"))
    done = subprocess.run(
        [PYTHON, script, "--data", series, "--json", made],
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,  # Lightning leaves a folder of logs
    )
    assert done.returncode == 0, done.stderr[-2000:]
    print(done.stdout)  # shown when a test fails
    ours, *others, naive = json.loads(made.read_text())["rows"]
    assert ours["case"] == "ours"
    assert len(others) == 2
    for row in others:
        assert ours["mae"] <= row["mae"] < naive["mae"] * 1.2
        assert row["cpu_over_ours"] >= 20
