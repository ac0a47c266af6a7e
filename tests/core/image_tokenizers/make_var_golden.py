"""Cuts the quantizer's numbers out of a golden file of VAR on rule-made weights.

    python tests/core/image_tokenizers/make_var_golden.py var_tiny.npz

The weights are not in the file: `var_golden.rule_weight` makes them from a name's rank.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

KEPT = ("fq", "fq_idx", "fq_fhat", "encoded", "idx", "var_input")
PREFIX = "quantize."


def main(source: Path) -> None:
    with np.load(source) as file:
        keys = [str(key) for key in file["vae_keys"]]
        kept = {name: file[name] for name in KEPT}
    names = [key for key in keys if key.startswith(PREFIX)]
    ranks = [keys.index(name) for name in names]
    target = Path(__file__).with_name("var_quantizer.npz")
    np.savez_compressed(target, names=np.array(names), ranks=np.array(ranks), **kept)
    print(target, target.stat().st_size, "bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
