"""What a user can get wrong: every message names the thing, the cause and the cure."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from fake_distributions import good_plugin, write_distribution
from fake_distributions import seqgen as seqgen_process

Seqgen = Callable[..., Any]

RATE = 16000


def noise(seconds: float, rate: int = RATE, channels: int = 1) -> np.ndarray:
    generator = np.random.default_rng(int(1000 * seconds))
    shape = (int(seconds * rate), channels)
    return (0.1 * generator.standard_normal(shape)).astype(np.float32)


def wav(samples: np.ndarray, rate: int = RATE, subtype: str = "PCM_16") -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format="WAV", subtype=subtype)
    return buffer.getvalue()


def with_nan() -> bytes:
    samples = noise(1.0)
    samples[100] = np.nan
    return wav(samples, subtype="FLOAT")


BAD = {
    "empty": (b"", ["is empty (0 bytes)", "record it again"]),
    "text": (b"not a recording, only words\n" * 9, ["not audio", "looks like text", "ffmpeg"]),
    "cut": (wav(noise(2.0))[:32000], ["cut off", "promises 2.00 s", "allow_truncated=true"]),
    "header": (wav(noise(1.0))[:30], ["header.wav is not audio", "ffmpeg"]),
    "none": (wav(noise(0.0)), ["holds no samples", "ffmpeg"]),
    "blink": (wav(noise(0.01)), ["too short: 10.0 ms", "25 ms"]),
    "nan": (with_nan(), ["not a finite number", "16-bit"]),
}
"""Name -> (bytes of NAME.wav, what the message says)."""


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_a_failed_row_with_a_reason(
    seqgen: Seqgen, model_arguments: list[str], name: str
) -> None:
    data, expected = BAD[name]
    Path(f"{name}.wav").write_bytes(data)
    done = seqgen("run", "--plugin", "speech", *model_arguments, f"{name}.wav")
    (row,) = rows(done.out)
    assert (done.code, row["status"], row["id"]) == (1, "failed", name)
    for text in (f"{name}.wav", *expected):
        assert text in row["reason"]
        assert text in done.err
    assert "text" not in row
    assert "Traceback" not in done.err


def test_a_bad_file_has_no_subtitles(seqgen: Seqgen, model_arguments: list[str]) -> None:
    """A format of one item has no file for one that failed; that is not a second error."""
    Path("empty.wav").write_bytes(b"")
    done = seqgen("run", "--plugin", "speech", *model_arguments, "empty.wav", "-o", "out.srt")
    assert (done.code, done.out) == (1, "")
    assert "is empty (0 bytes)" in done.err
    assert not Path("out.srt").exists()


def test_a_missing_file_gets_a_suggestion(seqgen: Seqgen, model_arguments: list[str]) -> None:
    Path("hello.wav").write_bytes(wav(noise(1.0)))
    done = seqgen("run", "--plugin", "speech", *model_arguments, "helo.wav", "hello.wav")
    missing, good = rows(done.out)
    assert (done.code, missing["status"], good["status"]) == (1, "failed", "ok")
    assert "helo.wav does not exist; did you mean hello.wav?" in missing["reason"]


def test_what_is_left_of_a_cut_file_can_be_decoded(
    seqgen: Seqgen, model_arguments: list[str]
) -> None:
    Path("cut.wav").write_bytes(BAD["cut"][0])
    option = ["--set", "allow_truncated=true"]
    done = seqgen("run", "--plugin", "speech", *model_arguments, "cut.wav", *option)
    (row,) = rows(done.out)
    assert (done.code, row["status"]) == (0, "ok")
    assert row["audio_seconds"] == pytest.approx(0.9986, abs=0.01)


def test_telephone_stereo_works(seqgen: Seqgen, random_model: Path) -> None:
    """8 kHz with two channels is the same as its mean, at whatever rate it is stored."""
    both = noise(1.5, rate=8000, channels=2)
    Path("stereo.wav").write_bytes(wav(both, 8000, "FLOAT"))
    Path("mono.wav").write_bytes(wav(both.mean(axis=1), 8000, "FLOAT"))
    model = ["--model", random_model]
    done = seqgen("run", "--plugin", "speech", *model, "stereo.wav", "mono.wav")
    stereo, mono = rows(done.out)
    assert done.code == 0
    assert stereo["audio_seconds"] == 1.5
    assert stereo["text"] == mono["text"] != ""


def test_good_items_of_a_folder_are_done(seqgen: Seqgen, model_arguments: list[str]) -> None:
    Path("mix").mkdir()
    for number in range(3):
        Path(f"mix/good{number}.wav").write_bytes(wav(noise(1 + number / 4)))
    for name in ("cut", "text"):
        Path(f"mix/{name}.wav").write_bytes(BAD[name][0])
    done = seqgen("run", "--plugin", "speech", *model_arguments, "mix", "-o", "out.jsonl")
    found = {row["id"]: row["status"] for row in rows(Path("out.jsonl").read_text())}
    assert done.code == 1
    assert found == {
        "cut": "failed", "good0": "ok", "good1": "ok", "good2": "ok", "text": "failed",
    }  # fmt: skip
    assert "5 items, 2 failed" in done.err
    assert seqgen("run", "--plugin", "speech", *model_arguments, "mix", "-o", "out.txt").code == 1
    kept = Path("out.txt").read_text()
    assert all(f"good{number}" in kept for number in range(3))


def test_an_hour_of_silence_is_quick_and_small(tmp_path: Path, random_model: Path) -> None:
    hour, second = tmp_path / "hour.wav", tmp_path / "second.wav"
    hour.write_bytes(wav(np.zeros(3600 * RATE, dtype=np.int16)))
    second.write_bytes(wav(np.zeros(RATE, dtype=np.int16)))
    short, long = (peak_memory(random_model, path) for path in (second, hour))
    assert long["row"]["status"] == "ok"
    assert long["row"]["text"] == ""
    assert long["row"]["audio_seconds"] == 3600
    assert long["cpu"] - short["cpu"] < 10
    assert long["megabytes"] - short["megabytes"] < 60  # its samples alone take 230


def peak_memory(model: Path, source: Path) -> dict[str, Any]:
    """The row of one input, with processor seconds and the greatest memory of the process."""
    code = (
        "import json, resource, sys, torch\n"
        "from seqgen_cli.main import run\n"
        "code = run(['run', '--plugin', 'speech', '--model', *sys.argv[1:]])\n"
        "use = resource.getrusage(resource.RUSAGE_SELF)\n"
        "print(json.dumps([code, use.ru_maxrss / 1024, use.ru_utime + use.ru_stime]))\n"
    )
    process = subprocess.run(
        [sys.executable, "-c", code, str(model), str(source)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    row, (exit_code, megabytes, cpu) = rows(process.stdout)
    assert exit_code == 0
    return {"row": row, "megabytes": megabytes, "cpu": cpu}


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["--plugin", "speach"], 2, ["unknown plugin 'speach'", "did you mean 'speech'"]),
        (["--plugin", "speech", "--model", "paraformer-zn"], 2, ["did you mean 'paraformer-zh'"]),
        (["--plugin", "speech", "--decoder", "block-difusion"], 2, ["'block-diffusion'"]),
        (["--plugin", "speech", "--set", "temprature=1"], 2, ["did you mean 'temperature'"]),
        (["--plugin", "speech", "--set", "top_k=-3"], 2, ["'top_k' is -3", ">= 0"]),
        (["--plugin", "speech", "--set", "top_p=7"], 2, ["'top_p' is 7", "1.0"]),
        (["--plugin", "speech", "--set", "steps=two"], 2, ["'steps'", "'two'"]),
        (["--plugin", "speech", "--set", "remasking=none"], 2, ["'remasking'", "sequential"]),
        (["--plugin", "speech", "--batchsize", "3"], 2, ["--batch-size"]),
        (["--plugin", "speech", "-o", "out.str"], 2, ["out.str", "srt"]),
        (["--plugin", "speech", "-o", "/proc/no/out.txt"], 2, ["/proc/no", "why: ", "fix: "]),
        ([], 2, ["--plugin", "seqgen plugins"]),
    ],
)
def test_wrong_names_are_answered_with_the_right_ones(
    seqgen: Seqgen, random_model: Path, arguments: list[str], code: int, expected: list[str]
) -> None:
    Path("hello.wav").write_bytes(wav(noise(1.0)))
    model = [] if "--model" in arguments else ["--model", random_model]
    done = seqgen("run", *arguments, *model, "hello.wav")
    assert done.code == code, done.err
    for text in expected:
        assert text in done.err
    assert done.out == ""
    assert "Traceback" not in done.err


class Evil:
    """Unpickling it would write a file."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, (f"touch {os.getcwd()}/executed",))


