"""Reading audio: any file soundfile knows, any rate, any channel count -> mono float32 at 16 kHz.

Everything is read block by block, so a file of hours needs no more memory than one of seconds.
`read_audio` is `stream_audio` put together: the samples are the same to the bit.
"""

from __future__ import annotations

import io
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import IO, Any

import numpy as np

from seqgen.errors import InputError, PluginError
from seqgen_speech.resample import Resampler, Wave

SAMPLE_RATE = 16000
SUFFIXES = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif", ".au", ".w64")
"""What a folder is searched for; a file named explicitly is tried whatever its suffix."""
BLOCK_SECONDS = 10.0
SALVAGE_SECONDS = 0.1
"""Blocks for files that may be damaged: what precedes the damage is lost only within a block."""
MIN_SECONDS = 0.025
"""One analysis window: anything shorter has no features."""
RATES = (1000, 768000)

Source = str | Path | bytes
"""A path, `-` for standard input, or the bytes of a file."""


def read_audio(
    source: Source,
    *,
    start: float = 0.0,
    stop: float | None = None,
    sample_rate: int = SAMPLE_RATE,
    allow_truncated: bool = False,
    name: str = "",
) -> Wave:
    """The samples [S] of `source` from `start` to `stop` seconds, mono, at `sample_rate`.

    Raises:
        InputError: see `stream_audio`.
        PluginError: soundfile is not installed.
    """
    blocks = stream_audio(
        source,
        start=start,
        stop=stop,
        sample_rate=sample_rate,
        allow_truncated=allow_truncated,
        name=name,
    )
    return np.concatenate(list(blocks))


def stream_audio(
    source: Source,
    *,
    start: float = 0.0,
    stop: float | None = None,
    sample_rate: int = SAMPLE_RATE,
    allow_truncated: bool = False,
    name: str = "",
) -> Iterator[Wave]:
    """Blocks of at most about `BLOCK_SECONDS`; channels are averaged.

    Args:
        source: path, `-` (standard input, held in memory as a whole) or the bytes of a file.
        start, stop: the part to read, in seconds; `stop=None` reads to the end.
        sample_rate: Hz of what comes out.
        allow_truncated: decode what is left of a file whose end is missing. Without it such a
            file is an error, because half a transcript looks like a whole one. (A missing end
            shows in wav, flac and mp3; an Ogg or AIFF file is simply taken as shorter.)
        name: what messages call the source; its path if empty.

    Raises:
        InputError: the source is missing, a folder, empty, no audio, of an unsupported type, cut
            off, shorter than 25 ms, or holds NaN or infinite samples. Some of this shows only
            at the last block.
        PluginError: soundfile is not installed.
    """
    name = name or ("standard input" if source == "-" or isinstance(source, bytes) else str(source))
    stream = _open(source, name)
    with stream, _decoder(stream, name) as sound:
        rate = sound.samplerate
        if not RATES[0] <= rate <= RATES[1]:
            raise InputError(
                f"{name} has an impossible sample rate of {rate} Hz",
                fix="write the file again with its true rate, for instance 16000 Hz",
            )
        if not allow_truncated and stop is None:
            _check_complete(stream, sound, name)
        first, count = _range(sound, name, start, stop)
        sound.seek(first)
        block = max(1, int(rate * (SALVAGE_SECONDS if allow_truncated else BLOCK_SECONDS)))
        resampler = Resampler(rate, sample_rate)
        read = 0
        while read < count:
            wanted = min(block, count - read)
            block_SC = _read(sound, wanted, name, allow_truncated)
            if not np.isfinite(block_SC).all():
                raise _not_finite(block_SC, name, (first + read) / rate)
            read += len(block_SC)
            yield resampler.push(block_SC.mean(axis=1, dtype=np.float32))
            if len(block_SC) < wanted:
                break
        # The frame count of an MP3 may be an estimate from its size.
        least = 0.9 * count if sound.format == "MP3" else count
        if count < _UNKNOWN_LENGTH and read < least and not allow_truncated:
            raise _truncated(name, count / rate, read / rate)
        if read < MIN_SECONDS * rate:
            raise InputError(
                f"{name} is too short: {1000 * read / rate:.1f} ms",
                why="one analysis window takes 25 ms",
                fix="remove it or join it with its neighbour",
            )
        yield resampler.flush()


def probe_seconds(path: str | Path) -> float:
    """Duration from the header alone; 0.0 if it cannot be read (reading tells why)."""
    soundfile = _soundfile()
    try:
        info = soundfile.info(str(path))
    except (soundfile.SoundFileError, OSError, TypeError, ValueError):
        return 0.0
    return info.frames / info.samplerate if 0 < info.frames < _UNKNOWN_LENGTH else 0.0


_UNKNOWN_LENGTH = 1 << 48
"""Frame counts from here on mean: a stream whose encoder did not know its length."""


def _open(source: Source, name: str) -> IO[bytes]:
    """A seekable stream; the obvious mistakes are reported before a decoder sees the file."""
    if isinstance(source, bytes):
        return _in_memory(source, name)
    if source == "-":
        return _in_memory(sys.stdin.buffer.read(), name)
    path = Path(source)
    if path.is_dir():
        raise InputError(f"{name} is a folder, not an audio file", fix="name a file inside it")
    if not path.exists():
        raise InputError(
            f"{name} does not exist",
            fix="check the path; a relative one counts from the current folder",
        )
    try:
        if not path.is_file():  # a pipe such as /dev/fd/63: not seekable
            return _in_memory(path.read_bytes(), name)
        if path.stat().st_size == 0:
            raise _empty(name)
        return path.open("rb")
    except OSError as error:
        raise InputError(f"cannot read {name}", why=str(error)) from error


