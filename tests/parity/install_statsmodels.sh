#!/usr/bin/env bash
# Installs statsmodels 0.15.0 into an environment of its own, for tests/parity/test_autoreg_peer.py
# and benchmarks/arnet_exact.py. Nothing of seqgen imports it.
#
# Usage: tests/parity/install_statsmodels.sh [FOLDER]      (default .peers/statsmodels)
set -euo pipefail

folder="${1:-.peers/statsmodels}"
python="${PYTHON:-python3.11}"

if [ -x "$folder/bin/python" ] && "$folder/bin/python" -c "import statsmodels.tsa.ar_model" >/dev/null 2>&1; then
    echo "$folder is ready"
    exit 0
fi

"$python" -m venv "$folder"
"$folder/bin/python" -m pip install --disable-pip-version-check --quiet \
    statsmodels==0.15.0 numpy==2.4.6 scipy==1.17.1 pandas==2.3.3
"$folder/bin/python" -c "import statsmodels; print('statsmodels', statsmodels.__version__)"