@pytest.mark.parametrize("layout", ["lone", "inside", "funasr"])
def test_a_malicious_pickle_is_refused_unopened(seqgen: Seqgen, layout: str) -> None:
    import torch

    Path("evil").mkdir()
    path = {"lone": "evil/model.pt", "inside": "evil/model.safetensors", "funasr": "evil/model.pt"}
    torch.save({"state_dict": Evil()}, path[layout])
    if layout == "funasr":
        Path("evil/config.yaml").write_text("model: Paraformer\n")
        Path("evil/tokens.json").write_text('["<blank>", "<s>", "</s>", "<unk>"]')
    Path("hello.wav").write_bytes(wav(noise(1.0)))
    model = "evil" if layout != "lone" else "evil/model.pt"
    done = seqgen("run", "--plugin", "speech", "--model", model, "hello.wav")
    assert done.code == 4
    assert "error: " in done.err
    assert "fix: " in done.err
    assert path[layout] in done.err
    assert not Path("executed").exists()
    assert "Traceback" not in done.err


def test_a_cut_checkpoint(seqgen: Seqgen, random_model: Path) -> None:
    data = random_model.read_bytes()
    Path("hello.wav").write_bytes(wav(noise(1.0)))
    for length in (0, 7, 3000, len(data) - 10):
        Path("cut.safetensors").write_bytes(data[:length])
        done = seqgen("run", "--plugin", "speech", "--model", "cut.safetensors", "hello.wav")
        assert (done.code, done.out) == (4, "")
        assert "cut.safetensors is damaged" in done.err
        assert "fix: " in done.err


