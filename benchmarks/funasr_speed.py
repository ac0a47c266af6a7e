"""Offline recognition, ours against FunASR 1.4.16: same weights, same features, one thread.

Runs inside FunASR's environment (tests/parity/install_funasr.sh) with our source roots in the path:

    PYTHONPATH=core:plugins .peers/funasr/bin/python benchmarks/funasr_speed.py [--json FILE]

Each case is features -> text, by `model.inference` of FunASR and by `Paraformer.recognise` of ours,
in turns; the figures are medians of CPU time. Features are random, weights are FunASR's
initialisation; the predictor's bias is set so that a token comes about every 200 ms, as in speech.
Before anything is timed both must have given the same text.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
import yaml

from seqgen.benchmark import interleaved, print_result, result, write_result

VOCABULARY = 8404
SIZES = {
    "small": {"width": 256, "ffn": 1024, "encoder": 12, "decoder": 6},
    "large": {"width": 512, "ffn": 2048, "encoder": 50, "decoder": 16},
}
SECONDS = (5, 10, 20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="small,large")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--json", type=Path, help="also write the result here")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for size in arguments.sizes.split(","):
        peer, ours = make_pair(size)
        for seconds in SECONDS:
            torch.manual_seed(seconds)
            features = torch.randn(1, round(seconds / 0.06), 560)
            calls = {"ours_ms": partial(ours, features), "peer_ms": partial(peer, features)}
            texts = {name: call() for name, call in calls.items()}
            if texts["ours_ms"] != texts["peer_ms"]:
                raise SystemExit(f"{size}, {seconds} s: the texts differ: {texts}")
            times = interleaved(calls, repeats=arguments.repeats)
            rows.append(
                {
                    "case": f"{size} {seconds} s",
                    "tokens": len(texts["ours_ms"]),
                    **{name: time.cpu_ms for name, time in times.items()},
                    "ratio": times["peer_ms"].cpu_ms / times["ours_ms"].cpu_ms,
                }
            )
    outcome = result("funasr_speed", rows)
    print_result(outcome)
    if arguments.json:
        write_result(outcome, arguments.json)


def make_pair(size: str) -> tuple[Callable, Callable]:
    """(FunASR, ours) as functions from features [1, T, 560] to text."""
    from funasr import AutoModel

    from seqgen.linear import pack
    from seqgen_speech.funasr import model_configuration
    from seqgen_speech.paraformer import Paraformer

    with tempfile.TemporaryDirectory() as folder:
        tokens = ["<blank>", "<s>", "</s>"] + [chr(0x4E00 + i) for i in range(VOCABULARY - 4)]
        Path(folder, "tokens.json").write_text(json.dumps([*tokens, "<unk>"]))
        config = configuration(**SIZES[size])
        config["tokenizer_conf"] = {"unk_symbol": "<unk>"}
        metas = {"init_param": "model.pt", "config": "config.yaml"}
        metas["tokenizer_conf"] = {"token_list": "tokens.json"}
        Path(folder, "configuration.json").write_text(json.dumps({"file_path_metas": metas}))
        Path(folder, "config.yaml").write_text(yaml.safe_dump(config))
        torch.manual_seed(0)
        auto = AutoModel(model=folder, device="cpu", ncpu=1, disable_update=True, disable_pbar=True)
    torch.set_num_threads(1)  # AutoModel has set its own number
    net, kwargs = auto.model.eval(), auto.kwargs
    net.predictor.cif_output.bias.data.fill_(-0.85)
    state = net.state_dict()
    model = Paraformer(model_configuration(config, state, vocabulary=VOCABULARY)).eval()
    model.load_state_dict(state)
    pack(model)
    tokens.append("<unk>")

    @torch.no_grad()
    def peer(features: torch.Tensor) -> str:
        results, _ = net.inference(
            features.clone(),
            data_lengths=torch.tensor([[features.shape[1]]]),
            key=["one"],
            tokenizer=kwargs["tokenizer"],
            frontend=kwargs["frontend"],
            device="cpu",
            data_type="fbank",
        )
        return results[0]["text"].replace(" ", "")

    def ours(features: torch.Tensor) -> str:
        result = model.recognise(features, torch.tensor([features.shape[1]]))
        ids = result.ids_BN[0, : int(result.cif.counts_B[0])].tolist()
        return "".join(tokens[i] for i in ids if i > 2)

    return peer, ours


def configuration(*, width: int, ffn: int, encoder: int, decoder: int) -> dict:
    """config.yaml of a Paraformer of this size."""
    return {
        "model": "Paraformer",
        "model_conf": {"predictor_bias": 1, "ctc_weight": 0.0},
        "encoder": "SANMEncoder",
        "encoder_conf": {
            "output_size": width,
            "attention_heads": 4,
            "linear_units": ffn,
            "num_blocks": encoder,
            "kernel_size": 11,
            "sanm_shfit": 0,
            "input_layer": "pe",
            "pos_enc_class": "SinusoidalPositionEncoder",
            "normalize_before": True,
            "selfattention_layer_type": "sanm",
        },
        "decoder": "ParaformerSANMDecoder",
        "decoder_conf": {
            "attention_heads": 4,
            "linear_units": ffn,
            "num_blocks": decoder,
            "att_layer_num": decoder,
            "kernel_size": 11,
            "sanm_shfit": 0,
        },
        "predictor": "CifPredictorV2",
        "predictor_conf": {"idim": width, "l_order": 1, "r_order": 1, "tail_threshold": 0.45},
        "frontend": "WavFrontend",
        "frontend_conf": {"lfr_m": 7, "lfr_n": 6, "n_mels": 80, "dither": 0.0},
        "tokenizer": "CharTokenizer",
    }


if __name__ == "__main__":
    main()
