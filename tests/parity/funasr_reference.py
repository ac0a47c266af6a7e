"""Runs inside FunASR's own environment: makes a random checkpoint and records what FunASR computes.

    .peers/funasr/bin/python tests/parity/funasr_reference.py FOLDER --kind paraformer --seed 1

FOLDER becomes an official-looking model folder; FOLDER/ref.npz holds, for waveforms of several
lengths (`i`): feats_i, enc_i, alphas_i, peaks_i, acoustic_i, logp_i; the same for the padded batch
of them (feats_batch, ...); and training losses. Imports nothing of seqgen.

`--kind timestamps` makes no folder's model but ref.npz of FunASR's rule for token times on made-up
weights and peaks, in the order that the rule declares.

tests/parity/golden/funasr was made with `--kind golden --seed 6` by funasr 1.4.16,
tests/parity/golden/funasr_timestamps.npz with `--kind timestamps --seed 1`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
import yaml
from funasr import AutoModel
from funasr.utils.timestamp_tools import cif_wo_hidden, ts_prediction_lfr6_standard

SECONDS = (1.3, 3.1, 2.0, 6.7)
TOKENS = ["<blank>", "<s>", "</s>", *"abcdefghijklmnopqrstuvwxyz", "<unk>"]
TARGETS = [[3, 4, 5, 6, 7], [8, 9, 10], [11, 12, 11, 12, 11, 12, 3], [20]]


def configuration(kind: str) -> dict:
    """config.yaml; `kind`: paraformer, v1, bicif, seaco, streaming, or golden (a tiny one)."""
    width, heads, ffn, mels = (16, 4, 24, 20) if kind == "golden" else (64, 4, 128, 80)
    streaming = kind == "streaming"
    encoder = {
        "output_size": width,
        "attention_heads": heads,
        "linear_units": ffn,
        "num_blocks": 3,
        "kernel_size": 11,
        "sanm_shfit": 0,
        "dropout_rate": 0.1,
        "positional_dropout_rate": 0.1,
        "attention_dropout_rate": 0.1,
        "input_layer": "pe_online" if streaming else "pe",
        "pos_enc_class": "SinusoidalPositionEncoder",
        "normalize_before": True,
        "selfattention_layer_type": "sanm",
    }
    decoder = {
        "attention_heads": heads,
        "linear_units": ffn,
        # FunASR's streaming skips a single layer without cross-attention: give it none.
        "num_blocks": 2 if streaming else 3,
        "att_layer_num": 2,
        "kernel_size": 11,
        "sanm_shfit": 5 if streaming else 0,
        "dropout_rate": 0.1,
        "positional_dropout_rate": 0.1,
        "self_attention_dropout_rate": 0.1,
        "src_attention_dropout_rate": 0.1,
    }
    predictor = {"idim": width, "threshold": 1.0, "l_order": 1, "r_order": 1}
    predictor["tail_threshold"] = 0.45
    model = {
        "ctc_weight": 0.0,
        "lsm_weight": 0.1,
        "length_normalized_loss": True,
        "predictor_weight": 1.0,
        "predictor_bias": 1,
        "sampling_ratio": 0.0,
    }
    names = ("Paraformer", "CifPredictorV2")
    if kind == "v1":
        names = ("Paraformer", "CifPredictor")
        model["ctc_weight"] = 0.3
    if kind in ("bicif", "seaco"):
        names = ("BiCifParaformer", "CifPredictorV3")
        predictor |= {
            "smooth_factor2": 0.25,
            "noise_threshold2": 0.01,
            "upsample_times": 3,
            "use_cif1_cnn": False,
            "upsample_type": "cnn_blstm",
        }
    config = {
        "encoder_conf": encoder,
        "decoder_conf": decoder,
        "predictor_conf": predictor,
        "model_conf": model,
    }
    if streaming:
        names = ("ParaformerStreaming", "CifPredictorV2")
        encoder |= {
            "chunk_size": [12, 15],
            "stride": [8, 10],
            "pad_left": [0, 0],
            "encoder_att_look_back_factor": [4, 4],
            "decoder_att_look_back_factor": [1, 1],
        }
    if kind == "seaco":
        names = ("SeacoParaformer", "CifPredictorV3")
        model |= {
            "inner_dim": width,
            "bias_encoder_type": "lstm",
            "bias_encoder_bid": False,
            "seaco_lsm_weight": 0.1,
            "seaco_length_normalized_loss": True,
            "train_decoder": True,
            "NO_BIAS": len(TOKENS) - 1,
        }
        config["seaco_decoder"] = "ParaformerSANMDecoder"
        config["seaco_decoder_conf"] = {
            **decoder,
            "num_blocks": 2,
            "att_layer_num": 2,
            "kernel_size": 21,
            "linear_units": 96,
            "wo_input_layer": True,
        }
    return {
        "model": names[0],
        "encoder": "SANMEncoderChunkOpt" if streaming else "SANMEncoder",
        "decoder": "ParaformerSANMDecoder",
        "predictor": names[1],
        "frontend": "WavFrontendOnline" if streaming else "WavFrontend",
        "frontend_conf": {
            "fs": 16000,
            "window": "hamming",
            "n_mels": mels,
            "frame_length": 25,
            "frame_shift": 10,
            "lfr_m": 7,
            "lfr_n": 6,
            "dither": 0.0,
        },
        "tokenizer": "CharTokenizer",
        "tokenizer_conf": {"unk_symbol": "<unk>", "split_with_space": True},
        **config,
    }


def write_folder(folder: Path, kind: str, seed: int) -> AutoModel:
    """An official-looking folder with FunASR's own random initialisation."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(configuration(kind)))
    (folder / "tokens.json").write_text(json.dumps(TOKENS))
    metas = {
        "init_param": "model.pt",
        "config": "config.yaml",
        "tokenizer_conf": {"token_list": "tokens.json"},
        "frontend_conf": {"cmvn_file": "am.mvn"},
    }
    (folder / "configuration.json").write_text(json.dumps({"file_path_metas": metas}))
    random = np.random.default_rng(seed)
    size = 7 * configuration(kind)["frontend_conf"]["n_mels"]
    shift = " ".join(f"{v:.6f}" for v in random.normal(-10.5, 0.3, size))
    scale = " ".join(f"{v:.6f}" for v in random.uniform(0.2, 0.3, size))
    (folder / "am.mvn").write_text(
        f"<Nnet>\n<Splice> {size} {size}\n[ 0 ]\n<AddShift> {size} {size}\n"
        f"<LearnRateCoef> 0 [ {shift} ]\n<Rescale> {size} {size}\n"
        f"<LearnRateCoef> 0 [ {scale} ]\n</Nnet>\n"
    )
    torch.manual_seed(seed)
    model = open_folder(folder)
    torch.save(model.model.state_dict(), folder / "model.pt")
    return model