def _in_memory(data: bytes, name: str) -> IO[bytes]:
    if not data:
        raise _empty(name)
    return io.BytesIO(data)


def _decoder(stream: IO[bytes], name: str) -> Any:
    soundfile = _soundfile()
    head = stream.read(256)
    stream.seek(0)
    try:
        sound = soundfile.SoundFile(stream)
    except (soundfile.SoundFileError, TypeError, ValueError, RuntimeError) as error:
        raise _not_audio(head, name, getattr(error, "error_string", str(error))) from error
    if sound.frames <= 0:
        raise InputError(
            f"{name} holds no samples",
            why="its header announces none; perhaps the recording was interrupted",
            fix="remove it, or try to repair it: ffmpeg -i FILE FIXED.wav",
        )
    return sound


def _range(sound: Any, name: str, start: float, stop: float | None) -> tuple[int, int]:
    """First frame and number of frames from `start` to `stop` seconds."""
    rate, total = sound.samplerate, sound.frames
    first = round(start * rate)
    # Manifests round their times: a stop a little beyond the end is the end.
    last = total if stop is None else round(stop * rate)
    if start < 0 or first >= min(last, total) or last > total + rate // 2:
        end = "its end" if stop is None else f"{stop:g} s"
        raise InputError(
            f"cannot read {name} from {start:g} s to {end}",
            why=f"it lasts {total / rate:.2f} s",
            fix="correct the start and stop times of the manifest",
        )
    return first, min(last, total) - first


def _read(sound: Any, wanted: int, name: str, allow_truncated: bool) -> np.ndarray:
    """Up to `wanted` frames [S, C]; fewer where the data ends."""
    try:
        block_SC: np.ndarray = sound.read(wanted, dtype="float32", always_2d=True)
    except _soundfile().SoundFileError as error:
        if allow_truncated:
            return np.zeros((0, sound.channels), dtype=np.float32)
        at = sound.tell() / sound.samplerate
        raise InputError(
            f"{name} is damaged or cut off somewhere after {at:.1f} s",
            why=str(error),
            fix="copy the file again, or decode what is left of it with --set allow_truncated=true",
        ) from error
    return block_SC


def _check_complete(stream: IO[bytes], sound: Any, name: str) -> None:
    """Refuse a wav whose header promises more than the file holds; decoders read on silently."""
    position = stream.tell()
    promised, present = _wav_data_bytes(stream)
    stream.seek(position)
    if promised > present:
        seconds = sound.frames / sound.samplerate
        raise _truncated(name, seconds * promised / max(present, 1), seconds)


def _wav_data_bytes(stream: IO[bytes]) -> tuple[int, int]:
    """Bytes of sample data that a RIFF header promises, and that are there; (0, 0) if unknown."""
    end = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    head = stream.read(12)
    if head[:4] != b"RIFF" or head[8:] != b"WAVE":
        return 0, 0
    while len(chunk := stream.read(8)) == 8:
        (size,) = struct.unpack("<I", chunk[4:])
        if chunk[:4] == b"data":
            # Programs that write to a pipe cannot know the length: they put 0 or about 2 or 4 GB.
            known = 0 < size < 0x7FFFF000
            return (size, end - stream.tell()) if known else (0, 0)
        stream.seek(size + size % 2, io.SEEK_CUR)
    return 0, 0


def _soundfile() -> ModuleType:
    try:
        import soundfile
    except (ImportError, OSError) as error:
        raise PluginError(
            "reading audio needs the package soundfile",
            why=str(error),
            fix="pip install 'seqgen-kit[speech]'",
        ) from error
    return soundfile  # type: ignore[no-any-return]


def _empty(name: str) -> InputError:
    fix = "remove it or record it again"
    if name == "standard input":
        fix = "pipe a recording into it: seqgen run --plugin speech - < FILE.wav"
    return InputError(f"{name} is empty (0 bytes)", fix=fix)


def _not_audio(head: bytes, name: str, cause: str) -> InputError:
    text = sum(byte in b"\t\n\r" or byte >= 32 for byte in head) == len(head)
    if text and not head.startswith((b"RIFF", b"fLaC", b"OggS", b"ID3")):
        why = "it looks like text"
    else:
        why = cause or "its type is not known"
    return InputError(
        f"{name} is not audio that can be read",
        why=why,
        fix=f"give {', '.join(s[1:] for s in SUFFIXES)}, or convert it: ffmpeg -i FILE FILE.wav",
    )


def _not_finite(block_SC: np.ndarray, name: str, at: float) -> InputError:
    bad = int((~np.isfinite(block_SC)).any(axis=1).sum())
    samples = (
        "a sample that is not a finite number"
        if bad == 1
        else (f"{bad} samples that are not finite numbers")
    )
    return InputError(
        f"{name} holds {samples} (NaN or infinity)",
        why=f"found in the block that starts at {at:.1f} s; they would make all features NaN",
        fix="write the file again as 16-bit integers",
    )


def _truncated(name: str, promised: float, present: float) -> InputError:
    return InputError(
        f"{name} is cut off: its header promises {promised:.2f} s, the file holds {present:.2f} s",
        fix="copy the file again, or decode what is there with --set allow_truncated=true",
    )
