#!/usr/bin/env bash
# Installs NeuralProphet 0.9.0 into an environment of its own, for
# tests/parity/test_neuralprophet_peer.py and benchmarks/neuralprophet_speed.py. Nothing of seqgen
# imports it. It needs pandas below 3 (every fit fails with 3.0: Series.view is gone), and it must
# come after torch, so that it does not bring another one.
#
# Usage: tests/parity/install_neuralprophet.sh [FOLDER]      (default .peers/neuralprophet)
set -euo pipefail

folder="${1:-.peers/neuralprophet}"
python="${PYTHON:-python3.11}"
here="$(cd "$(dirname "$0")/../.." && pwd)"

if [ -x "$folder/bin/python" ] && "$folder/bin/python" -c "import neuralprophet, pluggy" >/dev/null 2>&1; then
    echo "$folder is ready"
    exit 0
fi

"$python" -m venv "$folder"
pip() { "$folder/bin/python" -m pip install --disable-pip-version-check --quiet "$@"; }
# torch is bound as in the main environment: pip then takes a CPU build where one is offered.
pip -c "$here/constraints/tested.txt" torch==2.13.0
# setuptools: pytorch-lightning imports pkg_resources.
pip neuralprophet==0.9.0 'pandas<3' torch==2.13.0 'setuptools<81' scipy
# What importing our own source roots needs (the benchmark runs both side by side).
pip pluggy click pyyaml safetensors
"$folder/bin/python" -c "
import neuralprophet, pandas, torch
print('neuralprophet', neuralprophet.__version__, 'pandas', pandas.__version__, 'torch', torch.__version__)"
