"""pocketsphinx with a digit grammar over a jsonl manifest; prints rows `{"id", "text"}`.

Runs inside the peer's own environment (no seqgen there):

    .peers/pocketsphinx/bin/python benchmarks/pocketsphinx_digits.py dev/dev-digits.jsonl
"""

import json
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile
from pocketsphinx import Config, Decoder

GRAMMAR = """#JSGF V1.0;
grammar digits;
public <string> = <digit>+;
<digit> = zero | one | two | three | four | five | six | seven | eight | nine;
"""

# The best of a dozen settings on every fourth string of this very set, so the peer is favoured;
# its defaults insert about one digit per digit on these 8 kHz recordings.
TUNED = {"beam": 1e-80, "wbeam": 1e-60, "pbeam": 1e-80, "wip": 0.001, "pip": 0.4}
LEVEL = 0.5
"""Peak of the recordings handed over, of full scale: some are very soft."""


def main(manifest: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        grammar = Path(folder) / "digits.gram"
        grammar.write_text(GRAMMAR)
        decoder = Decoder(Config(jsgf=str(grammar), samprate=16000, loglevel="FATAL", **TUNED))
        for line in manifest.read_text().splitlines():
            row = json.loads(line)
            wave, rate = soundfile.read(manifest.parent / row["source"], dtype="float32")
            assert rate == 16000, f"{row['source']} is at {rate} Hz"
            samples = (wave * (LEVEL * 32767 / np.abs(wave).max())).astype(np.int16)
            decoder.start_utt()
            decoder.process_raw(samples.tobytes(), full_utt=True)
            decoder.end_utt()
            found = decoder.hyp()
            text = "" if found is None else found.hypstr
            print(json.dumps({"id": row["key"], "text": text}), flush=True)


if __name__ == "__main__":
    # The decoder's C library writes to stderr whatever the log level.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main(Path(sys.argv[1]))