def test_a_configuration_of_another_version(seqgen: Seqgen, random_model: Path) -> None:
    from seqgen.checkpoints import load, save

    state, config = load(random_model)
    config["paraformer"]["flavour"] = 3
    save("odd.safetensors", state, config)
    Path("hello.wav").write_bytes(wav(noise(1.0)))
    done = seqgen("run", "--plugin", "speech", "--model", "odd.safetensors", "hello.wav")
    assert (done.code, done.out) == (4, "")
    for text in ("odd.safetensors holds a configuration", "'flavour'", "fix: "):
        assert text in done.err


def test_the_length_of_a_long_recording_includes_its_silences(
    seqgen: Seqgen, random_model: Path
) -> None:
    samples = np.zeros((25 * RATE, 1), dtype=np.float32)
    samples[3 * RATE : 5 * RATE] = noise(2.0)
    Path("long.wav").write_bytes(wav(samples))
    done = seqgen("run", "--plugin", "speech", "--model", random_model, "long.wav")
    (row,) = rows(done.out)
    assert row["audio_seconds"] == 25.0
    assert row["times"][0][0] >= 2.7


def test_a_wrong_checksum(
    seqgen: Seqgen, random_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is not the one the card means is refused, with both checksums."""
    cards = tmp_path / "cards.yaml"
    cards.write_text(
        "schema: 1\nmodels:\n  mine:\n    plugin: speech\n    status: untested\n    files:\n"
        "      - name: model.safetensors\n        urls: [https://example.org/model.safetensors]\n"
        f"        sha256: {'ab' * 32}\n"
    )
    kept = tmp_path / "cache" / "models" / "mine" / "model.safetensors"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(random_model.read_bytes())
    monkeypatch.setenv("SEQGEN_REGISTRY", str(cards))
    monkeypatch.setenv("SEQGEN_CACHE", str(tmp_path / "cache"))
    Path("hello.wav").write_bytes(wav(noise(1.0)))
    done = seqgen("run", "--plugin", "speech", "--model", "mine", "hello.wav")
    assert (done.code, done.out) == (4, "")
    assert "sha256 expected abab" in done.err
    assert "seqgen models pull mine" in done.err


def test_strangers_plugins_do_no_harm(tmp_path: Path, random_model: Path) -> None:
    """One installed plugin is broken, another has a name that is taken: speech still runs."""
    broken = write_distribution(
        tmp_path / "one",
        name="shaky",
        plugins={"shaky": "shaky:plugin"},
        modules={"shaky.py": "raise RuntimeError('boom')\n"},
    )
    twins = [
        write_distribution(
            tmp_path / f"twin{n}",
            name=f"twin{n}",
            plugins={"twin": f"twin{n}:plugin"},
            modules={f"twin{n}.py": good_plugin("twin", f"twin{n}")},
        )
        for n in (1, 2)
    ]
    (tmp_path / "hello.wav").write_bytes(wav(noise(1.0)))
    paths = (broken, *twins)
    source, model = str(tmp_path / "hello.wav"), ["--model", str(random_model)]
    good = seqgen_process("run", "--plugin", "speech", *model, source, paths=paths)
    assert (good.returncode, rows(good.stdout)[0]["status"]) == (0, "ok"), good.stderr
    bad = seqgen_process("run", "--plugin", "shaky", source, paths=paths)
    assert bad.returncode == 3
    for text in ("shaky 1.0", "boom", "fix: "):
        assert text in bad.stderr
    double = seqgen_process("run", "--plugin", "twin", source, paths=paths)
    assert double.returncode == 3
    assert "twin1" in double.stderr
    assert "twin2" in double.stderr
    for done in (good, bad, double):
        assert "Traceback" not in done.stderr


def rows(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]
