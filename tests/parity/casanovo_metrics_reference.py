"""Runs inside Casanovo's own environment: what its metrics say of pairs of peptides.

    .peers/casanovo/bin/python tests/parity/casanovo_metrics_reference.py < PAIRS.json > SAID.json

PAIRS.json holds `masses` (token -> Da) and `pairs`, each a reference and an answer as lists of
tokens (the answer may be null). SAID.json adds `marks` (a string of 0 and 1 a pair), `hits`, and
`aa_precision`, `aa_recall`, `peptide_precision` over all pairs. Imports nothing of seqgen.

tests/parity/golden/casanovo_metrics.json was made by casanovo 5.2.1 from what
`python tests/parity/test_casanovo_metrics.py` prints.
"""

from __future__ import annotations

import json
import sys

from casanovo.denovo.evaluate import aa_match_batch, aa_match_metrics


def main() -> None:
    """Read stdin, write stdout."""
    given = json.load(sys.stdin)
    truths, answers = zip(*given["pairs"], strict=True)
    batch = aa_match_batch(truths, answers, given["masses"])
    precision, recall, peptides = aa_match_metrics(*batch)
    said = {
        **given,
        "marks": ["".join(str(int(mark)) for mark in marks) for marks, _ in batch[0]],
        "hits": [bool(hit) for _, hit in batch[0]],
        "aa_precision": precision,
        "aa_recall": recall,
        "peptide_precision": peptides,
    }
    json.dump(said, sys.stdout)


if __name__ == "__main__":
    main()
