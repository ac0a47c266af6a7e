"""Word error rates on the development set: every decoder, beside pocketsphinx on the digits.

    python benchmarks/speech_wer.py --data ../shared/data/speech [--model CARD|PATH]

Writes the development set (held-out prompts, strings of held-out digits) to a folder, scores each
decoder by `seqgen eval`, and, where `.peers/pocketsphinx` is installed (tests/parity/
install_pocketsphinx.sh), scores pocketsphinx with a digit grammar by the same rule.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PEER = ROOT / ".peers" / "pocketsphinx" / "bin" / "python"
DECODERS = ("paraformer", "ar", "mask-predict", "block-diffusion")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="")
    parser.add_argument("--output", type=Path, help="JSON file for the figures")
    arguments = parser.parse_args()

    from seqgen_speech.corpus import write_development_set

    with tempfile.TemporaryDirectory() as temporary:
        prompts, digits = write_development_set(arguments.data, Path(temporary))
        rows = []
        for decoder in DECODERS:
            scores = {
                name: evaluate(manifest, decoder, arguments.model)
                for name, manifest in (("digits", digits), ("prompts", prompts))
            }
            rows.append({"decoder": decoder, **{f"wer_{k}": s["wer"] for k, s in scores.items()}})
        rows.append({"decoder": "pocketsphinx, digit grammar", "wer_digits": pocketsphinx(digits)})
    for row in rows:
        cells = (
            f"{row[key]:8.2%}" if row.get(key) is not None else "       -"
            for key in ("wer_digits", "wer_prompts")
        )
        print(f"{row['decoder']:30}", *cells)
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps({"benchmark": "speech_wer", "rows": rows}, indent=1))


def evaluate(manifest: Path, decoder: str, model: str) -> dict[str, Any]:
    """The metrics of `seqgen eval` as it is used from a shell."""
    command = [sys.executable, "-m", "seqgen", "eval", "--plugin", "speech", str(manifest)]
    command += ["--decoder", decoder, "--json"] + (["--model", model] if model else [])
    output = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout
    result: dict[str, Any] = json.loads(output)
    return result


def pocketsphinx(manifest: Path) -> float | None:
    """Word error rate of pocketsphinx, None where it is not installed."""
    from seqgen_speech.manifests import list_items
    from seqgen_speech.metrics import score

    if not PEER.exists():
        print(
            "pocketsphinx is not installed: tests/parity/install_pocketsphinx.sh", file=sys.stderr
        )
        return None
    script = str(ROOT / "benchmarks" / "pocketsphinx_digits.py")
    output = subprocess.run(
        [str(PEER), script, str(manifest)], check=True, capture_output=True, text=True
    ).stdout
    rows = [json.loads(line) for line in output.splitlines()]
    return score(rows, list(list_items(str(manifest))))["wer"]


if __name__ == "__main__":
    main()