def open_folder(folder: Path) -> AutoModel:
    return AutoModel(model=str(folder), device="cpu", disable_update=True, disable_pbar=True)


def waveform(seconds: float, seed: int) -> torch.Tensor:
    """Noise with a slow envelope and a few tones: nothing silent, nothing stationary."""
    random = np.random.default_rng(seed)
    time = np.arange(int(seconds * 16000)) / 16000
    tone = sum(np.sin(2 * np.pi * f * time) for f in random.uniform(100, 3000, 4))
    envelope = 0.15 + 0.1 * np.sin(2 * np.pi * random.uniform(0.5, 3) * time)
    wave = envelope * (0.2 * tone + random.normal(0, 0.3, time.size))
    return torch.from_numpy(np.clip(wave, -1, 1).astype(np.float32))


def offline(model: AutoModel, waves: list[torch.Tensor]) -> dict[str, np.ndarray]:
    """Every intermediate of the offline path: rows alone, and the padded batch."""
    front_end, net = model.kwargs["frontend"], model.model
    front_end.dither = 0.0
    record: dict[str, np.ndarray] = {}

    def run(tag: str, feats: torch.Tensor, lengths: torch.Tensor) -> None:
        enc, enc_lengths = net.encode(feats, lengths)
        acoustic, count, alphas, peaks = net.calc_predictor(enc, enc_lengths)[:4]
        out = {"feats": feats, "lengths": lengths, "enc": enc, "alphas": alphas, "peaks": peaks}
        count = count.round().long()
        out |= {"acoustic": acoustic, "count": count}
        out["logp"] = net.cal_decoder_with_predictor(enc, enc_lengths, acoustic, count)[0]
        if hasattr(net, "calc_predictor_timestamp"):
            fine = net.calc_predictor_timestamp(enc, enc_lengths, count)
            out |= {"fine_alphas": fine[2], "fine_peaks": fine[3]}
        record.update({f"{name}_{tag}": value.numpy() for name, value in out.items()})

    rows = []
    for i, wave in enumerate(waves):
        feats, length = front_end(wave[None], torch.tensor([wave.numel()]))
        rows.append(feats[0])
        record[f"wav_{i}"] = wave.numpy()
        run(str(i), feats, length)
    lengths = torch.tensor([len(row) for row in rows])
    batch = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    run("batch", batch, lengths)

    if hasattr(net, "seaco_decoder"):  # its loss needs hotwords
        return record
    for tag, feats, n, targets in [
        *(
            (str(i), row[None], lengths[i : i + 1], TARGETS[i : i + 1])
            for i, row in enumerate(rows)
        ),
        ("batch", batch, lengths, TARGETS),
    ]:
        counts = torch.tensor([len(t) for t in targets])
        text = torch.nn.utils.rnn.pad_sequence(
            [torch.tensor(t) for t in targets], batch_first=True, padding_value=-1
        )
        # Scaled in float32, the weights may add up to just less than the target length: FunASR
        # then loses the last token's embedding. The comparison must know.
        fired: list[torch.Tensor] = []
        hook = net.predictor.register_forward_hook(
            lambda _module, _inputs, out, fired=fired: fired.append(out[0])
        )
        _, stats, _ = net(feats, n, text, counts)
        hook.remove()
        size = int(counts.max()) + 1  # with </s>
        lost = fired[0].shape[1] < size or bool((fired[0][0, size - 1] == 0).all())
        record[f"lost_{tag}"] = np.asarray(lost)
        for name in ("loss", "loss_att", "loss_pre", "loss_ctc", "acc"):
            if stats.get(name) is not None:
                record[f"{name}_{tag}"] = np.asarray(float(stats[name]))
    return record


