"""Image tokens by diagonals, ours against the published NAR code: same weights, one thread.

    NAR_SRC=path/to/NAR python benchmarks/nar_speed.py [--json FILE]

As llamagen_speed.py, with one layer and one output more: 15 passes instead of 64.
"""

from __future__ import annotations

from llamagen_speed import compare

from seqgen_images.official import nar


def main() -> None:
    compare("nar_speed", "nar", nar.from_state, __doc__ or "")


if __name__ == "__main__":
    main()
