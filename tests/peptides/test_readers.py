"""Reading spectra: every format, plain and gzip, gives what pyteomics gives; nothing is held."""

from __future__ import annotations

import gzip
import io
import shutil
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyteomics import mgf, mzml, mzxml

from seqgen.errors import InputError
from seqgen_peptides.blocks import blocks
from seqgen_peptides.files import SpectrumFiles
from seqgen_peptides.mgf import MARK, charges_of
from seqgen_peptides.readers import list_spectra, read_spectrum
from seqgen_peptides.spectra import SpectrumItem

ONE = "BEGIN IONS\nTITLE={title}\nPEPMASS=500.25\n{more}100.5 1\n200.5 2.5\n300.5 4\nEND IONS\n\n"


def spectrum(title: str = "a", more: str = "CHARGE=2+\n") -> str:
    return ONE.format(title=title, more=more)


def listed(path: Path | str) -> list[SpectrumItem]:
    return list(list_spectra(str(path)))


def packed(path: Path, data: bytes) -> Path:
    with gzip.open(path, "wb") as file:
        file.write(data)
    return path


def same_spectra(items: list[SpectrumItem], expected: Iterator[dict[str, Any]]) -> None:
    files = SpectrumFiles()
    for item, known in zip(items, expected, strict=True):
        found = read_spectrum(item, files)
        assert found.mz is not None
        assert found.intensity is not None
        np.testing.assert_array_equal(found.mz, known["m/z array"])
        np.testing.assert_array_equal(found.intensity, known["intensity array"].astype(np.float32))


