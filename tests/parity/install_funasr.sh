#!/usr/bin/env bash
# Installs funasr 1.4.16 into an environment of its own, for tests/parity/test_funasr_peer.py and
# benchmarks/funasr_speed.py. Nothing of seqgen imports it.
#
# Usage: tests/parity/install_funasr.sh [FOLDER]      (default .peers/funasr)
set -euo pipefail

folder="${1:-.peers/funasr}"
python="${PYTHON:-python3.11}"

if [ -x "$folder/bin/python" ] && "$folder/bin/python" -c "import funasr, pluggy" >/dev/null 2>&1; then
    echo "$folder is ready"
    exit 0
fi

"$python" -m venv "$folder"
pip=("$folder/bin/python" -m pip install --disable-pip-version-check --quiet)
"${pip[@]}" torch==2.13.0
# funasr does not declare all of these: without `six`, for one, Paraformer silently fails to register.
"${pip[@]}" numpy soundfile scipy librosa PyYAML tqdm requests regex omegaconf hydra-core kaldiio \
    jieba jamo jaconv rapidfuzz torch_complex sentencepiece tensorboardX safetensors \
    kaldi-native-fbank modelscope umap_learn huggingface_hub websockets tiktoken transformers six \
    einops jiwer pocketsphinx
# What importing our own source roots needs (benchmarks/funasr_speed.py runs both side by side).
"${pip[@]}" pluggy click rich
"${pip[@]}" --no-deps funasr==1.4.16 torchaudio==2.11.0

# torchaudio's compiled extension is built for CUDA and does not load beside a CPU build of torch.
if ! "$folder/bin/python" -c "import torchaudio" >/dev/null 2>&1; then
    libraries=$("$folder/bin/python" -c "import site; print(site.getsitepackages()[0])")/torchaudio/lib
    mkdir -p "$folder/moved-away"
    mv "$libraries"/*.so "$folder/moved-away/"
fi
"$folder/bin/python" -c "import funasr; print('funasr', funasr.__version__)"
