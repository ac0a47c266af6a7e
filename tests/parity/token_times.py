"""Compares token times with those that FunASR's rule gave for the same weights and peaks."""

from __future__ import annotations

import numpy as np

from seqgen_speech.timestamps import firing_times


def compare(reference: dict[str, np.ndarray]) -> int:
    """Every case of `funasr_reference.py --kind timestamps`; returns how many there are."""
    cases = [name.removeprefix("times_") for name in reference if name.startswith("times_")]
    for case in cases:
        alphas, peaks = reference[f"alphas_{case}"], reference[f"peaks_{case}"]
        count, upsample = int(reference[f"count_{case}"]), int(reference[f"upsample_{case}"])
        ours = 1000 * np.asarray(firing_times(alphas, peaks, count, upsample=upsample))
        # FunASR cuts to whole milliseconds, and lets the first token begin before the audio.
        theirs = np.maximum(reference[f"times_{case}"], 0)
        np.testing.assert_allclose(ours, theirs, atol=1.01, err_msg=case)
    return len(cases)
