#!/usr/bin/env bash
# Installs vector-quantize-pytorch 1.32.0 into an environment of its own, for
# tests/parity/test_vector_quantize_peer.py. Nothing of seqgen imports it.
#
# Usage: tests/parity/install_vector_quantize.sh [FOLDER]      (default .peers/vector_quantize)
set -euo pipefail

folder="${1:-.peers/vector_quantize}"
python="${PYTHON:-python3.11}"

if [ -x "$folder/bin/python" ] && "$folder/bin/python" -c "import vector_quantize_pytorch" >/dev/null 2>&1; then
    echo "$folder is ready"
    exit 0
fi

"$python" -m venv "$folder"
pip=("$folder/bin/python" -m pip install --disable-pip-version-check --quiet)
"${pip[@]}" torch==2.13.0 numpy safetensors
"${pip[@]}" einops einx frozendict loguru torch-einops-utils
# Without its dependencies: torch is there already, and the others are named above.
"${pip[@]}" --no-deps vector-quantize-pytorch==1.32.0
"$folder/bin/python" -c "
from importlib.metadata import version
import vector_quantize_pytorch
print('vector-quantize-pytorch', version('vector-quantize-pytorch'))"
