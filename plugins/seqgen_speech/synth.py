"""Synthetic speech for training: grammar sentences said by the voices of `flite`.

flite (Debian package `flite`, a BSD-like licence) is called as a program, one sentence a call, and
its audio is cached in one folder: `voices.i16` (16 kHz samples, one utterance after another) and
`voices.jsonl` (one line an utterance). Sentence i depends on (seed, i) only, so an interrupted
generation goes on where it stopped and gives the same files.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import wave
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from seqgen.errors import CheckpointError, PluginError

from .audio import SAMPLE_RATE
from .grammar import Grammar, Sentence
from .text import normalise

VOICES = {"slt": 0.4, "rms": 0.2, "awb": 0.2, "kal16": 0.2}
"""flite voices and how often each speaks; slt (female, American) is nearest to the prompts."""
_PITCH = {"slt": (150.0, 225.0), "awb": (100.0, 160.0)}
_PEAK_SILENCE = 200  # of 32768: quieter than this at the ends is trimmed
_MARGIN = SAMPLE_RATE // 20


@dataclass(frozen=True)
class SynthConfig:
    """How much to generate.

    Attributes:
        utterances: number of sentences; 16000 make about 9 hours.
        seed: of the sentences, voices, pitch and tempo.
    """

    utterances: int = 16000
    seed: int = 0


@dataclass(frozen=True)
class SyntheticSpeech:
    """A cache, opened: `wave(i)` is int16 at 16 kHz and stays on disk until it is used."""

    texts: list[str]
    voices: list[str]
    offsets: np.ndarray
    samples: np.ndarray

    def __len__(self) -> int:
        return len(self.texts)

    def wave(self, index: int) -> np.ndarray:
        """The samples of one utterance."""
        return self.samples[self.offsets[index] : self.offsets[index + 1]]


def generate(
    folder: Path,
    config: SynthConfig,
    *,
    program: str = "flite",
    on_progress: Callable[[int, int], None] | None = None,
) -> SyntheticSpeech:
    """Fill the cache up to `config.utterances` and open it.

    Several processes may ask for one folder (torchrun): one fills it, the others wait.

    Raises:
        PluginError: flite is needed and not installed, or it fails.
        CheckpointError: the folder holds a cache made with another configuration.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _alone_in(folder):
        _fill(folder, config, program, on_progress)
    return open_cache(folder, utterances=config.utterances)


