#!/usr/bin/env bash
# pocketsphinx 5.1.1 (with its en-us model) in an environment of its own: .peers/pocketsphinx
set -euo pipefail
cd "$(dirname "$0")/../.."
env=.peers/pocketsphinx
test -x "$env/bin/python" || "${PYTHON:-python3}" -m venv "$env"
"$env/bin/python" -m pip install --quiet pocketsphinx==5.1.1 soundfile numpy