def timestamps(seed: int) -> dict[str, np.ndarray]:
    """alphas_i, peaks_i, count_i, upsample_i, and the [start, end] in ms that FunASR gives."""
    random = np.random.default_rng(seed)
    record: dict[str, np.ndarray] = {}
    for i in range(36):
        frames = int(random.integers(12, 120))
        # Speech and silence: long spans, late first and early last fires all occur.
        loud = random.random(frames) < random.choice([0.15, 0.4, 0.9])
        alphas = (loud * random.uniform(0.1, 0.9, frames)).astype(np.float32)
        alphas[random.integers(frames, size=3)] = 0.8
        peaks = cif_wo_hidden(torch.from_numpy(alphas)[None], threshold=1.0)[0]
        fires = int((peaks >= 1.0 - 1e-4).sum())
        count = fires - 1 if i % 3 else max(2, fires // 2)  # otherwise it integrates again
        if count < 1:
            continue
        upsample = (1, 3)[i % 2]
        _, times = ts_prediction_lfr6_standard(
            torch.from_numpy(alphas.copy()), peaks, ["x"] * count, upsample_rate=upsample
        )
        record[f"alphas_{i}"], record[f"peaks_{i}"] = alphas, peaks.numpy()
        record[f"count_{i}"], record[f"upsample_{i}"] = np.asarray(count), np.asarray(upsample)
        record[f"times_{i}"] = np.asarray(times)
    return record


def streamed(model: AutoModel, waves: list[torch.Tensor]) -> dict[str, np.ndarray]:
    """Text of the streaming model, chunk by chunk."""
    record: dict[str, np.ndarray] = {}
    for i, wave in enumerate(waves):
        cache: dict = {}
        texts = []
        for start in range(0, wave.numel(), 9600):
            result = model.generate(
                input=wave[start : start + 9600].numpy(),
                cache=cache,
                is_final=start + 9600 >= wave.numel(),
                chunk_size=[0, 10, 5],
                encoder_chunk_look_back=4,
                decoder_chunk_look_back=1,
            )
            texts.append(result[0]["text"] if result else "")
        record[f"wav_{i}"] = wave.numpy()
        record[f"texts_{i}"] = np.asarray(texts)
    return record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kind", default="paraformer")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.kind == "timestamps":
        arguments.folder.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(arguments.folder / "ref.npz", **timestamps(arguments.seed))
        return
    model = write_folder(arguments.folder, arguments.kind, arguments.seed)
    waves = [waveform(s, arguments.seed + i) for i, s in enumerate(SECONDS)]
    model.model.eval()
    with torch.no_grad():
        record = (streamed if arguments.kind == "streaming" else offline)(model, waves)
    if arguments.kind == "golden":  # small enough for the repository: no waveforms, no pickle
        record = {
            name: array
            for name, array in record.items()
            if not name.startswith("wav") and not name.endswith("_batch")
        }
        state = model.model.state_dict()
        record |= {f"weights/{name}": value.numpy() for name, value in state.items()}
        (arguments.folder / "model.pt").unlink()
    np.savez_compressed(arguments.folder / "ref.npz", **record)


if __name__ == "__main__":
    main()
