#!/usr/bin/env bash
# Installs casanovo 5.2.1 into an environment of its own, for tests/parity/test_casanovo_peer.py and
# benchmarks/casanovo_speed.py. Nothing of seqgen imports it.
#
# Usage: tests/parity/install_casanovo.sh [FOLDER]      (default .peers/casanovo)
set -euo pipefail

folder="${1:-.peers/casanovo}"
python="${PYTHON:-python3.11}"

if [ -x "$folder/bin/python" ] && "$folder/bin/python" -c "import casanovo.denovo, pluggy" >/dev/null 2>&1; then
    echo "$folder is ready"
    exit 0
fi

"$python" -m venv "$folder"
pip=("$folder/bin/python" -m pip install --disable-pip-version-check --quiet)
# torch first: pip then keeps a CPU build where one is offered.
"${pip[@]}" torch==2.13.0
"${pip[@]}" casanovo==5.2.1 torch==2.13.0
# pip's own choice, pyarrow 26, does not import beside the numpy 1.26 that casanovo asks for.
"${pip[@]}" "pyarrow<21"
# What importing our own source roots needs (benchmarks/casanovo_speed.py runs both side by side).
"${pip[@]}" pluggy click rich safetensors
"$folder/bin/python" -c "import casanovo; print('casanovo', casanovo.__version__)"
