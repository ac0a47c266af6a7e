"""Preprocessing: Casanovo's steps, against a plain loop that spells them out."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqgen.errors import InputError
from seqgen_peptides.preprocess import PreprocessConfig, preprocess

PLAIN = PreprocessConfig(min_peaks=1)


def spelt_out(
    peaks: list[tuple[float, float]], precursor_mz: float, charge: int, config: PreprocessConfig
) -> list[tuple[float, float]]:
    """The steps, one peak at a time."""
    peaks = sorted(peaks, key=lambda peak: peak[0])
    kept = []
    for mz, intensity in peaks:
        mass = (precursor_mz - 1.007825) * charge
        near = [abs(mz - (mass / z + 1.007825)) <= 2 for z in range(1, charge + 1)]
        if config.min_mz <= mz <= config.max_mz and not any(near):
            kept.append((mz, float(np.sqrt(np.float32(intensity)))))
    highest = max((root for _, root in kept), default=0.0)
    kept = [(mz, root / highest) for mz, root in kept if highest and root / highest > 0.01]
    by_rank = sorted(range(len(kept)), key=lambda i: (kept[i][1], i), reverse=True)
    kept = [kept[i] for i in sorted(by_rank[: config.n_peaks])]
    norm = math.sqrt(sum(root**2 for _, root in kept))
    return [(mz, root / norm) for mz, root in kept]


@given(
    st.lists(
        st.tuples(
            st.floats(40, 2600),
            st.one_of(st.just(0.0), st.floats(2**-10, 1e6, width=32), st.integers(1, 3).map(float)),
        ),
        min_size=1,
        max_size=40,
    ),
    st.floats(100, 1500),
    st.integers(1, 4),
    st.integers(1, 20),
)
def test_steps(
    peaks: list[tuple[float, float]], precursor_mz: float, charge: int, n_peaks: int
) -> None:
    config = PreprocessConfig(min_peaks=1, n_peaks=n_peaks)
    expected = spelt_out(peaks, precursor_mz, charge, config)
    mz, intensity = (np.array(column) for column in zip(*peaks, strict=True))
    try:
        found = preprocess(mz, intensity.astype(np.float32), precursor_mz, charge, config)
    except InputError:
        assert not expected
        return
    assert [mz for mz, _ in expected] == found[0].tolist()
    np.testing.assert_allclose([i for _, i in expected], found[1], rtol=1e-5)
    assert (found[0].dtype, found[1].dtype) == (np.float64, np.float32)


def test_the_precursor_goes_at_every_charge() -> None:
    """At 3+ and m/z 500 the molecule also shows near 749.5 (2+) and 1498 (1+)."""
    mz = np.array([300.0, 498.5, 500.0, 501.9, 502.5, 749.4, 760.0, 1497.9])
    kept, _ = preprocess(mz, np.ones(8, dtype=np.float32), 500.0, 3, PLAIN)
    assert kept.tolist() == [300.0, 502.5, 760.0]
    wide = PreprocessConfig(min_peaks=1, precursor_window=0.0)
    assert len(preprocess(mz, np.ones(8, dtype=np.float32), 500.0, 3, wide)[0]) == 8


def test_order_and_equal_peaks() -> None:
    mz = np.array([300.0, 200.0, 300.0, 100.0])
    kept, intensity = preprocess(mz, np.array([1, 4, 9, 16], dtype=np.float32), 900.0, 2, PLAIN)
    assert kept.tolist() == [100.0, 200.0, 300.0, 300.0]
    np.testing.assert_allclose(intensity, np.array([4, 2, 1, 3]) / math.sqrt(30), rtol=1e-6)


def test_fifty_thousand_peaks_are_quick() -> None:
    rng = np.random.default_rng(0)
    mz = rng.uniform(50, 2000, 50_000)
    intensity = rng.exponential(size=50_000).astype(np.float32)
    started = time.process_time()
    kept, _ = preprocess(mz, intensity, 700.0, 2)
    assert time.process_time() - started < 0.5
    assert len(kept) == 150
    assert np.isin(kept, mz).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"charge": 0}, "charge is 0"),
        ({"charge": -2}, "charge is -2"),
        ({"charge": 12}, "charge 12 is above 4"),
        ({"mz": [], "intensity": []}, "no peaks"),
        ({"intensity": [1, 1, float("nan"), 1, 1, 1, 1]}, "intensity of peak 3 is nan"),
        ({"intensity": [1, 1, 1, -5, 1, 1, 1]}, "intensity of peak 4 is -5"),
        ({"mz": [100, float("inf"), 300, 400, 500, 600, 700]}, "m/z of peak 2 is inf"),
        ({"mz": [100, 200]}, "2 m/z values but 7 intensities"),
        ({"intensity": [0] * 7}, "no peak is left"),
        ({"mz": [1, 2, 3, 4, 5, 6, 7]}, "no peak is left"),
        ({"mz": [100, 200, 300, 400, 500, 0, 0]}, "too few peaks: 5"),
    ],
)
def test_what_cannot_be_used(change: dict[str, object], message: str) -> None:
    given = {
        "mz": [100, 200, 300, 400, 500, 600, 700], "intensity": [1] * 7, "charge": 2, **change
    }  # fmt: skip
    with pytest.raises(InputError, match=message):
        preprocess(
            np.array(given["mz"], dtype=np.float64),
            np.array(given["intensity"], dtype=np.float32),
            900.0,
            int(str(given["charge"])),
        )


def test_an_m_z_of_zero_is_no_harm() -> None:
    """Some converters pad their lists with zeros."""
    mz = np.array([0.0, 0.0, 100.0, 200.0])
    kept, _ = preprocess(mz, np.array([0, 0, 1, 1], dtype=np.float32), 900.0, 2, PLAIN)
    assert kept.tolist() == [100.0, 200.0]