@pytest.fixture(params=["plain", "gzip"])
def form(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_mgf_is_what_pyteomics_reads(shared_data: Path, tmp_path: Path, form: str) -> None:
    path = shared_data / "peptides" / "real_valid.mgf"
    known = list(mgf.MGF(str(path)))
    if form == "gzip":
        path = packed(tmp_path / "real_valid.mgf.gz", path.read_bytes())
    items = listed(path)
    assert len(items) == 189
    assert items[3].id == f"{path.name}:index=3"
    assert items[3].reference == "index=3"
    for item, spectrum in zip(items, known, strict=True):
        params = spectrum["params"]
        assert item.problem is None
        assert item.precursor_mz == params["pepmass"][0]
        assert item.charges == (int(params["charge"][0]),)
        assert item.peptide == params["seq"]
        assert item.title == ""
        assert read_spectrum(item).title == params["title"]
    same_spectra(items, iter(known))


def test_mzml_is_what_pyteomics_reads(shared_data: Path, tmp_path: Path, form: str) -> None:
    path = shared_data / "peptides" / "hela_subset.mzML"
    with mzml.MzML(str(path)) as spectra:
        known = [s for s in spectra if s["ms level"] == 2]
    if form == "gzip":
        path = packed(tmp_path / "hela.mzML.gz", path.read_bytes())
    items = listed(path)
    assert len(items) == len(known) == 93
    for item, spectrum in zip(items, known, strict=True):
        ion = spectrum["precursorList"]["precursor"][0]["selectedIonList"]["selectedIon"][0]
        assert item.precursor_mz == ion["selected ion m/z"]
        assert item.charge == ion["charge state"]
        assert spectrum["id"].endswith(f" {item.reference}")
    assert read_spectrum(items[0]).title == known[0]["spectrum title"]
    same_spectra(items, iter(known))


def test_mzxml_is_what_pyteomics_reads(shared_data: Path, tmp_path: Path, form: str) -> None:
    path = shared_data / "peptides" / "pyteomics_test.mzXML"
    with mzxml.MzXML(str(path)) as spectra:
        known = [s for s in spectra if s["msLevel"] == 2]
    if form == "gzip":
        path = packed(tmp_path / "t.mzXML.gz", path.read_bytes())
    (item,) = listed(path)
    assert item.reference == "scan=20"
    assert (item.precursor_mz, item.charges) == (445.35, ())
    same_spectra([item], iter(known))


def test_scans_within_scans(shared_data: Path, tmp_path: Path) -> None:
    """mzXML may put the scans of level 2 into the scan that they come from."""
    text = (shared_data / "peptides" / "pyteomics_test.mzXML").read_text()
    first_end = text.index("</scan>")
    nested = text[:first_end] + text[first_end + len("</scan>") :]
    last = nested.rindex("</scan>")
    nested = nested[:last] + "</scan></scan>" + nested[last + len("</scan>") :]
    path = tmp_path / "nested.mzXML"
    path.write_text(nested)
    (item,) = listed(path)
    flat = listed(shared_data / "peptides" / "pyteomics_test.mzXML")[0]
    assert (item.reference, item.precursor_mz) == (flat.reference, flat.precursor_mz)
    np.testing.assert_array_equal(
        read_spectrum(item).mz,
        read_spectrum(flat).mz,  # type: ignore[arg-type]
    )


def test_parameters_in_groups(shared_data: Path, tmp_path: Path) -> None:
    """An mzML spectrum may refer to a group of parameters in the file's head."""
    text = (shared_data / "peptides" / "hela_subset.mzML").read_text()
    level = '<cvParam cvRef="MS" accession="MS:1000511" name="ms level" value="2"/>'
    assert text.count(level) == 93
    group = f'<referenceableParamGroup id="ms2">{level}</referenceableParamGroup>'
    text = text.replace(level, '<referenceableParamGroupRef ref="ms2"/>')
    text = text.replace("</referenceableParamGroupList>", group + "</referenceableParamGroupList>")
    path = tmp_path / "groups.mzML"
    path.write_text(text)
    assert len(listed(path)) == 93
    assert read_spectrum(listed(path)[5]).mz is not None


@pytest.mark.parametrize(
    ("text", "charges"),
    [
        ("2+", (2,)), ("+3", (3,)), ("4", (4,)), ("2+ and 3+", (2, 3)), ("2+, 3+ or 4+", (2, 3, 4)),
        ("2+,2+", (2,)), ("", ()), ("0", (0,)), ("12+", (12,)),
    ],
)  # fmt: skip
def test_charges(text: str, charges: tuple[int, ...]) -> None:
    assert charges_of(text) == charges


@pytest.mark.parametrize("text", ["2-", "-1", "two", "2.5+", "+2+"])
def test_charges_that_make_no_sense(text: str) -> None:
    with pytest.raises(InputError, match="charge"):
        charges_of(text)


def test_defaults_at_the_head_of_an_mgf(tmp_path: Path) -> None:
    path = tmp_path / "a.mgf"
    head = "# exported\n\nCOM=a = b\nCHARGE=2+ and 3+\n"
    path.write_text(head + spectrum(more="") + spectrum(more="CHARGE=4+\n"))
    assert [item.charges for item in listed(path)] == [(2, 3), (4,)]


def test_charge_behind_the_precursor_mass(tmp_path: Path) -> None:
    path = tmp_path / "a.mgf"
    path.write_text(spectrum(more="").replace("PEPMASS=500.25", "PEPMASS=500.25 1e6 3+"))
    (item,) = listed(path)
    assert (item.precursor_mz, item.charges) == (500.25, (3,))


def test_lines_of_windows_titles_in_latin_and_a_mark(tmp_path: Path) -> None:
    path = tmp_path / "a.mgf"
    text = spectrum("Probe Jäger") + spectrum("b")
    path.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert [read_spectrum(item).title for item in listed(path)] == ["Probe Jäger", "b"]
    path.write_bytes(text.encode("latin-1"))
    assert [read_spectrum(item).title for item in listed(path)] == ["Probe Jäger", "b"]


def test_the_format_is_told_by_content(shared_data: Path, tmp_path: Path) -> None:
    path = tmp_path / "spectra.txt"
    shutil.copyfile(shared_data / "peptides" / "hela_subset.mzML", path)
    assert len(listed(path)) == 93
    path.write_text(spectrum())
    assert len(listed(path)) == 1
    packed(path, spectrum().encode())
    assert len(listed(path)) == 1


def test_folders_and_patterns(tmp_path: Path) -> None:
    for name in ("b.mgf", "a.MGF", "deep/b.mgf", ".hidden.mgf", "notes.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(spectrum())
    packed(tmp_path / "c.mgf.gz", spectrum().encode())
    assert [item.id for item in listed(tmp_path)] == [
        "a.MGF:index=0", "b.mgf:index=0", "c.mgf.gz:index=0", "deep/b.mgf:index=0",
    ]  # fmt: skip
    assert [item.id for item in listed(tmp_path / "*" / "*.mgf")] == ["deep/b.mgf:index=0"]
    assert [item.id for item in listed(tmp_path / "deep" / "b.mgf")] == ["b.mgf:index=0"]


def test_standard_input_even_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    for data in (spectrum().encode(), gzip.compress(spectrum().encode())):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(Pipe(data)))
        files = SpectrumFiles(most=1)
        (item,) = list_spectra("-", files)
        assert item.id == "stdin:index=0"
        found = read_spectrum(item, files)
        assert found.mz is not None
        assert found.mz.tolist() == [100.5, 200.5, 300.5]


class Pipe(io.BytesIO):
    """A stream that can be read once."""

    def seekable(self) -> bool:
        return False


def test_more_files_than_are_kept_open(tmp_path: Path) -> None:
    for number in range(12):
        packed(tmp_path / f"{number:02}.mgf.gz", spectrum(str(number)).encode())
    files = SpectrumFiles(most=3)
    items = list(list_spectra(str(tmp_path), files))
    titles = [read_spectrum(item, files).title for item in reversed(items)]
    assert titles == [str(number) for number in reversed(range(12))]


def test_listing_holds_no_peaks(tmp_path: Path) -> None:
    """40 MB of peaks are listed with a few megabytes at most, and read one spectrum at a time."""
    peaks = "".join(f"{100 + i / 10:.4f} {i % 97}.125\n" for i in range(8000))
    path = tmp_path / "large.mgf"
    with path.open("w") as file:
        for number in range(320):
            file.write(spectrum(str(number)).replace("100.5 1\n", peaks))
    assert path.stat().st_size > 40e6
    tracemalloc.start()
    try:
        files = SpectrumFiles()
        items = list(list_spectra(str(path), files))
        read_spectrum(items[200], files)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(items) == 320
    assert peak < 16e6


@given(
    st.lists(st.tuples(st.text("ab \r", max_size=40), st.booleans(), st.booleans()), max_size=12),
    st.integers(1, 64),
)
def test_blocks_do_not_depend_on_chunks(parts: list[tuple[str, bool, bool]], chunk: int) -> None:
    """Marks, and only those alone on their line, whatever the size of the reads."""
    text = "".join(
        ("BEGIN IONS\n" if begin else "x BEGIN IONS\n")
        + f"{body}\n"
        + ("END IONS\n" if end else "")
        for body, begin, end in parts
    )
    data = text.encode()
    found = list(blocks(io.BytesIO(data), MARK, chunk=chunk))
    assert found == list(blocks(io.BytesIO(data), MARK, chunk=1 << 20))
    begins = sum(begin for _, begin, _ in parts)
    assert len(found) == begins
    for block in found:
        assert data[block.offset :].startswith(b"BEGIN IONS")
        assert data[block.offset : block.offset + len(block.data)] == block.data
        assert block.data.count(b"\nEND IONS") == (block.ended == "closed")
