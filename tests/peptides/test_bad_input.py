"""What a user can get wrong: each spectrum or file gets its reason, and the others are done."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

Seqgen = Callable[..., Any]
Run = Callable[..., tuple[int, dict[str, dict[str, Any]], str]]

GOOD_PEAKS = "".join(f"{90 + 37.1 * i:.2f} {1 + i % 5}\n" for i in range(30))


def entry(peaks: str = GOOD_PEAKS, **fields: str) -> str:
    lines = {"TITLE": "t", "PEPMASS": "626.79913", "CHARGE": "2+", **fields}
    head = "".join(f"{key}={value}\n" for key, value in lines.items() if value)
    return f"BEGIN IONS\n{head}{peaks}END IONS\n\n"


@pytest.fixture
def run(seqgen: Seqgen, random_peptides: Path) -> Run:
    """Sequences sources by greedy decoding: the exit code, the rows by id, the messages."""

    def call(*sources: object) -> tuple[int, dict[str, dict[str, Any]], str]:
        model = ("--model", random_peptides, "--decoder", "ar")
        done = seqgen("run", "--plugin", "peptides", *model, *sources)
        assert "Traceback" not in done.err
        rows = [json.loads(line) for line in done.out.splitlines()]
        return done.code, {row["id"]: row for row in rows}, done.err

    return call


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (entry(PEPMASS=""), "states no precursor m/z; no PEPMASS line"),
        (entry(PEPMASS="0"), "precursor m/z is 0"),
        (entry(PEPMASS="nan"), "precursor m/z is nan"),
        (entry(PEPMASS="626,8"), "PEPMASS=626,8 is no number"),
        (entry(CHARGE="0"), "charge is 0"),
        (entry(CHARGE="12+"), "charge 12 is above 4"),
        (entry(CHARGE="2-"), "charge is negative"),
        (entry(CHARGE="two"), "charge 'two' cannot be read"),
        (entry(""), "has no peaks"),
        (entry("100 1\n200 1\n300 1\n"), "too few peaks: 3"),
        (entry(GOOD_PEAKS + "500.5 nan\n"), "intensity of peak 31 is nan"),
        (entry(GOOD_PEAKS + "500.5 -3\n"), "intensity of peak 31 is -3"),
        (entry(GOOD_PEAKS + "inf 3\n"), "m/z of peak 31 is inf"),
        (entry("nan 3\n" + GOOD_PEAKS), "m/z of peak 1 is nan"),
        (entry(PEPMASS="1e300"), "precursor's mass is 2e+300 Da"),
        (entry(GOOD_PEAKS + "500.5\n"), "31 m/z values but 30 intensities"),
        (entry(GOOD_PEAKS + "500.5 much\n"), "its peaks cannot be read"),
        (entry().replace("END IONS", ""), "no END IONS before the next BEGIN IONS"),
    ],
)
def test_a_bad_spectrum_is_a_failed_row(run: Run, bad: str, reason: str) -> None:
    Path("a.mgf").write_text(entry() + bad + entry(SEQ="PEPTLDEK"))
    code, rows, err = run("a.mgf")
    assert code == 1
    assert list(rows) == ["a.mgf:index=0", "a.mgf:index=1", "a.mgf:index=2"]
    assert [row["status"] for row in rows.values()] == ["ok", "failed", "ok"]
    assert reason in rows["a.mgf:index=1"]["reason"]
    assert "a.mgf:index=1" in err
    assert rows["a.mgf:index=0"]["peptide"] == rows["a.mgf:index=2"]["peptide"]


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("empty.mgf", b"", "empty.mgf is empty (0 bytes)"),
        ("blank.mgf", b"\n\n \n", "is blank"),
        ("words.txt", b"no spectra here\n", "MGF, mzML and mzXML are read"),
        ("table.mgf", b"a,b\n1,2\n", "neither BEGIN IONS nor <mzML>"),
        ("spectra.raw", b"\x01\xa1F\0i\0n\0n\0i\0g\0a\0n\0", "Thermo RAW file"),
        ("spectra.zip", b"PK\x03\x04xx", "zip archive"),
        ("cut.mgf.gz", gzip.compress(b"BEGIN IONS\n")[:12], "could not be unpacked"),
        ("none.mzML", b'<?xml version="1.0"?><mzML><run><spectrumList>'
                      b"</spectrumList></run></mzML>", "no spectra of MS level 2"),
    ],
)  # fmt: skip
def test_a_bad_file_among_good_ones(run: Run, name: str, data: bytes, reason: str) -> None:
    Path(name).write_bytes(data)
    Path("good.mgf").write_text(entry())
    code, rows, _ = run("good.mgf", name, "good.mgf")
    assert code == 1
    assert rows[name]["status"] == "failed"
    assert reason in rows[name]["reason"]
    assert [rows[i]["status"] for i in ("good.mgf:index=0", "good.mgf:index=0#2")] == ["ok", "ok"]


def test_a_bad_file_in_a_folder(run: Run) -> None:
    Path("all").mkdir()
    Path("all/a.mgf").write_text(entry())
    Path("all/b.mgf").write_bytes(b"")
    Path("all/c.mgf").symlink_to("nowhere")
    Path("all/d.mgf").write_text(entry())
    code, rows, _ = run("all")
    assert code == 1
    assert {key: row["status"] for key, row in rows.items()} == {
        "a.mgf:index=0": "ok", "b.mgf": "failed", "d.mgf:index=0": "ok",
    }  # fmt: skip


def test_a_missing_file_gets_a_suggestion(run: Run) -> None:
    Path("spectra.mgf").write_text(entry())
    code, rows, _ = run("spectre.mgf")
    assert code == 1
    assert "did you mean spectra.mgf?" in rows["spectre.mgf"]["reason"]


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_a_damaged_gzip_file(run: Run, damage: str) -> None:
    """What comes before the break is decoded; the break has a row of its own."""
    rng = np.random.default_rng(0)
    noise = ["".join(f"{x:.4f} {x:.3f}\n" for x in 100 + 1000 * rng.random(200)) for _ in range(20)]
    data = bytearray(gzip.compress("".join(entry(peaks) for peaks in noise).encode()))
    half = len(data) // 2
    if damage == "cut":
        del data[half:]
    else:
        data[half : half + 64] = bytes(64)
    Path("a.mgf.gz").write_bytes(data)
    code, rows, _ = run("a.mgf.gz")
    states = [row["status"] for row in rows.values()]
    assert code == 1
    assert 5 < len(states) < 20
    assert "could not be unpacked" in list(rows.values())[-1]["reason"]
    assert states[:5] == ["ok"] * 5
    assert states[-1] == "failed"
    if damage == "cut":
        assert states == ["ok"] * (len(states) - 1) + ["failed"]


def test_a_file_that_ends_within_a_spectrum(run: Run) -> None:
    Path("a.mgf").write_text(entry() + entry()[:-60])
    code, rows, _ = run("a.mgf")
    assert code == 1
    assert [row["status"] for row in rows.values()] == ["ok", "failed"]
    assert "ends within this spectrum" in rows["a.mgf:index=1"]["reason"]


@pytest.mark.parametrize("cut", [0.5, 0.9])
def test_a_cut_mzml_file(run: Run, shared_data: Path, cut: float) -> None:
    data = (shared_data / "peptides" / "hela_subset.mzML").read_bytes()
    end = data.index(b"<chromatogramList")
    # Few spectra are enough, and few tests should take long.
    first = [i for i in range(end) if data.startswith(b"<spectrum ", i)][6]
    Path("a.mzML").write_bytes(data[: first + int(cut * 4000)])
    code, rows, _ = run("a.mzML")
    states = [row["status"] for row in rows.values()]
    assert code == 1
    assert states.count("ok") >= 3
    assert "failed" in states[-2:]
    assert any("end" in row.get("reason", "") for row in rows.values())


def test_a_failed_row_says_which_spectrum_it_is(run: Run, shared_data: Path) -> None:
    Path("a.mgf").write_text(entry("", TITLE="mine", CHARGE="3+"))
    _, rows, _ = run("a.mgf", "nowhere.mgf")
    row = rows["a.mgf:index=0"]
    assert row["status"] == "failed"
    known = {"title": "mine", "charge": 3, "precursor_mz": 626.79913, "file": "a.mgf",
             "spectra_ref": "index=0"}  # fmt: skip
    assert known.items() <= row.items()
    assert rows["nowhere.mgf"]["status"] == "failed"
    mzml = shared_data / "peptides" / "hela_subset.mzML"
    _, rows, _ = run(mzml, "--limit", "1", "--set", "min_peaks=500")
    (row,) = rows.values()
    assert "too few peaks" in row["reason"]
    assert row["title"].startswith("20101224_Velos1_TaGe_SA_HeLa_04.27302")


def test_a_damaged_spectrum_within_an_mzml_file(run: Run, shared_data: Path) -> None:
    data = (shared_data / "peptides" / "hela_subset.mzML").read_text()
    scans = ["scan=27302", "scan=27303", "scan=27304"]
    begin = data.index(f'{scans[1]}"')
    binary = data.index("<binary>", begin)
    damaged = data[: binary + 8] + "&&&&" + data[binary + 12 :]
    stop = damaged.index("<spectrum ", damaged.index(f'{scans[2]}"'))
    Path("a.mzML").write_text(damaged[:stop] + "</spectrumList></run></mzML></indexedmzML>")
    code, rows, _ = run("a.mzML")
    assert code == 1
    states = {key.partition(":")[2]: row["status"] for key, row in rows.items()}
    assert states == dict(zip(scans, ["ok", "failed", "ok"], strict=True))
    assert "cannot be read" in rows[f"a.mzML:{scans[1]}"]["reason"]


def test_fifty_thousand_peaks(run: Run) -> None:
    rng = np.random.default_rng(0)
    peaks = "".join(f"{x:.4f} {y:.3f}\n" for x, y in 50 + 1900 * rng.random((50_000, 2)))
    Path("a.mgf").write_text(entry(peaks) + entry())
    started = time.process_time()
    code, rows, _ = run("a.mgf")
    assert time.process_time() - started < 10
    assert code == 0
    assert [row["status"] for row in rows.values()] == ["ok", "ok"]


def test_the_same_title_twice(run: Run) -> None:
    Path("a.mgf").write_text(entry(TITLE="same") + entry(TITLE="same"))
    code, rows, _ = run("a.mgf")
    assert code == 0
    assert [row["title"] for row in rows.values()] == ["same", "same"]


def test_an_unknown_modification_is_decoded_but_not_scored(
    run: Run, seqgen: Seqgen, random_peptides: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = entry(SEQ="PEPTLDEK") + entry(SEQ="PEPT[Nonsense]LDEK")
    Path("a.mgf").write_text(text)
    code, rows, _ = run("a.mgf")
    assert (code, [row["status"] for row in rows.values()]) == (0, ["ok", "ok"])
    model = ("--model", random_peptides, "--decoder", "ar")
    done = seqgen("eval", "--plugin", "peptides", *model, "a.mgf", "--json")
    metrics = json.loads(done.out)
    assert done.code == 0
    assert metrics["unreadable_references"] == 1
    assert metrics["items"] == 2
    assert "reference of a.mgf:index=1 not scored" in caplog.text
    assert "Nonsense" in caplog.text


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("precursor_tol_ppm=0", ["'precursor_tol_ppm'", "0.001"]),
        ("isotope_low=2", ["isotope_low=2 is above isotope_high=1"]),
        ("min_length=50", ["min_length=50 is above max_length=40"]),
        ("beam=3", ["did you mean 'beams'"]),
        ("unknown_charges=2,x", ["'unknown_charges'"]),
    ],
)
def test_wrong_options(
    seqgen: Seqgen, random_peptides: Path, setting: str, expected: list[str]
) -> None:
    Path("a.mgf").write_text(entry())
    model = ("--model", random_peptides)
    done = seqgen("run", "--plugin", "peptides", *model, "a.mgf", "--set", setting)
    assert (done.code, done.out) == (2, "")
    for text in expected:
        assert text in done.err
