"""Theoretical ions, the peaks they explain, and the pictures."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqgen.errors import InputError
from seqgen_peptides.ions import Ion, ions, match, sites
from seqgen_peptides.masses import PROTON, WATER, to_mz
from seqgen_peptides.plots import annotated_spectrum, precision_chart
from seqgen_peptides.residues import Residues
from seqgen_peptides.spectra import SpectrumItem

RESIDUES = Residues()


def masses(peptide: str) -> list[float]:
    return [site.mass for site in sites(peptide, RESIDUES)]


def spectrum(of: str, charge: int = 2, **more: Any) -> SpectrumItem:
    """A spectrum of all ions of a peptide, out of order, with some noise."""
    mz = np.array([ion.mz for ion in ions(masses(of), charge)] + [333.3, 444.4])
    order = np.random.default_rng(0).permutation(len(mz))
    intensity = np.linspace(1, 2, len(mz), dtype=np.float32)
    mass = sum(masses(of)) + WATER
    given = {
        "title": "a $b$ c",
        "precursor_mz": to_mz(mass, charge),
        "charges": (charge,),
        "mz": mz[order],
        "intensity": intensity[order],
    } | more
    return SpectrumItem("a.mgf:index=0", Path("a.mgf"), "a.mgf", **given)


def row(peptide: str, **more: Any) -> dict[str, Any]:
    return {"id": "a.mgf:index=0", "status": "ok", "peptide": peptide, "score": 0.5} | more


def test_ions_of_a_peptide_worked_out_by_hand() -> None:
    found = {ion.label: ion.mz for ion in ions(masses("PEK"), 2)}
    assert found == {
        "b1": pytest.approx(98.0600, abs=1e-3),
        "b2": pytest.approx(227.1026, abs=1e-3),
        "y1": pytest.approx(147.1128, abs=1e-3),
        "y2": pytest.approx(276.1554, abs=1e-3),
    }
    charged = {ion.label for ion in ions(masses("PEK"), 5)}
    assert len(charged) == 12
    assert "y2$^{3+}$" in charged


@given(st.lists(st.sampled_from(RESIDUES.tokens[:23]), min_size=2, max_size=30))
def test_b_and_y_make_up_the_peptide(tokens: list[str]) -> None:
    peptide = "[Acetyl]-" + "".join(tokens)
    found = {(ion.series, ion.number): ion.mz for ion in ions(masses(peptide), 2)}
    whole = RESIDUES.mass(RESIDUES.encode(peptide))
    assert len(found) == 2 * (len(tokens) - 1)
    for cut in range(1, len(tokens)):
        pair = found["b", cut] + found["y", len(tokens) - cut]
        assert pair == pytest.approx(whole + 2 * PROTON)


def test_sites_carry_their_modifications() -> None:
    found = sites("[Acetyl]-AM[Oxidation]S[Phospho]K", RESIDUES)
    assert [site.letter for site in found] == list("AMSK")
    added = [42.010565, 15.994915, 79.966331, 0]
    assert [site.added for site in found] == pytest.approx(added, abs=1e-5)
    with pytest.raises(InputError, match="'K\\[Mine\\]'"):
        sites("K[Mine]", RESIDUES)


def test_an_ion_takes_the_highest_peak_that_is_near() -> None:
    ion = Ion("y", 1, 1, 500.0)
    mz = np.array([499.98, 499.995, 500.002, 500.02])
    (found,) = match([ion], mz, np.array([9.0, 1.0, 2.0, 9.0]))
    assert found.peak == 2
    assert found.error_ppm == pytest.approx(4.0)
    assert match([ion], mz, np.ones(4), tolerance_ppm=1.0) == []
    assert match([ion], np.array([]), np.array([])) == []


def pixels(picture: bytes) -> np.ndarray:
    from matplotlib.image import imread

    image = imread(BytesIO(picture), format="png")
    return np.asarray(image)[:, :, :3]


def coloured(picture: bytes, colour: str) -> int:
    """How many pixels have about this colour."""
    wanted = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return int((np.abs(pixels(picture) - wanted).max(axis=2) < 0.03).sum())


def test_explained_peaks_are_marked() -> None:
    from seqgen_peptides.plots import SERIES

    item = spectrum("PEPTM[Oxidation]K")
    right = annotated_spectrum(row("PEPTM[Oxidation]K", precursor_error_ppm=0.1), item)
    wrong = annotated_spectrum(row("GGGWGG"), item)
    assert pixels(right).shape == (930, 1500, 3)
    for colour in SERIES.values():
        assert coloured(right, colour) > 4 * coloured(wrong, colour)


@pytest.mark.parametrize(
    "item",
    [
        spectrum("PEPTIDEK", charges=(), precursor_mz=None),
        spectrum("PEPTIDEK", mz=np.array([]), intensity=np.array([], dtype=np.float32)),
        spectrum("PEPTIDEK", mz=np.array([500.0]), intensity=np.array([1.0], dtype=np.float32)),
        spectrum(
            "PEPTIDEK",
            mz=np.array([300.0, np.nan, 200.0, 400.0]),
            intensity=np.array([np.nan, 1, -1, 0], dtype=np.float32),
        ),
    ],
    ids=["no charge", "no peaks", "one peak", "bad peaks"],
)
def test_poor_spectra_are_drawn_all_the_same(item: SpectrumItem) -> None:
    for peptide in ("PEPTIDEK", "K"):
        assert annotated_spectrum(row(peptide), item).startswith(b"\x89PNG")


def test_a_long_peptide_and_many_peaks() -> None:
    rng = np.random.default_rng(0)
    peptide = "[Acetyl]-" + "".join(rng.choice(RESIDUES.tokens[:23], 40))
    mz = np.sort(rng.uniform(50, 2500, 50_000))
    intensity = rng.exponential(1, 50_000).astype(np.float32)
    item = spectrum(peptide, 4, mz=mz, intensity=intensity)
    picture = annotated_spectrum(row(peptide, id="x" * 200), item)
    assert picture.startswith(b"\x89PNG")


def test_the_same_row_gives_the_same_bytes() -> None:
    item = spectrum("PEPTIDEK")
    assert annotated_spectrum(row("PEPTIDEK"), item) == annotated_spectrum(row("PEPTIDEK"), item)


def test_the_chart() -> None:
    items = [
        spectrum("PEPTIDEK", 2 + number % 3, peptide="PEPTIDEK" + "A" * (number % 7))
        for number in range(12)
    ]
    rows: list[dict[str, Any]] = [row("PEPTLDEK", score=0.1 * n) for n in range(9)]
    rows += [{"id": "x", "status": "failed", "reason": "no peaks"}] * 3
    assert precision_chart(rows, items).startswith(b"\x89PNG")
    assert b"<svg" in precision_chart(rows, items, format="svg")
    failed = [{"id": "x", "status": "failed", "reason": "no peaks"}]
    assert precision_chart(failed, items[:1]).startswith(b"\x89PNG")
    with pytest.raises(InputError, match="no peptide"):
        precision_chart(failed, [spectrum("PEK")])


def test_real_spectra_show_most_breaks(shared_data: Path) -> None:
    """The published share for these spectra is 0.71 of the breaks; ours must not be far off."""
    from seqgen_peptides.readers import list_spectra, read_spectrum

    listed = list(list_spectra(str(shared_data / "peptides" / "real_valid.mgf")))
    seen = total = 0
    for item in map(read_spectrum, listed[::4]):
        assert item.peptide is not None
        assert item.mz is not None
        assert item.intensity is not None
        own = masses(item.peptide)
        expected = ions(own, item.charge or 2)
        found = match(expected, item.mz, item.intensity)
        cuts = {m.ion.number if m.ion.series == "b" else len(own) - m.ion.number for m in found}
        seen, total = seen + len(cuts), total + len(own) - 1
    assert 0.6 < seen / total < 0.95
