#!/usr/bin/env bash
# Installs transformers 4.52.4 into an environment of its own, for
# tests/parity/test_qwen3_transformers.py. Nothing of seqgen imports it.
#
# Usage: tests/parity/install_transformers.sh [FOLDER]      (default .peers/transformers)
set -euo pipefail

folder="${1:-.peers/transformers}"
python="${PYTHON:-python3.11}"

if [ -x "$folder/bin/python" ] && "$folder/bin/python" -c "import transformers" >/dev/null 2>&1; then
    echo "$folder is ready"
    exit 0
fi

"$python" -m venv "$folder"
"$folder/bin/python" -m pip install --disable-pip-version-check --quiet \
    torch==2.13.0 transformers==4.52.4 safetensors numpy
"$folder/bin/python" -c "import transformers; print('transformers', transformers.__version__)"