def _fill(
    folder: Path, config: SynthConfig, program: str, on_progress: Callable[[int, int], None] | None
) -> None:
    audio, index = folder / "voices.i16", folder / "voices.jsonl"
    done = _resume(folder, config, audio, index)
    if done < config.utterances:
        executable = find_flite(program)
        grammar = Grammar.load()
        with audio.open("ab") as samples, index.open("a", encoding="utf-8") as lines:
            for number in range(done, config.utterances):
                sentence, voice, options = _draw(grammar, config.seed, number)
                spoken = speak(executable, sentence.spoken, voice=voice, options=options)
                samples.write(spoken.tobytes())
                samples.flush()
                row = {"text": normalise(sentence.text), "voice": voice, "samples": len(spoken)}
                lines.write(json.dumps(row) + "\n")
                lines.flush()
                if on_progress is not None:
                    on_progress(number + 1, config.utterances)


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Wait until no other process fills the folder; the lock goes with the process."""
    try:
        import fcntl
    except ImportError:  # Windows: let one process make the cache first
        yield
        return
    with (folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def open_cache(folder: Path, *, utterances: int | None = None) -> SyntheticSpeech:
    """Open what `generate` wrote: all of it, or the first so many utterances.

    Raises:
        CheckpointError: the folder holds no complete cache.
    """
    audio, index = folder / "voices.i16", folder / "voices.jsonl"
    if not audio.exists() or not index.exists():
        raise CheckpointError(
            f"no synthetic speech in {folder}", fix="run seqgen_speech.synth.generate first"
        )
    rows = list(_rows(index))[:utterances]
    offsets = np.cumsum([0, *(row["samples"] for row in rows)])
    samples = np.memmap(audio, dtype="<i2", mode="r")
    if len(samples) < offsets[-1]:
        raise CheckpointError(
            f"{audio} is shorter than its index says", fix=f"delete {folder} and generate again"
        )
    texts, voices = [row["text"] for row in rows], [row["voice"] for row in rows]
    return SyntheticSpeech(texts, voices, offsets, samples)


def find_flite(program: str = "flite") -> str:
    """The path of flite.

    Raises:
        PluginError: it is not installed.
    """
    executable = shutil.which(program)
    if executable is None:
        raise PluginError(
            f"the speech synthesiser {program!r} is not installed",
            why="it says the generated sentences that the recogniser is trained on",
            fix="apt-get install flite, or train without synthetic speech",
        )
    return executable


def speak(
    executable: str, text: str, *, voice: str, options: dict[str, float] | None = None
) -> np.ndarray:
    """Let flite say `text`; int16 samples at 16 kHz, silent ends trimmed to 50 ms.

    Args:
        options: flite's numeric features, such as `duration_stretch` and `int_f0_target_mean`.

    Raises:
        PluginError: flite reports an error, or says nothing.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "speech.wav"
        command = [executable, "-voice", voice]
        for name, value in (options or {}).items():
            command += ["--setf", f"{name}={value:.3f}"]
        command += ["-t", text, "-o", str(path)]
        run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        if run.returncode != 0 or not path.exists():
            raise PluginError(f"flite cannot say {text!r} with {voice}", why=run.stderr.strip())
        with wave.open(str(path)) as file:
            rate = file.getframerate()
            samples = np.frombuffer(file.readframes(file.getnframes()), dtype="<i2")
    if rate != SAMPLE_RATE:
        raise PluginError(
            f"flite's voice {voice!r} speaks at {rate} Hz", fix=f"use one of {sorted(VOICES)}"
        )
    loud = np.flatnonzero(np.abs(samples.astype(np.int32)) > _PEAK_SILENCE)
    if len(loud) == 0:
        raise PluginError(f"flite says nothing for {text!r} with {voice}")
    return samples[max(loud[0] - _MARGIN, 0) : loud[-1] + _MARGIN]


def _draw(grammar: Grammar, seed: int, number: int) -> tuple[Sentence, str, dict[str, float]]:
    rng = np.random.default_rng((seed, number))
    sentence = grammar.sentence(rng)
    voice = str(rng.choice(list(VOICES), p=list(VOICES.values())))
    # The recorded prompts are spoken slowly, single words most of all.
    slowest = 1.6 if len(sentence.spoken.split()) <= 2 else 1.35
    options = {"duration_stretch": float(rng.uniform(0.9, slowest))}
    if voice in _PITCH:
        options["int_f0_target_mean"] = float(rng.uniform(*_PITCH[voice]))
    return sentence, voice, options


def _resume(folder: Path, config: SynthConfig, audio: Path, index: Path) -> int:
    """Utterances already there; an unfinished last one is cut off."""
    described = folder / "config.json"
    # More utterances of the same seed continue a cache, so only the seed has to agree.
    wanted = {"seed": asdict(config)["seed"]}
    if described.exists():
        found = json.loads(described.read_text(encoding="utf-8"))
        if found != wanted:
            raise CheckpointError(
                f"{folder} holds synthetic speech made with {found}, not {wanted}",
                fix="use another folder, or delete this one",
            )
    else:
        described.write_text(json.dumps(wanted), encoding="utf-8")
    audio.touch()
    index.touch()
    rows = list(_rows(index))
    size = 2 * sum(row["samples"] for row in rows)
    if audio.stat().st_size < size:
        raise CheckpointError(
            f"{audio} is shorter than its index says", fix=f"delete {folder} and generate again"
        )
    with audio.open("r+b") as file:
        file.truncate(size)
    index.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return len(rows)


def _rows(index: Path) -> Iterator[dict[str, Any]]:
    for line in index.read_text(encoding="utf-8").splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:  # the last line of an interrupted run
            return
