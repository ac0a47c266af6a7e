"""Word error rates on the development set: every decoder, beside pocketsphinx on the digits.

    python benchmarks/speech_wer.py [--data FOLDER] [--model CARD|PATH] [--json FILE]

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
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "speech")
    parser.add_argument("--model", default="")
    parser.add_argument("--json", type=Path, help="also write the result here")
    arguments = parser.parse_args()

    if not arguments.data.is_dir():
        print(f"skipped: no recordings at {arguments.data}; give --data FOLDER", file=sys.stderr)
        return

    import torch

    from seqgen.benchmark import print_result, result, write_result
    from seqgen_speech.corpus import write_development_set

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        prompts, digits = write_development_set(arguments.data, Path(temporary))
        known = with_known_words(prompts, arguments.data)
        rows: list[dict[str, Any]] = [
            {
                "case": decoder,
                "wer_digits": evaluate(digits, decoder, arguments.model)["wer"],
                "wer_prompts": evaluate(prompts, decoder, arguments.model)["wer"],
                "wer_prompts_known_words": evaluate(known, decoder, arguments.model)["wer"],
            }
            for decoder in DECODERS
        ]
        rows.append({"case": "pocketsphinx, digit grammar", "wer_digits": pocketsphinx(digits)})
    outcome = result(
        "speech_wer", [{k: v for k, v in row.items() if v is not None} for row in rows]
    )
    print_result(outcome)
    if arguments.json:
        write_result(outcome, arguments.json)


def with_known_words(manifest: Path, data: Path) -> Path:
    """The prompts of a manifest all of whose words occur in some training prompt."""
    from seqgen_speech.corpus import load_corpus

    known = {word for prompt in load_corpus(data).prompts for word in prompt.text.split()}
    lines = manifest.read_text().splitlines()
    kept = [line for line in lines if known.issuperset(json.loads(line)["target"].split())]
    path = manifest.with_name("dev-prompts-known.jsonl")
    path.write_text("".join(f"{line}\n" for line in kept))
    return path


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
